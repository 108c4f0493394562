//! The OpenAPI documents, versions 2 and 3: types with the descriptions of k8s-openapi, our rules on merging, and the
//! operations that are served.

use crate::kind::{Names, Strategy};
use crate::openapi::operations::{self, Operation};
use crate::openapi::rules::{self, List, Rule};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TITLE: &str = "Kubernetes";
const DEFINITIONS: &str = "#/$defs/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON: [&str; 2] = ["application/json", "application/yaml"];
/// Custom kinds take all but the last. kubectl looks here for what a kind takes.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V2,
    V3,
}

impl Version {
    fn reference(self, name: &str) -> Value {
        match self {
            Version::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Version::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// What all documents are made of. Large: to be dropped when they are made.
pub struct Source {
    strategies: Vec<Arc<dyn Strategy>>,
    definitions: Map<String, Value>,
    /// The schemas of custom kinds, as their definitions have them.
    custom: BTreeMap<String, Value>,
    operations: Vec<Operation>,
    /// The name of each kind's type.
    types: BTreeMap<(&'static str, &'static str, &'static str), String>,
}

impl Source {
    pub fn collect(custom_kinds: Vec<Arc<dyn Strategy>>) -> Self {
        let custom = custom_kinds.iter().filter_map(|kind| Some((kind.schema_name(), kind.custom()?.source.clone()))).collect();
        let strategies: Vec<Arc<dyn Strategy>> = crate::resources::builtin().into_iter().chain(custom_kinds).collect();
        let mut definitions = super::schema::definitions();
        // No type of k8s-openapi is a patch.
        let about = "A change: a JSON patch, a merge patch or a strategic merge patch, as its content type says.";
        definitions.insert(format!("{META}.Patch"), json!({"type": "object", "description": about}));
        let mut types = BTreeMap::new();
        for strategy in &strategies {
            let names = strategy.names();
            let name = strategy.schema_name();
            definitions.insert(format!("{name}List"), list_schema(names, &name));
            types.insert((names.group, names.version, names.kind), name);
        }
        for (kind, name) in [
            (("autoscaling", "v1", "Scale"), "io.k8s.api.autoscaling.v1.Scale"),
            (("policy", "v1", "Eviction"), "io.k8s.api.policy.v1.Eviction"),
            (("", "v1", "Binding"), "io.k8s.api.core.v1.Binding"),
            (("authentication.k8s.io", "v1", "TokenRequest"), "io.k8s.api.authentication.v1.TokenRequest"),
            (("authentication.k8s.io", "v1", "TokenReview"), "io.k8s.api.authentication.v1.TokenReview"),
            (("authorization.k8s.io", "v1", "SubjectAccessReview"), "io.k8s.api.authorization.v1.SubjectAccessReview"),
            (("authorization.k8s.io", "v1", "LocalSubjectAccessReview"), "io.k8s.api.authorization.v1.LocalSubjectAccessReview"),
            (("authorization.k8s.io", "v1", "SelfSubjectAccessReview"), "io.k8s.api.authorization.v1.SelfSubjectAccessReview"),
            (("authorization.k8s.io", "v1", "SelfSubjectRulesReview"), "io.k8s.api.authorization.v1.SelfSubjectRulesReview"),
            (("authentication.k8s.io", "v1", "SelfSubjectReview"), "io.k8s.api.authentication.v1.SelfSubjectReview"),
            (("", "v1", "Status"), "io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
            (("", "v1", "DeleteOptions"), "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        ] {
            types.insert(kind, name.to_owned());
        }
        let operations = operations::all(&strategies);
        Source { strategies, definitions, custom, operations, types }
    }

    /// The groups and versions that have a document of their own, by path: `api/v1`, `apis/apps/v1`.
    pub fn homes(&self) -> BTreeMap<String, (&'static str, &'static str)> {
        self.operations.iter().map(|operation| operation.home).map(|home| (operations::root(home.0, home.1), home)).collect()
    }

    /// The document of one group and version.
    pub fn v3(&self, home: (&str, &str)) -> Value {
        let operations: Vec<&Operation> = self.operations.iter().filter(|operation| operation.home == home).collect();
        let paths = self.paths(&operations, Version::V3);
        let mut schemas = Map::new();
        let mut wanted: Vec<String> = self
            .strategies
            .iter()
            .filter(|strategy| (strategy.names().group, strategy.names().version) == home)
            .map(|strategy| strategy.schema_name())
            .collect();
        collect_references(&paths, &mut wanted);
        let mut seen = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            if seen.insert(name.clone())
                && let Some(schema) = self.schema(&name, Version::V3)
            {
                collect_references(&schema, &mut wanted);
                schemas.insert(name, schema);
            }
        }
        json!({
            "openapi": "3.0.0", "info": {"title": TITLE, "version": version()}, "paths": paths,
            "components": {"schemas": schemas},
        })
    }

    /// The document of everything.
    pub fn v2(&self) -> Value {
        let operations: Vec<&Operation> = self.operations.iter().collect();
        let schemas = self
            .definitions
            .keys()
            .chain(self.custom.keys())
            .filter_map(|name| Some((name.clone(), self.schema(name, Version::V2)?)));
        let definitions: Map<String, Value> = schemas.collect();
        json!({
            "swagger": "2.0", "info": {"title": TITLE, "version": version()},
            "paths": self.paths(&operations, Version::V2), "definitions": definitions,
        })
    }

    /// The schema of a type, with all that the definitions of k8s-openapi lack.
    fn schema(&self, name: &str, version: Version) -> Option<Value> {
        if let Some(source) = self.custom.get(name) {
            let mut schema = custom_schema(source, version);
            let kinds: Vec<Value> = self.kinds_of(name).into_iter().map(group_version_kind).collect();
            schema["x-kubernetes-group-version-kind"] = kinds.into();
            return Some(schema);
        }
        let mut schema = convert(self.definitions.get(name)?, version);
        match (name.rsplit('.').next()?, version) {
            ("Quantity", Version::V2) => schema["type"] = json!("string"),
            ("Quantity", Version::V3) => schema["oneOf"] = json!([{"type": "string"}, {"type": "number"}]),
            ("IntOrString", _) => {
                schema["format"] = json!("int-or-string");
                match version {
                    Version::V2 => schema["type"] = json!("string"),
                    Version::V3 => schema["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]),
                }
            }
            _ => {}
        }
        crate::kind::remove(&mut schema, "x-kubernetes-int-or-string");
        for (field, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
            extend(property, rules::field(name, field));
        }
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|field| field.as_str().is_none_or(|field| !rules::is_optional(name, field)));
            if required.is_empty() {
                crate::kind::remove(&mut schema, "required");
            }
        }
        if rules::is_atomic(name) {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        let kinds: Vec<Value> = self.kinds_of(name).into_iter().map(group_version_kind).collect();
        if !kinds.is_empty() {
            schema["x-kubernetes-group-version-kind"] = kinds.into();
        }
        Some(schema)
    }

    fn kinds_of(&self, name: &str) -> Vec<(&str, &str, String)> {
        let kind = |suffix: &'static str| {
            let bare = name.strip_suffix(suffix).unwrap_or(name).to_owned();
            let found = self.types.iter().filter(move |(_, of)| **of == bare && name.ends_with(suffix));
            found.map(move |((group, version, kind), _)| (*group, *version, format!("{kind}{suffix}")))
        };
        let mut kinds: Vec<_> = kind("").collect();
        if self.strategies.iter().any(|strategy| name.strip_suffix("List").is_some_and(|bare| strategy.schema_name() == bare)) {
            kinds.extend(kind("List"));
        }
        kinds
    }

    fn paths(&self, operations: &[&Operation], version: Version) -> Value {
        let mut paths = Map::new();
        for operation in operations {
            let item = paths
                .entry(operation.path.as_str())
                .or_insert_with(|| json!({"parameters": path_parameters(operation, version)}));
            item[operation.method.to_lowercase()] = self.operation(operation, version);
        }
        paths.into()
    }

    fn patches(&self, operation: &Operation) -> &'static [&'static str] {
        const OF_CUSTOM_KINDS: &[&str] = PATCHES.split_at(3).0;
        let home = |kind: &Arc<dyn Strategy>| (kind.names().group, kind.names().version) == operation.home;
        let custom = self.strategies.iter().any(|kind| kind.custom().is_some() && home(kind));
        if custom { OF_CUSTOM_KINDS } else { &PATCHES }
    }

    fn operation(&self, operation: &Operation, version: Version) -> Value {
        let (group, api_version, kind) = operation.kind;
        let own = self.types.get(&operation.kind).map(String::as_str);
        let mut written = json!({
            "operationId": operation.id(),
            "description": operation.about(),
            "tags": [tag(operation.home)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": api_version, "kind": kind},
        });
        let mut parameters: Vec<Value> =
            query(operation).iter().map(|(name, kind, about)| query_parameter(name, kind, about, version)).collect();
        let body = match operation.action {
            "post" | "put" => own.map(|own| (own.to_owned(), JSON.as_slice(), true)),
            "patch" => Some((format!("{META}.Patch"), self.patches(operation), true)),
            "delete" | "deletecollection" => Some((format!("{META}.DeleteOptions"), JSON.as_slice(), false)),
            _ => None,
        };
        let answer = match (operation.action, own) {
            ("list", Some(own)) => Some(format!("{own}List")),
            ("delete" | "deletecollection", _) => Some(format!("{META}.Status")),
            ("connect", _) => None,
            ("get", _) if operation.path.ends_with("/log") => None,
            (_, own) => own.map(str::to_owned),
        };
        match version {
            Version::V2 => {
                if let Some((name, types, required)) = body {
                    let schema = version.reference(&name);
                    parameters.push(json!({"in": "body", "name": "body", "required": required, "schema": schema}));
                    written["consumes"] = json!(types);
                }
                written["produces"] = json!(JSON);
                written["schemes"] = json!(["https"]);
            }
            Version::V3 => {
                if let Some((name, types, required)) = body {
                    let content: Map<String, Value> =
                        types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": version.reference(&name)}))).collect();
                    written["requestBody"] = json!({"content": content, "required": required});
                }
            }
        }
        written["responses"] = responses(operation, answer, version);
        if !parameters.is_empty() {
            written["parameters"] = parameters.into();
        }
        written
    }
}

/// What clients are told of a custom kind: its schema, and what every object has.
fn custom_schema(source: &Value, version: Version) -> Value {
    if version == Version::V2 && source["x-kubernetes-preserve-unknown-fields"] == true {
        // Of what may have any field, clients of version 2 are told nothing: they would refuse all that are not named.
        return json!({"type": "object"});
    }
    let mut schema = source.clone();
    if version == Version::V2 {
        without_values(&mut schema, true);
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let kind = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let api_version = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    let metadata = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    schema["properties"]["kind"] = json!({"type": "string", "description": kind});
    schema["properties"]["apiVersion"] = json!({"type": "string", "description": api_version});
    let reference = version.reference(&format!("{META}.ObjectMeta"));
    schema["properties"]["metadata"] = match version {
        Version::V2 => json!({"$ref": reference["$ref"], "description": metadata}),
        Version::V3 => json!({"allOf": [reference], "description": metadata}),
    };
    schema["type"] = "object".into();
    schema
}

/// Version 2 has no alternatives and no nulls. Clients of it refuse fields that they don't know, so that nothing is said of what
/// may have any, nor of what may be null.
fn without_values(schema: &mut Value, root: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    let either = map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    for field in ["anyOf", "oneOf", "allOf", "not", "default"] {
        map.remove(field);
    }
    if open || nullable || either {
        for field in ["type", "items", "properties", "additionalProperties"] {
            if !(root && field == "type") {
                map.remove(field);
            }
        }
    }
    for field in ["items", "additionalProperties"] {
        map.get_mut(field).into_iter().for_each(|schema| without_values(schema, false));
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(|schema| without_values(schema, false));
}

/// The version of the API that is served: that of the types.
fn version() -> &'static str {
    "v1.37.0"
}

fn group_version_kind((group, version, kind): (&str, &str, String)) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn list_schema(names: &Names, item: &str) -> Value {
    let kind = names.kind;
    json!({
        "description": format!("{kind}List is a list of {kind}."),
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this representation of the list."},
            "kind": {"type": "string", "description": "The kind of the list."},
            "metadata": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "description": "Where the list begins and whether it goes on."},
            "items": {"type": "array", "items": {"$ref": format!("{DEFINITIONS}{item}")}, "description": "The objects."},
        },
        "required": ["items"],
    })
}

/// A JSON schema in the words of OpenAPI: references, and no null among the types.
fn convert(schema: &Value, version: Version) -> Value {
    let Some(map) = schema.as_object() else { return schema.clone() };
    if let Some(either) = map.get("anyOf").and_then(Value::as_array) {
        let mut real = either.iter().filter(|one| one.get("type").is_none_or(|kind| kind != "null"));
        if let (Some(one), None) = (real.next(), real.next()) {
            let mut one = one.clone();
            if let (Some(about), Some(map)) = (map.get("description"), one.as_object_mut()) {
                map.insert("description".into(), about.clone());
            }
            return convert(&one, version);
        }
    }
    if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(DEFINITIONS)) {
        let reference = version.reference(name);
        return match (map.get("description"), version) {
            (None, _) => reference,
            (Some(about), Version::V2) => json!({"$ref": reference["$ref"], "description": about}),
            (Some(about), Version::V3) => json!({"allOf": [reference], "description": about}),
        };
    }
    let mut converted = Map::new();
    for (key, value) in map {
        let value = match key.as_str() {
            "type" => match value {
                Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default(),
                kind => kind.clone(),
            },
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                Value::Object(fields.map(|(name, schema)| (name.clone(), convert(schema, version))).collect())
            }
            "items" | "additionalProperties" => convert(value, version),
            "oneOf" => {
                let choices: Vec<Value> =
                    value.as_array().into_iter().flatten().filter_map(|one| one.get("const").cloned()).collect();
                converted.insert("type".into(), "string".into());
                converted.insert("enum".into(), choices.into());
                continue;
            }
            "$schema" | "title" | "default" => continue,
            _ => value.clone(),
        };
        converted.insert(key.clone(), value);
    }
    converted.into()
}

fn extend(property: &mut Value, rule: Rule) {
    match rule.list {
        Some(List::Atomic) => property["x-kubernetes-list-type"] = json!("atomic"),
        Some(List::Set) => property["x-kubernetes-list-type"] = json!("set"),
        Some(List::Keyed(keys)) => {
            property["x-kubernetes-list-type"] = json!("map");
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        None => {}
    }
    if rule.atomic_map {
        property["x-kubernetes-map-type"] = json!("atomic");
    }
    if rule.granular_map {
        property["x-kubernetes-map-type"] = json!("granular");
    }
    if !rule.strategy.is_empty() {
        property["x-kubernetes-patch-strategy"] = json!(rule.strategy);
    }
    if !rule.merge_key.is_empty() {
        property["x-kubernetes-patch-merge-key"] = json!(rule.merge_key);
    }
}

/// The names of the types that a part of a version 3 document refers to.
fn collect_references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value.as_str().and_then(|path| path.strip_prefix("#/components/schemas/"))) {
                    ("$ref", Some(name)) => names.push(name.to_owned()),
                    _ => collect_references(value, names),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect_references(value, names)),
        _ => {}
    }
}

fn tag((group, version): (&str, &str)) -> String {
    format!("{}_{version}", if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) })
}

fn path_parameters(operation: &Operation, version: Version) -> Vec<Value> {
    let kind = operation.kind.2;
    let all = [
        ("name", format!("name of the {kind}")),
        ("namespace", "the namespace of the object".to_owned()),
        ("path", "path to the resource".to_owned()),
    ];
    all.into_iter()
        .filter(|(name, _)| operation.path.contains(&format!("{{{name}}}")))
        .map(|(name, about)| match version {
            Version::V2 => json!({"in": "path", "name": name, "description": about, "required": true, "type": "string", "uniqueItems": true}),
            Version::V3 => json!({"in": "path", "name": name, "description": about, "required": true, "schema": {"type": "string", "uniqueItems": true}}),
        })
        .collect()
}

fn query_parameter(name: &str, kind: &str, about: &str, version: Version) -> Value {
    match version {
        Version::V2 => json!({"in": "query", "name": name, "description": about, "type": kind, "uniqueItems": true}),
        Version::V3 => json!({"in": "query", "name": name, "description": about, "schema": {"type": kind, "uniqueItems": true}}),
    }
}

fn responses(operation: &Operation, answer: Option<String>, version: Version) -> Value {
    let answered = |about: &str| match (&answer, version) {
        (None, Version::V2) => json!({"description": about, "schema": {"type": "string"}}),
        (None, Version::V3) => json!({"description": about, "content": {"*/*": {"schema": {"type": "string"}}}}),
        (Some(name), Version::V2) => json!({"description": about, "schema": version.reference(name)}),
        (Some(name), Version::V3) => {
            let content: Map<String, Value> =
                JSON.iter().map(|kind| ((*kind).to_owned(), json!({"schema": version.reference(name)}))).collect();
            json!({"description": about, "content": content})
        }
    };
    let mut all = json!({"200": answered("OK"), "401": {"description": "Unauthorized"}});
    match operation.action {
        "post" | "put" | "patch" => all["201"] = answered("Created"),
        "delete" => all["202"] = answered("Accepted"),
        _ => {}
    }
    all
}

type Query = &'static [(&'static str, &'static str, &'static str)];

const LIST: Query = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch may be sent bookmarks: events that tell how far it has come."),
    ("continue", "string", "Where the last page of a list ended."),
    ("fieldSelector", "string", "Which fields the objects must have."),
    ("labelSelector", "string", "Which labels the objects must have."),
    ("limit", "integer", "How many objects to answer with at most."),
    ("resourceVersion", "string", "How new the answer must be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: NotOlderThan or Exact."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the objects that exist already."),
    ("timeoutSeconds", "integer", "How long the request may take."),
    ("watch", "boolean", "Whether to go on with the changes as they happen."),
];
const WRITE: Query = &[
    ("dryRun", "string", "All: does everything but store the result."),
    ("fieldManager", "string", "Who makes the change."),
    ("fieldValidation", "string", "What happens to unknown and duplicate fields: Ignore, Warn (the default) or Strict."),
];
const DELETE: Query = &[
    ("dryRun", "string", "All: does everything but store the result."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    ("orphanDependents", "boolean", "Whether what the object owns stays. The older form of propagationPolicy."),
    ("propagationPolicy", "string", "What happens to what the object owns: Orphan, Background or Foreground."),
];
const LOG: Query = &[
    ("container", "string", "Whose log; needed if there are several containers."),
    ("follow", "boolean", "Whether to go on as the log grows."),
    ("limitBytes", "integer", "How much to send at most."),
    ("previous", "boolean", "Whether to send the log of the container before its last restart."),
    ("sinceSeconds", "integer", "How far back to begin."),
    ("tailLines", "integer", "How many lines from the end to begin at."),
    ("timestamps", "boolean", "Whether lines begin with their time."),
];
const STREAM: Query = &[
    ("container", "string", "Which container; needed if there are several."),
    ("stderr", "boolean", "Whether to send its error output."),
    ("stdin", "boolean", "Whether to take input for it."),
    ("stdout", "boolean", "Whether to send its output."),
    ("tty", "boolean", "Whether it has a terminal."),
];
const COMMAND: Query = &[("command", "string", "What to run; once for each word.")];
const PORTS: Query = &[("ports", "integer", "The ports to forward to.")];
const PROXY: Query = &[("path", "string", "The path to ask for, where the request's own path does not name it.")];
const PRETTY: Query = &[("pretty", "string", "Whether to answer with line breaks.")];

fn query(operation: &Operation) -> Vec<(&'static str, &'static str, &'static str)> {
    let last = operation.path.rsplit('/').next().unwrap_or_default();
    let sets: &[Query] = match (operation.action, last) {
        ("list", _) => &[LIST, PRETTY],
        ("post" | "put" | "patch", _) => &[WRITE, PRETTY],
        ("delete", _) => &[DELETE, PRETTY],
        ("deletecollection", _) => &[LIST, DELETE, PRETTY],
        ("get", "log") => &[LOG, PRETTY],
        ("connect", "exec") => &[COMMAND, STREAM],
        ("connect", "attach") => &[STREAM],
        ("connect", "portforward") => &[PORTS],
        ("connect", _) => &[PROXY],
        _ => &[PRETTY],
    };
    sets.iter()
        .copied()
        .flatten()
        .filter(|(name, ..)| !(operation.action == "deletecollection" && *name == "watch"))
        .copied()
        .collect()
}
