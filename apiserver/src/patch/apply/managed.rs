//! `metadata.managedFields`: who owns which fields.

use super::Elsewhere;
use super::element::Element;
use super::fields;
use super::set::Set;
use super::walk::Diff;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// How many entries of updates an object keeps; older ones are put together.
const UPDATES_MAX: usize = 10;
/// More entries than anybody has: who sends them means no good, and each is compared with the others.
const ENTRIES_MAX: usize = 1_000;
const OLD_UPDATES: &str = "ancient-changes";
/// Whose request doesn't say who sends it.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who owns fields, and in which way it came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Which version the fields are named by.
    pub api_version: String,
    pub subresource: String,
}

impl Manager {
    pub fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let name = if name.is_empty() { UNKNOWN } else { name };
        Manager { name: name.to_owned(), operation, api_version: api_version.to_owned(), subresource: subresource.to_owned() }
    }

    /// Whether both are one: who applies stays the same when it applies another version.
    pub fn is(&self, other: &Manager) -> bool {
        let version = self.operation == Operation::Apply || self.api_version == other.api_version;
        version && (&self.name, self.operation, &self.subresource) == (&other.name, other.operation, &other.subresource)
    }

    fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// What a write changes in the version of this manager.
    fn sees<'d>(&self, (diff, elsewhere): (&'d Diff, &'d Elsewhere)) -> &'d Diff {
        elsewhere.get(&self.api_version).unwrap_or(diff)
    }
}

/// As a conflict names it: `"x" with subresource "status" using apps/v1`.
impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub manager: Manager,
    /// As it is written; empty if there is none.
    pub time: String,
    pub set: Set,
}

/// The owners of an object's fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed {
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads `managedFields`; null and absence are none.
    pub fn read(entries: &Value) -> Result<Self, String> {
        let mut managed = Managed::default();
        let empty = vec![];
        let list = match entries {
            Value::Null => &empty,
            Value::Array(list) => list,
            _ => return Err("managedFields must be a list".into()),
        };
        if list.len() > ENTRIES_MAX {
            return Err(format!("there are more than {ENTRIES_MAX} entries"));
        }
        for (at, entry) in list.iter().enumerate() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
                other => return Err(format!("invalid fieldsType \"{other}\" in managed fields entry {at}")),
            }
            let set = fields::read(entry.get("fieldsV1").unwrap_or(&Value::Null)).map_err(|why| {
                format!("error decoding versioned set from managed fields entry {at}: error decoding set: {why}")
            })?;
            let manager = Manager {
                name: text("manager").to_owned(),
                operation,
                api_version: text("apiVersion").to_owned(),
                subresource: text("subresource").to_owned(),
            };
            let entry = Entry { manager, time: text("time").to_owned(), set };
            match managed.position(&entry.manager) {
                Some(at) => managed.entries[at] = entry,
                None => managed.entries.push(entry),
            }
        }
        Ok(managed)
    }

    /// `Null` if there is nothing to write.
    pub fn write(mut self) -> Value {
        if self.entries.is_empty() {
            return Value::Null;
        }
        self.entries.sort_by(|one, other| {
            let key = |entry: &'_ Entry| (entry.manager.operation, entry.time.clone(), entry.manager.clone());
            key(one).cmp(&key(other))
        });
        let write = |entry: Entry| {
            let Manager { name, operation, api_version, subresource } = entry.manager;
            let mut written = Map::new();
            written.insert("apiVersion".into(), api_version.into());
            written.insert("fieldsType".into(), "FieldsV1".into());
            written.insert("fieldsV1".into(), fields::write(&entry.set));
            if !name.is_empty() {
                written.insert("manager".into(), name.into());
            }
            written.insert("operation".into(), operation.as_str().into());
            if !subresource.is_empty() {
                written.insert("subresource".into(), subresource.into());
            }
            if !entry.time.is_empty() {
                written.insert("time".into(), entry.time.into());
            }
            Value::Object(written)
        };
        self.entries.into_iter().map(write).collect()
    }

    pub fn position(&self, manager: &Manager) -> Option<usize> {
        self.entries.iter().position(|entry| entry.manager.is(manager))
    }

    pub fn set_of(&self, manager: &Manager) -> &Set {
        self.position(manager).map_or(Set::EMPTY, |at| &self.entries[at].set)
    }

    /// All that anybody owns.
    pub fn owned(&self) -> Set {
        self.entries.iter().fold(Set::default(), |all, entry| all.union(&entry.set))
    }

    /// Gives a manager a set of its own, with the time of now.
    pub fn set(&mut self, manager: &Manager, set: Set, time: &str) {
        let entry = Entry { manager: manager.clone(), time: time.to_owned(), set };
        match self.position(manager) {
            Some(at) => self.entries[at] = entry,
            None => self.entries.push(entry),
        }
    }

    /// What others than `but` own of what changes. Those of another group name other fields, and are let be.
    pub fn conflicts(&self, diff: (&Diff, &Elsewhere), but: &Manager) -> Vec<(Manager, Set)> {
        let others = self.entries.iter().filter(|entry| !entry.manager.is(but) && entry.manager.group() == but.group());
        let changed = |entry: &Entry| &entry.manager.sees(diff).changed;
        let taken = others.filter(|entry| entry.set.meets(changed(entry)));
        taken.map(|entry| (entry.manager.clone(), entry.set.intersection(changed(entry)))).collect()
    }

    /// Takes from all but `but` what was changed or removed, and lets go of who is left with nothing.
    pub fn take(&mut self, diff: (&Diff, &Elsewhere), group: &str, but: Option<&Manager>) {
        for entry in &mut self.entries {
            if but.is_some_and(|but| entry.manager.is(but)) || entry.manager.group() != group {
                continue;
            }
            let diff = entry.manager.sees(diff);
            for lost in [&diff.changed, &diff.removed] {
                if entry.set.meets(lost) {
                    entry.set = entry.set.difference(lost);
                }
            }
        }
        self.entries.retain(|entry| !entry.set.is_empty());
    }

    /// An ordinary write by `manager`: what it changed is its own from now on.
    pub fn update(&mut self, diff: (&Diff, &Elsewhere), manager: &Manager, keep: impl Fn(&mut Set), now: &str) {
        self.take(diff, manager.group(), None);
        let mut own = diff.0.changed.clone();
        keep(&mut own);
        if own.is_empty() {
            return;
        }
        let own = match self.position(manager) {
            Some(at) => self.entries[at].set.union(&own),
            None => own,
        };
        self.set(manager, own, now);
    }

    /// Puts the oldest updates together while there are too many.
    pub fn cap(&mut self) {
        let updates =
            |managed: &Managed| managed.entries.iter().filter(|entry| entry.manager.operation == Operation::Update).count();
        if updates(self) <= UPDATES_MAX {
            return;
        }
        self.entries.sort_by(|one, other| (&one.time, &one.manager).cmp(&(&other.time, &other.manager)));
        let oldest: Vec<Manager> = self
            .entries
            .iter()
            .map(|entry| entry.manager.clone())
            .filter(|manager| manager.operation == Operation::Update)
            .collect();
        let mut first_of: HashMap<String, Manager> = HashMap::new();
        for manager in oldest {
            if updates(self) <= UPDATES_MAX {
                return;
            }
            let version = manager.api_version.clone();
            let bucket = Manager::new(OLD_UPDATES, Operation::Update, &version, "");
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            let Some(at) = self.position(&manager).filter(|_| manager != bucket) else { continue };
            let Entry { set, time, .. } = self.entries.remove(at);
            let older = self.position(&bucket).or_else(|| self.position(first)).map(|at| self.entries.remove(at).set);
            self.set(&bucket, older.unwrap_or_default().union(&set), &time);
        }
    }

    /// What the `scale` subresource sees of it: who owns the replicas.
    pub fn of_scale(&self, replicas: &[Element], scale_version: &str) -> Managed {
        let owners = self.entries.iter().filter(|entry| entry.set.has(replicas));
        let entry = |entry: &Entry| Entry {
            manager: Manager { api_version: scale_version.to_owned(), ..entry.manager.clone() },
            time: entry.time.clone(),
            set: Set::of_fields(&["spec", "replicas"]),
        };
        Managed { entries: owners.map(entry).collect() }
    }

    /// What becomes of it once the `scale` subresource was written: `scale` says who owns the replicas then.
    pub fn with_scale(mut self, scale: Managed, replicas: &[Element], api_version: &str) -> Managed {
        let mut own = Set::default();
        own.insert(replicas);
        let owns = |entry: &&Entry| entry.set.has(&[Element::field("spec"), Element::field("replicas")]);
        let mut owners: Vec<Manager> = scale
            .entries
            .iter()
            .filter(owns)
            .map(|entry| Manager { api_version: api_version.to_owned(), ..entry.manager.clone() })
            .collect();
        for entry in &mut self.entries {
            if !entry.set.has(replicas) {
                continue;
            }
            match owners.iter().position(|owner| owner.is(&entry.manager)) {
                Some(at) => _ = owners.remove(at),
                None => entry.set = entry.set.difference(&own),
            }
        }
        self.entries.retain(|entry| !entry.set.is_empty());
        // Kubernetes gives these no time.
        owners.into_iter().for_each(|owner| match self.position(&owner) {
            Some(at) => self.entries[at].set = self.entries[at].set.union(&own),
            None => self.set(&owner, own.clone(), ""),
        });
        self
    }
}

/// Whether a request asks to forget who owns what: an empty list, or one empty entry.
pub fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => *one == json!({}),
        _ => false,
    }
}

/// Whether two lists of entries differ in times at most, and in the order that follows from them.
pub fn same_but_for_times(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_array(), other.as_array()) else { return one == other };
    let same = |one: &Value, other: &Value| match (one.as_object(), other.as_object()) {
        (Some(one), Some(other)) => {
            let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key("time"));
            rest(one) == rest(other) && one.iter().all(|(name, value)| name == "time" || other.get(name) == Some(value))
        }
        _ => one == other,
    };
    one.len() == other.len() && one.iter().all(|one| other.iter().any(|other| same(one, other)))
}
