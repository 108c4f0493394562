//! What several controllers need to know of pods.

use slipway_api::{
    core::{Pod, PodTemplateSpec},
    jiff::{SignedDuration, Timestamp},
};

pub use slipway_api::pod::{is_available, is_ready, is_terminal, phase};

use crate::resource::Object;

/// Neither ended nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleted()
}

/// On its way out, but not ended yet.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.is_deleted()
}

pub fn node(pod: &Pod) -> &str {
    slipway_api::pod::node_name(pod).unwrap_or_default()
}

/// Since when the pod has been ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// When the pod becomes available, if nothing happens to it.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    Some(ready_since(pod)? + SignedDuration::from_secs(min_ready_seconds.into()))
}

/// A pod made after the template, controlled by the owner.
pub fn from_template<O: Object>(template: &PodTemplateSpec, owner: &O) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.namespace = Some(owner.namespace().to_owned());
    pod.metadata.generate_name = Some(format!("{}-", owner.name()));
    pod.metadata.labels = from.labels;
    pod.metadata.annotations = from.annotations;
    pod.metadata.finalizers = from.finalizers;
    pod.metadata.owner_references = Some(vec![owner.controller_reference()]);
    pod
}
