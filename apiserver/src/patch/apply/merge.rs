//! Merging a configuration into an object: what the configuration says holds, what it is silent about stays.

use super::element::Element;
use super::schema::{Fields, Form, Items, Schema};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// `config` was held to the schema before (see `check`), so that no list of it has two elements of one key.
pub fn merge(live: &Value, config: &Value, schema: Schema<'_>) -> Value {
    let pick = if config.is_null() { live } else { config };
    match (schema.form(pick), schema.form(live), live, config) {
        (Form::Map(fields), Form::Map(_), Value::Object(live), Value::Object(config)) => merge_maps(live, config, fields),
        (Form::List(items), Form::List(_), Value::Array(live), Value::Array(config)) => merge_lists(live, config, &items),
        // A map or list of which only one side has anything.
        (Form::Map(_), Form::Map(_), Value::Object(map), Value::Null) if !map.is_empty() => live.clone(),
        (Form::List(_), Form::List(_), Value::Array(list), Value::Null) if !list.is_empty() => live.clone(),
        _ => config.clone(),
    }
}

fn merge_maps(live: &Map<String, Value>, config: &Map<String, Value>, fields: Fields<'_>) -> Value {
    let mut merged = live.clone();
    for (name, value) in config {
        let schema = fields.of_stored(name).schema;
        match merged.get_mut(name) {
            Some(slot) => *slot = merge(slot, value, schema),
            None => _ = merged.insert(name.clone(), value.clone()),
        }
    }
    merged.into()
}

/// What both have stands in the configuration's order, what only the object has where it stood among them.
fn merge_lists(live: &[Value], config: &[Value], items: &Items<'_>) -> Value {
    let keyed = |list: &'_ [Value]| -> Vec<(Element, Value)> {
        list.iter().filter_map(|item| Some((items.element(item).ok()?, item.clone()))).collect()
    };
    let (live, config) = (keyed(live), keyed(config));
    let mut counts: BTreeMap<&Element, usize> = BTreeMap::new();
    live.iter().for_each(|(element, _)| *counts.entry(element).or_default() += 1);
    // Elements that nothing tells apart are not merged but replaced.
    let of_live: BTreeMap<&Element, &Value> =
        live.iter().filter(|(element, _)| counts.get(element) == Some(&1)).map(|(element, item)| (element, item)).collect();
    let of_config: BTreeSet<&Element> = config.iter().map(|(element, _)| element).collect();
    let mut shared: VecDeque<&Element> =
        config.iter().map(|(element, _)| element).filter(|element| counts.contains_key(element)).collect();
    let mut next_shared = shared.pop_front();
    let both = |element: &Element, item: &Value| match of_live.get(element) {
        Some(old) => merge(old, item, items.schema),
        None => item.clone(),
    };
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut left, mut right) = (live.iter().peekable(), config.iter().peekable());
    loop {
        let (next_left, next_right) = (left.peek().copied(), right.peek().copied());
        if let (Some((element, _)), Some((other, item))) = (next_left, next_right) {
            if element == other {
                merged.push(both(other, item));
                done.insert(other);
                left.next();
                right.next();
                next_shared = shared.pop_front();
                continue;
            }
            if of_config.contains(element) && next_shared.is_some_and(|next| next != element) {
                // In both, but its turn is another.
                left.next();
                continue;
            }
        }
        if let Some((element, item)) = next_left {
            if !of_config.contains(element) {
                merged.push(item.clone());
                left.next();
                continue;
            }
            if done.contains(element) {
                left.next();
            }
        }
        match next_right {
            Some((element, item)) => {
                merged.push(both(element, item));
                done.insert(element);
                right.next();
                if next_shared == Some(element) {
                    next_shared = shared.pop_front();
                }
            }
            None if left.peek().is_none() => return merged.into(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::structural::Structural;
    use super::*;
    use serde_json::json;

    fn set() -> Structural {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        Structural::of_custom_resource(&json!({"type": "object", "properties": {"l": set}}), false)
    }

    #[test]
    fn an_order_that_both_have_is_the_configurations() {
        let schema = set();
        let cases = [
            (json!(["a", "b", "c"]), json!(["c", "a"]), json!(["b", "c", "a"])),
            (json!(["a", "b"]), json!(["x"]), json!(["a", "b", "x"])),
            (json!(["a", "b"]), json!(["x", "a"]), json!(["x", "a", "b"])),
            (json!(["a", "b", "c"]), json!(["a", "x", "c"]), json!(["a", "b", "x", "c"])),
            (json!([]), json!(["a"]), json!(["a"])),
            (json!(["a"]), json!([]), json!(["a"])),
            (json!(["a", "a"]), json!(["a"]), json!(["a"])),
        ];
        for (live, config, expected) in cases {
            let merged = merge(&json!({"l": live}), &json!({"l": config}), schema.schema());
            assert_eq!(merged["l"], expected, "{live} {config}");
        }
    }

    #[test]
    fn what_is_not_said_stays_and_what_is_empty_on_both_sides_is_as_it_was_said() {
        let schema = set();
        let merged = |live: Value, config: Value| merge(&live, &config, schema.schema());
        assert_eq!(
            merged(json!({"l": ["a"], "metadata": {"labels": {"a": "1"}}}), json!({"metadata": {"labels": {"b": "2"}}})),
            json!({"l": ["a"], "metadata": {"labels": {"a": "1", "b": "2"}}})
        );
        assert_eq!(merged(json!({"l": []}), json!({"l": null})), json!({"l": null}));
        assert_eq!(merged(json!({"l": ["a"]}), json!({"l": null})), json!({"l": ["a"]}));
        assert_eq!(merged(json!({}), json!({"l": []})), json!({"l": []}));
    }
}
