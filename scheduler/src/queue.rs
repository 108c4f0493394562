//! Pods that wait for a node: those whose turn it is, those that back off after a failure, and those that wait for something to
//! change. Time is an argument.

use crate::framework::Event;
use crate::plugins::Plugins;
use crate::snapshot::{Key, PodInfo, Snapshot};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first back-off; it doubles with each attempt.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod is tried again after so long even if nothing seems to have changed, for hints may be wrong.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Active { turn: u64 },
    Backoff { until: Instant },
    Parked { since: Instant, plugins: BTreeSet<&'static str> },
    InFlight,
}

/// A pod that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub pod: Arc<PodInfo>,
    /// The node that victims make room on.
    pub nominated: Option<Arc<str>>,
    /// How often it was tried.
    pub attempts: u32,
    /// What its `PodScheduled` condition says, if that is `False`.
    pub reported: Option<String>,
    place: Place,
    failed_at: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Key, Waiting>,
    /// By priority, then by turn.
    active: BTreeSet<(Reverse<i32>, u64, Key)>,
    backoff: BTreeSet<(Instant, Key)>,
    parked: BTreeSet<(Instant, Key)>,
    turns: u64,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Waiting> {
        self.pods.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Waiting> {
        self.pods.get_mut(key)
    }

    /// Adds a pod, or takes over a change. One that was changed gets its turn; its status is no such change.
    pub fn upsert(&mut self, pod: Arc<PodInfo>, nominated: Option<Arc<str>>, reported: Option<String>, now: Instant) {
        let key = pod.key.clone();
        match self.pods.get_mut(&key) {
            Some(waiting) if waiting.pod.uid == pod.uid => {
                let changed = *waiting.pod != *pod;
                let parked = matches!(waiting.place, Place::Parked { .. });
                // The order of the active ones hangs on the pod's priority.
                let reorder = changed && matches!(waiting.place, Place::Active { .. });
                if reorder {
                    self.leave_place(&key);
                }
                if let Some(waiting) = self.pods.get_mut(&key) {
                    waiting.pod = pod;
                }
                if reorder {
                    self.activate(&key);
                } else if changed && parked {
                    self.wake(&key, now);
                }
            }
            _ => {
                self.remove(&key);
                let waiting = Waiting { pod, nominated, attempts: 0, reported, place: Place::InFlight, failed_at: None };
                self.pods.insert(key.clone(), waiting);
                self.activate(&key);
            }
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Waiting> {
        self.leave_place(key);
        self.pods.remove(key)
    }

    /// Whose turn it is. The pod stays known as being in flight until it is removed or put back.
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.advance(now);
        let (_, _, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.place = Place::InFlight;
        waiting.attempts += 1;
        Some(waiting.clone())
    }

    /// There is no node for it: it waits until one of the plugins that said so sees a reason to try again.
    pub fn park(&mut self, key: &str, plugins: BTreeSet<&'static str>, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Parked { since: now, plugins };
            waiting.failed_at = Some(now);
            self.parked.insert((now, waiting.pod.key.clone()));
        }
    }

    /// Something else went wrong: it is tried again after its back-off.
    pub fn back_off(&mut self, key: &str, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.failed_at = Some(now);
            self.wake(key, now);
        }
    }

    /// Gives those pods their turn for which the event may make a difference.
    pub fn on_event(&mut self, event: &Event<'_>, cluster: &Snapshot, plugins: &Plugins, now: Instant) {
        let woken = |(_, key): &(Instant, Key)| {
            let waiting = self.pods.get(key)?;
            let Place::Parked { plugins: rejected_by, .. } = &waiting.place else { return None };
            let made_way =
                waiting.nominated.is_some() && matches!(event, Event::PodGone(gone) if gone.priority < waiting.pod.priority);
            let helps = |name: &&'static str| plugins.get(name).is_some_and(|plugin| plugin.wakes(&waiting.pod, event, cluster));
            // Without any node, no plugin was asked.
            let first = rejected_by.is_empty() && matches!(event, Event::NodeAdded(_));
            (made_way || first || rejected_by.iter().any(helps)).then(|| key.clone())
        };
        for key in self.parked.iter().filter_map(woken).collect::<Vec<_>>() {
            self.wake(&key, now);
        }
    }

    /// When something becomes due without an event.
    pub fn next_due(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let parked = self.parked.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        backoff.into_iter().chain(parked).min()
    }

    fn advance(&mut self, now: Instant) {
        while let Some((_, key)) = self.backoff.first().filter(|(until, _)| *until <= now).cloned() {
            self.activate(&key);
        }
        while let Some((_, key)) = self.parked.first().filter(|(since, _)| *since + UNSCHEDULABLE_MAX <= now).cloned() {
            self.wake(&key, now);
        }
    }

    /// To the active ones, or to those that back off if its time isn't over.
    fn wake(&mut self, key: &str, now: Instant) {
        let Some(waiting) = self.pods.get(key) else { return };
        let until = waiting.failed_at.map(|at| at + backoff_after(waiting.attempts)).filter(|until| *until > now);
        let Some(until) = until else { return self.activate(key) };
        self.leave_place(key);
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Backoff { until };
            self.backoff.insert((until, waiting.pod.key.clone()));
        }
    }

    fn activate(&mut self, key: &str) {
        self.leave_place(key);
        if let Some(waiting) = self.pods.get_mut(key) {
            self.turns += 1;
            waiting.place = Place::Active { turn: self.turns };
            self.active.insert((Reverse(waiting.pod.priority), self.turns, waiting.pod.key.clone()));
        }
    }

    fn leave_place(&mut self, key: &str) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let key = waiting.pod.key.clone();
        match std::mem::replace(&mut waiting.place, Place::InFlight) {
            Place::Active { turn } => drop(self.active.remove(&(Reverse(waiting.pod.priority), turn, key))),
            Place::Backoff { until } => drop(self.backoff.remove(&(until, key))),
            Place::Parked { since, .. } => drop(self.parked.remove(&(since, key))),
            Place::InFlight => {}
        }
    }
}

fn backoff_after(attempts: u32) -> Duration {
    let doubled = BACKOFF_INITIAL.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins;
    use crate::testing::{node_info, pending, placed};
    use serde_json::json;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(pending(
            name,
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
        ))
    }

    fn add(queue: &mut Queue, pod: Arc<PodInfo>, now: Instant) {
        queue.upsert(pod, None, None, now);
    }

    fn popped(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|waiting| waiting.pod.name.clone()).collect()
    }

    fn fit() -> BTreeSet<&'static str> {
        BTreeSet::from(["NodeResourcesFit"])
    }

    #[test]
    fn the_most_important_comes_first_and_then_who_waits_longest() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            add(&mut queue, pod(name, priority), now);
        }
        assert_eq!(popped(&mut queue, now), ["b", "d", "a", "c"]);
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_change_of_priority_changes_the_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, pod("a", 0), now);
        add(&mut queue, pod("b", 0), now);
        let mut changed = PodInfo::clone(&pod("b", 7));
        changed.uid = pod("b", 0).uid.clone();
        add(&mut queue, changed.into(), now);
        assert_eq!(popped(&mut queue, now), ["b", "a"]);
        assert!(queue.active.is_empty());
    }

    #[test]
    fn failures_back_off_for_longer_and_longer() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        add(&mut queue, pod("a", 0), start);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(popped(&mut queue, now), ["a"]);
            queue.back_off("default/a", now);
            assert!(popped(&mut queue, now + Duration::from_millis(seconds * 1000 - 1)).is_empty());
            now += Duration::from_secs(seconds);
            assert_eq!(queue.next_due(), Some(now));
        }
    }

    #[test]
    fn a_parked_pod_waits_for_what_may_help() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let cluster = Snapshot::default();
        add(&mut queue, pod("a", 0), now);
        popped(&mut queue, now);
        queue.park("default/a", fit(), now);
        let later = now + Duration::from_secs(2);
        let mut event = |event: Event<'_>| {
            queue.on_event(&event, &cluster, plugins::all(), later);
            let woken = popped(&mut queue, later);
            queue.park("default/a", fit(), now);
            !woken.is_empty()
        };
        assert!(!event(Event::PodPlaced(&placed("x", "cpu: 1"))));
        assert!(!event(Event::PodGone(&placed("x", "memory: 1Gi"))));
        assert!(event(Event::PodGone(&placed("x", "cpu: 1"))));
        assert!(!event(Event::NodeAdded(&node_info("n", "cpu: 500m"))));
        assert!(event(Event::NodeAdded(&node_info("n", "cpu: 4"))));
    }

    #[test]
    fn what_may_help_does_not_cut_the_backoff_short() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, pod("a", 0), now);
        popped(&mut queue, now);
        queue.park("default/a", fit(), now);
        queue.on_event(&Event::NodeAdded(&node_info("n", "cpu: 4")), &Snapshot::default(), plugins::all(), now);
        assert!(popped(&mut queue, now).is_empty());
        assert_eq!(popped(&mut queue, now + BACKOFF_INITIAL), ["a"]);
    }

    #[test]
    fn nothing_waits_for_ever() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, pod("a", 0), now);
        popped(&mut queue, now);
        queue.park("default/a", fit(), now);
        assert_eq!(queue.next_due(), Some(now + UNSCHEDULABLE_MAX));
        assert_eq!(popped(&mut queue, now + UNSCHEDULABLE_MAX), ["a"]);
    }

    #[test]
    fn an_edit_wakes_and_a_status_does_not() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, pod("a", 0), now);
        popped(&mut queue, now);
        queue.park("default/a", fit(), now);
        let later = now + BACKOFF_MAX;
        add(&mut queue, pod("a", 0), later);
        assert!(popped(&mut queue, later).is_empty());
        let mut edited = PodInfo::clone(&pod("a", 0));
        edited.labels.insert("x".into(), "y".into());
        add(&mut queue, edited.into(), later);
        assert_eq!(popped(&mut queue, later), ["a"]);
        assert!(queue.remove("default/a").is_some() && queue.is_empty());
    }
}
