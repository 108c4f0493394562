//! Pod: containers that run together on one node.

mod columns;
mod containers;
pub mod defaults;
mod probes;
pub mod scheduling;
#[cfg(test)]
mod tests;
mod update;
pub mod validation;
pub mod volumes;

use super::fill;
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, bump_generation, keep};
use serde::Deserialize;
use serde_json::{Value, json};
pub use slipway_api::core::Pod;

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
        let qos = Pod::deserialize(&*object).map(|pod| slipway_api::pod::qos_class(&pod)).unwrap_or("BestEffort");
        object["status"] = json!({"phase": "Pending", "qosClass": qos});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        validation::spec("spec", &spec, false, &mut errors);
        if spec.ephemeral_containers.is_some_and(|containers| !containers.is_empty()) {
            errors.push(Invalid::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        errors
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

/// A quantity that must not be negative.
pub fn quantity(at: &str, amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity, errors: &mut Vec<Invalid>) {
    super::amounts::amount(at, amount, errors);
}
