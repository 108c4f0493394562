//! What of a body is not told, whatever the policy says: the values of Secrets, and tokens.

use crate::http::request_info::RequestInfo;
use serde_json::Value;

/// Stands where a value was left out.
const REDACTED: &str = "REDACTED";
/// kubectl keeps the whole manifest in it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The body as it may be told.
pub(super) fn redacted(info: &RequestInfo, mut body: Value, keep_managed_fields: bool) -> Value {
    if !keep_managed_fields {
        drop_managed_fields(&mut body);
    }
    if body["kind"] == "Status" && body["status"] == "Failure" {
        refusal(info, &mut body);
        return body;
    }
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        ("", "secrets", _) => secret(&mut body),
        ("", "serviceaccounts", "token") => blank(&mut body, &["status", "token"]),
        ("authentication.k8s.io", "tokenreviews", _) => blank(&mut body, &["spec", "token"]),
        _ => {}
    }
    body
}

/// Whether errors about the resource may quote what must not be told.
fn quotes_secrets(info: &RequestInfo) -> bool {
    matches!(
        (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()),
        ("", "secrets", _) | ("", "serviceaccounts", "token") | ("authentication.k8s.io", "tokenreviews", _)
    )
}

/// Whether a refusal for this reason shows parts of the body.
fn is_about_the_body(reason: &str) -> bool {
    matches!(reason, "" | "BadRequest" | "Invalid" | "InternalError")
}

/// What was said of a request that was refused, as it may be told.
pub(super) fn message(info: &RequestInfo, reason: &str, message: &str) -> String {
    if is_about_the_body(reason) && quotes_secrets(info) { REDACTED.into() } else { message.into() }
}

/// The same of an answer's body, if that is a refusal.
fn refusal(info: &RequestInfo, body: &mut Value) {
    if !quotes_secrets(info) || !is_about_the_body(body["reason"].as_str().unwrap_or_default()) {
        return;
    }
    body["message"] = REDACTED.into();
    if let Some(details) = body.get_mut("details").and_then(Value::as_object_mut) {
        details.remove("causes");
    }
}

fn drop_managed_fields(body: &mut Value) {
    let items = body.get_mut("items").and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(drop_managed_fields);
    let rows = body.get_mut("rows").and_then(Value::as_array_mut);
    rows.into_iter().flatten().filter_map(|row| row.get_mut("object")).for_each(drop_managed_fields);
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn blank(body: &mut Value, path: &[&str]) {
    let found = path.iter().try_fold(body, |value, field| value.get_mut(*field));
    if let Some(value) = found.filter(|value| !value.is_null()) {
        *value = REDACTED.into();
    }
}

/// What a Secret, a list or a Table of them, and a Status have at their top. Whatever else is sent may be anything.
const KNOWN: [&str; 16] = [
    "apiVersion",
    "code",
    "columnDefinitions",
    "data",
    "details",
    "immutable",
    "items",
    "kind",
    "message",
    "metadata",
    "reason",
    "rows",
    "status",
    "stringData",
    "type",
    "gracePeriodSeconds",
];
const OPERATIONS: [&str; 6] = ["add", "copy", "move", "remove", "replace", "test"];

/// An operation of a JSON patch: what is written may be anywhere in it.
fn operation(body: &mut Value) {
    let Value::Object(map) = body else {
        *body = REDACTED.into();
        return;
    };
    for (field, value) in map {
        let is_told = match field.as_str() {
            "op" => value.as_str().is_some_and(|name| OPERATIONS.contains(&name)),
            "from" | "path" => true,
            _ => false,
        };
        if !is_told {
            *value = REDACTED.into();
        }
    }
}

/// A Secret, a list of them, a Table with them, or a patch of one.
fn secret(body: &mut Value) {
    match body {
        Value::Array(operations) => operations.iter_mut().for_each(operation),
        Value::Object(map) => {
            for (_, value) in map.iter_mut().filter(|(field, _)| !KNOWN.contains(&field.as_str())) {
                *value = REDACTED.into();
            }
            for field in ["data", "stringData"] {
                match map.get_mut(field) {
                    Some(Value::Object(values)) => values.values_mut().for_each(|value| *value = REDACTED.into()),
                    Some(other) => *other = REDACTED.into(),
                    None => {}
                }
            }
            blank_annotation(map.get_mut("metadata"));
            map.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(secret);
            let rows = map.get_mut("rows").and_then(Value::as_array_mut);
            rows.into_iter().flatten().filter_map(|row| row.get_mut("object")).for_each(secret);
        }
        other => *other = REDACTED.into(),
    }
}

fn blank_annotation(metadata: Option<&mut Value>) {
    if let Some(annotations) = metadata.and_then(|metadata| metadata.get_mut("annotations")) {
        blank(annotations, &[LAST_APPLIED]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(path: &str, body: Value) -> Value {
        redacted(&RequestInfo::parse(&http::Method::POST, &path.parse().unwrap()), body, false)
    }

    #[test]
    fn of_secrets_the_keys_are_told_and_not_the_values() {
        let annotations = json!({LAST_APPLIED: "{\"stringData\":{\"a\":\"hunter2\"}}", "note": "kept"});
        let body = json!({
            "metadata": {"name": "s", "annotations": annotations, "managedFields": [{}]},
            "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter2"}, "type": "Opaque",
        });
        let path = "/api/v1/namespaces/a/secrets";
        let expected = json!({
            "metadata": {"name": "s", "annotations": {LAST_APPLIED: "REDACTED", "note": "kept"}},
            "data": {"a": "REDACTED"}, "stringData": {"b": "REDACTED"}, "type": "Opaque",
        });
        assert_eq!(told(path, body.clone()), expected);
        assert_eq!(told(path, json!({"items": [body.clone()]}))["items"][0], expected);
        assert_eq!(told(path, json!({"rows": [{"cells": [1], "object": body}]}))["rows"][0]["object"], expected);
        let patch = json!([{"op": "replace", "path": "/data/a", "value": "aHVudGVyMg=="}, {"op": "remove", "path": "/data/b"}]);
        assert!(!told(path, patch).to_string().contains("aHVudGVyMg"));
        assert!(!told(path, json!({"data": "hunter2"})).to_string().contains("hunter2"));
    }

    #[test]
    fn tokens_are_not_told() {
        let review = told("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "t", "audiences": ["a"]}}));
        assert_eq!(review, json!({"spec": {"token": "REDACTED", "audiences": ["a"]}}));
        let path = "/api/v1/namespaces/a/serviceaccounts/b/token";
        assert_eq!(told(path, json!({"status": {"token": "t"}})), json!({"status": {"token": "REDACTED"}}));
        assert_eq!(told(path, json!({"spec": {}})), json!({"spec": {}}));
    }

    #[test]
    fn what_refusals_quote_of_a_secret_is_not_told() {
        let refusal = |reason| json!({"kind": "Status", "status": "Failure", "message": "a: hunter2", "reason": reason, "details": {"causes": [1]}});
        let secrets = "/api/v1/namespaces/a/secrets";
        assert_eq!(told(secrets, refusal("Invalid"))["message"], "REDACTED");
        assert_eq!(told(secrets, refusal("Invalid"))["details"], json!({}));
        assert_eq!(told(secrets, refusal("NotFound")), refusal("NotFound"));
        assert_eq!(told("/api/v1/namespaces/a/configmaps", refusal("Invalid")), refusal("Invalid"));
    }

    #[test]
    fn managed_fields_are_left_out_if_wished() {
        let body = json!({"items": [{"metadata": {"name": "a", "managedFields": [1]}}]});
        assert_eq!(told("/api/v1/configmaps", body.clone()), json!({"items": [{"metadata": {"name": "a"}}]}));
        let info = RequestInfo::parse(&http::Method::GET, &"/api/v1/configmaps".parse().unwrap());
        assert_eq!(redacted(&info, body.clone(), true), body);
    }
}
