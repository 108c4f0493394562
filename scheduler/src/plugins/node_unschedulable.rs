//! NodeUnschedulable: keeps pods off cordoned nodes, unless they tolerate that.

use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use slipway_api::core::Taint;
use slipway_api::toleration::tolerates;

pub struct NodeUnschedulable;

struct Cordon {
    tolerated: bool,
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        let taint = Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
        let tolerated = pod.wants.tolerations.iter().any(|toleration| tolerates(toleration, &taint));
        Some(Box::new(Cordon { tolerated }))
    }

    fn wakes(&self, _: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        matches!(event, Event::NodeAdded(node) | Event::NodeChanged(node, _) if !node.facts.unschedulable)
    }
}

impl Filter for Cordon {
    fn check(&self, node: &NodeInfo) -> Verdict {
        if node.facts.unschedulable && !self.tolerated { Verdict::never(Reason::Unschedulable) } else { Verdict::Fits }
    }
}
