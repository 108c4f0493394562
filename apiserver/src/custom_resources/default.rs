//! Defaults of a schema, and what becomes of nulls.

use crate::custom_resources::schema::Schema;
use serde_json::Value;

/// Fills in the defaults. A null where none may be counts as left out: there the default comes, and where there is none, the
/// field goes.
pub fn fill(object: &mut Value, schema: &Schema) {
    match object {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                if map.get(name).is_none_or(|value| value.is_null() && !property.nullable) {
                    map.insert(name.clone(), default.clone());
                }
            }
            map.retain(|name, value| {
                let Some(of) = schema.field(name) else { return true };
                if value.is_null() && !of.nullable {
                    match &of.default {
                        Some(default) => *value = default.clone(),
                        None => return false,
                    }
                }
                fill(value, of);
                true
            });
        }
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            for item in items {
                if let (Value::Null, false, Some(default)) = (&*item, of.nullable, &of.default) {
                    *item = default.clone();
                }
                fill(item, of);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_filled_in_and_nulls_dropped() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"},
            "deep": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 1}}},
            "shallow": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
            "nullable": {"type": "string", "nullable": true, "default": "y"},
            "plain": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 2}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"d": {"type": "integer", "default": 3}}}},
        }}));
        let mut object = json!({"a": null, "nullable": null, "plain": null, "list": [{}, {"c": 7}], "map": {"k": {}}});
        fill(&mut object, &schema);
        let expected =
            json!({"a": "x", "deep": {"b": 1}, "nullable": null, "list": [{"c": 2}, {"c": 7}], "map": {"k": {"d": 3}}});
        assert_eq!(object, expected);
        fill(&mut object, &schema);
        assert_eq!(object, expected);
    }
}
