//! Texts: CEL's own, its extension library, and base64 and the keys of JSON patches beside them. Positions count characters.

use super::{Line, bool_of, int, string_of, text};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::Value;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

pub const LIBRARY: &[Line] = &[
    (".contains(string,string):bool", |frame, args| {
        let (all, part) = two(frame, args)?;
        frame.charge((all.len() / 10) as u64 * (part.len() as u64 / 10 + 1))?;
        bool_of(all.contains(part))
    }),
    (".startsWith(string,string):bool", |frame, args| {
        let part = text(args, 1)?;
        frame.charge_text(part.len())?;
        bool_of(text(args, 0)?.starts_with(part))
    }),
    (".endsWith(string,string):bool", |frame, args| {
        let part = text(args, 1)?;
        frame.charge_text(part.len())?;
        bool_of(text(args, 0)?.ends_with(part))
    }),
    (".charAt(string,int):string", char_at),
    (".indexOf(string,string):int", index_of),
    (".indexOf(string,string,int):int", index_of),
    (".lastIndexOf(string,string):int", last_index_of),
    (".lastIndexOf(string,string,int):int", last_index_of),
    (".lowerAscii(string):string", |frame, args| string_of(one(frame, args)?.to_ascii_lowercase())),
    (".upperAscii(string):string", |frame, args| string_of(one(frame, args)?.to_ascii_uppercase())),
    (".trim(string):string", |frame, args| string_of(one(frame, args)?.trim())),
    (".reverse(string):string", |frame, args| string_of(one(frame, args)?.chars().rev().collect::<String>())),
    (".replace(string,string,string):string", replace),
    (".replace(string,string,string,int):string", replace),
    (".split(string,string):list<string>", split),
    (".split(string,string,int):list<string>", split),
    (".substring(string,int):string", substring),
    (".substring(string,int,int):string", substring),
    (".join(list<string>):string", join),
    (".join(list<string>,string):string", join),
    ("strings.quote(string):string", quote),
    ("base64.encode(bytes):string", |frame, args| {
        let Value::Bytes(bytes) = &args[0] else { return Err(Error::no_overload()) };
        frame.charge_text(bytes.len())?;
        string_of(STANDARD.encode(bytes))
    }),
    ("base64.decode(string):bytes", |frame, args| {
        let text = one(frame, args)?;
        let decoded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
        decoded.map(|bytes| Value::Bytes(bytes.into())).map_err(|_| Error::new("illegal base64 data"))
    }),
    ("jsonpatch.escapeKey(string):string", |frame, args| string_of(one(frame, args)?.replace('~', "~0").replace('/', "~1"))),
];

fn one<'v>(frame: &mut Frame<'_, '_>, args: &'v [Value<'_>]) -> Result<&'v str, Error> {
    let text = text(args, 0)?;
    frame.charge_text(text.len())?;
    Ok(text)
}

fn two<'v>(frame: &mut Frame<'_, '_>, args: &'v [Value<'_>]) -> Result<(&'v str, &'v str), Error> {
    let (a, b) = (text(args, 0)?, text(args, 1)?);
    frame.charge_text(a.len() + b.len())?;
    Ok((a, b))
}

fn out_of_range(index: i64) -> Error {
    Error::new(format!("index out of range: {index}"))
}

/// The byte at which a character begins; the end counts as one.
fn byte_of(text: &str, index: i64) -> Result<usize, Error> {
    let wanted = usize::try_from(index).map_err(|_| out_of_range(index))?;
    let mut starts = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    starts.nth(wanted).ok_or_else(|| out_of_range(index))
}

fn chars_before(text: &str, byte: usize) -> i64 {
    text[..byte].chars().count() as i64
}

fn char_at<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let text = one(frame, args)?;
    let start = byte_of(text, int(args, 1)?)?;
    string_of(text[start..].chars().next().map(String::from).unwrap_or_default())
}

fn index_of<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (text, part) = two(frame, args)?;
    let from = if args.len() > 2 { byte_of(text, int(args, 2)?)? } else { 0 };
    let found = text[from..].find(part).map(|at| chars_before(text, from + at));
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (text, part) = two(frame, args)?;
    // The match may begin no later than there.
    let end = if args.len() > 2 { byte_of(text, int(args, 2)?)? + part.len() } else { text.len() };
    let mut end = end.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(Value::Int(text[..end].rfind(part).map_or(-1, |at| chars_before(text, at))))
}

fn replace<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let text_ = one(frame, args)?;
    let (old, new) = (text(args, 1)?, text(args, 2)?);
    let limit = if args.len() > 3 { int(args, 3)? } else { -1 };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = text_.matches(old).count().min(most);
    frame.charge_text(text_.len().saturating_add(count.saturating_mul(new.len())))?;
    string_of(text_.replacen(old, new, count))
}

fn split<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (all, separator) = two(frame, args)?;
    let limit = if args.len() > 2 { int(args, 2)? } else { -1 };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(Value::list(vec![]));
    }
    let parts: Vec<Value<'a>> = if separator.is_empty() {
        frame.charge(all.len() as u64)?;
        let (mut parts, mut rest) = (vec![], all);
        while let Some(first) = rest.chars().next() {
            if parts.len() + 1 == most {
                parts.push(Value::string(rest));
                break;
            }
            parts.push(Value::string(first.to_string()));
            rest = &rest[first.len_utf8()..];
        }
        parts
    } else {
        all.splitn(most, separator).map(Value::string).collect()
    };
    frame.charge(parts.len() as u64)?;
    Ok(Value::list(parts))
}

fn substring<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let text = one(frame, args)?;
    let from = int(args, 1)?;
    let start = byte_of(text, from)?;
    if args.len() < 3 {
        return string_of(&text[start..]);
    }
    let to = int(args, 2)?;
    let end = byte_of(text, to)?;
    if start > end {
        return Err(Error::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    string_of(&text[start..end])
}

fn join<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let Value::List(list) = &args[0] else { return Err(Error::no_overload()) };
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        let item = item.as_str().ok_or_else(Error::no_overload)?;
        frame.charge(1)?;
        frame.charge_text(item.len() + separator.len())?;
        if index > 0 {
            out += separator;
        }
        out += item;
    }
    string_of(out)
}

fn quote<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let text = one(frame, args)?;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\x07' => out += "\\a",
            '\x08' => out += "\\b",
            '\x0c' => out += "\\f",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\x0b' => out += "\\v",
            '\\' => out += "\\\\",
            '"' => out += "\\\"",
            c => out.push(c),
        }
    }
    out.push('"');
    string_of(out)
}
