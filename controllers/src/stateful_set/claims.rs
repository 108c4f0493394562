//! The claims that go with a stateful set's pods: one for each claim template and ordinal, which outlives the pod.
//!
//! Who owns a claim follows from `persistentVolumeClaimRetentionPolicy`: the set, if the claim is to go with it; the pod, if
//! the pod is one too many and the claim is to go with that; else nobody. Garbage collection does the rest.

use k8s_openapi::Resource as _;
use slipway_api::{
    apps::StatefulSet,
    core::{PersistentVolumeClaim, Pod},
    meta::OwnerReference,
};

use super::identity;
use crate::{
    caches::Caches,
    plan::{Step, Words},
    resource::{Key, Object},
};

pub fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.volume_claim_templates.iter().flatten()
}

pub fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name(), set.name())
}

/// Whether a claim of this name is, or would be, one of the set's.
pub fn is_of(set: &StatefulSet, claim: &str) -> bool {
    let ordinal = |template: &PersistentVolumeClaim| {
        claim.strip_prefix(template.name())?.strip_prefix('-')?.strip_prefix(set.name())?.strip_prefix('-')?.parse::<i32>().ok()
    };
    templates(set).any(|template| ordinal(template).is_some())
}

/// What becomes of claims.
#[derive(Clone, Copy)]
struct Policy {
    deleted_with_set: bool,
    deleted_when_scaled: bool,
}

impl Policy {
    fn of(set: &StatefulSet) -> Policy {
        let policy = set.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
        Policy {
            deleted_with_set: policy.when_deleted.as_deref() == Some("Delete"),
            deleted_when_scaled: policy.when_scaled.as_deref() == Some("Delete"),
        }
    }

    fn keeps_all(self) -> bool {
        !self.deleted_with_set && !self.deleted_when_scaled
    }
}

/// Whether the pod of an ordinal can be made.
pub enum Standing {
    Complete,
    /// These are to be made first.
    Missing(Vec<Step>),
    /// A claim that somebody deleted has to go before.
    InTheWay(String),
    /// One of an earlier pod has to go before: garbage collection sees to that.
    Leaving,
}

pub fn standing(set: &StatefulSet, ordinal: i32, caches: &Caches) -> Standing {
    let mut missing = vec![];
    for template in templates(set) {
        let name = name(set, template, ordinal);
        let Some(claim) = caches.persistent_volume_claims.get(&Key::new(set.namespace(), &name)) else {
            missing.push(create(set, template, ordinal));
            continue;
        };
        if claim.is_deleted() {
            return Standing::InTheWay(format!("pvc {name} is being deleted"));
        }
        // It belongs to a pod that was one too many, and goes after it.
        let pod = identity::name(set, ordinal);
        if Policy::of(set).deleted_when_scaled && references(&claim).iter().any(|owner| is_pod(owner, &pod)) {
            return Standing::Leaving;
        }
    }
    if missing.is_empty() { Standing::Complete } else { Standing::Missing(missing) }
}

/// The claims that a pod waits for because somebody deleted them.
pub fn missing(set: &StatefulSet, ordinal: i32, caches: &Caches) -> Vec<Step> {
    let missing = templates(set).filter(|template| {
        caches.persistent_volume_claims.get(&Key::new(set.namespace(), name(set, template, ordinal))).is_none()
    });
    missing.map(|template| create(set, template, ordinal)).collect()
}

fn create(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> Step {
    let (name, pod) = (name(set, template, ordinal), identity::name(set, ordinal));
    let mut claim = PersistentVolumeClaim { status: None, ..template.clone() };
    claim.metadata.name = Some(name.clone());
    claim.metadata.namespace = set.metadata.namespace.clone();
    let labels = set.spec.selector.match_labels.clone().unwrap_or_default();
    claim.metadata.labels.get_or_insert_default().extend(labels);
    claim.metadata.owner_references = Policy::of(set).deleted_with_set.then(|| vec![set.controller_reference()]);
    Step::create_for(&claim, set.reference()).in_words(Words {
        done: format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.name()),
        failed: format!("create Claim {name} for Pod {pod} in StatefulSet {} failed error: ", set.name()),
    })
}

/// What makes the claims of a pod belong to whom they should. `surplus`: there are fewer replicas than to need this pod.
pub fn reown(set: &StatefulSet, pod: &Pod, ordinal: i32, surplus: bool, caches: &Caches) -> Vec<Step> {
    let policy = Policy::of(set);
    let mut steps = vec![];
    for template in templates(set) {
        let key = Key::new(set.namespace(), name(set, template, ordinal));
        let Some(claim) = caches.persistent_volume_claims.get(&key) else { continue };
        let of_set = |owner: &OwnerReference| {
            owner.api_version == StatefulSet::API_VERSION && owner.kind == StatefulSet::KIND && owner.name == set.name()
        };
        let ours = |owner: &&OwnerReference| of_set(owner) || is_pod(owner, pod.name());
        let (ours, others): (Vec<_>, Vec<_>) = references(&claim).iter().partition(ours);
        // Of one that had the name before: the claim is for garbage collection to decide on.
        if ours.iter().any(|owner| owner.uid != if of_set(owner) { set.uid() } else { pod.uid() }) {
            continue;
        }
        let foreign = !policy.keeps_all() && others.iter().any(|owner| owner.controller == Some(true));
        let wanted: Vec<OwnerReference> = match policy {
            _ if foreign => vec![],
            Policy { deleted_when_scaled: true, .. } if surplus => vec![pod.controller_reference()],
            Policy { deleted_with_set: true, .. } => vec![set.controller_reference()],
            _ => vec![],
        };
        if ours.iter().copied().eq(&wanted) {
            continue;
        }
        if foreign {
            let message = format!(
                "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a managing controller, the retention \
                 policy is ignored for this claim",
                claim.name()
            );
            steps.push(Step::warning(set, "ConflictingController", message));
        }
        let mut owned = PersistentVolumeClaim::clone(&claim);
        let owners: Vec<OwnerReference> = others.into_iter().cloned().chain(wanted).collect();
        owned.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
        steps.extend(Step::update(&*claim, &owned));
    }
    steps
}

fn references(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or(&[])
}

fn is_pod(owner: &OwnerReference, name: &str) -> bool {
    owner.api_version == Pod::API_VERSION && owner.kind == Pod::KIND && owner.name == name
}
