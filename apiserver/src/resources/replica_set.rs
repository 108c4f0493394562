//! ReplicaSet: so many pods of one template.

use super::{fill, pod_template, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::apps::ReplicaSet;

impl Kind for ReplicaSet {
    const NAMES: Names = Names {
        short: &["rs"],
        categories: &["all"],
        status: true,
        scale: true,
        ..Names::namespaced("apps", "v1", "ReplicaSet", "replicasets", "replicaset")
    };

    fn fill_defaults(object: &mut Value) {
        pod_template::fill_defaults(object);
        if let Some(spec) = fill::inner(object, "spec") {
            fill::missing(spec, "replicas", 1);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0});
        object["metadata"]["generation"] = json!(1);
    }

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let spec = &self.spec;
        let mut errors = vec![];
        pod_template::check_count("spec.replicas", spec.replicas, &mut errors);
        pod_template::check_count("spec.minReadySeconds", spec.min_ready_seconds, &mut errors);
        pod_template::check_selector(whole, &spec.selector, spec.template.as_ref(), "deployment", &mut errors);
        match &spec.template {
            Some(template) => pod_template::validate("spec.template", template, &["Always"], "ReplicaSet", &mut errors),
            None => errors.push(Invalid::required("spec.template", "")),
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        pod_template::same_selector(&self.spec.selector, &old.spec.selector)
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
        let status = self.status.clone().unwrap_or_default();
        let [containers, images] = show::containers(self.spec.template.as_ref().and_then(|template| template.spec.as_ref()));
        vec![
            show::name(object),
            json!(self.spec.replicas.unwrap_or(0)),
            json!(status.replicas),
            json!(status.ready_replicas.unwrap_or(0)),
            age(object, now),
            containers,
            images,
            show::selector(Some(&self.spec.selector)),
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

    fn replica_set(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec});
        Builtin::<super::ReplicaSet>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn selector_and_template_belong_together() {
        let strategy = Builtin::<super::ReplicaSet>::new();
        let texts = |it: &Value| {
            strategy.validate(it).iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let template = json!({"metadata": {"labels": {"app": "r"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let mut good = replica_set(json!({"selector": {"matchLabels": {"app": "r"}}, "template": template}));
        assert_eq!(texts(&good), Vec::<String>::new());
        assert_eq!(good["spec"]["replicas"], 1);
        assert_eq!(
            texts(&replica_set(json!({"template": template}))),
            [
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"r\"}: `selector` does not match template `labels`",
            ]
        );
        strategy.prepare_create(&mut good);
        assert_eq!(good["status"], json!({"replicas": 0}));
        good["status"] = json!({"replicas": 2, "readyReplicas": 1});
        let row = strategy.row(&good, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!(1), json!(2), json!(1)]);
        assert_eq!(strategy.selectable_fields(&good), [("status.replicas", "2".to_owned())]);
    }
}
