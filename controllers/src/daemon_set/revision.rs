//! The history of a daemon set's template, one ControllerRevision each, for `kubectl rollout history` and `undo`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use slipway_api::apps::{ControllerRevision, DaemonSet};

use crate::{caches::Caches, deployment::revision::hash, plan::Step, resource::Object};

pub const HASH_LABEL: &str = "controller-revision-hash";
const HISTORY_DEFAULT: i32 = 10;

pub struct Revisions {
    /// Of the present template, as pods carry it.
    pub hash: String,
    current: Option<Arc<ControllerRevision>>,
    old: Vec<Arc<ControllerRevision>>,
    in_use: BTreeSet<String>,
}

impl Revisions {
    pub fn of(set: &DaemonSet, caches: &Caches) -> Revisions {
        let mut mine = caches.controller_revisions.controlled_by(set.namespace(), set.uid());
        mine.sort_by_key(|revision| revision.revision);
        let data = data(set);
        let current = mine.iter().position(|revision| revision.data.0 == data).map(|at| mine.remove(at));
        let known = current.as_ref().and_then(|revision| revision.label(HASH_LABEL).map(str::to_owned));
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let pods = caches.pods.controlled_by(set.namespace(), set.uid());
        let in_use = pods.iter().filter_map(|pod| pod.label(HASH_LABEL).map(str::to_owned)).collect();
        Revisions { hash: known.unwrap_or_else(|| hash(&set.spec.template, collisions)), current, old: mine, in_use }
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
