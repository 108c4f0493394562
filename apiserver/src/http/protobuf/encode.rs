//! From JSON to protobuf, in one pass over the JSON: no tree is made of it.

use super::wire::Write;
use super::{Count, Error, Field, MAGIC, MESSAGES, Message, Place, SCHEMA, Type, find};
use crate::kind::Names;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// A whole body for any value that tells its kind; `None` if that kind has no message.
pub fn encode(object: &Value) -> Option<Result<Bytes, Error>> {
    let kind = object["kind"].as_str()?;
    // The list of the versions of the core group alone does not say which it is of.
    let api_version = object["apiVersion"].as_str().unwrap_or("v1");
    let mut raw = Vec::with_capacity(1024);
    let written = match find(api_version, kind) {
        Some(message) => write(message, object, &mut raw),
        None => {
            let item = kind.strip_suffix("List").and_then(|kind| find(api_version, kind))?;
            list(item, object, &mut raw)
        }
    };
    Some(written.map(|()| envelope(api_version, kind, &raw)))
}

fn list(item: &Message, object: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend_from_slice(&list_head(&object["metadata"])?);
    for object in object["items"].as_array().into_iter().flatten() {
        out.nested(2, |out| write(item, object, out))?;
    }
    Ok(())
}

/// The message of one stored object, without envelope.
pub fn of_entry(message: &Message, json: &[u8]) -> Result<Bytes, Error> {
    // A little less than the JSON, of which the names of fields are missing.
    let mut out = Vec::with_capacity(json.len() / 2);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    MessageSeed { message, out: &mut out }.deserialize(&mut deserializer)?;
    out.shrink_to_fit();
    Ok(out.into())
}

/// What begins the message of a list.
pub fn list_head(metadata: &Value) -> Result<Vec<u8>, Error> {
    let mut out = vec![];
    if let Some(message) = find("v1", "ListMeta") {
        out.nested(1, |out| write(message, metadata, out))?;
    }
    Ok(out)
}

/// One more object of a list: the bytes in front of its own.
pub fn within_list(object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(6);
    out.tag(2, 2);
    out.varint(object.len() as u64);
    out
}

/// The magic number and the envelope up to the message itself, which has `len` bytes.
pub fn wrapped(names: &Names, list: bool, len: usize) -> Vec<u8> {
    let kind = if list { format!("{}List", names.kind) } else { names.kind.to_owned() };
    head(&names.api_version(), &kind, len)
}

fn head(api_version: &str, kind: &str, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(MAGIC);
    out.nested(1, |out| {
        out.bytes(1, api_version.as_bytes());
        out.bytes(2, kind.as_bytes());
    });
    out.tag(2, 2);
    out.varint(len as u64);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Bytes {
    let mut out = head(api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out.into()
}

/// One event of a watch: its length in four bytes, then the event with the object in its envelope.
pub fn watch_event(type_: &str, head: &[u8], object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(head.len() + object.len() + 32);
    out.extend_from_slice(&[0; 4]);
    out.bytes(1, type_.as_bytes());
    out.nested(2, |out| {
        out.nested(1, |out| {
            out.extend_from_slice(head);
            out.extend_from_slice(object);
        });
    });
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes());
    out.into()
}

fn write(message: &Message, object: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    Ok(MessageSeed { message, out }.deserialize(object)?)
}

/// Writes the fields of a JSON object as those of a message.
struct MessageSeed<'a> {
    message: &'a Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut hidden = Hidden::default();
        while let Some(place) = map.next_key_seed(KeySeed(self.message))? {
            match place {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(place) => {
                    let out = if place.within.is_empty() { &mut *self.out } else { hidden.of(&place.within) };
                    map.next_value_seed(FieldSeed { field: &place.field, out })?;
                }
            }
        }
        hidden.write(self.out);
        Ok(())
    }
}

/// Messages whose fields JSON has one level further up, by the numbers that lead to them.
#[derive(Default)]
struct Hidden<'a>(Vec<(&'a [u32], Vec<u8>)>);

impl<'a> Hidden<'a> {
    fn of(&mut self, within: &'a [u32]) -> &mut Vec<u8> {
        let at = self.0.iter().position(|(known, _)| *known == within).unwrap_or_else(|| {
            self.0.push((within, vec![]));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn write(mut self, out: &mut Vec<u8>) {
        // The innermost first, each into the one around it.
        while let Some(deepest) = (0..self.0.len()).max_by_key(|at| self.0[*at].0.len()) {
            let (within, bytes) = self.0.swap_remove(deepest);
            match within.split_last() {
                Some((number, [])) => out.bytes(*number, &bytes),
                Some((number, around)) => self.of(around).bytes(*number, &bytes),
                None => {}
            }
        }
    }
}

/// A name of JSON, looked up without keeping it.
struct KeySeed<'a>(&'a Message);

impl<'de, 'a> DeserializeSeed<'de> for KeySeed<'a> {
    type Value = Option<&'a Place>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for KeySeed<'a> {
    type Value = Option<&'a Place>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.by_name.get(name))
    }
}

struct FieldSeed<'a> {
    field: &'a Field,
    out: &'a mut Vec<u8>,
}

impl<'a> FieldSeed<'a> {
    fn one(&mut self) -> ValueSeed<'_> {
        ValueSeed { number: self.field.number, type_: self.field.type_, out: self.out }
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        match self.field.count {
            Count::One => self.one().deserialize(deserializer),
            Count::List | Count::Map => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.field.count == Count::List { "a list" } else { "a map" })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        if self.field.count != Count::List {
            return Err(A::Error::custom("a list where a map is expected"));
        }
        while seq.next_element_seed(self.one())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.field.count != Count::Map {
            return Err(A::Error::custom("a map where a list is expected"));
        }
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            self.out.nested(self.field.number, |out| {
                out.bytes(1, key.as_bytes());
                map.next_value_seed(ValueSeed { number: 2, type_: self.field.type_, out })
            })?;
        }
        Ok(())
    }
}

/// One value, written as the field `number`.
struct ValueSeed<'a> {
    number: u32,
    type_: Type,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.type_ != Type::Raw {
            return deserializer.deserialize_any(self);
        }
        let raw = <Box<RawValue> as serde::Deserialize>::deserialize(deserializer)?;
        if raw.get() != "null" {
            self.out.nested(self.number, |out| out.bytes(1, raw.get().as_bytes()));
        }
        Ok(())
    }
}

impl ValueSeed<'_> {
    fn wrong<E: serde::de::Error>(&self, what: &str) -> E {
        E::custom(format!("{what} where {:?} is expected", self.type_))
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.type_)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        // An empty object in a list keeps its place.
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.type_ {
            Type::Bool => self.out.number(self.number, value.into()),
            Type::BoolOr => self.out.nested(self.number, |out| out.number(1, value.into())),
            _ => return Err(self.wrong("a boolean")),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match self.type_ {
            Type::Integer => self.out.number(self.number, value.cast_unsigned()),
            Type::Double => self.out.fixed(self.number, (value as f64).to_bits()),
            Type::IntOrString => self.out.nested(self.number, |out| {
                out.number(1, 0);
                out.number(2, value.cast_unsigned());
            }),
            Type::Quantity => self.out.nested(self.number, |out| out.bytes(1, value.to_string().as_bytes())),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.type_ {
            Type::Double => self.out.fixed(self.number, value.to_bits()),
            Type::Quantity => self.out.nested(self.number, |out| out.bytes(1, value.to_string().as_bytes())),
            Type::Integer if value.fract() == 0.0 && value.abs() < 9e15 => return self.visit_i64(value as i64),
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let bytes = text.as_bytes();
        match self.type_ {
            Type::Text => self.out.bytes(self.number, bytes),
            Type::Bytes => {
                let decoded = STANDARD.decode(bytes).map_err(E::custom)?;
                self.out.bytes(self.number, &decoded);
            }
            Type::Time { .. } => {
                let time: jiff::Timestamp = text.parse().map_err(E::custom)?;
                self.out.nested(self.number, |out| {
                    out.number(1, time.as_second().cast_unsigned());
                    out.number(2, i64::from(time.subsec_nanosecond()).cast_unsigned());
                });
            }
            Type::Quantity => self.out.nested(self.number, |out| out.bytes(1, bytes)),
            Type::IntOrString => self.out.nested(self.number, |out| {
                out.number(1, 1);
                out.bytes(3, bytes);
            }),
            _ => return Err(self.wrong("text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (number, inner) = match self.type_ {
            Type::Texts => (1, Type::Text),
            Type::OrNames => (2, Type::Text),
            Type::OneOrMany => (2, Type::Message(*SCHEMA)),
            _ => return Err(self.wrong("a list")),
        };
        self.out.nested(self.number, |out| {
            while seq.next_element_seed(ValueSeed { number, type_: inner, out })?.is_some() {}
            Ok(())
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let schema = &MESSAGES.all[*SCHEMA];
        match self.type_ {
            Type::Message(number) => {
                let message = &MESSAGES.all[number];
                self.out.nested(self.number, |out| MessageSeed { message, out }.visit_map(map))
            }
            Type::OneOrMany | Type::OrNames => {
                self.out.nested(self.number, |out| out.nested(1, |out| MessageSeed { message: schema, out }.visit_map(map)))
            }
            Type::BoolOr => self.out.nested(self.number, |out| {
                out.number(1, 1);
                out.nested(2, |out| MessageSeed { message: schema, out }.visit_map(map))
            }),
            _ => Err(self.wrong("an object")),
        }
    }
}
