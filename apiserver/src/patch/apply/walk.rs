//! Walks over objects by their schema: what a configuration owns, and what a write changes.

use super::element::Element;
use super::schema::{Fields, Form, Items, Schema};
use super::set::Set;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

type Object = Map<String, Value>;

/// What a write does to an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// What it adds or gives another value.
    pub changed: Set,
    pub removed: Set,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What one place, and those below it, have to do with a set.
#[derive(Default)]
struct Mark {
    member: bool,
    below: Set,
}

/// What a configuration owns: the leaves, the elements of lists, the entries of maps, and what is there but empty.
pub fn owned(value: &Value, schema: Schema<'_>) -> Set {
    own(value, schema).below
}

fn own(value: &Value, schema: Schema<'_>) -> Mark {
    match (schema.form(value), value) {
        (Form::Leaf, _) => Mark { member: true, below: Set::default() },
        (Form::Map(fields), Value::Object(map)) => {
            let mut below = Set::default();
            for (name, value) in map {
                let field = fields.of_stored(name);
                let mark = own(value, field.schema);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                below.push(Element::field(name), mark.member || empty || !field.declared, mark.below);
            }
            below.sort();
            Mark { member: false, below }
        }
        (Form::List(items), Value::Array(list)) => {
            let mut below = Set::default();
            for (element, twins) in by_element(list, &items) {
                let mark = match twins.as_slice() {
                    [one] => own(one, items.schema),
                    // Those that nothing tells apart are owned together.
                    _ => Mark::default(),
                };
                below.push(element, true, mark.below);
            }
            Mark { member: false, below }
        }
        _ => Mark::default(),
    }
}

/// The items of a list by what tells them apart; items that nothing tells from another stand together.
fn by_element<'v>(list: &'v [Value], items: &Items<'_>) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut all: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in list {
        if let Ok(element) = items.element(item) {
            all.entry(element).or_default().push(item);
        }
    }
    all
}

/// What makes `new` of `old`. Where there was nothing before, everything is added but what Go's empty object has already.
pub fn compare(old: Option<&Value>, new: &Value, schema: Schema<'_>) -> Diff {
    let pair = compare_at(old, Some(new), schema, old.is_none());
    Diff { changed: pair.changed.below, removed: pair.removed.below }
}

#[derive(Default)]
struct Pair {
    changed: Mark,
    removed: Mark,
}

impl Pair {
    /// One owner for all that is here.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Pair {
        let mut pair = Pair::default();
        match (old, new) {
            (Some(old), Some(new)) => pair.changed.member = !equal(old, new),
            (None, _) => pair.changed.member = true,
            (Some(_), None) => pair.removed.member = true,
        }
        pair
    }

    fn push(&mut self, element: Element, found: Pair) {
        let removes = found.removed.member || !found.removed.below.is_empty();
        if removes {
            self.removed.below.push(element.clone(), found.removed.member, found.removed.below);
        }
        self.changed.below.push(element, found.changed.member, found.changed.below);
    }

    fn sort(mut self) -> Pair {
        self.changed.below.sort();
        self.removed.below.sort();
        self
    }
}

/// Equal but for the way numbers are written.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// `zero`: nothing was there, and all that leads here is part of Go's zero value.
fn compare_at(old: Option<&Value>, new: Option<&Value>, schema: Schema<'_>, zero: bool) -> Pair {
    let (Some(before), Some(after)) = (old, new) else {
        let Some(value) = old.or(new) else { return Pair::default() };
        return match schema.form(value) {
            Form::Leaf => Pair::leaf(old, new),
            Form::Map(fields) => compare_maps(old, new, fields, zero),
            Form::List(items) => compare_lists(old, new, &items, zero),
        };
    };
    let form = |one: &Value, other: &Value| schema.form(if one.is_null() { other } else { one });
    match (form(before, after), form(after, before)) {
        (Form::Leaf, Form::Leaf) => Pair::leaf(old, new),
        (Form::Map(_), Form::Map(fields)) => compare_maps(old, new, fields, false),
        (Form::List(_), Form::List(items)) => compare_lists(old, new, &items, false),
        (was, is) => {
            // Something of another kind: what was below goes, what is below comes.
            let mut pair = Pair::default();
            pair.removed.below = compare_at(old, None, schema, false).removed.below;
            pair.changed.below = compare_at(None, new, schema, false).changed.below;
            pair.changed.member = matches!(was, Form::Leaf) || matches!(is, Form::Leaf);
            pair
        }
    }
}

/// Notes that the place itself has come or gone.
fn come_or_gone(pair: &mut Pair, old: Option<&Value>, new: Option<&Value>, zero: bool) {
    pair.changed.member = old.is_none() && !zero;
    pair.removed.member = new.is_none();
}

fn compare_maps(old: Option<&Value>, new: Option<&Value>, fields: Fields<'_>, zero: bool) -> Pair {
    fn entries(value: Option<&Value>) -> Option<&Object> {
        value.and_then(Value::as_object).filter(|map| !map.is_empty())
    }
    let (before, after) = (entries(old), entries(new));
    if before.is_none() && after.is_none() {
        return if zero { Pair::default() } else { Pair::leaf(old, new) };
    }
    let mut pair = Pair::default();
    for (name, value) in after.into_iter().flatten() {
        let previous = before.and_then(|before| before.get(name));
        let field = fields.of_stored(name);
        if previous.is_some_and(|previous| is_same_scalar(previous, value)) {
            continue;
        }
        // Where there is the struct, there is what is inline in it.
        let zero = field.inline && (zero || old.is_some());
        let found = compare_at(previous, Some(value), field.schema, zero && previous.is_none());
        pair.push(Element::field(name), found);
    }
    for (name, value) in before.into_iter().flatten() {
        if after.is_none_or(|after| !after.contains_key(name)) {
            let found = compare_at(Some(value), None, fields.of_stored(name).schema, false);
            pair.push(Element::field(name), found);
        }
    }
    come_or_gone(&mut pair, old, new, zero);
    pair.sort()
}

/// What most fields of most updates are.
fn is_same_scalar(one: &Value, other: &Value) -> bool {
    !one.is_object() && !one.is_array() && one == other
}

fn compare_lists(old: Option<&Value>, new: Option<&Value>, items: &Items<'_>, zero: bool) -> Pair {
    let elements = |value: Option<&Value>| value.and_then(Value::as_array).map(Vec::len).unwrap_or_default();
    if elements(old) == 0 && elements(new) == 0 {
        return if zero { Pair::default() } else { Pair::leaf(old, new) };
    }
    let mut pair = Pair::default();
    if old == new {
        return pair;
    }
    let before = by_element(old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default(), items);
    let mut after = by_element(new.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default(), items);
    for (element, was) in before {
        let is = after.remove(&element).unwrap_or_default();
        let found = compare_twins(&was, &is, items.schema);
        pair.push(element, found);
    }
    for (element, is) in after {
        let found = compare_twins(&[], &is, items.schema);
        pair.push(element, found);
    }
    come_or_gone(&mut pair, old, new, zero);
    pair.sort()
}

/// The items of one key. Where there are several, they are compared as a whole.
fn compare_twins(was: &[&Value], is: &[&Value], schema: Schema<'_>) -> Pair {
    match (was, is) {
        ([] | [_], [] | [_]) => compare_at(was.first().copied(), is.first().copied(), schema, false),
        ([_, _, ..], [_, _, ..]) => {
            let mut pair = Pair::default();
            pair.changed.member = was != is;
            pair
        }
        ([_, _, ..], _) => {
            let mut pair = compare_at(None, is.first().copied(), schema, false);
            pair.removed.member = true;
            pair
        }
        (_, _) => {
            let mut pair = compare_at(was.first().copied(), None, schema, false);
            pair.changed.member = true;
            pair
        }
    }
}
