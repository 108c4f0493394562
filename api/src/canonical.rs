//! JSON in one order, whatever it was built from.
//!
//! `serde_json` keeps a map's fields sorted, unless any crate of the build turns on its feature `preserve_order`: then they
//! stand as they were inserted. What is hashed, stored or shown to a person must not depend on that.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::LazyLock;

/// Whether maps keep the order of insertion in this build.
static MAPS_ARE_ORDERED_BY_INSERTION: LazyLock<bool> = LazyLock::new(|| {
    let map: Map<String, Value> = [("b".to_owned(), Value::Null), ("a".to_owned(), Value::Null)].into_iter().collect();
    map.keys().next().is_some_and(|first| first == "b")
});

/// Writes a value with the fields of its objects sorted.
#[derive(Debug, Clone, Copy)]
pub struct Sorted<'a>(pub &'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if !*MAPS_ARE_ORDERED_BY_INSERTION => value.serialize(serializer),
            Value::Object(map) => serializer.collect_map(in_order(map).into_iter().map(|(name, value)| (name, Sorted(value)))),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            scalar => scalar.serialize(serializer),
        }
    }
}

impl fmt::Display for Sorted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The fields of an object by name.
pub fn in_order<'a>(fields: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Vec<(&'a String, &'a Value)> {
    let mut fields: Vec<_> = fields.into_iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

/// Sorts the fields of all objects in the value, so that whoever walks it finds them in order.
pub fn sort(value: &mut Value) {
    if *MAPS_ARE_ORDERED_BY_INSERTION {
        sort_within(value);
    }
}

fn sort_within(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
            fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            fields.iter_mut().for_each(|(_, value)| sort_within(value));
            map.extend(fields);
        }
        Value::Array(items) => items.iter_mut().for_each(sort_within),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = r#"{"a":[{"x":1,"y":2}],"b":{"c":null,"d":"e"}}"#;

    #[test]
    fn fields_are_written_in_order_at_every_depth() {
        let value = json!({"b": {"d": "e", "c": null}, "a": [{"y": 2, "x": 1}]});
        assert_eq!(Sorted(&value).to_string(), TEXT);
        assert_eq!(serde_json::to_vec(&Sorted(&value)).unwrap(), TEXT.as_bytes());
    }

    #[test]
    fn a_sorted_value_is_the_same_value() {
        let value = json!({"b": {"d": "e", "c": null}, "a": [{"y": 2, "x": 1}]});
        let mut sorted = value.clone();
        sort_within(&mut sorted);
        assert_eq!(sorted, value);
        assert_eq!(sorted.to_string(), TEXT);
    }

    #[test]
    fn insertion_does_not_matter() {
        let (one, two, nothing) = ("one".to_owned(), "two".to_owned(), Value::Null);
        let names = |fields: Vec<(&String, &Value)>| fields.into_iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(in_order([(&two, &nothing), (&one, &nothing)])), ["one", "two"]);
    }
}
