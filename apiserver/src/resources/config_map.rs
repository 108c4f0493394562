//! ConfigMap: configuration as key–value pairs.

use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::{Value, json};
pub use slipway_api::core::ConfigMap;

const BYTES_MAX: usize = 1 << 20;
const KEY_MAX: usize = 253;

impl Kind for ConfigMap {
    const NAMES: Names = Names { short: &["cm"], ..Names::namespaced("", "v1", "ConfigMap", "configmaps", "configmap") };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let data = self.data.iter().flatten().map(|(key, value)| ("data", key, value.len()));
        let binary = self.binary_data.iter().flatten().map(|(key, value)| ("binaryData", key, value.0.len()));
        let mut bytes = 0;
        for (field, key, len) in data.chain(binary) {
            bytes += len;
            errors.extend(key_errors(&format!("{field}[{key}]"), key));
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

/// What is wrong with a key of a ConfigMap or Secret: it becomes a file's name.
pub fn key_errors(at: &str, key: &str) -> Vec<Invalid> {
    let mut errors = vec![];
    let mut refuse = |why: &str| errors.push(Invalid::value(at, &json!(key), why));
    if key.len() > KEY_MAX {
        refuse("must be no more than 253 characters");
    }
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        refuse(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
             (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        );
    }
    match key {
        "." => refuse("must not be '.'"),
        ".." => refuse("must not be '..'"),
        _ if key.starts_with("..") => refuse("must not start with '..'"),
        _ => {}
    }
    errors
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn map(rest: Value) -> Value {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
        map.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        map
    }

    #[test]
    fn keys_are_file_names_and_stand_once() {
        let strategy = Builtin::<super::ConfigMap>::new();
        let fields = |rest| strategy.validate(&map(rest)).into_iter().map(|error| error.field).collect::<Vec<_>>();
        assert_eq!(fields(json!({"data": {"a.b": "x"}, "binaryData": {"c": ""}})), Vec::<String>::new());
        assert_eq!(fields(json!({"data": {"a/b": "x", "..c": ""}})), ["data[..c]", "data[a/b]"]);
        assert_eq!(fields(json!({"data": {"a": "x"}, "binaryData": {"a": ""}})), ["data[a]"]);
        assert_eq!(fields(json!({"data": {"a": "x".repeat((1 << 20) + 1)}})), [""]);
    }

    #[test]
    fn what_is_frozen_stays() {
        let strategy = Builtin::<super::ConfigMap>::new();
        let old = map(json!({"immutable": true, "data": {"a": "1"}}));
        assert_eq!(strategy.validate_update(&old, &old), []);
        let fields: Vec<String> =
            strategy.validate_update(&map(json!({"data": {"a": "2"}})), &old).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["immutable", "data"]);
        assert_eq!(strategy.row(&old, jiff::Timestamp::UNIX_EPOCH)[1], 1);
    }
}
