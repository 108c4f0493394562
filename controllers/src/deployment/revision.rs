//! Versions of the template: which ReplicaSet is the current one, its name, its number, and which old ones may go.

use slipway_api::{
    apps::{Deployment, ReplicaSet, ReplicaSetSpec},
    canonical::Sorted,
    core::PodTemplateSpec,
    meta::{LabelSelector, ObjectMeta},
};

use super::{Pass, condition, size};
use crate::{apply::Failure, plan::Step, resource::Object};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// As much of the history of one set as is kept.
const REVISION_HISTORY_CHARS_MAX: usize = 2000;
pub const HASH_LABEL: &str = "pod-template-hash";
/// Those that a ReplicaSet has of its own, or that make no sense on it.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    size::DESIRED_REPLICAS,
    size::MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The oldest set with the deployment's template, hash label aside: there may be several after a client created its own.
pub fn position_of_new(deployment: &Deployment, sets: &[ReplicaSet]) -> Option<usize> {
    let wanted = canonical(&deployment.spec.template);
    sets.iter().position(|set| set.spec.template.as_ref().is_some_and(|template| canonical(template) == wanted))
}

/// The template without the hash label and without what is absent in one spelling and empty in another.
fn canonical(template: &PodTemplateSpec) -> serde_json::Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    let mut json = serde_json::to_value(template).expect("templates serialise");
    prune(&mut json);
    json
}

fn prune(json: &mut serde_json::Value) {
    use serde_json::Value;
    match json {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            let bare = |name: &str| matches!(name, "labels" | "annotations" | "metadata" | "nodeSelector" | "securityContext");
            fields.retain(|name, value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => !(fields.is_empty() && bare(name)),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// FNV-1a over the template (and the count of collisions so far), in letters that spell no words.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = Sorted(&canonical(template)).to_string();
    text.extend(collisions.map(|count| format!("#{count}")));
    let sum = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    sum.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

fn revision(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Sets an annotation; says whether that changed anything.
fn annotate(metadata: &mut ObjectMeta, name: &str, value: String) -> bool {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(name.to_owned(), value.clone()).as_ref() != Some(&value)
}

pub fn annotate_sizes(set: &mut ReplicaSet, deployment: &Deployment) {
    let wanted = size::wanted(deployment);
    annotate(&mut set.metadata, size::DESIRED_REPLICAS, wanted.to_string());
    annotate(&mut set.metadata, size::MAX_REPLICAS, (wanted + size::max_surge(deployment)).to_string());
}

impl Pass<'_> {
    /// Gives the current set, if it exists, the next number, the deployment's annotations and its minReadySeconds.
    pub(super) fn note_revision(&mut self) {
        let number = self.next_revision();
        let Some(set) = &mut self.new else { return };
        let before = set.clone();
        describe(set, self.deployment, number);
        set.spec.min_ready_seconds = self.deployment.spec.min_ready_seconds;
        self.plan.steps.extend(Step::update(&before, set));
        let number = set.annotation(REVISION).unwrap_or_default().to_owned();
        let name = set.name().to_owned();
        self.number_deployment(number);
        condition::note_found(self.deployment, &mut self.status, &name, self.now);
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(revision).max().unwrap_or(0) + 1
    }

    fn number_deployment(&mut self, number: String) {
        let mut numbered = self.deployment.clone();
        annotate(&mut numbered.metadata, REVISION, number);
        self.plan.push(Step::update(self.deployment, &numbered));
    }

    /// Makes the set for the present template, in the size that the surge allows.
    pub(super) fn create_new(&mut self, failure: Option<&Failure>) {
        let deployment = self.deployment;
        let mut template = deployment.spec.template.clone();
        let hash = hash(&template, self.status.collision_count);
        let name = format!("{}-{hash}", deployment.name());
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();

        let taken = self.caches.replica_sets.get(&crate::resource::Key::new(deployment.namespace(), &name));
        if taken.is_some() {
            // Not ours, or another template with the same hash: the next pass tries another name.
            self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            return;
        }
        if let Some(failure) = failure.filter(|failure| failure.reason == "FailedCreate") {
            condition::note_create_failed(deployment, &mut self.status, &name, &failure.message, self.now);
        }
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![deployment.controller_reference()]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(size::of_new(deployment, &self.old, 0)),
                min_ready_seconds: deployment.spec.min_ready_seconds.filter(|seconds| *seconds > 0),
                selector: with_hash(&deployment.spec.selector, &hash),
                template: Some(template),
            },
            status: None,
        };
        let number = self.next_revision();
        describe(&mut set, deployment, number);
        annotate_sizes(&mut set, deployment);
        // The failure must be told although (and before) the creation fails again.
        if failure.is_some() {
            let reported = Deployment { status: Some(self.status.clone()), ..deployment.clone() };
            self.plan.push(Step::update_status(deployment, &reported));
        }
        self.plan.push(Step::create(&set));
        let size = size::replicas(&set);
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.plan.push(Step::event(deployment, "ScalingReplicaSet", message));
        }
        self.number_deployment(number.to_string());
        condition::note_created(deployment, &mut self.status, &name, self.now);
        self.new = Some(set);
    }

    /// Deletes the oldest sets that are empty, beyond `revisionHistoryLimit`.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut old: Vec<&ReplicaSet> = self.old.iter().filter(|set| !set.is_deleted()).collect();
        let Some(surplus) = old.len().checked_sub(limit.max(0) as usize) else { return };
        old.sort_by_key(|set| revision(set));
        for set in old.into_iter().take(surplus) {
            let observed = set.status.as_ref().and_then(|status| status.observed_generation);
            if size::actual(set) == 0 && size::replicas(set) == 0 && set.metadata.generation <= observed {
                self.plan.steps.push(Step::delete(set, "beyond the revision history limit"));
            }
        }
    }
}

/// Copies the deployment's annotations and sets the revision, if it is a later one than the set has.
fn describe(set: &mut ReplicaSet, deployment: &Deployment, number: i64) {
    let mine = deployment.metadata.annotations.iter().flatten();
    for (name, value) in mine.filter(|(name, _)| !NOT_COPIED.contains(&name.as_str())) {
        annotate(&mut set.metadata, name, value.clone());
    }
    let before = set.annotation(REVISION).map(str::to_owned);
    if revision(set) >= number {
        return;
    }
    annotate(&mut set.metadata, REVISION, number.to_string());
    if let Some(before) = before.filter(|text| !text.is_empty()) {
        let history = set.annotation(REVISION_HISTORY).map(str::to_owned).filter(|text| !text.is_empty());
        let mut entries: Vec<&str> = history.as_deref().map(|text| text.split(',').collect()).unwrap_or_default();
        entries.push(&before);
        while entries.len() > 1 && entries.iter().map(|entry| entry.len() + 1).sum::<usize>() > REVISION_HISTORY_CHARS_MAX {
            entries.remove(0);
        }
        let history = entries.join(",");
        annotate(&mut set.metadata, REVISION_HISTORY, history);
    }
}

fn with_hash(selector: &LabelSelector, hash: &str) -> LabelSelector {
    let mut selector = selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.to_owned());
    selector
}
