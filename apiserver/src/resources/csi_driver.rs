//! CSIDriver: what a storage driver can do, and what it wants to be told.

use super::{fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::storage::CSIDriver;
use slipway_api::storage::TokenRequest;
use std::collections::BTreeSet;

/// Drivers are sockets too, and a socket's path has no room for more.
const DRIVER_NAME_MAX: usize = 63;
const FS_GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: [&str; 2] = ["Persistent", "Ephemeral"];
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_PERIOD_SECONDS_MIN: i64 = 10;

impl Kind for CSIDriver {
    const NAMES: Names =
        Names { namespaced: false, ..Names::namespaced("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "csidriver") };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::inner(object, "spec") {
            fill::missing(spec, "attachRequired", true);
            for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
                fill::missing(spec, field, false);
            }
            fill::missing(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if spec["volumeLifecycleModes"].as_array().is_none_or(Vec::is_empty) {
                spec["volumeLifecycleModes"] = json!(["Persistent"]);
            }
        }
    }

    fn prepare_create(_object: &mut Value) {}

    /// Counts changes from none.
    fn prepare_update(object: &mut Value, old: &Value) {
        if object["spec"] != old["spec"] {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        let policy = spec.fs_group_policy.as_deref();
        rules::maybe_one_of("spec.fsGroupPolicy", policy, &FS_GROUP_POLICIES, &mut errors);
        token_requests(spec.token_requests.as_deref().unwrap_or(&[]), &mut errors);
        for mode in spec.volume_lifecycle_modes.iter().flatten() {
            rules::maybe_one_of("spec.volumeLifecycleModes", Some(mode), &LIFECYCLE_MODES, &mut errors);
        }
        if let Some(seconds) = spec.node_allocatable_update_period_seconds.filter(|seconds| *seconds < UPDATE_PERIOD_SECONDS_MIN)
        {
            let why = "must be greater than or equal to 10 seconds";
            errors.push(Invalid::value("spec.nodeAllocatableUpdatePeriodSeconds", &json!(seconds), why));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        // The field is called so in Kubernetes' message.
        rules::same("spec.attachedRequired", &self.spec.attach_required, &old.spec.attach_required, &mut errors);
        let modes = |driver: &Self| driver.spec.volume_lifecycle_modes.clone();
        rules::same("spec.volumeLifecycleModes", &modes(self), &modes(old), &mut errors);
        errors
    }

    const UNCONDITIONAL_UPDATE: bool = false;
    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        let boolean = |name, description| Column { type_: "boolean", ..Column::text(name, description) };
        vec![
            Column::NAME,
            boolean("AttachRequired", "Whether volumes are attached to a node before they are mounted."),
            boolean("PodInfoOnMount", "Whether the driver is told of the pod that a volume is mounted for."),
            boolean("StorageCapacity", "Whether the driver tells how much room it has."),
            Column::text("TokenRequests", "The audiences of the service account tokens that the driver gets."),
            boolean("RequiresRepublish", "Whether the driver is called again and again while a volume is mounted."),
            Column::text("Modes", "How long the volumes of the driver may live."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let audiences = spec.token_requests.as_ref().map(|requests| {
            let audiences: Vec<&str> = requests.iter().map(|request| request.audience.as_str()).collect();
            audiences.join(",")
        });
        let modes = spec.volume_lifecycle_modes.as_ref().map(|modes| modes.join(","));
        vec![
            show::name(object),
            json!(spec.attach_required.unwrap_or(true)),
            json!(spec.pod_info_on_mount.unwrap_or(false)),
            json!(spec.storage_capacity.unwrap_or(false)),
            json!(audiences.as_deref().unwrap_or(show::UNSET)),
            json!(spec.requires_republish.unwrap_or(false)),
            show::or_none(modes.as_deref()),
            age(object, now),
        ]
    }
}

fn token_requests(requests: &[TokenRequest], errors: &mut Vec<Invalid>) {
    let mut audiences = BTreeSet::new();
    for (index, request) in requests.iter().enumerate() {
        let at = format!("spec.tokenRequests[{index}]");
        if !audiences.insert(request.audience.as_str()) {
            errors.push(Invalid::duplicate(format!("{at}.audience"), &json!(request.audience)));
            continue;
        }
        let why = match request.expiration_seconds {
            Some(seconds) if seconds < TOKEN_SECONDS_MIN => "may not specify a duration less than 10 minutes",
            Some(seconds) if seconds > TOKEN_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        errors.push(Invalid::value(format!("{at}.expirationSeconds"), &json!(request.expiration_seconds), why));
    }
}

/// The name of a driver, wherever one is named: of storage, and of devices.
pub fn driver_name(at: &str, driver: &str, errors: &mut Vec<Invalid>) {
    if driver.is_empty() {
        errors.push(Invalid::required(at, ""));
        return;
    }
    if driver.len() > DRIVER_NAME_MAX {
        errors.push(Invalid::too_long(at, DRIVER_NAME_MAX));
    }
    rules::all(at, driver, name::dns1123_subdomain(&driver.to_lowercase()), errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn driver(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "disk.example.com"}, "spec": spec});
        Builtin::<super::CSIDriver>::new().fill_defaults(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_driver_says_what_it_can_do() {
        let strategy = Builtin::<super::CSIDriver>::new();
        let plain = driver(json!({}));
        assert_eq!(
            plain["spec"],
            json!({
                "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
                "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
            })
        );
        assert_eq!(texts(strategy.validate(&plain)), Vec::<String>::new());
        let requests = json!([{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]);
        let bad = driver(
            json!({"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Eternal"], "tokenRequests": requests, "nodeAllocatableUpdatePeriodSeconds": 9}),
        );
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                "spec.volumeLifecycleModes: Unsupported value: \"Eternal\": supported values: \"Persistent\", \"Ephemeral\"",
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
            ]
        );
        let row = strategy.row(&plain, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..5], [json!(true), json!(false), json!(false), json!("<unset>")]);
        assert_eq!(row[6], "Persistent");
    }

    #[test]
    fn what_volumes_rely_on_stays() {
        let strategy = Builtin::<super::CSIDriver>::new();
        let mut new = driver(json!({"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"], "requiresRepublish": true}));
        let old = driver(json!({}));
        assert_eq!(
            texts(strategy.validate_update(&new, &old)),
            [
                "spec.attachedRequired: Invalid value: false: field is immutable",
                "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
            ]
        );
        strategy.prepare_update(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 1);
    }

    #[test]
    fn drivers_have_short_names() {
        let errors = |driver: &str| {
            let mut errors = vec![];
            super::driver_name("driver", driver, &mut errors);
            texts(errors)
        };
        assert_eq!(errors("Disk.example.com"), Vec::<String>::new());
        assert_eq!(errors(""), ["driver: Required value"]);
        assert_eq!(errors(&"a".repeat(64)), ["driver: Too long: may not be more than 63 bytes"]);
        assert!(errors("a_b")[0].starts_with("driver: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain"));
    }
}
