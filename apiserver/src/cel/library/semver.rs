//! Semantic versions.

use super::opaque::Opaque;
use super::{Line, bool_of, text};
use crate::cel::evaluate::Error;
use crate::cel::value::Value;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

pub const LIBRARY: &[Line] = &[
    ("semver(string):kubernetes.Semver", |_, args| read(text(args, 0)?, false)),
    ("semver(string,bool):kubernetes.Semver", |_, args| read(text(args, 0)?, args[1].as_bool() == Some(true))),
    ("isSemver(string):bool", |_, args| bool_of(Semver::parse(text(args, 0)?, false).is_some())),
    ("isSemver(string,bool):bool", |_, args| bool_of(Semver::parse(text(args, 0)?, args[1].as_bool() == Some(true)).is_some())),
    (".major(kubernetes.Semver):int", |_, args| Ok(Value::Int(semver(args, 0)?.numbers[0]))),
    (".minor(kubernetes.Semver):int", |_, args| Ok(Value::Int(semver(args, 0)?.numbers[1]))),
    (".patch(kubernetes.Semver):int", |_, args| Ok(Value::Int(semver(args, 0)?.numbers[2]))),
    (".isGreaterThan(kubernetes.Semver,kubernetes.Semver):bool", |_, args| {
        bool_of(semver(args, 0)?.order(semver(args, 1)?).is_gt())
    }),
    (".isLessThan(kubernetes.Semver,kubernetes.Semver):bool", |_, args| {
        bool_of(semver(args, 0)?.order(semver(args, 1)?).is_lt())
    }),
    (".compareTo(kubernetes.Semver,kubernetes.Semver):int", |_, args| {
        Ok(Value::Int(semver(args, 0)?.order(semver(args, 1)?) as i64))
    }),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Semver {
    numbers: [i64; 3],
    pre: Vec<String>,
    build: String,
}

fn read<'a>(given: &str, normalize: bool) -> Result<Value<'a>, Error> {
    let version = Semver::parse(given, normalize).ok_or_else(|| Error::new(format!("Invalid semantic version {given:?}")))?;
    Ok(Value::Opaque(Opaque::Semver(Arc::new(version))))
}

fn semver<'v>(args: &'v [Value<'_>], at: usize) -> Result<&'v Semver, Error> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Semver(version))) => Ok(version),
        _ => Err(Error::no_overload()),
    }
}

fn number(text: &str, normalize: bool) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && (normalize || !leading_zero) { text.parse().ok() } else { None }
}

impl Semver {
    /// `normalize`: a `v` before it, leading zeros and missing parts are put right.
    pub fn parse(text: &str, normalize: bool) -> Option<Semver> {
        let text = if normalize { text.strip_prefix('v').unwrap_or(text) } else { text };
        let (rest, build) = text.split_once('+').map_or((text, ""), |(rest, build)| (rest, build));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let mut numbers = [0; 3];
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 || parts.len() < 3 && !normalize {
            return None;
        }
        for (at, part) in parts.iter().enumerate() {
            numbers[at] = number(part, normalize)?;
        }
        let identifier = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let pre: Vec<String> = pre.map(|pre| pre.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let numeric = |part: &String| part.bytes().all(|b| b.is_ascii_digit());
        let good = pre.iter().all(|part| identifier(part) && (!numeric(part) || number(part, false).is_some()))
            && (!text.contains('+') || build.split('.').all(identifier));
        good.then(|| Semver { numbers, pre, build: build.to_owned() })
    }

    pub fn order(&self, other: &Semver) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let parts = self.pre.iter().zip(&other.pre).map(|(a, b)| match (number(a, false), number(b, false)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => a.cmp(b),
                });
                parts.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}
