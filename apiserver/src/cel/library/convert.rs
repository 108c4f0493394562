//! Conversions between types.

use super::{Line, string_of, time};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::Value;

pub const LIBRARY: &[Line] = &[
    ("dyn(A):dyn", |_, args| Ok(args[0].clone())),
    ("type(A):type", |_, args| Ok(Value::Type(args[0].type_name().into_owned().into()))),
    ("int(int):int", int),
    ("int(uint):int", int),
    ("int(double):int", int),
    ("int(string):int", int),
    ("int(timestamp):int", int),
    ("uint(uint):uint", uint),
    ("uint(int):uint", uint),
    ("uint(double):uint", uint),
    ("uint(string):uint", uint),
    ("double(double):double", double),
    ("double(int):double", double),
    ("double(uint):double", double),
    ("double(string):double", double),
    ("bool(bool):bool", boolean),
    ("bool(string):bool", boolean),
    ("string(string):string", string),
    ("string(bool):string", string),
    ("string(int):string", string),
    ("string(uint):string", string),
    ("string(double):string", string),
    ("string(bytes):string", string),
    ("string(timestamp):string", string),
    ("string(duration):string", string),
    ("bytes(bytes):bytes", bytes),
    ("bytes(string):bytes", bytes),
];

fn int<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let overflow = || Error::new("integer overflow");
    Ok(Value::Int(match &args[0] {
        Value::Int(value) => *value,
        Value::Uint(value) => i64::try_from(*value).map_err(|_| overflow())?,
        Value::Double(value) if value.abs() < 9.223_372_036_854_775e18 => *value as i64,
        Value::String(text) => text
            .as_str()
            .parse()
            .map_err(|_| Error::new(format!("strconv.ParseInt: parsing {:?}: invalid syntax", text.as_str())))?,
        Value::Timestamp(time) => time.as_second(),
        _ => return Err(overflow()),
    }))
}

fn uint<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let overflow = || Error::new("unsigned integer overflow");
    Ok(Value::Uint(match &args[0] {
        Value::Uint(value) => *value,
        Value::Int(value) => u64::try_from(*value).map_err(|_| overflow())?,
        Value::Double(value) if (0.0..1.844_674_407_370_955e19).contains(value) => *value as u64,
        Value::String(text) => text
            .as_str()
            .parse()
            .map_err(|_| Error::new(format!("strconv.ParseUint: parsing {:?}: invalid syntax", text.as_str())))?,
        _ => return Err(overflow()),
    }))
}

fn double<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    Ok(Value::Double(match &args[0] {
        Value::Double(value) => *value,
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::String(text) => text
            .as_str()
            .parse()
            .map_err(|_| Error::new(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", text.as_str())))?,
        _ => return Err(Error::no_overload()),
    }))
}

fn boolean<'a>(_: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(match &args[0] {
        Value::Bool(value) => *value,
        Value::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => return Err(Error::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        },
        _ => return Err(Error::no_overload()),
    }))
}

fn string<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::String(_) => Ok(args[0].clone()),
        Value::Bool(value) => string_of(value.to_string()),
        Value::Int(value) => string_of(value.to_string()),
        Value::Uint(value) => string_of(value.to_string()),
        Value::Double(value) => string_of(print_double(*value)),
        Value::Bytes(bytes) => {
            frame.charge_text(bytes.len())?;
            string_of(std::str::from_utf8(bytes).map_err(|_| Error::new("invalid UTF-8 in bytes, cannot convert to string"))?)
        }
        Value::Timestamp(value) => string_of(time::print_timestamp(*value)),
        Value::Duration(nanos) => string_of(time::print_duration(*nanos)),
        _ => Err(Error::no_overload()),
    }
}

/// As Go prints it with `%g`.
pub fn print_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let size = value.abs();
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

fn bytes<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Bytes(_) => Ok(args[0].clone()),
        Value::String(text) => {
            frame.charge_text(text.as_str().len())?;
            Ok(Value::Bytes(text.as_str().as_bytes().into()))
        }
        _ => Err(Error::no_overload()),
    }
}
