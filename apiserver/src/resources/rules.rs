//! Rules that the fields of many kinds follow, worded as Kubernetes words them.

use crate::http::error::Invalid;
use serde_json::{Value, json};
use slipway_api::IntOrString;
use slipway_api::meta::LabelSelector;
use slipway_api::name;
use std::collections::BTreeMap;

const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
pub const PORT: &str = "must be between 1 and 65535, inclusive";
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub const POSITIVE: &str = "must be greater than 0";
pub const IMMUTABLE: &str = "field is immutable";
pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// One error for each thing that is wrong with `value`.
pub fn all(at: &str, value: &str, wrong: Vec<String>, errors: &mut Vec<Invalid>) {
    errors.extend(wrong.iter().map(|why| Invalid::value(at, &json!(value), why)));
}

pub fn labels(at: &str, labels: Option<&BTreeMap<String, String>>, errors: &mut Vec<Invalid>) {
    for (key, value) in labels.into_iter().flatten() {
        all(at, key, name::qualified_name(key), errors);
        all(at, value, name::label_value(value), errors);
    }
}

pub fn annotations(at: &str, annotations: Option<&BTreeMap<String, String>>, errors: &mut Vec<Invalid>) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        all(at, key, name::qualified_name(&key.to_lowercase()), errors);
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(Invalid::too_long(at, ANNOTATIONS_BYTES_MAX));
    }
}

pub fn label_selector(at: &str, selector: &LabelSelector, errors: &mut Vec<Invalid>) {
    labels(&format!("{at}.matchLabels"), selector.match_labels.as_ref(), errors);
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{at}.matchExpressions[{index}]");
        let values = requirement.values.as_deref().unwrap_or(&[]);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Invalid::required(format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Invalid::forbidden(format!("{at}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(Invalid::value(format!("{at}.operator"), &json!(other), "not a valid selector operator")),
        }
        all(&format!("{at}.key"), &requirement.key, name::qualified_name(&requirement.key), errors);
        for (index, value) in values.iter().enumerate() {
            all(&format!("{at}.values[{index}]"), value, name::label_value(value), errors);
        }
    }
}

pub fn not_negative(at: &str, count: Option<i64>, errors: &mut Vec<Invalid>) {
    if let Some(count) = count.filter(|count| *count < 0) {
        errors.push(Invalid::value(at, &json!(count), NOT_NEGATIVE));
    }
}

pub fn port(at: &str, number: i32, errors: &mut Vec<Invalid>) {
    if !(1..=65535).contains(&number) {
        errors.push(Invalid::value(at, &json!(number), PORT));
    }
}

/// A field with a closed set of values; `supported` in alphabetical order.
pub fn one_of(at: &str, value: Option<&str>, supported: &[&str], errors: &mut Vec<Invalid>) {
    match value.unwrap_or("") {
        "" => errors.push(Invalid::required(at, "")),
        value if supported.contains(&value) => {}
        other => errors.push(Invalid::not_supported(at, &json!(other), supported)),
    }
}

/// [`one_of`], where the field may be left out.
pub fn maybe_one_of(at: &str, value: Option<&str>, supported: &[&str], errors: &mut Vec<Invalid>) {
    if let Some(value) = value.filter(|value| !supported.contains(value)) {
        errors.push(Invalid::not_supported(at, &json!(value), supported));
    }
}

/// The name of a port of a container: an IANA service name.
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = vec![];
    let mut refuse = |why: &str| errors.push(why.to_owned());
    if name.len() > 15 {
        refuse("must be no more than 15 characters");
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        refuse("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        refuse("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        refuse("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        refuse("must not begin or end with a hyphen");
    }
    errors
}

/// A port as a number or as the name of a container's port.
pub fn port_or_name(at: &str, port: &IntOrString, errors: &mut Vec<Invalid>) {
    match port {
        IntOrString::Int(number) => self::port(at, *number, errors),
        IntOrString::String(name) => all(at, name, port_name(name), errors),
    }
}

pub fn count_or_percent(at: &str, value: Option<&IntOrString>, errors: &mut Vec<Invalid>) {
    match value {
        Some(IntOrString::Int(count)) if *count < 0 => errors.push(Invalid::value(at, &json!(count), NOT_NEGATIVE)),
        Some(IntOrString::String(text)) if percent(text).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' \
                       (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.push(Invalid::value(at, &json!(text), why));
        }
        _ => {}
    }
}

fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(u64::MAX)) }
}

pub fn is_nothing(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(count)) => *count == 0,
        Some(IntOrString::String(text)) => percent(text) == Some(0),
    }
}

pub fn at_most_all(at: &str, value: Option<&IntOrString>, errors: &mut Vec<Invalid>) {
    if let Some(IntOrString::String(text)) = value
        && percent(text).is_some_and(|percent| percent > 100)
    {
        errors.push(Invalid::value(at, &json!(text), "must not be greater than 100%"));
    }
}

/// A field that must stay as it is.
pub fn same<T: PartialEq + serde::Serialize>(at: &str, new: &T, old: &T, errors: &mut Vec<Invalid>) {
    if new != old {
        errors.push(Invalid::value(at, &json!(new), IMMUTABLE));
    }
}

/// The labels of an object as they came, for messages about what is left out.
pub fn labels_in(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).filter(|labels| labels.is_object()).cloned().unwrap_or_else(|| json!({}))
}
