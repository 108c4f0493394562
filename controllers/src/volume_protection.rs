//! Claims and volumes that are deleted go when nothing uses them any more: a pod on a node the claim, a claim the volume.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::{
    core::{PersistentVolume, PersistentVolumeClaim, Pod},
    pod::is_terminal,
};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";

pub struct Claims;
pub struct Volumes;

#[async_trait]
impl crate::run::Controller for Claims {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let claims = queue.clone();
        caches.persistent_volume_claims.on_change(move |_, new| {
            if let Some(claim) = new.filter(|claim| claim.is_deleted()) {
                claims.add(claim.key());
            }
        });
        let pods = queue.clone();
        caches.pods.on_change(move |old, new| {
            if new.is_none_or(|pod| is_terminal(pod))
                && let Some(pod) = old
            {
                pods.extend(claims_of(pod).into_iter().map(|name| Key::new(pod.namespace(), name)));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let mut plan = Plan::nothing();
        let Some(claim) = situation.caches.persistent_volume_claims.get(key).filter(|claim| claim.is_deleted()) else {
            return Ok(plan);
        };
        let uses = |pod: &Arc<Pod>| {
            let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()));
            placed && !is_terminal(pod) && claims_of(pod).contains(&key.name)
        };
        if !situation.caches.pods.in_namespace(&key.namespace).iter().any(uses) {
            plan.push(without::<PersistentVolumeClaim>(&claim, OF_CLAIMS));
        }
        Ok(plan)
    }
}

#[async_trait]
impl crate::run::Controller for Volumes {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let volumes = queue.clone();
        caches.persistent_volumes.on_change(move |_, new| {
            if let Some(volume) = new.filter(|volume| volume.is_deleted()) {
                volumes.add(volume.key());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let mut plan = Plan::nothing();
        if let Some(volume) = situation.caches.persistent_volumes.get(key).filter(|volume| volume.is_deleted()) {
            let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
            if !bound {
                plan.push(without::<PersistentVolume>(&volume, OF_VOLUMES));
            }
        }
        Ok(plan)
    }
}

/// The names of the claims that the pod mounts, those made for it included.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), volume.name)),
        (None, None) => None,
    });
    names.collect()
}

fn without<K: Object>(object: &K, finalizer: &str) -> Option<Step> {
    let mut free = object.clone();
    let finalizers = free.metadata_mut().finalizers.as_mut()?;
    finalizers.retain(|name| name != finalizer);
    Step::update(object, &free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::expect;

    #[test]
    fn a_claim_goes_with_the_last_pod_that_runs_with_it() {
        let mut world = World::default();
        world.put::<PersistentVolumeClaim>(
            "{metadata: {name: c, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pvc-protection]}}",
        );
        world.put::<Pod>("{metadata: {name: p}, spec: {nodeName: node, containers: [], volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]}}");
        let key = Key::new("default", "c");
        world.settle(&Claims, &key, expect![""]);
        world.edit::<Pod>("p", serde_json::json!({"status": {"phase": "Succeeded"}}));
        world.settle(
            &Claims,
            &key,
            expect![[r#"
            patch PersistentVolumeClaim default/c {"metadata":{"finalizers":[]}}
        "#]],
        );
    }

    #[test]
    fn a_volume_stays_while_it_is_bound() {
        let mut world = World::default();
        world.put::<PersistentVolume>(
            "{metadata: {name: v, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [kubernetes.io/pv-protection]}, status: {phase: Bound}}",
        );
        let key = Key::new("", "v");
        world.settle(&Volumes, &key, expect![""]);
        world.edit::<PersistentVolume>("v", serde_json::json!({"status": {"phase": "Released"}}));
        world.settle(
            &Volumes,
            &key,
            expect![[r#"
            patch PersistentVolume v {"metadata":{"finalizers":[]}}
        "#]],
        );
    }
}
