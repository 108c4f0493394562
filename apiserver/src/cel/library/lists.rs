//! Lists and sets: Kubernetes' functions, and those of CEL's extension library.

use super::{Line, bool_of, int};
use crate::cel::evaluate::{Error, Frame, items, sorted};
use crate::cel::value::{List, Value};
use std::cmp::Ordering;

/// The longest list that `lists.range` makes.
const RANGE_MAX: i64 = 100_000;

pub const LIBRARY: &[Line] = &[
    (".isSorted(list<A>):bool", is_sorted),
    (".sum(list<int>):int", sum),
    (".sum(list<uint>):uint", sum),
    (".sum(list<double>):double", sum),
    (".sum(list<duration>):duration", sum),
    (".min(list<A>):A", |frame, args| extreme(frame, args, Ordering::Less)),
    (".max(list<A>):A", |frame, args| extreme(frame, args, Ordering::Greater)),
    (".indexOf(list<A>,A):int", |frame, args| index_of(frame, args, false)),
    (".lastIndexOf(list<A>,A):int", |frame, args| index_of(frame, args, true)),
    (".slice(list<A>,int,int):list<A>", slice),
    (".flatten(list<A>):list<dyn>", flatten),
    (".flatten(list<A>,int):list<dyn>", flatten),
    (".distinct(list<A>):list<A>", distinct),
    (".reverse(list<A>):list<A>", |frame, args| Ok(Value::list(all(frame, args, 0)?.into_iter().rev().collect()))),
    (".sort(list<A>):list<A>", |frame, args| {
        let items = all(frame, args, 0)?;
        frame.charge(items.len() as u64 * 4)?;
        sorted(items.into_iter().map(|item| (item.clone(), item)).collect()).map(Value::list)
    }),
    (".first(list<A>):optional<A>", |_, args| Ok(list(args, 0)?.get(0).map_or(Value::Optional(None), Value::some))),
    (".last(list<A>):optional<A>", |_, args| {
        let list = list(args, 0)?;
        Ok(list.get(list.len().wrapping_sub(1)).map_or(Value::Optional(None), Value::some))
    }),
    ("lists.range(int):list<int>", |frame, args| {
        let count = int(args, 0)?;
        if count > RANGE_MAX {
            return Err(Error::new(format!("lists.range: {count} is more than {RANGE_MAX}")));
        }
        frame.charge(count.max(0) as u64)?;
        Ok(Value::list((0..count).map(Value::Int).collect()))
    }),
    ("sets.contains(list<A>,list<A>):bool", |frame, args| {
        let (all, part) = (list(args, 0)?, list(args, 1)?);
        contains_all(frame, all, part)
    }),
    ("sets.equivalent(list<A>,list<A>):bool", |frame, args| {
        let (a, b) = (list(args, 0)?, list(args, 1)?);
        match contains_all(frame, a, b)? {
            Value::Bool(true) => contains_all(frame, b, a),
            no => Ok(no),
        }
    }),
    ("sets.intersects(list<A>,list<A>):bool", |frame, args| {
        let (a, b) = (list(args, 0)?, list(args, 1)?);
        for item in a.iter() {
            if b.contains(&item, frame)? {
                return bool_of(true);
            }
        }
        bool_of(false)
    }),
];

fn list<'v, 'a>(args: &'v [Value<'a>], at: usize) -> Result<&'v List<'a>, Error> {
    match args.get(at) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(Error::no_overload()),
    }
}

fn all<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>], at: usize) -> Result<Vec<Value<'a>>, Error> {
    items(list(args, at)?, frame)
}

fn contains_all<'a>(frame: &mut Frame<'_, 'a>, all: &List<'a>, part: &List<'a>) -> Result<Value<'a>, Error> {
    for item in part.iter() {
        if !all.contains(&item, frame)? {
            return bool_of(false);
        }
    }
    bool_of(true)
}

fn is_sorted<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    for pair in all(frame, args, 0)?.windows(2) {
        if pair[0].compare(&pair[1]).ok_or_else(Error::no_overload)?.is_gt() {
            return bool_of(false);
        }
    }
    bool_of(true)
}

fn sum<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let mut total: Option<Value<'a>> = None;
    for item in all(frame, args, 0)? {
        let overflow = || Error::new("integer overflow");
        total = Some(match (total, item) {
            (None, item) => item,
            (Some(Value::Int(a)), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(overflow)?),
            (Some(Value::Uint(a)), Value::Uint(b)) => Value::Uint(a.checked_add(b).ok_or_else(overflow)?),
            (Some(Value::Double(a)), Value::Double(b)) => Value::Double(a + b),
            (Some(Value::Duration(a)), Value::Duration(b)) => Value::Duration(a.checked_add(b).ok_or_else(overflow)?),
            _ => return Err(Error::no_overload()),
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

fn extreme<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>], wanted: Ordering) -> Result<Value<'a>, Error> {
    let mut best: Option<Value<'a>> = None;
    for item in all(frame, args, 0)? {
        best = Some(match best {
            None => item,
            Some(known) if item.compare(&known).ok_or_else(Error::no_overload)? == wanted => item,
            Some(known) => known,
        });
    }
    let name = if wanted.is_lt() { "min" } else { "max" };
    best.ok_or_else(|| Error::new(format!("{name} called on empty list")))
}

fn index_of<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>], last: bool) -> Result<Value<'a>, Error> {
    let list = list(args, 0)?;
    for step in 0..list.len() {
        let at = if last { list.len() - 1 - step } else { step };
        if list.get(at).unwrap_or(Value::Null).equals(&args[1], frame)? {
            return Ok(Value::Int(at as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn slice<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (from, to) = (int(args, 1)?, int(args, 2)?);
    let items = all(frame, args, 0)?;
    let bounds = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let part = bounds.and_then(|(from, to)| items.get(from..to));
    let part = part.ok_or_else(|| Error::new(format!("cannot slice({from}, {to}), list is length {}", items.len())))?;
    Ok(Value::list(part.to_vec()))
}

fn flatten<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let depth = if args.len() > 1 { int(args, 1)? } else { 1 };
    if depth < 0 {
        return Err(Error::new("level must be non-negative"));
    }
    let mut out = all(frame, args, 0)?;
    for _ in 0..depth {
        if !out.iter().any(|item| matches!(item, Value::List(_))) {
            break;
        }
        let mut next = vec![];
        for item in out {
            match item {
                Value::List(inner) => next.extend(items(&inner, frame)?),
                item => next.push(item),
            }
        }
        out = next;
    }
    Ok(Value::list(out))
}

fn distinct<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let mut seen: Vec<Value<'a>> = vec![];
    for item in all(frame, args, 0)? {
        let mut known = false;
        for other in &seen {
            known = known || item.equals(other, frame)?;
        }
        if !known {
            seen.push(item);
        }
    }
    Ok(Value::list(seen))
}
