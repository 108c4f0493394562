//! NodeName: a pod that names its node goes nowhere else.

use crate::framework::{Event, Filter, Plugin, Reason, Verdict};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

pub struct NodeName;

struct Only<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        Some(Box::new(Only(pod.wants.node_name.as_deref()?)))
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        matches!(event, Event::NodeAdded(node) if Some(&**node.name()) == pod.wants.node_name.as_deref())
    }
}

impl Filter for Only<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        if &**node.name() == self.0 { Verdict::Fits } else { Verdict::never(Reason::NodeName) }
    }
}
