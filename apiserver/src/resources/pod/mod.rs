//! Pod: containers that run together on one node.

mod columns;
mod containers;
pub mod defaults;
mod ephemeral;
mod probes;
mod resize;
pub mod scheduling;
#[cfg(test)]
mod tests;
mod update;
pub mod validation;
pub mod volumes;
mod whole;

use super::fill;
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, Part, bump_generation, keep};
use serde::Deserialize;
use serde_json::{Value, json};
pub use slipway_api::core::Pod;
use slipway_api::core::{PodSpec, ResourceRequirements};

impl Kind for Pod {
    const NAMES: Names =
        Names { short: &["po"], categories: &["all"], status: true, ..Names::namespaced("", "v1", "Pod", "pods", "pod") };
    const STATUS_KEEPS: &'static [&'static str] = &["ownerReferences"];

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::made(object, "spec") {
            defaults::fill_spec(spec);
            defaults::fill_pod(spec);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        if let Some(spec) = fill::inner(object, "spec") {
            defaults::mirror_service_account(spec);
        }
        object["status"] = json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        match &self.spec {
            Some(spec) => validation::spec("spec", spec, false, &mut errors),
            None => validation::spec("spec", &PodSpec::default(), false, &mut errors),
        }
        errors
    }

    fn validate_create(&self) -> Vec<Invalid> {
        let given = self.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref()).is_some_and(|list| !list.is_empty());
        let refused = || Invalid::forbidden("spec.ephemeralContainers", "cannot be set on create");
        given.then(refused).into_iter().collect()
    }

    const PARTS: &'static [Part] = &[
        Part { name: ephemeral::SUBRESOURCE, fields: ephemeral::FIELDS },
        Part { name: resize::SUBRESOURCE, fields: resize::FIELDS },
    ];

    fn prepare_part_update(part: &str, object: &mut Value, old: &Value) {
        match part {
            resize::SUBRESOURCE => resize::prepare(object, old),
            _ => ephemeral::prepare(object, old),
        }
    }

    fn validate_part_update(&self, part: &str, old: &Self) -> Vec<Invalid> {
        match part {
            resize::SUBRESOURCE => resize::check(self, old),
            _ => ephemeral::check_update(self, old),
        }
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        update::check(self, old)
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        columns::columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        columns::row(self, object, now)
    }

    const SELECTABLE: &'static [&'static str] = &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ip = match fill::text(status, "podIP") {
            "" => fill::text(&status["podIPs"][0], "ip"),
            ip => ip,
        };
        vec![
            ("spec.nodeName", fill::text(spec, "nodeName").to_owned()),
            ("spec.restartPolicy", fill::text(spec, "restartPolicy").to_owned()),
            ("spec.schedulerName", fill::text(spec, "schedulerName").to_owned()),
            ("spec.serviceAccountName", fill::text(spec, "serviceAccountName").to_owned()),
            ("spec.hostNetwork", (spec["hostNetwork"] == true).to_string()),
            ("status.phase", fill::text(status, "phase").to_owned()),
            ("status.podIP", ip.to_owned()),
            ("status.podIPs", ip.to_owned()),
            ("status.nominatedNodeName", fill::text(status, "nominatedNodeName").to_owned()),
        ]
    }

    /// At once where no node has the pod, or where it has ended; else the time that the pod or the request gives it.
    fn grace_seconds(object: &Value, asked: Option<i64>) -> Option<i64> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ended = matches!(fill::text(status, "phase"), "Succeeded" | "Failed");
        if ended || fill::text(spec, "nodeName").is_empty() {
            return Some(0);
        }
        let seconds = asked.or_else(|| spec["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// Of a spec whose types have been checked. Only what it asks for is read into its type.
fn qos_class(spec: &Value) -> &'static str {
    let asked = |of: &Value| Option::<ResourceRequirements>::deserialize(&of["resources"]).ok().flatten();
    let each = ["containers", "initContainers"].into_iter().filter_map(|list| spec[list].as_array()).flatten();
    let each: Vec<_> = each.map(asked).collect();
    slipway_api::pod::qos_class_of(asked(spec).as_ref(), each.iter().map(Option::as_ref))
}

/// The image of a pod that a node runs by itself.
fn is_mirror(pod: &Pod) -> bool {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// The old object as one that is to replace the version that the new one names.
fn with_version_of(object: &Value, old: &Value) -> Value {
    let mut kept = old.clone();
    if let Some(version) = object["metadata"].get("resourceVersion") {
        kept["metadata"]["resourceVersion"] = version.clone();
    }
    kept
}

/// A quantity that must not be negative.
pub fn quantity(at: &str, amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity, errors: &mut Vec<Invalid>) {
    super::amounts::amount(at, amount, errors);
}
