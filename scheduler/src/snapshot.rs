//! What the scheduler knows of the cluster, reduced to what decisions need.
//!
//! A [`Snapshot`] is a value: cloning one is O(1), and adding or removing a pod touches one node. It holds no API objects;
//! a node or pod is read once, when it changes.

use crate::affinity::{Affinity, Namespaces, Wants};
use imbl::{HashMap, OrdMap, Vector};
use slipway_api::core::{Node, Pod, Taint};
use slipway_api::jiff::Timestamp;
use slipway_api::owner;
use slipway_api::pod::{self, HostPort, Resources};
use slipway_api::resize::held;
use slipway_api::selector::Labels;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// `namespace/name` of a pod.
pub type Key = Arc<str>;

pub fn key_of(pod: &Pod) -> Key {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()).into()
}

/// A pod as the scheduler sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    pub key: Key,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    pub requests: Resources,
    /// CPU and memory as they are counted when nodes are compared: never nothing.
    pub scored_cpu: i64,
    pub scored_memory: i64,
    pub ports: Vec<HostPort>,
    pub priority: i32,
    pub started: Option<Timestamp>,
    pub deleting: bool,
    /// The UID of the controller that made it.
    pub controller: Option<Arc<str>>,
    pub affinity: Option<Arc<Affinity>>,
    /// What it wants of a node. Of a pod that has its node, nothing is kept here.
    pub wants: Arc<Wants>,
}

impl PodInfo {
    /// A pod that is to be placed.
    pub fn pending(pod: &Pod) -> PodInfo {
        PodInfo { wants: Arc::new(Wants::of(pod)), ..PodInfo::placed(pod) }
    }

    /// A pod that has its node.
    pub fn placed(pod: &Pod) -> PodInfo {
        // While it is resized, it takes the most of what it has and what it may get.
        let held = held(pod);
        let scored = pod::requests_for_scoring(&held);
        let meta = &pod.metadata;
        PodInfo {
            key: key_of(pod),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            requests: pod::requests(&held),
            scored_cpu: scored.milli_cpu,
            scored_memory: scored.memory,
            ports: pod::host_ports(pod),
            priority: pod::priority(pod),
            started: pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            deleting: pod::is_deleted(pod),
            controller: owner::controller_of(meta).map(|controller| controller.uid.as_str().into()),
            affinity: Affinity::of(pod).map(Arc::new),
            wants: Arc::default(),
        }
    }

    pub fn required_anti_affinity(&self) -> &[crate::affinity::Term] {
        self.affinity.as_ref().map_or(&[], |affinity| &affinity.required_anti)
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: Arc<str>,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub max_pods: i64,
    /// The sizes of the images it has, by each of their names.
    pub images: BTreeMap<String, i64>,
    name_hash: u64,
}

impl NodeFacts {
    pub fn of(node: &Node) -> NodeFacts {
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let mut allocatable = Resources::from_list(allocatable);
        let max_pods = allocatable.other.remove("pods").unwrap_or(0);
        let images = status.iter().flat_map(|status| status.images.iter().flatten());
        let named = |image: &slipway_api::core::ContainerImage| {
            let size = image.size_bytes.unwrap_or(0);
            image.names.clone().unwrap_or_default().into_iter().map(move |name| (name, size))
        };
        NodeFacts {
            name_hash: hash(&name),
            name,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable,
            max_pods,
            images: images.flat_map(named).collect(),
        }
    }

    /// A number by which pods with equal choices spread: the same for the same pod and node, whatever else there is.
    pub fn tie_break(&self, pod: &PodInfo) -> u64 {
        (self.name_hash ^ hash(&pod.uid)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A node with the pods that are on it, or on their way to it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub facts: Arc<NodeFacts>,
    pub pods: Vec<Arc<PodInfo>>,
    /// Those of `pods` that have affinities of their own.
    pub pods_with_affinity: Vec<Arc<PodInfo>>,
    pub requested: Resources,
    pub scored_cpu: i64,
    pub scored_memory: i64,
    pub ports: Vec<HostPort>,
}

impl NodeInfo {
    /// A node without pods: one that exists, or one that could be bought.
    pub fn of(node: &Node) -> NodeInfo {
        NodeInfo { facts: Arc::new(NodeFacts::of(node)), ..NodeInfo::default() }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.facts.name
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.facts.labels.get(key).map(String::as_str)
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_cpu += pod.scored_cpu;
        self.scored_memory += pod.scored_memory;
        self.ports.extend(pod.ports.iter().cloned());
        if pod.affinity.is_some() {
            self.pods_with_affinity.push(pod.clone());
        }
        self.pods.push(pod);
    }

    pub fn remove(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| &*pod.key == key)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.scored_cpu -= pod.scored_cpu;
        self.scored_memory -= pod.scored_memory;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
        self.pods_with_affinity.retain(|other| &*other.key != key);
        Some(pod)
    }
}

/// All nodes with their pods.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vector<Arc<NodeInfo>>,
    index: HashMap<Arc<str>, usize>,
    /// Pods whose node isn't known (yet).
    strays: OrdMap<Arc<str>, Vector<Arc<PodInfo>>>,
    /// Nodes that have pods with affinities of their own.
    with_affinity: OrdMap<Arc<str>, ()>,
    /// How many nodes have an image.
    image_nodes: HashMap<String, usize>,
    /// How many pods of a controller each node has.
    controllers: HashMap<Arc<str>, OrdMap<Arc<str>, i64>>,
    /// Pods that victims make room for, by the node that they wait for.
    nominated: HashMap<Arc<str>, Vector<Arc<PodInfo>>>,
    /// The labels of namespaces.
    pub namespaces: Namespaces,
}

impl Snapshot {
    /// A cluster of one node.
    pub fn of_one(node: &NodeInfo) -> Snapshot {
        let mut cluster = Snapshot::default();
        if !node.pods_with_affinity.is_empty() {
            cluster.with_affinity.insert(node.name().clone(), ());
        }
        cluster.index.insert(node.name().clone(), 0);
        cluster.nodes.push_back(Arc::new(node.clone()));
        cluster
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeInfo>> {
        self.nodes.iter()
    }

    /// All nodes, beginning at one of them.
    pub fn nodes_from(&self, start: usize) -> impl Iterator<Item = &Arc<NodeInfo>> {
        let start = if self.nodes.is_empty() { 0 } else { start % self.nodes.len() };
        (start..self.nodes.len()).chain(0..start).filter_map(|at| self.nodes.get(at))
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(*self.index.get(name)?)
    }

    pub fn nodes_with_affinity(&self) -> impl Iterator<Item = &Arc<NodeInfo>> {
        self.with_affinity.keys().filter_map(|name| self.node(name))
    }

    pub fn has_affinity(&self) -> bool {
        !self.with_affinity.is_empty()
    }

    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// The pods of a controller on each node that has some.
    pub fn pods_of(&self, controller: &str) -> Option<&OrdMap<Arc<str>, i64>> {
        self.controllers.get(controller)
    }

    pub fn nominated(&self, node: &str) -> Option<&Vector<Arc<PodInfo>>> {
        if self.nominated.is_empty() { None } else { self.nominated.get(node) }
    }

    /// Adds a node or takes over what it now says. Returns what it said before.
    pub fn set_node(&mut self, node: &Node) -> Option<Arc<NodeFacts>> {
        let facts = Arc::new(NodeFacts::of(node));
        let name = facts.name.clone();
        match self.index.get(&name).copied() {
            Some(at) => {
                let info = Arc::make_mut(self.nodes.get_mut(at)?);
                let old = std::mem::replace(&mut info.facts, facts.clone());
                self.count_images(&old, &facts);
                Some(old)
            }
            None => {
                self.count_images(&NodeFacts::default(), &facts);
                let mut info = NodeInfo { facts, ..NodeInfo::default() };
                for pod in self.strays.remove(&name).into_iter().flatten() {
                    info.add(pod);
                }
                if !info.pods_with_affinity.is_empty() {
                    self.with_affinity.insert(name.clone(), ());
                }
                self.index.insert(name, self.nodes.len());
                self.nodes.push_back(Arc::new(info));
                None
            }
        }
    }

    /// Its pods are kept apart, until they go or the node comes back.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<NodeInfo>> {
        let at = self.index.remove(name)?;
        let last = self.nodes.len() - 1;
        self.nodes.swap(at, last);
        let gone = self.nodes.pop_back()?;
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name().clone(), at);
        }
        self.with_affinity.remove(name);
        self.count_images(&gone.facts, &NodeFacts::default());
        if !gone.pods.is_empty() {
            self.strays.insert(gone.name().clone(), gone.pods.iter().cloned().collect());
        }
        Some(gone)
    }

    fn count_images(&mut self, old: &NodeFacts, new: &NodeFacts) {
        for image in old.images.keys().filter(|image| !new.images.contains_key(*image)) {
            match self.image_nodes.get_mut(image) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.image_nodes.remove(image)),
            }
        }
        for image in new.images.keys().filter(|image| !old.images.contains_key(*image)) {
            *self.image_nodes.entry(image.clone()).or_insert(0) += 1;
        }
    }

    pub fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        if let Some(controller) = &pod.controller {
            *self.controllers.entry(controller.clone()).or_default().entry(node.into()).or_insert(0) += 1;
        }
        let Some(at) = self.index.get(node).copied() else {
            self.strays.entry(node.into()).or_default().push_back(pod);
            return;
        };
        if pod.affinity.is_some() {
            self.with_affinity.insert(node.into(), ());
        }
        if let Some(info) = self.nodes.get_mut(at) {
            Arc::make_mut(info).add(pod);
        }
    }

    pub fn remove_pod(&mut self, node: &str, key: &str) -> Option<Arc<PodInfo>> {
        let pod = match self.index.get(node).copied() {
            Some(at) => {
                let info = Arc::make_mut(self.nodes.get_mut(at)?);
                let pod = info.remove(key)?;
                if info.pods_with_affinity.is_empty() {
                    self.with_affinity.remove(node);
                }
                pod
            }
            None => {
                let pods = self.strays.get_mut(node)?;
                let at = pods.iter().position(|pod| &*pod.key == key)?;
                let pod = pods.remove(at);
                if pods.is_empty() {
                    self.strays.remove(node);
                }
                pod
            }
        };
        if let Some(controller) = &pod.controller {
            self.forget_controlled(controller, node);
        }
        Some(pod)
    }

    fn forget_controlled(&mut self, controller: &str, node: &str) {
        let Some(nodes) = self.controllers.get_mut(controller) else { return };
        match nodes.get_mut(node) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(nodes.remove(node)),
        }
        if nodes.is_empty() {
            self.controllers.remove(controller);
        }
    }

    pub fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.nominated.entry(node.into()).or_default().push_back(pod);
    }

    pub fn withdraw_nomination(&mut self, node: &str, key: &str) {
        if let Some(pods) = self.nominated.get_mut(node) {
            pods.retain(|pod| &*pod.key != key);
            if pods.is_empty() {
                self.nominated.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, placed};

    fn names(snapshot: &Snapshot) -> Vec<String> {
        snapshot.nodes().map(|node| node.name().to_string()).collect()
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut cluster = Snapshot::default();
        cluster.set_node(&node("a", "cpu: 4"));
        let before = cluster.clone();
        cluster.add_pod("a", placed("p", "cpu: 1"));
        assert_eq!((before.node("a").unwrap().pods.len(), cluster.node("a").unwrap().requested.milli_cpu), (0, 1000));
        cluster.remove_pod("a", "default/p");
        assert_eq!(cluster.node("a").unwrap().requested, Resources::default());
    }

    #[test]
    fn pods_outlive_their_node_and_precede_it() {
        let mut cluster = Snapshot::default();
        cluster.add_pod("a", placed("p", "cpu: 1"));
        for name in ["a", "b", "c"] {
            cluster.set_node(&node(name, "cpu: 4"));
        }
        assert_eq!(cluster.node("a").unwrap().pods.len(), 1);
        cluster.remove_node("a");
        assert_eq!(names(&cluster), ["c", "b"]);
        assert_eq!(cluster.node("c").unwrap().name().as_ref(), "c");
        cluster.set_node(&node("a", "cpu: 4"));
        assert_eq!(cluster.node("a").unwrap().requested.milli_cpu, 1000);
        assert!(cluster.remove_pod("a", "default/p").is_some());
    }

    #[test]
    fn every_node_is_visited_once_from_any_start() {
        let mut cluster = Snapshot::default();
        for name in ["a", "b", "c"] {
            cluster.set_node(&node(name, "cpu: 4"));
        }
        let from = |start| cluster.nodes_from(start).map(|node| node.name().to_string()).collect::<String>();
        assert_eq!((from(0), from(2), from(4)), ("abc".into(), "cab".into(), "bca".into()));
        assert_eq!(Snapshot::default().nodes_from(3).count(), 0);
    }
}
