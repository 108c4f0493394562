//! Strategic merge patch: a merge patch that knows which lists are merged, and by which key.
//!
//! Directives: `$patch: delete|replace`, `$retainKeys`, `$deleteFromPrimitiveList/<field>`,
//! `$setElementOrder/<field>`. What has no schema is merged as RFC 7386 does: objects merge, lists are replaced.

use super::Error;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

type Object = Map<String, Value>;

/// What a patch must know of a type.
pub trait PatchSchema {
    /// How the field `name` is patched; the default if the field is unknown.
    fn field(&self, name: &str) -> Field<'_>;
}

/// How one field is patched (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
#[derive(Default)]
pub struct Field<'a> {
    /// The strategy names `merge`: a list is merged and not replaced.
    pub merge: bool,
    /// The strategy names `replace`: an object is replaced and not merged.
    pub replace: bool,
    /// What tells one element of a merged list of objects from another.
    pub merge_key: Option<Cow<'a, str>>,
    /// The type of the field's value or, if it is a list or a map, of the elements.
    pub schema: Option<Box<dyn PatchSchema + 'a>>,
}

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies `patch`. On an error the document is left as it was.
pub fn apply(document: &mut Value, patch: &Value, schema: Option<&dyn PatchSchema>) -> Result<(), Error> {
    let (Value::Object(original), Value::Object(patch)) = (&*document, patch) else {
        return Err(Error::Malformed("Invalid JSON document".into()));
    };
    *document = Value::Object(merge_object(original.clone(), patch.clone(), schema)?);
    Ok(())
}

fn merge_object(mut original: Object, mut patch: Object, schema: Option<&dyn PatchSchema>) -> Result<Object, Error> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return Ok(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Map::new()),
        Some(directive) => return Err(unknown_directive(&directive, &patch)),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, change) in patch {
        merge_field(&mut original, key, change, schema)?;
    }
    Ok(original)
}

fn merge_field(original: &mut Object, key: String, change: Value, schema: Option<&dyn PatchSchema>) -> Result<(), Error> {
    if let Some(field) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
        let Value::Array(unwanted) = &change else {
            return Err(malformed("invalid patch format of primitive list"));
        };
        if let Some(Value::Array(list)) = original.get_mut(field) {
            let unwanted: HashSet<String> = unwanted.iter().map(Value::to_string).collect();
            list.retain(|item| !unwanted.contains(&item.to_string()));
        }
        return Ok(());
    }
    if change.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let field = schema.map(|schema| schema.field(&key)).unwrap_or_default();
    let merged = match (original.remove(&key), change) {
        (Some(Value::Object(old)), Value::Object(change)) if !field.replace => {
            Value::Object(merge_object(old, change, field.schema.as_deref())?)
        }
        (Some(Value::Array(old)), Value::Array(change)) if field.merge => Value::Array(merge_list(old, change, &field)?),
        (_, change) => match without_directives(change) {
            Some(value) => value,
            // A map that asks for its own deletion and is not there.
            None => return Ok(()),
        },
    };
    original.insert(key, merged);
    Ok(())
}

/// `$retainKeys` lists all fields that may stay; the patch may not set another.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Error> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(malformed("invalid patch format of retainKeys")) };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |name: &str| keys.contains(name);
    let stray = patch.iter().any(|(key, value)| {
        !value.is_null() && !key.starts_with(DELETE_FROM_PRIMITIVE_LIST) && !key.starts_with(SET_ELEMENT_ORDER) && !listed(key)
    });
    if stray {
        return Err(malformed("invalid patch format of retainKeys"));
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// Merges the lists that have a `$setElementOrder` beside them, and takes both out of the patch.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, schema: Option<&dyn PatchSchema>) -> Result<(), Error> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(malformed("invalid patch format of setElementOrder list"));
        };
        let name = &directive[SET_ELEMENT_ORDER.len()..];
        let field = schema.map(|schema| schema.field(name)).unwrap_or_default();
        let key = field.merge_key.as_deref();
        let live = match original.get(name) {
            Some(Value::Array(list)) => Some(list.clone()),
            None | Some(Value::Null) => None,
            Some(_) => return Err(malformed(&format!("{directive}: {name} is not a list"))),
        };
        let change = match patch.remove(name) {
            Some(Value::Array(list)) => Some(list),
            None => None,
            // The list is removed or replaced by something else: there is nothing to put in order.
            Some(other) => {
                patch.insert(name.to_owned(), other);
                continue;
            }
        };
        if let Some(change) = &change {
            check_order(change, &order, key)?;
        }
        let merged = match (live.clone(), change) {
            (None, None) => continue,
            (Some(live), None) => live,
            (None, Some(change)) => match without_directives(Value::Array(change)) {
                Some(Value::Array(list)) => list,
                _ => continue,
            },
            (Some(live), Some(change)) if field.merge => merge_list(live, change, &field)?,
            (Some(_), Some(change)) => change,
        };
        original.insert(name.to_owned(), Value::Array(in_order(merged, &order, &live.unwrap_or_default(), key)));
    }
    Ok(())
}

/// The elements of the patch must stand in the order that it asks for.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Error> {
    let mut from = 0;
    for item in change.iter().filter(|item| item.get(PATCH).is_none()) {
        match order[from..].iter().position(|other| same(item, other, key)) {
            Some(at) => from += at + 1,
            None => {
                let (change, order) = (Value::from(change.to_vec()), Value::from(order.to_vec()));
                return Err(malformed(&format!(
                    "The order in patch list:\n{change}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            }
        }
    }
    Ok(())
}

fn merge_list(live: Vec<Value>, change: Vec<Value>, field: &Field<'_>) -> Result<Vec<Value>, Error> {
    if live.iter().chain(&change).any(Value::is_array) {
        return Err(Error::Inapplicable("lists of lists are not supported".into()));
    }
    let objects = live.iter().chain(&change).filter(|item| item.is_object()).count();
    if objects == 0 {
        let mut seen = HashSet::new();
        let merged: Vec<Value> = live.iter().chain(&change).filter(|item| seen.insert(item.to_string())).cloned().collect();
        return Ok(in_order(merged, &change, &live, None));
    }
    if objects != live.len() + change.len() {
        return Err(Error::Inapplicable("list element types are not identical".into()));
    }
    let Some(key) = field.merge_key.as_deref() else {
        return Err(Error::Inapplicable("cannot merge lists without merge key".into()));
    };
    let (live, change) = list_directives(live, change, key)?;
    let mut merged = live.clone();
    let mut known = Places::of(&live, Some(key));
    for element in &change {
        let Value::Object(item) = element else { continue };
        let id = identity(element, Some(key)).ok_or_else(|| no_merge_key(item, key))?;
        match known.0.get(&id) {
            Some(at) => {
                let old = merged[*at].as_object().cloned().unwrap_or_default();
                merged[*at] = Value::Object(merge_object(old, item.clone(), field.schema.as_deref())?);
            }
            None => {
                if let Some(new) = without_directives(Value::Object(item.clone())) {
                    known.0.insert(id, merged.len());
                    merged.push(new);
                }
            }
        }
    }
    Ok(in_order(merged, &change, &live, Some(key)))
}

/// Carries out `$patch` in elements: `delete` takes away the element of that key, `replace` everything.
fn list_directives(mut live: Vec<Value>, change: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let mut rest = vec![];
    let mut replace = false;
    let mut deleted = HashSet::new();
    for item in change {
        let directive = item.get(PATCH).cloned();
        match directive.as_ref().map(|directive| directive.as_str().unwrap_or_default()) {
            None => rest.push(item),
            Some("replace") => replace = true,
            Some("delete") => {
                let id = identity(&item, Some(key));
                let Value::Object(item) = item else { continue };
                deleted.insert(id.ok_or_else(|| no_merge_key(&item, key))?);
            }
            Some("merge") => return Err(malformed("merging lists cannot yet be specified in the patch")),
            Some(_) => {
                let item = item.as_object().cloned().unwrap_or_default();
                return Err(unknown_directive(&directive.unwrap_or_default(), &item));
            }
        }
    }
    live.retain(|item| identity(item, Some(key)).is_none_or(|id| !deleted.contains(&id)));
    if replace { Ok((rest, vec![])) } else { Ok((live, rest)) }
}

/// Sorts what the patch names as the patch does, the rest as the live list does, and interleaves the two so that both
/// orders hold and, as far as that leaves a choice, the live order between them.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let (in_order, in_live) = (Places::of(order, key), Places::of(live, key));
    // Each with its places in the order that is asked for and in the live list.
    let placed = merged.into_iter().map(|item| {
        let id = identity(&item, key);
        let place = |places: &Places| id.as_ref().and_then(|id| places.0.get(id)).copied();
        (place(&in_order), place(&in_live), item)
    });
    let (mut named, mut rest): (Vec<_>, Vec<_>) = placed.partition(|(ordered, ..)| ordered.is_some());
    named.sort_by_key(|(ordered, ..)| *ordered);
    rest.sort_by_key(|(_, live, _)| live.unwrap_or(usize::MAX));
    let mut all = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_first = match (rest.peek(), named.peek()) {
            (None, None) => return all,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, Some(left), _)), Some((_, Some(right), _))) => left < right,
            (Some(_), Some(_)) => false,
        };
        all.extend(if rest_first { rest.next() } else { named.next() }.map(|(_, _, item)| item));
    }
}

/// What tells an element of a list from others, as text: its merge key or, where there is none, all of it. An object without
/// the key is like no other.
fn identity(item: &Value, key: Option<&str>) -> Option<String> {
    match (item, key) {
        (Value::Object(object), Some(key)) => object.get(key).map(Value::to_string),
        // Not to be taken for the key of an object.
        (item, Some(_)) => Some(format!("={item}")),
        (item, None) => Some(item.to_string()),
    }
}

/// Where in a list each element is found first. Lists may be as long as a body, so that nobody looks through them twice.
struct Places(HashMap<String, usize>);

impl Places {
    fn of(list: &[Value], key: Option<&str>) -> Self {
        let mut places = HashMap::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            if let Some(id) = identity(item, key) {
                places.entry(id).or_insert(at);
            }
        }
        Places(places)
    }
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) if a.is_object() && b.is_object() => a.get(key).is_some() && a.get(key) == b.get(key),
        _ => a == b,
    }
}

/// A value of the patch that meets nothing to be merged with: its directives and nulls say nothing any more. `None`: it
/// asks for its own deletion.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(object) => {
            if object.get(PATCH).is_some_and(|directive| directive == "delete") {
                return None;
            }
            let kept = object.into_iter().filter(|(key, value)| {
                let directive = key == PATCH
                    || key == RETAIN_KEYS
                    || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
                    || key.starts_with(SET_ELEMENT_ORDER);
                !directive && !value.is_null()
            });
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key, without_directives(value)?))).collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        plain => Some(plain),
    }
}

fn malformed(why: &str) -> Error {
    Error::Malformed(why.to_owned())
}

fn unknown_directive(directive: &Value, patch: &Object) -> Error {
    let directive = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    Error::Malformed(format!("unknown patch type: {directive} in map: {}", Value::Object(patch.clone())))
}

fn no_merge_key(item: &Object, key: &str) -> Error {
    Error::Inapplicable(format!("map: {} does not contain declared merge key: {key}", Value::Object(item.clone())))
}

#[cfg(test)]
pub(super) mod tests;
