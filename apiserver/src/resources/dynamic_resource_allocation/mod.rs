//! Dynamic resource allocation: devices that drivers offer (ResourceSlice), sorts of them (DeviceClass), and what pods ask for
//! (ResourceClaim, and the templates of them). Here is what several of the kinds say alike.
//!
//! What Kubernetes 1.37 does only when it is asked for (alpha) is dropped as it drops it: derived attributes, attributes with
//! several values, compatibility groups, node allocatable resources, partition types and node operations to skip.

mod device;
pub mod device_class;
mod request;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
mod selector;
mod status;

use super::csi_driver::driver_name;
use super::rules;
use crate::http::error::Invalid;
use serde_json::{Value, json};
use slipway_api::name;
use slipway_api::resource::{DeviceTaint, DeviceToleration, OpaqueDeviceConfiguration};

const GROUP: &str = "resource.k8s.io";
/// Of the part before the slash of an attribute's name, and of the part after it.
const DOMAIN_MAX: usize = 63;
const ID_MAX: usize = 32;
const POOL_NAME_MAX: usize = 253;
/// Of configurations, in a class as in a claim.
const CONFIG_MAX: usize = 32;
const PARAMETERS_BYTES_MAX: usize = 10 << 10;
const TOLERATIONS_MAX: usize = 16;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
    characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

/// Whether a list is short enough to be looked at.
fn is_short(at: &str, length: usize, max: usize, errors: &mut Vec<Invalid>) -> bool {
    if length > max {
        errors.push(Invalid::too_many(at, length, max));
    }
    length <= max
}

/// One error for each item whose key another one before it has.
fn unique<'a, T: Ord + serde::Serialize + 'a>(at: &str, keys: impl Iterator<Item = T>, errors: &mut Vec<Invalid>) {
    let mut known = std::collections::BTreeSet::new();
    for (index, key) in keys.enumerate() {
        let shown = json!(key);
        if !known.insert(key) {
            errors.push(Invalid::duplicate(format!("{at}[{index}]"), &shown));
        }
    }
}

fn label(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    rules::all(at, text, name::dns1123_label(text), errors);
}

fn pool_name(at: &str, pool: &str, errors: &mut Vec<Invalid>) {
    if pool.is_empty() {
        errors.push(Invalid::required(at, ""));
        return;
    }
    if pool.len() > POOL_NAME_MAX {
        errors.push(Invalid::too_long(at, POOL_NAME_MAX));
    }
    for part in pool.split('/') {
        rules::all(at, part, name::dns1123_subdomain(part), errors);
    }
}

fn identifier(at: &str, id: &str, errors: &mut Vec<Invalid>) {
    if id.len() > ID_MAX {
        errors.push(Invalid::too_long(at, ID_MAX));
    }
    let starts = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        errors.push(Invalid::value(at, &json!(id), IDENTIFIER));
    }
}

/// The name of an attribute or a capacity: `memory`, or `gpu.example.com/memory`.
fn qualified_name(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    match text.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(at, id, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(Invalid::value(at, &json!(""), "the domain must not be empty"));
            } else {
                driver_name(at, domain, errors);
            }
            if id.is_empty() {
                errors.push(Invalid::value(at, &json!(""), "the name must not be empty"));
            } else {
                identifier(at, id, errors);
            }
        }
        _ => errors.push(Invalid::value(at, &json!(text), "must not contain more than one slash")),
    }
}

/// [`qualified_name`], with its domain.
fn fully_qualified_name(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    qualified_name(at, text, errors);
    if !text.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Invalid::value(at, &json!(text), why));
    }
}

/// What a driver is told and nobody else understands.
fn opaque(at: &str, config: Option<&OpaqueDeviceConfiguration>, errors: &mut Vec<Invalid>) {
    let at = format!("{at}.opaque");
    let Some(config) = config else {
        errors.push(Invalid::required(at, ""));
        return;
    };
    driver_name(&format!("{at}.driver"), &config.driver, errors);
    raw(&format!("{at}.parameters"), &config.parameters.0, PARAMETERS_BYTES_MAX, errors);
}

/// An object of any fields.
fn raw(at: &str, value: &Value, max: usize, errors: &mut Vec<Invalid>) {
    match value {
        Value::Null => errors.push(Invalid::required(at, "")),
        value if value.to_string().len() > max => errors.push(Invalid::too_long(at, max)),
        Value::Object(_) => {}
        _ => errors.push(Invalid::value(at, &json!("<value omitted>"), "must be a valid JSON object")),
    }
}

fn tolerations(at: &str, tolerations: Option<&[DeviceToleration]>, errors: &mut Vec<Invalid>) {
    let tolerations = tolerations.unwrap_or(&[]);
    if !is_short(at, tolerations.len(), TOLERATIONS_MAX, errors) {
        return;
    }
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if let Some(key) = toleration.key.as_deref().filter(|key| !key.is_empty()) {
            rules::all(&format!("{at}.key"), key, name::qualified_name(key), errors);
        }
        let value = toleration.value.as_deref().unwrap_or("");
        match toleration.operator.as_deref() {
            Some("Exists") if !value.is_empty() => {
                errors.push(Invalid::value(format!("{at}.value"), &json!(value), "must be empty for operator `Exists`"));
            }
            Some("Equal") => rules::all(&format!("{at}.value"), value, name::label_value(value), errors),
            operator => rules::one_of(&format!("{at}.operator"), operator, &["Equal", "Exists"], errors),
        }
        let effect = toleration.effect.as_deref().filter(|effect| !effect.is_empty());
        rules::maybe_one_of(&format!("{at}.effect"), effect, &EFFECTS, errors);
    }
}

fn taint(at: &str, taint: &DeviceTaint, errors: &mut Vec<Invalid>) {
    rules::all(&format!("{at}.key"), &taint.key, name::qualified_name(&taint.key), errors);
    if let Some(value) = taint.value.as_deref().filter(|value| !value.is_empty()) {
        rules::all(&format!("{at}.value"), value, name::label_value(value), errors);
    }
    rules::one_of(&format!("{at}.effect"), Some(&taint.effect), &EFFECTS, errors);
}

/// What must be true of a device before a pod is bound for it, and what tells that it never will.
fn binding_conditions(at: &str, conditions: Option<&[String]>, failures: Option<&[String]>, errors: &mut Vec<Invalid>) {
    const MAX: usize = 4;
    let (conditions, failures) = (conditions.unwrap_or(&[]), failures.unwrap_or(&[]));
    let places = [(format!("{at}.bindingConditions"), conditions), (format!("{at}.bindingFailureConditions"), failures)];
    for (at, list) in &places {
        if is_short(at, list.len(), MAX, errors) {
            for (index, one) in list.iter().enumerate() {
                rules::all(&format!("{at}[{index}]"), one, name::qualified_name(one), errors);
            }
        }
        unique(at, list.iter(), errors);
    }
    for (index, one) in failures.iter().enumerate().filter(|(_, one)| conditions.contains(one)) {
        let why = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(Invalid::value(format!("{}[{index}]", places[1].0), &json!(one), why));
    }
    if conditions.is_empty() && !failures.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        errors.push(Invalid::value(&places[0].0, &json!(conditions), why));
    }
    if failures.is_empty() && !conditions.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        errors.push(Invalid::value(&places[1].0, &json!(failures), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(check: impl FnOnce(&mut Vec<Invalid>)) -> Vec<String> {
        let mut errors = vec![];
        check(&mut errors);
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn names() {
        for good in ["memory", "_m1", "gpu.example.com/memory"] {
            assert_eq!(texts(|errors| qualified_name("n", good, errors)), Vec::<String>::new(), "{good}");
        }
        assert!(texts(|errors| qualified_name("n", "1m", errors))[0].contains("a valid C identifier"));
        assert!(texts(|errors| qualified_name("n", "a/b/c", errors))[0].contains("must not contain more than one slash"));
        assert_eq!(
            texts(|errors| qualified_name("n", "/", errors)),
            ["n: Invalid value: \"\": the domain must not be empty", "n: Invalid value: \"\": the name must not be empty"]
        );
        assert_eq!(texts(|errors| identifier("n", &"a".repeat(33), errors)), ["n: Too long: may not be more than 32 bytes"]);
        assert!(texts(|errors| fully_qualified_name("n", "memory", errors))[0].contains("must be a domain and a name"));
        assert_eq!(texts(|errors| pool_name("p", "node-1/part-2", errors)), Vec::<String>::new());
        assert_eq!(texts(|errors| pool_name("p", "", errors)), ["p: Required value"]);
        assert!(texts(|errors| pool_name("p", "a//b", errors))[0].contains("a lowercase RFC 1123 subdomain"));
    }

    #[test]
    fn conditions_come_in_pairs() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let check = |conditions: &[&str], failures: &[&str]| {
            texts(|errors| binding_conditions("d", Some(&list(conditions)), Some(&list(failures)), errors))
        };
        assert_eq!(check(&["a"], &["b"]), Vec::<String>::new());
        assert_eq!(
            check(&["a", "a"], &["a"]),
            [
                "d.bindingConditions[1]: Duplicate value: \"a\"",
                "d.bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
            ]
        );
        assert!(check(&["a"], &[])[0].ends_with("bindingFailureConditions are required to use bindingConditions"));
        assert_eq!(check(&["a", "b", "c", "d", "e"], &["f"]), ["d.bindingConditions: Too many: 5: must have at most 4 items"]);
    }
}
