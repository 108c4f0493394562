//! ReplicationController: what there was before ReplicaSets. Its selector is a map, and its pods outlive it.

use super::{fill, pod_template, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::core::ReplicationController;
use slipway_api::selector::Selector;

impl Kind for ReplicationController {
    const NAMES: Names = Names {
        short: &["rc"],
        categories: &["all"],
        status: true,
        scale: true,
        ..Names::namespaced("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller")
    };
    const ORPHANS_BY_DEFAULT: bool = true;

    /// The labels of the template stand for selector and labels that are left out.
    fn fill_defaults(object: &mut Value) {
        pod_template::fill_defaults(object);
        let labels = object["spec"]["template"]["metadata"].get("labels").filter(|labels| labels.is_object()).cloned();
        if let Some(labels) = labels {
            let is_missing = |map: Option<&Value>| map.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty);
            if is_missing(object["spec"].get("selector")) {
                object["spec"]["selector"] = labels.clone();
            }
            if is_missing(object["metadata"].get("labels")) {
                object["metadata"]["labels"] = labels;
            }
        }
        if let Some(spec) = fill::inner(object, "spec") {
            fill::missing(spec, "replicas", 1);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0});
        object["metadata"]["generation"] = json!(1);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let Some(spec) = &self.spec else { return vec![Invalid::required("spec", "")] };
        pod_template::check_count("spec.minReadySeconds", spec.min_ready_seconds, &mut errors);
        pod_template::check_count("spec.replicas", spec.replicas, &mut errors);
        let selector = spec.selector.clone().unwrap_or_default();
        if selector.is_empty() {
            errors.push(Invalid::required("spec.selector", ""));
        }
        let Some(template) = &spec.template else {
            errors.push(Invalid::required("spec.template", ""));
            return errors;
        };
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
        if !selector.is_empty() && !selector.iter().all(|(name, value)| labels.get(name) == Some(value)) {
            let why = "`selector` does not match template `labels`";
            errors.push(Invalid::value("spec.template.metadata.labels", &json!(labels), why));
        }
        pod_template::validate("spec.template", template, &["Always"], "ReplicationController", &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::integer("Desired", "How many pods there should be."),
            Column::integer("Current", "How many pods there are."),
            Column::integer("Ready", "How many pods are ready."),
            Column::AGE,
            Column::text("Containers", "The names of the template's containers.").wide(),
            Column::text("Images", "The images of the template's containers.").wide(),
            Column::text("Selector", "The labels of its pods.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let [containers, images] = show::containers(spec.template.as_ref().and_then(|template| template.spec.as_ref()));
        vec![
            show::name(object),
            json!(spec.replicas.unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            age(object, now),
            containers,
            images,
            json!(Selector::from_labels(&spec.selector.unwrap_or_default()).to_string()),
        ]
    }

    const SELECTABLE: &'static [&'static str] = &["status.replicas"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object["status"]["replicas"].as_i64().unwrap_or(0).to_string())]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn controller(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "r"}, "spec": spec});
        Builtin::<super::ReplicationController>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn the_labels_of_the_template_stand_for_the_selector() {
        let strategy = Builtin::<super::ReplicationController>::new();
        let texts = |it: &Value| {
            strategy.validate(it).iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let template = json!({"metadata": {"labels": {"app": "r"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let good = controller(json!({"template": template}));
        assert_eq!(texts(&good), Vec::<String>::new());
        assert_eq!(good["spec"]["selector"], json!({"app": "r"}));
        assert_eq!(good["metadata"]["labels"], json!({"app": "r"}));
        assert_eq!(good["spec"]["replicas"], 1);
        assert_eq!(
            texts(&controller(json!({"selector": {"app": "x"}, "template": template}))),
            ["spec.template.metadata.labels: Invalid value: {\"app\":\"r\"}: `selector` does not match template `labels`"]
        );
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[7], "app=r");
    }
}
