//! DaemonSet: one pod on each node that fits, as nodes come and go.

pub(crate) mod placement;
mod revision;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::Resource as _;
use slipway_api::{
    IntOrString,
    apps::{DaemonSet, DaemonSetStatus},
    core::{Node, Pod},
    jiff::Timestamp,
    selector::Selector,
};

use crate::{
    caches::Caches,
    claim::{self, claim, matches},
    deployment::resolve,
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};
use placement::Fit;

/// The most pods one pass creates or deletes.
const PODS_PER_PASS_MAX: usize = 250;
/// A pod that failed on a node is replaced no sooner than this after it was made.
const FAILED_POD_RETRY: i64 = 10;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        claim::watch(
            caches,
            queue,
            |caches| &caches.daemon_sets,
            |caches| &caches.pods,
            |set, pod| matches(&Selector::from(&set.spec.selector), &pod.metadata),
        );
        let (of_nodes, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.nodes.on_change(move |old, new| {
            if old.map(|node| placement::relevant(node)) != new.map(|node| placement::relevant(node))
                && let Some(caches) = weak.upgrade()
            {
                caches.daemon_sets.list().iter().for_each(|set| of_nodes.add(set.key()));
            }
        });
        let of_revisions = queue.clone();
        caches.controller_revisions.on_change(move |old, new| {
            let Some(revision) = new.or(old) else { return };
            if let Some(owner) = controller_of(&revision.metadata).filter(|owner| owner.kind == DaemonSet::KIND) {
                of_revisions.add(Key::new(revision.namespace(), &owner.name));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(set) = situation.caches.daemon_sets.get(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&set, situation.caches, situation.now))
    }
}

/// A node, what the set may do there, and the set's pods there.
struct Place {
    node: Arc<Node>,
    fit: Fit,
    pods: Vec<Arc<Pod>>,
}

pub fn plan(set: &DaemonSet, caches: &Caches, now: Timestamp) -> Plan {
    let claim_of_pods = claim(set, &set.spec.selector, &caches.pods);
    let mut plan = Plan { steps: claim_of_pods.steps, again_in: None };
    let revisions = revision::Revisions::of(set, caches);
    let united = revisions.unite();
    if !united.is_empty() {
        plan.steps.extend(united);
        return plan;
    }
    plan.steps.extend(revisions.steps(set));

    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in claim_of_pods.mine {
        by_node.entry(placement::target(&pod).unwrap_or_default().to_owned()).or_default().push(pod);
    }
    let places: Vec<Place> = caches
        .nodes
        .list()
        .into_iter()
        .map(|node| {
            let pods = by_node.remove(node.name()).unwrap_or_default();
            Place { fit: placement::fit(set, &node), node, pods }
        })
        .collect();

    let status = status(set, &places, &revisions, now);
    plan.push(Step::update_status(set, &DaemonSet { status: Some(status), ..set.clone() }));
    if !set.is_deleted() {
        // First every node gets its pod; only when that is done old pods are replaced.
        let steps = place(set, &places, &revisions.hash, now, &mut plan);
        if steps.is_empty() { roll(set, &places, &revisions.hash, now, &mut plan) } else { plan.steps.extend(steps) }
    }
    if let Some(at) = next_available(set, &places, now) {
        plan.again_at(now, at);
    }
    plan
}

/// What makes each node have one pod, or none.
fn place(set: &DaemonSet, places: &[Place], hash: &str, now: Timestamp, plan: &mut Plan) -> Vec<Step> {
    let (mut creations, mut deletions) = (vec![], vec![]);
    for Place { node, fit, pods } in places {
        let running: Vec<&Arc<Pod>> = pods.iter().filter(|pod| !pod.is_deleted()).collect();
        if !fit.may_stay {
            deletions.extend(running.iter().map(|pod| Step::delete_for(&***pod, set.reference(), "its node does not fit")));
            continue;
        }
        let mut kept: Vec<&&Arc<Pod>> = vec![];
        for pod in &running {
            match pods::phase(pod) {
                "Failed" if made_lately(pod, now) => {
                    // Not in a loop as fast as the node can fail.
                    plan.again_in(Duration::from_secs(FAILED_POD_RETRY as u64));
                    kept.push(pod);
                }
                phase @ ("Failed" | "Succeeded") => {
                    let (reason, word) =
                        if phase == "Failed" { ("FailedDaemonPod", "failed") } else { ("SucceededDaemonPod", "succeeded") };
                    let message = format!(
                        "Found {word} daemon pod {} on node {}, will try to {} it",
                        pod.key(),
                        node.name(),
                        if phase == "Failed" { "kill" } else { "delete" }
                    );
                    let event = if phase == "Failed" { Step::warning } else { Step::event };
                    deletions.push(event(set, reason, message));
                    deletions.push(Step::delete_for(&***pod, set.reference(), "it ended"));
                }
                _ => kept.push(pod),
            }
        }
        // The oldest that is on the node already stays.
        kept.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pods::node(pod).is_empty(), created, pod.name().to_owned())
        });
        deletions.extend(kept.iter().skip(1).map(|pod| Step::delete_for(&****pod, set.reference(), "one pod a node is enough")));
        if fit.should_run && pods.is_empty() {
            creations.push(Step::create_for(&placement::pod_for(set, node.name(), hash), set.reference()));
        }
    }
    creations.truncate(PODS_PER_PASS_MAX);
    deletions.truncate(PODS_PER_PASS_MAX);
    creations.into_iter().chain(deletions).collect()
}

fn made_lately(pod: &Pod, now: Timestamp) -> bool {
    let age = pod.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0).as_secs());
    age.is_some_and(|seconds| seconds < FAILED_POD_RETRY)
}

/// Deletes pods of an older template, as long as no more nodes are without an available pod than may be.
fn roll(set: &DaemonSet, places: &[Place], hash: &str, now: Timestamp, plan: &mut Plan) {
    if set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let desired = places.iter().filter(|place| place.fit.should_run).count();
    let mut room = max_unavailable(set, desired as i32);
    let mut candidates = vec![];
    for place in places.iter().filter(|place| place.fit.should_run) {
        let standing = place.pods.iter().find(|pod| !pod.is_deleted());
        let available = standing.is_some_and(|pod| pods::is_available(pod, min_ready, now));
        if !available {
            room -= 1;
        }
        if let Some(old) = standing.filter(|pod| pod.label(revision::HASH_LABEL) != Some(hash)) {
            candidates.push((available, old));
        }
    }
    let replace = |pod: &Arc<Pod>| Step::delete_for(&**pod, set.reference(), "it is of an older template");
    // Those that are not available cost nothing.
    plan.steps.extend(candidates.iter().filter(|(available, _)| !available).map(|(_, pod)| replace(pod)));
    let available = candidates.iter().filter(|(available, _)| *available);
    plan.steps.extend(available.take(room.max(0) as usize).map(|(_, pod)| replace(pod)));
}

fn max_unavailable(set: &DaemonSet, desired: i32) -> i32 {
    let rolling = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let one = IntOrString::Int(1);
    let given = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&one);
    resolve(Some(given), desired, true).max(1)
}

fn next_available(set: &DaemonSet, places: &[Place], now: Timestamp) -> Option<Timestamp> {
    let min_ready = set.spec.min_ready_seconds.filter(|seconds| *seconds > 0)?;
    let pods = places.iter().flat_map(|place| &place.pods);
    pods.filter_map(|pod| pods::available_at(pod, min_ready)).filter(|at| *at > now).min()
}

fn status(set: &DaemonSet, places: &[Place], revisions: &revision::Revisions, now: Timestamp) -> DaemonSetStatus {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let (mut desired, mut current, mut misscheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for Place { fit, pods, .. } in places {
        if !fit.should_run {
            misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        let oldest = pods.iter().min_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let Some(pod) = oldest else { continue };
        current += 1;
        ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::is_ready(pod) && pods::is_available(pod, min_ready, now));
        updated += i32::from(pod.label(revision::HASH_LABEL) == Some(revisions.hash.as_str()));
    }
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    let old = set.status.clone().unwrap_or_default();
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready,
        number_available: some(available),
        number_unavailable: some(desired - available),
        updated_number_scheduled: some(updated),
        observed_generation: set.metadata.generation,
        collision_count: revisions.collisions,
        conditions: old.conditions,
    }
}
