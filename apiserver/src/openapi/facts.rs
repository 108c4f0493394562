//! Holds our tables, types and operations against Kubernetes' own, where a file of those facts is at hand.

use super::document::Source;
use super::operations;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Kubernetes' definitions and operations. They are in the file that `SLIPWAY_API_FACTS` names, else in `shared/facts/` of
/// one of the folders that the repository is in.
fn facts() -> Option<Value> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let places = match std::env::var_os("SLIPWAY_API_FACTS") {
        Some(named) => vec![PathBuf::from(named)],
        None => ["..", "../.."].iter().map(|above| root.join(above).join("shared/facts/kubernetes-1.36-api.json")).collect(),
    };
    match places.iter().find_map(|path| std::fs::read(path).ok()) {
        Some(bytes) => Some(serde_json::from_slice(&bytes).expect("the facts are JSON")),
        None => {
            eprintln!("SKIPPED: nothing is compared with Kubernetes' own API, its facts are at none of {places:?}");
            None
        }
    }
}

/// What the facts call `list-type`, the documents call `x-kubernetes-list-type`.
const EXTENSIONS: [&str; 5] = ["list-type", "list-map-keys", "map-type", "patch-strategy", "patch-merge-key"];

#[test]
fn fields_merge_as_in_kubernetes() {
    let Some(facts) = facts() else { return };
    let document = Source::collect(vec![]).v2();
    let ours = document["definitions"].as_object().unwrap();
    let (mut compared, mut wrong) = (0, vec![]);
    for (name, theirs) in facts["definitions"].as_object().unwrap() {
        let Some(own) = ours.get(name) else { continue };
        if own.get("x-kubernetes-map-type") != theirs.get("map-type") {
            wrong.push(format!("{name}: map type {:?}", theirs.get("map-type")));
        }
        for (field, theirs) in theirs["properties"].as_object().into_iter().flatten() {
            // A field that a later version has dropped has no rule.
            let Some(own) = own["properties"].get(field) else { continue };
            for extension in EXTENSIONS {
                let key = format!("x-kubernetes-{extension}");
                // Types of a reference carry their own.
                if own.get(&key) != theirs.get(extension) {
                    wrong.push(format!("{name}.{field}: {extension} is {:?}, ours {:?}", theirs.get(extension), own.get(&key)));
                }
                compared += usize::from(theirs.get(extension).is_some());
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(compared > 200, "only {compared} rules were compared");
}

/// Alpha fields of the facts' version, 1.36, that the types' version, 1.37, has under another name.
const CHANGED_SINCE: [(&str, &str); 2] = [
    ("io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus", "resources"),
    ("io.k8s.api.resource.v1.Device", "nodeAllocatableResourceMappings"),
];

#[test]
fn fields_and_kinds_are_kubernetes_own() {
    let Some(facts) = facts() else { return };
    let document = Source::collect(vec![]).v2();
    let ours = document["definitions"].as_object().unwrap();
    let mut wrong = vec![];
    for strategy in crate::resources::builtin() {
        let (names, name) = (strategy.names(), strategy.schema_name());
        if names.group.ends_with("slipway.dev") {
            continue;
        }
        for (name, kind) in [(name.clone(), names.kind.to_owned()), (format!("{name}List"), format!("{}List", names.kind))] {
            let theirs = &facts["definitions"][&name]["group-version-kind"];
            assert_eq!(&ours[&name]["x-kubernetes-group-version-kind"], theirs, "{name}");
            assert_eq!(theirs[0]["kind"], kind.as_str());
        }
    }
    for (name, theirs) in facts["definitions"].as_object().unwrap() {
        let Some(own) = ours.get(name) else { continue };
        let names = |value: &Value| value.as_object().cloned().unwrap_or_default().keys().cloned().collect::<BTreeSet<_>>();
        let mut missing = names(&theirs["properties"]);
        missing.retain(|field| own["properties"].get(field).is_none() && !CHANGED_SINCE.contains(&(name, field)));
        if !missing.is_empty() {
            wrong.push(format!("{name} lacks {missing:?}"));
        }
        let list = |value: &Value| value.as_array().into_iter().flatten().map(ToString::to_string).collect::<BTreeSet<_>>();
        let more: Vec<String> = list(&own["required"]).difference(&list(&theirs["required"])).cloned().collect();
        if !more.is_empty() {
            wrong.push(format!("{name} requires {more:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn operations_are_kubernetes_own() {
    let Some(facts) = facts() else { return };
    let strategies = crate::resources::builtin();
    let text = |method: &str, path: &str, action: &str, kind: (&str, &str, &str)| format!("{method} {path} {action} {kind:?}");
    let ours: BTreeSet<String> = operations::all(&strategies)
        .iter()
        .filter(|operation| operation.home.0 != slipway_api::slipway::GROUP)
        .map(|operation| text(operation.method, &operation.path, operation.action, operation.kind))
        .collect();
    let plurals: BTreeSet<(String, &str)> = strategies
        .iter()
        .map(|strategy| (operations::root(strategy.names().group, strategy.names().version), strategy.names().plural))
        .collect();
    let mut theirs = BTreeSet::new();
    let mut known = BTreeSet::new();
    for fact in facts["operations"].as_array().unwrap() {
        let [method, path, action, group, version, kind] =
            [0, 1, 2, 3, 4, 5].map(|index| fact[index].as_str().unwrap_or_default());
        let text = text(method, path, action, (group, version, kind));
        let below = plurals.iter().any(|(root, plural)| {
            let rest = path.strip_prefix(&format!("/{root}/")).unwrap_or_default();
            let rest = rest.strip_prefix("namespaces/{namespace}/").unwrap_or(rest);
            rest == *plural || rest.starts_with(&format!("{plural}/{{name}}"))
        });
        if below {
            theirs.insert(text.clone());
        }
        known.insert(text);
    }
    let invented: Vec<&String> = ours.difference(&known).collect();
    assert_eq!(invented, Vec::<&String>::new(), "operations that Kubernetes doesn't have");
    let lacking: Vec<&String> = theirs.difference(&ours).collect();
    assert_eq!(lacking, Vec::<&String>::new(), "operations that are not served");
    assert!(theirs.len() > 150, "only {} operations were compared", theirs.len());
}

#[test]
fn documents_hold_together() {
    let source = Source::collect(vec![]);
    for (path, home) in source.homes() {
        let document = source.v3(home);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut names = vec![];
        references(&document, "#/components/schemas/", &mut names);
        for name in names {
            assert!(schemas.contains_key(&name), "{path} refers to {name}, which it lacks");
        }
        let mut ids = BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for (_, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
                assert!(ids.insert(operation["operationId"].to_string()), "{} twice in {path}", operation["operationId"]);
            }
        }
        assert!(!ids.is_empty(), "{path} has no operations");
        assert!(!document.to_string().contains("$defs"), "{path} refers to nowhere");
    }
    let v2 = source.v2();
    let mut names = vec![];
    references(&v2, "#/definitions/", &mut names);
    let definitions: &Map<String, Value> = v2["definitions"].as_object().unwrap();
    for name in names {
        assert!(definitions.contains_key(&name), "version 2 lacks {name}");
    }
    let patch = &v2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let parameters: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(parameters.contains(&"fieldValidation") && parameters.contains(&"dryRun"), "{parameters:?}");
}

fn references(value: &Value, prefix: &str, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().and_then(|path| path.strip_prefix(prefix)) {
                    Some(name) if key == "$ref" => names.push(name.to_owned()),
                    _ => references(value, prefix, names),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, prefix, names)),
        _ => {}
    }
}
