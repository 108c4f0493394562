//! `fieldsV1`: a set of places, as it stands in `metadata.managedFields`.

use super::element::{Element, Error};
use super::set::Set;
use serde_json::{Map, Value};

const ITSELF: &str = ".";

/// Reads `{"f:spec":{".":{},"f:replicas":{}}}`. What is of a kind that this version doesn't know is left out.
pub fn read(fields: &Value) -> Result<Set, String> {
    let mut set = Set::default();
    let map = match fields {
        Value::Object(map) => map,
        Value::Null => return Ok(set),
        _ => return Err(format!("expected a map of fields, got {fields}")),
    };
    for (text, value) in map {
        if text == ITSELF {
            continue;
        }
        let element = match Element::parse(text) {
            Ok(element) => element,
            Err(Error::Unknown) => continue,
            Err(error) => return Err(error.to_string()),
        };
        let below = read(value)?;
        let member = below.is_empty() || value.get(ITSELF).is_some();
        set.push(element, member, below);
    }
    set.sort();
    Ok(set)
}

pub fn write(set: &Set) -> Value {
    let mut map = Map::new();
    for node in set.nodes() {
        let mut below = write(&node.below);
        if node.member
            && let Some(below) = below.as_object_mut().filter(|below| !below.is_empty())
        {
            below.insert(ITSELF.to_owned(), Value::Object(Map::new()));
        }
        map.insert(node.element.write(), below);
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_what_was_read() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}}}}},
        });
        let set = read(&fields).unwrap();
        assert_eq!(write(&set), fields);
        assert!(set.has(&[Element::field("metadata"), Element::field("labels")]));
        assert!(!set.has(&[Element::field("metadata")]));
    }

    #[test]
    fn unknown_elements_are_left_out_and_malformed_ones_refused() {
        assert_eq!(write(&read(&json!({"z:1": {}, "f:a": {"z:2": {}}})).unwrap()), json!({"f:a": {}}));
        assert_eq!(read(&Value::Null).unwrap(), Set::default());
        for broken in [json!("x"), json!({"f:a": 1}), json!({"a": {}}), json!({"k:{": {}})] {
            assert!(read(&broken).is_err(), "{broken}");
        }
    }
}
