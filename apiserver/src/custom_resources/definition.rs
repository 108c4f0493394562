//! What is asked of a CustomResourceDefinition as a stored object: where it lies, and its conditions.

use serde_json::{Value, json};

pub const PREFIX: &str = "/apiextensions.k8s.io/customresourcedefinitions/";
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub fn is_condition_true(object: &Value, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| condition["status"] == "True")
}

pub fn condition<'o>(object: &'o Value, type_: &str) -> Option<&'o Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

/// Sets a condition; its time changes only with its status.
pub fn set_condition(object: &mut Value, type_: &str, status: bool, reason: &str, message: &str, now: jiff::Timestamp) {
    let status = if status { "True" } else { "False" };
    let since = condition(object, type_).filter(|condition| condition["status"] == status);
    let since =
        since.map_or_else(|| crate::verbs::object_meta::timestamp(now), |condition| condition["lastTransitionTime"].clone());
    let wanted = json!({"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == type_) {
        Some(condition) => *condition = wanted,
        None => conditions.push(wanted),
    }
}

pub fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null())
}

pub fn has_finalizer(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == FINALIZER))
}
