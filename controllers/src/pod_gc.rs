//! Pod garbage: pods of nodes that no longer exist, pods that were deleted before any node had them, and too many ended ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use http::Request;
use kube::Client;
use parking_lot::Mutex;
use slipway_api::{
    core::{Pod, PodCondition},
    jiff::{SignedDuration, Timestamp},
    meta::Time,
};

use crate::{
    caches::Caches,
    plan::{Delete, Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

const PERIOD: Duration = Duration::from_secs(20);
/// A node may be registered anew at once: its pods are not given up before this time is over.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// All pods are looked at together.
const ALL: &str = "pods";

pub struct Controller {
    pub client: Client,
    pub terminated_max: usize,
    missing: Mutex<BTreeMap<String, Timestamp>>,
}

impl Controller {
    pub fn new(client: Client, terminated_max: usize) -> Controller {
        Controller { client, terminated_max, missing: Mutex::default() }
    }

    /// The nodes that pods are bound to, and that have been missing for the time of quarantine.
    fn long_missing(&self, pods: &[Arc<Pod>], caches: &Caches, now: Timestamp) -> BTreeSet<String> {
        let named: BTreeSet<&str> = pods.iter().map(|pod| pods::node(pod)).filter(|node| !node.is_empty()).collect();
        let gone = named.into_iter().filter(|node| caches.nodes.get(&Key::new("", *node)).is_none());
        let mut missing = self.missing.lock();
        let since: BTreeMap<String, Timestamp> =
            gone.map(|node| (node.to_owned(), missing.get(node).copied().unwrap_or(now))).collect();
        *missing = since;
        missing.iter().filter(|(_, since)| **since + QUARANTINE <= now).map(|(node, _)| node.clone()).collect()
    }

    async fn exists(&self, node: &str) -> Result<bool, kube::Error> {
        let path = slipway_api::core::Node::resource().path(&Key::new("", node), None);
        let request = Request::get(path).body(vec![]).map_err(kube::Error::HttpError)?;
        match self.client.request_text(request).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        // Once there is a pod at all it looks again by itself.
        let queue = queue.clone();
        caches.pods.on_change(move |old, _| {
            if old.is_none() {
                queue.add_after(Key::new("", ALL), PERIOD);
            }
        });
    }

    async fn plan(&self, _: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let pods = situation.caches.pods.list();
        let mut lost = BTreeSet::new();
        for node in self.long_missing(&pods, situation.caches, situation.now) {
            if !self.exists(&node).await? {
                lost.insert(node);
            }
        }
        let mut plan = plan(&pods, &lost, self.terminated_max, situation.now);
        if !pods.is_empty() {
            plan.again_in(PERIOD);
        }
        Ok(plan)
    }
}

fn plan(pods: &[Arc<Pod>], lost: &BTreeSet<String>, terminated_max: usize, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    for pod in pods {
        if lost.contains(pods::node(pod)) {
            if !pods::is_terminal(pod) {
                plan.push(Step::update_status(&**pod, &failed(pod, now)));
            }
            plan.push(force(pod, "its node no longer exists"));
        } else if pod.is_deleted() && pods::node(pod).is_empty() {
            plan.push(force(pod, "deleted before it was scheduled"));
        }
    }
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pods::is_terminal(pod) && !pod.is_deleted()).collect();
    if let Some(surplus) = ended.len().checked_sub(terminated_max) {
        ended.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.key()));
        plan.steps.extend(ended.iter().take(surplus).map(|pod| force(pod, "too many ended pods")));
    }
    plan
}

fn force(pod: &Pod, why: &'static str) -> Step {
    let Step::Delete(delete) = Step::delete(pod, why) else { unreachable!("delete makes a Delete") };
    Step::Delete(Delete { grace_seconds: Some(0), ..delete })
}

fn failed(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Failed".into());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByPodGC".into()),
        message: Some("PodGC: node no longer exists".into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn pod(yaml: &str) -> Arc<Pod> {
        let mut pod: Pod = serde_saphyr::from_str(yaml).unwrap();
        pod.metadata.namespace = Some("default".into());
        Arc::new(pod)
    }

    #[test]
    fn what_nobody_cares_for_any_more_goes() {
        let pods = [
            pod("{metadata: {name: lost}, spec: {nodeName: gone, containers: []}, status: {phase: Running}}"),
            pod("{metadata: {name: fine}, spec: {nodeName: here, containers: []}, status: {phase: Running}}"),
            pod("{metadata: {name: nowhere, deletionTimestamp: '2026-01-01T00:00:00Z'}, spec: {containers: []}}"),
            pod("{metadata: {name: old, creationTimestamp: '2026-01-01T00:00:00Z'}, status: {phase: Succeeded}}"),
            pod("{metadata: {name: new, creationTimestamp: '2026-01-02T00:00:00Z'}, status: {phase: Failed}}"),
        ];
        let now = "2026-01-03T00:00:00Z".parse().unwrap();
        expect![[r#"
            patch Pod default/lost/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-03T00:00:00Z","message":"PodGC: node no longer exists","reason":"DeletionByPodGC","status":"True","type":"DisruptionTarget"}],"phase":"Failed"}}
            delete Pod default/lost (its node no longer exists)
            delete Pod default/nowhere (deleted before it was scheduled)
            delete Pod default/old (too many ended pods)
        "#]].assert_eq(&plan(&pods, &["gone".to_owned()].into(), 1, now).to_string());
    }
}
