//! PersistentVolume: storage that a claim may have.

use super::csi_driver::driver_name;
use super::persistent_volume_claim::{VOLUME_MODES, access_modes, class_of};
use super::{amounts, fill, pod, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, keep};
use serde_json::{Map, Value, json};
use slipway_api::core::CSIPersistentVolumeSource;
pub use slipway_api::core::PersistentVolume;
use slipway_api::quantity::Quantity;

/// The fields of the spec that are not the volume itself.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

impl Kind for PersistentVolume {
    const NAMES: Names = Names {
        short: &["pv"],
        namespaced: false,
        status: true,
        ..Names::namespaced("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume")
    };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::made(object, "spec") {
            fill::empty(spec, "persistentVolumeReclaimPolicy", "Retain");
            fill::missing(spec, "volumeMode", "Filesystem");
            pod::defaults::fill_source(spec);
        }
        if let Some(status) = fill::inner(object, "status") {
            fill::empty(status, "phase", "Pending");
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        access_modes("spec.accessModes", spec.access_modes.as_ref(), &mut errors);
        let capacity = spec.capacity.unwrap_or_default();
        if capacity.is_empty() {
            errors.push(Invalid::required("spec.capacity", ""));
        } else if capacity.len() > 1 || !capacity.contains_key("storage") {
            errors.push(Invalid::not_supported("spec.capacity", &json!(capacity), &["storage"]));
        }
        for (resource, size) in &capacity {
            let at = format!("spec.capacity[{resource}]");
            if amounts::amount(&at, size, &mut errors).is_some_and(Quantity::is_zero) {
                errors.push(Invalid::value(at, &json!(size.0), "must be greater than zero"));
            }
        }
        let policies = ["Delete", "Recycle", "Retain"];
        let policy = spec.persistent_volume_reclaim_policy.as_deref();
        rules::maybe_one_of("spec.persistentVolumeReclaimPolicy", policy, &policies, &mut errors);
        source("spec", &whole["spec"], &mut errors);
        if let Some(path) = &spec.host_path {
            pod::volumes::host_path("spec.hostPath", path, &mut errors);
            if path.path == "/" && policy == Some("Recycle") {
                let why = "may not be 'recycle' for a hostPath mount of '/'";
                errors.push(Invalid::forbidden("spec.persistentVolumeReclaimPolicy", why));
            }
        }
        if spec.local.is_some() && spec.node_affinity.is_none() {
            errors.push(Invalid::required("metadata.annotations", "Local volume requires node affinity"));
        }
        if let Some(csi) = &spec.csi {
            csi_source("spec.csi", csi, &mut errors);
        }
        rules::maybe_one_of("spec.volumeMode", spec.volume_mode.as_deref(), &VOLUME_MODES, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let (new, before) = (self.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        if sources(&json!(new)) != sources(&json!(before)) {
            errors.push(Invalid::forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        rules::same("spec.volumeMode", &new.volume_mode, &before.volume_mode, &mut errors);
        if before.node_affinity.is_some() {
            rules::same("spec.nodeAffinity", &new.node_affinity, &before.node_affinity, &mut errors);
        }
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Capacity", "How large it is."),
            Column::text("Access Modes", "How it may be mounted."),
            Column::text("Reclaim Policy", "What becomes of it when its claim is deleted."),
            Column::text("Status", "Whether a claim has it."),
            Column::text("Claim", "The claim that has it."),
            Column::text("StorageClass", "The class that it is of."),
            Column::text("VolumeAttributesClass", "The class of its attributes."),
            Column::text("Reason", "Why it failed."),
            Column::AGE,
            Column::text("VolumeMode", "Whether it is a file system or a device.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let claim = spec.claim_ref.as_ref().map(|claim| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}/{}", text(&claim.namespace), text(&claim.name))
        });
        let phase =
            if self.metadata.deletion_timestamp.is_some() { "Terminating" } else { status.phase.as_deref().unwrap_or("") };
        vec![
            show::name(object),
            json!(spec.capacity.as_ref().and_then(|capacity| capacity.get("storage")).map_or("0", |size| &size.0)),
            show::access_modes(spec.access_modes.as_ref()),
            json!(spec.persistent_volume_reclaim_policy.as_deref().unwrap_or("")),
            json!(phase),
            json!(claim.unwrap_or_default()),
            json!(class_of(object)),
            json!(spec.volume_attributes_class_name.as_deref().unwrap_or(show::UNSET)),
            json!(status.reason.as_deref().unwrap_or("")),
            age(object, now),
            json!(spec.volume_mode.as_deref().unwrap_or(show::UNSET)),
        ]
    }
}

/// What of the spec is the volume: one field, in a volume that is valid.
fn sources(spec: &Value) -> Map<String, Value> {
    let fields = spec.as_object().cloned().unwrap_or_default().into_iter();
    fields.filter(|(field, value)| !NOT_SOURCES.contains(&field.as_str()) && !value.is_null()).collect()
}

/// That a volume is one thing. `at` is where its spec stands.
pub fn source(at: &str, spec: &Value, errors: &mut Vec<Invalid>) {
    let sources = sources(spec);
    if sources.is_empty() {
        errors.push(Invalid::required(at, "must specify a volume type"));
    }
    for field in sources.keys().skip(1) {
        errors.push(Invalid::forbidden(format!("{at}.{field}"), "may not specify more than 1 volume type"));
    }
}

pub fn csi_source(at: &str, csi: &CSIPersistentVolumeSource, errors: &mut Vec<Invalid>) {
    driver_name(&format!("{at}.driver"), &csi.driver, errors);
    if csi.volume_handle.is_empty() {
        errors.push(Invalid::required(format!("{at}.volumeHandle"), ""));
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn volume(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec});
        Builtin::<super::PersistentVolume>::new().fill_defaults(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_volume_is_one_thing_and_stays_it() {
        let strategy = Builtin::<super::PersistentVolume>::new();
        let good =
            volume(json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}));
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        assert_eq!(good["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(good["spec"]["hostPath"]["type"], "");
        let bad = volume(
            json!({"capacity": {"cpu": "1"}, "hostPath": {"path": "/"}, "nfs": {"server": "s", "path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"}),
        );
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\"",
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ]
        );
        let mut moved = good.clone();
        moved["spec"]["hostPath"]["path"] = json!("/other");
        assert_eq!(
            texts(strategy.validate_update(&moved, &good)),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
        );
        let row = strategy.row(&good, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..5], [json!("1Gi"), json!("RWO"), json!("Retain"), json!("")]);
    }
}
