//! The history of a daemon set's template, one ControllerRevision each, for `kubectl rollout history` and `undo`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use slipway_api::{
    apps::{ControllerRevision, DaemonSet},
    core::Pod,
};

use crate::{caches::Caches, deployment::revision::hash, plan::Step, resource::Object};

pub const HASH_LABEL: &str = "controller-revision-hash";
const HISTORY_DEFAULT: i32 = 10;

pub struct Revisions {
    /// Of the present template, as pods carry it.
    pub hash: String,
    current: Option<Arc<ControllerRevision>>,
    /// Others of the present template, older than the one that is kept.
    duplicates: Vec<Arc<ControllerRevision>>,
    pods_of_duplicates: Vec<Arc<Pod>>,
    old: Vec<Arc<ControllerRevision>>,
    in_use: BTreeSet<String>,
}

impl Revisions {
    pub fn of(set: &DaemonSet, caches: &Caches) -> Revisions {
        let mut mine = caches.controller_revisions.controlled_by(set.namespace(), set.uid());
        mine.sort_by_key(|revision| revision.revision);
        let data = data(set);
        let (mut duplicates, old): (Vec<_>, Vec<_>) = mine.into_iter().partition(|revision| revision.data.0 == data);
        let current = duplicates.pop();
        let known = current.as_ref().and_then(|revision| revision.label(HASH_LABEL).map(str::to_owned));
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let pods = caches.pods.controlled_by(set.namespace(), set.uid());
        let in_use = pods.iter().filter_map(|pod| pod.label(HASH_LABEL).map(str::to_owned)).collect();
        let hash = known.unwrap_or_else(|| hash(&set.spec.template, collisions));
        let is_of_one = |pod: &Arc<Pod>| {
            let own = pod.label(HASH_LABEL).filter(|own| *own != hash);
            own.is_some_and(|own| duplicates.iter().any(|revision| revision.label(HASH_LABEL) == Some(own)))
        };
        let pods_of_duplicates = pods.into_iter().filter(is_of_one).collect();
        Revisions { hash, current, duplicates, pods_of_duplicates, old, in_use }
    }

    /// One of several revisions of the same template is kept, the newest, and the pods of the others become its own. Until that
    /// is done they would look outdated.
    pub fn unite(&self) -> Vec<Step> {
        let relabelled = self.pods_of_duplicates.iter().filter_map(|pod| {
            let mut new = Pod::clone(pod);
            new.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), self.hash.clone());
            Step::update(&**pod, &new)
        });
        let duplicates = self.duplicates.iter().filter(|revision| !revision.is_deleted());
        relabelled.chain(duplicates.map(|revision| Step::delete(&**revision, "another has the same template"))).collect()
    }

    /// Records the present template as the newest, and forgets the oldest beyond the limit that no pod is made of.
    pub fn steps(&self, set: &DaemonSet) -> Vec<Step> {
        let newest_old = self.old.iter().filter_map(|revision| revision.revision).max().unwrap_or(0);
        let mut steps: Vec<Step> = match &self.current {
            None if set.is_deleted() => vec![],
            None => vec![Step::create(&self.new_revision(set, newest_old + 1))],
            Some(current) if current.revision.unwrap_or(0) <= newest_old => {
                let newest = ControllerRevision { revision: Some(newest_old + 1), ..ControllerRevision::clone(current) };
                Step::update(&**current, &newest).into_iter().collect()
            }
            Some(_) => vec![],
        };
        let limit = set.spec.revision_history_limit.unwrap_or(HISTORY_DEFAULT).max(0) as usize;
        let idle = |revision: &&Arc<ControllerRevision>| {
            revision.label(HASH_LABEL).is_none_or(|hash| !self.in_use.contains(hash)) && !revision.is_deleted()
        };
        let surplus = self.old.len().saturating_sub(limit);
        let obsolete = self.old.iter().filter(idle).take(surplus);
        steps.extend(obsolete.map(|revision| Step::delete(&**revision, "beyond the revision history limit")));
        steps
    }

    fn new_revision(&self, set: &DaemonSet, number: i64) -> ControllerRevision {
        let mut revision = ControllerRevision { data: RawExtension(data(set)), revision: Some(number), ..Default::default() };
        revision.metadata.name = Some(format!("{}-{}", set.name(), self.hash));
        revision.metadata.namespace = set.metadata.namespace.clone();
        revision.metadata.annotations = set.metadata.annotations.clone();
        let template = set.spec.template.metadata.clone().unwrap_or_default();
        let mut labels = template.labels.unwrap_or_default();
        labels.insert(HASH_LABEL.into(), self.hash.clone());
        revision.metadata.labels = Some(labels);
        revision.metadata.owner_references = Some(vec![set.controller_reference()]);
        revision
    }
}

/// A strategic merge patch that brings this template back.
fn data(set: &DaemonSet) -> Value {
    let mut template = serde_json::to_value(&set.spec.template).expect("templates serialise");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}
