//! Nodes that could be bought, and whether pods would fit on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use slipway_api::{
    apps::DaemonSet,
    core::{Affinity, Node, NodeSpec, Pod, PodAffinityTerm, PodSpec, Taint},
    pod::{HostPort, Resources},
    selector::Selector,
    slipway::{CapacityType, LABEL_CAPACITY_TYPE, LABEL_NODE_POOL, Machine, NodePool},
    toleration::first_untolerated,
};
use slipway_cloud::InstanceType;

use super::refusal;
use crate::{daemon_set::placement, resource::Object};

pub const LABEL_INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
pub const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
/// As many pods as a node takes.
const PODS_MAX: usize = 110;
/// What a machine's kernel and its agent leave of the memory that is sold.
const MEMORY_LEFT_PERCENT: i64 = 92;

/// One thing that can be bought.
pub struct Offer {
    pub pool: Arc<NodePool>,
    pub instance: Arc<InstanceType>,
    pub zone: String,
    pub capacity: CapacityType,
    /// How many machines the pool has in the zone: the zones are filled evenly.
    pub neighbours: usize,
    /// The empty node that it would be.
    pub node: Arc<Node>,
    pub free: Resources,
}

/// A pod that waits, read once.
pub struct Wanted {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    /// Zones where the scheduler has left room for it unused.
    pub not_in: BTreeSet<String>,
    away_from: Vec<(Selector, PodAffinityTerm)>,
    host_ports: Vec<HostPort>,
}

impl Wanted {
    pub fn of(pod: Arc<Pod>) -> Wanted {
        let requests = slipway_api::pod::requests(&pod);
        let affinity: Option<&Affinity> = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let terms = affinity.and_then(|affinity| {
            affinity.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
        });
        let own_node = terms.into_iter().flatten().filter(|term| term.topology_key == LABEL_HOSTNAME);
        let away_from = own_node
            .filter_map(|term| Some((Selector::from_label_selector(term.label_selector.as_ref()?).ok()?, term.clone())))
            .collect();
        Wanted { requests, not_in: BTreeSet::new(), away_from, host_ports: slipway_api::pod::host_ports(&pod), pod }
    }

    /// Whether the two must not share a node.
    fn conflicts_with(&self, other: &Wanted) -> bool {
        let ports = self.host_ports.iter().any(|mine| other.host_ports.iter().any(|port| port.conflicts_with(mine)));
        ports || self.avoids(&other.pod) || other.avoids(&self.pod)
    }

    fn avoids(&self, other: &Pod) -> bool {
        self.away_from.iter().any(|(selector, term)| {
            let here = term.namespaces.as_ref().filter(|names| !names.is_empty());
            let namespace = other.namespace();
            let same = here.map_or(namespace == self.pod.namespace(), |names| names.iter().any(|name| name == namespace));
            (same || term.namespace_selector.is_some()) && selector.matches(other.metadata.labels.as_ref())
        })
    }

    fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }
}

/// A node (to be) that is filled.
pub struct Bin<'a> {
    pub node: Arc<Node>,
    pub free: Resources,
    pub pods: Vec<&'a Wanted>,
    /// Pods that it has already.
    pub bound: Vec<Wanted>,
}

impl<'a> Bin<'a> {
    pub fn takes(&self, wanted: &Wanted) -> bool {
        self.bound.len() + self.pods.len() < PODS_MAX
            && has_room(&self.free, &wanted.requests)
            && admits(&self.node, wanted)
            && !self.bound.iter().chain(self.pods.iter().copied()).any(|other| wanted.conflicts_with(other))
    }

    pub fn put(&mut self, wanted: &'a Wanted) {
        self.free.subtract(&wanted.requests);
        self.pods.push(wanted);
    }
}

/// How much disk a machine has is its image's affair, and not known here.
pub fn has_room(free: &Resources, requests: &Resources) -> bool {
    requests.iter().all(|(name, amount)| name == "ephemeral-storage" || free.get(name) >= amount)
}

/// Whether labels and taints let the pod onto the node.
pub fn admits(node: &Node, wanted: &Wanted) -> bool {
    let Some(spec) = wanted.spec() else { return false };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let shunned = node.label(LABEL_ZONE).is_some_and(|zone| wanted.not_in.contains(zone));
    !shunned && placement::selects(spec, node) && first_untolerated(taints, tolerations, &["NoSchedule", "NoExecute"]).is_none()
}

/// What nodes turned out to have for pods, by their instance type.
pub type Known = BTreeMap<String, Resources>;

/// What a machine of this type has for pods, less what the daemons take of it.
pub fn free(instance: &InstanceType, node: &Node, daemon_sets: &[Arc<DaemonSet>], known: &Known) -> Resources {
    let mut free = known.get(&instance.name).cloned().unwrap_or_else(|| Resources {
        milli_cpu: instance.cpu_milli,
        memory: instance.memory_bytes / 100 * MEMORY_LEFT_PERCENT,
        ..Resources::default()
    });
    free.subtract(&daemons(node, daemon_sets));
    free
}

pub fn daemons(node: &Node, daemon_sets: &[Arc<DaemonSet>]) -> Resources {
    let mut taken = Resources::default();
    for set in daemon_sets.iter().filter(|set| placement::fit(set, node).should_run) {
        let pod = Pod { spec: set.spec.template.spec.clone(), ..Pod::default() };
        taken.add(&slipway_api::pod::requests(&pod));
    }
    taken
}

/// The labels that the nodes of a pool carry on machines of a type.
pub fn labels(pool: &NodePool, instance: &InstanceType, zone: &str, capacity: CapacityType) -> BTreeMap<String, String> {
    let own = [
        (LABEL_NODE_POOL, pool.name()),
        (LABEL_CAPACITY_TYPE, capacity.as_str()),
        (LABEL_INSTANCE_TYPE, &instance.name),
        (LABEL_ZONE, zone),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", &instance.architecture),
    ];
    let mut labels = pool.spec.template.labels.clone();
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}

/// A node as a Machine will be one.
pub fn node_to_be(name: &str, labels: &BTreeMap<String, String>, taints: &[Taint]) -> Node {
    let mut node = Node::default();
    let mut labels = labels.clone();
    labels.insert(LABEL_HOSTNAME.into(), name.into());
    node.metadata.name = Some(name.to_owned());
    node.metadata.labels = Some(labels);
    node.spec = Some(NodeSpec { taints: Some(taints.to_vec()), ..NodeSpec::default() });
    node
}

/// The zones that a NodeClass has subnets in, by the class's name.
pub type Zones = BTreeMap<String, BTreeSet<String>>;

/// What can be bought, and what is known of it.
pub struct Market<'a> {
    pub catalogue: &'a [InstanceType],
    pub zones: &'a Zones,
    pub known: &'a Known,
}

impl Market<'_> {
    pub fn instance_type(&self, name: &str) -> Option<&InstanceType> {
        self.catalogue.iter().find(|known| known.name == name)
    }
}

/// All that the pools allow to buy now; the cheapest first. What the cloud has refused lately is left out.
pub fn offers(
    pools: &[Arc<NodePool>],
    market: &Market<'_>,
    machines: &[Arc<Machine>],
    daemon_sets: &[Arc<DaemonSet>],
) -> Vec<Offer> {
    let mut offers = vec![];
    for pool in pools.iter().filter(|pool| !pool.is_deleted()) {
        let Some(reachable) = market.zones.get(&pool.spec.node_class_ref.name) else { continue };
        for instance in market.catalogue.iter().filter(|known| pool.spec.instance_types.contains(&known.name)) {
            let instance = Arc::new(instance.clone());
            let allowed = |zone: &&String| pool.spec.zones.is_empty() || pool.spec.zones.contains(*zone);
            for zone in instance.zones.iter().filter(|zone| reachable.contains(*zone)).filter(allowed) {
                let here = |machine: &&Arc<Machine>| machine.spec.node_pool == pool.name() && machine.spec.zone == *zone;
                for capacity in capacities(pool).filter(|it| !is_refused(machines, pool, &instance.name, zone, *it)) {
                    let node = node_to_be("", &labels(pool, &instance, zone, capacity), &pool.spec.template.taints);
                    offers.push(Offer {
                        free: free(&instance, &node, daemon_sets, market.known),
                        pool: pool.clone(),
                        instance: instance.clone(),
                        zone: zone.clone(),
                        capacity,
                        neighbours: machines.iter().filter(here).count(),
                        node: Arc::new(node),
                    });
                }
            }
        }
    }
    offers.sort_by(|a, b| {
        let price = a.instance.price_per_hour.total_cmp(&b.instance.price_per_hour);
        price.then_with(|| (&a.zone, &a.instance.name).cmp(&(&b.zone, &b.instance.name)))
    });
    offers
}

fn capacities(pool: &NodePool) -> impl Iterator<Item = CapacityType> {
    let given = &pool.spec.capacity_types;
    if given.is_empty() { vec![CapacityType::OnDemand] } else { given.clone() }.into_iter()
}

fn is_refused(machines: &[Arc<Machine>], pool: &NodePool, instance_type: &str, zone: &str, capacity: CapacityType) -> bool {
    machines.iter().any(|machine| {
        let spec = &machine.spec;
        let same = spec.node_class_ref == pool.spec.node_class_ref && spec.instance_type == instance_type;
        let here = spec.zone == zone && spec.capacity_type == capacity;
        same && refusal(machine).is_some_and(|reason| here || reason != "InsufficientCapacity")
    })
}
