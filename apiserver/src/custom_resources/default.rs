//! Defaults of a schema, and what becomes of nulls.

use crate::custom_resources::schema::Schema;
use serde_json::Value;

/// Values that defaults may add to one object. It takes little to send an empty object, and much to fill it in; what has more
/// than this is too large to be stored.
const FILLED_MAX: usize = slipway_store::VALUE_BYTES_MAX;

/// Fills in the defaults. A null where none may be counts as left out: there the default comes, and where there is none, the
/// field goes.
pub fn fill(object: &mut Value, schema: &Schema) {
    let mut left = FILLED_MAX;
    walk(object, schema, &mut left);
}

fn walk(object: &mut Value, schema: &Schema, left: &mut usize) {
    match object {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                if map.get(name).is_none_or(|value| value.is_null() && !property.nullable)
                    && let Some(default) = take(default, left)
                {
                    map.insert(name.clone(), default);
                }
            }
            map.retain(|name, value| {
                let Some(of) = schema.field(name) else { return true };
                if value.is_null() && !of.nullable {
                    match of.default.as_ref().and_then(|default| take(default, left)) {
                        Some(default) => *value = default,
                        None => return false,
                    }
                }
                walk(value, of, left);
                true
            });
        }
        Value::Array(items) => {
            let Some(of) = &schema.items else { return };
            for item in items {
                if let (Value::Null, false, Some(default)) = (&*item, of.nullable, &of.default)
                    && let Some(default) = take(default, left)
                {
                    *item = default;
                }
                walk(item, of, left);
            }
        }
        _ => {}
    }
}

/// One more of a default, unless there are too many already.
fn take(default: &Value, left: &mut usize) -> Option<Value> {
    fn values(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(values).sum::<usize>(),
            Value::Object(map) => 1 + map.values().map(values).sum::<usize>(),
            // Two bytes at least, and then a long text counts for as much as many short ones.
            Value::String(text) => 1 + text.len(),
            _ => 1,
        }
    }
    *left = left.checked_sub(values(default)).unwrap_or_default();
    (*left > 0).then(|| default.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_do_not_add_up_without_end() {
        let schema = Schema::parse(&json!({"type": "array", "items": {"type": "object", "properties": {
            "a": {"type": "string", "default": "x".repeat(1000)},
        }}}));
        let mut list = Value::from(vec![json!({}); 100_000]);
        fill(&mut list, &schema);
        let length = list.to_string().len();
        assert!((slipway_store::VALUE_BYTES_MAX..4 * slipway_store::VALUE_BYTES_MAX).contains(&length), "{length}");
    }

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
