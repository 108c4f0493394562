//! ResourceClaimTemplate: what the claim of each pod that names it looks like.

use super::{GROUP, request};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use crate::resources::{fill, rules, show};
use serde_json::{Value, json};
pub use slipway_api::resource::ResourceClaimTemplate;

impl Kind for ResourceClaimTemplate {
    const NAMES: Names =
        Names::namespaced(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate");

    fn fill_defaults(object: &mut Value) {
        if let Some(template) = fill::made(object, "spec")
            && let Some(spec) = fill::made(template, "spec")
        {
            request::fill_claim(spec);
        }
    }

    fn prepare_create(object: &mut Value) {
        request::drop_alpha(&mut object["spec"]["spec"]);
    }

    fn prepare_update(object: &mut Value, _old: &Value) {
        request::drop_alpha(&mut object["spec"]["spec"]);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let template = self.spec.clone().unwrap_or_default();
        if let Some(metadata) = &template.metadata {
            rules::labels("spec.metadata.labels", metadata.labels.as_ref(), &mut errors);
            rules::annotations("spec.metadata.annotations", metadata.annotations.as_ref(), &mut errors);
        }
        let devices = template.spec.and_then(|spec| spec.devices).unwrap_or_default();
        request::check("spec.spec.devices", &devices, &mut errors);
        errors
    }

    fn validate_update_whole(object: &Value, old: &Value) -> Vec<Invalid> {
        if object["spec"] == old["spec"] {
            return vec![];
        }
        vec![Invalid::value("spec", &json!(object["spec"]), rules::IMMUTABLE)]
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn a_template_is_a_claim_to_be() {
        let strategy = Builtin::<super::ResourceClaimTemplate>::new();
        let mut it = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "t"}, "spec": {
            "metadata": {"labels": {"-": "x"}}, "spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}}}});
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        assert_eq!(it["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
        let errors = strategy.validate(&it);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "spec.metadata.labels");
        it["spec"]["metadata"] = json!({});
        assert_eq!(strategy.validate(&it), []);
        let mut other = it.clone();
        other["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
        let errors = strategy.validate_update(&other, &it);
        assert_eq!((errors.len(), errors[0].field.as_str()), (1, "spec"));
        assert!(errors[0].message.ends_with("field is immutable"));
        other = it.clone();
        other["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(strategy.validate_update(&other, &it), []);
    }
}
