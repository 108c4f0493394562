//! Holding an applied configuration to its schema, worded as structured-merge-diff words it.

use super::element::Element;
use super::schema::{Fields, Items, Schema};
use super::structural::Scalar;
use crate::openapi::go_type_of;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Enough to see what is wrong.
const FINDINGS_MAX: usize = 50;

/// What of `config` doesn't fit: `.spec.foo: field not declared in schema`. Empty if all does.
pub fn check(config: &Value, schema: Schema<'_>) -> Vec<String> {
    let mut check = Check { path: String::new(), findings: vec![] };
    check.value(config, schema);
    check.findings
}

/// The findings in one message.
pub fn message(findings: &[String]) -> String {
    match findings {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    }
}

struct Check {
    path: String,
    findings: Vec<String>,
}

impl Check {
    fn find(&mut self, why: &str) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(if self.path.is_empty() { why.to_owned() } else { format!("{}: {why}", self.path) });
        }
    }

    fn within(&mut self, element: &Element, inner: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        self.path.push_str(&element.to_string());
        inner(self);
        self.path.truncate(before);
    }

    fn value(&mut self, value: &Value, schema: Schema<'_>) {
        let allowed = schema.allowed();
        match value {
            Value::Null => {}
            Value::Object(map) if allowed.map.is_some() => {
                if let Some(fields) = allowed.map {
                    self.map(map, fields);
                }
            }
            Value::Array(list) if allowed.list.is_some() => {
                if let Some((items, keyed)) = allowed.list {
                    self.list(list, items, keyed.as_ref());
                }
            }
            _ if allowed.map.is_some() && allowed.scalar.is_none() => {
                self.find(&format!("expected map, got &{{{}}}", in_go(value)))
            }
            _ => match allowed.scalar {
                Some(scalar) => self.scalar(value, scalar),
                None => self.find(&format!("expected list, got &{{{}}}", in_go(value))),
            },
        }
    }

    fn map(&mut self, map: &Map<String, Value>, fields: Fields<'_>) {
        for (name, value) in map {
            self.within(&Element::field(name), |check| match fields.get(name) {
                Some(field) => check.value(value, field.schema),
                None => check.find("field not declared in schema"),
            });
        }
    }

    fn list(&mut self, list: &[Value], schema: Schema<'_>, keyed: Option<&Items<'_>>) {
        let mut seen = BTreeSet::new();
        for (at, item) in list.iter().enumerate() {
            let element = match keyed {
                None => Element::Index(at as i64),
                Some(items) => match items.element(item) {
                    Ok(element) => element,
                    Err(why) => return self.find(&format!("element {at}: {why}")),
                },
            };
            if seen.contains(&element) {
                self.find(&format!("duplicate entries for key {element}"));
            }
            self.within(&element, |check| check.value(item, schema));
            seen.insert(element);
        }
    }

    fn scalar(&mut self, value: &Value, scalar: Scalar) {
        match (scalar, value) {
            (Scalar::Text, Value::String(_)) | (Scalar::Number, Value::Number(_)) | (Scalar::Bool, Value::Bool(_)) => {}
            (Scalar::Untyped, Value::String(_) | Value::Number(_) | Value::Bool(_)) => {}
            (Scalar::Number, _) => self.find(&format!("expected numeric (int or float), got {}", go_type_of(value))),
            (Scalar::Text, _) => {
                let shown = if value.is_string() { value.to_string() } else { in_go(value) };
                self.find(&format!("expected string, got &value.valueUnstructured{{Value:{shown}}}"));
            }
            (Scalar::Bool, _) => self.find(&format!("expected boolean, got &{{{}}}", in_go(value))),
            (Scalar::Untyped, _) => self.find(&format!("expected any scalar, got &{{{}}}", in_go(value))),
        }
    }
}

/// As Go prints a value with `%v`.
pub fn in_go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(in_go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries =
                slipway_api::canonical::in_order(map).into_iter().map(|(name, value)| format!("{name}:{}", in_go(value)));
            format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
        }
        plain => plain.to_string(),
    }
}
