//! Quantities, as `100m` and `1.5Gi`.

use super::opaque::Opaque;
use super::{Line, bool_of, int, text};
use crate::cel::evaluate::Error;
use crate::cel::value::Value;
use slipway_api::quantity::Quantity;

pub const LIBRARY: &[Line] = &[
    ("quantity(string):kubernetes.Quantity", |_, args| {
        Quantity::parse(text(args, 0)?).map(of).map_err(|error| Error::new(error.to_string()))
    }),
    ("isQuantity(string):bool", |_, args| bool_of(Quantity::parse(text(args, 0)?).is_ok())),
    ("string(kubernetes.Quantity):string", |_, args| super::string_of(quantity(args, 0)?.to_string())),
    (".sign(kubernetes.Quantity):int", |_, args| Ok(Value::Int(quantity(args, 0)?.cmp(&Quantity::ZERO) as i64))),
    (".isInteger(kubernetes.Quantity):bool", |_, args| bool_of(whole(quantity(args, 0)?).is_some())),
    (".asInteger(kubernetes.Quantity):int", |_, args| {
        whole(quantity(args, 0)?).map(Value::Int).ok_or_else(|| Error::new("cannot convert value to integer"))
    }),
    (".asApproximateFloat(kubernetes.Quantity):double", |_, args| Ok(Value::Double(quantity(args, 0)?.as_f64()))),
    (".isGreaterThan(kubernetes.Quantity,kubernetes.Quantity):bool", |_, args| bool_of(quantity(args, 0)? > quantity(args, 1)?)),
    (".isLessThan(kubernetes.Quantity,kubernetes.Quantity):bool", |_, args| bool_of(quantity(args, 0)? < quantity(args, 1)?)),
    (".compareTo(kubernetes.Quantity,kubernetes.Quantity):int", |_, args| {
        Ok(Value::Int(quantity(args, 0)?.cmp(&quantity(args, 1)?) as i64))
    }),
    (".add(kubernetes.Quantity,kubernetes.Quantity):kubernetes.Quantity", |_, args| {
        Ok(of(quantity(args, 0)? + quantity(args, 1)?))
    }),
    (".add(kubernetes.Quantity,int):kubernetes.Quantity", |_, args| {
        Ok(of(quantity(args, 0)? + Quantity::from_value(int(args, 1)?)))
    }),
    (".sub(kubernetes.Quantity,kubernetes.Quantity):kubernetes.Quantity", |_, args| {
        Ok(of(quantity(args, 0)? - quantity(args, 1)?))
    }),
    (".sub(kubernetes.Quantity,int):kubernetes.Quantity", |_, args| {
        Ok(of(quantity(args, 0)? - Quantity::from_value(int(args, 1)?)))
    }),
];

fn of<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(quantity))
}

fn quantity(args: &[Value<'_>], at: usize) -> Result<Quantity, Error> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Quantity(quantity))) => Ok(*quantity),
        _ => Err(Error::no_overload()),
    }
}

fn whole(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (Quantity::from_value(value) == quantity).then_some(value)
}
