//! The history of a template: one ControllerRevision for each that a DaemonSet or a StatefulSet has had, so that
//! `kubectl rollout history` can show them and `undo` go back to one.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use slipway_api::{
    apps::ControllerRevision,
    core::{Pod, PodTemplateSpec},
    meta::LabelSelector,
};

use crate::{
    caches::Caches,
    claim::claim,
    deployment::revision::hash,
    plan::Step,
    resource::{Key, Object},
};

/// Says on a pod which revision it is made of.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// What has a history.
pub trait Versioned: Object {
    /// The label that carries a revision's hash.
    const HASH_LABEL: &'static str;
    fn selector(&self) -> &LabelSelector;
    fn template(&self) -> &PodTemplateSpec;
    /// How many names were taken so far by something else.
    fn collision_count(&self) -> Option<i32>;
}

pub struct History {
    /// What takes over revisions that nobody controls.
    pub adoptions: Vec<Step>,
    /// The newest of those with the present template.
    present: Option<Arc<ControllerRevision>>,
    /// Others with the present template, oldest first.
    pub duplicates: Vec<Arc<ControllerRevision>>,
    /// Those of other templates, oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
}

/// The revision of the present template as it is to be, and the step that makes it so.
pub struct Present {
    pub revision: ControllerRevision,
    pub step: Option<Step>,
    pub collisions: Option<i32>,
}

impl History {
    pub fn of<V: Versioned>(owner: &V, caches: &Caches) -> History {
        let claim = claim(owner, owner.selector(), &caches.controller_revisions);
        let mut mine = claim.mine;
        mine.sort_by_key(|one| {
            let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (one.revision, created, one.name().to_owned())
        });
        let data = data(owner.template());
        let (mut duplicates, old): (Vec<_>, Vec<_>) = mine.into_iter().partition(|revision| revision.data.0 == data);
        History { adoptions: claim.steps, present: duplicates.pop(), duplicates, old }
    }

    pub fn named(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        self.old.iter().chain(&self.duplicates).chain(&self.present).find(|revision| revision.name() == name)
    }

    /// The present template's revision is the newest: it is made, or numbered anew after somebody went back to it.
    pub fn present<V: Versioned>(&self, owner: &V, caches: &Caches) -> Present {
        let newest_old = self.old.iter().filter_map(|revision| revision.revision).max().unwrap_or(0);
        let Some(known) = &self.present else { return Self::made(owner, newest_old + 1, caches) };
        let mut revision = ControllerRevision::clone(known);
        if revision.revision.unwrap_or(0) <= newest_old {
            revision.revision = Some(newest_old + 1);
        }
        let step = Step::update(&**known, &revision);
        Present { revision, step, collisions: owner.collision_count() }
    }

    fn made<V: Versioned>(owner: &V, number: i64, caches: &Caches) -> Present {
        let mut collisions = owner.collision_count();
        let (hash, name) = loop {
            let hash = hash(owner.template(), collisions);
            let name = format!("{}-{hash}", owner.name());
            if caches.controller_revisions.get(&Key::new(owner.namespace(), &name)).is_none() {
                break (hash, name);
            }
            // Somebody else's, or another template with the same hash.
            collisions = Some(collisions.unwrap_or(0) + 1);
        };
        let data = RawExtension(data(owner.template()));
        let mut revision = ControllerRevision { data, revision: Some(number), ..ControllerRevision::default() };
        revision.metadata.name = Some(name);
        revision.metadata.namespace = owner.metadata().namespace.clone();
        revision.metadata.annotations = owner.metadata().annotations.clone();
        let mut labels = owner.template().metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
        labels.insert(V::HASH_LABEL.into(), hash);
        revision.metadata.labels = Some(labels);
        revision.metadata.owner_references = Some(vec![owner.controller_reference()]);
        let step = Some(Step::create(&revision));
        Present { revision, step, collisions }
    }
}

/// Forgets a revision.
pub fn forget(revision: &ControllerRevision) -> Step {
    Step::delete(revision, "beyond the revision history limit")
}

pub fn revision_of(pod: &Pod) -> &str {
    pod.label(REVISION_LABEL).unwrap_or_default()
}

/// A strategic merge patch that brings this template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("templates serialise");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}
