//! Holding a value to its schema, worded as Kubernetes words it (`ValidateCustomResource`).

use crate::custom_resources::format;
use crate::custom_resources::schema::{Additional, At, Schema};
use crate::http::error::{Invalid, Reason};
use serde_json::{Map, Value};
use slipway_api::canonical::Sorted;
use std::collections::HashSet;

/// More errors than these help nobody, and would make an answer that is larger than its question.
const ERRORS_MAX: usize = 500;

/// What was found, and how much was right: the closest of several alternatives is the one that is told of.
#[derive(Default)]
struct Found {
    errors: Vec<Invalid>,
    matches: usize,
}

impl Found {
    fn push(&mut self, error: Invalid) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    fn merge(&mut self, other: Found) {
        self.matches += other.matches;
        other.errors.into_iter().for_each(|error| self.push(error));
    }

    fn check(&mut self, holds: bool, error: impl FnOnce() -> Invalid) {
        if holds {
            self.matches += 1;
        } else {
            self.push(error());
        }
    }
}

/// All errors of the value's types and limits. What is still as it was in `old` may be wrong: it was accepted once.
pub fn validate(value: &Value, old: Option<&Value>, schema: &Schema, at: &At) -> Vec<Invalid> {
    let mut found = Found::default();
    walk(value, old, schema, at, &mut found);
    found.errors
}

fn walk(value: &Value, old: Option<&Value>, schema: &Schema, at: &At, found: &mut Found) {
    if old.is_some_and(|old| same(old, value)) {
        return;
    }
    type_(value, schema, at, found);
    if !value.is_null() {
        alternatives(value, old, schema, at, found);
        match value {
            Value::String(text) => text_(text, value, schema, at, found),
            Value::Number(number) => limits(number.as_f64().unwrap_or_default(), value, schema, at, found),
            Value::Array(items) => list(items, old, schema, at, found),
            _ => {}
        }
    }
    if !schema.choices.is_empty() {
        found.check(schema.choices.iter().any(|choice| same(choice, value)), || not_supported(value, schema, at));
    }
    if let Value::Object(map) = value {
        object(map, old, schema, at, found);
    }
}

// === what is said ===

/// An error of this place: `spec.x in body WHY`.
fn wrong(at: &At, reason: Reason, value: &str, why: &str) -> Invalid {
    Invalid { field: at.path(), reason, message: format!("Invalid value: {value}: {at} in body {why}") }
}

/// Of the whole, not of a field.
fn composite(at: &At, why: &str) -> Invalid {
    let message = format!("Invalid value: \"\": \"{at}\" {why}");
    Invalid { field: "<nil>".into(), reason: Reason::Invalid, message }
}

/// A value as Go prints it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or_default()),
        other => Sorted(other).to_string(),
    }
}

/// A number as Go's `%v` prints it: with an exponent where that is much shorter.
fn float(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number}")
}

fn not_supported(value: &Value, schema: &Schema, at: &At) -> Invalid {
    let choice = |choice: &Value| match choice.as_str() {
        Some(text) => Sorted(&Value::from(text)).to_string(),
        None => Sorted(&Value::from(Sorted(choice).to_string())).to_string(),
    };
    let choices: Vec<String> = schema.choices.iter().map(choice).collect();
    let message = format!("Unsupported value: {}: supported values: {}", shown(value), choices.join(", "));
    Invalid { field: at.path(), reason: Reason::NotSupported, message }
}

// === types ===

/// The type of a value and its format.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
    }
}

pub fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_(value: &Value, schema: &Schema, at: &At, found: &mut Found) {
    let wanted: &[&str] = match (schema.int_or_string, schema.type_.as_str()) {
        (true, _) => &["integer", "string"],
        (false, "") => return,
        (false, one) => &[one],
    };
    let (is, format_is) = type_of(value);
    let of_type = |wanted: &str, is: &str| {
        wrong(at, Reason::TypeInvalid, &format!("\"{is}\""), &format!("must be of type {wanted}: \"{is}\""))
    };
    if value.is_null() {
        found.check(schema.nullable, || of_type(&wanted.join(","), is));
        return;
    }
    let whole = is == "number" && is_whole(value) && wanted.contains(&"integer");
    let fits = wanted.contains(&is) || whole || (is == "integer" && wanted.contains(&"number"));
    let sized = matches!(value, Value::String(_) | Value::Array(_));
    let format = if format::is_supported(&schema.format) { schema.format.as_str() } else { "" };
    if !sized && !format.is_empty() && !fits && format_is != format {
        found.push(of_type(format, format_is));
        return;
    }
    let numeric = wanted.iter().any(|wanted| matches!(*wanted, "number" | "integer"));
    if !numeric && !format.is_empty() && sized {
        found.matches += 1;
        return;
    }
    found.check(fits, || of_type(&wanted.join(","), is));
}

// === alternatives ===

fn one(value: &Value, old: Option<&Value>, schema: &Schema, at: &At) -> Found {
    let mut found = Found::default();
    walk(value, old, schema, at, &mut found);
    found
}

fn alternatives(value: &Value, old: Option<&Value>, schema: &Schema, at: &At, found: &mut Found) {
    if !schema.any_of.is_empty() {
        let (valid, best) = tried(&schema.any_of, value, old, at);
        if valid == 0 {
            found.push(composite(at, "must validate at least one schema (anyOf)"));
            found.merge(best.unwrap_or_default());
        }
    }
    if !schema.one_of.is_empty() {
        let (valid, best) = tried(&schema.one_of, value, old, at);
        if valid != 1 {
            let why = if valid == 0 { "Found none valid".into() } else { format!("Found {valid} valid alternatives") };
            found.push(composite(at, &format!("must validate one and only one schema (oneOf). {why}")));
            found.merge(best.filter(|_| valid == 0).unwrap_or_default());
        }
    }
    if !schema.all_of.is_empty() {
        let mut valid = 0;
        for one_of_all in &schema.all_of {
            let result = one(value, old, one_of_all, at);
            valid += usize::from(result.errors.is_empty());
            found.merge(result);
        }
        if valid != schema.all_of.len() {
            let why = if valid == 0 { ". None validated" } else { "" };
            found.push(composite(at, &format!("must validate all the schemas (allOf){why}")));
        }
    }
    if let Some(not) = &schema.not {
        found.check(!one(value, None, not, at).errors.is_empty(), || composite(at, "must not validate the schema (not)"));
    }
}

/// How many of the alternatives hold, and what is wrong with the one that comes closest.
fn tried(alternatives: &[Schema], value: &Value, old: Option<&Value>, at: &At) -> (usize, Option<Found>) {
    let (mut valid, mut best): (usize, Option<Found>) = (0, None);
    for alternative in alternatives {
        let result = one(value, old, alternative, at);
        if result.errors.is_empty() {
            valid += 1;
        } else if best.as_ref().is_none_or(|best| result.matches > best.matches) {
            best = Some(result);
        }
    }
    (valid, best)
}

// === limits ===

fn text_(text: &str, value: &Value, schema: &Schema, at: &At, found: &mut Found) {
    let limits = &schema.limits;
    if limits.max_length.is_some() || limits.min_length.is_some() {
        let chars = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = limits.max_length {
            found.check(chars <= max, || Invalid::too_long(at.path(), usize::try_from(max).unwrap_or_default()));
        }
        if let Some(min) = limits.min_length {
            let why = || format!("should be at least {min} chars long");
            found.check(chars >= min, || wrong(at, Reason::Invalid, &shown(value), &why()));
        }
    }
    if let Some(pattern) = &schema.pattern {
        // A pattern that cannot be compiled was refused with its definition.
        let holds = pattern.regex.as_ref().is_ok_and(|regex| regex.is_match(text));
        found.check(holds, || wrong(at, Reason::Invalid, &shown(value), &format!("should match '{}'", pattern.text)));
    }
    if let Some(holds) = format::check(&schema.format, text) {
        let why = || format!("must be of type {}: {}", schema.format, shown(value));
        found.check(holds, || wrong(at, Reason::TypeInvalid, &shown(value), &why()));
    }
}

fn limits(number: f64, value: &Value, schema: &Schema, at: &At, found: &mut Found) {
    let limits = &schema.limits;
    let fail = |why: String| wrong(at, Reason::Invalid, &shown(value), &why);
    if let Some(of) = limits.multiple_of.filter(|of| *of > 0.0) {
        let times = number / of;
        found.check(times == times.trunc(), || fail(format!("should be a multiple of {}", float(of))));
    }
    if let Some(max) = limits.maximum {
        let (holds, words) = match limits.exclusive_maximum {
            true => (number < max, "less than"),
            false => (number <= max, "less than or equal to"),
        };
        found.check(holds, || fail(format!("should be {words} {}", float(max))));
    }
    if let Some(min) = limits.minimum {
        let (holds, words) = match limits.exclusive_minimum {
            true => (number > min, "greater than"),
            false => (number >= min, "greater than or equal to"),
        };
        found.check(holds, || fail(format!("should be {words} {}", float(min))));
    }
}

fn list(items: &[Value], old: Option<&Value>, schema: &Schema, at: &At, found: &mut Found) {
    if let Some(of) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            walk(item, correlated(item, old, schema), of, &at.item(index), found);
        }
    }
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = schema.limits.min_items {
        let why = || format!("should have at least {min} items");
        found.check(count >= min, || wrong(at, Reason::Invalid, &count.to_string(), &why()));
    }
    if let Some(max) = schema.limits.max_items {
        found.check(count <= max, || Invalid::too_many(at.path(), items.len(), usize::try_from(max).unwrap_or_default()));
    }
    if schema.limits.unique_items {
        let mut seen = HashSet::new();
        let unique = items.iter().all(|item| seen.insert(Sorted(item).to_string()));
        found.check(unique, || wrong(at, Reason::Invalid, "\"\"", "shouldn't contain duplicates"));
    }
}

fn object(map: &Map<String, Value>, old: Option<&Value>, schema: &Schema, at: &At, found: &mut Found) {
    let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(min) = schema.limits.min_properties {
        let why = || format!("should have at least {min} properties");
        found.check(count >= min, || wrong(at, Reason::Invalid, &count.to_string(), &why()));
    }
    if let Some(max) = schema.limits.max_properties {
        let why = || format!("should have at most {max} properties");
        found.check(count <= max, || wrong(at, Reason::Invalid, &count.to_string(), &why()));
    }
    for (name, value) in map {
        let at = at.field(name);
        let old = old.and_then(|old| old.get(name));
        match (schema.properties.get(name), &schema.additional) {
            (Some(of), _) => walk(value, old, of, &at, found),
            (None, Additional::Of(of)) => walk(value, old, of, &at, found),
            (None, Additional::Allowed(false)) => {
                let message = format!("Invalid value: \"\": {at} in body is a forbidden property");
                found.push(Invalid { field: at.path(), reason: Reason::Invalid, message });
            }
            _ => {}
        }
    }
    for name in schema.required.iter().filter(|name| !map.contains_key(*name)) {
        found.push(Invalid::required(at.field(name).path(), ""));
    }
}

/// The item of the old list that this one was: in a list that is a map, the one with the same keys.
pub fn correlated<'o>(item: &Value, old: Option<&'o Value>, schema: &Schema) -> Option<&'o Value> {
    if schema.list_type != "map" || schema.map_keys.is_empty() {
        return None;
    }
    let same_keys = |other: &&Value| schema.map_keys.iter().all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(same_keys)
}

/// Whether two values are equal, 1 and 1.0 included.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => one == other,
    }
}

// === lists that are sets or maps, and objects within objects ===

/// What `x-kubernetes-list-type` asks: no item twice in a set, no keys twice in a map.
pub fn lists(value: &Value, schema: &Schema, at: &At, errors: &mut Vec<Invalid>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(of) = schema.field(name) {
                    lists(value, of, &at.field(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type.as_str() {
                "set" => no_item_twice(items, at, errors),
                "map" => no_keys_twice(items, schema, at, errors),
                _ => {}
            }
            if let Some(of) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    lists(item, of, &at.item(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn no_item_twice(items: &[Value], at: &At, errors: &mut Vec<Invalid>) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        if !seen.insert(Sorted(item).to_string()) {
            errors.push(Invalid::duplicate(at.item(index).path(), item));
        }
    }
}

fn no_keys_twice(items: &[Value], schema: &Schema, at: &At, errors: &mut Vec<Invalid>) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let keys: Map<String, Value> =
            schema.map_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
        let keys = Value::Object(keys);
        if !seen.insert(Sorted(&keys).to_string()) {
            errors.push(Invalid::duplicate(at.item(index).path(), &keys));
        }
    }
}

/// What `x-kubernetes-embedded-resource` asks: each such value is an object of the API.
pub fn embedded(value: &Value, schema: &Schema, at: &At, errors: &mut Vec<Invalid>) {
    if schema.embedded && value.is_object() {
        for field in ["apiVersion", "kind"] {
            if value[field].as_str().is_none_or(str::is_empty) {
                errors.push(Invalid::required(at.field(field).path(), "must not be empty"));
            }
        }
        if let Some(kind) = value["kind"].as_str().filter(|kind| !kind.is_empty()) {
            let lower = kind.to_lowercase();
            for why in crate::verbs::object_meta::name_errors(crate::kind::NameRule::Label1035, &lower) {
                let why = format!("may have mixed case, but should otherwise match: {why}");
                errors.push(Invalid::value(at.field("kind").path(), &Value::from(kind), &why));
            }
        }
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(of) = schema.field(name) {
                    embedded(value, of, &at.field(name), errors);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(of) = &schema.items {
                    embedded(item, of, &at.item(index), errors);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, value: Value) -> Vec<String> {
        let schema = Schema::parse(&schema);
        let mut errors = validate(&value, None, &schema, &At::Root);
        lists(&value, &schema, &At::Root, &mut errors);
        embedded(&value, &schema, &At::Root, &mut errors);
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn spec(property: Value, value: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": property}}}});
        check(schema, json!({"spec": {"x": value}}))
    }

    #[test]
    fn types() {
        assert_eq!(
            spec(json!({"type": "integer"}), json!("a")),
            ["spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\""]
        );
        assert_eq!(
            spec(json!({"type": "string"}), json!(null)),
            ["spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\""]
        );
        assert!(spec(json!({"type": "string", "nullable": true}), json!(null)).is_empty());
        assert!(spec(json!({"type": "integer"}), json!(1.0)).is_empty());
        assert!(spec(json!({"type": "number"}), json!(1)).is_empty());
        assert_eq!(spec(json!({"type": "integer"}), json!(1.5)).len(), 1);
        assert!(spec(json!({"x-kubernetes-int-or-string": true}), json!("1")).is_empty());
        assert_eq!(
            spec(json!({"x-kubernetes-int-or-string": true}), json!(true)),
            ["spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\""]
        );
    }

    #[test]
    fn limits() {
        assert_eq!(
            spec(json!({"type": "integer", "maximum": 10}), json!(11)),
            ["spec.x: Invalid value: 11: spec.x in body should be less than or equal to 10"]
        );
        assert_eq!(
            spec(json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true}), json!(0.5)),
            ["spec.x: Invalid value: 0.5: spec.x in body should be greater than 0.5"]
        );
        assert_eq!(
            spec(json!({"type": "string", "pattern": "^a$"}), json!("b")),
            ["spec.x: Invalid value: \"b\": spec.x in body should match '^a$'"]
        );
        assert_eq!(
            spec(json!({"type": "string", "maxLength": 1}), json!("bb")),
            ["spec.x: Too long: may not be more than 1 bytes"]
        );
        assert_eq!(
            spec(json!({"type": "array", "items": {"type": "string"}, "minItems": 2}), json!(["a"])),
            ["spec.x: Invalid value: 1: spec.x in body should have at least 2 items"]
        );
        assert_eq!(
            spec(json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}), json!(["a", 2])),
            [
                "spec.x[1]: Invalid value: \"integer\": spec.x[1] in body must be of type string: \"integer\"",
                "spec.x: Too many: 2: must have at most 1 items"
            ]
        );
        assert_eq!(
            spec(json!({"type": "string", "enum": ["a", "b"]}), json!("c")),
            ["spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\""]
        );
        assert_eq!(check(json!({"type": "object", "required": ["spec"]}), json!({})), ["spec: Required value"]);
        assert_eq!(
            spec(json!({"type": "string", "format": "date-time"}), json!("x")),
            ["spec.x: Invalid value: \"x\": spec.x in body must be of type date-time: \"x\""]
        );
        assert!(spec(json!({"type": "string", "format": "whatever"}), json!("x")).is_empty());
        assert_eq!(float(1e21), "1e+21");
        assert_eq!(float(100000.0), "100000");
    }

    #[test]
    fn alternatives() {
        let schema = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(spec(schema.clone(), json!({"a": 1})).is_empty());
        assert_eq!(
            spec(schema.clone(), json!({})),
            [
                "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid",
                "spec.x.a: Required value"
            ]
        );
        assert_eq!(
            spec(schema, json!({"a": 1, "b": 2})),
            ["<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"]
        );
        assert_eq!(
            spec(json!({"anyOf": [{"minimum": 3}, {"multipleOf": 2}]}), json!(1)),
            [
                "<nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)",
                "spec.x: Invalid value: 1: spec.x in body should be greater than or equal to 3"
            ]
        );
        assert_eq!(
            spec(json!({"not": {"enum": [1]}}), json!(1)),
            ["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"]
        );
    }

    #[test]
    fn lists_that_are_sets_or_maps() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        assert_eq!(spec(set, json!(["a", "b", "a"])), ["spec.x[2]: Duplicate value: \"a\""]);
        let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}}}});
        assert_eq!(spec(map, json!([{"k": "a"}, {"k": "b"}, {"k": "a"}])), ["spec.x[2]: Duplicate value: {\"k\":\"a\"}"]);
    }

    #[test]
    fn embedded_objects_have_a_kind() {
        let schema =
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
        assert!(spec(schema.clone(), json!({"apiVersion": "v1", "kind": "Pod"})).is_empty());
        assert_eq!(
            spec(schema, json!({})),
            ["spec.x.apiVersion: Required value: must not be empty", "spec.x.kind: Required value: must not be empty"]
        );
    }
}
