//! Regular expressions. They take time in proportion to the text, whatever the pattern.

use super::{Line, bool_of, int, text};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::Value;
use regex::{Regex, RegexBuilder};

/// What a compiled pattern may take, in bytes.
const COMPILED_MAX: usize = 1 << 20;

pub const LIBRARY: &[Line] = &[
    (".matches(string,string):bool", |frame, args| bool_of(pattern(frame, args)?.is_match(text(args, 0)?))),
    ("matches(string,string):bool", |frame, args| bool_of(pattern(frame, args)?.is_match(text(args, 0)?))),
    (".find(string,string):string", |frame, args| {
        let found = pattern(frame, args)?.find(text(args, 0)?).map(|found| found.as_str()).unwrap_or_default();
        Ok(Value::string(found))
    }),
    (".findAll(string,string):list<string>", find_all),
    (".findAll(string,string,int):list<string>", find_all),
];

pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).build()
}

fn pattern(frame: &mut Frame<'_, '_>, args: &[Value<'_>]) -> Result<Regex, Error> {
    let (subject, pattern) = (text(args, 0)?, text(args, 1)?);
    frame.charge((subject.len() as u64 / 10).max(1) * (pattern.len() as u64 / 4).max(1))?;
    frame.pattern(pattern)
}

fn find_all<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    let pattern = pattern(frame, args)?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let found: Vec<Value<'a>> = pattern.find_iter(text(args, 0)?).take(most).map(|found| Value::string(found.as_str())).collect();
    frame.charge(found.len() as u64)?;
    Ok(Value::list(found))
}
