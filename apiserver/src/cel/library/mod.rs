//! The functions that expressions may call: one file a topic, one line a signature.
//!
//! A signature reads `name(types):result`, with a dot before the name of a method, whose receiver is then the first type.

mod authorizer;
mod convert;
mod format;
mod lists;
mod math;
mod named_format;
mod net;
pub mod opaque;
mod operators;
mod optional;
mod quantity;
pub mod regex;
pub mod semver;
mod strings;
pub mod time;
mod url;

use crate::cel::evaluate::{Error, Frame};
use crate::cel::types::Type;
use crate::cel::value::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Called with as many arguments, of such types, as the signature says.
pub type Function = for<'f, 'a> fn(&mut Frame<'f, 'a>, &[Value<'a>]) -> Result<Value<'a>, Error>;
type Line = (&'static str, Function);

/// One way to call a function.
pub struct Overload {
    pub name: &'static str,
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    pub function: Function,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What may stand before the dot of a function that is no method.
pub const NAMESPACES: [&str; 11] =
    ["optional", "sets", "lists", "math", "strings", "format", "ip", "cidr", "jsonpatch", "base64", "quantity"];

static LIBRARIES: &[&[Line]] = &[
    operators::LIBRARY,
    convert::LIBRARY,
    strings::LIBRARY,
    lists::LIBRARY,
    regex::LIBRARY,
    time::LIBRARY,
    optional::LIBRARY,
    math::LIBRARY,
    format::LIBRARY,
    named_format::LIBRARY,
    net::LIBRARY,
    url::LIBRARY,
    quantity::LIBRARY,
    semver::LIBRARY,
    authorizer::LIBRARY,
];

/// By name: functions, and methods.
static REGISTRY: LazyLock<HashMap<&'static str, [Vec<Overload>; 2]>> = LazyLock::new(|| {
    let mut registry: HashMap<_, [Vec<Overload>; 2]> = HashMap::new();
    for (signature, function) in LIBRARIES.iter().copied().flatten() {
        let overload = overload(signature, *function);
        registry.entry(overload.name).or_default()[usize::from(overload.member)].push(overload);
    }
    registry
});

/// All ways to call a function of that name.
pub fn overloads(name: &str, member: bool) -> &'static [Overload] {
    REGISTRY.get(name).map_or(&[], |both| &both[usize::from(member)])
}

fn overload(signature: &'static str, function: Function) -> Overload {
    let (member, rest) = signature.strip_prefix('.').map_or((false, signature), |rest| (true, rest));
    let (name, rest) = rest.split_once('(').expect("a signature has parameters");
    let (params, result) = rest.rsplit_once("):").expect("a signature has a result");
    Overload { name, member, params: split(params).map(parse_type).collect(), result: parse_type(result), function }
}

/// At the commas that stand in no brackets.
fn split(text: &'static str) -> impl Iterator<Item = &'static str> {
    let mut depth = 0;
    let parts = text.split(move |c: char| {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty())
}

fn parse_type(text: &'static str) -> Type {
    if let Some((outer, inner)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) {
        let mut inner = split(inner).map(parse_type);
        let mut next = || inner.next().expect("brackets have types in them");
        return match outer {
            "list" => Type::list(next()),
            "optional" => Type::optional(next()),
            _ => {
                let key = next();
                Type::map(key, next())
            }
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" => Type::Variable(0),
        "B" => Type::Variable(1),
        name => Type::Opaque(name),
    }
}

/// Arguments of the wrong type never come here: the signature was compared before.
fn text<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v str, Error> {
    args.get(at).and_then(Value::as_str).ok_or_else(Error::no_overload)
}

fn int(args: &[Value<'_>], at: usize) -> Result<i64, Error> {
    match args.get(at) {
        Some(Value::Int(value)) => Ok(*value),
        _ => Err(Error::no_overload()),
    }
}

fn bool_of<'a>(value: bool) -> Result<Value<'a>, Error> {
    Ok(Value::Bool(value))
}

fn string_of<'a>(value: impl Into<std::sync::Arc<str>>) -> Result<Value<'a>, Error> {
    Ok(Value::string(value))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_signature_can_be_read() {
        let overloads: Vec<_> = super::REGISTRY.values().flatten().flatten().collect();
        assert!(overloads.len() > 200, "{}", overloads.len());
        assert_eq!(super::overloads("indexOf", true).len(), 3);
        assert_eq!(super::overloads("optional.of", false)[0].to_string(), "optional.of(A) -> optional_type(A)");
    }
}
