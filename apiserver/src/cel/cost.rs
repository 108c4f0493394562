//! What an expression may cost at most, told before it is ever evaluated: by the sizes that the schema allows what it looks at.
//!
//! The estimate follows cel-go's and the cost that Kubernetes gives its own functions, in which each traversal of a text costs
//! a tenth of its length: a rule must be accepted here if it is accepted there.

use crate::cel::Program;
use crate::cel::ast::{Call, Expr, Literal, Loop, LoopKind, Node};
use crate::cel::types::{Type, escape};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// No object is larger than the largest request.
const REQUEST_BYTES_MAX: u64 = 3 << 20;
/// What a schema nests deeper counts as unbounded.
const DEPTH_MAX: usize = 90;
/// The shortest and the longest ways of writing times and durations, quotes included.
const DURATION_BYTES: (u64, u64) = (4, 32);
const DATE_BYTES: u64 = 12;
const DATE_TIME_BYTES: (u64, u64) = (21, 29);
/// In UTF-8 a character takes up to so many bytes.
const CHAR_BYTES_MAX: u64 = 4;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;
const AUTHORIZER_CHECK_COST: u64 = 350_000;

/// How large a value of a schema may be: in characters, items or entries.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    max: u64,
    is_text: bool,
    is_list: bool,
    /// By the names that expressions say.
    fields: BTreeMap<String, Shape>,
    /// Of a list's items or a map's values.
    item: Option<Box<Shape>>,
    /// The fewest bytes that it takes as JSON.
    min_bytes: u64,
}

/// The keys of a map: how long they are is not looked at.
static KEY: Shape = Shape { max: 0, is_text: true, is_list: false, fields: BTreeMap::new(), item: None, min_bytes: 2 };

impl Shape {
    /// `None`: expressions cannot reach it. `root`: it is a whole object.
    pub fn of_schema(source: &Json, root: bool) -> Option<Shape> {
        Self::read(source, root, 0)
    }

    fn text(max: u64, min_bytes: u64) -> Shape {
        Shape { max, is_text: true, min_bytes, ..Shape::default() }
    }

    fn read(source: &Json, root: bool, depth: usize) -> Option<Shape> {
        if depth > DEPTH_MAX {
            return None;
        }
        let limit = |field: &str| source[field].as_i64().map(|limit| limit.max(0).unsigned_abs());
        if source["x-kubernetes-int-or-string"] == true {
            return Some(Shape::text(
                limit("maxLength").map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(CHAR_BYTES_MAX)),
                1,
            ));
        }
        let root = root || source["x-kubernetes-embedded-resource"] == true;
        match source["type"].as_str().unwrap_or_default() {
            "array" => {
                let item = Self::read(&source["items"], false, depth + 1)?;
                let max = limit("maxItems").unwrap_or((REQUEST_BYTES_MAX - 2) / (item.min_bytes + 1));
                Some(Shape { max, is_list: true, item: Some(Box::new(item)), min_bytes: 2, ..Shape::default() })
            }
            "object" if source["additionalProperties"].is_object() => {
                let item = Self::read(&source["additionalProperties"], false, depth + 1)?;
                let max = limit("maxProperties").unwrap_or((REQUEST_BYTES_MAX - 2) / (item.min_bytes + 6));
                Some(Shape { max, item: Some(Box::new(item)), min_bytes: 2, ..Shape::default() })
            }
            "object" => Some(Self::object(source, root, depth)),
            "string" => Some(match source["format"].as_str().unwrap_or_default() {
                "byte" => Shape::text(limit("maxLength").unwrap_or(REQUEST_BYTES_MAX - 2), 2),
                "duration" => Shape::text(DURATION_BYTES.1, DURATION_BYTES.0),
                "date" => Shape::text(DATE_BYTES, DATE_BYTES),
                "date-time" => Shape::text(DATE_TIME_BYTES.1, DATE_TIME_BYTES.0),
                _ => Shape::text(Self::longest(source, limit("maxLength")), 2),
            }),
            "boolean" => Some(Shape { min_bytes: 4, ..Shape::default() }),
            "number" | "integer" => Some(Shape { min_bytes: 1, ..Shape::default() }),
            _ => None,
        }
    }

    fn longest(source: &Json, max_length: Option<u64>) -> u64 {
        let choices = source["enum"].as_array().filter(|choices| !choices.is_empty());
        match (max_length, choices) {
            (Some(max), _) => max.saturating_mul(CHAR_BYTES_MAX),
            (None, Some(choices)) => choices.iter().filter_map(Json::as_str).map(|text| text.len() as u64).max().unwrap_or(0),
            (None, None) => REQUEST_BYTES_MAX - 2,
        }
    }

    fn object(source: &Json, root: bool, depth: usize) -> Shape {
        let required = |name: &str| source["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
        let mut shape = Shape { min_bytes: 2, ..Shape::default() };
        for (name, property) in source["properties"].as_object().into_iter().flatten() {
            let Some(field) = Self::read(property, false, depth + 1) else { continue };
            if required(name) && property.get("default").is_none_or(Json::is_null) {
                shape.min_bytes += name.len() as u64 + field.min_bytes + 4;
            }
            if let Some(escaped) = escape(name) {
                shape.fields.insert(escaped, field);
            }
        }
        if root {
            let text = || Shape::text(REQUEST_BYTES_MAX - 2, 2);
            for field in ["apiVersion", "kind"] {
                shape.fields.entry(field.to_owned()).or_insert_with(text);
            }
            let metadata = shape.fields.entry("metadata".to_owned()).or_default();
            for field in ["name", "generateName"] {
                metadata.fields.entry(field.to_owned()).or_insert_with(text);
            }
        }
        shape
    }

    /// How many values of this shape an object can have, if nothing else bounds them.
    pub fn cardinality_max(&self) -> u64 {
        REQUEST_BYTES_MAX / (self.min_bytes + 1)
    }
}

#[derive(Debug, Clone, Copy)]
struct Size {
    min: u64,
    max: u64,
}

impl Size {
    const UNKNOWN: Size = Size { min: 0, max: u64::MAX };
    const SCALAR: Size = Size::fixed(1);

    const fn fixed(size: u64) -> Size {
        Size { min: size, max: size }
    }

    fn plus(self, other: Size) -> Size {
        Size { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Size) -> Size {
        Size { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn union(self, other: Size) -> Size {
        Size { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// What going through it costs at most.
    fn traversal(self) -> u64 {
        factor(self.max, 0.1)
    }
}

fn factor(size: u64, by: f64) -> u64 {
    (size as f64 * by).ceil() as u64
}

/// What is known of the value of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Known<'s> {
    shape: Option<&'s Shape>,
    size: Option<Size>,
}

impl<'s> Known<'s> {
    fn of(shape: Option<&'s Shape>) -> Self {
        Known { shape, size: None }
    }

    fn sized(size: Size) -> Self {
        Known { shape: None, size: Some(size) }
    }

    fn size(&self) -> Size {
        self.size.or_else(|| self.shape.map(|shape| Size { min: 0, max: shape.max })).unwrap_or(Size::UNKNOWN)
    }

    fn item(&self) -> Option<&'s Shape> {
        self.shape.and_then(|shape| shape.item.as_deref())
    }
}

struct Coster<'s> {
    root: &'s Shape,
    /// Of macros; the innermost last.
    scope: Vec<(Arc<str>, Known<'s>)>,
}

/// The worst that a program can cost over a value of this shape, which is its `self` and its `oldSelf`.
pub fn worst(program: &Program, root: &Shape) -> u64 {
    let estimate = || Coster { root, scope: vec![] }.node(&program.root).0;
    // Walking an expression recurses as deep as it is nested.
    super::with_stack(super::COMPILE_STACK, estimate).unwrap_or(u64::MAX)
}

impl<'s> Coster<'s> {
    fn node(&mut self, node: &Node) -> (u64, Known<'s>) {
        match &node.expr {
            Expr::Literal(literal) => (0, Known::sized(literal_size(literal))),
            Expr::Ident(name) => {
                let local = self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, known)| *known);
                (1, local.unwrap_or(Known::of(Some(self.root))))
            }
            Expr::Select(select) => {
                let (cost, operand) = self.node(&select.operand);
                if select.access == super::ast::Access::Test {
                    return (cost, Known::sized(Size::SCALAR));
                }
                let shape = operand.shape.and_then(|shape| shape.fields.get(&*select.field).or(shape.item.as_deref()));
                (cost.saturating_add(1), Known::of(shape))
            }
            Expr::Call(call) => self.call(call),
            Expr::And(nodes) | Expr::Or(nodes) => {
                (nodes.iter().fold(0, |sum: u64, node| sum.saturating_add(self.node(node).0)), Known::sized(Size::SCALAR))
            }
            Expr::Conditional(nodes) => {
                let (condition, _) = self.node(&nodes[0]);
                let ((then, one), (otherwise, other)) = (self.node(&nodes[1]), self.node(&nodes[2]));
                (condition.saturating_add(then.max(otherwise)), Known::sized(one.size().union(other.size())))
            }
            Expr::List(elements) => {
                let cost = elements.iter().fold(LIST_COST, |sum, element| sum.saturating_add(self.node(&element.node).0));
                (cost, Known::sized(Size::fixed(elements.len() as u64)))
            }
            Expr::Map(entries) => {
                let both = |sum: u64, entry: &super::ast::Entry, this: &mut Self| {
                    sum.saturating_add(this.node(&entry.key).0).saturating_add(this.node(&entry.value).0)
                };
                let cost = entries.iter().fold(MAP_COST, |sum, entry| both(sum, entry, self));
                (cost, Known::sized(Size::fixed(entries.len() as u64)))
            }
            Expr::Struct(built) => {
                let cost = built.fields.iter().fold(STRUCT_COST, |sum, field| sum.saturating_add(self.node(&field.value).0));
                (cost, Known::default())
            }
            Expr::Loop(each) => self.each(each),
            Expr::Bind(bind) => {
                let (value, known) = self.node(&bind.value);
                self.scope.push((bind.variable.clone(), known));
                let (body, result) = self.node(&bind.body);
                self.scope.pop();
                (value.saturating_add(body), result)
            }
            Expr::OptMap(map) => {
                let (target, known) = self.node(&map.target);
                self.scope.push((map.variable.clone(), known));
                let (body, result) = self.node(&map.body);
                self.scope.pop();
                // It is asked whether there is a value, and then for it.
                (target.saturating_mul(2).saturating_add(body).saturating_add(3), result)
            }
        }
    }

    fn each(&mut self, each: &Loop) -> (u64, Known<'s>) {
        let (range_cost, range) = self.node(&each.range);
        let depth = self.scope.len();
        // An element of what has no place in the schema counts as the root.
        let unplaced = || Known::sized(Size { min: 0, max: self.root.max });
        let item = if range.shape.is_some() { Known::of(range.item()) } else { unplaced() };
        let key = match range.shape {
            Some(shape) if !shape.is_list => Known::of(Some(&KEY)),
            _ => Known::sized(Size::SCALAR),
        };
        let is_map = range.shape.is_some_and(|shape| !shape.is_list && shape.item.is_some());
        match &each.second {
            Some(second) => {
                self.scope.push((each.variable.clone(), key));
                self.scope.push((second.clone(), item));
            }
            None => self.scope.push((each.variable.clone(), if is_map { key } else { item })),
        }
        let filter = each.filter.as_ref().map_or(0, |filter| self.node(filter).0);
        let (body, _) = self.node(&each.body);
        self.scope.truncate(depth);
        let appended = LIST_COST + 2;
        // What the macro stands for: what is there before, each turn beside the body, and what is made of the result.
        let (before, turn, after) = match each.kind {
            LoopKind::All => (0, 3, 1),
            LoopKind::Exists => (0, 4, 1),
            LoopKind::ExistsOne => (0, 2, 2),
            LoopKind::Filter => (LIST_COST, appended + 1, 1),
            LoopKind::Map | LoopKind::TransformList | LoopKind::SortBy => (LIST_COST, appended, 1),
            LoopKind::TransformMap | LoopKind::TransformMapEntry => (MAP_COST, 2, 1),
        };
        let turns = range.size().max.saturating_mul(body.saturating_add(filter).saturating_add(turn));
        let cost = range_cost.saturating_add(turns).saturating_add(before + after);
        let size = match each.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Size::SCALAR,
            _ => range.size(),
        };
        (cost, Known::sized(size))
    }

    fn call(&mut self, call: &Call) -> (u64, Known<'s>) {
        let mut sum: u64 = 0;
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            let (cost, known) = self.node(arg);
            sum = sum.saturating_add(cost);
            args.push(known);
        }
        if &*call.function == "dyn" {
            return (sum.saturating_add(1), args.first().copied().unwrap_or_default());
        }
        if matches!(&*call.function, "_[_]" | "_[?_]") {
            return (sum.saturating_add(1), Known::of(args.first().and_then(Known::item)));
        }
        let (cost, size) = own_cost(call, &args);
        let result = call.candidates.first().map(|overload| &overload.result);
        let size = size.or_else(|| result.filter(|result| is_scalar(result)).map(|_| Size::SCALAR));
        (sum.saturating_add(cost), Known { shape: None, size })
    }
}

fn is_scalar(kind: &Type) -> bool {
    matches!(kind, Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration | Type::Null)
}

fn literal_size(literal: &Literal) -> Size {
    match literal {
        Literal::String(text) => Size::fixed(text.chars().count() as u64),
        Literal::Bytes(bytes) => Size::fixed(bytes.len() as u64),
        _ => Size::SCALAR,
    }
}

/// What a call costs beside its arguments, and how large its result is.
fn own_cost(call: &Call, args: &[Known<'_>]) -> (u64, Option<Size>) {
    let size = |at: usize| args.get(at).map_or(Size::UNKNOWN, Known::size);
    let takes = |kind: &Type| call.candidates.iter().any(|overload| overload.params.first() == Some(kind));
    let takes_list = || call.candidates.iter().any(|overload| matches!(overload.params.first(), Some(Type::List(_))));
    match (&*call.function, call.member) {
        ("check", true) => (AUTHORIZER_CHECK_COST, None),
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", true) => match args.first().and_then(Known::item) {
            Some(item) => {
                let each = if item.is_text { 1 + factor(item.max, 0.1) } else { 1 };
                (size(0).max.saturating_mul(each), None)
            }
            None => (size(0).traversal(), None),
        },
        ("url", false) => (size(0).traversal(), None),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", true) => (size(0).traversal(), Some(size(0))),
        ("replace", true) => (factor(size(0).max, 0.2), Some(replaced(size(0), size(1), size(2)))),
        ("split", true) => (factor(size(0).max, 0.2), Some(Size { min: 0, max: size(0).max })),
        ("join", true) => {
            let item = args.first().and_then(Known::item).map_or(Size::UNKNOWN, |item| Size { min: 0, max: item.max });
            let mut joined = size(0).times(item);
            if args.len() > 1 {
                let between = Size { min: size(0).min.saturating_sub(1), max: size(0).max.saturating_sub(1) };
                joined = joined.plus(size(1).times(between));
            }
            (joined.traversal(), Some(joined))
        }
        ("find" | "findAll", true) => (matching(size(0), size(1)), Some(Size { min: 0, max: size(0).max })),
        ("matches", _) => (matching(size(0), size(1)), None),
        ("contains", true) => (size(0).traversal().saturating_mul(size(1).traversal()), None),
        ("startsWith" | "endsWith", true) => (size(1).traversal(), None),
        ("containsIP", true) => (4 + if call.args.len() > 1 { size(1).traversal().min(4) } else { 0 }, None),
        ("containsCIDR", true) => (7 + size(1).traversal().min(5), None),
        ("sets.contains" | "sets.intersects", false) => (size(0).max.saturating_mul(size(1).max), None),
        ("sets.equivalent", false) => (size(0).max.saturating_mul(size(1).max).saturating_mul(2), None),
        ("format", true) => (size(0).traversal(), Some(Size::UNKNOWN)),
        ("string", false) if takes(&Type::Bytes) => (size(0).traversal(), Some(Size { min: size(0).min / 4, max: size(0).max })),
        ("bytes", false) if takes(&Type::String) => {
            (size(0).traversal(), Some(Size { min: size(0).min, max: size(0).max.saturating_mul(CHAR_BYTES_MAX) }))
        }
        ("strings.quote", false) => {
            (size(0).traversal(), Some(Size { min: size(0).min + 2, max: size(0).max.saturating_mul(2).saturating_add(2) }))
        }
        ("@in", _) if args.get(1).and_then(|known| known.shape).is_none_or(|shape| shape.is_list) => (size(1).max, None),
        ("_+_", _) if takes_list() => (1, Some(size(0).plus(size(1)))),
        ("_+_", _) if takes(&Type::String) || takes(&Type::Bytes) => {
            let both = size(0).plus(size(1));
            (both.traversal(), Some(both))
        }
        ("_==_" | "_!=_", _) => (factor(size(0).max.min(size(1).max), 0.1), None),
        ("_<_" | "_<=_" | "_>_" | "_>=_", _) if takes(&Type::String) || takes(&Type::Bytes) => {
            (factor(size(0).max.min(size(1).max), 0.1), None)
        }
        _ => (1, None),
    }
}

/// A text is gone through for each part of the pattern. An empty one costs too.
fn matching(text: Size, pattern: Size) -> u64 {
    text.plus(Size::fixed(1)).traversal().saturating_mul(factor(pattern.max, 0.25))
}

/// The longest text that comes of replacing parts of one.
fn replaced(text: Size, old: Size, new: Size) -> Size {
    let (count, kept) = if old.min == 0 {
        (text.max.saturating_add(1), text.max)
    } else if new.max <= old.min {
        (0, text.max)
    } else {
        (text.max.div_ceil(old.min), 0)
    };
    Size { min: 0, max: count.saturating_mul(new.max).saturating_add(kept) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::Environment;
    use serde_json::json;

    fn cost(schema: Json, rule: &str) -> u64 {
        let kind = Type::of_schema(&schema, false, &|_| None).unwrap();
        let program = Program::compile(rule, &Environment::new().variable("self", kind)).unwrap();
        worst(&program, &Shape::of_schema(&schema, false).unwrap())
    }

    #[test]
    fn costs_follow_the_sizes_of_the_schema() {
        let list = |limits: Json| {
            let mut list = json!({"type": "array", "items": {"type": "integer"}});
            limits.as_object().unwrap().iter().for_each(|(name, value)| list[name] = value.clone());
            list
        };
        // self, and each of ten turns: the condition 2, the step 1, and its body 2 (self: 1, and the comparison 1).
        assert_eq!(cost(list(json!({"maxItems": 10})), "self.all(x, x > 0)"), 1 + 10 * (3 + 2) + 1);
        let unbounded = (REQUEST_BYTES_MAX - 2) / 2;
        assert_eq!(cost(list(json!({})), "self.all(x, x > 0)"), 1 + unbounded * 5 + 1);
        let text = json!({"type": "string", "maxLength": 100});
        // A hundred characters are up to four hundred bytes.
        assert_eq!(cost(text.clone(), "self.startsWith('abc')"), 1 + 1);
        assert_eq!(cost(text.clone(), "self.contains(self)"), 2 + 40 * 40);
        assert_eq!(cost(text.clone(), "self.matches('[0-9]+x')"), 1 + 41 * 2);
        assert_eq!(cost(json!({"type": "string", "enum": ["a", "bcd"]}), "self == 'bcd'"), 1 + 1);
        let map = json!({"type": "object", "maxProperties": 5, "additionalProperties": text});
        assert_eq!(cost(map, "self.all(k, self[k] == 'x')"), 1 + 5 * (3 + 3 + 1) + 1);
        let object = json!({"type": "object", "properties": {"a-b": {"type": "integer"}}});
        assert_eq!(cost(object.clone(), "has(self.a__dash__b) && self.a__dash__b > 1"), 1 + 3);
        assert_eq!(cost(object, "[1, 2].exists(x, x == 1) ? true : false"), 10 + 2 * (4 + 1) + 1);
    }

    #[test]
    fn nested_loops_over_what_has_no_bound_cost_too_much() {
        let list = json!({"type": "array", "items": {"type": "string"}});
        assert!(cost(list, "self.all(a, self.all(b, a == b))") > 100 * 10_000_000);
    }
}
