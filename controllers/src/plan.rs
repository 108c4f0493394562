//! Plans: what a controller wants to be written, as a value that prints itself.

use std::{fmt, time::Duration};

use serde_json::{Map, Value, json};
use slipway_api::core::ObjectReference;

use crate::resource::{Key, Object, Resource};

/// What to do for one object now, and when to look again although nothing may have changed.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub again_in: Option<Duration>,
}

#[derive(Clone, Debug)]
pub enum Step {
    Create(Create),
    Delete(Delete),
    DeleteCollection(DeleteCollection),
    Patch(Patch),
    Replace(Replace),
    Evict(Evict),
    Event(Event),
}

#[derive(Clone, Debug)]
pub struct Create {
    pub resource: Resource,
    pub namespace: String,
    pub object: Value,
    /// Who is told by an event (SuccessfulCreate, FailedCreate) how it went.
    pub tell: Option<Box<Tell>>,
}

#[derive(Clone, Debug)]
pub struct Delete {
    pub resource: Resource,
    pub key: Key,
    /// The object is deleted only while it is still this one.
    pub uid: String,
    /// And (if given) only in this revision: set where the decision rests on the object's content.
    pub resource_version: Option<String>,
    pub grace_seconds: Option<i64>,
    pub propagation: Option<&'static str>,
    pub why: &'static str,
    pub tell: Option<Box<Tell>>,
}

/// Who is told of a creation or deletion, and in which words.
#[derive(Clone, Debug)]
pub struct Tell {
    pub owner: ObjectReference,
    /// `None`: in the usual ones, as `Created pod: web-0`.
    pub words: Option<Words>,
}

/// The event about a creation or deletion, where the owner's controller has words of its own for it.
#[derive(Clone, Debug)]
pub struct Words {
    pub done: String,
    /// The error follows.
    pub failed: String,
}

/// Asks for a pod to go as far as its disruption budget allows; a refusal is no failure, only a reason to ask again.
#[derive(Clone, Debug)]
pub struct Evict {
    pub key: Key,
    pub uid: String,
}

/// Deletes all objects of one kind in a namespace.
#[derive(Clone, Debug)]
pub struct DeleteCollection {
    pub resource: Resource,
    pub namespace: String,
}

/// A whole object, for the subresources that cannot be patched.
#[derive(Clone, Debug)]
pub struct Replace {
    pub resource: Resource,
    pub key: Key,
    pub subresource: &'static str,
    pub object: Value,
}

/// A merge patch that is refused (409) when the object is no longer the one that the plan has seen.
#[derive(Clone, Debug)]
pub struct Patch {
    pub resource: Resource,
    pub key: Key,
    pub subresource: Option<&'static str>,
    pub uid: String,
    pub resource_version: Option<String>,
    pub patch: Value,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub regarding: Box<ObjectReference>,
    pub kind: EventKind,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Normal,
    Warning,
}

impl Plan {
    pub fn nothing() -> Plan {
        Plan::default()
    }

    pub fn push(&mut self, step: impl Into<Option<Step>>) {
        self.steps.extend(step.into());
    }

    /// Look again after `delay` at the latest.
    pub fn again_in(&mut self, delay: Duration) {
        self.again_in = Some(self.again_in.map_or(delay, |earlier| earlier.min(delay)));
    }

    pub fn again_at(&mut self, now: slipway_api::jiff::Timestamp, at: slipway_api::jiff::Timestamp) {
        // One second at least: times in objects are whole seconds, and to be early would be to spin.
        let seconds = at.duration_since(now).as_secs().max(0) as u64 + 1;
        self.again_in(Duration::from_secs(seconds));
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    pub fn create<K: Object>(object: &K) -> Step {
        Step::Create(Create {
            resource: K::resource(),
            namespace: object.namespace().to_owned(),
            object: to_value(object),
            tell: None,
        })
    }

    /// Creates a pod (or another child) on behalf of `owner`, who gets the event about it.
    pub fn create_for<K: Object>(object: &K, owner: ObjectReference) -> Step {
        let Step::Create(create) = Step::create(object) else { unreachable!("create makes a Create") };
        Step::Create(Create { tell: Some(Box::new(Tell { owner, words: None })), ..create })
    }

    pub fn delete<K: Object>(object: &K, why: &'static str) -> Step {
        Step::Delete(Delete {
            resource: K::resource(),
            key: object.key(),
            uid: object.uid().to_owned(),
            resource_version: None,
            grace_seconds: None,
            propagation: None,
            why,
            tell: None,
        })
    }

    pub fn delete_for<K: Object>(object: &K, owner: ObjectReference, why: &'static str) -> Step {
        let Step::Delete(delete) = Step::delete(object, why) else { unreachable!("delete makes a Delete") };
        Step::Delete(Delete { tell: Some(Box::new(Tell { owner, words: None })), ..delete })
    }

    /// Tells the owner in these words.
    pub fn in_words(mut self, words: Words) -> Step {
        let tell = match &mut self {
            Step::Create(create) => create.tell.as_mut(),
            Step::Delete(delete) => delete.tell.as_mut(),
            _ => None,
        };
        if let Some(tell) = tell {
            tell.words = Some(words);
        }
        self
    }

    pub fn evict(pod: &slipway_api::core::Pod) -> Step {
        Step::Evict(Evict { key: pod.key(), uid: pod.uid().to_owned() })
    }

    pub fn event(regarding: &impl Object, reason: &'static str, message: impl Into<String>) -> Step {
        Step::Event(Event {
            regarding: Box::new(regarding.reference()),
            kind: EventKind::Normal,
            reason,
            message: message.into(),
        })
    }

    pub fn warning(regarding: &impl Object, reason: &'static str, message: impl Into<String>) -> Step {
        Step::Event(Event {
            regarding: Box::new(regarding.reference()),
            kind: EventKind::Warning,
            reason,
            message: message.into(),
        })
    }

    /// What makes `new` out of `old`, but for the status; `None` if they are equal.
    pub fn update<K: Object>(old: &K, new: &K) -> Option<Step> {
        let (mut old_json, mut new_json) = (to_value(old), to_value(new));
        for json in [&mut old_json, &mut new_json] {
            json.as_object_mut().expect("objects are JSON objects").remove("status");
        }
        patch_step(old, None, difference(&old_json, &new_json)?)
    }

    /// What makes the status of `new` out of that of `old`, written through the status subresource.
    pub fn update_status<K: Object>(old: &K, new: &K) -> Option<Step> {
        Self::update_subresource(old, new, "status")
    }

    pub fn replace<K: Object>(object: &K, subresource: &'static str) -> Step {
        Step::Replace(Replace { resource: K::resource(), key: object.key(), subresource, object: to_value(object) })
    }

    /// Lets the patch apply to whatever revision the object is in by then.
    pub fn whatever_the_revision(self) -> Step {
        match self {
            Step::Patch(patch) => Step::Patch(Patch { resource_version: None, ..patch }),
            other => other,
        }
    }

    /// As `update_status`, for another subresource that writes the status (`approval`).
    pub fn update_subresource<K: Object>(old: &K, new: &K, subresource: &'static str) -> Option<Step> {
        let (old_json, new_json) = (to_value(old), to_value(new));
        let patch = difference(&old_json["status"], &new_json["status"])?;
        patch_step(old, Some(subresource), json!({ "status": patch }))
    }
}

fn patch_step<K: Object>(object: &K, subresource: Option<&'static str>, patch: Value) -> Option<Step> {
    Some(Step::Patch(Patch {
        resource: K::resource(),
        key: object.key(),
        subresource,
        uid: object.uid().to_owned(),
        resource_version: object.metadata().resource_version.clone(),
        patch,
    }))
}

fn to_value(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).expect("API types serialise: their maps have string keys")
}

/// The merge patch (RFC 7396) from `old` to `new`; `None` if there is nothing to change.
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                patch.insert(name.clone(), Value::Null);
            }
            for (name, value) in new {
                let change = old.get(name).map_or_else(|| Some(value.clone()), |old| difference(old, value));
                patch.extend(change.map(|change| (name.clone(), change)));
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ if old == new => None,
        _ => Some(new.clone()),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        if let Some(delay) = self.again_in {
            writeln!(f, "again in {}s", delay.as_secs())?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create(create) => create.fmt(f),
            Step::Delete(delete) => {
                write!(f, "delete {} {} ({})", delete.resource.kind, delete.key, delete.why)
            }
            Step::Patch(patch) => {
                write!(f, "patch {} {}", patch.resource.kind, patch.key)?;
                if let Some(subresource) = patch.subresource {
                    write!(f, "/{subresource}")?;
                }
                write!(f, " {}", patch.patch)
            }
            Step::DeleteCollection(all) => write!(f, "delete all {} in {}", all.resource.plural, all.namespace),
            Step::Replace(replace) => {
                write!(f, "replace {} {}/{}", replace.resource.kind, replace.key, replace.subresource)
            }
            Step::Evict(evict) => write!(f, "evict Pod {}", evict.key),
            Step::Event(event) => write!(f, "event {:?} {}: {}", event.kind, event.reason, event.message),
        }
    }
}

impl fmt::Display for Create {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = &self.object["metadata"];
        write!(f, "create {} ", self.resource.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) => f.write_str(name)?,
            (None, prefix) => write!(f, "{}*", prefix.unwrap_or_default())?,
        }
        if f.alternate() {
            write!(f, " {}", self.object)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_the_merge_patch_between_two_values() {
        let old = json!({"a": 1, "b": {"c": [1], "d": true}, "gone": "x"});
        let new = json!({"a": 1, "b": {"c": [1, 2], "d": true}, "new": {"e": 1}});
        let patch = difference(&old, &new).expect("they differ");
        assert_eq!(patch, json!({"b": {"c": [1, 2]}, "gone": null, "new": {"e": 1}}));
        assert_eq!(difference(&old, &old), None);
    }
}
