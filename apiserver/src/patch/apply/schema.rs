//! What merging must know of a place in an object: who may own what of it. Made of the built-in types, of a custom
//! resource's OpenAPI schema, or, without one, of the value itself.

use super::element::Element;
use super::structural::{ListNode, MapNode, Node, Scalar, Structural, Values};
use crate::openapi::rules::List;
use crate::openapi::schema::{self, Shape, Type, schemas};
use serde_json::{Map, Value};

/// The type of one place.
#[derive(Debug, Clone, Copy)]
pub enum Schema<'s> {
    Builtin(schema::Schema),
    Structural(&'s Structural),
    /// Nothing is known: maps are merged, all else has one owner.
    Deduced,
    /// Nothing is known, and one owner has it all.
    Whole,
}

/// How a value is owned.
pub enum Form<'s> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Map(Fields<'s>),
    /// Element by element.
    List(Items<'s>),
}

/// What a map or struct holds.
#[derive(Clone, Copy)]
pub enum Fields<'s> {
    Type(&'static Type),
    Values(Schema<'s>),
    Structural(&'s MapNode),
}

/// One field of a map or struct.
pub struct Field<'s> {
    pub schema: Schema<'s>,
    /// Whether the type names it, so that it isn't an entry of a map.
    pub declared: bool,
    /// Whether Go's zero value has it.
    pub inline: bool,
}

/// What a list holds.
#[derive(Clone, Copy)]
pub struct Items<'s> {
    pub schema: Schema<'s>,
    keys: Keys<'s>,
}

#[derive(Clone, Copy)]
enum Keys<'s> {
    /// Each element is its own key.
    Set,
    Builtin(&'static [&'static str]),
    Structural(&'s [Box<str>]),
}

/// What a value may be; several only where the schema leaves it open.
pub struct Allowed<'s> {
    pub scalar: Option<Scalar>,
    pub map: Option<Fields<'s>>,
    /// The elements' schema, and how they are told apart unless the list has one owner.
    pub list: Option<(Schema<'s>, Option<Items<'s>>)>,
}

/// A schema whose structural part, if it is one, was looked into.
enum Flat<'s> {
    Builtin(schema::Schema),
    Node(&'s Node),
    Deduced,
    Whole,
}

impl<'s> Schema<'s> {
    fn flat(self) -> Flat<'s> {
        match self {
            Schema::Builtin(builtin) | Schema::Structural(&Structural::Builtin(builtin)) => Flat::Builtin(builtin),
            Schema::Structural(Structural::Node(node)) => Flat::Node(node),
            Schema::Deduced => Flat::Deduced,
            Schema::Whole => Flat::Whole,
        }
    }

    /// How `value` is owned here. A null is whatever else may stand in its place.
    pub fn form(self, value: &Value) -> Form<'s> {
        match self.flat() {
            Flat::Whole => Form::Leaf,
            Flat::Deduced => match value {
                Value::Object(_) | Value::Null => Form::Map(Fields::Values(Schema::Deduced)),
                _ => Form::Leaf,
            },
            Flat::Builtin(builtin) => Self::form_of_builtin(builtin),
            Flat::Node(node) => match (value, &node.map, &node.list) {
                (Value::Object(_) | Value::Null, Some(map), _) => match map.atomic {
                    true => Form::Leaf,
                    false => Form::Map(Fields::Structural(map)),
                },
                (Value::Null, ..) if node.scalar.is_some() => Form::Leaf,
                (Value::Array(_) | Value::Null, _, Some(list)) => Items::structural(list).map_or(Form::Leaf, Form::List),
                _ => Form::Leaf,
            },
        }
    }

    fn form_of_builtin(builtin: schema::Schema) -> Form<'s> {
        let rule = builtin.rule();
        match builtin.shape() {
            _ if rule.atomic_map => Form::Leaf,
            Shape::Type(number) => match schemas().type_of(*number) {
                kind if kind.atomic => Form::Leaf,
                kind => Form::Map(Fields::Type(kind)),
            },
            Shape::Map(values) => Form::Map(Fields::Values(Schema::Builtin(schema::Schema::at(values, Default::default())))),
            Shape::List(items) => Items::builtin(items, rule.list).map_or(Form::Leaf, Form::List),
            _ => Form::Leaf,
        }
    }

    /// What may stand here at all.
    pub fn allowed(self) -> Allowed<'s> {
        match self.flat() {
            Flat::Whole => Allowed {
                scalar: Some(Scalar::Untyped),
                map: Some(Fields::Values(Schema::Whole)),
                list: Some((Schema::Whole, None)),
            },
            Flat::Deduced => Allowed {
                scalar: Some(Scalar::Untyped),
                map: Some(Fields::Values(Schema::Deduced)),
                list: Some((Schema::Whole, None)),
            },
            Flat::Builtin(builtin) => Self::allowed_of_builtin(builtin),
            Flat::Node(node) => Allowed {
                scalar: node.scalar,
                map: node.map.as_ref().map(Fields::Structural),
                list: node.list.as_ref().map(|list| (list.items(), Items::structural(list))),
            },
        }
    }

    fn allowed_of_builtin(builtin: schema::Schema) -> Allowed<'s> {
        let mut allowed = Allowed { scalar: None, map: None, list: None };
        let plain = |shape| Schema::Builtin(schema::Schema::at(shape, Default::default()));
        match builtin.shape() {
            Shape::Type(number) => allowed.map = Some(Fields::Type(schemas().type_of(*number))),
            Shape::Map(values) => allowed.map = Some(Fields::Values(plain(values))),
            Shape::List(items) => allowed.list = Some((plain(items), Items::builtin(items, builtin.rule().list))),
            Shape::Text | Shape::Choice(_) | Shape::Bytes => allowed.scalar = Some(Scalar::Text),
            Shape::Bool => allowed.scalar = Some(Scalar::Bool),
            Shape::Int32 | Shape::Int64 | Shape::Float => allowed.scalar = Some(Scalar::Number),
            Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::IntOrText => allowed.scalar = Some(Scalar::Untyped),
            Shape::Any | Shape::TypeOrOther(_) => return Schema::Whole.allowed(),
        }
        allowed
    }

    /// Whether a value that is a map or list has one owner, whatever it is.
    pub fn is_atomic(self) -> bool {
        match self.flat() {
            Flat::Whole => true,
            Flat::Deduced => false,
            Flat::Builtin(builtin) => {
                matches!(Self::form_of_builtin(builtin), Form::Leaf)
            }
            Flat::Node(node) => {
                node.map.as_ref().map_or(node.list.as_ref().is_some_and(|list| list.keys.is_none()), |map| map.atomic)
            }
        }
    }

    /// What lies behind an element of a set of places, if the schema knows it.
    pub fn behind(self, element: &Element) -> Option<Field<'s>> {
        match element {
            Element::Field(name) => self.allowed().map.and_then(|fields| fields.get(name)),
            _ => self.allowed().list.map(|(schema, _)| Field { schema, declared: false, inline: false }),
        }
    }

    /// The value that a field has when it is left out.
    fn default_of(self, name: &str) -> Option<Value> {
        match self.flat() {
            Flat::Builtin(builtin) => match (name, builtin.field(name)?.shape()) {
                ("protocol", _) => Some("TCP".into()),
                (_, Shape::Text | Shape::Choice(_)) => Some("".into()),
                (_, Shape::Int32 | Shape::Int64) => Some(0.into()),
                _ => None,
            },
            Flat::Node(node) => node.map.as_ref()?.find(name)?.default.clone(),
            _ => None,
        }
    }
}

impl<'s> Fields<'s> {
    /// The field or entry of this name; `None` if there can be none.
    pub fn get(self, name: &str) -> Option<Field<'s>> {
        match self {
            Fields::Type(kind) => {
                let field = kind.field(name)?;
                let schema = Schema::Builtin(schema::Schema::at(&field.shape, field.rule));
                Some(Field { schema, declared: true, inline: field.inline })
            }
            Fields::Values(schema) => Some(Field { schema, declared: false, inline: false }),
            Fields::Structural(node) => match node.find(name) {
                Some(field) => Some(Field { schema: Schema::Structural(&field.schema), declared: true, inline: false }),
                None => {
                    let schema = match &node.values {
                        Values::None => return None,
                        Values::Deduced => Schema::Deduced,
                        Values::Of(schema) => Schema::Structural(schema),
                    };
                    Some(Field { schema, declared: false, inline: false })
                }
            },
        }
    }

    /// The same for an object that is stored already: what its schema doesn't know is taken as it is.
    pub fn of_stored(self, name: &str) -> Field<'s> {
        self.get(name).unwrap_or(Field { schema: Schema::Deduced, declared: true, inline: false })
    }
}

impl<'s> Items<'s> {
    fn builtin(items: &'static Shape, list: Option<List>) -> Option<Self> {
        let keys = match list? {
            List::Atomic => return None,
            List::Set => Keys::Set,
            List::Keyed(keys) => Keys::Builtin(keys),
        };
        Some(Items { schema: Schema::Builtin(schema::Schema::at(items, Default::default())), keys })
    }

    fn structural(list: &'s ListNode) -> Option<Self> {
        let keys = match list.keys.as_deref()? {
            [] => Keys::Set,
            keys => Keys::Structural(keys),
        };
        Some(Items { schema: list.items(), keys })
    }

    /// What tells an item from the others, or why nothing does.
    pub fn element(&self, item: &Value) -> Result<Element, String> {
        let shown = |names: &[&str]| format!("{names:?}").replace(", ", " ");
        match self.keys {
            Keys::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(Element::Item(scalar.clone())),
            },
            Keys::Builtin(keys) => self.key(keys.iter().copied(), item, || shown(keys)),
            Keys::Structural(keys) => {
                let names = || shown(&keys.iter().map(|key| &**key).collect::<Vec<_>>());
                self.key(keys.iter().map(|key| &**key), item, names)
            }
        }
    }

    fn key<'k>(&self, names: impl Iterator<Item = &'k str>, item: &Value, shown: impl Fn() -> String) -> Result<Element, String> {
        let item: &Map<String, Value> = match item {
            Value::Object(item) => item,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let value = |name: &str| item.get(name).cloned().or_else(|| self.schema.default_of(name));
        let fields: Vec<_> = names.filter_map(|name| Some((name.into(), value(name)?))).collect();
        if fields.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {} (and doesn't have default values for any key fields)",
                shown()
            ));
        }
        Ok(Element::key(fields))
    }
}
