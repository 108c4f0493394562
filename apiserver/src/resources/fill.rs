//! Filling in what is left out, on objects as they came: what the defaults of every kind are made of.
//!
//! Go's API types know two sorts of "left out": a pointer that is nil, and a plain field that has its zero value.
//! [`missing`] is for the first, [`empty`] for the second.

use serde_json::{Map, Value, json};

/// Sets a field that is absent or null.
pub fn missing(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a field that is absent, null, `""` or `0`.
pub fn empty(object: &mut Value, field: &str, value: impl Into<Value>) {
    let zero = |value: &Value| value.is_null() || value.as_str() == Some("") || value.as_i64() == Some(0);
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(zero)
    {
        map.insert(field.to_owned(), value.into());
    }
}

/// The items of a list, none if there is no such list.
pub fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// A field that holds an object, if there is one.
pub fn inner<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|value| value.is_object())
}

/// A field that is to hold an object: made where it is absent.
pub fn made<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    missing(object, field, json!({}));
    inner(object, field)
}

/// The object's map, made of null too; `None` for anything else.
pub fn map_of<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    made(object, field)?.as_object_mut()
}

/// A text field; `""` where there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}
