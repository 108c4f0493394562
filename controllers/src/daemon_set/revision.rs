//! What the history of a daemon set's template means for its pods.

use std::{collections::BTreeSet, sync::Arc};

use slipway_api::{
    apps::{ControllerRevision, DaemonSet},
    core::{Pod, PodTemplateSpec},
    meta::LabelSelector,
};

use crate::{
    caches::Caches,
    history::{History, Present, REVISION_LABEL, Versioned, forget},
    plan::Step,
    resource::Object,
};

/// Pods carry the hash alone, not the revision's whole name.
pub const HASH_LABEL: &str = REVISION_LABEL;
const HISTORY_DEFAULT: i32 = 10;

impl Versioned for DaemonSet {
    const HASH_LABEL: &'static str = HASH_LABEL;
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

pub struct Revisions {
    /// Of the present template, as pods carry it.
    pub hash: String,
    pub collisions: Option<i32>,
    history: History,
    present: Option<Step>,
    pods_of_duplicates: Vec<Arc<Pod>>,
    in_use: BTreeSet<String>,
}

impl Revisions {
    pub fn of(set: &DaemonSet, caches: &Caches) -> Revisions {
        let history = History::of(set, caches);
        let Present { revision, step, collisions } = history.present(set, caches);
        let hash = revision.label(HASH_LABEL).unwrap_or_default().to_owned();
        let pods = caches.pods.controlled_by(set.namespace(), set.uid());
        let in_use = pods.iter().filter_map(|pod| pod.label(HASH_LABEL).map(str::to_owned)).collect();
        let is_of_one = |pod: &Arc<Pod>| {
            let own = pod.label(HASH_LABEL).filter(|own| *own != hash);
            own.is_some_and(|own| history.duplicates.iter().any(|revision| revision.label(HASH_LABEL) == Some(own)))
        };
        let pods_of_duplicates = pods.into_iter().filter(is_of_one).collect();
        Revisions { hash, collisions, history, present: step, pods_of_duplicates, in_use }
    }

    /// One of several revisions of the same template is kept, the newest, and the pods of the others become its own. Until that
    /// is done they would look outdated.
    pub fn unite(&self) -> Vec<Step> {
        let relabelled = self.pods_of_duplicates.iter().filter_map(|pod| {
            let mut new = Pod::clone(pod);
            new.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), self.hash.clone());
            Step::update(&**pod, &new)
        });
        let duplicates = self.history.duplicates.iter().filter(|revision| !revision.is_deleted());
        relabelled.chain(duplicates.map(|revision| Step::delete(&**revision, "another has the same template"))).collect()
    }

    /// Records the present template as the newest, and forgets the oldest beyond the limit that no pod is made of.
    pub fn steps(&self, set: &DaemonSet) -> Vec<Step> {
        let mut steps = self.history.adoptions.clone();
        if !set.is_deleted() {
            steps.extend(self.present.clone());
        }
        let limit = set.spec.revision_history_limit.unwrap_or(HISTORY_DEFAULT).max(0) as usize;
        let idle = |revision: &&Arc<ControllerRevision>| {
            revision.label(HASH_LABEL).is_none_or(|hash| !self.in_use.contains(hash)) && !revision.is_deleted()
        };
        let surplus = self.history.old.len().saturating_sub(limit);
        steps.extend(self.history.old.iter().filter(idle).take(surplus).map(|revision| forget(revision)));
        steps
    }
}
