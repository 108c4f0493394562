//! What an expression is once it is read.

use crate::cel::library::Overload;
use std::sync::Arc;

/// The deepest nesting of an expression, as in cel-go. What walks an expression recurses at most so deep.
pub const DEPTH_MAX: u16 = 250;

#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands, in characters from the beginning: for messages.
    pub at: u32,
    pub depth: u16,
    pub expr: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

#[derive(Debug, Clone)]
pub enum Expr {
    Literal(Literal),
    Ident(Arc<str>),
    Select(Box<Select>),
    Call(Box<Call>),
    /// Two or more.
    And(Vec<Node>),
    Or(Vec<Node>),
    Conditional(Box<[Node; 3]>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Loop(Box<Loop>),
    /// `x.optMap(v, e)` and `x.optFlatMap(v, e)`.
    OptMap(Box<OptMap>),
    /// `cel.bind(v, x, e)`.
    Bind(Box<Bind>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `a.b`
    Plain,
    /// `has(a.b)`
    Test,
    /// `a.?b`
    Optional,
}

#[derive(Debug, Clone)]
pub struct Select {
    pub operand: Node,
    pub field: Arc<str>,
    pub access: Access,
}

#[derive(Debug, Clone)]
pub struct Call {
    /// As `_+_`, `size`, `ip.isCanonical`.
    pub function: Arc<str>,
    /// Whether the first argument stands before the dot.
    pub member: bool,
    pub args: Vec<Node>,
    /// Those that may be meant, found by the checker.
    pub candidates: Vec<&'static Overload>,
    /// `matches` with a literal pattern is compiled once.
    pub pattern: Option<regex::Regex>,
}

#[derive(Debug, Clone)]
pub struct Element {
    pub node: Node,
    /// `[?x]`
    pub optional: bool,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Node,
    pub value: Node,
    /// `{?k: x}`
    pub optional: bool,
}

#[derive(Debug, Clone)]
pub struct Struct {
    pub name: Arc<str>,
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone)]
pub struct Field {
    pub at: u32,
    pub name: Arc<str>,
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    /// `transformList`: of two variables.
    TransformList,
    TransformMap,
    TransformMapEntry,
    SortBy,
}

/// A macro over a list or a map.
#[derive(Debug, Clone)]
pub struct Loop {
    pub kind: LoopKind,
    pub range: Node,
    pub variable: Arc<str>,
    /// Of the macros with two variables: the index or key is the first, then.
    pub second: Option<Arc<str>>,
    /// The predicate of `map(x, p, e)` and its like.
    pub filter: Option<Node>,
    pub body: Node,
}

#[derive(Debug, Clone)]
pub struct OptMap {
    pub flat: bool,
    pub target: Node,
    pub variable: Arc<str>,
    pub body: Node,
}

#[derive(Debug, Clone)]
pub struct Bind {
    pub variable: Arc<str>,
    pub value: Node,
    pub body: Node,
}

impl Node {
    pub fn new(at: u32, expr: Expr) -> Node {
        let mut deepest = 0;
        let mut visit = |node: &Node| deepest = deepest.max(node.depth);
        expr.children(&mut visit);
        Node { at, depth: deepest.saturating_add(1), expr }
    }

    /// Calls `visit` for this node and all below it.
    pub fn walk(&self, visit: &mut dyn FnMut(&Node)) {
        visit(self);
        self.expr.children(&mut |node| node.walk(visit));
    }
}

impl Expr {
    pub fn children(&self, visit: &mut dyn FnMut(&Node)) {
        match self {
            Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select(select) => visit(&select.operand),
            Expr::Call(call) => call.args.iter().for_each(visit),
            Expr::And(nodes) | Expr::Or(nodes) => nodes.iter().for_each(visit),
            Expr::Conditional(nodes) => nodes.iter().for_each(visit),
            Expr::List(elements) => elements.iter().for_each(|element| visit(&element.node)),
            Expr::Map(entries) => entries.iter().for_each(|entry| {
                visit(&entry.key);
                visit(&entry.value);
            }),
            Expr::Struct(built) => built.fields.iter().for_each(|field| visit(&field.value)),
            Expr::Loop(each) => {
                visit(&each.range);
                each.filter.iter().for_each(&mut *visit);
                visit(&each.body);
            }
            Expr::OptMap(map) => {
                visit(&map.target);
                visit(&map.body);
            }
            Expr::Bind(bind) => {
                visit(&bind.value);
                visit(&bind.body);
            }
        }
    }
}
