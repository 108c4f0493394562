//! Values that may be absent.

use super::{Line, bool_of};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::Value;

pub const LIBRARY: &[Line] = &[
    ("optional.of(A):optional<A>", |_, args| Ok(Value::some(args[0].clone()))),
    ("optional.none():optional<dyn>", |_, _| Ok(Value::Optional(None))),
    ("optional.ofNonZeroValue(A):optional<A>", |_, args| {
        Ok(if is_zero(&args[0]) { Value::Optional(None) } else { Value::some(args[0].clone()) })
    }),
    ("optional.unwrap(list<optional<A>>):list<A>", unwrap_list),
    (".unwrapOpt(list<optional<A>>):list<A>", unwrap_list),
    (".hasValue(optional<A>):bool", |_, args| bool_of(matches!(&args[0], Value::Optional(Some(_))))),
    (".value(optional<A>):A", |_, args| match &args[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        _ => Err(Error::new("optional.none() dereference")),
    }),
    (".or(optional<A>,optional<A>):optional<A>", |_, args| {
        Ok(if matches!(&args[0], Value::Optional(Some(_))) { args[0].clone() } else { args[1].clone() })
    }),
    (".orValue(optional<A>,A):A", |_, args| match &args[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        _ => Ok(args[1].clone()),
    }),
];

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.as_str().is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Optional(inner) => inner.is_none(),
        Value::Timestamp(_) | Value::Type(_) | Value::Opaque(_) => false,
    }
}

fn unwrap_list<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let Value::List(list) = &args[0] else { return Err(Error::no_overload()) };
    let mut out = vec![];
    for item in crate::cel::evaluate::items(list, frame)? {
        let Value::Optional(inner) = item else { return Err(Error::no_overload()) };
        out.extend(inner.map(|inner| (*inner).clone()));
    }
    Ok(Value::list(out))
}
