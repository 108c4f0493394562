//! `'%s has %d'.format([name, n])`.

use super::convert::print_double;
use super::{Line, string_of, text};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::Value;

/// The most digits after the point.
const PRECISION_MAX: usize = 1000;

pub const LIBRARY: &[Line] = &[(".format(string,list<dyn>):string", format)];

fn format<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let template = text(args, 0)?;
    let Value::List(list) = &args[1] else { return Err(Error::no_overload()) };
    frame.charge_text(template.len())?;
    let (mut out, mut next) = (String::new(), 0);
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let given = digits.parse().ok().filter(|given| *given <= PRECISION_MAX);
            precision = Some(given.ok_or_else(|| Error::new("error while parsing precision"))?);
        }
        let verb = chars.next().ok_or_else(|| Error::new("unexpected end of string"))?;
        let value = list.get(next).ok_or_else(|| Error::new(format!("index {next} out of range")))?;
        next += 1;
        let before = out.len();
        print(frame, verb, precision, &value, &mut out)?;
        frame.charge_text(out.len() - before)?;
    }
    string_of(out)
}

fn print<'a>(
    frame: &mut Frame<'_, 'a>,
    verb: char,
    precision: Option<usize>,
    value: &Value<'a>,
    out: &mut String,
) -> Result<(), Error> {
    let wrong = |what: &str| {
        let kind = value.type_name();
        Error::new(format!("error during formatting: {what} clause can only be used on numbers, was given {kind}"))
    };
    match (verb, value) {
        ('s', value) => return print_any(frame, value, out),
        ('d', Value::Int(_) | Value::Uint(_)) => return print_any(frame, value, out),
        ('d', Value::Double(value)) if !value.is_finite() => *out += &print_double(*value),
        ('d', _) => return Err(wrong("integer")),
        ('f', value) => {
            let number = number(value).ok_or_else(|| wrong("fixed-point"))?;
            *out += &if number.is_finite() { format!("{number:.*}", precision.unwrap_or(6)) } else { print_double(number) };
        }
        ('e', value) => {
            let number = number(value).ok_or_else(|| wrong("scientific"))?;
            let text = format!("{number:.*e}", precision.unwrap_or(6));
            *out += &match text.split_once('e') {
                Some((mantissa, exponent)) => {
                    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
                    format!("{mantissa}e{sign}{digits:0>2}")
                }
                None => print_double(number),
            };
        }
        ('b', Value::Int(value)) => *out += &signed(*value, format!("{:b}", value.unsigned_abs())),
        ('b', Value::Uint(value)) => *out += &format!("{value:b}"),
        ('b', Value::Bool(value)) => out.push(if *value { '1' } else { '0' }),
        ('o', Value::Int(value)) => *out += &signed(*value, format!("{:o}", value.unsigned_abs())),
        ('o', Value::Uint(value)) => *out += &format!("{value:o}"),
        ('x', Value::Int(value)) => *out += &signed(*value, format!("{:x}", value.unsigned_abs())),
        ('X', Value::Int(value)) => *out += &signed(*value, format!("{:X}", value.unsigned_abs())),
        ('x', Value::Uint(value)) => *out += &format!("{value:x}"),
        ('X', Value::Uint(value)) => *out += &format!("{value:X}"),
        ('x' | 'X', Value::String(_) | Value::Bytes(_)) => {
            let bytes = match value {
                Value::String(text) => text.as_str().as_bytes(),
                Value::Bytes(bytes) => bytes,
                _ => &[],
            };
            for byte in bytes {
                *out += &if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") };
            }
        }
        ('b' | 'o' | 'x' | 'X', _) => return Err(wrong("only integers, bools")),
        (verb, _) => {
            return Err(Error::new(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\"")));
        }
    }
    Ok(())
}

fn signed(value: i64, digits: String) -> String {
    if value < 0 { format!("-{digits}") } else { digits }
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn print_any<'a>(frame: &mut Frame<'_, 'a>, value: &Value<'a>, out: &mut String) -> Result<(), Error> {
    frame.charge(1)?;
    match value {
        Value::String(text) => {
            frame.charge_text(text.as_str().len())?;
            *out += text.as_str();
        }
        Value::Null => *out += "null",
        Value::Bool(value) => *out += &value.to_string(),
        Value::Int(value) => *out += &value.to_string(),
        Value::Uint(value) => *out += &value.to_string(),
        Value::Double(value) => *out += &print_double(*value),
        Value::Bytes(bytes) => {
            frame.charge_text(bytes.len())?;
            *out += &String::from_utf8_lossy(bytes);
        }
        Value::Timestamp(time) => *out += &super::time::print_timestamp(*time),
        Value::Duration(nanos) => *out += &super::time::print_duration(*nanos),
        Value::Type(name) => *out += name,
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    *out += ", ";
                }
                print_any(frame, &item, out)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, key) in map.keys().into_iter().enumerate() {
                if index > 0 {
                    *out += ", ";
                }
                print_any(frame, &key, out)?;
                *out += ": ";
                if let Some(value) = map.get(&key, frame) {
                    print_any(frame, &value?, out)?;
                }
            }
            out.push('}');
        }
        Value::Optional(_) => {
            return Err(Error::new(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given optional_type",
            ));
        }
        Value::Opaque(opaque) => *out += &opaque.print(),
    }
    Ok(())
}
