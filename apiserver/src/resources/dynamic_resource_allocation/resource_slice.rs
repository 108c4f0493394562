//! ResourceSlice: devices that a driver offers, in a pool, on one node or on several.

use super::{GROUP, device, is_short, label, pool_name, unique};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, bump_generation, remove};
use crate::resources::csi_driver::driver_name;
use crate::resources::{fill, pod, rules, show};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::resource::ResourceSlice;
use slipway_api::resource::{CounterSet, ResourceSliceSpec};

const DEVICES_MAX: usize = 128;
/// Of devices that say more of themselves.
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const ONE_OF: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

impl Kind for ResourceSlice {
    const NAMES: Names =
        Names { namespaced: false, ..Names::namespaced(GROUP, "v1", "ResourceSlice", "resourceslices", "resourceslice") };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::inner(object, "spec") {
            for device in fill::items(spec, "devices") {
                device::fill_taints(device, jiff::Timestamp::now());
            }
        }
    }

    fn prepare_create(object: &mut Value) {
        drop_alpha(object);
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        drop_alpha(object);
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        driver_name("spec.driver", &spec.driver, &mut errors);
        pool_name("spec.pool.name", &spec.pool.name, &mut errors);
        if spec.pool.resource_slice_count <= 0 {
            let count = json!(spec.pool.resource_slice_count);
            errors.push(Invalid::value("spec.pool.resourceSliceCount", &count, "must be greater than zero"));
        }
        if spec.pool.generation < 0 {
            let generation = json!(spec.pool.generation);
            errors.push(Invalid::value("spec.pool.generation", &generation, "must be greater than or equal to zero"));
        }
        check_nodes(spec, &mut errors);
        if spec.shared_counters.is_some() && spec.devices.is_some() {
            let why = "only one of `sharedCounters` or `devices` is allowed";
            errors.push(Invalid::value("spec", &json!(""), why));
        }
        let devices = spec.devices.as_deref().unwrap_or(&[]);
        let max = if devices.iter().any(device::is_advanced) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
        if is_short("spec.devices", devices.len(), max, &mut errors) {
            let each = spec.per_device_node_selection == Some(true);
            for (index, device) in devices.iter().enumerate() {
                device::check(&format!("spec.devices[{index}]"), device, each, &mut errors);
            }
            unique("spec.devices", devices.iter().map(|device| &device.name), &mut errors);
        }
        check_counters(spec.shared_counters.as_deref().unwrap_or(&[]), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("spec.pool.name", &self.spec.pool.name, &old.spec.pool.name, &mut errors);
        rules::same("spec.driver", &self.spec.driver, &old.spec.driver, &mut errors);
        rules::same("spec.nodeName", &self.spec.node_name, &old.spec.node_name, &mut errors);
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    const SELECTABLE: &'static [&'static str] = &["spec.driver", "spec.nodeName"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let text = |field: &str| fill::text(&object["spec"], field).to_owned();
        vec![("spec.driver", text("driver")), ("spec.nodeName", text("nodeName"))]
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Node", "The node that the devices are on."),
            Column::text("Driver", "The driver that offers them."),
            Column::text("Pool", "The pool that they belong to."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let node = spec.node_name.as_deref().unwrap_or(show::UNSET);
        vec![show::name(object), json!(node), json!(spec.driver), json!(spec.pool.name), age(object, now)]
    }
}

fn drop_alpha(object: &mut Value) {
    let Some(spec) = fill::inner(object, "spec") else { return };
    for field in ["partitionTypeAttribute", "skipNodeOperations"] {
        remove(spec, field);
    }
    for device in fill::items(spec, "devices") {
        device::drop_alpha(device);
    }
}

/// Where the devices are is said in one way.
fn check_nodes(spec: &ResourceSliceSpec, errors: &mut Vec<Invalid>) {
    let mut said = vec![];
    match spec.node_name.as_deref() {
        None => {}
        Some("") => {
            errors.push(Invalid::value("spec.nodeName", &json!(""), "must be either unset or set to a non-empty string"));
        }
        Some(node) => {
            said.push("`nodeName`");
            rules::all("spec.nodeName", node, name::dns1123_subdomain(node), errors);
        }
    }
    if let Some(selector) = &spec.node_selector {
        said.push("`nodeSelector`");
        pod::scheduling::node_selector("spec.nodeSelector", selector, errors);
        if selector.node_selector_terms.len() != 1 {
            let terms = json!(selector.node_selector_terms);
            errors.push(Invalid::value(
                "spec.nodeSelector.nodeSelectorTerms",
                &terms,
                "must have exactly one node selector term",
            ));
        }
    }
    for (field, shown, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            None => {}
            Some(true) => said.push(shown),
            Some(false) => {
                errors.push(Invalid::value(format!("spec.{field}"), &json!(false), "must be either unset or set to true"));
            }
        }
    }
    match said.len() {
        0 => errors.push(Invalid::required("spec", ONE_OF)),
        1 => {}
        _ => {
            let shown = json!(format!("{{{}}}", said.join(", ")));
            errors.push(Invalid::value("spec", &shown, &format!("{ONE_OF}, but multiple fields are set")));
        }
    }
}

fn check_counters(sets: &[CounterSet], errors: &mut Vec<Invalid>) {
    let at = "spec.sharedCounters";
    if !is_short(at, sets.len(), COUNTER_SETS_MAX, errors) {
        return;
    }
    for (index, set) in sets.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let (name, counters) = (format!("{at}.name"), format!("{at}.counters"));
        if set.name.is_empty() {
            errors.push(Invalid::required(name, ""));
        } else {
            label(&name, &set.name, errors);
        }
        device::counters(&counters, &set.counters, COUNTERS_MAX, errors);
    }
    unique(at, sets.iter().map(|set| &set.name), errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn slice(more: Value) -> Value {
        let mut it = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {
            "driver": "gpu.example.com", "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}}});
        it["spec"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let strategy = Builtin::<super::ResourceSlice>::new();
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        it
    }

    fn texts(it: &Value) -> Vec<String> {
        let errors = Builtin::<super::ResourceSlice>::new().validate(it);
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_slice_is_of_one_place() {
        let strategy = Builtin::<super::ResourceSlice>::new();
        let good = slice(json!({"nodeName": "n1", "partitionTypeAttribute": "a.io/b"}));
        assert_eq!(texts(&good), Vec::<String>::new());
        assert_eq!(good["spec"].get("partitionTypeAttribute"), None);
        let row = strategy.row(&good, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!("n1"), json!("gpu.example.com"), json!("n1")]);
        assert_eq!(
            strategy.selectable_fields(&good),
            [("spec.driver", "gpu.example.com".to_owned()), ("spec.nodeName", "n1".to_owned())]
        );
        let one_of = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        assert_eq!(texts(&slice(json!({}))), [format!("spec: Required value: {one_of}")]);
        assert_eq!(
            texts(&slice(json!({"nodeName": "n1", "allNodes": true}))),
            [format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one_of}, but multiple fields are set")]
        );
        let pool = json!({"name": "", "generation": -1, "resourceSliceCount": 0});
        let bad = slice(
            json!({"nodeSelector": {"nodeSelectorTerms": []}, "allNodes": false, "pool": pool, "devices": [], "sharedCounters": []}),
        );
        assert_eq!(
            texts(&bad),
            [
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
                "spec.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
                "spec.nodeSelector.nodeSelectorTerms: Invalid value: []: must have exactly one node selector term",
                "spec.allNodes: Invalid value: false: must be either unset or set to true",
                "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
            ]
        );
        let moved = slice(json!({"nodeName": "n2", "driver": "other.io"}));
        let fields: Vec<String> = strategy.validate_update(&moved, &good).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["spec.driver", "spec.nodeName"]);
    }

    #[test]
    fn devices_say_what_they_are() {
        let taint = json!({"key": "broken", "effect": "NoExecute"});
        let good = slice(json!({"nodeName": "n1", "devices": [{
            "name": "gpu-0", "attributes": {"model": {"string": "x1"}, "example.com/version": {"version": "1.2.3-a.1+b"}, "list": {"strings": ["a"], "bool": true}},
            "capacity": {"memory": {"value": "40Gi"}}, "taints": [taint], "nodeAllocatableResources": {"cpu": {}},
        }]}));
        assert_eq!(texts(&good), Vec::<String>::new());
        let device = &good["spec"]["devices"][0];
        assert!(device["taints"][0]["timeAdded"].is_string() && device.get("nodeAllocatableResources").is_none());
        assert_eq!(device["attributes"]["list"], json!({"bool": true}));
        let bad = slice(json!({"nodeName": "n1", "devices": [
            {"name": "gpu-0", "attributes": {"a b": {"bool": true}, "v": {"version": "1"}, "w": {}}, "capacity": {"memory": {"value": "1", "requestPolicy": {}}}},
            {"name": "gpu-0", "allNodes": true, "taints": [{"key": "k", "effect": "Never"}], "consumesCounters": [{"counterSet": "c", "counters": {}}]},
        ]}));
        let errors = texts(&bad);
        assert!(errors[0].starts_with("spec.devices[0].attributes: Invalid value: \"a b\": a valid C identifier"), "{errors:?}");
        assert_eq!(
            errors[1..],
            [
                "spec.devices[0].attributes[v].version: Invalid value: \"1\": must be a string compatible with semver.org spec 2.0.0",
                "spec.devices[0].attributes[w]: Invalid value: \"\": exactly one value must be specified",
                "spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                "spec.devices[1].taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
                "spec.devices[1].consumesCounters[0].counters: Required value",
                "spec.devices[1]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                "spec.devices[1]: Duplicate value: \"gpu-0\"",
            ]
        );
        let many = |taints: Value| {
            let devices: Vec<Value> = (0..65).map(|n| json!({"name": format!("d{n}"), "taints": taints})).collect();
            texts(&slice(json!({"nodeName": "n1", "devices": devices})))
        };
        assert_eq!(many(json!([])), Vec::<String>::new());
        assert_eq!(many(json!([taint])), ["spec.devices: Too many: 65: must have at most 64 items"]);
    }

    #[test]
    fn what_is_shared_has_a_policy() {
        let policy = |policy: Value| {
            let device = json!({"name": "d", "allowMultipleAllocations": true, "capacity": {"memory": {"value": "10", "requestPolicy": policy}}});
            texts(&slice(json!({"nodeName": "n1", "devices": [device]})))
        };
        let at = "spec.devices[0].capacity[memory].requestPolicy";
        assert_eq!(policy(json!({})), Vec::<String>::new());
        assert_eq!(policy(json!({"default": "2", "validValues": ["2", "4"]})), Vec::<String>::new());
        assert_eq!(policy(json!({"default": "2", "validRange": {"min": "2", "max": "8", "step": "2"}})), Vec::<String>::new());
        assert_eq!(
            policy(json!({"validValues": ["2"]})),
            [format!("{at}.default: Required value: required when validValues is defined")]
        );
        assert_eq!(
            policy(json!({"default": "3", "validValues": ["4", "2", "11"]})),
            [
                format!("{at}.validValues[1]: Invalid value: \"2\": values must be sorted in ascending order"),
                format!("{at}.validValues[2]: Invalid value: \"11\": option is larger than capacity value: 10"),
                format!("{at}.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy"),
            ]
        );
        assert_eq!(
            policy(json!({"default": "3", "validRange": {"min": "2", "max": "12", "step": "2"}})),
            [
                format!("{at}.validRange.max: Invalid value: \"12\": max is larger than capacity value: 10"),
                format!("{at}.validRange.step: Invalid value: \"3\": value is not a multiple of a given step (2) from (2)"),
            ]
        );
        assert_eq!(
            policy(json!({"default": "2", "validValues": ["2"], "validRange": {"min": "1"}})),
            [format!(
                "{at}: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time"
            )]
        );
    }
}
