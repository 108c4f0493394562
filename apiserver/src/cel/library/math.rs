//! `math`: the extension library of numbers.

use super::{Line, bool_of, int};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::{List, Value};
use std::cmp::Ordering;

pub const LIBRARY: &[Line] = &[
    ("math.ceil(double):double", |_, args| map(args, f64::ceil)),
    ("math.floor(double):double", |_, args| map(args, f64::floor)),
    ("math.round(double):double", |_, args| map(args, f64::round)),
    ("math.trunc(double):double", |_, args| map(args, f64::trunc)),
    ("math.sqrt(double):double", |_, args| map(args, f64::sqrt)),
    ("math.sqrt(int):double", |_, args| Ok(Value::Double((int(args, 0)? as f64).sqrt()))),
    ("math.isNaN(double):bool", |_, args| test(args, f64::is_nan)),
    ("math.isInf(double):bool", |_, args| test(args, f64::is_infinite)),
    ("math.isFinite(double):bool", |_, args| test(args, f64::is_finite)),
    ("math.abs(double):double", |_, args| map(args, f64::abs)),
    ("math.abs(uint):uint", |_, args| Ok(args[0].clone())),
    ("math.abs(int):int", |_, args| int(args, 0)?.checked_abs().map(Value::Int).ok_or_else(|| Error::new("integer overflow"))),
    ("math.sign(int):int", |_, args| Ok(Value::Int(int(args, 0)?.signum()))),
    ("math.sign(uint):uint", |_, args| Ok(Value::Uint(u64::from(!matches!(&args[0], Value::Uint(0)))))),
    ("math.sign(double):double", |_, args| {
        map(args, |value| if value == 0.0 || value.is_nan() { value } else { value.signum() })
    }),
    ("math.bitAnd(int,int):int", |_, args| Ok(Value::Int(int(args, 0)? & int(args, 1)?))),
    ("math.bitOr(int,int):int", |_, args| Ok(Value::Int(int(args, 0)? | int(args, 1)?))),
    ("math.bitXor(int,int):int", |_, args| Ok(Value::Int(int(args, 0)? ^ int(args, 1)?))),
    ("math.bitNot(int):int", |_, args| Ok(Value::Int(!int(args, 0)?))),
    ("math.bitShiftLeft(int,int):int", |_, args| {
        let by = by(args)?;
        Ok(Value::Int(int(args, 0)?.checked_shl(by).unwrap_or(0)))
    }),
    ("math.bitShiftRight(int,int):int", |_, args| {
        let by = by(args)?;
        Ok(Value::Int((int(args, 0)? as u64).checked_shr(by).unwrap_or(0) as i64))
    }),
    ("math.greatest(A):dyn", |frame, args| extreme(frame, args, Ordering::Greater)),
    ("math.greatest(A,B):dyn", |frame, args| extreme(frame, args, Ordering::Greater)),
    ("math.greatest(dyn,dyn,dyn):dyn", |frame, args| extreme(frame, args, Ordering::Greater)),
    ("math.greatest(dyn,dyn,dyn,dyn):dyn", |frame, args| extreme(frame, args, Ordering::Greater)),
    ("math.least(A):dyn", |frame, args| extreme(frame, args, Ordering::Less)),
    ("math.least(A,B):dyn", |frame, args| extreme(frame, args, Ordering::Less)),
    ("math.least(dyn,dyn,dyn):dyn", |frame, args| extreme(frame, args, Ordering::Less)),
    ("math.least(dyn,dyn,dyn,dyn):dyn", |frame, args| extreme(frame, args, Ordering::Less)),
];

fn map<'a>(args: &[Value<'a>], f: fn(f64) -> f64) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Double(value) => Ok(Value::Double(f(*value))),
        _ => Err(Error::no_overload()),
    }
}

fn test<'a>(args: &[Value<'a>], f: fn(f64) -> bool) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Double(value) => bool_of(f(*value)),
        _ => Err(Error::no_overload()),
    }
}

fn by(args: &[Value<'_>]) -> Result<u32, Error> {
    let by = int(args, 1)?;
    if by < 0 {
        return Err(Error::new(format!("math.bitShift() negative offset: {by}")));
    }
    Ok(u32::try_from(by).unwrap_or(u32::MAX))
}

fn extreme<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>], wanted: Ordering) -> Result<Value<'a>, Error> {
    let candidates = match args {
        [Value::List(list @ (List::Json(..) | List::Built(_)))] => crate::cel::evaluate::items(list, frame)?,
        args => args.to_vec(),
    };
    let numbers = candidates.iter().all(|value| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_)));
    let mut candidates = candidates.into_iter();
    let (Some(mut best), true) = (candidates.next(), numbers) else { return Err(Error::no_overload()) };
    for value in candidates {
        if value.compare(&best) == Some(wanted) {
            best = value;
        }
    }
    Ok(best)
}
