//! VolumeAttributesClass: what of a volume may be changed while it is used, as how fast it is.

use super::storage_class::parameters;
use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::storage::VolumeAttributesClass;

impl Kind for VolumeAttributesClass {
    const NAMES: Names = Names {
        short: &["vac"],
        namespaced: false,
        ..Names::namespaced("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass")
    };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        match self.driver_name.as_str() {
            "" => errors.push(Invalid::required("driverName", "")),
            driver => rules::all("driverName", driver, name::qualified_name(&driver.to_lowercase()), &mut errors),
        }
        let given = self.parameters.clone().unwrap_or_default();
        parameters(&given, &mut errors);
        if given.is_empty() {
            errors.push(Invalid::required("parameters", "must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let changed = [("driverName", self.driver_name != old.driver_name), ("parameters", self.parameters != old.parameters)];
        for (field, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            errors.push(Invalid::forbidden(field, &format!("updates to {field} are forbidden.")));
        }
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("DriverName", "The driver that changes the volumes."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(self.driver_name), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn a_class_stays_as_it_was_made() {
        let strategy = Builtin::<super::VolumeAttributesClass>::new();
        let class = |driver: &str, parameters: Value| json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "gold"}, "driverName": driver, "parameters": parameters});
        let texts = |errors: Vec<crate::http::error::Invalid>| {
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let good = class("disk.example.com", json!({"iops": "500"}));
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1], "disk.example.com");
        let other = class("", json!({}));
        assert_eq!(
            texts(strategy.validate(&other)),
            ["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"]
        );
        assert_eq!(
            texts(strategy.validate_update(&other, &good)),
            [
                "driverName: Forbidden: updates to driverName are forbidden.",
                "parameters: Forbidden: updates to parameters are forbidden."
            ]
        );
    }
}
