//! Types are checked before an expression is evaluated, as far as they are known, and calls are resolved.

use crate::cel::ast::{Access, Bind, Call, Expr, Literal, Loop, LoopKind, Node, OptMap, Select, Struct};
use crate::cel::lexer::Issue;
use crate::cel::library::{self, NAMESPACES, Overload};
use crate::cel::parser::qualified;
use crate::cel::types::Type;
use std::sync::Arc;

/// How many issues are told of, as in cel-go.
const ISSUES_MAX: usize = 100;
/// Type variables of one overload.
const VARIABLES: usize = 3;

/// Finds the type of an object that an expression builds (`Object.spec{…}`).
pub type Structs = Arc<dyn Fn(&str) -> Option<Type> + Send + Sync>;

/// What an expression may refer to.
#[derive(Clone, Default)]
pub struct Environment {
    variables: Vec<(Arc<str>, Type)>,
    structs: Option<Structs>,
    bindings: bool,
}

impl Environment {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn variable(mut self, name: &str, kind: Type) -> Self {
        self.declare(name, kind);
        self
    }

    /// Declares a variable, or declares it anew.
    pub fn declare(&mut self, name: &str, kind: Type) {
        self.variables.retain(|(known, _)| &**known != name);
        self.variables.push((name.into(), kind));
    }

    /// The same without a variable.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| &**known != name);
        self
    }

    /// With `cel.bind`, which not every expression in Kubernetes may use.
    pub fn bindings(mut self) -> Self {
        self.bindings = true;
        self
    }

    pub fn structs(mut self, structs: Structs) -> Self {
        self.structs = Some(structs);
        self
    }
}

struct Checker<'e> {
    environment: &'e Environment,
    /// Of macros; the innermost last.
    scope: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
}

/// Resolves what is called and answers with the type of the result.
pub fn check(node: &mut Node, environment: &Environment) -> Result<Type, Vec<Issue>> {
    let mut checker = Checker { environment, scope: vec![], issues: vec![] };
    let kind = checker.node(node);
    if checker.issues.is_empty() { Ok(kind) } else { Err(checker.issues) }
}

/// The names of types, which are values.
pub fn type_named(name: &str) -> Option<&'static str> {
    Some(match name {
        "bool" => "bool",
        "int" => "int",
        "uint" => "uint",
        "double" => "double",
        "string" => "string",
        "bytes" => "bytes",
        "list" => "list",
        "map" => "map",
        "type" => "type",
        "null_type" => "null_type",
        "optional_type" => "optional_type",
        "google.protobuf.Timestamp" => "google.protobuf.Timestamp",
        "google.protobuf.Duration" => "google.protobuf.Duration",
        "net.IP" => "net.IP",
        "net.CIDR" => "net.CIDR",
        "kubernetes.URL" => "kubernetes.URL",
        "kubernetes.Quantity" => "kubernetes.Quantity",
        "kubernetes.Semver" => "kubernetes.Semver",
        _ => return None,
    })
}

impl Checker<'_> {
    fn issue(&mut self, at: u32, message: impl Into<String>) -> Type {
        if self.issues.len() < ISSUES_MAX {
            self.issues.push(Issue { at, message: message.into() });
        }
        Type::Dyn
    }

    fn find(&self, name: &str) -> Option<&Type> {
        let known = self.scope.iter().rev().chain(&self.environment.variables);
        known.into_iter().find(|(known, _)| &**known == name).map(|(_, kind)| kind)
    }

    fn undeclared(&mut self, at: u32, name: &str) -> Type {
        self.issue(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn node(&mut self, node: &mut Node) -> Type {
        let at = node.at;
        if let Some(name) = self.named_type(node) {
            node.expr = Expr::Ident(name.into());
            return Type::Type;
        }
        if let Some((name, kind)) = self.dotted(node) {
            node.expr = Expr::Ident(name);
            return kind;
        }
        match &mut node.expr {
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => match self.find(name) {
                Some(kind) => kind.clone(),
                None => {
                    let name = name.clone();
                    self.undeclared(at, &name)
                }
            },
            Expr::Select(select) => self.select(at, select),
            Expr::Call(call) => self.call(at, call),
            Expr::And(nodes) => self.logical(at, "_&&_", nodes),
            Expr::Or(nodes) => self.logical(at, "_||_", nodes),
            Expr::Conditional(nodes) => self.conditional(at, nodes),
            Expr::List(elements) => {
                let mut item = None;
                for element in elements {
                    let kind = self.node(&mut element.node);
                    let kind = if element.optional { self.unwrapped(element.node.at, kind) } else { kind };
                    item = Some(self.same(element.node.at, item, kind));
                }
                Type::list(item.unwrap_or(Type::Dyn))
            }
            Expr::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    let kind = self.node(&mut entry.key);
                    key = Some(self.same(entry.key.at, key, kind));
                    let kind = self.node(&mut entry.value);
                    let kind = if entry.optional { self.unwrapped(entry.value.at, kind) } else { kind };
                    value = Some(self.same(entry.value.at, value, kind));
                }
                Type::map(key.unwrap_or(Type::Dyn), value.unwrap_or(Type::Dyn))
            }
            Expr::Struct(built) => self.structure(at, built),
            Expr::Loop(each) => self.each(at, each),
            Expr::OptMap(map) => self.opt_map(map),
            Expr::Bind(bind) => self.bind(at, bind),
        }
    }

    /// `int`, `google.protobuf.Timestamp`, if no variable is called so.
    fn named_type(&self, node: &Node) -> Option<&'static str> {
        let name = match &node.expr {
            Expr::Ident(name) => name.to_string(),
            Expr::Select(select) if matches!(&select.operand.expr, Expr::Ident(_) | Expr::Select(_)) => qualified(node)?,
            _ => return None,
        };
        let known = type_named(&name)?;
        let first = name.split('.').next().unwrap_or_default();
        self.find(first).is_none().then_some(known)
    }

    /// A variable whose name has a dot in it, as `authorizer.requestResource`.
    fn dotted(&self, node: &Node) -> Option<(Arc<str>, Type)> {
        let Expr::Select(select) = &node.expr else { return None };
        let Expr::Ident(first) = &select.operand.expr else { return None };
        let dotted = |name: &str| name.strip_prefix(&**first).and_then(|rest| rest.strip_prefix('.')) == Some(&*select.field);
        let found = self.environment.variables.iter().find(|(name, _)| select.access == Access::Plain && dotted(name));
        found.filter(|_| self.scope.iter().all(|(name, _)| name != first)).cloned()
    }

    /// The items of a literal list are of one type.
    fn same(&mut self, at: u32, known: Option<Type>, kind: Type) -> Type {
        let Some(known) = known else { return kind };
        if assignable(&kind, &known, &mut Bound::default()) {
            return if matches!(kind, Type::Dyn) { kind } else { known };
        }
        self.issue(at, format!("expected type '{known}' but found '{kind}'"))
    }

    fn unwrapped(&mut self, at: u32, kind: Type) -> Type {
        match kind {
            Type::Optional(of) => (*of).clone(),
            Type::Dyn => Type::Dyn,
            kind => self.issue(at, format!("expected type 'optional_type({kind})' but found '{kind}'")),
        }
    }

    fn select(&mut self, at: u32, select: &mut Select) -> Type {
        let operand = self.node(&mut select.operand);
        let (inner, optional) = match &operand {
            Type::Optional(of) => ((**of).clone(), true),
            kind => (kind.clone(), select.access == Access::Optional),
        };
        let field = match &inner {
            Type::Dyn => Type::Dyn,
            Type::Map(map) => map.1.clone(),
            Type::Object(object) => match object.fields.get(&*select.field) {
                Some(field) => field.kind.clone(),
                None => self.issue(at, format!("undefined field '{}'", select.field)),
            },
            kind => self.issue(at, format!("type '{kind}' does not support field selection")),
        };
        match select.access {
            Access::Test => Type::Bool,
            _ if optional => Type::optional(field),
            _ => field,
        }
    }

    fn logical(&mut self, at: u32, function: &str, nodes: &mut [Node]) -> Type {
        let kinds: Vec<Type> = nodes.iter_mut().map(|node| self.node(node)).collect();
        if kinds.iter().any(|kind| !matches!(kind, Type::Bool | Type::Dyn)) {
            let shown: Vec<String> = kinds.iter().take(2).map(Type::to_string).collect();
            self.issue(at, format!("found no matching overload for '{function}' applied to '({})'", shown.join(", ")));
        }
        Type::Bool
    }

    fn conditional(&mut self, at: u32, nodes: &mut [Node; 3]) -> Type {
        let [condition, then, otherwise] = nodes;
        let (condition, then, otherwise) = (self.node(condition), self.node(then), self.node(otherwise));
        // `c ? 'a' : null` is let pass: there are expressions that may come to nothing.
        let alike = [&then, &otherwise].contains(&&Type::Null) || assignable(&otherwise, &then, &mut Bound::default());
        if !matches!(condition, Type::Bool | Type::Dyn) || !alike {
            let message = format!("found no matching overload for '_?_:_' applied to '({condition}, {then}, {otherwise})'");
            return self.issue(at, message);
        }
        if then == otherwise { then } else { wider(then, otherwise) }
    }

    fn call(&mut self, at: u32, call: &mut Call) -> Type {
        self.qualify(call);
        let mut kinds = Vec::with_capacity(call.args.len());
        for arg in &mut call.args {
            kinds.push(match &mut arg.expr {
                // What is put into a text may be of any types.
                Expr::List(elements) if &*call.function == "format" => {
                    elements.iter_mut().for_each(|element| drop(self.node(&mut element.node)));
                    Type::list(Type::Dyn)
                }
                _ => self.node(arg),
            });
        }
        let overloads = library::overloads(&call.function, call.member);
        if overloads.is_empty() {
            let name = call.function.clone();
            return self.undeclared(at, &name);
        }
        let mut result: Option<Type> = None;
        for overload in overloads {
            let mut bound = Bound::default();
            let fits = overload.params.len() == kinds.len()
                && kinds.iter().zip(&overload.params).all(|(kind, param)| assignable(kind, param, &mut bound));
            if fits {
                let kind = substitute(&overload.result, &bound);
                result = Some(match result {
                    None => kind,
                    Some(known) if known == kind => known,
                    Some(_) => Type::Dyn,
                });
                call.candidates.push(overload);
            }
        }
        self.literals(call);
        result.unwrap_or_else(|| {
            let shown: Vec<String> = kinds.iter().map(Type::to_string).collect();
            let applied = match (call.member, shown.split_first()) {
                (true, Some((target, args))) => format!("{target}.({})", args.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let message = format!("found no matching overload for '{}' applied to '{applied}'", call.function);
            self.issue(at, message)
        })
    }

    /// `sets.contains(a, b)` is read as a method of `sets`, and made a function again.
    fn qualify(&self, call: &mut Call) {
        if !call.member {
            return;
        }
        let Some(Expr::Ident(namespace)) = call.args.first().map(|node| &node.expr) else { return };
        if !NAMESPACES.contains(&&**namespace) || self.find(namespace).is_some() {
            return;
        }
        let name = format!("{namespace}.{}", call.function);
        if !library::overloads(&name, false).is_empty() {
            call.function = name.into();
            call.member = false;
            call.args.remove(0);
        }
    }

    /// What is wrong with a literal pattern, duration or timestamp is said at once.
    fn literals(&mut self, call: &mut Call) {
        let last = if &*call.function == "matches" { call.args.get(1) } else { call.args.first() };
        let Some(Node { at, expr: Expr::Literal(Literal::String(text)), .. }) = last else { return };
        let (at, text) = (*at, text.clone());
        match &*call.function {
            "matches" => match library::regex::compile(&text) {
                Ok(pattern) => call.pattern = Some(pattern),
                Err(error) => {
                    self.issue(at, format!("invalid matches argument: {error}"));
                }
            },
            "duration" if !call.member && library::time::parse_duration(&text).is_none() => {
                self.issue(at, format!("invalid duration argument: time: invalid duration \"{text}\""));
            }
            "timestamp" if !call.member && library::time::parse_timestamp(&text).is_none() => {
                self.issue(at, format!("invalid timestamp argument: parsing time \"{text}\""));
            }
            _ => {}
        }
    }

    fn structure(&mut self, at: u32, built: &mut Struct) -> Type {
        let known = self.environment.structs.clone().and_then(|find| find(&built.name));
        let kind = match known {
            Some(kind) => kind,
            None => {
                let name = built.name.clone();
                self.undeclared(at, &name)
            }
        };
        for field in &mut built.fields {
            let value = self.node(&mut field.value);
            let value = if field.optional { self.unwrapped(field.value.at, value) } else { value };
            let Type::Object(object) = &kind else { continue };
            match object.fields.get(&*field.name) {
                None => {
                    self.issue(field.at, format!("undefined field '{}'", field.name));
                }
                Some(known) if !assignable(&value, &known.kind, &mut Bound::default()) => {
                    let message =
                        format!("expected type of field '{}' is '{}' but provided type is '{value}'", field.name, known.kind);
                    self.issue(field.at, message);
                }
                Some(_) => {}
            }
        }
        kind
    }

    fn each(&mut self, at: u32, each: &mut Loop) -> Type {
        let range = self.node(&mut each.range);
        let (key, value) = match &range {
            Type::List(list) => (Type::Int, list.item.clone()),
            Type::Map(map) => (map.0.clone(), map.1.clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            kind => {
                let message =
                    format!("expression of type '{kind}' cannot be range of a comprehension (must be list, map, or dynamic)");
                (Type::Dyn, self.issue(each.range.at, message))
            }
        };
        let depth = self.scope.len();
        match &each.second {
            Some(second) => {
                self.scope.push((each.variable.clone(), key.clone()));
                self.scope.push((second.clone(), value.clone()));
            }
            // Of a map, a single variable is the key.
            None => {
                let item = if matches!(range, Type::Map(_)) { key.clone() } else { value.clone() };
                self.scope.push((each.variable.clone(), item));
            }
        }
        let filter = each.filter.as_mut().map(|filter| (filter.at, self.node(filter)));
        let body_at = each.body.at;
        let body = self.node(&mut each.body);
        self.scope.truncate(depth);
        let must_be_bool = match each.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter => Some((body_at, body.clone())),
            _ => filter,
        };
        if let Some((_, kind)) = must_be_bool.filter(|(_, kind)| !matches!(kind, Type::Bool | Type::Dyn)) {
            let function = match each.kind {
                LoopKind::All => "_&&_",
                LoopKind::Exists => "_||_",
                _ => "_?_:_",
            };
            self.issue(at, format!("found no matching overload for '{function}' applied to '(bool, {kind})'"));
        }
        match each.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Map | LoopKind::TransformList => Type::list(body),
            // A map is filtered to the list of its keys.
            LoopKind::Filter => match range {
                Type::Map(map) => Type::list(map.0.clone()),
                range => range,
            },
            LoopKind::SortBy => range,
            LoopKind::TransformMap => Type::map(key, body),
            LoopKind::TransformMapEntry => body,
        }
    }

    fn bind(&mut self, at: u32, bind: &mut Bind) -> Type {
        if !self.environment.bindings {
            return self.undeclared(at, "cel");
        }
        let value = self.node(&mut bind.value);
        self.scope.push((bind.variable.clone(), value));
        let body = self.node(&mut bind.body);
        self.scope.pop();
        body
    }

    fn opt_map(&mut self, map: &mut OptMap) -> Type {
        let target = self.node(&mut map.target);
        let inner = self.unwrapped(map.target.at, target);
        self.scope.push((map.variable.clone(), inner));
        let body = self.node(&mut map.body);
        self.scope.pop();
        if map.flat { body } else { Type::optional(body) }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

type Bound = [Option<Type>; VARIABLES];

/// Whether a value of type `kind` may stand where `wanted` is asked for; binds the type variables of `wanted`.
fn assignable(kind: &Type, wanted: &Type, bound: &mut Bound) -> bool {
    match (kind, wanted) {
        (kind, Type::Variable(n)) => match bound[usize::from(*n)].clone() {
            None => {
                bound[usize::from(*n)] = Some(kind.clone());
                true
            }
            Some(known) => {
                let mut none = Bound::default();
                let fits = assignable(kind, &known, &mut none) || assignable(&known, kind, &mut none);
                if fits {
                    bound[usize::from(*n)] = Some(wider(known, kind.clone()));
                }
                fits
            }
        },
        (Type::Dyn, _) | (_, Type::Dyn) => true,
        (Type::Null, Type::Null | Type::Timestamp | Type::Duration | Type::Object(_) | Type::Opaque(_) | Type::Optional(_)) => {
            true
        }
        (Type::Object(_) | Type::Opaque(_) | Type::Timestamp | Type::Duration | Type::Optional(_), Type::Null) => true,
        (Type::List(a), Type::List(b)) => assignable(&a.item, &b.item, bound),
        (Type::Map(a), Type::Map(b)) => assignable(&a.0, &b.0, bound) && assignable(&a.1, &b.1, bound),
        (Type::Optional(a), Type::Optional(b)) => assignable(a, b, bound),
        (Type::Object(a), Type::Object(b)) => a.name == b.name,
        (a, b) => a == b,
    }
}

/// The type that says less of the two.
fn wider(a: Type, b: Type) -> Type {
    match (&a, &b) {
        (Type::Null, _) => b,
        (_, Type::Null) => a,
        (Type::List(x), Type::List(y)) if x.item != y.item => Type::list(wider(x.item.clone(), y.item.clone())),
        _ if a == b => a,
        (Type::Object(x), Type::Object(y)) if x.name == y.name => a,
        _ => Type::Dyn,
    }
}

fn substitute(kind: &Type, bound: &Bound) -> Type {
    match kind {
        Type::Variable(n) => bound[usize::from(*n)].clone().unwrap_or(Type::Dyn),
        Type::List(list) => Type::list(substitute(&list.item, bound)),
        Type::Map(map) => Type::map(substitute(&map.0, bound), substitute(&map.1, bound)),
        Type::Optional(of) => Type::optional(substitute(of, bound)),
        kind => kind.clone(),
    }
}

/// Kept so that an overload can be told of.
impl std::fmt::Display for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let params: Vec<String> = self.params.iter().map(Type::to_string).collect();
        write!(f, "{}({}) -> {}", self.name, params.join(", "), self.result)
    }
}
