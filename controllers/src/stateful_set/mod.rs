//! StatefulSet: pods that keep their names and claims, made, replaced and removed in their order.

mod claims;
mod identity;
mod order;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::Resource as _;
use slipway_api::{
    apps::{ControllerRevision, RollingUpdateStatefulSetStrategy, StatefulSet},
    core::{Pod, PodTemplateSpec},
    jiff::Timestamp,
    meta::LabelSelector,
    selector::Selector,
};

use crate::{
    caches::Caches,
    claim::{self, claim_members, matches},
    history::{History, Versioned, forget, revision_of},
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};

const HISTORY_DEFAULT: i32 = 10;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        claim::watch(
            caches,
            queue,
            |caches| &caches.stateful_sets,
            |caches| &caches.pods,
            |set, pod| identity::ordinal(set, pod).is_some() && matches(&Selector::from(&set.spec.selector), &pod.metadata),
        );
        let of_revisions = queue.clone();
        caches.controller_revisions.on_change(move |old, new| {
            let Some(revision) = new.or(old) else { return };
            if let Some(owner) = controller_of(&revision.metadata).filter(|owner| owner.kind == StatefulSet::KIND) {
                of_revisions.add(Key::new(revision.namespace(), &owner.name));
            }
        });
        // A pod waits for its claims to be made, or for those of an earlier one to go. Most belong to nobody.
        let (of_claims, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.persistent_volume_claims.on_change(move |old, new| {
            let (Some(claim), Some(caches)) = (new.or(old), weak.upgrade()) else { return };
            for set in caches.stateful_sets.in_namespace(claim.namespace()) {
                if claims::is_of(&set, claim.name()) {
                    of_claims.add(set.key());
                }
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(set) = situation.caches.stateful_sets.get(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&set, situation.caches, situation.now))
    }
}

impl Versioned for StatefulSet {
    const HASH_LABEL: &'static str = "controller.kubernetes.io/hash";
    fn selector(&self) -> &LabelSelector {
        &self.spec.selector
    }
    fn template(&self) -> &PodTemplateSpec {
        &self.spec.template
    }
    fn collision_count(&self) -> Option<i32> {
        self.status.as_ref().and_then(|status| status.collision_count)
    }
}

/// What one plan is made from, and the steps that are found.
struct Pass<'a> {
    set: &'a StatefulSet,
    caches: &'a Caches,
    now: Timestamp,
    /// What pods are made of until an update is through, and what it leads to.
    current: ControllerRevision,
    update: ControllerRevision,
    collisions: i32,
    /// The pods that there should be, as far as there are, and those that are too many.
    replicas: BTreeMap<i32, Arc<Pod>>,
    surplus: BTreeMap<i32, Arc<Pod>>,
    steps: Vec<Step>,
    /// Pods of the current revision that are deleted for the new one.
    replaced: i32,
}

pub fn plan(set: &StatefulSet, caches: &Caches, now: Timestamp) -> Plan {
    let claim = claim_members(set, &set.spec.selector, &caches.pods, |pod| identity::ordinal(set, pod).is_some());
    let mut plan = Plan { steps: claim.steps, again_in: None };
    let history = History::of(set, caches);
    plan.steps.extend(history.adoptions.iter().cloned());
    let present = history.present(set, caches);
    plan.push(present.step.filter(|_| !set.is_deleted()));

    let known = set.status.as_ref().and_then(|status| history.named(status.current_revision.as_deref()?));
    let current = known.map_or_else(|| present.revision.clone(), |known| ControllerRevision::clone(known));
    let pods = claim.mine.into_iter().filter_map(|pod| Some((identity::ordinal(set, &pod)?, pod)));
    let (replicas, surplus) = pods.partition(|(ordinal, _)| is_wanted(set, *ordinal));
    let mut pass = Pass {
        set,
        caches,
        now,
        current,
        update: present.revision,
        collisions: present.collisions.unwrap_or(0),
        replicas,
        surplus,
        steps: vec![],
        replaced: 0,
    };
    if !set.is_deleted() && pass.scale().is_continue() {
        pass.roll();
    }
    // The status first: what pods are made of depends on it, and it is right even if a pod cannot be made.
    plan.push(Step::update_status(set, &StatefulSet { status: Some(pass.status()), ..set.clone() }));
    plan.steps.append(&mut pass.steps);
    plan.steps.extend(pass.forgotten(&history));
    if let Some(at) = pass.next_available() {
        plan.again_at(now, at);
    }
    plan
}

fn start(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

fn wanted(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

fn is_wanted(set: &StatefulSet, ordinal: i32) -> bool {
    ordinal.checked_sub(start(set)).is_some_and(|place| (0..wanted(set)).contains(&place))
}

fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

fn rolling(set: &StatefulSet) -> Option<&RollingUpdateStatefulSetStrategy> {
    set.spec.update_strategy.as_ref()?.rolling_update.as_ref()
}

/// From how many places on pods are of the new revision.
fn partition(set: &StatefulSet) -> i32 {
    rolling(set).and_then(|rolling| rolling.partition).unwrap_or(0)
}

impl Pass<'_> {
    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_ready(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_ready(pod)
    }

    /// Ready for as long as the set asks for.
    fn is_available(&self, pod: &Pod) -> bool {
        self.is_ready(pod) && pods::is_available(pod, self.set.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        pod.is_deleted() || !self.is_available(pod)
    }

    fn is_outdated(&self, pod: &Pod) -> bool {
        revision_of(pod) != self.update.name()
    }

    fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.replicas.values().chain(self.surplus.values())
    }

    /// When the next pod has been ready for long enough.
    fn next_available(&self) -> Option<Timestamp> {
        let min_ready = self.set.spec.min_ready_seconds.filter(|seconds| *seconds > 0)?;
        self.pods().filter_map(|pod| pods::available_at(pod, min_ready)).filter(|at| *at > self.now).min()
    }

    /// Forgets the oldest revisions beyond the limit, of those that nothing is made of.
    fn forgotten(&self, history: &History) -> Vec<Step> {
        let limit = self.set.spec.revision_history_limit.unwrap_or(HISTORY_DEFAULT);
        let Ok(limit) = usize::try_from(limit) else { return vec![] };
        let mut live: BTreeSet<&str> = self.pods().map(|pod| revision_of(pod)).collect();
        live.extend([self.current.name(), self.update.name()]);
        let mut idle: Vec<_> = history.old.iter().chain(&history.duplicates).filter(|one| !live.contains(one.name())).collect();
        idle.sort_by_key(|one| one.revision);
        let surplus = idle.len().saturating_sub(limit);
        idle.into_iter().take(surplus).filter(|one| !one.is_deleted()).map(|one| forget(one)).collect()
    }
}
