//! Deployment: declares an application's pods, and rolls from one version of them to the next over ReplicaSets.
//!
//! One ReplicaSet a version of the template; this controller only moves numbers between them.

mod condition;
pub mod revision;
mod rollout;
mod size;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::Resource as _;
use slipway_api::{
    apps::{Deployment, DeploymentStatus, ReplicaSet},
    jiff::Timestamp,
    selector::Selector,
};

use crate::{
    apply::Failure,
    caches::Caches,
    claim::{self, claim, matches},
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};

pub use size::resolve;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        claim::watch(
            caches,
            queue,
            |caches| &caches.deployments,
            |caches| &caches.replica_sets,
            |deployment, set| matches(&Selector::from(&deployment.spec.selector), &set.metadata),
        );
        // Recreate waits for the last old pod to be gone.
        let (of_pods, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.pods.on_change(move |old, new| {
            let (Some(pod), None) = (old, new) else { return };
            let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == ReplicaSet::KIND) else { return };
            let Some(caches) = weak.upgrade() else { return };
            let Some(set) = caches.replica_sets.get(&Key::new(pod.namespace(), &owner.name)) else { return };
            if let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == Deployment::KIND) {
                of_pods.add(Key::new(pod.namespace(), &owner.name));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(deployment) = situation.caches.deployments.get(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&deployment, situation.caches, situation.now, situation.failure.as_ref()))
    }
}

/// What one pass works with: the sets as they will be once the steps so far are done.
struct Pass<'a> {
    deployment: &'a Deployment,
    status: DeploymentStatus,
    new: Option<ReplicaSet>,
    old: Vec<ReplicaSet>,
    caches: &'a Caches,
    now: Timestamp,
    plan: Plan,
}

pub fn plan(deployment: &Deployment, caches: &Caches, now: Timestamp, failure: Option<&Failure>) -> Plan {
    let claim = claim(deployment, &deployment.spec.selector, &caches.replica_sets);
    let mut sets: Vec<ReplicaSet> = claim.mine.iter().map(|set| ReplicaSet::clone(set)).collect();
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.name().to_owned()));
    let new = revision::position_of_new(deployment, &sets).map(|at| sets.remove(at));
    let mut pass = Pass {
        deployment,
        status: deployment.status.clone().unwrap_or_default(),
        new,
        old: sets,
        caches,
        now,
        plan: Plan { steps: claim.steps, again_in: None },
    };
    if deployment.is_deleted() {
        pass.report();
        return pass.plan;
    }
    condition::note_pause(deployment, &mut pass.status, now);
    if deployment.spec.paused == Some(true) {
        pass.note_revision();
        pass.scale_proportionally();
        pass.clean_up();
    } else if pass.was_resized() && !(is_recreate(deployment) && pass.active_or_latest().is_none()) {
        // (Several sets that are at work, which Recreate wants none of, are not to be sized in proportion.)
        pass.note_revision();
        pass.scale_proportionally();
    } else if is_recreate(deployment) {
        pass.recreate(failure);
    } else {
        pass.roll(failure);
    }
    pass.report();
    pass.plan
}

fn is_recreate(deployment: &Deployment) -> bool {
    deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// The name of the deployment is the beginning of what `self` tells people.
impl Pass<'_> {
    /// Writes the status, if it changed, and says when to look again.
    fn report(&mut self) {
        let sets: Vec<&ReplicaSet> = self.old.iter().chain(&self.new).collect();
        let status = condition::status(self.deployment, &self.status, &sets, self.new.as_ref(), self.now);
        if let Some(at) = condition::deadline(self.deployment, &status) {
            self.plan.again_at(self.now, at.max(self.now));
        }
        let reported = Deployment { status: Some(status), ..self.deployment.clone() };
        self.plan.push(Step::update_status(self.deployment, &reported));
    }
}
