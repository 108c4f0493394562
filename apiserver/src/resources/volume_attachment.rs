//! VolumeAttachment: that a volume is to be attached to a node, and whether it is.

use super::csi_driver::driver_name;
use super::persistent_volume::{csi_source, source};
use super::persistent_volume_claim::access_modes;
use super::{pod, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, METADATA, Names, age, keep};
use serde_json::{Value, json};
use slipway_api::core::PersistentVolumeSpec;
use slipway_api::name;
pub use slipway_api::storage::VolumeAttachment;
use slipway_api::storage::{VolumeAttachmentSource, VolumeAttachmentStatus, VolumeError};

const METADATA_BYTES_MAX: usize = 256 << 10;
const MESSAGE_BYTES_MAX: usize = 1 << 10;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
const NOT_INLINE: &str = "may not be specified in the context of inline volumes";

impl Kind for VolumeAttachment {
    const NAMES: Names = Names {
        namespaced: false,
        status: true,
        ..Names::namespaced("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", "volumeattachment")
    };

    fn fill_defaults(object: &mut Value) {
        if let Some(volume) = object.pointer_mut("/spec/source/inlineVolumeSpec").filter(|volume| volume.is_object()) {
            pod::defaults::fill_source(volume);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"attached": false});
    }

    /// The spec never changes, so nothing is counted.
    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    const STATUS_KEEPS: &'static [&'static str] = METADATA;

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        driver_name("spec.attacher", &spec.attacher, &mut errors);
        check_source("spec.source", &spec.source, &mut errors);
        rules::all("spec.nodeName", &spec.node_name, name::dns1123_subdomain(&spec.node_name), &mut errors);
        check_status(self.status.as_ref(), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("spec", &self.spec, &old.spec, &mut errors);
        errors
    }

    fn validate_status_update(&self, _old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        check_status(self.status.as_ref(), &mut errors);
        errors
    }

    const UNCONDITIONAL_UPDATE: bool = false;
    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Attacher", "The driver that attaches the volume."),
            Column::text("PV", "The volume."),
            Column::text("Node", "The node that it is attached to."),
            Column { type_: "boolean", ..Column::text("Attached", "Whether it is attached.") },
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            show::name(object),
            json!(self.spec.attacher),
            json!(self.spec.source.persistent_volume_name.as_deref().unwrap_or("")),
            json!(self.spec.node_name),
            json!(self.status.as_ref().is_some_and(|status| status.attached)),
            age(object, now),
        ]
    }
}

fn check_status(status: Option<&VolumeAttachmentStatus>, errors: &mut Vec<Invalid>) {
    let Some(status) = status else { return };
    let told = status.attachment_metadata.iter().flatten();
    if told.map(|(key, value)| key.len() + value.len()).sum::<usize>() > METADATA_BYTES_MAX {
        errors.push(Invalid::too_long("status.attachmentMetadata", METADATA_BYTES_MAX));
    }
    for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(error) = error {
            check_error(&format!("status.{field}"), error, errors);
        }
    }
}

fn check_error(at: &str, error: &VolumeError, errors: &mut Vec<Invalid>) {
    if error.message.as_ref().is_some_and(|message| message.len() > MESSAGE_BYTES_MAX) {
        // The limit that Kubernetes tells of is that of the metadata.
        errors.push(Invalid::too_long(format!("{at}.message"), METADATA_BYTES_MAX));
    }
    if let Some(code) = error.error_code.filter(|code| *code < 0) {
        let why = format!("must be between 0 and {}, inclusive", i32::MAX);
        errors.push(Invalid::value(format!("{at}.errorCode"), &json!(code), &why));
    }
}

fn check_source(at: &str, volume: &VolumeAttachmentSource, errors: &mut Vec<Invalid>) {
    let place = format!("{at}.persistentVolumeName");
    match (&volume.inline_volume_spec, volume.persistent_volume_name.as_deref()) {
        (None, None) => errors.push(Invalid::required(at, ONE_SOURCE)),
        (Some(_), Some(_)) => errors.push(Invalid::forbidden(at, ONE_SOURCE)),
        (None, Some("")) => errors.push(Invalid::required(place, "must specify non empty persistentVolumeName")),
        (None, Some(name)) => rules::all(&place, name, name::dns1123_subdomain(name), errors),
        (Some(spec), None) => check_inline(&format!("{at}.inlineVolumeSpec"), spec, errors),
    }
}

/// A volume that no object stands for: it has no claim, no size and no life of its own.
fn check_inline(at: &str, spec: &PersistentVolumeSpec, errors: &mut Vec<Invalid>) {
    let given = [
        ("claimRef", spec.claim_ref.is_some()),
        ("capacity", spec.capacity.as_ref().is_some_and(|capacity| !capacity.is_empty())),
        ("persistentVolumeReclaimPolicy", spec.persistent_volume_reclaim_policy.as_ref().is_some_and(|it| !it.is_empty())),
        ("storageClassName", spec.storage_class_name.as_ref().is_some_and(|class| !class.is_empty())),
        ("nodeAffinity", spec.node_affinity.is_some()),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        errors.push(Invalid::forbidden(format!("{at}.{field}"), NOT_INLINE));
    }
    if spec.volume_mode.as_deref().is_some_and(|mode| mode != "Filesystem") {
        let why = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(Invalid::forbidden(format!("{at}.volumeMode"), why));
    }
    access_modes(&format!("{at}.accessModes"), spec.access_modes.as_ref(), errors);
    match &spec.csi {
        Some(csi) => csi_source(&format!("{at}.csi"), csi, errors),
        None => errors.push(Invalid::required(format!("{at}.csi"), "has to be specified in the context of inline volumes")),
    }
    source(at, &json!(spec), errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn attachment(spec: Value) -> Value {
        let mut it =
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "a"}, "spec": spec});
        Builtin::<super::VolumeAttachment>::new().prepare_create(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn an_attachment_is_of_one_volume_to_one_node() {
        let strategy = Builtin::<super::VolumeAttachment>::new();
        let good = attachment(json!({"attacher": "a.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}));
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        assert_eq!((&good["status"], good["metadata"].get("generation")), (&json!({"attached": false}), None));
        let row = strategy.row(&good, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..5], [json!("a.io"), json!("v"), json!("n"), json!(false)]);
        let bad = attachment(json!({"attacher": "", "nodeName": "N", "source": {}}));
        let errors = texts(strategy.validate(&bad));
        assert_eq!(errors[0], "spec.attacher: Required value");
        let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        assert_eq!(errors[1], format!("spec.source: Required value: {why}"));
        assert!(errors[2].starts_with("spec.nodeName: Invalid value: \"N\": a lowercase RFC 1123 subdomain"));
        let errors = texts(strategy.validate_update(&bad, &good));
        assert!(errors.len() == 1 && errors[0].starts_with("spec: Invalid value: ") && errors[0].ends_with("field is immutable"));
    }

    #[test]
    fn an_inline_volume_is_a_drivers() {
        let strategy = Builtin::<super::VolumeAttachment>::new();
        let inline =
            |volume: Value| attachment(json!({"attacher": "a.io", "nodeName": "n", "source": {"inlineVolumeSpec": volume}}));
        let good = inline(json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "a.io", "volumeHandle": "v-1"}}));
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        let bad = inline(
            json!({"capacity": {"storage": "1Gi"}, "volumeMode": "Block", "accessModes": ["ReadWriteOnce"], "nfs": {"server": "s", "path": "/"}}),
        );
        let at = "spec.source.inlineVolumeSpec";
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                format!("{at}.capacity: Forbidden: may not be specified in the context of inline volumes"),
                format!(
                    "{at}.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes"
                ),
                format!("{at}.csi: Required value: has to be specified in the context of inline volumes"),
            ]
        );
    }

    #[test]
    fn errors_are_short() {
        let strategy = Builtin::<super::VolumeAttachment>::new();
        let mut it = attachment(json!({"attacher": "a.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}));
        let old = it.clone();
        it["status"] = json!({"attached": false, "attachError": {"message": "x".repeat(1025), "errorCode": -1}});
        assert_eq!(
            texts(strategy.validate_status_update(&it, &old)),
            [
                "status.attachError.message: Too long: may not be more than 262144 bytes",
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ]
        );
    }
}
