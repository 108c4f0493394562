//! ReplicaSet: keeps as many matching pods as `spec.replicas` asks for.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use slipway_api::{
    apps::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
    core::Pod,
    jiff::Timestamp,
    meta::Time,
    selector::Selector,
};

use crate::{
    apply::Failure,
    caches::Caches,
    claim::{self, claim, matches},
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};

/// The most pods one pass creates or deletes, so that a wrong template cannot flood the API server.
const PODS_PER_PASS_MAX: usize = 500;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        claim::watch(
            caches,
            queue,
            |caches| &caches.replica_sets,
            |caches| &caches.pods,
            |set, pod| matches(&Selector::from(&set.spec.selector), &pod.metadata),
        );
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(set) = situation.caches.replica_sets.get(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&*set, situation.caches, situation.now, situation.failure.as_ref()))
    }
}

/// What ReplicaSets and ReplicationControllers have in common: all but their names and the form of the selector.
pub trait Replicated: Object {
    /// Selector, replicas, template and readiness; the selector as ReplicaSets write it.
    fn wish(&self) -> ReplicaSetSpec;
    fn status(&self) -> ReplicaSetStatus;
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
    /// The UIDs of those that belong to the same application.
    fn siblings(&self, caches: &Caches) -> HashSet<String>;
}

impl Replicated for ReplicaSet {
    fn wish(&self) -> ReplicaSetSpec {
        self.spec.clone()
    }
    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }
    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        ReplicaSet { status: Some(status), ..self.clone() }
    }
    fn siblings(&self, caches: &Caches) -> HashSet<String> {
        let siblings = match controller_of(&self.metadata) {
            Some(owner) => caches.replica_sets.controlled_by(self.namespace(), &owner.uid),
            None => vec![],
        };
        siblings.iter().map(|sibling| sibling.uid().to_owned()).collect()
    }
}

pub fn plan<S: Replicated>(set: &S, caches: &Caches, now: Timestamp, failure: Option<&Failure>) -> Plan {
    let wish = set.wish();
    let claim = claim(set, &wish.selector, &caches.pods);
    let mut plan = Plan { steps: claim.steps, again_in: None };
    let active: Vec<&Arc<Pod>> = claim.mine.iter().filter(|pod| pods::is_active(pod)).collect();
    let wanted = wish.replicas.unwrap_or(1).max(0) as usize;

    let status = status(set, &wish, &claim.mine, now, failure);
    plan.push(Step::update_status(set, &set.with_status(status)));
    if !set.is_deleted() {
        plan.steps.extend(scale(set, &wish, &active, wanted, caches, now));
    }
    let min_ready = wish.min_ready_seconds.unwrap_or(0);
    if min_ready > 0 {
        let waiting = active.iter().filter(|pod| !pods::is_available(pod, min_ready, now));
        if let Some(at) = waiting.filter_map(|pod| pods::available_at(pod, min_ready)).min() {
            plan.again_at(now, at);
        }
    }
    plan
}

fn scale<S: Replicated>(
    set: &S,
    wish: &ReplicaSetSpec,
    active: &[&Arc<Pod>],
    wanted: usize,
    caches: &Caches,
    now: Timestamp,
) -> Vec<Step> {
    if active.len() < wanted {
        let pod = pods::from_template(wish.template.as_ref().unwrap_or(&Default::default()), set);
        let create = Step::create_for(&pod, set.reference());
        return vec![create; (wanted - active.len()).min(PODS_PER_PASS_MAX)];
    }
    let surplus = (active.len() - wanted).min(PODS_PER_PASS_MAX);
    if surplus == 0 {
        return vec![];
    }
    let neighbours = pods_per_node(set, caches);
    let mut ranked: Vec<_> = active.iter().map(|pod| (deletion_rank(pod, &neighbours, now), *pod)).collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked[..surplus].iter().map(|(_, pod)| Step::delete_for(&***pod, set.reference(), "too many replicas")).collect()
}

/// How many active pods of the same application each node has.
fn pods_per_node<S: Replicated>(set: &S, caches: &Caches) -> BTreeMap<String, usize> {
    let mut uids = set.siblings(caches);
    uids.insert(set.uid().to_owned());
    let mut count = BTreeMap::new();
    for uid in uids {
        for pod in caches.pods.controlled_by(set.namespace(), &uid).iter().filter(|pod| pods::is_active(pod)) {
            *count.entry(pods::node(pod).to_owned()).or_default() += 1;
        }
    }
    count
}

/// Sorts by what is lost least: not assigned, pending, not ready, cheap, doubled up on its node, ready for a shorter time,
/// restarted more often, younger. Times count by their order of magnitude, so that the choice among similar pods is spread.
fn deletion_rank(pod: &Pod, pods_per_node: &BTreeMap<String, usize>, now: Timestamp) -> impl Ord + use<> {
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost: i32 = pod.annotation("controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let neighbours = pods_per_node.get(pods::node(pod)).copied().unwrap_or(0);
    let ready = pods::ready_since(pod);
    let restarts = |always: bool| -> i32 {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).max().filter(|_| always).unwrap_or(0)
    };
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    (
        !pods::node(pod).is_empty(),
        phase,
        ready.is_some(),
        cost,
        std::cmp::Reverse(neighbours),
        ready.map(|since| magnitude(since, now)),
        std::cmp::Reverse(restarts(true)),
        magnitude(created, now),
        pod.uid().to_owned(),
    )
}

fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.duration_since(since).as_secs().max(0) as u64;
    64 - seconds.leading_zeros()
}

fn status<S: Replicated>(
    set: &S,
    wish: &ReplicaSetSpec,
    mine: &[Arc<Pod>],
    now: Timestamp,
    failure: Option<&Failure>,
) -> ReplicaSetStatus {
    let active: Vec<&Arc<Pod>> = mine.iter().filter(|pod| pods::is_active(pod)).collect();
    let wanted = wish.replicas.unwrap_or(1).max(0) as usize;
    let min_ready = wish.min_ready_seconds.unwrap_or(0);
    let labels = wish.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let labels = labels.unwrap_or_default();
    let labelled = |pod: &Pod| labels.iter().all(|(name, value)| pod.label(name) == Some(value));
    let count = |test: &dyn Fn(&Pod) -> bool| Some(active.iter().filter(|pod| test(pod)).count() as i32);

    let old = set.status();
    let mut conditions = old.conditions.unwrap_or_default();
    let failed = failure.filter(|failure| matches!(failure.reason, "FailedCreate" | "FailedDelete") && active.len() != wanted);
    let known = conditions.iter().any(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    match failed {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".into()),
            status: Some("True".into()),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        // It stands until the number is right again: that is when the failure is over.
        None if known && active.len() == wanted => {
            conditions.retain(|condition| condition.type_.as_deref() != Some("ReplicaFailure"));
        }
        _ => {}
    }
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: count(&labelled).filter(|n| *n > 0),
        ready_replicas: count(&pods::is_ready).filter(|n| *n > 0),
        available_replicas: count(&|pod| pods::is_available(pod, min_ready, now)).filter(|n| *n > 0),
        terminating_replicas: Some(mine.iter().filter(|pod| pods::is_terminating(pod)).count() as i32),
        observed_generation: set.metadata().generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
    }
}
