//! What an expression may be made of, as the checker sees it; and how JSON is to be read.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How deep a schema is followed; below that, everything is `dyn`. Schemas may be recursive.
const SCHEMA_DEPTH_MAX: usize = 24;

#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<ListType>),
    Map(Arc<(Type, Type)>),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// What has functions only, as `net.IP`.
    Opaque(&'static str),
    /// The type of a type.
    Type,
    /// A type variable of an overload (`A`).
    Variable(u8),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListType {
    pub item: Type,
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`: what makes two lists equal, and what adding them means.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

pub struct ObjectType {
    /// As `Object.spec`, for messages.
    pub name: String,
    /// By the name that an expression says.
    pub fields: BTreeMap<String, Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// By the name that JSON says.
    pub json: String,
    pub kind: Type,
}

impl fmt::Debug for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.name == other.name && self.fields == other.fields
    }
}

impl Type {
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(ListType { item, kind: ListKind::Atomic }))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    /// An object of these fields, under the names that they have in JSON.
    pub fn object(name: impl Into<String>, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Type {
        let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), Field { json: name.to_owned(), kind }));
        Type::Object(Arc::new(ObjectType { name: name.into(), fields: fields.collect() }))
    }

    /// What a schema says: a structural one of a CustomResourceDefinition, or Kubernetes' own, whose `$ref`s `resolve`
    /// finds. `None`: it says nothing, and the value can't be reached. `root`: it is a whole resource, so that `apiVersion`,
    /// `kind` and the metadata's name are there without being said.
    pub fn of_schema<'s>(schema: &'s Json, root: bool, resolve: &dyn Fn(&str) -> Option<&'s Json>) -> Option<Type> {
        Reader { resolve }.read(schema, root, "object", 0)
    }

    /// The type of an expression's result may stand where `wanted` is asked for.
    pub fn may_be(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(list), Type::List(wanted)) => list.item.may_be(&wanted.item),
            (kind, wanted) => kind == wanted,
        }
    }
}

struct Reader<'r, 's> {
    resolve: &'r dyn Fn(&str) -> Option<&'s Json>,
}

impl<'s> Reader<'_, 's> {
    fn read(&self, schema: &'s Json, root: bool, name: &str, depth: usize) -> Option<Type> {
        if depth > SCHEMA_DEPTH_MAX {
            return Some(Type::Dyn);
        }
        let reference = schema.get("$ref").or_else(|| schema["allOf"].get(0)?.get("$ref")).and_then(Json::as_str);
        if let Some(reference) = reference {
            return match (self.resolve)(reference) {
                Some(schema) => self.read(schema, root, name, depth + 1),
                None => Some(Type::Dyn),
            };
        }
        // `Option<T>` of a derived schema: that, or null.
        if let Some(either) = schema["anyOf"].as_array()
            && schema.get("type").is_none()
            && let [one] = either.iter().filter(|one| one["type"] != "null").collect::<Vec<_>>().as_slice()
        {
            return self.read(one, root, name, depth + 1);
        }
        let flag = |name: &str| schema[name] == true;
        if flag("x-kubernetes-int-or-string") || schema["format"] == "int-or-string" {
            return Some(Type::Dyn);
        }
        let root = root || flag("x-kubernetes-embedded-resource");
        let listed = schema["type"].as_array().into_iter().flatten().filter_map(Json::as_str).find(|kind| *kind != "null");
        match schema["type"].as_str().or(listed).unwrap_or_default() {
            "boolean" => Some(Type::Bool),
            "integer" => Some(Type::Int),
            "number" => Some(Type::Double),
            "string" => Some(match schema["format"].as_str().unwrap_or_default() {
                "date" | "date-time" => Type::Timestamp,
                "duration" => Type::Duration,
                "byte" => Type::Bytes,
                _ => Type::String,
            }),
            "array" => {
                let item = self.read(schema.get("items")?, false, &format!("{name}.@idx"), depth + 1)?;
                let keys = || schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                let kind = match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => ListKind::Set,
                    Some("map") => ListKind::Map(keys().filter_map(|key| key.as_str().map(str::to_owned)).collect()),
                    _ => ListKind::Atomic,
                };
                Some(Type::List(Arc::new(ListType { item, kind })))
            }
            "object" => self.object(schema, root, name, depth),
            _ if schema.get("properties").is_some() => self.object(schema, root, name, depth),
            _ if flag("x-kubernetes-preserve-unknown-fields") && schema.get("type").is_none() => None,
            _ => None,
        }
    }

    fn object(&self, schema: &'s Json, root: bool, name: &str, depth: usize) -> Option<Type> {
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            return Some(Type::map(Type::String, self.read(values, false, &format!("{name}.@elem"), depth + 1)?));
        }
        if schema["additionalProperties"] == true {
            return Some(Type::map(Type::String, Type::Dyn));
        }
        let mut fields = BTreeMap::new();
        for (json, schema) in schema["properties"].as_object().into_iter().flatten() {
            let metadata = root && json == "metadata";
            let kind =
                if metadata { Some(metadata_type()) } else { self.read(schema, false, &format!("{name}.{json}"), depth + 1) };
            if let (Some(kind), Some(escaped)) = (kind, escape(json)) {
                fields.insert(escaped, Field { json: json.clone(), kind });
            }
        }
        if root {
            for (json, kind) in [("apiVersion", Type::String), ("kind", Type::String), ("metadata", metadata_type())] {
                fields.entry(json.to_owned()).or_insert(Field { json: json.to_owned(), kind });
            }
        }
        Some(Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields })))
    }
}

/// What an expression over a resource may see of its metadata.
fn metadata_type() -> Type {
    static METADATA: std::sync::LazyLock<Type> = std::sync::LazyLock::new(|| {
        let texts = || Type::map(Type::String, Type::String);
        let fields = [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", Type::String),
            ("uid", Type::String),
            ("resourceVersion", Type::String),
            ("generation", Type::Int),
            ("creationTimestamp", Type::Timestamp),
            ("deletionTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("finalizers", Type::list(Type::String)),
            ("ownerReferences", Type::list(Type::Dyn)),
        ];
        Type::object("ObjectMeta", fields)
    });
    METADATA.clone()
}

/// Words that can't be said as they are.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// What an expression says for a property's name: `a-b` is `a__dash__b`, `namespace` is `__namespace__`. `None`: it can't be said.
pub fn escape(property: &str) -> Option<String> {
    if RESERVED.contains(&property) {
        return Some(format!("__{property}__"));
    }
    let mut out = String::with_capacity(property.len());
    let mut chars = property.chars().peekable();
    if chars.peek().is_none_or(|first| first.is_ascii_digit()) {
        return None;
    }
    while let Some(c) = chars.next() {
        match c {
            '_' if chars.peek() == Some(&'_') => {
                chars.next();
                out += "__underscores__";
            }
            '.' => out += "__dot__",
            '-' => out += "__dash__",
            '/' => out += "__slash__",
            _ if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

/// As cel-go prints types in messages.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(list) => write!(f, "list({})", list.item),
            Type::Map(map) => write!(f, "map({}, {})", map.0, map.1),
            Type::Object(object) => f.write_str(&object.name),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Opaque(name) => f.write_str(name),
            Type::Type => f.write_str("type"),
            Type::Variable(n) => write!(f, "{}", (b'A' + n) as char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn properties_are_said_as_kubernetes_says_them() {
        for (property, said) in [
            ("namespace", Some("__namespace__")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("my_field", Some("my_field")),
            ("a__b", Some("a__underscores__b")),
            ("1a", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(escape(property).as_deref(), said, "{property}");
        }
    }

    #[test]
    fn a_schema_says_what_there_is() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "at": {"type": "string", "format": "date-time"},
                "names": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "any": {"x-kubernetes-preserve-unknown-fields": true},
                "port": {"x-kubernetes-int-or-string": true},
            }},
        }});
        let Some(Type::Object(object)) = Type::of_schema(&schema, true, &|_| None) else { panic!("an object") };
        assert_eq!(object.fields.keys().collect::<Vec<_>>(), ["apiVersion", "kind", "metadata", "spec"]);
        let Type::Object(spec) = &object.fields["spec"].kind else { panic!("an object") };
        assert_eq!(spec.fields.keys().collect::<Vec<_>>(), ["at", "names", "port"]);
        assert_eq!(spec.fields["at"].kind, Type::Timestamp);
        assert_eq!(spec.fields["names"].kind.to_string(), "list(string)");
    }
}
