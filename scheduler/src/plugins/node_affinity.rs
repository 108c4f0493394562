//! NodeAffinity: `nodeSelector` and node affinity, required and preferred.

use crate::affinity::{NodeRequirements, NodeTerm};
use crate::framework::{Event, Filter, Plugin, Reason, Score, Verdict, normalize_to_max};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

pub struct NodeAffinity;

struct Required<'a>(&'a NodeRequirements);
struct Preferred<'a>(&'a [(i64, NodeTerm)]);

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        let required = &pod.wants.node;
        (!required.is_empty()).then(|| Box::new(Required(required)) as Box<dyn Filter>)
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let preferred = &pod.wants.preferred_nodes;
        (!preferred.is_empty()).then(|| Box::new(Preferred(preferred)) as Box<dyn Score>)
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        match event {
            Event::NodeAdded(node) => pod.wants.node.match_node(&node.facts),
            Event::NodeChanged(node, old) => node.facts.labels != old.labels && pod.wants.node.match_node(&node.facts),
            _ => false,
        }
    }
}

impl Filter for Required<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        if self.0.match_node(&node.facts) { Verdict::Fits } else { Verdict::never(Reason::NodeAffinity) }
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.iter().filter(|(_, term)| term.matches(&node.facts)).map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }
}
