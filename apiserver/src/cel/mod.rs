//! CEL, the language of rules in objects: of admission policies, of match conditions, of CustomResourceDefinitions.
//!
//! An expression is read (`lexer`, `parser`), its types are checked as far as they are known (`check`), and it is evaluated in
//! steps that cost (`evaluate`), so that whoever may write a rule can't hold the server up by it. Values from JSON are
//! borrowed (`value`). `library` has the functions, one file a topic: those of CEL and those that Kubernetes adds.

pub mod ast;
mod check;
pub mod cost;
mod evaluate;
mod lexer;
pub mod library;
mod parser;
pub mod types;
pub mod value;

#[cfg(test)]
mod tests;

pub use check::{Environment, Structs};
pub use evaluate::{Budget, Error, Frame};
pub use library::opaque::{Attributes, Authorizer, Decision, Opaque};
pub use types::Type;
pub use value::{Lazy, Value};

use crate::stack::with_stack;
use ast::{Expr, Node};
use lexer::Issue;
use std::fmt;

/// What walks an expression recurses.
const COMPILE_STACK: usize = 16 << 20;
const EVALUATE_STACK: usize = 64 << 20;
/// Up to here an evaluation stays on the caller's stack.
const INLINE_DEPTH: u16 = 32;

/// A checked expression.
pub struct Program {
    root: Node,
    output: Type,
}

impl Program {
    pub fn compile(source: &str, environment: &Environment) -> Result<Program, CompileError> {
        let refused = |issues| CompileError { source: source.to_owned(), issues };
        let read = || {
            let mut root = parser::parse(source).map_err(|issue| vec![issue])?;
            let output = check::check(&mut root, environment)?;
            Ok(Program { root, output })
        };
        let no_stack = |error: std::io::Error| vec![Issue { at: 0, message: error.to_string() }];
        with_stack(COMPILE_STACK, read).map_err(no_stack).flatten().map_err(refused)
    }

    /// The type of the result, as far as it is known.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// Whether the expression looks at a variable, as `oldSelf`.
    pub fn refers_to(&self, variable: &str) -> bool {
        let mut found = false;
        self.root.walk(&mut |node| found |= matches!(&node.expr, Expr::Ident(name) if &**name == variable));
        found
    }

    /// Whether it calls a function of that name.
    pub fn calls(&self, function: &str) -> bool {
        let mut found = false;
        self.root.walk(&mut |node| found |= matches!(&node.expr, Expr::Call(call) if &*call.function == function));
        found
    }

    /// Evaluates the expression. Costs are taken off the budget.
    pub fn evaluate<'a>(&self, variables: &[(&str, Value<'a>)], budget: &mut Budget) -> Result<Value<'a>, Error> {
        budget.next_call();
        self.evaluate_within(variables, budget)
    }

    /// Evaluates it as a part of another expression (see [`Lazy`]).
    pub fn evaluate_within<'a>(&self, variables: &[(&str, Value<'a>)], budget: &mut Budget) -> Result<Value<'a>, Error> {
        let depth = self.root.depth;
        let before = budget.enter(depth)?;
        let result = if before <= INLINE_DEPTH && before + depth > INLINE_DEPTH {
            let deep = || Frame::new(variables.to_vec(), budget).run(&self.root);
            with_stack(EVALUATE_STACK, deep).map_err(|error| Error::new(error.to_string())).flatten()
        } else {
            Frame::new(variables.to_vec(), budget).run(&self.root)
        };
        budget.leave(depth);
        result
    }

    /// The result of an expression that says yes or no.
    pub fn test<'a>(&self, variables: &[(&str, Value<'a>)], budget: &mut Budget) -> Result<bool, Error> {
        let value = self.evaluate(variables, budget)?;
        value.as_bool().ok_or_else(|| Error::new("cel expression did not evaluate to a bool"))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an expression of type {}", self.output)
    }
}

/// What is wrong with an expression. Prints as Kubernetes does: `compilation failed: ERROR: <input>:1:1: …`, with a line
/// below that points to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    source: String,
    issues: Vec<Issue>,
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("compilation failed: ")?;
        write!(f, "{}", self.issues())
    }
}

impl CompileError {
    /// The issues without the words before them.
    pub fn issues(&self) -> String {
        let mut out = vec![];
        for issue in &self.issues {
            let (line, column, text) = place(&self.source, issue.at as usize);
            let shown = text.replace('\t', " ");
            let dots: String = shown.chars().take(column).map(|c| if c.is_ascii() { '.' } else { '．' }).collect();
            out.push(format!("ERROR: <input>:{line}:{}: {}\n | {shown}\n | {dots}^", column + 1, issue.message));
        }
        out.join("\n")
    }
}

/// The line, the column and the line's text.
fn place(source: &str, at: usize) -> (usize, usize, &str) {
    let mut left = at;
    let lines: Vec<&str> = source.split('\n').collect();
    for (index, line) in lines.iter().enumerate() {
        let length = line.chars().count();
        if left <= length || index + 1 == lines.len() {
            return (index + 1, left.min(length), line);
        }
        left -= length + 1;
    }
    (1, 0, "")
}
