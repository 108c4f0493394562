//! ObjectMeta: what the server fills in, what an update may not change, and what is valid.

use crate::http::error::{Invalid, Status};
use crate::http::notes;
use crate::kind::{NameRule, Strategy};
use crate::verbs::{Preconditions, Target};
use serde_json::{Map, Value, json};

/// All annotations of an object together, as in Kubernetes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const LABEL_CHARS_MAX: usize = 63;
const SUBDOMAIN_CHARS_MAX: usize = 253;

/// `kind` and `apiVersion` must be the strategy's; left out, they are filled in.
pub fn check_type(strategy: &dyn Strategy, object: &mut Value) -> Result<(), Status> {
    let names = strategy.names();
    let api_version = names.api_version();
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request("the object provided is unrecognized (must be of type Object)"));
    };
    let given = |field: &str| map.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(given) = given("apiVersion").filter(|given| *given != api_version) {
        let why = format!("the API version in the data ({given}) does not match the expected API version ({api_version})");
        return Err(Status::bad_request(why));
    }
    if let Some(given) = given("kind").filter(|given| given != names.kind) {
        let version = &api_version;
        let why = format!(
            "{given} in version \"{version}\" cannot be handled as a {}: converting ({version}.{given}) to ({version}.{}): unknown conversion",
            names.kind, names.kind
        );
        return Err(Status::bad_request(why));
    }
    map.insert("kind".into(), names.kind.into());
    map.insert("apiVersion".into(), api_version.into());
    match map.get("metadata") {
        None | Some(Value::Null) => {
            map.insert("metadata".into(), json!({}));
            Ok(())
        }
        Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: json: cannot unmarshal metadata into Go struct field of type v1.ObjectMeta",
            names.kind, names.version, names.kind
        ))),
    }
}

/// The namespace of the path is the object's; an object of the cluster has none.
pub fn take_namespace(strategy: &dyn Strategy, namespace: &str, object: &mut Value) -> Result<(), Status> {
    let metadata = &mut object["metadata"];
    let given = metadata["namespace"].as_str().unwrap_or_default();
    if !strategy.names().namespaced {
        crate::kind::remove(metadata, "namespace");
        return Ok(());
    }
    if !given.is_empty() && given != namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    metadata["namespace"] = namespace.into();
    Ok(())
}

/// The object of an update must be the one of the path.
pub fn check_name(name: &str, namespace: &str, object: &Value) -> Result<(), Status> {
    let metadata = &object["metadata"];
    let given = metadata["name"].as_str().unwrap_or_default();
    if given.is_empty() {
        let why = format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
        return Err(Status::bad_request(why));
    }
    if given != name {
        return Err(Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})")));
    }
    let given = metadata["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && !given.is_empty() && given != namespace {
        let why = format!("the namespace of the object ({given}) does not match the namespace on the request ({namespace})");
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// What the object of an update says that it replaces.
pub(crate) fn preconditions(target: &Target<'_>, object: &Value) -> Result<Preconditions, Status> {
    let preconditions = preconditions_of_patch(object);
    match &preconditions.resource_version {
        None if !target.strategy.unconditional_update() => {
            let error = Invalid::value("metadata.resourceVersion", &json!(0), "must be specified for an update");
            Err(target.invalid(&[error]))
        }
        Some(version) if version.parse::<u64>().is_err() => {
            let why = format!("strconv.ParseUint: parsing \"{version}\": invalid syntax");
            Err(target.invalid(&[Invalid::value("metadata.resourceVersion", &json!(version), &why)]))
        }
        _ => Ok(preconditions),
    }
}

pub(crate) fn preconditions_of_patch(object: &Value) -> Preconditions {
    let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    Preconditions { uid: text("uid"), resource_version: text("resourceVersion").filter(|version| version != "0") }
}

/// Kubernetes' time format: seconds, UTC.
pub fn timestamp(time: jiff::Timestamp) -> Value {
    json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// What the server alone says of a new object.
pub(crate) fn prepare_create(object: &mut Value, now: jiff::Timestamp) {
    let metadata = &mut object["metadata"];
    for field in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        crate::kind::remove(metadata, field);
    }
    remove_empty(metadata);
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = timestamp(now);
}

/// Carries over what is left out of an update, and what it cannot change.
pub(crate) fn prepare_update(new: &mut Value, old: &Value) {
    let metadata = &mut new["metadata"];
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace"] {
        if metadata.get(field).is_none_or(|value| value.is_null() || value == "") {
            crate::kind::keep(metadata, &old["metadata"], field);
        }
    }
    for field in ["generation", "generateName", "resourceVersion"] {
        crate::kind::keep(metadata, &old["metadata"], field);
    }
    crate::kind::remove(metadata, "selfLink");
    remove_empty(metadata);
}

/// An owner that stands twice is one, and a warning.
pub(crate) fn dedup_owners(object: &mut Value) {
    let owners =
        object.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences")).and_then(Value::as_array_mut);
    let Some(owners) = owners.filter(|owners| owners.len() > 1) else { return };
    let mut twice: Vec<String> = vec![];
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in std::mem::take(owners) {
        match kept.contains(&owner) {
            true => twice.push(owner["uid"].as_str().unwrap_or_default().to_owned()),
            false => kept.push(owner),
        }
    }
    *owners = kept;
    if !twice.is_empty() {
        notes::warn(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject \
             such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(" ")
        ));
    }
}

/// What is empty isn't there: as an orphan's last owner, which a patch has taken away.
fn remove_empty(metadata: &mut Value) {
    for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
        let empty = metadata.get(field).is_some_and(|value| value == &json!([]) || value == &json!({}));
        if empty {
            crate::kind::remove(metadata, field);
        }
    }
}

pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Whether a request to delete the object has been accepted.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// `rest.BeforeCreate`'s and `ValidateObjectMeta`'s checks.
pub fn validate(strategy: &dyn Strategy, object: &Value) -> Vec<Invalid> {
    let names = strategy.names();
    let metadata = &object["metadata"];
    let mut errors = vec![];
    let base = metadata["generateName"].as_str().unwrap_or_default();
    if !base.is_empty() {
        // A prefix may end with what a whole name may not.
        let whole =
            if base.len() > 1 && base.ends_with(['-', '.']) { format!("{}a", &base[..base.len() - 1]) } else { base.into() };
        for why in name_errors(names.name_rule, &whole) {
            errors.push(Invalid::value("metadata.generateName", &json!(base), &why));
        }
    }
    match metadata["name"].as_str().unwrap_or_default() {
        "" => errors.push(Invalid::required("metadata.name", "name or generateName is required")),
        name => {
            errors.extend(
                name_errors(names.name_rule, name).into_iter().map(|why| Invalid::value("metadata.name", &json!(name), &why)),
            );
        }
    }
    if names.namespaced {
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        for why in name_errors(NameRule::Label, namespace) {
            errors.push(Invalid::value("metadata.namespace", &json!(namespace), &why));
        }
    }
    errors.extend(validate_labels("metadata.labels", &metadata["labels"]));
    errors.extend(validate_annotations(&metadata["annotations"]));
    errors.extend(validate_owners(&metadata["ownerReferences"]));
    // Those of custom kinds and of their definitions may have any name.
    let any_name = strategy.custom().is_some() || names.group == "apiextensions.k8s.io";
    errors.extend(validate_finalizers(&metadata["finalizers"], any_name));
    errors
}

/// `ValidateObjectMetaUpdate`: what may never change.
pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<Invalid> {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let mut errors = vec![];
    let added: Vec<&str> = texts(&new["finalizers"]).filter(|name| !texts(&old["finalizers"]).any(|old| old == *name)).collect();
    if old.get("deletionTimestamp").is_some_and(|time| !time.is_null()) && !added.is_empty() {
        let quoted: Vec<String> = added.iter().map(|name| format!("\"{name}\"")).collect();
        let found = quoted.join(", ");
        let why =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{found}}}");
        errors.push(Invalid::forbidden("metadata.finalizers", &why));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new.get(field) != old.get(field) {
            errors.push(Invalid::value(format!("metadata.{field}"), &new[field], "field is immutable"));
        }
    }
    errors
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flat_map(Map::iter)
}

/// Labels at any place of an object (`metadata.labels`, a template's, …).
pub fn validate_labels(field: &str, labels: &Value) -> Vec<Invalid> {
    let mut errors = vec![];
    for (key, value) in entries(labels) {
        for why in qualified_name_errors(key) {
            errors.push(Invalid::value(field, &json!(key), &why));
        }
        for why in label_value_errors(value.as_str().unwrap_or_default()) {
            errors.push(Invalid::value(field, value, &why));
        }
    }
    errors
}

pub fn validate_annotations(annotations: &Value) -> Vec<Invalid> {
    let mut errors = vec![];
    let mut bytes = 0;
    for (key, value) in entries(annotations) {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        for why in qualified_name_errors(&key.to_lowercase()) {
            errors.push(Invalid::value("metadata.annotations", &json!(key), &why));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(Invalid::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
    errors
}

fn validate_owners(owners: &Value) -> Vec<Invalid> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut errors = vec![];
    let mut controller: Option<&str> = None;
    for owner in owners.as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(field).is_empty() {
                errors.push(Invalid::value(format!("{FIELD}.{field}"), &json!(""), why));
            }
        }
        if owner["controller"] == true {
            match controller {
                None => controller = Some(text("name")),
                Some(first) => {
                    let second = text("name");
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
                    );
                    errors.push(Invalid::value(FIELD, owners, &why));
                }
            }
        }
    }
    errors
}

fn validate_finalizers(finalizers: &Value, any_name: bool) -> Vec<Invalid> {
    const FIELD: &str = "metadata.finalizers";
    let mut errors = vec![];
    for finalizer in texts(finalizers) {
        for why in qualified_name_errors(finalizer) {
            errors.push(Invalid::value(FIELD, &json!(finalizer), &why));
        }
        if !any_name && !finalizer.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Invalid::value(FIELD, &json!(finalizer), why));
        }
    }
    let has = |name: &str| texts(finalizers).any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(Invalid::value(FIELD, finalizers, "finalizer orphan and foregroundDeletion cannot be both set"));
    }
    errors
}

// === names ===

fn too_many(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

fn is_lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_lower(*first) && is_lower(*last) && bytes.iter().all(|c| is_lower(*c) || *c == b'-')
}

/// What is wrong with a name, as Kubernetes words it; nothing if it is right.
pub fn name_errors(rule: NameRule, name: &str) -> Vec<String> {
    let mut errors = vec![];
    match rule {
        NameRule::Subdomain => {
            if name.len() > SUBDOMAIN_CHARS_MAX {
                errors.push(too_many(SUBDOMAIN_CHARS_MAX));
            }
            if !name.split('.').all(is_label) {
                errors.push(SUBDOMAIN.into());
            }
        }
        NameRule::Label => {
            if name.len() > LABEL_CHARS_MAX {
                errors.push(too_many(LABEL_CHARS_MAX));
            }
            if !is_label(name) {
                errors.push(LABEL.into());
            }
        }
        NameRule::Label1035 => {
            if name.len() > LABEL_CHARS_MAX {
                errors.push(too_many(LABEL_CHARS_MAX));
            }
            if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
                errors.push(LABEL_1035.into());
            }
        }
        NameRule::PathSegment => {
            if matches!(name, "." | "..") {
                errors.push(format!("may not be '{name}'"));
            }
            errors.extend(['/', '%'].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")));
        }
    }
    errors
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
    start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
    with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
    character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
    '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
    character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// What is wrong with a label's or an annotation's key, a finalizer, a condition type.
pub fn qualified_name_errors(text: &str) -> Vec<String> {
    let mut errors = vec![];
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else {
                errors.extend(name_errors(NameRule::Subdomain, prefix).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            let why = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED} {why}")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > LABEL_CHARS_MAX {
        errors.push(format!("name part {}", too_many(LABEL_CHARS_MAX)));
    }
    if !is_qualified(name) {
        errors.push(format!("name part {QUALIFIED}"));
    }
    errors
}

pub fn label_value_errors(text: &str) -> Vec<String> {
    let mut errors = vec![];
    if text.len() > LABEL_CHARS_MAX {
        errors.push(too_many(LABEL_CHARS_MAX));
    }
    if !text.is_empty() && !is_qualified(text) {
        errors.push(LABEL_VALUE.into());
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out() {
        let old = json!({"metadata": {"name": "a", "ownerReferences": [{"uid": "1"}], "labels": {"a": "b"}}});
        let mut new = json!({"metadata": {"name": "a", "ownerReferences": [], "labels": {}, "finalizers": []}});
        prepare_update(&mut new, &old);
        assert_eq!(new, json!({"metadata": {"name": "a"}}));
    }

    #[test]
    fn names() {
        let ok = |rule, name: &str| name_errors(rule, name).is_empty();
        assert!(ok(NameRule::Subdomain, "a.b-c.9"));
        assert!(!ok(NameRule::Subdomain, "a..b") && !ok(NameRule::Subdomain, "A") && !ok(NameRule::Subdomain, "-a"));
        assert!(!ok(NameRule::Subdomain, &"a".repeat(254)));
        assert!(ok(NameRule::Label, "9a") && !ok(NameRule::Label, "a.b") && !ok(NameRule::Label, &"a".repeat(64)));
        assert!(ok(NameRule::Label1035, "a9") && !ok(NameRule::Label1035, "9a"));
        assert!(
            ok(NameRule::PathSegment, "system:node") && !ok(NameRule::PathSegment, "a/b") && !ok(NameRule::PathSegment, "..")
        );
        assert!(qualified_name_errors("example.com/My_Name").is_empty());
        assert_eq!(qualified_name_errors("/x"), ["prefix part must be non-empty"]);
        assert!(!qualified_name_errors("a/b/c").is_empty());
        assert!(label_value_errors("").is_empty() && !label_value_errors("-x").is_empty());
    }

    #[test]
    fn a_finalizer_must_be_qualified_or_standard() {
        assert!(validate_finalizers(&json!(["orphan", "example.com/x"]), false).is_empty());
        assert_eq!(validate_finalizers(&json!(["mine"]), false).len(), 1);
        assert!(validate_finalizers(&json!(["mine"]), true).is_empty(), "of a custom kind");
        assert_eq!(validate_finalizers(&json!(["orphan", "foregroundDeletion"]), false).len(), 1);
    }

    #[test]
    fn only_one_owner_controls() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true});
        assert!(validate_owners(&json!([owner])).is_empty());
        assert_eq!(validate_owners(&json!([owner, owner])).len(), 1);
        assert_eq!(validate_owners(&json!([{}])).len(), 4);
    }

    #[test]
    fn finalizers_cannot_be_added_while_deleting() {
        let old = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a.b/c"]}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["a.b/c", "d.e/f"]);
        assert_eq!(
            validate_update(&new, &old)[0].message,
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"d.e/f\"}"
        );
        new["metadata"]["finalizers"] = json!([]);
        assert!(validate_update(&new, &old).is_empty());
    }
}
