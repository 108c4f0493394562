//! TaintToleration: keeps pods off nodes whose taints they do not tolerate, and prefers nodes without such taints.

use crate::framework::{Event, Filter, Plugin, Reason, Score, Verdict, normalize_to_max};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use slipway_api::core::Toleration;
use slipway_api::toleration::{first_untolerated, tolerates};

pub struct TaintToleration;

struct Tolerations<'a>(&'a [Toleration]);

/// The effects that keep a pod away.
pub const HARD: [&str; 2] = ["NoSchedule", "NoExecute"];

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        Some(Box::new(Tolerations(&pod.wants.tolerations)))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, feasible: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let soft = feasible.iter().any(|node| node.facts.taints.iter().any(|taint| taint.effect == "PreferNoSchedule"));
        soft.then(|| Box::new(Tolerations(&pod.wants.tolerations)) as Box<dyn Score>)
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        match event {
            Event::NodeAdded(node) | Event::NodeChanged(node, _) => Tolerations(&pod.wants.tolerations).check(node).fits(),
            _ => false,
        }
    }
}

impl Filter for Tolerations<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        match first_untolerated(&node.facts.taints, self.0, &HARD) {
            Some(taint) => {
                Verdict::never(Reason::Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default() })
            }
            None => Verdict::Fits,
        }
    }
}

impl Score for Tolerations<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.facts.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint))).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, true);
    }
}
