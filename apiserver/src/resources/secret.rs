//! Secret: configuration that not everybody may read. Its type says which keys it must have.

use super::config_map::key_errors;
use super::{fill, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, remove};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
pub use slipway_api::core::Secret;

const BYTES_MAX: usize = 1 << 20;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
/// On secrets of type `kubernetes.io/service-account-token`: whose token it is.
const ANNOTATION_SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";

impl Kind for Secret {
    const NAMES: Names = Names::namespaced("", "v1", "Secret", "secrets", "secret");

    /// `stringData` is merged into `data` here: it is a way to write, and is never stored.
    fn fill_defaults(object: &mut Value) {
        fill::empty(object, "type", "Opaque");
        let plain = object.get("stringData").and_then(Value::as_object).cloned().unwrap_or_default();
        remove(object, "stringData");
        if !plain.is_empty()
            && let Some(data) = fill::map_of(object, "data")
        {
            for (key, text) in plain {
                data.insert(key, json!(STANDARD.encode(text.as_str().unwrap_or(""))));
            }
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            bytes += value.0.len();
            errors.extend(key_errors(&format!("data[{key}]"), key));
        }
        if bytes > BYTES_MAX {
            errors.push(Invalid::too_long("data", BYTES_MAX));
        }
        let has = |key: &str| self.data.as_ref().is_some_and(|data| data.contains_key(key));
        let mut need = |keys: &[&str]| {
            errors.extend(keys.iter().filter(|key| !has(key)).map(|key| Invalid::required(format!("data[{key}]"), "")));
        };
        match self.type_.as_deref().unwrap_or("") {
            "kubernetes.io/service-account-token" => {
                let annotations = self.metadata.annotations.as_ref();
                if annotations.and_then(|all| all.get(ANNOTATION_SERVICE_ACCOUNT)).is_none_or(String::is_empty) {
                    errors.push(Invalid::required(format!("metadata.annotations[{ANNOTATION_SERVICE_ACCOUNT}]"), ""));
                }
            }
            "kubernetes.io/dockercfg" => errors.extend(json_errors(self, ".dockercfg")),
            "kubernetes.io/dockerconfigjson" => errors.extend(json_errors(self, ".dockerconfigjson")),
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => need(&["username", "password"]),
            "kubernetes.io/ssh-auth" => need(&["ssh-privatekey"]),
            "kubernetes.io/tls" => need(&["tls.crt", "tls.key"]),
            _ => {}
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        if self.type_ != old.type_ {
            errors.push(Invalid::value("type", &json!(self.type_), "field is immutable"));
        }
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errors.push(Invalid::forbidden("immutable", IMMUTABLE));
            }
            if self.data != old.data {
                errors.push(Invalid::forbidden("data", IMMUTABLE));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Type", "What the secret is for."),
            Column::integer("Data", "How many entries it has."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(self.type_), json!(self.data.as_ref().map_or(0, |data| data.len())), age(object, now)]
    }

    const SELECTABLE: &'static [&'static str] = &["type"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", fill::text(object, "type").to_owned())]
    }
}

/// The entry must be there and be JSON; its content is not shown.
fn json_errors(secret: &Secret, key: &str) -> Option<Invalid> {
    let Some(content) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Some(Invalid::required(format!("data[{key}]"), ""));
    };
    let error = serde_json::from_slice::<serde_json::Map<String, Value>>(&content.0).err()?;
    let why = if content.0.is_empty() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
    Some(Invalid::value(format!("data[{key}]"), &json!("<secret contents redacted>"), &why))
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn secret(rest: Value) -> Value {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
        secret.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        Builtin::<super::Secret>::new().fill_defaults(&mut secret);
        secret
    }

    #[test]
    fn plain_text_is_encoded_and_wins() {
        let it = secret(json!({"stringData": {"a": "new"}, "data": {"a": "b2xk", "b": "eA=="}}));
        assert_eq!(it["data"], json!({"a": "bmV3", "b": "eA=="}));
        assert_eq!(it["type"], "Opaque");
        assert!(it.get("stringData").is_none());
    }

    #[test]
    fn types_need_their_keys() {
        let strategy = Builtin::<super::Secret>::new();
        let fields = |rest| strategy.validate(&secret(rest)).into_iter().map(|error| error.field).collect::<Vec<_>>();
        assert_eq!(fields(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})), ["data[tls.key]"]);
        assert_eq!(fields(json!({"type": "kubernetes.io/basic-auth"})), ["data[username]", "data[password]"]);
        assert_eq!(fields(json!({"type": "kubernetes.io/basic-auth", "stringData": {"username": "u"}})), Vec::<String>::new());
        assert_eq!(
            fields(json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "nope"}})),
            ["data[.dockerconfigjson]"]
        );
        assert_eq!(
            fields(json!({"type": "kubernetes.io/service-account-token"})),
            ["metadata.annotations[kubernetes.io/service-account.name]"]
        );
        assert_eq!(fields(json!({"stringData": {"bad key": ""}})), ["data[bad key]"]);
    }

    #[test]
    fn type_and_frozen_data_do_not_change() {
        let strategy = Builtin::<super::Secret>::new();
        let frozen = secret(json!({"immutable": true, "stringData": {"a": "1"}}));
        let errors = strategy.validate_update(&secret(json!({"type": "x", "stringData": {"a": "2"}})), &frozen);
        let texts: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        assert_eq!(
            texts,
            [
                "type: Invalid value: \"x\": field is immutable",
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
}
