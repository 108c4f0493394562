//! Who belongs to whom: an owner adopts what its selector matches and nobody controls, and lets go what it no longer matches.

use std::sync::Arc;

use slipway_api::{
    meta::{LabelSelector, ObjectMeta},
    selector::Selector,
};

use crate::{
    cache::Cache,
    caches::Caches,
    plan::Step,
    queue::Queue,
    resource::{Key, Object, controller_of},
};

/// The objects that belong to an owner, and the steps that make it so.
pub struct Claim<K> {
    pub mine: Vec<Arc<K>>,
    pub steps: Vec<Step>,
}

pub fn claim<O: Object, K: Object>(owner: &O, selector: &LabelSelector, cache: &Cache<K>) -> Claim<K> {
    claim_members(owner, selector, cache, |_| true)
}

/// `claim`, where something else must be right, too: a StatefulSet's pods are called after it.
pub fn claim_members<O: Object, K: Object>(
    owner: &O,
    selector: &LabelSelector,
    cache: &Cache<K>,
    is_member: impl Fn(&K) -> bool,
) -> Claim<K> {
    let selector = Selector::from(selector);
    let fits = |object: &K| matches(&selector, object.metadata()) && is_member(object);
    let (mut mine, others): (Vec<_>, Vec<_>) =
        cache.controlled_by(owner.namespace(), owner.uid()).into_iter().partition(|object| fits(object));
    let mut steps: Vec<Step> =
        others.iter().filter(|object| !object.is_deleted()).filter_map(|object| release(owner, &**object)).collect();
    if !owner.is_deleted() {
        let orphans = cache.controlled_by(owner.namespace(), "");
        for orphan in orphans.into_iter().filter(|orphan| !orphan.is_deleted() && fits(orphan)) {
            steps.extend(adopt(owner, &*orphan));
            mine.push(orphan);
        }
    }
    Claim { mine, steps }
}

/// Queues each owner that changed, or a member of whose did. Of a member that nobody controls, whoever may adopt it.
pub fn watch<O: Object, K: Object>(
    caches: &Arc<Caches>,
    queue: &Arc<Queue>,
    owners: fn(&Caches) -> &Cache<O>,
    members: fn(&Caches) -> &Cache<K>,
    may_adopt: fn(&O, &K) -> bool,
) {
    let own = queue.clone();
    owners(caches).on_change(move |old, new| {
        if let Some(owner) = new.or(old) {
            own.add(owner.key());
        }
    });
    let (queue, weak, kind) = (queue.clone(), Arc::downgrade(caches), O::resource().kind);
    members(caches).on_change(move |old, new| {
        for member in [old, new].into_iter().flatten() {
            match controller_of(member.metadata()) {
                Some(owner) if owner.kind == kind => queue.add(Key::new(member.namespace(), &owner.name)),
                Some(_) => {}
                None => {
                    let Some(caches) = weak.upgrade() else { continue };
                    let adopters = owners(&caches).in_namespace(member.namespace());
                    adopters.iter().filter(|owner| may_adopt(owner, member)).for_each(|owner| queue.add(owner.key()));
                }
            }
        }
    });
}

pub fn matches(selector: &Selector, metadata: &ObjectMeta) -> bool {
    selector.matches(metadata.labels.as_ref())
}

fn adopt<O: Object, K: Object>(owner: &O, orphan: &K) -> Option<Step> {
    let mut adopted = orphan.clone();
    adopted.metadata_mut().owner_references.get_or_insert_default().push(owner.controller_reference());
    Step::update(orphan, &adopted)
}

fn release<O: Object, K: Object>(owner: &O, object: &K) -> Option<Step> {
    let mut released = object.clone();
    let metadata = released.metadata_mut();
    let mut owners = metadata.owner_references.take().unwrap_or_default();
    owners.retain(|reference| reference.uid != owner.uid());
    metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
    Step::update(object, &released)
}
