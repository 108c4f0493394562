//! DefaultStorageClass and DefaultIngressClass: who names no class has the default one, if there is one.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use crate::resources::{ingress, ingress_class, persistent_volume_claim, storage_class};
use crate::stored;
use async_trait::async_trait;
use serde_json::Value;

pub(super) struct DefaultStorageClass;
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    async fn admit(&self, context: &AdmissionContext<'_>, object: &mut Value, _: &mut Reservations) -> Result<(), Status> {
        let created = context.writes("", "persistentvolumeclaims", &[Operation::Create]);
        if !created || names_class(object, "storageClassName", persistent_volume_claim::CLASS_ANNOTATION) {
            return Ok(());
        }
        let defaults = all(context, "storage.k8s.io", "storageclasses").into_iter().filter(storage_class::is_default);
        if let Some(class) = newest(defaults) {
            object["spec"]["storageClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    async fn admit(&self, context: &AdmissionContext<'_>, object: &mut Value, _: &mut Reservations) -> Result<(), Status> {
        let created = context.writes("networking.k8s.io", "ingresses", &[Operation::Create]);
        if !created || names_class(object, "ingressClassName", ingress::CLASS_ANNOTATION) {
            return Ok(());
        }
        let is_default = |class: &Value| class["metadata"]["annotations"][ingress_class::DEFAULT_ANNOTATION] == "true";
        let defaults: Vec<Value> = all(context, "networking.k8s.io", "ingressclasses").into_iter().filter(is_default).collect();
        match defaults.as_slice() {
            [] => Ok(()),
            [class] => {
                object["spec"]["ingressClassName"] = class["metadata"]["name"].clone();
                Ok(())
            }
            many => {
                let why = format!("{} default IngressClasses were found, only 1 allowed", many.len());
                Err(context.forbidden(object, &format!("Internal error occurred: {why}")))
            }
        }
    }
}

/// An empty class is a class: it says that none is wanted.
fn names_class(object: &Value, field: &str, annotation: &str) -> bool {
    object["spec"].get(field).is_some_and(|class| !class.is_null()) || object["metadata"]["annotations"].get(annotation).is_some()
}

fn all(context: &AdmissionContext<'_>, group: &str, plural: &str) -> Vec<Value> {
    let Some(strategy) = context.server.strategy(group, "v1", plural) else { return vec![] };
    let snapshot = context.server.snapshot();
    let prefix = stored::prefix(strategy.names(), None);
    stored::below(&snapshot, &prefix, "").filter_map(|entry| stored::decode(&*strategy, &entry.bytes).ok()).collect()
}

/// Of several defaults the one that was made last; by name, of those made in the same second.
fn newest(classes: impl Iterator<Item = Value>) -> Option<Value> {
    let text = |class: &Value, field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
    let age = |class: &Value| (std::cmp::Reverse(text(class, "creationTimestamp")), text(class, "name"));
    classes.min_by_key(age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_is_taken() {
        let class = |name: &str, at: &str| json!({"metadata": {"name": name, "creationTimestamp": at}});
        let all = [class("old", "2026-01-01T00:00:00Z"), class("b", "2026-01-02T00:00:00Z"), class("a", "2026-01-02T00:00:00Z")];
        assert_eq!(newest(all.into_iter()).unwrap()["metadata"]["name"], "a");
        assert_eq!(newest(std::iter::empty()), None);
    }

    #[test]
    fn no_class_and_the_empty_class_differ() {
        let named = |object: Value| names_class(&object, "storageClassName", "old/class");
        assert!(!named(json!({"spec": {}})) && !named(json!({"spec": {"storageClassName": null}})));
        assert!(named(json!({"spec": {"storageClassName": ""}})));
        assert!(named(json!({"spec": {}, "metadata": {"annotations": {"old/class": "c"}}})));
    }
}
