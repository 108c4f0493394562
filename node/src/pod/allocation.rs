//! What of the node is granted to its pods, and what they want instead: a resize is granted when there is room for it, and
//! waits otherwise. Pure but for a lock.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use slipway_api::core::{Container, Pod, ResourceRequirements};
use slipway_api::pod::{Resources, priority, qos_class, requests};
use slipway_api::quantity::Quantity;
use slipway_api::resize::{DEFERRED, INFEASIBLE};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The resources of a pod and of its containers, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Grant {
    /// All that the pod asks for.
    pub fn wanted(pod: &Pod) -> Grant {
        let Some(spec) = &pod.spec else { return Grant::default() };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let named = |container: &Container| (container.name.clone(), container.resources.clone().unwrap_or_default());
        Grant { pod: spec.resources.clone(), containers: containers.map(named).collect() }
    }

    /// The pod with these resources in place of those that it asks for.
    pub fn of<'p>(&self, pod: &'p Pod) -> Cow<'p, Pod> {
        if *self == Grant::wanted(pod) {
            return Cow::Borrowed(pod);
        }
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            if self.pod.is_some() {
                spec.resources.clone_from(&self.pod);
            }
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(resources) = self.containers.get(&container.name) {
                    container.resources = Some(resources.clone());
                }
            }
        }
        Cow::Owned(pod)
    }
}

/// How what is granted to a container can be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    InPlace,
    Restart,
}

/// What becomes of a running container. A changed request for memory alone is only counted.
pub fn change(container: &Container, granted: &ResourceRequirements, in_force: &ResourceRequirements) -> Change {
    let amount = |of: &ResourceRequirements, limits: bool, name: &str| {
        let list = if limits { of.limits.as_ref() } else { of.requests.as_ref() };
        list.and_then(|list| Quantity::parse(&list.get(name)?.0).ok())
    };
    let differs = |limits: bool, name: &str| amount(granted, limits, name) != amount(in_force, limits, name);
    let restarts = |name: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    };
    let cpu = differs(true, "cpu") || differs(false, "cpu");
    let memory = differs(true, "memory");
    match (cpu, memory) {
        _ if cpu && restarts("cpu") || memory && restarts("memory") => Change::Restart,
        (false, false) if !differs(false, "memory") => Change::Nothing,
        _ => Change::InPlace,
    }
}

/// Why what is wanted is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub reason: &'static str,
    pub message: String,
}

/// What a pod has got.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub granted: Grant,
    pub pending: Option<Pending>,
    /// Pods that have got something by it: their workers should look.
    pub woken: Vec<String>,
}

struct Entry {
    pod: Arc<Pod>,
    granted: Grant,
    in_force: Grant,
    /// Since when it waits for what it wants.
    pending: Option<(Pending, Timestamp)>,
}

impl Entry {
    /// What it takes of the node: what is granted, and what is still in force.
    fn taken(&self) -> Resources {
        let mut taken = requests(&self.granted.of(&self.pod));
        taken.max(&requests(&self.in_force.of(&self.pod)));
        taken
    }

    /// Who comes first when there is room again: who needs none, then the more important, then who has waited longest.
    fn rank(&self) -> (bool, std::cmp::Reverse<i32>, bool, Timestamp) {
        let wanted = requests(&self.pod);
        let has = requests(&self.granted.of(&self.pod));
        let grows = wanted.milli_cpu > has.milli_cpu || wanted.memory > has.memory;
        let since = self.pending.as_ref().map_or(Timestamp::MAX, |(_, since)| *since);
        (grows, std::cmp::Reverse(priority(&self.pod)), qos_class(&self.pod) != "Guaranteed", since)
    }
}

/// Why a node does not give more of a resource, in Kubernetes' words.
pub fn refuse(name: &str, requested: i64, used: i64, capacity: i64) -> Option<Pending> {
    if requested > capacity {
        let message = format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
        return Some(Pending { reason: INFEASIBLE, message });
    }
    let message =
        || format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}");
    (requested + used > capacity).then(|| Pending { reason: DEFERRED, message: message() })
}

#[derive(Default)]
struct Pods {
    entries: BTreeMap<String, Entry>,
    /// All pods of the node are among them.
    complete: bool,
    allocatable: Resources,
}

/// Those of all pods of the node that have not ended, by uid.
#[derive(Default)]
pub struct Allocations(Mutex<Pods>);

impl Allocations {
    /// Counts a pod with what it was granted before.
    pub fn add(&self, uid: &str, pod: Arc<Pod>, granted: Grant, in_force: Grant) {
        let entry = Entry { pod, granted, in_force, pending: None };
        self.0.lock().entries.entry(uid.to_owned()).or_insert(entry);
    }

    /// From now on nobody is missing. Answers who waited for that.
    pub fn complete(&self) -> Vec<String> {
        let mut pods = self.0.lock();
        pods.complete = true;
        pods.retry()
    }

    /// What the pod takes, it takes no more. Answers who has got it.
    pub fn remove(&self, uid: &str) -> Vec<String> {
        let mut pods = self.0.lock();
        if pods.entries.remove(uid).is_none() {
            return vec![];
        }
        pods.retry()
    }

    /// What was in force when the pod was added, or was put in force since.
    pub fn in_force(&self, uid: &str) -> Option<Grant> {
        Some(self.0.lock().entries.get(uid)?.in_force.clone())
    }

    /// Notes what is in force of what was granted. Answers who has got what was given up.
    pub fn put_in_force(&self, uid: &str, in_force: &Grant) -> Vec<String> {
        let mut pods = self.0.lock();
        match pods.entries.get_mut(uid) {
            Some(entry) if entry.in_force != *in_force => entry.in_force = in_force.clone(),
            _ => return vec![],
        }
        pods.retry()
    }

    /// Grants the pod what it wants, if there is room.
    pub fn resize(&self, uid: &str, pod: &Arc<Pod>, allocatable: Resources, now: Timestamp) -> Answer {
        let mut pods = self.0.lock();
        pods.allocatable = allocatable;
        let wanted = Grant::wanted(pod);
        let Some(entry) = pods.entries.get_mut(uid) else {
            return Answer { granted: wanted, ..Answer::default() };
        };
        entry.pod = pod.clone();
        if entry.granted == wanted {
            entry.pending = None;
            return Answer { granted: wanted, ..Answer::default() };
        }
        pods.try_to_grant(uid, now);
        let woken = pods.retry();
        let Some(entry) = pods.entries.get(uid) else { return Answer::default() };
        Answer { granted: entry.granted.clone(), pending: entry.pending.as_ref().map(|(pending, _)| pending.clone()), woken }
    }
}

impl Pods {
    /// Whether the pod has got what it wants.
    fn try_to_grant(&mut self, uid: &str, now: Timestamp) -> bool {
        let Some(entry) = self.entries.get(uid) else { return false };
        let refusal = self.refusal(uid, entry);
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        let Some(pending) = refusal else {
            entry.granted = Grant::wanted(&entry.pod);
            entry.pending = None;
            return true;
        };
        let since = entry.pending.as_ref().map_or(now, |(_, since)| *since);
        entry.pending = Some((pending, since));
        false
    }

    fn refusal(&self, uid: &str, entry: &Entry) -> Option<Pending> {
        let (wanted, has) = (requests(&entry.pod), requests(&entry.granted.of(&entry.pod)));
        let grows = RESIZABLE.into_iter().filter(|name| wanted.get(name) > has.get(name));
        let mut used = Resources::default();
        self.entries.iter().filter(|(other, _)| *other != uid).for_each(|(_, other)| used.add(&other.taken()));
        let refusals = grows.filter_map(|name| refuse(name, wanted.get(name), used.get(name), self.allocatable.get(name)));
        // What is infeasible stays so, and is said first.
        let refusal = refusals.min_by_key(|refusal| refusal.reason != INFEASIBLE);
        let unknown = || Pending { reason: DEFERRED, message: "the pods of the node are not all known yet".to_owned() };
        refusal.or_else(|| (!self.complete).then(unknown))
    }

    /// Tries again for all that wait, one after the other.
    fn retry(&mut self) -> Vec<String> {
        let mut waiting: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.pending.is_some())
            .map(|(uid, entry)| (entry.rank(), uid.clone()))
            .collect();
        waiting.sort();
        let waiting = waiting.into_iter().map(|(_, uid)| uid);
        // Whoever goes on waiting has waited since then.
        waiting.filter(|uid| self.try_to_grant(uid, Timestamp::MAX)).collect()
    }
}

#[cfg(test)]
#[path = "allocation_tests.rs"]
mod tests;
