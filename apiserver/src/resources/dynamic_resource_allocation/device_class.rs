//! DeviceClass: a sort of device, by what selects it.

use super::{CONFIG_MAX, GROUP, is_short, opaque, selector};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, bump_generation};
use crate::resources::{amounts, show};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::resource::DeviceClass;

impl Kind for DeviceClass {
    const NAMES: Names =
        Names { namespaced: false, ..Names::namespaced(GROUP, "v1", "DeviceClass", "deviceclasses", "deviceclass") };

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        selector::check("spec.selectors", spec.selectors.as_deref(), &mut errors);
        let configs = spec.config.as_deref().unwrap_or(&[]);
        if is_short("spec.config", configs.len(), CONFIG_MAX, &mut errors) {
            for (index, config) in configs.iter().enumerate() {
                opaque(&format!("spec.config[{index}]"), config.opaque.as_ref(), &mut errors);
            }
        }
        if let Some(resource) = &spec.extended_resource_name
            && !is_extended_resource(resource)
        {
            let why = "must be a valid extended resource name";
            errors.push(Invalid::value("spec.extendedResourceName", &json!(resource), why));
        }
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), age(object, now)]
    }
}

/// One that a quota can be made of, too.
fn is_extended_resource(resource: &str) -> bool {
    amounts::is_extended(resource) && name::qualified_name(&format!("requests.{resource}")).is_empty()
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn a_class_selects_devices() {
        let strategy = Builtin::<super::DeviceClass>::new();
        let class = |spec: Value| json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"}, "spec": spec});
        let texts = |it: &Value| {
            strategy.validate(it).iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let good = class(json!({
            "selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}], "extendedResourceName": "example.com/gpu",
            "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"mode": "fast"}}}],
        }));
        assert_eq!(texts(&good), Vec::<String>::new());
        let bad = class(
            json!({"selectors": [{}, {"cel": {"expression": "1"}}], "config": [{}, {"opaque": {"driver": "d", "parameters": 1}}], "extendedResourceName": "cpu"}),
        );
        assert_eq!(
            texts(&bad),
            [
                "spec.selectors[0].cel: Required value",
                "spec.selectors[1].cel.expression: Invalid value: \"1\": must evaluate to bool or the unknown type, not int",
                "spec.config[0].opaque: Required value",
                "spec.config[1].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ]
        );
        let many: Vec<Value> = (0..33).map(|_| json!({"cel": {"expression": "true"}})).collect();
        assert_eq!(texts(&class(json!({"selectors": many}))), ["spec.selectors: Too many: 33: must have at most 32 items"]);
    }
}
