//! CustomResourceDefinition: a kind that users bring. What is served because of it is in `custom_resources`.

mod structural;
mod validation;

use super::show;
use crate::custom_resources::definition::{self, FINALIZER};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, bump_generation, keep, keep_all_but_status};
use serde_json::{Map, Value, json};
pub use slipway_api::apiextensions::CustomResourceDefinition;

impl Kind for CustomResourceDefinition {
    const NAMES: Names = Names {
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        ..Names::namespaced(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "customresourcedefinition",
        )
    };

    fn fill_defaults(object: &mut Value) {
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
        if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
            let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            let mut fill = |field: &str, value: String| {
                if !kind.is_empty() && names.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                    names.insert(field.into(), value.into());
                }
            };
            fill("singular", kind.to_lowercase());
            fill("listKind", format!("{kind}List"));
        }
        let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
        let port = conversion.pointer_mut("/webhook/clientConfig/service").and_then(Value::as_object_mut);
        if let Some(service) = port {
            service.entry("port").or_insert_with(|| json!(443));
        }
        for version in spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(version) = version.as_object_mut() {
                fill_version(version);
            }
        }
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
        note_storage_version(object);
        let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|one| one == FINALIZER) {
            object["metadata"]["finalizers"] = finalizers.into_iter().chain([json!(FINALIZER)]).collect();
        }
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
        bump_generation(object, old);
        note_storage_version(object);
    }

    fn prepare_status_update(object: &mut Value, old: &Value) {
        keep_all_but_status(object, old);
    }

    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        validation::validate(object)
    }

    fn validate_update(&self, _old: &Self) -> Vec<Invalid> {
        vec![]
    }

    fn validate_update_whole(object: &Value, old: &Value) -> Vec<Invalid> {
        validation::validate_update(object, old)
    }

    fn prepare_delete(object: &mut Value) {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        definition::set_condition(object, "Terminating", true, "InstanceDeletionPending", message, jiff::Timestamp::now());
    }

    const UNCONDITIONAL_UPDATE: bool = false;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, show::CREATED_AT]
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), object["metadata"]["creationTimestamp"].clone()]
    }
}

fn fill_version(version: &mut Map<String, Value>) {
    // What an empty `subresources.status` says is that it is there.
    if let Some(subresources) = version.get_mut("subresources").and_then(Value::as_object_mut) {
        subresources.retain(|_, subresource| !subresource.is_null());
    }
    for rule in ["served", "storage"] {
        version.entry(rule).or_insert(Value::Bool(false));
    }
}

/// Notes the version in which objects are stored from now on.
fn note_storage_version(object: &mut Value) {
    let versions = object["spec"]["versions"].as_array();
    let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
    let Some(name) = storage.map(|version| version["name"].clone()) else { return };
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    let stored = object["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&name) {
        object["status"]["storedVersions"] = stored.into_iter().chain([name]).collect();
    }
}
