//! Values while an expression is evaluated. What comes from JSON is borrowed and read only where the expression looks.

use crate::cel::evaluate::Error;
use crate::cel::evaluate::Frame;
use crate::cel::library::opaque::Opaque;
use crate::cel::types::{ListKind, ListType, ObjectType, Type};
use jiff::Timestamp;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// In nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Arc<str>),
    Opaque(Opaque<'a>),
}

#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

#[derive(Clone)]
pub enum List<'a> {
    Json(&'a [Json], &'a Type),
    Built(Arc<Vec<Value<'a>>>),
}

#[derive(Clone)]
pub enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>, &'a Type),
    Built(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// An object built by an expression (`Object.spec{…}`), with the name of its type.
    Struct(Arc<str>, Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// Evaluated when asked for.
    Lazy(&'a dyn Lazy<'a>),
}

/// Fields that are made when they are looked at, as `variables` of a policy.
pub trait Lazy<'a>: Sync {
    /// `None`: there is no such field.
    fn field(&'a self, name: &str, frame: &mut Frame<'_, 'a>) -> Option<Result<Value<'a>, Error>>;
}

#[derive(Clone)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

static DYN: Type = Type::Dyn;

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl<'a> Value<'a> {
    /// As it is read without a schema.
    pub fn of(json: &'a Json) -> Value<'a> {
        Value::typed(json, &DYN)
    }

    /// As the schema says that it is to be read. What does not fit is read as it is.
    pub fn typed(json: &'a Json, kind: &'a Type) -> Value<'a> {
        match (json, kind) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(value), _) => Value::Bool(*value),
            (Json::Number(number), Type::Double) => Value::Double(number.as_f64().unwrap_or_default()),
            (Json::Number(number), kind) => match (number.as_i64(), number.as_f64().unwrap_or_default()) {
                (Some(value), _) => Value::Int(value),
                (None, value) if *kind == Type::Int && value.fract() == 0.0 && value.abs() < 9e18 => Value::Int(value as i64),
                (None, value) => Value::Double(value),
            },
            (Json::String(text), kind) => Value::text_of(text, kind),
            (Json::Array(items), kind) => Value::List(List::Json(items, kind)),
            (Json::Object(fields), kind) => Value::Map(Map::Json(fields, kind)),
        }
    }

    fn text_of(text: &'a str, kind: &Type) -> Value<'a> {
        let typed = match kind {
            Type::Timestamp => crate::cel::library::time::parse_timestamp(text)
                .or_else(|| crate::cel::library::time::parse_date(text))
                .map(Value::Timestamp),
            Type::Duration => crate::cel::library::time::parse_duration(text).map(Value::Duration),
            Type::Bytes => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into()))
            }
            _ => None,
        };
        typed.unwrap_or(Value::String(Text::Borrowed(text)))
    }

    pub fn string(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::String(Text::Shared(text.into()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Built(Arc::new(items)))
    }

    pub fn map(entries: BTreeMap<Key<'a>, Value<'a>>) -> Value<'a> {
        Value::Map(Map::Built(Arc::new(entries)))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self { Some(*value) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text.as_str()) } else { None }
    }

    /// As `type(x)` prints it, and messages do.
    pub fn type_name(&self) -> Cow<'_, str> {
        match self {
            Value::Null => "null_type".into(),
            Value::Bool(_) => "bool".into(),
            Value::Int(_) => "int".into(),
            Value::Uint(_) => "uint".into(),
            Value::Double(_) => "double".into(),
            Value::String(_) => "string".into(),
            Value::Bytes(_) => "bytes".into(),
            Value::Timestamp(_) => "google.protobuf.Timestamp".into(),
            Value::Duration(_) => "google.protobuf.Duration".into(),
            Value::List(_) => "list".into(),
            Value::Map(Map::Struct(name, _)) => name.to_string().into(),
            Value::Map(_) => "map".into(),
            Value::Optional(_) => "optional_type".into(),
            Value::Type(_) => "type".into(),
            Value::Opaque(opaque) => opaque.type_name().into(),
        }
    }

    /// Whether a value may be handed to a parameter of this type.
    pub fn is(&self, kind: &Type) -> bool {
        match (self, kind) {
            (_, Type::Dyn | Type::Variable(_)) => true,
            (Value::Null, Type::Null) => true,
            (Value::Bool(_), Type::Bool) | (Value::Int(_), Type::Int) | (Value::Uint(_), Type::Uint) => true,
            (Value::Double(_), Type::Double) | (Value::String(_), Type::String) | (Value::Bytes(_), Type::Bytes) => true,
            (Value::Timestamp(_), Type::Timestamp) | (Value::Duration(_), Type::Duration) => true,
            (Value::List(_), Type::List(_)) => true,
            (Value::Map(_), Type::Map(_) | Type::Object(_)) => true,
            (Value::Optional(_), Type::Optional(_)) => true,
            (Value::Type(_), Type::Type) => true,
            (Value::Opaque(opaque), Type::Opaque(name)) => opaque.type_name() == *name,
            _ => false,
        }
    }

    /// The order of `<`; `None` if there is none between such values.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            _ => compare_numbers(self, other),
        }
    }
}

/// Numbers of different types compare by what they count.
fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Int(a), Value::Double(b)) => compare_double(i128::from(*a), *b),
        (Value::Uint(a), Value::Double(b)) => compare_double(i128::from(*a), *b),
        (Value::Double(a), Value::Int(b)) => compare_double(i128::from(*b), *a).map(Ordering::reverse),
        (Value::Double(a), Value::Uint(b)) => compare_double(i128::from(*b), *a).map(Ordering::reverse),
        _ => None,
    }
}

fn compare_double(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b >= 1e19 {
        return Some(Ordering::Less);
    }
    if b <= -1e19 {
        return Some(Ordering::Greater);
    }
    let whole = b.trunc() as i128;
    Some(a.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)))
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Built(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            List::Json(items, kind) => items.get(index).map(|item| Value::typed(item, item_type(kind))),
            List::Built(items) => items.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'_, 'a> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn kind(&self) -> &ListKind {
        match self {
            List::Json(_, Type::List(list)) => &list.kind,
            _ => &ListKind::Atomic,
        }
    }
}

fn item_type(kind: &Type) -> &Type {
    match kind {
        Type::List(list) => {
            let ListType { item, .. } = &**list;
            item
        }
        _ => &DYN,
    }
}

impl<'a> Map<'a> {
    /// How many fields can be seen.
    pub fn len(&self) -> usize {
        match self {
            Map::Json(fields, kind) => match kind {
                Type::Object(object) => object.fields.values().filter(|field| fields.contains_key(&field.json)).count(),
                _ => fields.len(),
            },
            Map::Built(entries) | Map::Struct(_, entries) => entries.len(),
            Map::Lazy(_) => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a field's or a key's name.
    pub fn text(&self, name: &str, frame: &mut Frame<'_, 'a>) -> Option<Result<Value<'a>, Error>> {
        match self {
            Map::Json(fields, kind) => json_field(fields, kind, name).map(Ok),
            Map::Built(entries) | Map::Struct(_, entries) => {
                entries.get(&Key::String(Text::Shared(name.into()))).cloned().map(Ok)
            }
            Map::Lazy(lazy) => lazy.field(name, frame),
        }
    }

    pub fn get(&self, key: &Value<'a>, frame: &mut Frame<'_, 'a>) -> Option<Result<Value<'a>, Error>> {
        match (self, key) {
            (_, Value::String(text)) => self.text(text.as_str(), frame),
            (Map::Built(entries), key) => entries.get(&Key::of(key.clone())?).cloned().map(Ok),
            _ => None,
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json(fields, Type::Object(object)) => {
                let there = object.fields.iter().filter(|(_, field)| fields.contains_key(&field.json));
                there.map(|(name, _)| Value::string(name.as_str())).collect()
            }
            Map::Json(fields, _) => fields.keys().map(|name| Value::String(Text::Borrowed(name))).collect(),
            Map::Built(entries) | Map::Struct(_, entries) => entries.keys().cloned().map(Value::from).collect(),
            Map::Lazy(_) => vec![],
        }
    }
}

fn json_field<'a>(fields: &'a serde_json::Map<String, Json>, kind: &'a Type, name: &str) -> Option<Value<'a>> {
    match kind {
        Type::Object(object) => {
            let ObjectType { fields: known, .. } = &**object;
            let field = known.get(name)?;
            Some(Value::typed(fields.get(&field.json)?, &field.kind))
        }
        Type::Map(map) => Some(Value::typed(fields.get(name)?, &map.1)),
        _ => Some(Value::of(fields.get(name)?)),
    }
}

impl<'a> Key<'a> {
    /// `None`: nothing of this type is a key.
    pub fn of(value: Value<'a>) -> Option<Key<'a>> {
        match value {
            Value::Bool(value) => Some(Key::Bool(value)),
            Value::Int(value) => Some(Key::Int(value)),
            Value::Uint(value) => Some(i64::try_from(value).map_or(Key::Uint(value), Key::Int)),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9e18 => Some(Key::Int(value as i64)),
            Value::String(text) => Some(Key::String(text)),
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Key::Bool(_) => 0,
            Key::Int(_) => 1,
            Key::Uint(_) => 2,
            Key::String(_) => 3,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
            (Key::Int(a), Key::Int(b)) => a.cmp(b),
            (Key::Uint(a), Key::Uint(b)) => a.cmp(b),
            (Key::String(a), Key::String(b)) => a.as_str().cmp(b.as_str()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key<'_> {}

impl<'a> From<Key<'a>> for Value<'a> {
    fn from(key: Key<'a>) -> Self {
        match key {
            Key::Bool(value) => Value::Bool(value),
            Key::Int(value) => Value::Int(value),
            Key::Uint(value) => Value::Uint(value),
            Key::String(text) => Value::String(text),
        }
    }
}

impl<'a> Value<'a> {
    /// Whether two values are equal; every step of a long comparison costs.
    pub fn equals(&self, other: &Value<'a>, frame: &mut Frame<'_, 'a>) -> Result<bool, Error> {
        frame.charge(1)?;
        match (self, other) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::String(a), Value::String(b)) => {
                frame.charge_text(a.as_str().len().min(b.as_str().len()))?;
                Ok(a.as_str() == b.as_str())
            }
            (Value::Bytes(a), Value::Bytes(b)) => {
                frame.charge_text(a.len().min(b.len()))?;
                Ok(a == b)
            }
            (Value::List(a), Value::List(b)) => a.equals(b, frame),
            (Value::Map(a), Value::Map(b)) => a.equals(b, frame),
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, frame),
                (a, b) => Ok(a.is_none() && b.is_none()),
            },
            (Value::Type(a), Value::Type(b)) => Ok(a == b),
            (Value::Opaque(a), Value::Opaque(b)) => Ok(a.equals(b)),
            (Value::Bool(_), Value::Bool(_))
            | (Value::Timestamp(_), Value::Timestamp(_))
            | (Value::Duration(_), Value::Duration(_)) => Ok(self.compare(other) == Some(Ordering::Equal)),
            _ => Ok(compare_numbers(self, other) == Some(Ordering::Equal)),
        }
    }

    /// As JSON, for what an expression builds.
    pub fn to_json(&self, frame: &mut Frame<'_, 'a>) -> Result<Json, Error> {
        frame.charge(1)?;
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Uint(value) => (*value).into(),
            Value::Double(value) => (*value).into(),
            Value::String(text) => {
                frame.charge_text(text.as_str().len())?;
                text.as_str().into()
            }
            Value::Bytes(bytes) => {
                use base64::Engine;
                frame.charge_text(bytes.len())?;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Value::Timestamp(time) => crate::cel::library::time::print_timestamp(*time).into(),
            Value::Duration(nanos) => crate::cel::library::time::print_duration(*nanos).into(),
            Value::List(list) => {
                let mut out = Vec::with_capacity(list.len());
                for item in list.iter() {
                    out.push(item.to_json(frame)?);
                }
                out.into()
            }
            Value::Map(map) => {
                let mut out = serde_json::Map::new();
                for key in map.keys() {
                    let Some(value) = map.get(&key, frame) else { continue };
                    let name = match &key {
                        Value::String(text) => text.as_str().to_owned(),
                        Value::Int(n) => n.to_string(),
                        Value::Uint(n) => n.to_string(),
                        Value::Bool(b) => b.to_string(),
                        _ => continue,
                    };
                    out.insert(name, value?.to_json(frame)?);
                }
                out.into()
            }
            Value::Optional(Some(value)) => value.to_json(frame)?,
            Value::Optional(None) => Json::Null,
            Value::Type(name) => (&**name).into(),
            Value::Opaque(opaque) => opaque.print().into(),
        })
    }
}

impl<'a> List<'a> {
    fn equals(&self, other: &List<'a>, frame: &mut Frame<'_, 'a>) -> Result<bool, Error> {
        if self.len() != other.len() {
            return Ok(false);
        }
        if *self.kind() == ListKind::Atomic {
            for (a, b) in self.iter().zip(other.iter()) {
                if !a.equals(&b, frame)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        // Of sets, and of lists that are maps by their keys, the order does not count.
        for a in self.iter() {
            let mut found = false;
            for b in other.iter() {
                found = found || a.equals(&b, frame)?;
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn contains(&self, value: &Value<'a>, frame: &mut Frame<'_, 'a>) -> Result<bool, Error> {
        for item in self.iter() {
            if item.equals(value, frame)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<'a> Map<'a> {
    fn equals(&self, other: &Map<'a>, frame: &mut Frame<'_, 'a>) -> Result<bool, Error> {
        if self.len() != other.len() {
            return Ok(false);
        }
        for key in self.keys() {
            let (Some(a), Some(b)) = (self.get(&key, frame), other.get(&key, frame)) else { return Ok(false) };
            if !a?.equals(&b?, frame)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
