//! Structural schemas: every field has one type, what is asked of values is apart from what they are, and nothing refers.

use crate::custom_resources::schema::{At, Pattern, Schema, pattern_share};
use crate::custom_resources::{default_is_pruned, rule_errors, validate_default};
use crate::http::error::Invalid;
use serde_json::{Value, json};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Objects deeper than this cannot be sent, so that no schema needs more.
const DEPTH_MAX: usize = 90;

/// What says what a value is, and so may not stand in what is only asked of it.
const STRUCTURE: [&str; 11] = [
    "description",
    "default",
    "additionalProperties",
    "type",
    "title",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// How deep a node is, and what a pattern of its schema may take.
#[derive(Clone, Copy)]
struct Within {
    depth: usize,
    share: usize,
}

impl Within {
    fn deeper(self) -> Self {
        Within { depth: self.depth + 1, ..self }
    }
}

pub fn validate(source: &Value, at: &str, errors: &mut Vec<Invalid>) {
    let before = errors.len();
    if source["nullable"] == true {
        errors.push(Invalid::forbidden(format!("{at}.nullable"), "nullable cannot be true at the root"));
    }
    node(source, at, Place::Root, Within { depth: 0, share: pattern_share(source) }, errors);
    if errors.len() == before {
        completeness(source, source, at, errors);
    }
    if errors.len() == before {
        defaults(source, at, true, errors);
        rule_errors(source, at, errors);
    }
}

fn node(source: &Value, at: &str, place: Place, within: Within, errors: &mut Vec<Invalid>) {
    if within.depth > DEPTH_MAX {
        errors.push(Invalid::forbidden(at, "the schema is too deep"));
        return;
    }
    unsupported(source, at, within, errors);
    let flag = |field: &str| source[field] == true;
    let kind = source["type"].as_str().unwrap_or_default();
    let (free, either) = (flag("x-kubernetes-preserve-unknown-fields"), flag("x-kubernetes-int-or-string"));
    match (kind, place) {
        ("", Place::Root) => errors.push(Invalid::required(format!("{at}.type"), "must not be empty at the root")),
        ("", _) if !free && !either => {
            let what = if place == Place::Item { "array items" } else { "object fields" };
            errors.push(Invalid::required(format!("{at}.type"), &format!("must not be empty for specified {what}")));
        }
        ("", _) => {}
        (kind, _) if !TYPES.contains(&kind) => {
            errors.push(Invalid::not_supported(format!("{at}.type"), &json!(kind), &TYPES));
        }
        (kind, Place::Root) if kind != "object" => {
            errors.push(Invalid::value(format!("{at}.type"), &json!(kind), "must be object at the root"));
        }
        (kind, _) if either && !kind.is_empty() => {
            let why = "must be empty if x-kubernetes-int-or-string is true";
            errors.push(Invalid::forbidden(format!("{at}.type"), why));
        }
        _ => {}
    }
    if kind == "array" && !source["items"].is_object() {
        errors.push(Invalid::required(format!("{at}.items"), "must be specified"));
    }
    extensions(source, kind, at, errors);
    if place == Place::Root || flag("x-kubernetes-embedded-resource") {
        metadata(source, at, errors);
    }
    let has = |field: &str| source[field].as_object().is_some_and(|map| !map.is_empty());
    match &source["additionalProperties"] {
        Value::Bool(false) => {
            errors.push(Invalid::forbidden(format!("{at}.additionalProperties"), "additionalProperties cannot be set to false"));
        }
        Value::Null => {}
        values => {
            if has("properties") {
                let why = "additionalProperties and properties are mutual exclusive";
                errors.push(Invalid::forbidden(format!("{at}.additionalProperties"), why));
            }
            if place == Place::Root {
                errors.push(Invalid::forbidden(format!("{at}.additionalProperties"), "must not be used at the root"));
            }
            if values.is_object() {
                node(values, &format!("{at}.additionalProperties"), Place::Field, within.deeper(), errors);
            }
        }
    }
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        node(property, &format!("{at}.properties[{name}]"), Place::Field, within.deeper(), errors);
    }
    match &source["items"] {
        Value::Array(_) => {
            errors.push(Invalid::forbidden(format!("{at}.items"), "items must be a schema object and not an array"))
        }
        items if items.is_object() => node(items, &format!("{at}.items"), Place::Item, within.deeper(), errors),
        _ => {}
    }
    junctors(source, at, within, errors);
}

fn junctors(source: &Value, at: &str, within: Within, errors: &mut Vec<Invalid>) {
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, one) in source[field].as_array().into_iter().flatten().enumerate() {
            asked(one, source, &format!("{at}.{field}[{index}]"), within.deeper(), errors);
        }
    }
    if source["not"].is_object() {
        asked(&source["not"], source, &format!("{at}.not"), within.deeper(), errors);
    }
}

/// Within alternatives nothing may say what a value is.
fn asked(source: &Value, outer: &Value, at: &str, within: Within, errors: &mut Vec<Invalid>) {
    if within.depth > DEPTH_MAX {
        errors.push(Invalid::forbidden(at, "the schema is too deep"));
        return;
    }
    unsupported(source, at, within, errors);
    // The two ways of saying that a value is a number or a text.
    let either = outer["x-kubernetes-int-or-string"] == true;
    for field in STRUCTURE {
        let set = match &source[field] {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            _ => true,
        };
        if set && !(field == "type" && either) {
            errors.push(Invalid::forbidden(format!("{at}.{field}"), "must be empty to be structural"));
        }
    }
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        asked(property, &Value::Null, &format!("{at}.properties[{name}]"), within.deeper(), errors);
    }
    if source["items"].is_object() {
        asked(&source["items"], &Value::Null, &format!("{at}.items"), within.deeper(), errors);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, one) in source[field].as_array().into_iter().flatten().enumerate() {
            asked(one, outer, &format!("{at}.{field}[{index}]"), within.deeper(), errors);
        }
    }
    if source["not"].is_object() {
        asked(&source["not"], outer, &format!("{at}.not"), within.deeper(), errors);
    }
}

/// Fields of JSON schema that custom kinds don't have.
fn unsupported(source: &Value, at: &str, within: Within, errors: &mut Vec<Invalid>) {
    for field in ["$ref", "id", "definitions", "dependencies", "patternProperties", "additionalItems"] {
        let set = match &source[field] {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if set {
            errors.push(Invalid::forbidden(format!("{at}.{field}"), &format!("{field} is not supported")));
        }
    }
    if source["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Invalid::forbidden(format!("{at}.uniqueItems"), why));
    }
    if let Some(pattern) = source["pattern"].as_str().filter(|pattern| !pattern.is_empty())
        && let Err(why) = Pattern::new(pattern, within.share).regex
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Invalid::value(format!("{at}.pattern"), &json!(pattern), &why));
    }
}

fn extensions(source: &Value, kind: &str, at: &str, errors: &mut Vec<Invalid>) {
    let flag = |field: &str| source[field] == true;
    if flag("x-kubernetes-embedded-resource") {
        if kind != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            errors.push(Invalid::value(format!("{at}.type"), &json!(kind), why));
        }
        let has = source["properties"].as_object().is_some_and(|map| !map.is_empty());
        if !has && !flag("x-kubernetes-preserve-unknown-fields") {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(Invalid::required(format!("{at}.properties"), why));
        }
    }
    if source["x-kubernetes-preserve-unknown-fields"] == false {
        let why = "must be true or undefined";
        errors.push(Invalid::value(format!("{at}.x-kubernetes-preserve-unknown-fields"), &json!(false), why));
    }
    let keys = source["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    let list_type = source["x-kubernetes-list-type"].as_str();
    if let Some(list_type) = list_type {
        let field = format!("{at}.x-kubernetes-list-type");
        if !["atomic", "map", "set"].contains(&list_type) {
            errors.push(Invalid::not_supported(field, &json!(list_type), &["atomic", "map", "set"]));
        } else if kind != "array" {
            errors.push(Invalid::value(
                format!("{at}.type"),
                &json!(kind),
                "must be array if x-kubernetes-list-type is specified",
            ));
        }
    }
    if list_type == Some("map") {
        map_keys(source, keys, at, errors);
    } else if !keys.is_empty() {
        let why = "must be empty if x-kubernetes-list-type is not map";
        errors.push(Invalid::forbidden(format!("{at}.x-kubernetes-list-map-keys"), why));
    }
    if let Some(map_type) = source["x-kubernetes-map-type"].as_str() {
        let field = format!("{at}.x-kubernetes-map-type");
        if !["atomic", "granular"].contains(&map_type) {
            errors.push(Invalid::not_supported(field, &json!(map_type), &["atomic", "granular"]));
        } else if kind != "object" {
            errors.push(Invalid::value(
                format!("{at}.type"),
                &json!(kind),
                "must be object if x-kubernetes-map-type is specified",
            ));
        }
    }
    if list_type == Some("set") && source["items"]["nullable"] == true {
        let why = "cannot be nullable when x-kubernetes-list-type is set";
        errors.push(Invalid::forbidden(format!("{at}.items.nullable"), why));
    }
}

fn map_keys(source: &Value, keys: &[Value], at: &str, errors: &mut Vec<Invalid>) {
    let field = format!("{at}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(Invalid::required(field, "must not be empty if x-kubernetes-list-type is map"));
        return;
    }
    let items = &source["items"];
    if items.is_object() && items["type"] != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Invalid::value(format!("{at}.items.type"), &items["type"], why));
    }
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let Some(property) = items["properties"].get(key) else {
            let why = "entries must all be names of item properties";
            errors.push(Invalid::value(format!("{field}[{index}]"), &json!(key), why));
            continue;
        };
        if matches!(property["type"].as_str(), Some("array" | "object")) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(Invalid::value(format!("{at}.items.properties[{key}].type"), &property["type"], why));
        }
        let required = items["required"].as_array().is_some_and(|required| required.iter().any(|one| one == key));
        if !required && property.get("default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Invalid::required(format!("{at}.items.properties[{key}].default"), why));
        }
    }
    let unique: std::collections::BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    if unique.len() != keys.len() {
        errors.push(Invalid::value(field, &source["x-kubernetes-list-map-keys"], "must not contain duplicate entries"));
    }
}

/// Of an object's metadata a schema may ask only something of the names.
fn metadata(source: &Value, at: &str, errors: &mut Vec<Invalid>) {
    let properties = &source["properties"];
    for field in ["apiVersion", "kind"] {
        if properties.get(field).is_some_and(|property| property["type"] != "string") {
            let why = "must be string";
            errors.push(Invalid::value(format!("{at}.properties[{field}].type"), &properties[field]["type"], why));
        }
    }
    let Some(metadata) = properties.get("metadata") else { return };
    let at = format!("{at}.properties[metadata]");
    if metadata["type"] != "object" {
        errors.push(Invalid::value(format!("{at}.type"), &metadata["type"], "must be object"));
    }
    let names_only =
        |map: &Value| map.as_object().is_none_or(|map| map.keys().all(|name| ["name", "generateName"].contains(&name.as_str())));
    let fields = ["type", "properties", "description", "title"];
    let plain = metadata.as_object().is_none_or(|map| map.keys().all(|field| fields.contains(&field.as_str())));
    if !plain || !names_only(&metadata["properties"]) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(Invalid::forbidden(at, why));
    }
}

/// Whatever alternatives ask of must be a field of the schema itself.
fn completeness(source: &Value, structure: &Value, at: &str, errors: &mut Vec<Invalid>) {
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        completeness(property, &structure["properties"][name], &format!("{at}.properties[{name}]"), errors);
    }
    for field in ["items", "additionalProperties"] {
        if source[field].is_object() {
            completeness(&source[field], &structure[field], &format!("{at}.{field}"), errors);
        }
    }
    for (field, index, one) in alternatives(source) {
        let inner = match index {
            Some(index) => format!("{at}.{field}[{index}]"),
            None => format!("{at}.{field}"),
        };
        defined(one, source, &inner, at, errors);
    }
}

fn alternatives(source: &Value) -> Vec<(&'static str, Option<usize>, &Value)> {
    let mut all = vec![];
    for field in ["allOf", "anyOf", "oneOf"] {
        all.extend(source[field].as_array().into_iter().flatten().enumerate().map(|(index, one)| (field, Some(index), one)));
    }
    if source["not"].is_object() {
        all.push(("not", None, &source["not"]));
    }
    all
}

fn defined(asked: &Value, structure: &Value, at: &str, outer: &str, errors: &mut Vec<Invalid>) {
    for (name, property) in asked["properties"].as_object().into_iter().flatten() {
        let (at, outer) = (format!("{at}.properties[{name}]"), format!("{outer}.properties[{name}]"));
        let known =
            structure["properties"].get(name).or_else(|| structure.get("additionalProperties").filter(|one| one.is_object()));
        match known {
            Some(known) => defined(property, known, &at, &outer, errors),
            None => errors.push(Invalid::required(outer, &format!("because it is defined in {at}"))),
        }
    }
    if asked["items"].is_object() {
        let (at, outer) = (format!("{at}.items"), format!("{outer}.items"));
        if structure["items"].is_object() {
            defined(&asked["items"], &structure["items"], &at, &outer, errors);
        } else {
            errors.push(Invalid::required(outer, &format!("because it is defined in {at}")));
        }
    }
    for (field, index, one) in alternatives(asked) {
        let inner = index.map_or_else(|| format!("{at}.{field}"), |index| format!("{at}.{field}[{index}]"));
        defined(one, structure, &inner, outer, errors);
    }
}

/// A default is of its field's schema.
fn defaults(source: &Value, at: &str, root: bool, errors: &mut Vec<Invalid>) {
    if let Some(default) = source.get("default").filter(|default| !default.is_null()) {
        let schema = Schema::parse(source);
        let field = format!("{at}.default");
        if root {
            errors.push(Invalid::forbidden(field, "must not be set at the root"));
        } else if !default_is_pruned(default, &schema) {
            errors.push(Invalid::value(field, default, "must not have unknown fields"));
        } else {
            errors.extend(validate_default(default, &schema, &At::Root.field(&field)));
        }
    }
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        defaults(property, &format!("{at}.properties[{name}]"), false, errors);
    }
    for field in ["items", "additionalProperties"] {
        if source[field].is_object() {
            defaults(&source[field], &format!("{at}.{field}"), false, errors);
        }
    }
}
