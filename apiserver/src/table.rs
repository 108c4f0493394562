//! `meta.k8s.io/v1` Table and PartialObjectMetadata: objects as rows for printing, and as their metadata alone.

use crate::http::error::Status;
use crate::kind::Strategy;
use serde_json::{Value, json};

/// What each row carries beside its cells (`includeObject` of the query).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \"{other}\": must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// A Table of `objects`. `metadata` is the list's (or, for one object, `{"resourceVersion": …}`); `headers` is false for
/// all but the first event of a watch.
pub fn table(
    strategy: &dyn Strategy,
    objects: &[Value],
    metadata: Value,
    headers: bool,
    include: IncludeObject,
    now: jiff::Timestamp,
) -> Value {
    let columns = if headers { column_definitions(strategy) } else { Value::Null };
    let rows: Vec<Value> = objects.iter().map(|object| row(strategy, object, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn column_definitions(strategy: &dyn Strategy) -> Value {
    let definition = |column: crate::kind::Column| {
        json!({
            "name": column.name, "type": column.type_, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    };
    strategy.columns().into_iter().map(definition).collect()
}

fn row(strategy: &dyn Strategy, object: &Value, include: IncludeObject, now: jiff::Timestamp) -> Value {
    let mut row = json!({"cells": strategy.row(object, now)});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial(object),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// A Table, a PartialObjectMetadata or a list of those as `meta.k8s.io/v1beta1`, which older clients ask for.
pub fn beta(mut value: Value) -> Value {
    const META: &str = "meta.k8s.io/v1";
    let lower = |object: &mut Value| {
        if object.get("apiVersion").is_some_and(|version| version == META) {
            object["apiVersion"] = "meta.k8s.io/v1beta1".into();
        }
    };
    lower(&mut value);
    for row in value.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        row.get_mut("object").map(lower);
    }
    for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        lower(item);
    }
    value
}

/// The object's metadata alone, as `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// The metadata of `objects`, as `PartialObjectMetadataList`; `metadata` is the list's.
pub fn partial_list(objects: &[Value], metadata: Value) -> Value {
    let items: Vec<Value> = objects.iter().map(partial).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Builtin;
    use slipway_api::core::ConfigMap;

    fn check(headers: bool, include: IncludeObject) -> Value {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "1", "b": "2"},
            "metadata": {"name": "settings", "creationTimestamp": "2026-01-01T00:00:00Z"},
        });
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        table(&Builtin::<ConfigMap>::new(), &[object], json!({"resourceVersion": "7"}), headers, include, now)
    }

    #[test]
    fn a_row_has_a_cell_for_each_column_and_the_metadata() {
        let table = check(true, IncludeObject::Metadata);
        let names: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
        assert_eq!(names, ["Name", "Data", "Age"]);
        assert_eq!(table["rows"][0]["cells"], json!(["settings", 2, "5m"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "settings");
        assert_eq!(table["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn include_object_says_what_the_row_carries_and_later_events_have_no_columns() {
        assert_eq!(check(false, IncludeObject::None)["rows"][0].get("object"), None);
        assert_eq!(check(true, IncludeObject::Object)["rows"][0]["object"]["data"]["a"], "1");
        assert_eq!(check(false, IncludeObject::None)["columnDefinitions"], Value::Null);
    }
}
