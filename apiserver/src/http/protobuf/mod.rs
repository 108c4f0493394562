//! Bodies in protobuf, read as the JSON that they stand for.
//!
//! Go clients from 1.32 on (kubectl's `create`, `drain`, …) write what they send in protobuf and do not fall back. Only
//! this direction is needed: every client reads JSON.
//!
//! `fields.txt` has the numbers of the fields: a type on a line of its own, below it `number name type`. The types are `s`
//! text, `b` bool, `i` integer, `y` bytes, `d` double, a type of the file, or one whose JSON is not an object (`time`,
//! `quantity`, …); `*` before it is a list, `{` a map from text. The name `!` stands for a type whose fields JSON has one
//! level further up.

use crate::http::error::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What a body begins with, before the envelope.
const MAGIC: &[u8] = b"k8s\0";
/// Objects within objects; no type of the API comes near this.
const DEPTH_MAX: usize = 64;

/// Integers and booleans that Go keeps behind pointers: a zero was written on purpose. All others are written always,
/// and a zero means nothing.
const ZERO_COUNTS: [&str; 48] = [
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "automountServiceAccountToken",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "fsGroup",
    "gracePeriodSeconds",
    "hostProcess",
    "hostUsers",
    "ignoreStoreReadSyncErrorWithClusterBreakingPotential",
    "immutable",
    "leaseDurationSeconds",
    "leaseTransitions",
    "maxFailedIndexes",
    "minDomains",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "started",
    "succeeded",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

#[derive(Debug, Clone, PartialEq)]
enum Type {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Time { fraction: bool },
    Quantity,
    IntOrString,
    Raw,
    Duration,
    Message(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    One,
    List,
    Map,
}

#[derive(Debug, Clone)]
struct Field {
    name: &'static str,
    type_: Type,
    count: Count,
}

type Message = HashMap<u32, Field>;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut messages: HashMap<&str, Message> = HashMap::new();
    let mut current = "";
    for line in include_str!("fields.txt").lines() {
        let mut words = line.split_whitespace();
        match (line.starts_with(' '), words.next(), words.next(), words.next()) {
            (true, Some(number), Some(name), Some(type_)) => {
                let number = number.parse().expect("fields.txt numbers its fields");
                messages.entry(current).or_default().insert(number, field(name, type_));
            }
            (_, Some(name), ..) => {
                current = name;
                messages.entry(name).or_default();
            }
            _ => {}
        }
    }
    messages
});

fn field(name: &'static str, type_: &'static str) -> Field {
    let (count, type_) = match type_.as_bytes()[0] {
        b'*' => (Count::List, &type_[1..]),
        b'{' => (Count::Map, &type_[1..]),
        _ => (Count::One, type_),
    };
    let type_ = match type_ {
        "s" => Type::Text,
        "b" => Type::Bool,
        "i" => Type::Integer,
        "d" => Type::Double,
        "y" => Type::Bytes,
        "time" => Type::Time { fraction: false },
        "microtime" => Type::Time { fraction: true },
        "quantity" => Type::Quantity,
        "intstr" => Type::IntOrString,
        "raw" => Type::Raw,
        "duration" => Type::Duration,
        message => Type::Message(message),
    };
    Field { name, type_, count }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the data ends early")]
    Truncated,
    #[error("a field has another wire type than its kind")]
    WireType,
    #[error("text is not UTF-8")]
    Text,
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("{0}")]
    Unknown(String),
}

/// The JSON value that a body stands for, `kind` and `apiVersion` included.
pub fn decode(body: &[u8]) -> Result<Value, Status> {
    read(body).map_err(|error| Status::bad_request(format!("the protobuf body of the request could not be read: {error}")))
}

fn read(body: &[u8]) -> Result<Value, Error> {
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
    let name = message_name(&api_version, &kind);
    let (name, message) = MESSAGES
        .get_key_value(name.as_str())
        .ok_or_else(|| Error::Unknown(format!("no kind \"{kind}\" in version \"{api_version}\" is known")))?;
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    fill(&mut object, name, message, raw, 0)?;
    Ok(Value::Object(object))
}

/// As the types are called in `fields.txt`: `apps/v1` and `Deployment` are `apps.v1.Deployment`.
fn message_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.v1.DeleteOptions".into();
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    format!("{group}.{version}.{kind}")
}

/// Reads a message's fields into `object`.
fn fill(object: &mut Map<String, Value>, _name: &str, message: &Message, bytes: &[u8], depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep);
    }
    for part in Parts(bytes) {
        let (number, wire) = part?;
        // Fields of a newer version than this are passed over, as protobuf has it.
        let Some(field) = message.get(&number) else { continue };
        if let (Type::Message(inner), "!") = (&field.type_, field.name) {
            let Wire::Bytes(bytes) = wire else { return Err(Error::WireType) };
            if let Some(message) = MESSAGES.get(inner) {
                fill(object, inner, message, bytes, depth + 1)?;
            }
            continue;
        }
        match field.count {
            Count::One => {
                let value = value(&field.type_, wire, depth)?;
                if !is_nothing(field, &value) {
                    object.insert(field.name.into(), value);
                }
            }
            Count::List => {
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                let list = list.as_array_mut().ok_or(Error::WireType)?;
                match (&field.type_, &wire) {
                    // Numbers may be packed.
                    (Type::Integer | Type::Bool, Wire::Bytes(bytes)) => {
                        let mut rest = *bytes;
                        while !rest.is_empty() {
                            list.push(value(&field.type_, Wire::Number(varint(&mut rest)?), depth)?);
                        }
                    }
                    _ => list.push(value(&field.type_, wire, depth)?),
                }
            }
            Count::Map => {
                let Wire::Bytes(entry) = wire else { return Err(Error::WireType) };
                let (key, value) = entry_of(&field.type_, entry, depth)?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                map.as_object_mut().ok_or(Error::WireType)?.insert(key, value);
            }
        }
    }
    Ok(())
}

fn entry_of(type_: &Type, entry: &[u8], depth: usize) -> Result<(String, Value), Error> {
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
        None => value(type_, Wire::Bytes(&[]), depth)?,
    };
    Ok((key, value))
}

/// Whether Go wrote the field only because it writes all that is not behind a pointer.
fn is_nothing(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(false) => !ZERO_COUNTS.contains(&field.name),
        Value::Number(number) => field.type_ == Type::Integer && number.as_i64() == Some(0) && !ZERO_COUNTS.contains(&field.name),
        _ => false,
    }
}

fn value(type_: &Type, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match (type_, wire) {
        (Type::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Bool, Wire::Number(number)) => (number != 0).into(),
        // Negative numbers are written as the 64 bits of their two's complement.
        (Type::Integer, Wire::Number(number)) => number.cast_signed().into(),
        (Type::Double, Wire::Fixed(bits)) => f64::from_bits(bits).into(),
        (Type::Time { fraction }, Wire::Bytes(bytes)) => time(bytes, *fraction)?,
        (Type::Quantity, Wire::Bytes(bytes)) => {
            let mut quantity = Value::Null;
            for part in Parts(bytes) {
                if let (1, Wire::Bytes(bytes)) = part? {
                    quantity = text(bytes)?.into();
                }
            }
            quantity
        }
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Type::Duration, Wire::Bytes(bytes)) => format!("{}ns", number_of(bytes, 1)?).into(),
        (Type::Raw, Wire::Bytes(bytes)) => {
            let mut raw = Value::Null;
            for part in Parts(bytes) {
                if let (1, Wire::Bytes(bytes)) = part? {
                    raw = serde_json::from_slice(bytes).map_err(|error| Error::Unknown(error.to_string()))?;
                }
            }
            raw
        }
        (Type::Message("certificates.v1.ExtraValue"), Wire::Bytes(bytes)) => {
            let items = Parts(bytes).map(|part| match part? {
                (1, Wire::Bytes(bytes)) => text(bytes).map(Value::from),
                _ => Err(Error::WireType),
            });
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        (Type::Message(name), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            if let Some(message) = MESSAGES.get(name) {
                fill(&mut object, name, message, bytes, depth + 1)?;
            }
            Value::Object(object)
        }
        _ => return Err(Error::WireType),
    })
}

/// A time that was never set is written as an empty message.
fn time(bytes: &[u8], fraction: bool) -> Result<Value, Error> {
    let (seconds, nanos) = (number_of(bytes, 1)?, number_of(bytes, 2)?);
    if bytes.is_empty() || seconds <= 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let nanos = if fraction { i32::try_from(nanos).unwrap_or_default() } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| Error::Unknown(error.to_string()))?;
    Ok(time.strftime(if fraction { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" }).to_string().into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    if number_of(bytes, 1)? == 0 {
        return Ok(number_of(bytes, 2)?.into());
    }
    for part in Parts(bytes) {
        if let (3, Wire::Bytes(bytes)) = part? {
            return Ok(text(bytes)?.into());
        }
    }
    Ok("".into())
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

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Text)
}

// === the wire ===

enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order they were written.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u32, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            // What follows an error means nothing.
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> Parts<'a> {
    fn part(&mut self) -> Result<(u32, Wire<'a>), Error> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error::WireType)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut self.0)?),
            1 => Wire::Fixed(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Error::Truncated)?)),
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).map_err(|_| Error::Truncated)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| Error::Truncated)?).into()),
            _ => return Err(Error::WireType),
        };
        Ok((number, wire))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Error::Truncated)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::WireType)
}

#[cfg(test)]
mod tests;
