//! Tokens, made into a tree. Macros (`has`, `all`, `map`, …) are taken apart here.

use crate::cel::ast::{
    Access, Bind, Call, DEPTH_MAX, Element, Entry, Expr, Field, Literal, Loop, LoopKind, Node, OptMap, Select, Struct,
};
use crate::cel::lexer::{self, Issue, Placed, Token};
use std::sync::Arc;

/// As in cel-go: the longest expression, in characters.
const CODE_POINTS_MAX: usize = 100_000;
/// Words that are kept for later versions of the language.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: u16,
}

pub fn parse(text: &str) -> Result<Node, Issue> {
    let length = text.chars().count();
    if length > CODE_POINTS_MAX {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {CODE_POINTS_MAX}");
        return Err(Issue { at: 0, message });
    }
    let mut parser = Parser { tokens: lexer::tokens(text)?, at: 0, depth: 0 };
    let node = parser.expression()?;
    match &parser.peek().token {
        Token::End => Ok(node),
        _ => {
            let placed = parser.peek();
            Err(Issue { at: placed.at, message: format!("Syntax error: extraneous input '{}' expecting <EOF>", placed.text) })
        }
    }
}

/// How tightly an operator binds, and the function that it is.
fn binary(sign: &str) -> Option<(u8, &'static str)> {
    Some(match sign {
        "<" => (1, "_<_"),
        "<=" => (1, "_<=_"),
        ">" => (1, "_>_"),
        ">=" => (1, "_>=_"),
        "==" => (1, "_==_"),
        "!=" => (1, "_!=_"),
        "in" => (1, "@in"),
        "+" => (2, "_+_"),
        "-" => (2, "_-_"),
        "*" => (3, "_*_"),
        "/" => (3, "_/_"),
        "%" => (3, "_%_"),
        _ => return None,
    })
}

impl Parser {
    fn peek(&self) -> &Placed {
        &self.tokens[self.at]
    }

    fn advance(&mut self) -> Placed {
        let placed = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        placed
    }

    fn is(&self, sign: &str) -> bool {
        matches!(&self.peek().token, Token::Sign(s) if *s == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let there = self.is(sign);
        if there {
            self.advance();
        }
        there
    }

    fn expect(&mut self, sign: &str) -> Result<u32, Issue> {
        if self.is(sign) {
            return Ok(self.advance().at);
        }
        let placed = self.peek();
        Err(Issue { at: placed.at, message: format!("Syntax error: mismatched input '{}' expecting '{sign}'", placed.text) })
    }

    fn name(&mut self) -> Result<Arc<str>, Issue> {
        let placed = self.advance();
        match placed.token {
            Token::Ident(name) => Ok(name),
            // A field may be called so.
            Token::Sign("in") => Ok("in".into()),
            _ => {
                Err(Issue { at: placed.at, message: format!("Syntax error: no viable alternative at input '.{}'", placed.text) })
            }
        }
    }

    fn deeper(&mut self) -> Result<(), Issue> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Issue { at: self.peek().at, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
        }
        Ok(())
    }

    fn node(&self, at: u32, expr: Expr) -> Result<Node, Issue> {
        let node = Node::new(at, expr);
        if node.depth > DEPTH_MAX {
            return Err(Issue { at, message: format!("expression recursion limit exceeded: {DEPTH_MAX}") });
        }
        Ok(node)
    }

    fn call(&self, at: u32, function: &str, member: bool, args: Vec<Node>) -> Result<Node, Issue> {
        let call = Call { function: function.into(), member, args, candidates: vec![], pattern: None };
        self.node(at, Expr::Call(Box::new(call)))
    }

    fn expression(&mut self) -> Result<Node, Issue> {
        self.deeper()?;
        let condition = self.or()?;
        let node = if self.is("?") {
            let at = self.advance().at;
            let then = self.or()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.node(at, Expr::Conditional(Box::new([condition, then, otherwise])))?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn or(&mut self) -> Result<Node, Issue> {
        let first = self.and()?;
        if !self.is("||") {
            return Ok(first);
        }
        let (at, mut all) = (self.peek().at, vec![first]);
        while self.take("||") {
            all.push(self.and()?);
        }
        self.node(at, Expr::Or(all))
    }

    fn and(&mut self) -> Result<Node, Issue> {
        let first = self.operation(1)?;
        if !self.is("&&") {
            return Ok(first);
        }
        let (at, mut all) = (self.peek().at, vec![first]);
        while self.take("&&") {
            all.push(self.operation(1)?);
        }
        self.node(at, Expr::And(all))
    }

    /// Operators that bind at least so tightly, from the left.
    fn operation(&mut self, least: u8) -> Result<Node, Issue> {
        let mut left = self.unary()?;
        while let Token::Sign(sign) = self.peek().token
            && let Some((tightness, function)) = binary(sign)
            && tightness >= least
        {
            let at = self.advance().at;
            let right = self.operation(tightness + 1)?;
            left = self.call(at, function, false, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, Issue> {
        let (mut signs, at) = (vec![], self.peek().at);
        while self.is("!") || self.is("-") {
            let sign = self.advance();
            if signs.last().is_some_and(|last: &Placed| last.token != sign.token) {
                return Err(Issue {
                    at: sign.at,
                    message: format!("Syntax error: extraneous input '{}' expecting an operand", sign.text),
                });
            }
            signs.push(sign);
        }
        let Some(sign) = signs.first().map(|sign| sign.token.clone()) else { return self.member() };
        let negates = sign == Token::Sign("-");
        if negates
            && signs.len() == 1
            && let Token::Literal(literal @ (Literal::Int(_) | Literal::Double(_))) = &self.peek().token
        {
            let negated = match literal {
                Literal::Int(value) => Literal::Int(value.wrapping_neg()),
                Literal::Double(value) => Literal::Double(-value),
                other => other.clone(),
            };
            self.advance();
            let literal = self.node(at, Expr::Literal(negated))?;
            return self.suffixes(literal);
        }
        let operand = self.member()?;
        // An even number of them cancels out.
        if signs.len() % 2 == 0 {
            return Ok(operand);
        }
        self.call(at, if negates { "-_" } else { "!_" }, false, vec![operand])
    }

    fn member(&mut self) -> Result<Node, Issue> {
        let primary = self.primary()?;
        self.suffixes(primary)
    }

    fn suffixes(&mut self, mut node: Node) -> Result<Node, Issue> {
        loop {
            let Token::Sign(sign) = self.peek().token else { return Ok(node) };
            let at = self.peek().at;
            match sign {
                "." | ".?" => {
                    self.advance();
                    let field = self.name()?;
                    if sign == "." && self.is("(") {
                        node = self.member_call(node, &field)?;
                        continue;
                    }
                    let access = if sign == "." { Access::Plain } else { Access::Optional };
                    node = self.node(at, Expr::Select(Box::new(Select { operand: node, field, access })))?;
                }
                "[" | "[?" => {
                    self.advance();
                    let index = self.expression()?;
                    self.expect("]")?;
                    node = self.call(at, if sign == "[" { "_[_]" } else { "_[?_]" }, false, vec![node, index])?;
                }
                "{" | "{?" => {
                    let Some(name) = qualified(&node) else { return Ok(node) };
                    node = self.structure(at, name.into())?;
                }
                _ => return Ok(node),
            }
        }
    }

    fn primary(&mut self) -> Result<Node, Issue> {
        let placed = self.advance();
        match placed.token {
            Token::Literal(Literal::Int(i64::MIN)) => {
                Err(Issue { at: placed.at, message: "Syntax error: invalid int literal".into() })
            }
            Token::Literal(literal) => self.node(placed.at, Expr::Literal(literal)),
            Token::Ident(name) => self.named(placed.at, name),
            // An absolute name; there is but one container.
            Token::Sign(".") => {
                let name = self.name()?;
                self.named(placed.at, name)
            }
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign(open @ ("[" | "[?")) => self.list(placed.at, open == "[?"),
            Token::Sign(open @ ("{" | "{?")) => self.map(placed.at, open == "{?"),
            _ => {
                let message = format!(
                    "Syntax error: mismatched input '{}' expecting {{'[', '{{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, \
                     NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}}",
                    placed.text
                );
                Err(Issue { at: placed.at, message })
            }
        }
    }

    fn named(&mut self, at: u32, name: Arc<str>) -> Result<Node, Issue> {
        if RESERVED.contains(&&*name) {
            return Err(Issue { at, message: format!("reserved identifier: {name}") });
        }
        if !self.is("(") {
            return self.node(at, Expr::Ident(name));
        }
        let open = self.peek().at;
        let mut args = self.arguments()?;
        if &*name == "has" && args.len() == 1 {
            let arg = args.remove(0);
            return match arg.expr {
                Expr::Select(mut select) if select.access == Access::Plain => {
                    select.access = Access::Test;
                    self.node(open, Expr::Select(select))
                }
                _ => Err(Issue { at: arg.at, message: "invalid argument to has() macro".into() }),
            };
        }
        self.call(open, &name, false, args)
    }

    fn arguments(&mut self) -> Result<Vec<Node>, Issue> {
        self.expect("(")?;
        let mut args = vec![];
        if self.take(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if !self.take(",") {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    /// A method, or a macro that looks like one.
    fn member_call(&mut self, target: Node, function: &str) -> Result<Node, Issue> {
        use LoopKind::*;
        let at = self.peek().at;
        let mut args = self.arguments()?;
        let (kind, variables) = match (function, args.len()) {
            ("all", 2) => (All, 1),
            ("all", 3) => (All, 2),
            ("exists", 2) => (Exists, 1),
            ("exists", 3) => (Exists, 2),
            ("exists_one" | "existsOne", 2) => (ExistsOne, 1),
            ("exists_one" | "existsOne", 3) => (ExistsOne, 2),
            ("map", 2 | 3) => (Map, 1),
            ("filter", 2) => (Filter, 1),
            ("sortBy", 2) => (SortBy, 1),
            ("transformList", 3 | 4) => (TransformList, 2),
            ("transformMap", 3 | 4) => (TransformMap, 2),
            ("transformMapEntry", 3 | 4) => (TransformMapEntry, 2),
            ("optMap" | "optFlatMap", 2) => {
                let variable = simple_name(&args[0])?;
                let body = args.remove(1);
                let map = OptMap { flat: function == "optFlatMap", target, variable, body };
                return self.node(at, Expr::OptMap(Box::new(map)));
            }
            ("bind", 3) if matches!(&target.expr, Expr::Ident(name) if &**name == "cel") => {
                let variable = simple_name(&args[0])?;
                let (value, body) = (args.remove(1), args.remove(1));
                return self.node(at, Expr::Bind(Box::new(Bind { variable, value, body })));
            }
            _ => {
                args.insert(0, target);
                return self.call(at, function, true, args);
            }
        };
        let variable = simple_name(&args[0])?;
        let second = if variables == 2 { Some(simple_name(&args[1])?) } else { None };
        let mut rest = args.into_iter().skip(variables);
        let (first, last) = (rest.next(), rest.next());
        let (filter, body) = match (first, last) {
            (Some(filter), Some(body)) => (Some(filter), body),
            (Some(body), None) => (None, body),
            _ => return Err(Issue { at, message: format!("invalid number of arguments to {function}()") }),
        };
        self.node(at, Expr::Loop(Box::new(Loop { kind, range: target, variable, second, filter, body })))
    }

    fn list(&mut self, at: u32, mut optional: bool) -> Result<Node, Issue> {
        let mut elements = vec![];
        while optional || !self.is("]") {
            elements.push(Element { node: self.expression()?, optional });
            if !self.take(",") {
                break;
            }
            optional = self.take("?");
        }
        self.expect("]")?;
        self.node(at, Expr::List(elements))
    }

    fn map(&mut self, at: u32, mut optional: bool) -> Result<Node, Issue> {
        let mut entries = vec![];
        while optional || !self.is("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push(Entry { key, value: self.expression()?, optional });
            if !self.take(",") {
                break;
            }
            optional = self.take("?");
        }
        self.expect("}")?;
        self.node(at, Expr::Map(entries))
    }

    fn structure(&mut self, at: u32, name: Arc<str>) -> Result<Node, Issue> {
        let mut optional = self.advance().token == Token::Sign("{?");
        let mut fields = vec![];
        while optional || !self.is("}") {
            let at = self.peek().at;
            let name = self.name()?;
            self.expect(":")?;
            fields.push(Field { at, name, value: self.expression()?, optional });
            if !self.take(",") {
                break;
            }
            optional = self.take("?");
        }
        self.expect("}")?;
        self.node(at, Expr::Struct(Box::new(Struct { name, fields })))
    }
}

fn simple_name(node: &Node) -> Result<Arc<str>, Issue> {
    match &node.expr {
        Expr::Ident(name) => Ok(name.clone()),
        _ => Err(Issue { at: node.at, message: "argument must be a simple name".into() }),
    }
}

/// `a.b.c`, if that is all there is.
pub fn qualified(node: &Node) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.to_string()),
        Expr::Select(select) if select.access == Access::Plain => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}
