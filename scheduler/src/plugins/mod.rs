//! The plugins, in the order in which they are asked, with the weight of their scores.

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

use crate::framework::Plugin;
use std::sync::LazyLock;

pub struct Plugins(Vec<(Box<dyn Plugin>, i64)>);

impl Plugins {
    pub fn iter(&self) -> impl Iterator<Item = (&dyn Plugin, i64)> {
        self.0.iter().map(|(plugin, weight)| (&**plugin, *weight))
    }

    pub fn get(&self, name: &str) -> Option<&dyn Plugin> {
        self.iter().map(|(plugin, _)| plugin).find(|plugin| plugin.name() == name)
    }
}

/// Kubernetes' default plugins and weights, as far as they concern what is here.
pub fn all() -> &'static Plugins {
    static ALL: LazyLock<Plugins> = LazyLock::new(|| {
        Plugins(vec![
            (Box::new(node_unschedulable::NodeUnschedulable), 0),
            (Box::new(node_name::NodeName), 0),
            (Box::new(taint_toleration::TaintToleration), 3),
            (Box::new(node_affinity::NodeAffinity), 2),
            (Box::new(node_ports::NodePorts), 0),
            (Box::new(node_resources_fit::NodeResourcesFit), 1),
            (Box::new(pod_topology_spread::PodTopologySpread), 2),
            (Box::new(inter_pod_affinity::InterPodAffinity), 2),
            (Box::new(node_resources_balanced_allocation::NodeResourcesBalancedAllocation), 1),
            (Box::new(image_locality::ImageLocality), 1),
        ])
    });
    &ALL
}
