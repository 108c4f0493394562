//! All that the scheduler knows, and what it does next. Pure: what is watched comes in, steps come out.

use crate::Options;
use crate::framework::{Decision, Event, Sample, decide};
use crate::plugins::{self, Plugins};
use crate::preemption::{Budget, Preemption, preempt};
use crate::queue::Queue;
use crate::snapshot::{Key, PodInfo, Snapshot, key_of};
use slipway_api::core::{Node, Pod};
use slipway_api::selector::Labels;
use slipway_api::{condition, pod};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What was watched.
#[derive(Debug)]
pub enum Input {
    Pod(Box<Pod>),
    PodGone(Key),
    Node(Box<Node>),
    NodeGone(String),
    Budget(Key, Budget),
    BudgetGone(Key),
    Namespace(String, Labels),
    NamespaceGone(String),
}

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    Bind {
        pod: Arc<PodInfo>,
        node: Arc<str>,
    },
    /// There is no node for it.
    Refuse(Refusal),
}

#[derive(Debug)]
pub struct Refusal {
    pub pod: Arc<PodInfo>,
    pub message: String,
    /// The pod's condition doesn't say so yet; and whether it said something else before.
    pub report: Option<Report>,
    pub eviction: Option<Eviction>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Report {
    First,
    Changed,
}

/// Pods that make way.
#[derive(Debug)]
pub struct Eviction {
    pub node: Arc<str>,
    pub victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority that were waiting for the node.
    pub superseded: Vec<Arc<PodInfo>>,
}

struct Placed {
    node: Arc<str>,
    pod: Arc<PodInfo>,
    /// The API hasn't said so yet.
    assumed: bool,
}

pub struct State {
    pub snapshot: Snapshot,
    pub queue: Queue,
    placed: HashMap<Key, Placed>,
    budgets: BTreeMap<Key, Budget>,
    /// Which node each waiting pod is nominated for.
    nominated: HashMap<Key, Arc<str>>,
    plugins: &'static Plugins,
    name: String,
    sample: Sample,
}

impl State {
    pub fn new(options: &Options) -> State {
        State {
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            placed: HashMap::new(),
            budgets: BTreeMap::new(),
            nominated: HashMap::new(),
            plugins: plugins::all(),
            name: options.name.clone(),
            sample: Sample { start: 0, percentage: options.percentage_of_nodes_to_score },
        }
    }

    pub fn take(&mut self, input: Input, now: Instant) {
        match input {
            Input::Pod(pod) => self.pod(&pod, now),
            Input::PodGone(key) => self.pod_gone(&key, now),
            Input::Node(node) => self.node(&node, now),
            Input::NodeGone(name) => {
                if self.snapshot.remove_node(&name).is_some() {
                    self.event(&Event::NodeRemoved, now);
                }
            }
            Input::Budget(key, budget) => drop(self.budgets.insert(key, budget)),
            Input::BudgetGone(key) => drop(self.budgets.remove(&key)),
            Input::Namespace(name, labels) => drop(self.snapshot.namespaces.insert(name, labels)),
            Input::NamespaceGone(name) => drop(self.snapshot.namespaces.remove(&name)),
        }
    }

    fn event(&mut self, event: &Event<'_>, now: Instant) {
        self.queue.on_event(event, &self.snapshot, self.plugins, now);
    }

    fn node(&mut self, node: &Node, now: Instant) {
        let old = self.snapshot.set_node(node);
        let Some(new) = node.metadata.name.as_deref().and_then(|name| self.snapshot.node(name)).cloned() else { return };
        match old {
            None => self.event(&Event::NodeAdded(&new), now),
            // Most changes are of conditions, which come with a taint if they matter here.
            Some(old) if *old != *new.facts => self.event(&Event::NodeChanged(&new, &old), now),
            Some(_) => {}
        }
    }

    fn pod(&mut self, pod: &Pod, now: Instant) {
        let key = key_of(pod);
        if pod::is_terminal(pod) {
            return self.pod_gone(&key, now);
        }
        match pod::node_name(pod) {
            Some(node) => self.pod_placed(key, node, pod, now),
            None => self.pod_pending(key, pod, now),
        }
    }

    fn pod_placed(&mut self, key: Key, node: &str, pod: &Pod, now: Instant) {
        self.queue.remove(&key);
        self.withdraw_nomination(&key);
        let new = Arc::new(PodInfo::placed(pod));
        let old = self.placed.get(&key);
        if old.is_some_and(|old| !old.assumed && *old.node == *node && *old.pod == *new) {
            return;
        }
        let old = self.forget(&key);
        let node: Arc<str> = node.into();
        self.snapshot.add_pod(&node, new.clone());
        self.placed.insert(key, Placed { node: node.clone(), pod: new.clone(), assumed: false });
        match old {
            Some(old) if old.node != node || old.pod.uid != new.uid || frees(&old.pod, &new) => {
                self.event(&Event::PodGone(&old.pod), now);
                self.event(&Event::PodPlaced(&new), now);
            }
            Some(old) if !old.assumed && old.pod.labels == new.labels => {}
            _ => self.event(&Event::PodPlaced(&new), now),
        }
    }

    fn pod_pending(&mut self, key: Key, pod: &Pod, now: Instant) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match self.placed.get(&key) {
            // It was bound meanwhile, and what arrives now is older.
            Some(placed) if placed.pod.uid == uid => return,
            Some(_) => self.pod_gone(&key, now),
            None => {}
        }
        let Some(spec) = &pod.spec else { return };
        let mine = spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == self.name;
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if !mine || gated || pod::is_deleted(pod) {
            self.queue.remove(&key);
            self.withdraw_nomination(&key);
            return;
        }
        let status = pod.status.as_ref();
        let nominated = status.and_then(|status| status.nominated_node_name.as_deref()).filter(|name| !name.is_empty());
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let reported = condition::get(conditions, "PodScheduled").filter(|scheduled| scheduled.status == "False");
        let reported = reported.map(|scheduled| scheduled.message.clone().unwrap_or_default());
        let info = Arc::new(PodInfo::pending(pod));
        let known = self.queue.get(&key).is_some_and(|waiting| waiting.pod.uid == info.uid);
        self.queue.upsert(info.clone(), nominated.map(Arc::from), reported, now);
        // Of a pod that was seen before, nominations are made here and only echoed by the API.
        if !known {
            self.withdraw_nomination(&key);
            if let Some(node) = nominated {
                self.nominate(&info, &node.into());
            }
        }
    }

    fn pod_gone(&mut self, key: &Key, now: Instant) {
        self.queue.remove(key);
        self.withdraw_nomination(key);
        if let Some(gone) = self.forget(key) {
            self.event(&Event::PodGone(&gone.pod), now);
        }
    }

    fn forget(&mut self, key: &str) -> Option<Placed> {
        let placed = self.placed.remove(key)?;
        self.snapshot.remove_pod(&placed.node, key);
        Some(placed)
    }

    fn nominate(&mut self, pod: &Arc<PodInfo>, node: &Arc<str>) {
        self.withdraw_nomination(&pod.key);
        self.nominated.insert(pod.key.clone(), node.clone());
        self.snapshot.nominate(node, pod.clone());
    }

    fn withdraw_nomination(&mut self, key: &str) {
        if let Some(node) = self.nominated.remove(key) {
            self.snapshot.withdraw_nomination(&node, key);
        }
    }

    /// Decides about the pod whose turn it is.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        let waiting = self.queue.pop(now)?;
        let pod = waiting.pod;
        match decide(&pod, waiting.nominated.as_deref(), &self.snapshot, self.plugins, self.sample) {
            Decision::Bind { node, looked_at } => {
                self.sample.start = (self.sample.start + looked_at) % self.snapshot.len().max(1);
                self.withdraw_nomination(&pod.key);
                // What it wants of a node matters no more.
                let placed = Arc::new(PodInfo { wants: Arc::default(), ..PodInfo::clone(&pod) });
                self.snapshot.add_pod(&node, placed.clone());
                self.placed.insert(pod.key.clone(), Placed { node: node.clone(), pod: placed, assumed: true });
                Some(Step::Bind { pod, node })
            }
            Decision::Unschedulable(why) => {
                let mut message = why.to_string();
                let mut eviction = None;
                if why.nodes > 0 {
                    let budgets: Vec<Budget> = self.budgets.values().cloned().collect();
                    match preempt(&pod, waiting.nominated.as_deref(), &self.snapshot, self.plugins, &why, &budgets) {
                        Preemption::Not(reason) => message = format!("{message} preemption: {reason}"),
                        Preemption::Evict { node, victims } => eviction = Some(self.evict(&pod, node, victims)),
                    }
                }
                let report = match &waiting.reported {
                    None => Some(Report::First),
                    Some(old) => (*old != message).then_some(Report::Changed),
                };
                if let Some(waiting) = self.queue.get_mut(&pod.key) {
                    waiting.reported = Some(message.clone());
                }
                self.queue.park(&pod.key, why.plugins, now);
                Some(Step::Refuse(Refusal { pod, message, report, eviction }))
            }
        }
    }

    fn evict(&mut self, pod: &Arc<PodInfo>, node: Arc<str>, victims: Vec<Arc<PodInfo>>) -> Eviction {
        let lesser = self.snapshot.nominated(&node).into_iter().flatten().filter(|other| other.priority < pod.priority);
        let superseded: Vec<Arc<PodInfo>> = lesser.cloned().collect();
        for other in &superseded {
            self.withdraw_nomination(&other.key);
            if let Some(waiting) = self.queue.get_mut(&other.key) {
                waiting.nominated = None;
            }
        }
        self.nominate(pod, &node);
        if let Some(waiting) = self.queue.get_mut(&pod.key) {
            waiting.nominated = Some(node.clone());
        }
        Eviction { node, victims, superseded }
    }

    /// The API took the binding, or didn't.
    pub fn bound(&mut self, pod: &PodInfo, taken: bool, now: Instant) {
        let still_waiting = self.queue.get(&pod.key).is_some_and(|waiting| waiting.pod.uid == pod.uid);
        if taken {
            if still_waiting {
                self.queue.remove(&pod.key);
            }
            return;
        }
        let assumed = self.placed.get(&pod.key).is_some_and(|placed| placed.assumed && placed.pod.uid == pod.uid);
        if let Some(placed) = assumed.then(|| self.forget(&pod.key)).flatten() {
            self.event(&Event::PodGone(&placed.pod), now);
        }
        if still_waiting {
            self.queue.back_off(&pod.key, now);
        }
    }
}

/// Whether the change leaves room for others.
fn frees(old: &PodInfo, new: &PodInfo) -> bool {
    old.requests.iter().any(|(name, amount)| new.requests.get(name) < amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};
    use serde_json::json;
    use std::time::Duration;

    fn state(nodes: &[(&str, &str)]) -> (State, Instant) {
        let (mut state, now) = (State::new(&Options::default()), Instant::now());
        for (name, resources) in nodes {
            state.take(Input::Node(Box::new(node(name, resources))), now);
        }
        (state, now)
    }

    fn asks(name: &str, cpu: &str, priority: i32) -> Pod {
        pod(
            name,
            json!({}),
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}),
        )
    }

    fn bound_to(mut pod: Pod, node: &str) -> Pod {
        pod.spec.as_mut().unwrap().node_name = Some(node.into());
        pod
    }

    fn next(state: &mut State, now: Instant) -> String {
        match state.step(now) {
            None => "nothing".into(),
            Some(Step::Bind { pod, node }) => format!("{} to {node}", pod.name),
            Some(Step::Refuse(refusal)) => refusal.message,
        }
    }

    #[test]
    fn an_assumed_pod_takes_its_room_at_once() {
        let (mut state, now) = state(&[("a", "cpu: 1")]);
        state.take(Input::Pod(Box::new(asks("p", "1", 0))), now);
        state.take(Input::Pod(Box::new(asks("q", "1", 0))), now);
        assert_eq!(next(&mut state, now), "p to a");
        let refused = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                       1 No preemption victims found for incoming pod.";
        assert_eq!(next(&mut state, now), refused);
        // An older event must not bring it back into the queue.
        state.take(Input::Pod(Box::new(asks("p", "1", 0))), now);
        assert_eq!(next(&mut state, now), "nothing");
    }

    #[test]
    fn a_failed_binding_frees_the_room_and_is_tried_again() {
        let (mut state, now) = state(&[("a", "cpu: 1")]);
        state.take(Input::Pod(Box::new(asks("p", "1", 0))), now);
        let Some(Step::Bind { pod, .. }) = state.step(now) else { panic!("not bound") };
        state.bound(&pod, false, now);
        assert_eq!(next(&mut state, now), "nothing");
        assert_eq!(next(&mut state, now + Duration::from_secs(1)), "p to a");
        state.bound(&pod, true, now);
        state.take(Input::Pod(Box::new(bound_to(asks("p", "1", 0), "a"))), now);
        assert!(state.queue.is_empty());
        assert_eq!(state.snapshot.node("a").unwrap().requested.milli_cpu, 1000);
    }

    #[test]
    fn it_is_tried_again_when_a_node_comes_or_a_pod_goes() {
        let (mut state, now) = state(&[]);
        state.take(Input::Pod(Box::new(asks("p", "1", 0))), now);
        assert_eq!(next(&mut state, now), "no nodes available to schedule pods");
        let later = now + Duration::from_secs(60);
        state.take(Input::Node(Box::new(node("a", "cpu: 1"))), later);
        assert_eq!(next(&mut state, later), "p to a");
        state.take(Input::Pod(Box::new(asks("q", "1", 0))), later);
        assert!(next(&mut state, later).contains("Insufficient cpu"));
        state.take(Input::PodGone("default/p".into()), later + Duration::from_secs(60));
        assert_eq!(next(&mut state, later + Duration::from_secs(60)), "q to a");
    }

    #[test]
    fn a_finished_pod_leaves_its_room() {
        let (mut state, now) = state(&[("a", "cpu: 1")]);
        let mut done = bound_to(asks("p", "1", 0), "a");
        state.take(Input::Pod(Box::new(done.clone())), now);
        done.status = Some(slipway_api::core::PodStatus { phase: Some("Succeeded".into()), ..Default::default() });
        state.take(Input::Pod(Box::new(done)), now);
        state.take(Input::Pod(Box::new(asks("q", "1", 0))), now);
        assert_eq!(next(&mut state, now), "q to a");
    }

    #[test]
    fn room_made_by_victims_is_kept_for_whom_it_was_made() {
        let (mut state, now) = state(&[("a", "cpu: 1")]);
        state.take(Input::Pod(Box::new(bound_to(asks("low", "1", 0), "a"))), now);
        state.take(Input::Pod(Box::new(asks("high", "1", 100))), now);
        let Some(Step::Refuse(refusal)) = state.step(now) else { panic!("bound") };
        assert_eq!(refusal.message, "0/1 nodes are available: 1 Insufficient cpu.");
        assert_eq!(refusal.report, Some(Report::First));
        let eviction = refusal.eviction.unwrap();
        assert_eq!((&*eviction.node, eviction.victims[0].name.as_str()), ("a", "low"));

        let later = now + Duration::from_secs(60);
        state.take(Input::Pod(Box::new(asks("sneaky", "1", 50))), later);
        assert!(next(&mut state, later).starts_with("0/1 nodes are available: 1 Insufficient cpu."));
        state.take(Input::PodGone("default/low".into()), later);
        assert_eq!(next(&mut state, later), "high to a");
        assert_eq!(state.snapshot.nominated("a"), None);
    }

    #[test]
    fn others_pods_and_gated_pods_are_left_alone() {
        let (mut state, now) = state(&[("a", "cpu: 1")]);
        let mut others = asks("p", "1", 0);
        others.spec.as_mut().unwrap().scheduler_name = Some("mine".into());
        state.take(Input::Pod(Box::new(others)), now);
        let mut gated = asks("q", "1", 0);
        gated.spec.as_mut().unwrap().scheduling_gates = Some(vec![Default::default()]);
        state.take(Input::Pod(Box::new(gated)), now);
        assert_eq!(next(&mut state, now), "nothing");
        state.take(Input::Pod(Box::new(asks("q", "1", 0))), now);
        assert_eq!(next(&mut state, now), "q to a");
    }
}
