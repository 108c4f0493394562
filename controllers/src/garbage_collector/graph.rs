//! Who owns whom, over all kinds. Only objects that own references, or that wait for the collector, are held.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;
use slipway_api::meta::{ObjectMeta, OwnerReference};

use crate::resource::{Key, Resource};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

#[derive(Clone, Debug)]
pub struct Node {
    pub resource: Resource,
    pub key: Key,
    pub uid: String,
    pub resource_version: Option<String>,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Node {
    pub fn new(resource: &Resource, metadata: &ObjectMeta) -> Node {
        Node {
            resource: resource.clone(),
            key: Key::of(metadata),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Deleted in the foreground: it goes after those that it owns.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has_finalizer(FOREGROUND)
    }

    fn is_of_interest(&self) -> bool {
        !self.owners.is_empty() || (self.deleting && (self.has_finalizer(ORPHAN) || self.has_finalizer(FOREGROUND)))
    }
}

#[derive(Default)]
pub struct Graph {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<String, Node>,
    /// By the uid of the owner.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<Node> {
        self.state.read().nodes.get(uid).cloned()
    }

    pub fn dependents(&self, uid: &str) -> Vec<Node> {
        let state = self.state.read();
        let mut nodes: Vec<Node> =
            state.dependents.get(uid).into_iter().flatten().filter_map(|uid| state.nodes.get(uid).cloned()).collect();
        nodes.sort_by(|a, b| (&a.resource, &a.key).cmp(&(&b.resource, &b.key)));
        nodes
    }

    /// Takes in what is known of an object now; returns the uids that are worth a look.
    pub fn observe(&self, resource: &Resource, old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) -> Vec<String> {
        let mut state = self.state.write();
        let mut look = vec![];
        let old_uid = old.and_then(|old| old.uid.as_deref());
        let new_uid = new.and_then(|new| new.uid.as_deref());
        if let Some(gone) = old_uid.filter(|uid| Some(*uid) != new_uid) {
            look.extend(state.remove(gone));
        }
        if let Some(new) = new {
            look.extend(state.upsert(Node::new(resource, new)));
        }
        look
    }

    /// After a new list: forgets what is no longer there. All that depend on this kind are worth a look, because an owner
    /// that went meanwhile was not seen going.
    pub fn relisted(&self, resource: &Resource, present: &HashSet<String>) -> Vec<String> {
        let mut state = self.state.write();
        let gone: Vec<String> = state
            .nodes
            .values()
            .filter(|node| node.resource == *resource && !present.contains(&node.uid))
            .map(|node| node.uid.clone())
            .collect();
        let mut look: Vec<String> = gone.iter().flat_map(|uid| state.remove(uid)).collect();
        let of_kind = |owner: &OwnerReference| owner.kind == resource.kind;
        let dependents = state.nodes.values().filter(|node| node.owners.iter().any(of_kind));
        look.extend(dependents.map(|node| node.uid.clone()));
        look
    }
}

impl State {
    fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut look: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if let Some(node) = self.nodes.remove(uid) {
            self.unlink(&node);
            // An owner that waits for its dependents may go now.
            look.extend(node.owners.into_iter().map(|owner| owner.uid));
        }
        look
    }

    fn upsert(&mut self, node: Node) -> Vec<String> {
        let old = self.nodes.remove(&node.uid);
        if let Some(old) = &old {
            self.unlink(old);
        }
        let mut look = vec![];
        let owners = |node: &Node| node.owners.clone();
        if old.as_ref().map(owners).unwrap_or_default() != node.owners {
            look.push(node.uid.clone());
            look.extend(old.iter().flat_map(|old| old.owners.iter().map(|owner| owner.uid.clone())));
        }
        let deleting_since_now = node.deleting && old.as_ref().is_none_or(|old| !old.deleting);
        if node.deleting && (node.waits_for_dependents() || node.has_finalizer(ORPHAN)) {
            look.push(node.uid.clone());
        }
        if deleting_since_now {
            look.extend(self.dependents.get(&node.uid).into_iter().flatten().cloned());
        }
        if node.is_of_interest() {
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
            }
            self.nodes.insert(node.uid.clone(), node);
        }
        look
    }

    fn unlink(&mut self, node: &Node) {
        for owner in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&node.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
}
