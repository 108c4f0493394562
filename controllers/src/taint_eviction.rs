//! Taint eviction: pods leave a node with a NoExecute taint, at once or as late as they tolerate it.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::{
    core::{Node, Pod, PodCondition, Taint, Toleration},
    jiff::{SignedDuration, Timestamp},
    meta::Time,
    toleration::tolerates,
};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let of_pods = queue.clone();
        caches.pods.on_change(move |old, new| {
            if let Some(pod) = new.filter(|pod| old.is_none_or(|old| pods::node(old) != pods::node(pod))) {
                of_pods.add(pod.key());
            }
        });
        let (of_nodes, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.nodes.on_change(move |old, new| {
            let (Some(node), Some(caches)) = (new, weak.upgrade()) else { return };
            if old.map(|old| no_execute(old)).unwrap_or_default() != no_execute(node) {
                caches.pods.indexed(node.name()).iter().for_each(|pod| of_nodes.add(pod.key()));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let caches = situation.caches;
        let Some(pod) = caches.pods.get(key) else { return Ok(Plan::nothing()) };
        let Some(node) = caches.nodes.get(&Key::new("", pods::node(&pod))) else { return Ok(Plan::nothing()) };
        Ok(plan(&pod, &no_execute(&node), situation.now))
    }
}

fn no_execute(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").collect()
}

fn plan(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if taints.is_empty() || !pods::is_active(pod) {
        return plan;
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or(&[]);
    match leaves_at(tolerations, taints, now) {
        None => {}
        Some(at) if at > now => plan.again_at(now, at),
        Some(_) => {
            plan.push(Step::update_status(pod, &with_disruption_target(pod, now)));
            let message = format!("Marking for deletion Pod {}", pod.key());
            plan.push(Step::event(pod, "TaintManagerEviction", message));
            plan.push(Step::delete(pod, "its node has a taint that it does not tolerate"));
        }
    }
    plan
}

/// When the pod has to go; `None` if it may stay.
fn leaves_at(tolerations: &[Toleration], taints: &[&Taint], now: Timestamp) -> Option<Timestamp> {
    let mut leaves: Option<Timestamp> = None;
    for taint in taints {
        let mut using = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if using.peek().is_none() {
            return Some(now);
        }
        if let Some(seconds) = using.filter_map(|toleration| toleration.toleration_seconds).min() {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let at = since + SignedDuration::from_secs(seconds.max(0));
            leaves = Some(leaves.map_or(at, |earlier| earlier.min(at)));
        }
    }
    leaves
}

fn with_disruption_target(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByTaintManager".into()),
        message: Some("Taint manager: deleting due to NoExecute taint".into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::{Expect, expect};

    fn check(tolerations: &str, second: i64, expected: Expect) {
        let mut world = World::default();
        world.put::<Node>(
            "{metadata: {name: a}, spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T00:00:00Z'}]}}",
        );
        world.put::<Pod>(&format!(
            "{{metadata: {{name: web}}, spec: {{nodeName: a, containers: [], tolerations: [{tolerations}]}}}}"
        ));
        world.pass(second);
        world.check(&Controller, &Key::new("default", "web"), expected);
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_the_taint() {
        let toleration = "{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}";
        check(
            "",
            0,
            expect![[r#"
            patch Pod default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
            event Normal TaintManagerEviction: Marking for deletion Pod default/web
            delete Pod default/web (its node has a taint that it does not tolerate)
        "#]],
        );
        check(
            toleration,
            100,
            expect![[r#"
            again in 201s
        "#]],
        );
        check(
            toleration,
            301,
            expect![[r#"
            patch Pod default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:05:01Z","message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
            event Normal TaintManagerEviction: Marking for deletion Pod default/web
            delete Pod default/web (its node has a taint that it does not tolerate)
        "#]],
        );
        check("{operator: Exists}", 301, expect![[""]]);
    }
}
