//! Evaluation, step by step, each of which costs: an expression that would run away is stopped.
//!
//! What the steps cost follows cel-go: a name or a field 1, a list 10, a map 30, an object 40, a call 1 and a tenth of the
//! length of the texts it goes through.

use crate::cel::ast::{Access, Bind, Call, Expr, Literal, Loop, LoopKind, Node, OptMap, Select, Struct};
use crate::cel::check::type_named;
use crate::cel::value::{Key, List, Map, Text, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Variables that refer to each other, all in all.
const NESTED_DEPTH_MAX: u16 = 2_000;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;
/// For each turn of a macro, beside what its body costs.
const TURN_COST: u64 = 3;
/// A pattern that is made while evaluating has to be compiled.
const PATTERN_COST: u64 = 2_000;
/// Compiled patterns kept during one evaluation.
const PATTERNS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The expression alone costs too much.
    #[error("operation cancelled: actual cost limit exceeded")]
    CallCost,
    /// All expressions of the request together cost too much.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    TotalCost,
    #[error("{0}")]
    Failed(Box<str>),
}

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Error::Failed(message.into().into())
    }

    pub fn no_overload() -> Self {
        Error::new("no such overload")
    }

    /// Whether evaluation was stopped, and nothing may absorb this.
    pub fn is_cost(&self) -> bool {
        !matches!(self, Error::Failed(_))
    }
}

/// What evaluation may still cost.
#[derive(Debug, Clone)]
pub struct Budget {
    per_call: u64,
    call: u64,
    total: u64,
    /// How deep the expressions are that are being evaluated within each other.
    depth: u16,
}

impl Budget {
    /// As in Kubernetes: of one expression.
    pub const PER_CALL: u64 = 1_000_000;
    /// Of all expressions of a policy's binding, or of a custom resource.
    pub const PER_REQUEST: u64 = 10_000_000;
    /// Of the match conditions of a webhook or a policy.
    pub const MATCH_CONDITIONS: u64 = 2_500_000;

    pub fn new(total: u64) -> Self {
        Budget { per_call: Self::PER_CALL, call: Self::PER_CALL, total, depth: 0 }
    }

    pub fn with_per_call(mut self, per_call: u64) -> Self {
        (self.per_call, self.call) = (per_call, per_call);
        self
    }

    pub fn remaining(&self) -> u64 {
        self.total
    }

    /// Called before each expression.
    pub(super) fn next_call(&mut self) {
        self.call = self.per_call;
    }

    /// Answers with how deep it was before.
    pub(super) fn enter(&mut self, depth: u16) -> Result<u16, Error> {
        let before = self.depth;
        if before + depth > NESTED_DEPTH_MAX {
            return Err(Error::new(format!("expression recursion limit exceeded: {NESTED_DEPTH_MAX}")));
        }
        self.depth += depth;
        Ok(before)
    }

    pub(super) fn leave(&mut self, depth: u16) {
        self.depth -= depth;
    }

    fn charge(&mut self, cost: u64) -> Result<(), Error> {
        if cost > self.total {
            self.total = 0;
            return Err(Error::TotalCost);
        }
        self.total -= cost;
        if cost > self.call {
            self.call = 0;
            return Err(Error::CallCost);
        }
        self.call -= cost;
        Ok(())
    }
}

/// One evaluation: its variables, and what it may cost.
pub struct Frame<'f, 'a> {
    variables: Vec<(&'f str, Value<'a>)>,
    budget: &'f mut Budget,
    patterns: Vec<(String, regex::Regex)>,
}

impl<'f, 'a> Frame<'f, 'a> {
    pub fn new(variables: Vec<(&'f str, Value<'a>)>, budget: &'f mut Budget) -> Self {
        Frame { variables, budget, patterns: vec![] }
    }

    pub fn budget(&mut self) -> &mut Budget {
        self.budget
    }

    pub fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.budget.charge(cost)
    }

    /// For going through so many bytes.
    pub fn charge_text(&mut self, bytes: usize) -> Result<(), Error> {
        self.budget.charge(bytes as u64 / 10)
    }

    /// The compiled pattern; compiling costs, but for what was compiled lately.
    pub fn pattern(&mut self, pattern: &str) -> Result<regex::Regex, Error> {
        if let Some((_, known)) = self.patterns.iter().find(|(text, _)| text == pattern) {
            return Ok(known.clone());
        }
        self.charge(PATTERN_COST + 10 * pattern.len() as u64)?;
        let compiled =
            crate::cel::library::regex::compile(pattern).map_err(|error| Error::new(format!("error parsing regexp: {error}")))?;
        if self.patterns.len() >= PATTERNS_MAX {
            self.patterns.remove(0);
        }
        self.patterns.push((pattern.to_owned(), compiled.clone()));
        Ok(compiled)
    }

    pub fn run(&mut self, node: &'f Node) -> Result<Value<'a>, Error> {
        match &node.expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::And(nodes) => self.logical(nodes, false),
            Expr::Or(nodes) => self.logical(nodes, true),
            Expr::Conditional(nodes) => match self.run(&nodes[0])? {
                Value::Bool(true) => self.run(&nodes[1]),
                Value::Bool(false) => self.run(&nodes[2]),
                _ => Err(Error::no_overload()),
            },
            Expr::List(elements) => {
                self.charge(LIST_COST)?;
                let mut items = Vec::with_capacity(elements.len());
                for element in elements {
                    let value = self.run(&element.node)?;
                    items.extend(if element.optional { present(value)? } else { Some(value) });
                }
                Ok(Value::list(items))
            }
            Expr::Map(entries) => {
                self.charge(MAP_COST)?;
                let mut map = BTreeMap::new();
                for entry in entries {
                    let (key, value) = (self.run(&entry.key)?, self.run(&entry.value)?);
                    let Some(value) = (if entry.optional { present(value)? } else { Some(value) }) else { continue };
                    insert(&mut map, key, value)?;
                }
                Ok(Value::map(map))
            }
            Expr::Struct(built) => self.structure(built),
            Expr::Loop(each) => self.each(each),
            Expr::OptMap(map) => self.opt_map(map),
            Expr::Bind(bind) => self.bind(bind),
        }
    }

    #[inline(never)]
    fn ident(&mut self, name: &str) -> Result<Value<'a>, Error> {
        self.charge(1)?;
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match type_named(name) {
            Some(kind) => Ok(Value::Type(kind.into())),
            None => Err(Error::new(format!("no such attribute(s): {name}"))),
        }
    }

    #[inline(never)]
    fn select(&mut self, select: &'f Select) -> Result<Value<'a>, Error> {
        let operand = self.run(&select.operand)?;
        self.charge(1)?;
        let (operand, chained) = match operand {
            Value::Optional(None) => {
                return Ok(if select.access == Access::Test { Value::Bool(false) } else { Value::Optional(None) });
            }
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            operand => (operand, false),
        };
        let Value::Map(map) = &operand else {
            return match (select.access, &operand) {
                (Access::Optional, Value::Null) => Ok(Value::Optional(None)),
                _ => Err(Error::no_overload()),
            };
        };
        let found = map.text(&select.field, self).transpose()?;
        match (select.access, found) {
            (Access::Test, found) => Ok(Value::Bool(found.is_some())),
            (Access::Optional, found) => Ok(Value::Optional(found.map(Arc::new))),
            (Access::Plain, found) if chained => Ok(Value::Optional(found.map(Arc::new))),
            (Access::Plain, Some(value)) => Ok(value),
            (Access::Plain, None) => Err(Error::new(format!("no such key: {}", select.field))),
        }
    }

    #[inline(never)]
    fn call(&mut self, call: &'f Call) -> Result<Value<'a>, Error> {
        let mut args = smallvec::SmallVec::<[Value<'a>; 3]>::new();
        for arg in &call.args {
            args.push(self.run(arg)?);
        }
        self.charge(1)?;
        if let Some(pattern) = &call.pattern
            && let Some(text) = args.first().and_then(Value::as_str)
        {
            let length = text.len() as u64;
            self.charge((length / 10).max(1) * (pattern.as_str().len() as u64 / 4).max(1))?;
            return Ok(Value::Bool(pattern.is_match(args[0].as_str().unwrap_or_default())));
        }
        for candidate in &call.candidates {
            if candidate.params.len() == args.len() && args.iter().zip(&candidate.params).all(|(arg, param)| arg.is(param)) {
                return (candidate.function)(self, &args);
            }
        }
        Err(Error::no_overload())
    }

    /// `&&` (which `false` decides) and `||` (which `true` decides): what decides counts more than an error beside it.
    #[inline(never)]
    fn logical(&mut self, nodes: &'f [Node], decisive: bool) -> Result<Value<'a>, Error> {
        let mut error = None;
        for node in nodes {
            match self.run(node) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = error.or_else(|| Some(Error::no_overload())),
                Err(stop) if stop.is_cost() => return Err(stop),
                Err(other) => error = error.or(Some(other)),
            }
        }
        error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    #[inline(never)]
    fn structure(&mut self, built: &'f Struct) -> Result<Value<'a>, Error> {
        self.charge(STRUCT_COST)?;
        let mut map = BTreeMap::new();
        for field in &built.fields {
            let value = self.run(&field.value)?;
            let Some(value) = (if field.optional { present(value)? } else { Some(value) }) else { continue };
            map.insert(Key::String(Text::Shared(field.name.clone())), value);
        }
        Ok(Value::Map(Map::Struct(built.name.clone(), Arc::new(map))))
    }

    #[inline(never)]
    fn bind(&mut self, bind: &'f Bind) -> Result<Value<'a>, Error> {
        let value = self.run(&bind.value)?;
        self.charge(TURN_COST)?;
        self.variables.push((&bind.variable, value));
        let body = self.run(&bind.body);
        self.variables.pop();
        body
    }

    #[inline(never)]
    fn opt_map(&mut self, map: &'f OptMap) -> Result<Value<'a>, Error> {
        let Value::Optional(inner) = self.run(&map.target)? else { return Err(Error::no_overload()) };
        self.charge(TURN_COST)?;
        let Some(inner) = inner else { return Ok(Value::Optional(None)) };
        self.variables.push((&map.variable, (*inner).clone()));
        let body = self.run(&map.body);
        self.variables.pop();
        Ok(if map.flat { body? } else { Value::some(body?) })
    }

    #[inline(never)]
    fn each(&mut self, each: &'f Loop) -> Result<Value<'a>, Error> {
        let range = self.run(&each.range)?;
        let depth = self.variables.len();
        let result = self.turns(each, &range);
        self.variables.truncate(depth);
        result
    }

    fn turns(&mut self, each: &'f Loop, range: &Value<'a>) -> Result<Value<'a>, Error> {
        // Of a list, the places: what stands there is looked up when its turn comes.
        let keys = match range {
            Value::List(list) => (0..list.len()).map(|index| Value::Int(index as i64)).collect(),
            Value::Map(map) => map.keys(),
            _ => return Err(Error::no_overload()),
        };
        let depth = self.variables.len();
        let mut turn = Turn::default();
        for (index, key) in keys.into_iter().enumerate() {
            self.charge(TURN_COST)?;
            self.variables.truncate(depth);
            let (first, second) = match range {
                Value::List(list) => (key, list.get(index).unwrap_or(Value::Null)),
                Value::Map(map) if each.second.is_some() => {
                    let value = map.get(&key, self).transpose()?;
                    (key, value.unwrap_or(Value::Null))
                }
                _ => (key.clone(), key),
            };
            match &each.second {
                Some(name) => {
                    self.variables.push((&each.variable, first.clone()));
                    self.variables.push((name, second.clone()));
                }
                None => self.variables.push((&each.variable, second.clone())),
            }
            if self.turn(each, &mut turn, first, second)? {
                break;
            }
        }
        self.outcome(each, turn)
    }

    /// One turn; whether it decides.
    fn turn(&mut self, each: &'f Loop, so_far: &mut Turn<'a>, key: Value<'a>, item: Value<'a>) -> Result<bool, Error> {
        if let Some(filter) = &each.filter {
            match self.run(filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(false),
                _ => return Err(Error::no_overload()),
            }
        }
        let body = self.run(&each.body);
        match each.kind {
            LoopKind::All | LoopKind::Exists => match body {
                Ok(Value::Bool(value)) if value == (each.kind == LoopKind::Exists) => {
                    so_far.decided = true;
                    return Ok(true);
                }
                Ok(Value::Bool(_)) => {}
                Ok(_) => so_far.fail(Error::no_overload()),
                Err(stop) if stop.is_cost() => return Err(stop),
                Err(other) => so_far.fail(other),
            },
            LoopKind::ExistsOne => so_far.count += usize::from(body?.as_bool().ok_or_else(Error::no_overload)?),
            LoopKind::Filter => {
                if body?.as_bool().ok_or_else(Error::no_overload)? {
                    so_far.items.push(item);
                }
            }
            LoopKind::Map | LoopKind::TransformList => so_far.items.push(body?),
            LoopKind::SortBy => {
                let by = body?;
                so_far.keyed.push((by, item));
            }
            LoopKind::TransformMap => insert(&mut so_far.map, key, body?)?,
            LoopKind::TransformMapEntry => {
                let Value::Map(entry) = body? else { return Err(Error::no_overload()) };
                for key in entry.keys() {
                    if let Some(value) = entry.get(&key, self).transpose()? {
                        insert(&mut so_far.map, key, value)?;
                    }
                }
            }
        }
        Ok(false)
    }

    fn outcome(&mut self, each: &Loop, turn: Turn<'a>) -> Result<Value<'a>, Error> {
        match each.kind {
            LoopKind::All | LoopKind::Exists => match (turn.decided, turn.error) {
                (true, _) => Ok(Value::Bool(each.kind == LoopKind::Exists)),
                (false, Some(error)) => Err(error),
                (false, None) => Ok(Value::Bool(each.kind == LoopKind::All)),
            },
            LoopKind::ExistsOne => Ok(Value::Bool(turn.count == 1)),
            LoopKind::Filter | LoopKind::Map | LoopKind::TransformList => Ok(Value::list(turn.items)),
            LoopKind::SortBy => sorted(turn.keyed).map(Value::list),
            LoopKind::TransformMap | LoopKind::TransformMapEntry => Ok(Value::map(turn.map)),
        }
    }
}

/// What the turns of a macro have come to.
#[derive(Default)]
struct Turn<'a> {
    decided: bool,
    error: Option<Error>,
    count: usize,
    items: Vec<Value<'a>>,
    keyed: Vec<(Value<'a>, Value<'a>)>,
    map: BTreeMap<Key<'a>, Value<'a>>,
}

impl Turn<'_> {
    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

fn literal<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

fn present<'a>(value: Value<'a>) -> Result<Option<Value<'a>>, Error> {
    match value {
        Value::Optional(inner) => Ok(inner.map(|inner| (*inner).clone())),
        _ => Err(Error::no_overload()),
    }
}

fn insert<'a>(map: &mut BTreeMap<Key<'a>, Value<'a>>, key: Value<'a>, value: Value<'a>) -> Result<(), Error> {
    let kind = key.type_name().into_owned();
    let key = Key::of(key).ok_or_else(|| Error::new(format!("unsupported key type: {kind}")))?;
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(Error::new("Failed with repeated key")),
    }
}

/// In the order of the keys; all of them must be comparable.
pub fn sorted<'a>(mut keyed: Vec<(Value<'a>, Value<'a>)>) -> Result<Vec<Value<'a>>, Error> {
    let comparable = keyed.windows(2).all(|pair| pair[0].0.compare(&pair[1].0).is_some());
    if !comparable {
        return Err(Error::no_overload());
    }
    keyed.sort_by(|a, b| a.0.compare(&b.0).unwrap_or(Ordering::Equal));
    Ok(keyed.into_iter().map(|(_, value)| value).collect())
}

/// The elements of a list that costs something to go through.
pub fn items<'a>(list: &List<'a>, frame: &mut Frame<'_, 'a>) -> Result<Vec<Value<'a>>, Error> {
    frame.charge(list.len() as u64)?;
    Ok(list.iter().collect())
}
