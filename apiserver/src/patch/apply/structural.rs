//! The schema of a custom resource, as merging needs it: made of the OpenAPI v3 schema in a CustomResourceDefinition.

use super::schema::Schema;
use crate::openapi::schema;
use serde_json::Value;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Schemas within schemas; a CustomResourceDefinition with more is refused long before.
const DEPTH_MAX: usize = 100;

/// One place in a custom resource.
#[derive(Debug, Clone)]
pub enum Structural {
    /// A type of the API itself: the metadata.
    Builtin(schema::Schema),
    Node(Node),
}

/// What may stand at a place: several only where the schema leaves the type open.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub scalar: Option<Scalar>,
    pub map: Option<MapNode>,
    pub list: Option<ListNode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Text,
    Number,
    Bool,
    Untyped,
}

#[derive(Debug, Clone)]
pub struct MapNode {
    /// In alphabetical order.
    fields: Vec<FieldNode>,
    pub values: Values,
    pub atomic: bool,
}

#[derive(Debug, Clone)]
pub struct FieldNode {
    name: Box<str>,
    pub schema: Structural,
    pub default: Option<Value>,
}

/// What else a map may hold beside its fields.
#[derive(Debug, Clone)]
pub enum Values {
    None,
    Deduced,
    Of(Box<Structural>),
}

#[derive(Debug, Clone)]
pub struct ListNode {
    /// `None`: anything, with one owner.
    items: Option<Box<Structural>>,
    /// `None`: the list has one owner. Without names: it is a set.
    pub keys: Option<Vec<Box<str>>>,
}

impl MapNode {
    pub fn find(&self, name: &str) -> Option<&FieldNode> {
        let at = self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
        self.fields.get(at)
    }
}

impl ListNode {
    pub fn items(&self) -> Schema<'_> {
        self.items.as_deref().map_or(Schema::Whole, Schema::Structural)
    }
}

impl Structural {
    /// Of a custom resource: `schema` is a version's `openAPIV3Schema`. Its metadata is that of every object.
    pub fn of_custom_resource(schema: &Value, preserve_unknown_fields: bool) -> Self {
        let mut root = parse(schema, preserve_unknown_fields, 0);
        if let Structural::Node(node) = &mut root {
            node.scalar = None;
            node.list = None;
            let empty = MapNode { fields: vec![], values: Values::Deduced, atomic: false };
            name_object(node.map.get_or_insert(empty));
        }
        root
    }

    pub fn schema(&self) -> Schema<'_> {
        Schema::Structural(self)
    }
}

/// Gives a map what every object has.
fn name_object(map: &mut MapNode) {
    let text = || Structural::Node(Node { scalar: Some(Scalar::Text), ..Node::default() });
    let metadata = schema::Schema::of(OBJECT_META).map_or_else(text, Structural::Builtin);
    for (name, schema) in [("apiVersion", text()), ("kind", text()), ("metadata", metadata)] {
        map.fields.retain(|field| &*field.name != name);
        map.fields.push(FieldNode { name: name.into(), schema, default: None });
    }
    map.fields.sort_unstable_by(|one, other| one.name.cmp(&other.name));
}

fn parse(schema: &Value, preserve: bool, depth: usize) -> Structural {
    if depth > DEPTH_MAX {
        return Structural::Node(Node { scalar: Some(Scalar::Untyped), ..Node::default() });
    }
    let says = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let preserve = preserve || says("x-kubernetes-preserve-unknown-fields");
    let mut node = Node::default();
    match schema.get("type").and_then(Value::as_str).filter(|_| !says("x-kubernetes-int-or-string")) {
        Some("object") => node.map = Some(parse_map(schema, preserve, depth)),
        Some("array") => node.list = Some(parse_list(schema, preserve, depth)),
        Some("integer" | "number") => node.scalar = Some(Scalar::Number),
        Some("boolean") => node.scalar = Some(Scalar::Bool),
        Some("string") => {
            let plain = matches!(schema.get("format").and_then(Value::as_str), None | Some("" | "byte"));
            node.scalar = Some(if plain { Scalar::Text } else { Scalar::Untyped });
        }
        _ => {
            node.scalar = Some(Scalar::Untyped);
            node.map = Some(parse_map(schema, preserve, depth));
            node.list = Some(parse_list(schema, preserve, depth));
        }
    }
    if says("x-kubernetes-embedded-resource")
        && let Some(map) = &mut node.map
    {
        name_object(map);
    }
    Structural::Node(node)
}

fn parse_map(schema: &Value, preserve: bool, depth: usize) -> MapNode {
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut fields: Vec<FieldNode> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| FieldNode {
            name: name.as_str().into(),
            schema: parse(schema, preserve, depth + 1),
            default: schema.get("default").cloned(),
        })
        .collect();
    fields.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let values = match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) => Values::Of(Box::new(parse(values, preserve, depth + 1))),
        Some(Value::Bool(true)) => Values::Deduced,
        Some(Value::Bool(false)) => Values::None,
        // Without properties it is a map of anything.
        _ if preserve || fields.is_empty() => Values::Deduced,
        _ => Values::None,
    };
    let atomic = schema.get("x-kubernetes-map-type").is_some_and(|kind| kind == "atomic");
    MapNode { fields, values, atomic }
}

fn parse_list(schema: &Value, preserve: bool, depth: usize) -> ListNode {
    let keys = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Some(vec![]),
        Some("map") => {
            let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys: Vec<Box<str>> = names.into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect();
            Some(keys).filter(|keys| !keys.is_empty())
        }
        _ => None,
    };
    let items = schema.get("items").filter(|items| items.is_object());
    ListNode { items: items.map(|items| Box::new(parse(items, preserve, depth + 1))), keys }
}
