//! The rules of a schema, looked at with their definition: whether they are right, and what they may cost at most.

use crate::cel::cost::{Shape, worst};
use crate::cel::{Program, Type};
use crate::custom_resources::rules::{one, type_of};
use crate::http::error::Invalid;
use serde_json::Value;

/// As in Kubernetes: of one expression, as often as it may be evaluated for one object.
const EXPRESSION_COST_MAX: u64 = 10_000_000;
/// Of all expressions of a schema.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// How many of the dearest are told of.
const DEAREST_MAX: usize = 4;
/// A factor above this says no more than that it is far too much.
const FACTOR_SHOWN_MAX: f64 = 100.0;

/// Where a node stands in its schema.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: bool,
    /// How often it may occur in an object; `None`: nothing bounds it.
    times: Option<u64>,
    /// The list of which no item can be told from what it was, if it stands in one.
    unmatched: Option<&'a str>,
}

#[derive(Default)]
struct Costs {
    total: u64,
    /// The dearest, and where they stand.
    dearest: Vec<(u64, String)>,
}

/// What is wrong with the rules of a schema.
pub fn validate(source: &Value, at: &str, errors: &mut Vec<Invalid>) {
    let mut costs = Costs::default();
    node(source, at, Place { root: true, times: Some(1), unmatched: None }, &mut costs, errors);
    if costs.total <= SCHEMA_COST_MAX {
        return;
    }
    for (_, field) in &costs.dearest {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.push(Invalid::forbidden(field.as_str(), why));
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.push(Invalid::forbidden(at, &too_much(what, costs.total, SCHEMA_COST_MAX)));
}

fn node(source: &Value, at: &str, place: Place<'_>, costs: &mut Costs, errors: &mut Vec<Invalid>) {
    let rules = source["x-kubernetes-validations"].as_array().map_or(&[][..], Vec::as_slice);
    if !rules.is_empty() {
        let kind = type_of(source, place.root).unwrap_or(Type::Dyn);
        let shape = Shape::of_schema(source, place.root).unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            let at = format!("{at}.x-kubernetes-validations[{index}]");
            let compiled = one(rule, source, &kind, &at, errors);
            let mut cost = |program: &Program, field: String, what: &str| {
                let times = place.times.unwrap_or_else(|| shape.cardinality_max());
                let cost = worst(program, &shape).saturating_mul(times);
                if cost > EXPRESSION_COST_MAX {
                    errors.push(Invalid::forbidden(field.as_str(), &too_much(what, cost, EXPRESSION_COST_MAX)));
                }
                costs.note(cost, field);
            };
            if let Some(program) = &compiled.rule {
                cost(program, format!("{at}.rule"), "estimated rule cost");
            }
            if let Some(program) = &compiled.message {
                cost(program, format!("{at}.messageExpression"), "estimated messageExpression cost");
            }
            if let (Some(list), Some(true)) = (place.unmatched, compiled.rule.map(|program| program.refers_to("oldSelf"))) {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                errors.push(Invalid::value(format!("{at}.rule"), &rule["rule"], &why));
            }
        }
    }
    for (name, property) in source["properties"].as_object().into_iter().flatten() {
        node(property, &format!("{at}.properties[{name}]"), Place { root: false, ..place }, costs, errors);
    }
    let times =
        |limit: &str| place.times.zip(source[limit].as_i64()).map(|(times, max)| times.saturating_mul(max.max(0).unsigned_abs()));
    if source["additionalProperties"].is_object() {
        let below = Place { root: false, times: times("maxProperties"), ..place };
        node(&source["additionalProperties"], &format!("{at}.additionalProperties"), below, costs, errors);
    }
    if source["items"].is_object() {
        let matched = source["x-kubernetes-list-type"] == "map";
        let unmatched = place.unmatched.or(Some(at).filter(|_| !matched));
        let below = Place { root: false, times: times("maxItems"), unmatched };
        node(&source["items"], &format!("{at}.items"), below, costs, errors);
    }
}

impl Costs {
    fn note(&mut self, cost: u64, field: String) {
        self.total = self.total.saturating_add(cost);
        let place = self.dearest.iter().position(|(other, _)| *other < cost).unwrap_or(self.dearest.len());
        self.dearest.insert(place, (cost, field));
        self.dearest.truncate(DEAREST_MAX);
    }
}

fn too_much(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > FACTOR_SHOWN_MAX {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength \
         where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value) -> Vec<String> {
        let mut errors = vec![];
        validate(&schema, "S", &mut errors);
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn list(rule: &str, list_type: &str, limits: Value) -> Value {
        let mut list = json!({"type": "array", "x-kubernetes-list-type": list_type, "items": {"type": "object",
            "properties": {"k": {"type": "string", "maxLength": 10}}, "x-kubernetes-validations": [{"rule": rule}]}});
        limits.as_object().unwrap().iter().for_each(|(name, value)| list[name] = value.clone());
        json!({"type": "object", "properties": {"list": list}})
    }

    #[test]
    fn a_rule_counts_as_often_as_it_may_be_evaluated() {
        let rule = "self.k.contains('a') && self.k.contains('b') && self.k.contains('c') && self.k.contains('d')";
        assert!(check(list(rule, "atomic", json!({"maxItems": 100}))).is_empty());
        let unbounded = check(list(rule, "atomic", json!({})));
        assert_eq!(unbounded.len(), 1, "{unbounded:?}");
        assert!(unbounded[0].starts_with(
            "S.properties[list].items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of 2.5x (try"
        ), "{unbounded:?}");
    }

    #[test]
    fn all_rules_of_a_schema_count_together() {
        let rules: Vec<Value> = (0..50).map(|n| json!({"rule": format!("self.k.contains('{n}')")})).collect();
        let mut schema = list("true", "atomic", json!({"maxItems": 400_000}));
        schema["properties"]["list"]["items"]["x-kubernetes-validations"] = rules.into();
        let errors = check(schema);
        assert_eq!(errors.len(), DEAREST_MAX + 1, "{errors:?}");
        assert!(errors[0].contains("contributed to estimated rule cost total"));
        assert!(errors[DEAREST_MAX].starts_with("S: Forbidden: x-kubernetes-validations estimated rule cost total"));
    }

    #[test]
    fn items_are_held_against_what_they_were_only_where_they_can_be_found() {
        let limits = json!({"maxItems": 5, "x-kubernetes-list-map-keys": ["k"]});
        assert!(check(list("self.k == oldSelf.k", "map", limits.clone())).is_empty());
        let errors = check(list("self.k == oldSelf.k", "set", limits));
        assert!(errors[0].ends_with(
            "Invalid value: \"self.k == oldSelf.k\": oldSelf cannot be used on the uncorrelatable portion of the schema within S.properties[list]"
        ), "{errors:?}");
    }
}
