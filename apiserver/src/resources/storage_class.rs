//! StorageClass: a kind of volume that a provisioner makes.

use super::{fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::storage::StorageClass;
use std::collections::BTreeMap;

/// Which class claims have that name none; the second name is of a version before.
pub const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 << 10;

impl Kind for StorageClass {
    const NAMES: Names = Names {
        short: &["sc"],
        namespaced: false,
        ..Names::namespaced("storage.k8s.io", "v1", "StorageClass", "storageclasses", "storageclass")
    };

    fn fill_defaults(object: &mut Value) {
        fill::missing(object, "reclaimPolicy", "Delete");
        fill::missing(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        match self.provisioner.as_str() {
            "" => errors.push(Invalid::required("provisioner", "")),
            name => rules::all("provisioner", name, name::qualified_name(&name.to_lowercase()), &mut errors),
        }
        parameters(&self.parameters.clone().unwrap_or_default(), &mut errors);
        rules::maybe_one_of("reclaimPolicy", self.reclaim_policy.as_deref(), &["Delete", "Retain"], &mut errors);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        rules::one_of("volumeBindingMode", self.volume_binding_mode.as_deref(), &modes, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let empty = BTreeMap::new();
        let changed = [
            ("parameters", self.parameters.as_ref().unwrap_or(&empty) != old.parameters.as_ref().unwrap_or(&empty)),
            ("provisioner", self.provisioner != old.provisioner),
            ("reclaimPolicy", self.reclaim_policy != old.reclaim_policy),
        ];
        for (field, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            errors.push(Invalid::forbidden(field, &format!("updates to {field} are forbidden.")));
        }
        rules::same("volumeBindingMode", &self.volume_binding_mode, &old.volume_binding_mode, &mut errors);
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Provisioner", "Who makes the volumes."),
            Column::text("ReclaimPolicy", "What becomes of a volume whose claim is deleted."),
            Column::text("VolumeBindingMode", "When claims are bound to volumes."),
            Column { type_: "boolean", ..Column::text("AllowVolumeExpansion", "Whether a claim may grow.") },
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let name = if is_default(object) { format!("{name} (default)") } else { name.to_owned() };
        vec![
            json!(name),
            json!(self.provisioner),
            json!(self.reclaim_policy.as_deref().unwrap_or("Delete")),
            json!(self.volume_binding_mode.as_deref().unwrap_or(show::UNSET)),
            json!(self.allow_volume_expansion.unwrap_or(false)),
            age(object, now),
        ]
    }
}

/// What a driver is given to make or change a volume.
pub fn parameters(parameters: &BTreeMap<String, String>, errors: &mut Vec<Invalid>) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(Invalid::too_long("parameters", PARAMETERS_MAX));
        return;
    }
    if parameters.keys().any(String::is_empty) {
        errors.push(Invalid::value("parameters", &json!(""), "field can not be empty."));
    }
    if parameters.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > PARAMETERS_BYTES_MAX {
        errors.push(Invalid::too_long("parameters", PARAMETERS_BYTES_MAX));
    }
}

pub fn is_default(class: &Value) -> bool {
    DEFAULT_ANNOTATIONS.iter().any(|name| class["metadata"]["annotations"][*name] == "true")
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn class(more: Value) -> Value {
        let mut it = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}, "provisioner": "example.com/disk"});
        it.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        Builtin::<super::StorageClass>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn a_class_stays_as_it_was_made() {
        let strategy = Builtin::<super::StorageClass>::new();
        let it = class(json!({"parameters": {"type": "ssd"}}));
        assert_eq!((&it["reclaimPolicy"], &it["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
        assert_eq!(strategy.validate(&it), []);
        let other = class(json!({"provisioner": "", "reclaimPolicy": "Recycle", "volumeBindingMode": "Later"}));
        let text = |errors: Vec<crate::http::error::Invalid>| {
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
        };
        assert_eq!(
            text(strategy.validate(&other)),
            [
                "provisioner: Required value",
                "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ]
        );
        assert_eq!(
            text(strategy.validate_update(&other, &it)),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
                "volumeBindingMode: Invalid value: \"Later\": field is immutable",
            ]
        );
        let mut default = it.clone();
        default["metadata"]["annotations"] = json!({super::DEFAULT_ANNOTATIONS[0]: "true"});
        assert_eq!(strategy.row(&default, jiff::Timestamp::UNIX_EPOCH)[0], "fast (default)");
    }
}
