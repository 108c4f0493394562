//! ResourceClaim: devices that are asked for, and which ones they have become.

use super::{GROUP, request, status};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, METADATA, Names, age, keep, keep_all_but_status_and_metadata};
use crate::resources::{fill, rules, show};
use serde_json::{Value, json};
use slipway_api::resource::DeviceClaim;
pub use slipway_api::resource::ResourceClaim;

impl Kind for ResourceClaim {
    const NAMES: Names =
        Names { status: true, ..Names::namespaced(GROUP, "v1", "ResourceClaim", "resourceclaims", "resourceclaim") };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::made(object, "spec") {
            request::fill_claim(spec);
        }
        status::fill_status(object);
    }

    /// The spec never changes, so nothing is counted.
    fn prepare_create(object: &mut Value) {
        object["status"] = json!({});
        request::drop_alpha(&mut object["spec"]);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
        request::drop_alpha(&mut object["spec"]);
    }

    fn prepare_status_update(object: &mut Value, old: &Value) {
        keep_all_but_status_and_metadata(object, old, METADATA);
        status::prepare(object);
    }

    const STATUS_KEEPS: &'static [&'static str] = METADATA;

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        request::check("spec.devices", &devices(self), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("spec", &self.spec, &old.spec, &mut errors);
        errors
    }

    fn validate_status_update(&self, old: &Self) -> Vec<Invalid> {
        let claim = devices(self);
        status::check(self, old, &request::RequestNames::of(&claim))
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("State", "How far it has come."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let deleted = self.metadata.deletion_timestamp.is_some();
        let status = self.status.clone().unwrap_or_default();
        let mut state = vec![];
        if deleted {
            state.push("deleted");
        }
        if status.allocation.is_some() {
            state.push("allocated");
            if status.reserved_for.is_some_and(|consumers| !consumers.is_empty()) {
                state.push("reserved");
            }
        } else if !deleted {
            state.push("pending");
        }
        vec![show::name(object), json!(state.join(",")), age(object, now)]
    }
}

fn devices(claim: &ResourceClaim) -> DeviceClaim {
    claim.spec.as_ref().and_then(|spec| spec.devices.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn claim(devices: Value) -> Value {
        let mut it = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"}, "spec": {"devices": devices}});
        let strategy = Builtin::<super::ResourceClaim>::new();
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn one_device_is_asked_for_unless_it_is_said() {
        let strategy = Builtin::<super::ResourceClaim>::new();
        let toleration = json!([{"key": "k", "value": "v"}]);
        let it = claim(json!({"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "tolerations": toleration, "derivedAttributes": []}},
            {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "gpu", "allocationMode": "All"}]},
        ]}));
        let first = &it["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!((&first["allocationMode"], &first["count"]), (&json!("ExactCount"), &json!(1)));
        assert_eq!((&first["tolerations"][0]["operator"], first.get("derivedAttributes")), (&json!("Equal"), None));
        assert_eq!(it["spec"]["devices"]["requests"][1]["firstAvailable"][0].get("count"), None);
        assert_eq!(texts(strategy.validate(&it)), Vec::<String>::new());
        assert_eq!((&it["status"], it["metadata"].get("generation")), (&json!({}), None));
        let mut other = it.clone();
        other["spec"]["devices"]["requests"][0]["name"] = json!("z");
        assert!(texts(strategy.validate_update(&other, &it))[0].ends_with("field is immutable"));
    }

    #[test]
    fn a_request_is_one_thing_and_is_named() {
        let strategy = Builtin::<super::ResourceClaim>::new();
        let exactly = json!({"deviceClassName": "gpu"});
        let bad = claim(json!({
            "requests": [
                {"name": "a"}, {"name": "a", "exactly": {"deviceClassName": "", "count": -1}},
                {"name": "b", "exactly": exactly, "firstAvailable": [{"name": "x", "deviceClassName": "gpu"}]},
                {"name": "c", "exactly": {"deviceClassName": "gpu", "allocationMode": "Some"}},
            ],
            "constraints": [{"requests": ["b/x", "b/y", "q", "a/b/c"], "matchAttribute": "model"}, {}],
            "config": [{"requests": ["a", "a"], "opaque": {"driver": "d.io", "parameters": {}}}],
        }));
        let reference = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required".to_owned(),
                "spec.devices.requests[1].exactly.deviceClassName: Required value".into(),
                "spec.devices.requests[1].exactly.count: Invalid value: -1: must be greater than zero".into(),
                "spec.devices.requests[2]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set".into(),
                "spec.devices.requests[3].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"".into(),
                "spec.devices.requests[1]: Duplicate value: \"a\"".into(),
                format!("spec.devices.constraints[0].requests[1]: Invalid value: \"b/y\": {reference}"),
                format!("spec.devices.constraints[0].requests[2]: Invalid value: \"q\": {reference}"),
                format!("spec.devices.constraints[0].requests[3]: Invalid value: \"a/b/c\": {reference}"),
                "spec.devices.constraints[0].matchAttribute: Invalid value: \"model\": a fully qualified name must be a domain and a name separated by a slash".into(),
                "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required".into(),
                "spec.devices.config[0].requests[1]: Duplicate value: \"a\"".into(),
            ]
        );
    }

    #[test]
    fn what_was_allocated_stays() {
        let strategy = Builtin::<super::ResourceClaim>::new();
        let old = claim(json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}));
        let with = |status: Value| {
            let mut it = old.clone();
            it["status"] = status;
            it
        };
        let result = json!({"request": "a", "driver": "gpu.io", "pool": "n1", "device": "gpu-0"});
        let user = json!([{"resource": "pods", "name": "p", "uid": "1"}]);
        let device = json!([{"driver": "gpu.io", "pool": "n1", "device": "gpu-0", "data": {"a": 1}, "networkData": {"ips": ["10.1.2.3/24"]}}]);
        let good = with(json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": user, "devices": device}));
        assert_eq!(texts(strategy.validate_status_update(&good, &old)), Vec::<String>::new());
        assert_eq!(strategy.row(&old, jiff::Timestamp::UNIX_EPOCH)[1], "pending");
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1], "allocated,reserved");
        assert_eq!(texts(strategy.validate_status_update(&with(json!({"allocation": {}})), &old)), Vec::<String>::new());
        let moved = with(json!({"allocation": {}}));
        assert!(texts(strategy.validate_status_update(&moved, &good))[0].starts_with("status.allocation: Invalid value"));
        assert_eq!(texts(strategy.validate_status_update(&old, &good)), Vec::<String>::new(), "it may be given back");
        let bad = with(
            json!({"reservedFor": [{"resource": "", "name": "p", "uid": "1"}, {"resource": "pods", "name": "p", "uid": "1"}], "devices": [{"driver": "gpu.io", "pool": "n1", "device": "gpu-1"}]}),
        );
        assert_eq!(
            texts(strategy.validate_status_update(&bad, &old)),
            [
                "status.reservedFor[0].resource: Required value",
                "status.reservedFor[1]: Duplicate value: \"1\"",
                "status.devices[0]: Invalid value: \"gpu.io/n1/gpu-1\": must be an allocated device in the claim",
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            ]
        );
    }
}
