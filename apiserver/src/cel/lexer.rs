//! An expression's text, cut into tokens.

use crate::cel::ast::Literal;
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Ident(Arc<str>),
    Literal(Literal),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// In characters.
    pub at: u32,
    pub token: Token,
    /// As it stands in the text.
    pub text: Arc<str>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub at: u32,
    pub message: String,
}

/// The longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", ".?", "[?", "{?", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")",
    "[", "]",
];
const BRACES: [&str; 2] = ["{", "}"];

struct Lexer<'a> {
    chars: Vec<char>,
    text: &'a str,
    at: usize,
}

pub fn tokens(text: &str) -> Result<Vec<Placed>, Issue> {
    let mut lexer = Lexer { chars: text.chars().collect(), text, at: 0 };
    let mut found = vec![];
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        let text = if end { "<EOF>".into() } else { lexer.chars[at..lexer.at].iter().collect::<String>().into() };
        found.push(Placed { at: at as u32, token, text });
        if end {
            return Ok(found);
        }
    }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn starts_with(&self, sign: &str) -> bool {
        sign.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c))
    }

    fn issue<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Issue> {
        Err(Issue { at: at as u32, message: message.into() })
    }

    fn skip(&mut self) {
        loop {
            while self.at < self.chars.len() && matches!(self.chars[self.at], ' ' | '\t' | '\n' | '\r' | '\x0c') {
                self.at += 1;
            }
            if !self.starts_with("//") {
                return;
            }
            while self.at < self.chars.len() && self.chars[self.at] != '\n' {
                self.at += 1;
            }
        }
    }

    fn next(&mut self) -> Result<Token, Issue> {
        if self.at >= self.chars.len() {
            return Ok(Token::End);
        }
        if let Some((prefix, raw, bytes)) = self.string_prefix() {
            self.at += prefix;
            return self.string(raw, bytes);
        }
        let c = self.peek(0);
        if c.is_ascii_digit() || c == '.' && self.peek(1).is_ascii_digit() {
            return self.number();
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            return Ok(match word.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(word.into()),
            });
        }
        if let Some(sign) = SIGNS.iter().chain(&BRACES).find(|sign| self.starts_with(sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        self.issue(self.at, format!("Syntax error: token recognition error at: '{c}'"))
    }

    /// How many letters stand before the quote, whether it is raw, whether it is bytes.
    fn string_prefix(&self) -> Option<(usize, bool, bool)> {
        let (mut raw, mut bytes) = (false, false);
        for i in 0..=2 {
            match self.peek(i) {
                '"' | '\'' => return Some((i, raw, bytes)),
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                _ => return None,
            }
        }
        None
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.chars[start + 2..self.at].iter().collect();
            return self.integer(start, &digits, 16);
        }
        let mut double = false;
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            double = true;
            self.at += 1;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            double = true;
            self.at += 1 + sign;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if double {
            return match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Token::Literal(Literal::Double(value))),
                _ => self.issue(start, "Syntax error: invalid double literal"),
            };
        }
        self.integer(start, &text, 10)
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Issue> {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return match u64::from_str_radix(digits, radix) {
                Ok(value) => Ok(Token::Literal(Literal::Uint(value))),
                Err(_) => self.issue(start, "Syntax error: invalid uint literal"),
            };
        }
        match u64::from_str_radix(digits, radix) {
            Ok(value) if value <= i64::MAX as u64 => Ok(Token::Literal(Literal::Int(value as i64))),
            // Only -9223372036854775808 may stand so; the parser looks at the sign before it.
            Ok(value) if value == 1 << 63 && start > 0 && self.chars[start - 1] == '-' => {
                Ok(Token::Literal(Literal::Int(i64::MIN)))
            }
            _ => self.issue(start, "Syntax error: invalid int literal"),
        }
    }

    fn string(&mut self, raw: bool, bytes: bool) -> Result<Token, Issue> {
        let start = self.at;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let mut out = vec![];
        loop {
            if self.at >= self.chars.len() || !triple && matches!(self.peek(0), '\n' | '\r') {
                let rest: String = self.chars[start..].iter().take(16).collect();
                return self.issue(start, format!("Syntax error: token recognition error at: '{rest}'"));
            }
            if (0..width).all(|i| self.peek(i) == quote) {
                self.at += width;
                break;
            }
            if self.peek(0) == '\\' && !raw {
                self.escape(bytes, &mut out)?;
                continue;
            }
            let mut buffer = [0; 4];
            out.extend_from_slice(self.peek(0).encode_utf8(&mut buffer).as_bytes());
            self.at += 1;
        }
        if bytes {
            return Ok(Token::Literal(Literal::Bytes(out.into())));
        }
        match String::from_utf8(out) {
            Ok(text) => Ok(Token::Literal(Literal::String(text.into()))),
            Err(_) => self.issue(start, "Syntax error: invalid UTF-8 in string literal"),
        }
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), Issue> {
        let at = self.at;
        let c = self.peek(1);
        self.at += 2;
        let simple = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => c as u8,
            _ => 0,
        };
        if simple != 0 {
            out.push(simple);
            return Ok(());
        }
        let (digits, radix) = match c {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return self.issue(at, "Syntax error: invalid escape sequence"),
        };
        let mut code = 0;
        for _ in 0..digits {
            let Some(digit) = self.peek(0).to_digit(radix) else {
                return self.issue(at, "Syntax error: invalid escape sequence");
            };
            code = code * radix + digit;
            self.at += 1;
        }
        if bytes {
            out.push(code as u8);
            return Ok(());
        }
        let Some(c) = char::from_u32(code) else { return self.issue(at, "Syntax error: invalid unicode code point") };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }
}

impl fmt::Debug for Lexer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.text, self.at)
    }
}
