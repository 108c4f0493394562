//! Extension servers' OpenAPI documents, as parts of ours. Of version 3 only the index is ours: the documents are passed on. Version
//! 2 is one document, into which theirs are merged.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const DEFINITIONS: &str = "#/definitions/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// Of the index of a server's documents, what is about `roots` (`/apis/GROUP/VERSION`).
pub(super) fn index(index: &Value, roots: &[String]) -> BTreeMap<String, Value> {
    let paths = index["paths"].as_object();
    let wanted = roots.iter().filter_map(|root| {
        let path = root.trim_start_matches('/');
        let item = paths?.get(path)?;
        // Where else it may be is nobody's business but the server's own.
        let url = item["serverRelativeURL"].as_str().unwrap_or_default();
        let here = format!("/openapi/v3/{path}");
        let url = if url.split('?').next() == Some(&here) { url } else { &here };
        Some((path.to_owned(), serde_json::json!({"serverRelativeURL": url})))
    });
    wanted.collect()
}

/// The paths of a document below `roots`, and the definitions that they need.
pub(super) fn part(document: &Value, roots: &[String]) -> Value {
    let paths: Map<String, Value> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| roots.iter().any(|root| path.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let mut wanted = vec![];
    references(&paths, &mut wanted);
    let (mut definitions, mut seen) = (Map::new(), BTreeSet::new());
    while let Some(name) = wanted.pop() {
        if seen.insert(name.clone())
            && let Some(schema) = document["definitions"].get(&name)
        {
            in_value(schema, &mut wanted);
            definitions.insert(name, schema.clone());
        }
    }
    serde_json::json!({"paths": paths, "definitions": definitions})
}

fn references(map: &Map<String, Value>, names: &mut Vec<String>) {
    for (key, value) in map {
        match value.as_str().and_then(|text| text.strip_prefix(DEFINITIONS)) {
            Some(name) if key == "$ref" => names.push(name.to_owned()),
            _ => in_value(value, names),
        }
    }
}

fn in_value(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => references(map, names),
        Value::Array(list) => list.iter().for_each(|value| in_value(value, names)),
        _ => {}
    }
}

/// Adds a part to a document. What the document has already stays; a definition of a name that it has for something else gets
/// another name.
pub(crate) fn merge(document: &mut Value, part: &Value) {
    let empty = Map::new();
    let definitions = part["definitions"].as_object().unwrap_or(&empty);
    let mut renamed = BTreeMap::new();
    for (name, schema) in definitions {
        let number = (1..).find(|number| match document["definitions"].get(called(name, *number)) {
            None => true,
            Some(known) => is_same(known, schema),
        });
        match number {
            Some(1) | None => {}
            Some(number) => drop(renamed.insert(name.clone(), called(name, number))),
        }
    }
    for (name, schema) in definitions {
        let schema = with_names(schema, &renamed);
        let all = &mut document["definitions"];
        let name = renamed.get(name).unwrap_or(name);
        match all.get_mut(name) {
            Some(known) => add_kinds(known, &schema),
            None => all[name] = schema,
        }
    }
    for (path, item) in part["paths"].as_object().unwrap_or(&empty) {
        if document["paths"].get(path).is_none() {
            document["paths"][path] = with_names(item, &renamed);
        }
    }
}

fn called(name: &str, number: u32) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}_v{number}") }
}

/// Whether two schemas say the same; of which kinds they are does not count.
fn is_same(one: &Value, other: &Value) -> bool {
    let without = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.remove(KINDS);
        map
    };
    without(one) == without(other)
}

fn add_kinds(known: &mut Value, other: &Value) {
    for kind in other[KINDS].as_array().into_iter().flatten() {
        match known[KINDS].as_array_mut() {
            Some(kinds) if kinds.contains(kind) => {}
            Some(kinds) => kinds.push(kind.clone()),
            None => known[KINDS] = serde_json::json!([kind]),
        }
    }
}

fn with_names(value: &Value, renamed: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| {
                let name = value.as_str().filter(|_| key == "$ref").and_then(|text| text.strip_prefix(DEFINITIONS));
                let value = match name.and_then(|name| renamed.get(name)) {
                    Some(name) => format!("{DEFINITIONS}{name}").into(),
                    None => with_names(value, renamed),
                };
                (key.clone(), value)
            };
            Value::Object(map.iter().map(entry).collect())
        }
        Value::Array(list) => list.iter().map(|value| with_names(value, renamed)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn roots() -> Vec<String> {
        vec!["/apis/a.b/v1".into()]
    }

    #[test]
    fn a_server_speaks_for_its_own_groups_only() {
        let own = json!({"serverRelativeURL": "/openapi/v3/apis/a.b/v1?hash=1"});
        let theirs = json!({"paths": {"apis/a.b/v1": own, "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1"}}});
        assert_eq!(index(&theirs, &roots()), [("apis/a.b/v1".to_owned(), own)].into());
        let elsewhere = json!({"paths": {"apis/a.b/v1": {"serverRelativeURL": "https://example.com/"}}});
        assert_eq!(index(&elsewhere, &roots())["apis/a.b/v1"]["serverRelativeURL"], "/openapi/v3/apis/a.b/v1");
        let document = json!({
            "paths": {
                "/apis/a.b/v1/things": {"get": {"schema": {"$ref": "#/definitions/Thing"}}},
                "/apis/a.b/v10/things": {"get": {"schema": {"$ref": "#/definitions/Other"}}},
                "/api/v1/pods": {},
            },
            "definitions": {"Thing": {"properties": {"meta": {"$ref": "#/definitions/Meta"}}}, "Meta": {"type": "object"}, "Other": {}},
        });
        let part = part(&document, &roots());
        assert_eq!(part["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/apis/a.b/v1/things"]);
        assert_eq!(part["definitions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["Meta", "Thing"]);
    }

    #[test]
    fn what_differs_gets_another_name() {
        let mut document = json!({
            "paths": {"/api/v1/pods": {}},
            "definitions": {"Meta": {"type": "object", KINDS: [1]}, "Thing": {"type": "string"}, "Thing_v2": {"type": "number"}},
        });
        let part = json!({
            "paths": {"/apis/a.b/v1/things": {"$ref": "#/definitions/Thing"}, "/api/v1/pods": {"get": {}}},
            "definitions": {
                "Meta": {"type": "object", KINDS: [1, 2]},
                "Thing": {"properties": {"meta": {"$ref": "#/definitions/Meta"}, "more": {"items": [{"$ref": "#/definitions/Thing"}]}}},
            },
        });
        merge(&mut document, &part);
        assert_eq!(document["paths"], json!({"/api/v1/pods": {}, "/apis/a.b/v1/things": {"$ref": "#/definitions/Thing_v3"}}));
        let definitions = &document["definitions"];
        assert_eq!(definitions["Meta"], json!({"type": "object", KINDS: [1, 2]}));
        assert_eq!(definitions["Thing"], json!({"type": "string"}));
        let properties = &definitions["Thing_v3"]["properties"];
        assert_eq!(properties["meta"]["$ref"], "#/definitions/Meta");
        assert_eq!(properties["more"]["items"][0]["$ref"], "#/definitions/Thing_v3");
        let once = document.clone();
        merge(&mut document, &part);
        assert_eq!(document["paths"], once["paths"]);
    }
}
