//! `additionalPrinterColumns`: what `kubectl get` shows of a custom resource.

use crate::custom_resources::path::Path;
use crate::kind::{Column, human_duration};
use crate::registry::intern;
use serde_json::{Value, json};

pub struct Printer(Vec<(Column, Path)>);

impl Printer {
    pub fn new(columns: &Value) -> Self {
        let age = || {
            json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": Column::AGE.description}])
        };
        let given = columns.as_array().filter(|columns| !columns.is_empty()).cloned();
        let columns = given.or_else(|| age().as_array().cloned()).unwrap_or_default();
        Printer(columns.iter().filter_map(column).collect())
    }

    pub fn columns(&self) -> Vec<Column> {
        std::iter::once(Column::NAME).chain(self.0.iter().map(|(column, _)| column.clone())).collect()
    }

    pub fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let cells =
            self.0.iter().map(|(column, path)| path.first(object).map_or(Value::Null, |value| cell(column.type_, value, now)));
        std::iter::once(object["metadata"]["name"].clone()).chain(cells).collect()
    }
}

fn column(source: &Value) -> Option<(Column, Path)> {
    let text = |field: &str| source[field].as_str().unwrap_or_default();
    let path = Path::parse(text("jsonPath")).ok()?;
    let description = match text("description") {
        "" => format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath")),
        given => given.to_owned(),
    };
    let column = Column {
        name: text("name").to_owned().into(),
        type_: intern(text("type")),
        format: intern(text("format")),
        description: description.into(),
        priority: i32::try_from(source["priority"].as_i64().unwrap_or(0)).unwrap_or(0),
    };
    Some((column, path))
}

fn cell(type_: &str, value: &Value, now: jiff::Timestamp) -> Value {
    match (type_, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => Value::from(super::validate::shown(other)),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => Value::from(human_duration(now.as_second() - time.as_second())),
            Err(_) => Value::from("<invalid>"),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_types_of_their_columns() {
        let printer = Printer::new(&json!([
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "List", "type": "string", "jsonPath": ".spec.list"},
            {"name": "None", "type": "boolean", "jsonPath": ".spec.none"},
        ]));
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"cronSpec": "* *", "replicas": 2, "list": [1, 2]}});
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(printer.row(&object, now), [json!("a"), json!("* *"), json!(2), json!("5m"), json!("[1,2]"), Value::Null]);
        assert_eq!(printer.columns()[2].priority, 1);
        assert_eq!(Printer::new(&Value::Null).row(&object, now), [json!("a"), json!("5m")]);
    }
}
