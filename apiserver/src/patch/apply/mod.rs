//! Server-side apply: who owns which field of an object, and merging what one of the owners wants. Pure.
//!
//! The rules are those of Kubernetes' structured-merge-diff. `walk` finds out what a configuration owns and what a write
//! changes, `merge` and `prune` carry a configuration out, `managed` is the record of it in `metadata.managedFields`.

mod check;
mod element;
mod fields;
mod last_applied;
mod managed;
mod merge;
mod prune;
mod schema;
mod set;
mod structural;
mod walk;

pub use check::in_go;
pub use element::Element;
pub use managed::{Managed, Manager, Operation, same_but_for_times};
pub use merge::merge;
pub use schema::Schema;
pub use set::Set;
pub use structural::Structural;
pub use walk::Diff;

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Who owned the fields of an object that was written before anybody kept account.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Nobody owns these.
const NOBODYS: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// What of an object a request may write. Nobody comes to own the rest by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    All,
    AllButStatus,
    /// The status, and the metadata but for these fields.
    Status {
        but: &'static [&'static str],
    },
    /// What is at and below these paths of fields; `*` is any item of a list.
    Only(&'static [&'static [&'static str]]),
}

/// One write: who does it, to what, when.
#[derive(Clone, Copy)]
pub struct Write<'w> {
    pub schema: Schema<'w>,
    pub scope: Scope,
    /// The `fieldManager` of the request, or who its User-Agent says it is.
    pub manager: &'w str,
    pub api_version: &'w str,
    pub subresource: &'w str,
    /// As it is to be written.
    pub now: &'w str,
    /// What it changes as owners see it who know the object in another version, where that has other fields.
    pub elsewhere: &'w Elsewhere,
}

/// By `apiVersion`. Whose version is not there sees the write as it is.
pub type Elsewhere = BTreeMap<String, Diff>;

/// Why a configuration could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("metadata.managedFields must be nil")]
    OwnersGiven,
    /// It doesn't fit the schema.
    #[error("failed to create typed patch object ({object}): {why}")]
    Unfit { object: String, why: String },
    #[error("failed to decode managed fields: {0}")]
    Managed(String),
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

impl Error {
    /// The same without what it quotes of the configuration.
    pub fn hidden(self) -> Self {
        match self {
            Error::Unfit { object, .. } => Error::Unfit { object, why: "REDACTED".to_owned() },
            other => other,
        }
    }
}

/// A field that somebody else has another value for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Manager,
    pub path: Vec<Element>,
}

impl Conflict {
    pub fn path(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path());
    }
    let mut lines = vec![];
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.path()));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

impl Write<'_> {
    fn manager(&self, operation: Operation) -> Manager {
        Manager::new(self.manager, operation, self.api_version, self.subresource)
    }

    /// Takes out what this write cannot change.
    fn limit(&self, set: &mut Set) {
        if let Scope::Only(paths) = self.scope {
            return keep_only(set, paths);
        }
        set.retain(|node| {
            let Element::Field(name) = &node.element else { return true };
            match self.scope {
                Scope::All | Scope::Only(_) => {}
                Scope::AllButStatus => return &**name != "status",
                Scope::Status { but } => match &**name {
                    "status" => {}
                    "metadata" => {
                        node.below.retain(|node| !matches!(&node.element, Element::Field(name) if but.contains(&&**name)))
                    }
                    _ => return false,
                },
            }
            true
        });
    }

    /// Takes out what nobody owns.
    fn strip(set: &mut Set) {
        set.retain(|node| {
            match &node.element {
                Element::Field(name) if matches!(&**name, "apiVersion" | "kind") => node.member = false,
                Element::Field(name) if &**name == "metadata" => {
                    node.member = false;
                    node.below.retain(|node| {
                        if matches!(&node.element, Element::Field(name) if NOBODYS.contains(&&**name)) {
                            node.member = false;
                        }
                        true
                    });
                }
                _ => {}
            }
            true
        });
    }

    fn diff(&self, old: Option<&Value>, new: &Value) -> Diff {
        let mut diff = walk::compare(old, new, self.schema);
        for set in [&mut diff.changed, &mut diff.removed] {
            self.limit(set);
            Self::strip(set);
        }
        diff
    }

    /// What the write changes of an object in another version, whose schema this is.
    pub fn diff_of(&self, schema: Schema<'_>, old: &Value, new: &Value) -> Diff {
        Write { schema, ..*self }.diff(Some(old), new)
    }

    /// An ordinary write that makes `new` of `live` (`None`: that creates it): sets its `managedFields`.
    pub fn update(&self, live: Option<&Value>, new: &mut Value) {
        let given = take_entries(new);
        let before = live.map_or(&Value::Null, entries_of);
        // Below a subresource nobody says whose the fields are.
        let said = self.subresource.is_empty() && !given.is_null() && given != *before;
        let managed = match Managed::read(&given) {
            _ if said && managed::is_reset(&given) => Some(Managed::default()),
            Ok(managed) if said && !managed.entries.is_empty() => Some(managed),
            _ => None,
        };
        let said = managed.is_some();
        let exists = live.is_some();
        let untracked = managed.as_ref().map_or(before.is_null(), |managed| managed.entries.is_empty());
        if exists && untracked {
            return;
        }
        let diff = self.diff(live, new);
        if !said && exists && diff.is_empty() {
            put_entries(new, before.clone());
            return;
        }
        let mut managed = managed.unwrap_or_else(|| Managed::read(before).unwrap_or_default());
        managed.update((&diff, self.elsewhere), &self.manager(Operation::Update), Self::strip, self.now);
        managed.cap();
        put_entries(new, managed.write());
    }

    /// Merges a configuration into `live` (`None`: creates it), if nobody else wants another value or `force` is set.
    pub fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Value, Error> {
        if !entries_of(config).is_null() {
            return Err(Error::OwnersGiven);
        }
        let findings = check::check(config, self.schema);
        if !findings.is_empty() {
            return Err(Error::Unfit { object: shown(config), why: check::message(&findings) });
        }
        let mut managed = Managed::read(live.map_or(&Value::Null, entries_of)).map_err(Error::Managed)?;
        let mut old = live.cloned().unwrap_or_else(|| json!({}));
        take_entries(&mut old);
        if live.is_some() && managed.entries.is_empty() {
            let manager = Manager::new(BEFORE_FIRST_APPLY, Operation::Update, self.api_version, self.subresource);
            managed.update((&self.diff(None, &old), self.elsewhere), &manager, Self::strip, self.now);
        }
        for entry in &mut managed.entries {
            if let Some(set) = prune::reconciled(&entry.set, self.schema) {
                entry.set = set;
            }
        }
        let applied = match self.merge(&old, config, managed.clone(), force) {
            Err(Error::Conflicts(conflicts)) if self.manager == last_applied::MANAGER => {
                match last_applied::still_hold(&old, self.api_version, self.schema) {
                    None => Err(Error::Conflicts(conflicts)),
                    Some(ours) => {
                        let rest: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !ours.has(&conflict.path)).collect();
                        if rest.is_empty() { self.merge(&old, config, managed, true) } else { Err(Error::Conflicts(rest)) }
                    }
                }
            }
            applied => applied,
        };
        let (mut new, managed) = applied?;
        put_entries(&mut new, managed.write());
        if self.manager == last_applied::MANAGER {
            last_applied::keep_true(&mut new, config);
        }
        Ok(new)
    }

    fn merge(&self, old: &Value, config: &Value, mut managed: Managed, force: bool) -> Result<(Value, Managed), Error> {
        let manager = self.manager(Operation::Apply);
        let merged = merge::merge(old, config, self.schema);
        let mut own = walk::owned(config, self.schema);
        self.limit(&mut own);
        let last = managed.set_of(&manager).clone();
        managed.set(&manager, own, self.now);
        let new = prune::prune(merged, &last, &managed.owned(), self.schema);
        let diff = self.diff(Some(old), &new);
        let conflicts = managed.conflicts((&diff, self.elsewhere), &manager);
        if !force && !conflicts.is_empty() {
            let mut all = vec![];
            for (manager, set) in conflicts {
                set.for_each(&mut |path| {
                    all.push(Conflict {
                        manager: manager.clone(),
                        path: path.iter().map(|element| (*element).clone()).collect(),
                    });
                });
            }
            all.sort_by(|one, other| one.manager.cmp(&other.manager));
            return Err(Error::Conflicts(all));
        }
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        managed.take((&diff, self.elsewhere), group, Some(&manager));
        if let Some(at) = managed.position(&manager) {
            Self::strip(&mut managed.entries[at].set);
        }
        managed.entries.retain(|entry| !entry.set.is_empty());
        Ok((new, managed))
    }
}

/// What lies on one of the paths, or below its end.
fn keep_only(set: &mut Set, paths: &[&[&str]]) {
    set.retain(|node| {
        let further: Vec<&[&str]> = paths.iter().filter_map(|path| rest_of(path, &node.element)).collect();
        if !further.iter().any(|path| path.is_empty()) {
            keep_only(&mut node.below, &further);
        }
        !further.is_empty()
    });
}

/// What of the path comes after the element, if that is what it begins with.
fn rest_of<'p, 's>(path: &'p [&'s str], element: &Element) -> Option<&'p [&'s str]> {
    let (first, rest) = path.split_first()?;
    let is_first = match element {
        Element::Field(name) => *first == &**name,
        _ => *first == "*",
    };
    is_first.then_some(rest)
}

fn entries_of(object: &Value) -> &Value {
    object.get("metadata").and_then(|metadata| metadata.get("managedFields")).unwrap_or(&Value::Null)
}

/// Puts back the entries that an object had `before` if somebody has made something of them that cannot be read: what is wrong
/// with them, to be warned of.
pub fn keep_readable(before: &Value, object: &mut Value) -> Option<String> {
    if entries_of(object) == before {
        return None;
    }
    let why = Managed::read(entries_of(object)).err()?;
    take_entries(object);
    put_entries(object, before.clone());
    Some(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission \
         controller; please fix your requests: {why}"
    ))
}

/// Takes `managedFields` out of an object.
pub fn take_entries(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default()
}

/// Puts `managedFields` into an object; null: there are none.
pub fn put_entries(object: &mut Value, entries: Value) {
    if !entries.is_null()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("managedFields".into(), entries);
    }
}

/// `default/web; apps/v1, Kind=Deployment`.
fn shown(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let version = text(&object["apiVersion"]);
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{namespace}/{name}; {slash}{version}, Kind={}", text(&object["kind"]))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
