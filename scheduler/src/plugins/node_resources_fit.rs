//! NodeResourcesFit: what a pod asks for must be free on its node; the emptier node is preferred.

use crate::framework::{Event, Filter, Plugin, Reason, SCORE_MAX, Score, Verdict};
use crate::snapshot::{NodeFacts, NodeInfo, PodInfo, Snapshot};

pub struct NodeResourcesFit;

struct Fit<'a> {
    pod: &'a PodInfo,
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        Some(Box::new(Fit { pod }))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Fit { pod }))
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        match event {
            Event::PodGone(gone) => {
                gone.requests.iter().any(|(name, _)| pod.requests.get(name) > 0) || pod.requests.iter().count() == 0
            }
            Event::NodeAdded(node) => could_fit(pod, &node.facts),
            Event::NodeChanged(node, old) => {
                let changed = node.facts.allocatable != old.allocatable || node.facts.max_pods != old.max_pods;
                changed && could_fit(pod, &node.facts)
            }
            _ => false,
        }
    }
}

/// Whether the node would do if it were empty.
fn could_fit(pod: &PodInfo, node: &NodeFacts) -> bool {
    node.max_pods > 0 && pod.requests.iter().all(|(name, amount)| amount <= node.allocatable.get(name))
}

impl Filter for Fit<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        let (wanted, has, taken) = (&self.pod.requests, &node.facts.allocatable, &node.requested);
        // The usual case first, and without allocation.
        let short = |wanted: i64, has: i64, taken: i64| wanted > 0 && wanted > has - taken;
        let crowded = node.pods.len() as i64 >= node.facts.max_pods;
        let plain = !short(wanted.milli_cpu, has.milli_cpu, taken.milli_cpu)
            && !short(wanted.memory, has.memory, taken.memory)
            && !short(wanted.ephemeral_storage, has.ephemeral_storage, taken.ephemeral_storage);
        if plain && !crowded && wanted.other.is_empty() {
            return Verdict::Fits;
        }
        let mut reasons = vec![];
        if crowded {
            reasons.push(Reason::TooManyPods);
        }
        let mut never = false;
        for (name, amount) in wanted.iter() {
            if short(amount, has.get(name), taken.get(name)) {
                never |= amount > has.get(name);
                reasons.push(Reason::Insufficient(name.to_owned()));
            }
        }
        match (reasons.is_empty(), never) {
            (true, _) => Verdict::Fits,
            (false, true) => Verdict::Never(reasons),
            (false, false) => Verdict::Unfit(reasons),
        }
    }
}

impl Score for Fit<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let has = &node.facts.allocatable;
        let cpu = free_share(node.scored_cpu + self.pod.scored_cpu, has.milli_cpu);
        let memory = free_share(node.scored_memory + self.pod.scored_memory, has.memory);
        match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu + memory) / 2,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 0,
        }
    }
}

fn free_share(taken: i64, has: i64) -> Option<i64> {
    (has > 0).then(|| if taken > has { 0 } else { ((has - taken) as i128 * SCORE_MAX as i128 / has as i128) as i64 })
}
