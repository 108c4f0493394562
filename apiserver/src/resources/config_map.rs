//! ConfigMap: configuration as key–value pairs.

use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::{Value, json};
pub use slipway_api::core::ConfigMap;

const BYTES_MAX: usize = 1 << 20;

impl Kind for ConfigMap {
    const NAMES: Names = Names { short: &["cm"], ..Names::namespaced("", "v1", "ConfigMap", "configmaps", "configmap") };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let data = self.data.iter().flatten().map(|(key, value)| ("data", key, value.len()));
        let binary = self.binary_data.iter().flatten().map(|(key, value)| ("binaryData", key, value.0.len()));
        let mut bytes = 0;
        for (field, key, len) in data.chain(binary) {
            bytes += len;
            if key.is_empty() || key.len() > 253 || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
                           (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                errors.push(Invalid::value(format!("{field}[{key}]"), &json!(key), why));
            }
        }
        for key in self.binary_data.iter().flatten().map(|(key, _)| key) {
            if self.data.as_ref().is_some_and(|data| data.contains_key(key)) {
                errors.push(Invalid::value(format!("data[{key}]"), &json!(key), "duplicate of key present in binaryData"));
            }
        }
        if bytes > BYTES_MAX {
            errors.push(Invalid::too_long("", BYTES_MAX));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errors.push(Invalid::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
            if self.data != old.data {
                errors.push(Invalid::forbidden("data", "field is immutable when `immutable` is set"));
            }
            if self.binary_data != old.binary_data {
                errors.push(Invalid::forbidden("binaryData", "field is immutable when `immutable` is set"));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::integer("Data", "Data contains the configuration data."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let count = self.data.as_ref().map_or(0, |d| d.len()) + self.binary_data.as_ref().map_or(0, |d| d.len());
        vec![object["metadata"]["name"].clone(), json!(count), crate::kind::age(object, now)]
    }
}
