//! Disruption: how many pods of a PodDisruptionBudget may be evicted just now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::Resource as _;
use slipway_api::{
    apps::{Deployment, ReplicaSet, StatefulSet},
    core::{Pod, ReplicationController},
    jiff::{SignedDuration, Timestamp},
    meta::{Condition, Time},
    policy::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    selector::Selector,
};

use crate::{
    caches::Caches,
    claim::matches,
    deployment::resolve,
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};

/// An eviction that was allowed should be seen as a deletion by then; else it did not happen, and is given back.
const DISRUPTED_MAX: SignedDuration = SignedDuration::from_secs(120);

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let own = queue.clone();
        caches.pod_disruption_budgets.on_change(move |_, new| {
            if let Some(budget) = new {
                own.add(budget.key());
            }
        });
        let (of_pods, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.pods.on_change(move |old, new| {
            let Some(caches) = weak.upgrade() else { return };
            let Some(pod) = new.or(old) else { return };
            for budget in caches.pod_disruption_budgets.in_namespace(pod.namespace()) {
                let Some(selector) = selector(&budget) else { continue };
                if [old, new].into_iter().flatten().any(|pod| matches(&selector, &pod.metadata)) {
                    of_pods.add(budget.key());
                }
            }
        });
        let all_in = |queue: &Arc<Queue>, weak: &std::sync::Weak<Caches>, namespace: &str| {
            if let Some(caches) = weak.upgrade() {
                caches.pod_disruption_budgets.in_namespace(namespace).iter().for_each(|budget| queue.add(budget.key()));
            }
        };
        let (of_sets, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.replica_sets.on_change(move |old, new| {
            if old.map(|set| set.spec.replicas) != new.map(|set| set.spec.replicas)
                && let Some(set) = new.or(old)
            {
                all_in(&of_sets, &weak, set.namespace());
            }
        });
        let (of_stateful, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.stateful_sets.on_change(move |old, new| {
            if old.map(|set| set.spec.replicas) != new.map(|set| set.spec.replicas)
                && let Some(set) = new.or(old)
            {
                all_in(&of_stateful, &weak, set.namespace());
            }
        });
        let (of_controllers, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.replication_controllers.on_change(move |old, new| {
            let replicas = |one: Option<&Arc<ReplicationController>>| one.and_then(|one| one.spec.as_ref()?.replicas);
            if replicas(old) != replicas(new)
                && let Some(controller) = new.or(old)
            {
                all_in(&of_controllers, &weak, controller.namespace());
            }
        });
        let (of_deployments, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.deployments.on_change(move |old, new| {
            if old.map(|deployment| deployment.spec.replicas) != new.map(|deployment| deployment.spec.replicas)
                && let Some(deployment) = new.or(old)
            {
                all_in(&of_deployments, &weak, deployment.namespace());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(budget) = situation.caches.pod_disruption_budgets.get(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&budget, situation.caches, situation.now))
    }
}

fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Some(Selector::from(budget.spec.as_ref()?.selector.as_ref()?))
}

fn plan(budget: &PodDisruptionBudget, caches: &Caches, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut pods = caches.pods.in_namespace(budget.namespace());
    pods.retain(|pod| selector(budget).is_some_and(|selector| matches(&selector, &pod.metadata)));
    let old = budget.status.clone().unwrap_or_default();
    let (disrupted, next) = disrupted(&old, &pods, now);
    if let Some(at) = next {
        plan.again_at(now, at);
    }
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: Some(disrupted.clone()).filter(|pods| !pods.is_empty()),
        ..old.clone()
    };
    match expectation(budget, &pods, caches) {
        Ok((expected, desired)) => {
            let healthy = |pod: &&Arc<Pod>| !pod.is_deleted() && pods::is_ready(pod) && !disrupted.contains_key(pod.name());
            let current = pods.iter().filter(healthy).count() as i32;
            let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
            status.current_healthy = Some(current);
            status.desired_healthy = Some(desired);
            status.expected_pods = Some(expected);
            status.disruptions_allowed = Some(allowed);
            let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            set_allowed(&mut status, value, reason, String::new(), now);
        }
        Err(why) => {
            // Nothing is known, so nothing may be disturbed.
            status.disruptions_allowed = Some(0);
            for unknown in [&mut status.current_healthy, &mut status.desired_healthy, &mut status.expected_pods] {
                unknown.get_or_insert(0);
            }
            set_allowed(&mut status, "False", "SyncFailed", why, now);
        }
    }
    plan.push(Step::update_status(budget, &PodDisruptionBudget { status: Some(status), ..budget.clone() }));
    plan
}

/// The evictions that are under way, and when the next of them is given up.
fn disrupted(
    status: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Timestamp>) {
    let standing: BTreeSet<&str> = pods.iter().filter(|pod| !pod.is_deleted()).map(|pod| pod.name()).collect();
    let mut kept = status.disrupted_pods.clone().unwrap_or_default();
    kept.retain(|name, since| standing.contains(name.as_str()) && since.0 + DISRUPTED_MAX > now);
    let next = kept.values().map(|since| since.0 + DISRUPTED_MAX).min();
    (kept, next)
}

/// (expected pods, of which have to be healthy)
fn expectation(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], caches: &Caches) -> Result<(i32, i32), String> {
    let spec = budget.spec.clone().unwrap_or_default();
    if let Some(max) = &spec.max_unavailable {
        let expected = scale(pods, caches)?;
        return Ok((expected, (expected - resolve(Some(max), expected, true)).max(0)));
    }
    match &spec.min_available {
        Some(min @ slipway_api::IntOrString::String(_)) => {
            let expected = scale(pods, caches)?;
            Ok((expected, resolve(Some(min), expected, true)))
        }
        min => Ok((pods.len() as i32, resolve(min.as_ref(), 0, true))),
    }
}

/// What the controllers of the pods are asked for: pods that are missing count, too.
fn scale(pods: &[Arc<Pod>], caches: &Caches) -> Result<i32, String> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let missing = || format!("found no controllers for pod \"{}\"", pod.name());
        let owner = controller_of(&pod.metadata).ok_or_else(missing)?;
        if owner.kind == ReplicationController::KIND {
            let controller = caches.replication_controllers.get(&Key::new(pod.namespace(), &owner.name));
            let controller = controller.filter(|controller| controller.uid() == owner.uid).ok_or_else(missing)?;
            let replicas = controller.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            scales.insert(controller.uid().to_owned(), replicas);
            continue;
        }
        if owner.kind == StatefulSet::KIND {
            let set = caches.stateful_sets.get(&Key::new(pod.namespace(), &owner.name));
            let set = set.filter(|set| set.uid() == owner.uid).ok_or_else(missing)?;
            scales.insert(set.uid().to_owned(), set.spec.replicas.unwrap_or(1));
            continue;
        }
        let set = caches.replica_sets.get(&Key::new(pod.namespace(), &owner.name));
        let set = set.filter(|set| owner.kind == ReplicaSet::KIND && set.uid() == owner.uid).ok_or_else(missing)?;
        let above = controller_of(&set.metadata).filter(|owner| owner.kind == Deployment::KIND);
        let deployment = above.and_then(|owner| {
            let deployment = caches.deployments.get(&Key::new(pod.namespace(), &owner.name));
            deployment.filter(|deployment| deployment.uid() == owner.uid)
        });
        match deployment {
            Some(deployment) => scales.insert(deployment.uid().to_owned(), deployment.spec.replicas.unwrap_or(1)),
            None => scales.insert(set.uid().to_owned(), set.spec.replicas.unwrap_or(1)),
        };
    }
    Ok(scales.into_values().sum())
}

fn set_allowed(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: String, now: Timestamp) {
    let generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == "DisruptionAllowed" && condition.status == value);
    let transition = known.map_or(Time(now), |known| known.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: value.into(),
        reason: reason.into(),
        message,
        observed_generation: generation,
        last_transition_time: transition,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::{Expect, expect};

    fn check(budget: &str, expected: Expect) {
        for kind in ["ReplicaSet", "StatefulSet"] {
            check_with(kind, budget, &expected);
        }
    }

    fn check_with(kind: &str, budget: &str, expected: &Expect) {
        let mut world = World::default();
        let set = "{metadata: {name: web}, spec: {replicas: 5, selector: {matchLabels: {app: web}}, template: {}}}";
        match kind {
            "ReplicaSet" => drop(world.put::<ReplicaSet>(set)),
            _ => drop(world.put::<StatefulSet>(set)),
        }
        for (name, ready) in [("a", "True"), ("b", "True"), ("c", "True"), ("d", "False")] {
            world.put::<Pod>(&format!(
                "{{metadata: {{name: {name}, labels: {{app: web}}, ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, \
                 name: web, uid: uid-web, controller: true}}]}}, status: {{phase: Running, conditions: [{{type: Ready, status: '{ready}'}}]}}}}"
            ));
        }
        world.put::<PodDisruptionBudget>(&format!(
            "{{metadata: {{name: web}}, spec: {{selector: {{matchLabels: {{app: web}}}}, {budget}}}, \
             status: {{disruptedPods: {{a: '2026-01-01T00:00:00Z', gone: '2026-01-01T00:00:00Z'}}}}}}"
        ));
        world.pass(30);
        let key = Key::new("default", "web");
        let plan = world.plan(&Controller, &key);
        plan.steps.iter().for_each(|step| world.apply(step));
        assert!(world.plan(&Controller, &key).is_empty());
        let status = world.get::<PodDisruptionBudget>(&key).status.clone().unwrap();
        let number = |number: Option<i32>| number.unwrap_or(-1);
        let reason = &status.conditions.as_ref().unwrap()[0].reason;
        expected.assert_eq(&format!(
            "{} of {} healthy, {} needed, {} allowed: {reason}",
            number(status.current_healthy),
            number(status.expected_pods),
            number(status.desired_healthy),
            number(status.disruptions_allowed)
        ));
    }

    #[test]
    fn budgets_count_what_the_controller_is_asked_for() {
        check("minAvailable: 1", expect!["2 of 4 healthy, 1 needed, 1 allowed: SufficientPods"]);
        check("minAvailable: 50%", expect!["2 of 5 healthy, 3 needed, 0 allowed: InsufficientPods"]);
        check("maxUnavailable: 1", expect!["2 of 5 healthy, 4 needed, 0 allowed: InsufficientPods"]);
        check("maxUnavailable: 80%", expect!["2 of 5 healthy, 1 needed, 1 allowed: SufficientPods"]);
    }
}
