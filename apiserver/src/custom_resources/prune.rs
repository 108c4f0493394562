//! What of an object its schema knows: the rest is dropped, and named to who sent it.

use crate::custom_resources::schema::{At, Schema};
use serde_json::{Map, Value};

/// More names than these help nobody.
const UNKNOWN_MAX: usize = 1_000;
/// What every object has, whatever its schema says.
const OWN: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema does not know, and answers with the paths of it, in order.
pub fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = vec![];
    walk(object, schema, true, &At::Root, &mut unknown);
    unknown.sort();
    unknown
}

fn walk(value: &mut Value, schema: &Schema, is_object: bool, at: &At, unknown: &mut Vec<String>) {
    let is_object = is_object || schema.embedded;
    match value {
        Value::Object(map) => fields(map, schema, is_object, at, unknown),
        Value::Array(items) => match &schema.items {
            Some(of) => {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(item, of, false, &at.item(index), unknown);
                }
            }
            None if schema.preserve_unknown => {}
            // Whatever stands in objects of such a list is unknown.
            None => {
                let nothing = Schema::default();
                for (index, item) in items.iter_mut().enumerate() {
                    walk(item, &nothing, false, &at.item(index), unknown);
                }
            }
        },
        _ => {}
    }
}

fn fields(map: &mut Map<String, Value>, schema: &Schema, is_object: bool, at: &At, unknown: &mut Vec<String>) {
    map.retain(|name, value| {
        if is_object && OWN.contains(&name.as_str()) {
            return true;
        }
        match schema.field(name) {
            Some(of) => walk(value, of, false, &at.field(name), unknown),
            None if schema.preserve_unknown || matches!(schema.additional, super::schema::Additional::Allowed(true)) => {}
            None => {
                if unknown.len() < UNKNOWN_MAX {
                    unknown.push(at.field(name).to_string());
                }
                return false;
            }
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, object: Value) -> (Value, Vec<String>) {
        let mut object = object;
        let unknown = prune(&mut object, &Schema::parse(&schema));
        let mut again = object.clone();
        assert!(prune(&mut again, &Schema::parse(&schema)).is_empty());
        assert_eq!(object, again, "what is pruned stays as it is");
        (object, unknown)
    }

    #[test]
    fn what_the_schema_does_not_know_is_dropped_and_named() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
        }}}});
        let object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}, "top": 1, "spec": {
            "a": "1", "z": 1, "list": [{"b": "1"}, {"y": 1}], "map": {"k": {"c": "", "x": 1}}}});
        let (object, unknown) = check(schema, object);
        assert_eq!(unknown, ["spec.list[1].y", "spec.map.k.x", "spec.z", "top"]);
        assert_eq!(
            object,
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"},
                "spec": {"a": "1", "list": [{"b": "1"}, {}], "map": {"k": {"c": ""}}}})
        );
    }

    #[test]
    fn what_is_preserved_is_pruned_only_where_it_is_known() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "known": {"type": "object", "properties": {}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
        }});
        let embedded = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}});
        let (object, unknown) = check(schema, json!({"free": {"a": [{"b": 1}]}, "known": {"x": 1}, "embedded": embedded}));
        assert_eq!(unknown, ["embedded.spec", "known.x"]);
        assert_eq!(
            object,
            json!({"free": {"a": [{"b": 1}]}, "known": {}, "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}})
        );
    }
}
