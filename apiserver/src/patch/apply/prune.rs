//! Taking out of an object what its manager no longer applies and nobody else owns.

use super::element::Element;
use super::schema::{Form, Schema};
use super::set::Set;
use super::walk::owned;
use serde_json::{Map, Value};

/// `value` without the places in `unwanted`. `None` if a map or list has nothing left, unless it is itself in `kept`.
pub fn remove(value: &Value, unwanted: &Set, kept: Kept<'_>, schema: Schema<'_>) -> Option<Value> {
    match (schema.form(value), value) {
        (Form::Leaf, Value::Object(_) | Value::Array(_)) => None,
        (Form::Map(fields), Value::Object(map)) => {
            let mut rest = Map::new();
            for (name, value) in map {
                let element = Element::field(name);
                match unwanted.get(&element) {
                    Some(node) if node.member => {}
                    Some(node) => {
                        let schema = fields.of_stored(name).schema;
                        if let Some(value) = remove(value, &node.below, kept.at(&element), schema) {
                            rest.insert(name.clone(), value);
                        }
                    }
                    None => _ = rest.insert(name.clone(), value.clone()),
                }
            }
            Some(rest).filter(|rest| kept.itself || !rest.is_empty()).map(Value::Object)
        }
        (Form::List(items), Value::Array(list)) => {
            let mut rest = vec![];
            for item in list {
                let element = items.element(item).ok();
                match element.as_ref().and_then(|element| Some((element, unwanted.get(element)?))) {
                    Some((_, node)) if node.member => {}
                    Some((element, node)) => {
                        let item = remove(item, &node.below, kept.at(element), items.schema);
                        rest.push(item.unwrap_or_else(|| Map::new().into()));
                    }
                    None => rest.push(item.clone()),
                }
            }
            Some(rest).filter(|rest| kept.itself || !rest.is_empty()).map(Value::Array)
        }
        _ => Some(value.clone()),
    }
}

/// What has an owner, seen from one place: who says that a map is empty wants it to be there.
#[derive(Clone, Copy)]
pub struct Kept<'s> {
    itself: bool,
    below: &'s Set,
}

impl<'s> Kept<'s> {
    fn at(self, element: &Element) -> Kept<'s> {
        match self.below.get(element) {
            Some(node) => Kept { itself: node.member, below: &node.below },
            None => Kept { itself: false, below: Set::EMPTY },
        }
    }
}

/// Makes members of the struct fields that lead to members: with the last of what is in it goes the struct.
fn with_structs(set: &Set, schema: Option<Schema<'_>>) -> Set {
    let mut all = Set::default();
    for node in set.nodes() {
        let field = schema.and_then(|schema| schema.behind(&node.element));
        let named = matches!(node.element, Element::Field(_)) && field.as_ref().is_some_and(|field| field.declared);
        let below = with_structs(&node.below, field.map(|field| field.schema));
        all.push(node.element.clone(), node.member || (named && !node.below.is_empty()), below);
    }
    all
}

/// What is left of `merged` if its manager, which applied `last` before, applies no more than what is in `managed`: all
/// that anybody owns now.
pub fn prune(merged: Value, last: &Set, managed: &Set, schema: Schema<'_>) -> Value {
    if last.is_empty() {
        return merged;
    }
    let owned_of = |value: &Value| with_structs(&owned(value, schema), Some(schema));
    let kept = Kept { itself: true, below: managed };
    let without = |unwanted: &Set| remove(&merged, unwanted, kept, schema).unwrap_or_else(|| Map::new().into());
    let last = with_structs(last, Some(schema));
    let all = owned_of(&merged);
    let managed = with_structs(managed, Some(schema));
    // What others own comes back with what it stands in; what nobody ever owned stays as well.
    let kept = owned_of(&without(&last)).union(&managed);
    let kept = owned_of(&without(&all.difference(&kept)));
    let gone = all.difference(&kept).intersection(&last);
    if gone.is_empty() {
        return merged;
    }
    without(&gone)
}

/// What a set becomes where the schema has made one place of what were several: its owner owns the whole. `None`: nothing
/// has changed.
pub fn reconciled(set: &Set, schema: Schema<'_>) -> Option<Set> {
    fn rebuild(set: &Set, schema: Option<Schema<'_>>, changed: &mut bool) -> Set {
        let mut all = Set::default();
        for node in set.nodes() {
            let field = schema.and_then(|schema| schema.behind(&node.element)).map(|field| field.schema);
            if !node.below.is_empty() && field.is_some_and(Schema::is_atomic) {
                *changed = true;
                all.push(node.element.clone(), true, Set::default());
            } else {
                all.push(node.element.clone(), node.member, rebuild(&node.below, field, changed));
            }
        }
        all
    }
    let mut changed = false;
    let rebuilt = rebuild(set, Some(schema), &mut changed);
    changed.then_some(rebuilt)
}
