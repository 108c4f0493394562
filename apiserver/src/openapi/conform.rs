//! Holding an object to its schema: unknown fields, wrong types, nulls, and values that are written in several ways.

use crate::http::error::Status;
use crate::openapi::schema::{Shape, Type, schemas};
use crate::openapi::{Expected, FieldValidation};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use slipway_api::canonical;
use slipway_api::quantity::Quantity;
use std::mem;

/// Enough to see what is wrong.
const FINDINGS_MAX: usize = 50;
/// What Go's JSON decoder says of a time that it cannot read begins so.
const TIME_FORMAT: &str = "2006-01-02T15:04:05Z07:00";

pub struct Conform<'b> {
    pub validation: FieldValidation,
    /// What the reader of the body noted already, as `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
    /// The body, if it is JSON: Go's decoder tells of all that it finds in the order in which it stands there.
    pub json: Option<&'b [u8]>,
}

impl Conform<'_> {
    /// Prunes and normalises the object; the warnings, or a 400.
    pub fn run(self, expected: &Expected, object: &mut Value) -> Result<Vec<String>, Status> {
        let refuse = |why: &str| {
            let (kind, version) = (expected.kind, expected.version);
            Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        };
        let Some(root) = schemas().find(&expected.schema) else { return Ok(self.duplicates) };
        // What is found is told in one order, and what is stored is written in it.
        canonical::sort(object);
        let Some(map) = object.as_object_mut() else {
            return Err(refuse(&format!("json: cannot unmarshal {} into Go value of type {}", word(object), root.go_name())));
        };
        let mut walk = Walk { unknown: vec![], wrong: None };
        walk.object(root, map, &At::ROOT);
        if let Some(why) = walk.wrong {
            return Err(refuse(&why));
        }
        let mut findings = self.duplicates;
        findings.append(&mut walk.unknown);
        if let (Some(body), 2.., FieldValidation::Warn | FieldValidation::Strict) = (self.json, findings.len(), self.validation) {
            findings = super::read::in_document_order(body, &findings);
        }
        match self.validation {
            FieldValidation::Ignore => Ok(vec![]),
            FieldValidation::Warn => Ok(findings),
            FieldValidation::Strict if findings.is_empty() => Ok(vec![]),
            FieldValidation::Strict => Err(refuse(&format!("strict decoding error: {}", findings.join(", ")))),
        }
    }
}

/// What Go calls the type of a value that it decoded without a schema.
pub fn go_type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// How Go's decoder names what it found.
pub fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Where a value stands: the struct that its field is of, and the way to it, with the places in lists (for unknown fields) or
/// without them (as Go's decoder tells it).
#[derive(Clone, Copy)]
struct At<'a> {
    outer: Option<&'a At<'a>>,
    step: Step<'a>,
    owner: &'a str,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(usize),
    /// An entry of a map: Go's decoder doesn't tell which.
    Entry(&'a str),
}

impl<'a> At<'a> {
    const ROOT: At<'static> = At { outer: None, step: Step::Root, owner: "" };

    fn field(&'a self, name: &'a str, owner: &'a str) -> At<'a> {
        At { outer: Some(self), step: Step::Field(name), owner }
    }

    fn within(&'a self, step: Step<'a>) -> At<'a> {
        At { outer: Some(self), step, owner: self.owner }
    }

    fn path(&self, exact: bool) -> String {
        let before = self.outer.map(|outer| outer.path(exact)).unwrap_or_default();
        match self.step {
            Step::Root => before,
            Step::Item(index) if exact => format!("{before}[{index}]"),
            Step::Entry(name) | Step::Field(name) if exact || matches!(self.step, Step::Field(_)) => {
                if before.is_empty() {
                    name.to_owned()
                } else {
                    format!("{before}.{name}")
                }
            }
            _ => before,
        }
    }

    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`
    fn mismatch(&self, found: &str, wanted: &str) -> String {
        format!("json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}", self.owner, self.path(false))
    }
}

struct Walk {
    unknown: Vec<String>,
    /// The first value of a wrong type: Go's decoder reports no more.
    wrong: Option<String>,
}

impl Walk {
    fn object(&mut self, kind: &Type, map: &mut Map<String, Value>, at: &At) {
        map.retain(|name, value| match kind.field(name) {
            None => {
                if self.unknown.len() < FINDINGS_MAX {
                    self.unknown.push(format!("unknown field \"{}\"", at.field(name, "").path(true)));
                }
                false
            }
            Some(_) if value.is_null() => false,
            Some(field) => {
                self.value(&field.shape, value, &at.field(name, kind.short_name()));
                true
            }
        });
    }

    fn value(&mut self, shape: &Shape, value: &mut Value, at: &At) {
        match (shape, &mut *value) {
            (Shape::Any, _)
            | (Shape::TypeOrOther(_), Value::Bool(_) | Value::Array(_))
            | (Shape::Text | Shape::Choice(_), Value::String(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Float, Value::Number(_)) => {}
            (Shape::Int32, Value::Number(number)) => {
                let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
                self.check(fits, || at.mismatch(&format!("number {number}"), "int32"));
            }
            (Shape::Int64, Value::Number(number)) => {
                self.check(number.is_i64(), || at.mismatch(&format!("number {number}"), "int64"));
            }
            (Shape::TypeOrOther(number), Value::Object(map)) | (Shape::Type(number), Value::Object(map)) => {
                self.object(schemas().type_of(*number), map, at)
            }
            (Shape::List(items), Value::Array(list)) => {
                for (index, item) in list.iter_mut().enumerate() {
                    self.or_zero(items, item, &at.within(Step::Item(index)));
                }
            }
            (Shape::Map(values), Value::Object(map)) => {
                for (name, value) in map.iter_mut() {
                    self.or_zero(values, value, &at.within(Step::Entry(name)));
                }
            }
            (Shape::Bytes, Value::String(text)) => self.bytes(text),
            (Shape::Time | Shape::MicroTime, Value::String(text)) => self.time(text, *shape == Shape::MicroTime),
            (Shape::Quantity, Value::String(_) | Value::Number(_)) => self.quantity(value),
            (Shape::IntOrText, Value::String(_)) => {}
            (Shape::IntOrText, Value::Number(number)) => {
                let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
                self.check(fits, || format!("json: cannot unmarshal number {number} into Go value of type int32"));
            }
            (Shape::IntOrText, _) => {
                let why = format!("json: cannot unmarshal {} into Go value of type int32", word(value));
                self.check(false, || why);
            }
            (Shape::Quantity, _) => {
                let why = slipway_api::quantity::Error::Format.to_string();
                self.check(false, || why);
            }
            (Shape::Time | Shape::MicroTime, _) => {
                let why = format!("json: cannot unmarshal {} into Go value of type string", word(value));
                self.check(false, || why);
            }
            _ => {
                let why = at.mismatch(word(value), &go_type(shape));
                self.check(false, || why);
            }
        }
    }

    /// A null in a list or a map is the type's zero value.
    fn or_zero(&mut self, shape: &Shape, value: &mut Value, at: &At) {
        if value.is_null() {
            *value = zero(shape);
        } else {
            self.value(shape, value, at);
        }
    }

    fn check(&mut self, good: bool, why: impl FnOnce() -> String) {
        if !good && self.wrong.is_none() {
            self.wrong = Some(why());
        }
    }

    fn bytes(&mut self, text: &mut String) {
        // Go reads base64 with line breaks in it, and writes it without.
        if text.contains(['\n', '\r']) {
            text.retain(|c| c != '\n' && c != '\r');
        }
        let at = match STANDARD.decode(text.as_bytes()) {
            Ok(_) => return,
            Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => at,
            Err(_) => text.len(),
        };
        self.check(false, || format!("illegal base64 data at input byte {at}"));
    }

    fn time(&mut self, text: &mut String, micro: bool) {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => {
                let format = if micro { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
                *text = time.strftime(format).to_string();
            }
            Err(_) => {
                let text = mem::take(text);
                self.check(false, || {
                    format!("parsing time \"{text}\" as \"{TIME_FORMAT}\": cannot parse \"{text}\" as \"2006\"")
                });
            }
        }
    }

    fn quantity(&mut self, value: &mut Value) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match Quantity::parse(&text) {
            Ok(quantity) => *value = quantity.to_string().into(),
            Err(error) => self.check(false, || error.to_string()),
        }
    }
}

fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Text | Shape::Choice(_) | Shape::Bytes => "".into(),
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrText | Shape::Float => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Time | Shape::MicroTime | Shape::Any => Value::Null,
        Shape::Type(_) | Shape::TypeOrOther(_) | Shape::Map(_) => Map::new().into(),
        Shape::List(_) => Value::Array(vec![]),
    }
}

fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Text | Shape::Choice(_) => "string".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Bool => "bool".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Float => "float64".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrText => "intstr.IntOrString".into(),
        Shape::Any => "interface {}".into(),
        Shape::Type(number) | Shape::TypeOrOther(number) => schemas().type_of(*number).go_name().into(),
        Shape::List(items) => format!("[]{}", go_type(items)),
        Shape::Map(values) => format!("map[string]{}", go_type(values)),
    }
}
