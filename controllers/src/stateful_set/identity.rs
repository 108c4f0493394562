//! Who a pod of a stateful set is: its name and place in the order, and what follows from them.

use slipway_api::{
    apps::StatefulSet,
    core::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};

use super::claims;
use crate::{history::REVISION_LABEL, pods, resource::Object};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name())
}

/// The pod's place in the order; `None` if it is not called as the set's pods are.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let ordinal = pod.name().strip_prefix(set.name())?.strip_prefix('-')?.parse().ok()?;
    (name(set, ordinal) == pod.name()).then_some(ordinal)
}

/// A pod after the template of a revision.
pub fn pod_for(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pods::from_template(template, set);
    pod.metadata.name = Some(name(set, ordinal));
    pod = labelled(&pod, ordinal);
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.into(), revision.into());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name(set, ordinal));
    spec.subdomain = set.spec.service_name.clone().filter(|service| !service.is_empty());
    let claims: Vec<Volume> = claims::templates(set)
        .map(|template| Volume {
            name: template.name().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claims::name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    if !claims.is_empty() {
        // A claim takes the place of a volume of the template that has the same name.
        let others = spec.volumes.take().unwrap_or_default().into_iter();
        let others: Vec<Volume> = others.filter(|volume| claims.iter().all(|claim| claim.name != volume.name)).collect();
        spec.volumes = Some(claims.into_iter().chain(others).collect());
    }
    pod
}

/// The pod with the labels that say who it is: one that was adopted may lack them. Its host name and its volumes cannot be
/// changed any more.
pub fn labelled(pod: &Pod, ordinal: i32) -> Pod {
    let mut pod = pod.clone();
    let name = pod.name().to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name);
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    pod
}
