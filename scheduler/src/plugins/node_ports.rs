//! NodePorts: a host port is given to one pod at a time.

use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use slipway_api::pod::HostPort;

pub struct NodePorts;

struct Wanted<'a>(&'a [HostPort]);

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        (!pod.ports.is_empty()).then(|| Box::new(Wanted(&pod.ports)) as Box<dyn Filter>)
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        match event {
            Event::PodGone(gone) => pod.ports.iter().any(|port| gone.ports.iter().any(|freed| freed.conflicts_with(port))),
            Event::NodeAdded(node) => Wanted(&pod.ports).check(node).fits(),
            _ => false,
        }
    }
}

impl Filter for Wanted<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        let taken = self.0.iter().any(|port| node.ports.iter().any(|taken| taken.conflicts_with(port)));
        if taken { Verdict::unfit(Reason::Ports) } else { Verdict::Fits }
    }
}
