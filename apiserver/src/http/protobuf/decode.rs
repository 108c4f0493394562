//! From protobuf to JSON.

use super::wire::{Parts, Wire, varint};
use super::{Count, DEPTH_MAX, Empty, Error, Field, MAGIC, MESSAGES, Message, SCHEMA, Type, find};
use crate::http::error::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The JSON value that a body stands for, `kind` and `apiVersion` included.
pub fn decode(body: &[u8]) -> Result<Value, Status> {
    read(body).map_err(|error| Status::bad_request(format!("the protobuf body of the request could not be read: {error}")))
}

pub(super) fn read(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| Error::Unknown("it lacks the prefix \"k8s\\0\"".into()))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for part in Parts(envelope) {
        match part? {
            (1, Wire::Bytes(type_meta)) => {
                for part in Parts(type_meta) {
                    match part? {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let unknown = || Error::Unknown(format!("no kind \"{kind}\" in version \"{api_version}\" is known"));
    let mut object = Map::new();
    match (find(&api_version, &kind), kind.strip_suffix("List").and_then(|kind| find(&api_version, kind))) {
        (Some(message), _) => fill(&mut object, message, raw, 0)?,
        (None, Some(item)) => list(&mut object, item, raw)?,
        (None, None) => return Err(unknown()),
    }
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    Ok(Value::Object(object))
}

fn list(object: &mut Map<String, Value>, item: &Message, bytes: &[u8]) -> Result<(), Error> {
    let mut items = vec![];
    for part in Parts(bytes) {
        match part? {
            (1, Wire::Bytes(bytes)) => {
                let metadata = find("v1", "ListMeta").map(|message| inner(message, bytes, 1)).transpose()?;
                object.insert("metadata".into(), metadata.into());
            }
            (2, Wire::Bytes(bytes)) => items.push(inner(item, bytes, 1)?),
            _ => {}
        }
    }
    object.insert("items".into(), items.into());
    Ok(())
}

fn inner(message: &Message, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut object = Map::new();
    fill(&mut object, message, bytes, depth)?;
    Ok(Value::Object(object))
}

/// Reads a message's fields into `object`.
fn fill(object: &mut Map<String, Value>, message: &Message, bytes: &[u8], depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep);
    }
    for part in Parts(bytes) {
        let (number, wire) = part?;
        // Fields of a newer version than this are passed over, as protobuf has it.
        let Some(field) = message.by_number.get(&number) else { continue };
        if let (Type::Message(inner), "!") = (field.type_, field.name) {
            let Wire::Bytes(bytes) = wire else { return Err(Error::WireType) };
            fill(object, &MESSAGES.all[inner], bytes, depth + 1)?;
            continue;
        }
        match field.count {
            Count::One => {
                let value = value(field.type_, wire, depth)?;
                if !is_nothing(field, &value) {
                    object.insert(field.name.into(), value);
                }
            }
            Count::List => {
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                let list = list.as_array_mut().ok_or(Error::WireType)?;
                match (field.type_, &wire) {
                    // Numbers may be packed.
                    (Type::Integer | Type::Bool, Wire::Bytes(bytes)) => {
                        let mut rest = *bytes;
                        while !rest.is_empty() {
                            list.push(value(field.type_, Wire::Number(varint(&mut rest)?), depth)?);
                        }
                    }
                    _ => list.push(value(field.type_, wire, depth)?),
                }
            }
            Count::Map => {
                let Wire::Bytes(entry) = wire else { return Err(Error::WireType) };
                let (key, value) = entry_of(field.type_, entry, depth)?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                map.as_object_mut().ok_or(Error::WireType)?.insert(key, value);
            }
        }
    }
    Ok(())
}

fn entry_of(type_: Type, entry: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let mut key = String::new();
    let mut found = None;
    for part in Parts(entry) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => found = Some(value(type_, wire, depth)?),
            _ => {}
        }
    }
    let value = match found {
        Some(value) => value,
        None if matches!(type_, Type::Integer | Type::Bool) => value(type_, Wire::Number(0), depth)?,
        None => value(type_, Wire::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

/// Whether Go wrote the field only because it writes all that is not behind a pointer.
fn is_nothing(field: &Field, value: &Value) -> bool {
    let empty = match value {
        Value::Null => return true,
        Value::String(text) => text.is_empty(),
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => return false,
    };
    empty && field.empty == Empty::Nothing && field.type_ != Type::IntOrString
}

fn value(type_: Type, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match (type_, wire) {
        (Type::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Bool, Wire::Number(number)) => (number != 0).into(),
        // Negative numbers are written as the 64 bits of their two's complement.
        (Type::Integer, Wire::Number(number)) => number.cast_signed().into(),
        (Type::Double, Wire::Fixed(bits)) => f64::from_bits(bits).into(),
        (Type::Time { fraction }, Wire::Bytes(bytes)) => time(bytes, fraction)?,
        (Type::Quantity, Wire::Bytes(bytes)) => {
            bytes_of(bytes, 1)?.map_or(Ok(Value::Null), |bytes| text(bytes).map(Value::from))?
        }
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Type::Raw, Wire::Bytes(bytes)) => match bytes_of(bytes, 1)? {
            Some([]) | None => Value::Null,
            Some(json) => serde_json::from_slice(json)?,
        },
        (Type::Texts, Wire::Bytes(bytes)) => texts(bytes, 1)?,
        (Type::OneOrMany, Wire::Bytes(bytes)) => match bytes_of(bytes, 1)? {
            Some(one) => inner(&MESSAGES.all[*SCHEMA], one, depth + 1)?,
            None => {
                let all = Parts(bytes).filter_map(|part| match part {
                    Ok((2, Wire::Bytes(bytes))) => Some(inner(&MESSAGES.all[*SCHEMA], bytes, depth + 1)),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                });
                Value::Array(all.collect::<Result<_, _>>()?)
            }
        },
        (Type::BoolOr, Wire::Bytes(bytes)) => match bytes_of(bytes, 2)? {
            Some(schema) => inner(&MESSAGES.all[*SCHEMA], schema, depth + 1)?,
            None => (number_of(bytes, 1)? != 0).into(),
        },
        (Type::OrNames, Wire::Bytes(bytes)) => match bytes_of(bytes, 1)? {
            Some(schema) => inner(&MESSAGES.all[*SCHEMA], schema, depth + 1)?,
            None => texts(bytes, 2)?,
        },
        (Type::Message(number), Wire::Bytes(bytes)) => inner(&MESSAGES.all[number], bytes, depth + 1)?,
        _ => return Err(Error::WireType),
    })
}

/// A time that was never set is written as an empty message.
pub(super) fn time(bytes: &[u8], fraction: bool) -> Result<Value, Error> {
    /// Go's zero time, in the year 1.
    const NEVER: i64 = -62_135_596_800;
    let (seconds, nanos) = (number_of(bytes, 1)?, number_of(bytes, 2)?);
    if bytes.is_empty() || seconds == NEVER {
        return Ok(Value::Null);
    }
    let nanos = if fraction { i32::try_from(nanos).unwrap_or_default() } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| Error::Unknown(error.to_string()))?;
    Ok(time.strftime(if fraction { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" }).to_string().into())
}

pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    if number_of(bytes, 1)? == 0 {
        return Ok(number_of(bytes, 2)?.into());
    }
    Ok(bytes_of(bytes, 3)?.map_or(Ok(String::new()), text)?.into())
}

/// The number in one field of a message; 0 if it is absent.
fn number_of(bytes: &[u8], field: u32) -> Result<i64, Error> {
    let mut found = 0;
    for part in Parts(bytes) {
        if let (number, Wire::Number(value)) = part?
            && number == field
        {
            found = value.cast_signed();
        }
    }
    Ok(found)
}

/// The bytes in one field of a message.
fn bytes_of(bytes: &[u8], field: u32) -> Result<Option<&[u8]>, Error> {
    let mut found = None;
    for part in Parts(bytes) {
        if let (number, Wire::Bytes(bytes)) = part?
            && number == field
        {
            found = Some(bytes);
        }
    }
    Ok(found)
}

fn texts(bytes: &[u8], field: u32) -> Result<Value, Error> {
    let mut all = vec![];
    for part in Parts(bytes) {
        if let (number, Wire::Bytes(bytes)) = part?
            && number == field
        {
            all.push(Value::from(text(bytes)?));
        }
    }
    Ok(all.into())
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Text)
}
