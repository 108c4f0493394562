//! Namespace: a room for names.

use super::{fill, show};
use crate::kind::{Column, Kind, NameRule, Names, age, keep};
use serde_json::{Value, json};
pub use slipway_api::core::Namespace;

/// On every namespace, so that selectors can name it.
const LABEL_NAME: &str = "kubernetes.io/metadata.name";
/// In `spec.finalizers`: held by the namespace controller until nothing is in the namespace any more.
const FINALIZER: &str = "kubernetes";

impl Kind for Namespace {
    const NAMES: Names = Names {
        short: &["ns"],
        namespaced: false,
        status: true,
        name_rule: NameRule::Label,
        ..Names::namespaced("", "v1", "Namespace", "namespaces", "namespace")
    };

    fn fill_defaults(object: &mut Value) {
        let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned) else { return };
        if let Some(labels) = fill::made(object, "metadata").and_then(|metadata| fill::map_of(metadata, "labels")) {
            labels.entry(LABEL_NAME).or_insert(json!(name));
        }
    }

    fn prepare_create(object: &mut Value) {
        // Once more: a generated name was not there before.
        Self::fill_defaults(object);
        object["status"] = json!({"phase": "Active"});
        if let Some(spec) = fill::made(object, "spec") {
            fill::missing(spec, "finalizers", json!([]));
            if let Some(finalizers) = spec["finalizers"].as_array_mut()
                && !finalizers.contains(&json!(FINALIZER))
            {
                finalizers.push(json!(FINALIZER));
            }
        }
    }

    /// `spec.finalizers` are changed through the `finalize` subresource only.
    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        keep(object, old, "status");
    }

    fn prepare_delete(object: &mut Value) {
        object["status"]["phase"] = json!("Terminating");
    }

    fn is_kept(object: &Value) -> bool {
        object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("Status", "Whether the namespace is in use or being emptied."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), object["status"]["phase"].clone(), age(object, now)]
    }

    const SELECTABLE: &'static [&'static str] = &["status.phase"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.phase", fill::text(&object["status"], "phase").to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn a_namespace_lives_until_it_is_empty() {
        let strategy = Builtin::<super::Namespace>::new();
        let mut it = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}, "status": {"phase": "Lost"}});
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        assert_eq!(it["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "team"}));
        assert_eq!((&it["spec"], &it["status"]), (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"})));
        assert_eq!(strategy.selectable_fields(&it), [("status.phase", "Active".to_owned())]);
        let mut freed = it.clone();
        freed["spec"] = json!({});
        strategy.prepare_update(&mut freed, &it);
        assert_eq!(freed["spec"], it["spec"], "finalizers are not the update's to change");
        strategy.prepare_delete(&mut it);
        assert_eq!(strategy.row(&it, jiff::Timestamp::UNIX_EPOCH)[1], "Terminating");
        assert!(strategy.is_kept(&it));
        it["spec"]["finalizers"] = json!([]);
        assert!(!strategy.is_kept(&it));
    }
}
