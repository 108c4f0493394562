//! The operators, and `size`.

use super::{Line, bool_of};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::types::ListKind;
use crate::cel::value::{Key, List, Map, Text, Value};
use std::cmp::Ordering;
use std::sync::Arc;

pub const LIBRARY: &[Line] = &[
    ("_==_(A,A):bool", |frame, args| bool_of(args[0].equals(&args[1], frame)?)),
    ("_!=_(A,A):bool", |frame, args| bool_of(!args[0].equals(&args[1], frame)?)),
    ("_<_(bool,bool):bool", less),
    ("_<_(int,int):bool", less),
    ("_<_(int,uint):bool", less),
    ("_<_(int,double):bool", less),
    ("_<_(uint,uint):bool", less),
    ("_<_(uint,int):bool", less),
    ("_<_(uint,double):bool", less),
    ("_<_(double,double):bool", less),
    ("_<_(double,int):bool", less),
    ("_<_(double,uint):bool", less),
    ("_<_(string,string):bool", less),
    ("_<_(bytes,bytes):bool", less),
    ("_<_(timestamp,timestamp):bool", less),
    ("_<_(duration,duration):bool", less),
    ("_<=_(bool,bool):bool", less_or_equal),
    ("_<=_(int,int):bool", less_or_equal),
    ("_<=_(int,uint):bool", less_or_equal),
    ("_<=_(int,double):bool", less_or_equal),
    ("_<=_(uint,uint):bool", less_or_equal),
    ("_<=_(uint,int):bool", less_or_equal),
    ("_<=_(uint,double):bool", less_or_equal),
    ("_<=_(double,double):bool", less_or_equal),
    ("_<=_(double,int):bool", less_or_equal),
    ("_<=_(double,uint):bool", less_or_equal),
    ("_<=_(string,string):bool", less_or_equal),
    ("_<=_(bytes,bytes):bool", less_or_equal),
    ("_<=_(timestamp,timestamp):bool", less_or_equal),
    ("_<=_(duration,duration):bool", less_or_equal),
    ("_>_(bool,bool):bool", greater),
    ("_>_(int,int):bool", greater),
    ("_>_(int,uint):bool", greater),
    ("_>_(int,double):bool", greater),
    ("_>_(uint,uint):bool", greater),
    ("_>_(uint,int):bool", greater),
    ("_>_(uint,double):bool", greater),
    ("_>_(double,double):bool", greater),
    ("_>_(double,int):bool", greater),
    ("_>_(double,uint):bool", greater),
    ("_>_(string,string):bool", greater),
    ("_>_(bytes,bytes):bool", greater),
    ("_>_(timestamp,timestamp):bool", greater),
    ("_>_(duration,duration):bool", greater),
    ("_>=_(bool,bool):bool", greater_or_equal),
    ("_>=_(int,int):bool", greater_or_equal),
    ("_>=_(int,uint):bool", greater_or_equal),
    ("_>=_(int,double):bool", greater_or_equal),
    ("_>=_(uint,uint):bool", greater_or_equal),
    ("_>=_(uint,int):bool", greater_or_equal),
    ("_>=_(uint,double):bool", greater_or_equal),
    ("_>=_(double,double):bool", greater_or_equal),
    ("_>=_(double,int):bool", greater_or_equal),
    ("_>=_(double,uint):bool", greater_or_equal),
    ("_>=_(string,string):bool", greater_or_equal),
    ("_>=_(bytes,bytes):bool", greater_or_equal),
    ("_>=_(timestamp,timestamp):bool", greater_or_equal),
    ("_>=_(duration,duration):bool", greater_or_equal),
    ("!_(bool):bool", |_, args| bool_of(!args[0].as_bool().ok_or_else(Error::no_overload)?)),
    ("-_(int):int", negate),
    ("-_(double):double", negate),
    ("-_(duration):duration", negate),
    ("_+_(int,int):int", add),
    ("_+_(uint,uint):uint", add),
    ("_+_(double,double):double", add),
    ("_+_(string,string):string", add),
    ("_+_(bytes,bytes):bytes", add),
    ("_+_(list<A>,list<A>):list<A>", add_lists),
    ("_+_(timestamp,duration):timestamp", add),
    ("_+_(duration,timestamp):timestamp", add),
    ("_+_(duration,duration):duration", add),
    ("_-_(int,int):int", subtract),
    ("_-_(uint,uint):uint", subtract),
    ("_-_(double,double):double", subtract),
    ("_-_(timestamp,timestamp):duration", subtract),
    ("_-_(timestamp,duration):timestamp", subtract),
    ("_-_(duration,duration):duration", subtract),
    ("_*_(int,int):int", multiply),
    ("_*_(uint,uint):uint", multiply),
    ("_*_(double,double):double", multiply),
    ("_/_(int,int):int", divide),
    ("_/_(uint,uint):uint", divide),
    ("_/_(double,double):double", divide),
    ("_%_(int,int):int", remainder),
    ("_%_(uint,uint):uint", remainder),
    ("@in(A,list<A>):bool", is_in),
    ("@in(A,map<A,B>):bool", is_in),
    ("_[_](list<A>,int):A", index),
    ("_[_](list<A>,dyn):A", index),
    ("_[_](map<A,B>,A):B", index),
    ("_[_](optional<list<A>>,int):optional<A>", index_optional),
    ("_[_](optional<map<A,B>>,A):optional<B>", index_optional),
    ("_[?_](list<A>,int):optional<A>", index_optional),
    ("_[?_](map<A,B>,A):optional<B>", index_optional),
    ("_[?_](optional<list<A>>,int):optional<A>", index_optional),
    ("_[?_](optional<map<A,B>>,A):optional<B>", index_optional),
    ("size(string):int", size),
    ("size(bytes):int", size),
    ("size(list<A>):int", size),
    ("size(map<A,B>):int", size),
    (".size(string):int", size),
    (".size(bytes):int", size),
    (".size(list<A>):int", size),
    (".size(map<A,B>):int", size),
];

fn order<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<Value<'a>, Error> {
    if let (Value::String(a), Value::String(b)) = (&args[0], &args[1]) {
        frame.charge_text(a.as_str().len().min(b.as_str().len()))?;
    }
    // Not a number is neither less nor greater.
    let nan = |value: &Value<'_>| matches!(value, Value::Double(value) if value.is_nan());
    match args[0].compare(&args[1]) {
        Some(order) => bool_of(holds(order)),
        None if nan(&args[0]) || nan(&args[1]) => bool_of(false),
        None => Err(Error::no_overload()),
    }
}

fn less<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    order(frame, args, Ordering::is_lt)
}

fn less_or_equal<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    order(frame, args, Ordering::is_le)
}

fn greater<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    order(frame, args, Ordering::is_gt)
}

fn greater_or_equal<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    order(frame, args, Ordering::is_ge)
}

fn overflow(what: &str) -> Error {
    Error::new(format!("{what} overflow"))
}

fn negate<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Int(a) => a.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        Value::Double(a) => Ok(Value::Double(-a)),
        Value::Duration(a) => a.checked_neg().map(Value::Duration).ok_or_else(|| overflow("duration")),
        _ => Err(Error::no_overload()),
    }
}

fn shift<'a>(time: jiff::Timestamp, nanos: i64) -> Result<Value<'a>, Error> {
    let shifted = time.checked_add(jiff::SignedDuration::from_nanos(nanos));
    shifted.map(Value::Timestamp).map_err(|_| overflow("timestamp"))
}

fn add<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        (Value::Uint(a), Value::Uint(b)) => a.checked_add(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer")),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            let (a, b) = (a.as_str(), b.as_str());
            frame.charge_text(a.len() + b.len())?;
            Ok(Value::string([a, b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            frame.charge_text(a.len() + b.len())?;
            Ok(Value::Bytes([&a[..], &b[..]].concat().into()))
        }
        (Value::Timestamp(time), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(time)) => {
            shift(*time, *nanos)
        }
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration).ok_or_else(|| overflow("duration")),
        _ => Err(Error::no_overload()),
    }
}

/// Sets don't take what they have; lists that are maps by their keys take the second's element for one of the same keys.
fn add_lists<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (Value::List(a), Value::List(b)) = (&args[0], &args[1]) else { return Err(Error::no_overload()) };
    frame.charge((a.len() + b.len()) as u64)?;
    let mut items: Vec<Value<'a>> = a.iter().collect();
    match a.kind() {
        ListKind::Atomic => items.extend(b.iter()),
        ListKind::Set => {
            for item in b.iter() {
                if !a.contains(&item, frame)? {
                    items.push(item);
                }
            }
        }
        ListKind::Map(keys) => {
            for item in b.iter() {
                let mut same = None;
                for (at, known) in items.iter().enumerate() {
                    if same.is_none() && same_keys(keys, known, &item, frame)? {
                        same = Some(at);
                    }
                }
                match same {
                    Some(at) => items[at] = item,
                    None => items.push(item),
                }
            }
        }
    }
    Ok(Value::list(items))
}

fn same_keys<'a>(keys: &[String], a: &Value<'a>, b: &Value<'a>, frame: &mut Frame<'_, 'a>) -> Result<bool, Error> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return Ok(false) };
    for key in keys {
        let same = match (a.text(key, frame).transpose()?, b.text(key, frame).transpose()?) {
            (Some(a), Some(b)) => a.equals(&b, frame)?,
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn subtract<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => a.checked_sub(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        (Value::Uint(a), Value::Uint(b)) => a.checked_sub(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer")),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = i64::try_from(a.as_nanosecond() - b.as_nanosecond());
            nanos.map(Value::Duration).map_err(|_| overflow("duration"))
        }
        (Value::Timestamp(time), Value::Duration(nanos)) => {
            shift(*time, nanos.checked_neg().ok_or_else(|| overflow("duration"))?)
        }
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).map(Value::Duration).ok_or_else(|| overflow("duration")),
        _ => Err(Error::no_overload()),
    }
}

fn multiply<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => a.checked_mul(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        (Value::Uint(a), Value::Uint(b)) => a.checked_mul(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer")),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(Error::no_overload()),
    }
}

fn divide<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(Error::new("division by zero")),
        (Value::Int(a), Value::Int(b)) => a.checked_div(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Error::no_overload()),
    }
}

fn remainder<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(Error::new("modulus by zero")),
        (Value::Int(a), Value::Int(b)) => a.checked_rem(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        _ => Err(Error::no_overload()),
    }
}

fn is_in<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match &args[1] {
        Value::List(list) => bool_of(list.contains(&args[0], frame)?),
        Value::Map(map) => bool_of(map.get(&args[0], frame).transpose()?.is_some()),
        _ => Err(Error::no_overload()),
    }
}

fn position(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(index) => Some(*index),
        Value::Uint(index) => i64::try_from(*index).ok(),
        Value::Double(index) if index.fract() == 0.0 && index.abs() < 1e15 => Some(*index as i64),
        _ => None,
    }
}

fn element<'a>(list: &List<'a>, index: &Value<'a>) -> Result<Result<Value<'a>, i64>, Error> {
    let index = position(index).ok_or_else(|| Error::new(format!("unsupported index type '{}' in list", index.type_name())))?;
    Ok(usize::try_from(index).ok().and_then(|index| list.get(index)).ok_or(index))
}

fn index<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::List(list) => element(list, &args[1])?.map_err(|index| Error::new(format!("index out of bounds: {index}"))),
        Value::Map(map) => match map.get(&args[1], frame) {
            Some(found) => found,
            None => Err(Error::new(format!("no such key: {}", key_text(&args[1])))),
        },
        _ => Err(Error::no_overload()),
    }
}

fn key_text(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.as_str().to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        other => other.type_name().into_owned(),
    }
}

fn index_optional<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let target = match &args[0] {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => (**inner).clone(),
        target => target.clone(),
    };
    let found = match &target {
        Value::List(list) => element(list, &args[1])?.ok(),
        Value::Map(map) => map.get(&args[1], frame).transpose()?,
        _ => return Err(Error::no_overload()),
    };
    Ok(Value::Optional(found.map(Arc::new)))
}

fn size<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let count = match &args[0] {
        Value::String(text) => {
            frame.charge_text(text.as_str().len())?;
            text.as_str().chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(Error::no_overload()),
    };
    Ok(Value::Int(count as i64))
}

/// A map of texts, for libraries.
pub fn text_map<'a>(entries: impl IntoIterator<Item = (String, Value<'a>)>) -> Value<'a> {
    let entries = entries.into_iter().map(|(name, value)| (Key::String(Text::Shared(name.into())), value));
    Value::Map(Map::Built(Arc::new(entries.collect())))
}
