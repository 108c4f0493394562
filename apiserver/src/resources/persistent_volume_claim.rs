//! PersistentVolumeClaim: a wish for storage, and the volume that grants it.

use super::{amounts, fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, keep};
use serde_json::{Value, json};
pub use slipway_api::core::PersistentVolumeClaim;
use slipway_api::core::PersistentVolumeClaimSpec;
use slipway_api::name;
use slipway_api::quantity::Quantity;

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// How the class was named before there was a field.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const ONCE_POD: &str = "ReadWriteOncePod";

impl Kind for PersistentVolumeClaim {
    const NAMES: Names = Names {
        short: &["pvc"],
        status: true,
        ..Names::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim")
    };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::made(object, "spec") {
            fill::missing(spec, "volumeMode", "Filesystem");
            fill::made(spec, "resources");
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

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check("spec", &self.spec.clone().unwrap_or_default(), &mut errors);
        errors
    }

    /// The wish stands, but for a bound claim's size; and a claim may be given its volume once.
    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let (new, before) = (self.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let mut same = new.clone();
        if before.volume_name.as_deref().unwrap_or("").is_empty() {
            same.volume_name.clone_from(&before.volume_name);
        }
        same.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
        let bound = self.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let size = |spec: &PersistentVolumeClaimSpec| {
            let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            requests.and_then(|requests| requests.get("storage")).and_then(|size| Quantity::parse(&size.0).ok())
        };
        if bound {
            same.resources.clone_from(&before.resources);
        }
        // Writing the class into the field that it was named for by annotation is no change.
        let annotated = old.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
        if before.storage_class_name.is_none() && annotated.is_some() && annotated == new.storage_class_name.as_ref() {
            same.storage_class_name = None;
        }
        // A claim that named no class yet may be given the one that has become the default.
        if before.storage_class_name.is_none() && annotated.is_none() && !bound {
            same.storage_class_name = None;
        }
        if same != before {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(Invalid::forbidden("spec", why));
        }
        if bound && size(&new) < size(&before) {
            let at = "spec.resources.requests.storage";
            errors.push(Invalid::forbidden(at, "field can not be less than previous value"));
        }
        rules::same("spec.volumeMode", &new.volume_mode, &before.volume_mode, &mut errors);
        errors
    }

    fn validate_status_update(&self, _: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let status = self.status.clone().unwrap_or_default();
        amounts_of("status.capacity", status.capacity.as_ref(), &mut errors);
        amounts_of("status.allocatedResources", status.allocated_resources.as_ref(), &mut errors);
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Status", "Whether the claim has a volume."),
            Column::text("Volume", "The volume that it has."),
            Column::text("Capacity", "How large the volume is."),
            Column::text("Access Modes", "How the volume may be mounted."),
            Column::text("StorageClass", "The class that the claim asks for."),
            Column::text("VolumeAttributesClass", "The class of attributes that the claim asks for."),
            Column::AGE,
            Column::text("VolumeMode", "Whether the volume is a file system or a device.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let phase =
            if self.metadata.deletion_timestamp.is_some() { "Terminating" } else { status.phase.as_deref().unwrap_or("") };
        let bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
        let capacity = status.capacity.as_ref().and_then(|capacity| capacity.get("storage")).map(|size| size.0.clone());
        let modes = if bound { show::access_modes(status.access_modes.as_ref()) } else { json!("") };
        vec![
            show::name(object),
            json!(phase),
            json!(spec.volume_name.unwrap_or_default()),
            json!(if bound { capacity.unwrap_or_else(|| "0".into()) } else { String::new() }),
            modes,
            json!(class_of(object)),
            json!(spec.volume_attributes_class_name.as_deref().unwrap_or(show::UNSET)),
            age(object, now),
            json!(spec.volume_mode.as_deref().unwrap_or(show::UNSET)),
        ]
    }
}

/// The name of the class that a claim or a volume is of; empty for none.
pub fn class_of(object: &Value) -> &str {
    let annotated = object["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    annotated.or_else(|| object["spec"]["storageClassName"].as_str()).unwrap_or("")
}

pub fn amounts_of(at: &str, list: Option<&amounts::List>, errors: &mut Vec<Invalid>) {
    for (resource, amount) in list.into_iter().flatten() {
        amounts::amount(&format!("{at}[{resource}]"), amount, errors);
    }
}

/// `at least 1 access mode is required`, all known, and the one for a single pod alone.
pub fn access_modes(at: &str, modes: Option<&Vec<String>>, errors: &mut Vec<Invalid>) {
    let modes = modes.map_or(&[][..], Vec::as_slice);
    if modes.is_empty() {
        errors.push(Invalid::required(at, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        errors.push(Invalid::not_supported(at, &json!(mode), &ACCESS_MODES));
    }
    if modes.iter().any(|mode| mode == ONCE_POD) && modes.iter().any(|mode| mode != ONCE_POD) {
        errors.push(Invalid::forbidden(at, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// A claim's spec, its own or that of an ephemeral volume.
pub fn check(at: &str, spec: &PersistentVolumeClaimSpec, errors: &mut Vec<Invalid>) {
    if let Some(selector) = &spec.selector {
        rules::label_selector(&format!("{at}.selector"), selector, errors);
    }
    access_modes(&format!("{at}.accessModes"), spec.access_modes.as_ref(), errors);
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let place = format!("{at}.resources[storage]");
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.push(Invalid::required(place, "")),
        Some(size) => {
            if Quantity::parse(&size.0).is_ok_and(|size| size <= Quantity::ZERO) {
                errors.push(Invalid::value(place, &json!(size.0), "must be greater than zero"));
            }
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        rules::all(&format!("{at}.storageClassName"), class, name::dns1123_subdomain(class), errors);
    }
    rules::maybe_one_of(&format!("{at}.volumeMode"), spec.volume_mode.as_deref(), &VOLUME_MODES, errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn claim(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec});
        Builtin::<super::PersistentVolumeClaim>::new().fill_defaults(&mut it);
        it
    }

    fn wish(size: &str) -> Value {
        claim(json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}))
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        let strategy = Builtin::<super::PersistentVolumeClaim>::new();
        assert_eq!(wish("1Gi")["spec"]["volumeMode"], "Filesystem");
        assert_eq!(texts(strategy.validate(&wish("1Gi"))), Vec::<String>::new());
        let bad = claim(json!({"accessModes": ["ReadWriteOncePod", "Write"], "volumeMode": "Tape"}));
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "spec.accessModes: Unsupported value: \"Write\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.resources[storage]: Required value",
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ]
        );
        assert_eq!(
            texts(strategy.validate(&wish("0"))),
            ["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]
        );
    }

    #[test]
    fn only_a_bound_claim_grows() {
        let strategy = Builtin::<super::PersistentVolumeClaim>::new();
        let update = |new: &Value, old: &Value| texts(strategy.validate_update(new, old)).len();
        assert_eq!(update(&wish("2Gi"), &wish("1Gi")), 1);
        let bound = |size: &str| {
            let mut it = wish(size);
            it["status"] = json!({"phase": "Bound"});
            it
        };
        assert_eq!(update(&bound("2Gi"), &bound("1Gi")), 0);
        assert_eq!(update(&bound("1Gi"), &bound("2Gi")), 1);
        let mut named = wish("1Gi");
        named["spec"]["volumeName"] = json!("v");
        assert_eq!(update(&named, &wish("1Gi")), 0);
        assert_eq!(update(&wish("1Gi"), &named), 1);
    }

    #[test]
    fn the_row_of_a_bound_claim() {
        let mut it = wish("1Gi");
        it["spec"]["volumeName"] = json!("v");
        it["status"] =
            json!({"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadOnlyMany", "ReadWriteOnce"]});
        let row = Builtin::<super::PersistentVolumeClaim>::new().row(&it, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..7], [json!("Bound"), json!("v"), json!("2Gi"), json!("RWO,ROX"), json!(""), json!("<unset>")]);
    }
}
