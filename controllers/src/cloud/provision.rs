//! What to buy for the pods that fit on no node there is: the pure part.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use slipway_api::{
    apps::DaemonSet,
    condition::{self, Condition as _},
    core::{Node, Pod},
    jiff::{SignedDuration, Timestamp},
    pod::Resources,
    quantity::Quantity,
    slipway::{CapacityType, FINALIZER, Machine, MachinePhase, MachineSpec, NodePool},
};
use slipway_cloud::InstanceType;

use super::{
    machine::READY,
    offer::{self, Bin, Known, Market, Offer, Wanted},
    refusal,
};
use crate::resource::Object;

/// On a Machine: the uids of the pods that it was bought for.
pub const PODS_ANNOTATION: &str = "slipway.dev/pods";
/// At most so many pods are looked at, and so many machines bought, in one go; the rest is for the next.
const PODS_MAX: usize = 2000;
const MACHINES_MAX: usize = 50;
/// What a CPU and a GiB of memory count for when machines are compared by what they carry: about what clouds charge.
const CPU_WEIGHT: f64 = 0.035;
const GIB_WEIGHT: f64 = 0.0045;

pub struct Situation<'a> {
    /// Unschedulable pods, as the scheduler says.
    pub pods: Vec<Arc<Pod>>,
    pub pools: Vec<Arc<NodePool>>,
    pub machines: Vec<Arc<Machine>>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub daemon_sets: Vec<Arc<DaemonSet>>,
    /// The pods that are on a node.
    pub on_node: &'a dyn Fn(&str) -> Vec<Arc<Pod>>,
    pub market: Market<'a>,
    pub now: Timestamp,
    pub settle: SignedDuration,
}

pub struct Purchase {
    pub machine: Machine,
    pub pods: Vec<Arc<Pod>>,
}

#[derive(Default)]
pub struct Decision {
    pub purchases: Vec<Purchase>,
    /// Pods that have a place on a machine that is on its way.
    pub expected: usize,
    /// Pods that nothing can be bought for, and why.
    pub helpless: Vec<(Arc<Pod>, String)>,
}

/// Whether the scheduler has found no place for the pod, and new nodes may change that.
pub fn is_unschedulable(pod: &Pod) -> bool {
    let condition = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut said = condition.filter(|condition| condition.type_ == "PodScheduled");
    let unschedulable = said.any(|condition| condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable"));
    let nominated =
        pod.status.as_ref().is_some_and(|status| status.nominated_node_name.as_ref().is_some_and(|name| !name.is_empty()));
    unschedulable && !nominated && !is_daemon(pod) && crate::pods::is_active(pod) && crate::pods::node(pod).is_empty()
}

pub fn is_daemon(pod: &Pod) -> bool {
    crate::resource::controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "DaemonSet")
}

pub fn plan(situation: &Situation<'_>) -> Decision {
    let mut wanted: Vec<Wanted> = situation.pods.iter().cloned().map(Wanted::of).collect();
    wanted.sort_by(|a, b| {
        let size = weight(&b.requests).total_cmp(&weight(&a.requests));
        size.then_with(|| a.pod.uid().cmp(b.pod.uid()))
    });
    wanted.truncate(PODS_MAX);
    shun_where_it_does_not_go(&mut wanted, situation);
    let mut decision = Decision::default();
    let mut rest = without_expected(&wanted, situation);
    decision.expected = wanted.len() - rest.len();

    let (machines, market) = (&situation.machines, &situation.market);
    let offers = offer::offers(&situation.pools, market, machines, &situation.daemon_sets);
    let mut budgets: BTreeMap<&str, Budget> =
        situation.pools.iter().map(|pool| (pool.name(), Budget::of(pool, machines, market))).collect();
    while let Some(first) = rest.first().copied()
        && decision.purchases.len() < MACHINES_MAX
    {
        let affordable = |offer: &&Offer| budgets.get(offer.pool.name()).is_some_and(|budget| budget.allows(&offer.instance));
        let filled = offers.iter().filter(affordable).filter_map(|offer| Some((offer, fill(offer, &rest)?)));
        // Spot costs at most what on demand does: the catalogue knows no other price.
        let order = |(offer, bin): &(&Offer, Bin<'_>)| {
            let same = |bought: &&Purchase| {
                let spec = &bought.machine.spec;
                spec.node_pool == offer.pool.name() && spec.zone == offer.zone
            };
            let neighbours = offer.neighbours + decision.purchases.iter().filter(same).count();
            (std::cmp::Reverse(bin.pods.len()), offer.capacity != CapacityType::Spot, neighbours)
        };
        let Some((offer, bin)) = filled.min_by(|a, b| cost(a).total_cmp(&cost(b)).then_with(|| order(a).cmp(&order(b)))) else {
            decision.helpless.push((first.pod.clone(), why_none(first, &offers, situation)));
            rest.remove(0);
            continue;
        };
        if let Some(budget) = budgets.get_mut(offer.pool.name()) {
            budget.spend(&offer.instance);
        }
        let placed: BTreeSet<&str> = bin.pods.iter().map(|wanted| wanted.pod.uid()).collect();
        rest.retain(|wanted| !placed.contains(wanted.pod.uid()));
        decision.purchases.push(purchase(offer, &bin, machines));
    }
    decision
}

/// A machine that was bought for a pod is there, has room for it, and the scheduler does not put it there: there is a reason
/// that isn't known here (spreading over zones, say). Another machine may do in another zone, but more of the same would not.
fn shun_where_it_does_not_go(wanted: &mut [Wanted], situation: &Situation<'_>) {
    for machine in situation.machines.iter().filter(|machine| !machine.is_deleted() && !is_on_its_way(machine, situation)) {
        let meant = meant_for(machine);
        if !wanted.iter().any(|wanted| meant.contains(wanted.pod.uid())) {
            continue;
        }
        let Some(node) = situation.nodes.get(machine.name()).filter(|node| is_open(node)) else { continue };
        let mut free = allocatable(node);
        let bound = bound(machine, situation);
        bound.iter().for_each(|pod| free.subtract(&pod.requests));
        let bin = Bin { node: node.clone(), free, pods: vec![], bound };
        for wanted in wanted.iter_mut().filter(|wanted| meant.contains(wanted.pod.uid()) && bin.takes(wanted)) {
            wanted.not_in.insert(machine.spec.zone.clone());
        }
    }
}

fn is_open(node: &Node) -> bool {
    node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true))
}

/// The uids of the pods that the machine was bought for.
pub fn meant_for(machine: &Machine) -> BTreeSet<&str> {
    machine.annotation(PODS_ANNOTATION).unwrap_or_default().split(',').filter(|uid| !uid.is_empty()).collect()
}

fn allocatable(node: &Node) -> Resources {
    Resources::from_list(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}

fn bound(machine: &Machine, situation: &Situation<'_>) -> Vec<Wanted> {
    let pods = (situation.on_node)(machine.name()).into_iter();
    pods.filter(|pod| !crate::pods::is_terminal(pod)).map(Wanted::of).collect()
}

/// What the machines' nodes turned out to have, by instance type: clouds sell more memory than a kernel sees.
pub fn learn(known: &mut Known, machines: &[Arc<Machine>], nodes: &BTreeMap<String, Arc<Node>>) {
    for machine in machines {
        let Some(has) = nodes.get(machine.name()).map(|node| allocatable(node)) else { continue };
        if has.milli_cpu > 0 && has.memory > 0 {
            let least = known.entry(machine.spec.instance_type.clone()).or_insert_with(|| has.clone());
            if has.memory < least.memory {
                *least = has;
            }
        }
    }
}

/// The pods that no machine on its way is for. Those that a machine was bought for come first on it, so that whoever
/// else waits by now cannot make one buy for them again.
fn without_expected<'a>(wanted: &'a [Wanted], situation: &Situation<'_>) -> Vec<&'a Wanted> {
    let mut bins: Vec<(Bin<'a>, &Arc<Machine>)> =
        situation.machines.iter().filter_map(|machine| Some((expected(machine, situation)?, machine))).collect();
    let mut rest: Vec<&Wanted> = wanted.iter().collect();
    for (bin, machine) in &mut bins {
        let meant = meant_for(machine);
        rest.retain(|wanted| {
            let here = meant.contains(wanted.pod.uid()) && bin.takes(wanted);
            if here {
                bin.put(wanted);
            }
            !here
        });
    }
    rest.retain(|wanted| match bins.iter_mut().find(|(bin, _)| bin.takes(wanted)) {
        Some((bin, _)) => {
            bin.put(wanted);
            false
        }
        None => true,
    });
    rest
}

/// The room on a machine that was bought and whose pods aren't there yet.
fn expected<'a>(machine: &Arc<Machine>, situation: &Situation<'_>) -> Option<Bin<'a>> {
    if machine.is_deleted() || refusal(machine).is_some() || !is_on_its_way(machine, situation) {
        return None;
    }
    let to_be = offer::node_to_be(machine.name(), &machine.spec.labels, &machine.spec.taints);
    let has = situation.nodes.get(machine.name()).map(|node| allocatable(node)).filter(|has| has.milli_cpu > 0);
    let mut free = match (has, situation.market.instance_type(&machine.spec.instance_type)) {
        (Some(mut has), _) => {
            has.subtract(&offer::daemons(&to_be, &situation.daemon_sets));
            has
        }
        (None, Some(instance)) => offer::free(instance, &to_be, &situation.daemon_sets, situation.market.known),
        (None, None) => Resources::from_list(Some(&machine.spec.requests)),
    };
    let bound = bound(machine, situation);
    bound.iter().filter(|pod| !is_daemon(&pod.pod)).for_each(|pod| free.subtract(&pod.requests));
    Some(Bin { node: Arc::new(to_be), free, pods: vec![], bound })
}

/// Until its node has been ready for a while, a machine's room is not what the scheduler has judged by.
fn is_on_its_way(machine: &Machine, situation: &Situation<'_>) -> bool {
    let status = machine.status.clone().unwrap_or_default();
    match status.phase {
        MachinePhase::Pending | MachinePhase::Launched | MachinePhase::Registered => true,
        MachinePhase::Ready => {
            let ready = condition::get(Some(&status.conditions), READY).and_then(|ready| ready.last_transition());
            ready.is_some_and(|since| situation.now.duration_since(since) < situation.settle)
        }
        MachinePhase::Draining | MachinePhase::Terminating => false,
    }
}

fn weight(requests: &Resources) -> f64 {
    requests.milli_cpu as f64 / 1000.0 * CPU_WEIGHT + requests.memory as f64 / (1u64 << 30) as f64 * GIB_WEIGHT
}

/// What the machine costs for what it would carry.
fn cost((offer, bin): &(&Offer, Bin<'_>)) -> f64 {
    let carried: f64 = bin.pods.iter().map(|wanted| weight(&wanted.requests)).sum();
    // Pods that ask for nothing are still something to carry.
    offer.instance.price_per_hour / (carried + bin.pods.len() as f64 * 1e-4)
}

/// Fills a machine with the largest pod and then whatever else fits.
fn fill<'a>(offer: &Offer, rest: &[&'a Wanted]) -> Option<Bin<'a>> {
    let mut bin = Bin { node: offer.node.clone(), free: offer.free.clone(), pods: vec![], bound: vec![] };
    for (index, wanted) in rest.iter().enumerate() {
        if bin.takes(wanted) {
            bin.put(wanted);
        } else if index == 0 {
            return None;
        }
    }
    Some(bin)
}

fn why_none(wanted: &Wanted, offers: &[Offer], situation: &Situation<'_>) -> String {
    if situation.pools.is_empty() {
        return "there is no NodePool".into();
    }
    if offers.is_empty() {
        return "no NodePool has an instance type that can be bought now".into();
    }
    if !wanted.not_in.is_empty() {
        let zones: Vec<&str> = wanted.not_in.iter().map(String::as_str).collect();
        return format!("the scheduler leaves the room unused that was bought for it in {}", zones.join(", "));
    }
    let admitting: Vec<&Offer> = offers.iter().filter(|offer| offer::admits(&offer.node, wanted)).collect();
    if admitting.is_empty() {
        return "no NodePool has the labels that the pod selects, without a taint that it doesn't tolerate".into();
    }
    if !admitting.iter().any(|offer| fill(offer, &[wanted]).is_some()) {
        return "no instance type of the NodePools is large enough".into();
    }
    "the limits of the NodePools are reached".into()
}

fn purchase(offer: &Offer, bin: &Bin<'_>, machines: &[Arc<Machine>]) -> Purchase {
    let pool = &offer.pool;
    let mut requests = Resources::default();
    bin.pods.iter().for_each(|wanted| requests.add(&wanted.requests));
    let uids: Vec<&str> = bin.pods.iter().map(|wanted| wanted.pod.uid()).collect();
    let mut machine = Machine::default();
    machine.metadata.name = Some(name(offer, uids.first().copied().unwrap_or_default(), machines));
    machine.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    machine.metadata.owner_references = Some(vec![pool.controller_reference()]);
    machine.metadata.labels = Some([(slipway_api::slipway::LABEL_NODE_POOL.to_owned(), pool.name().to_owned())].into());
    machine.metadata.annotations = Some([(PODS_ANNOTATION.to_owned(), uids.join(","))].into());
    machine.spec = MachineSpec {
        node_pool: pool.name().to_owned(),
        node_class_ref: pool.spec.node_class_ref.clone(),
        instance_type: offer.instance.name.clone(),
        zone: offer.zone.clone(),
        capacity_type: offer.capacity,
        requests: requests.to_list(),
        taints: pool.spec.template.taints.clone(),
        startup_taints: pool.spec.template.startup_taints.clone(),
        labels: offer::labels(pool, &offer.instance, &offer.zone, offer.capacity),
        annotations: pool.spec.template.annotations.clone(),
    };
    Purchase { machine, pods: bin.pods.iter().map(|wanted| wanted.pod.clone()).collect() }
}

/// The same purchase for the same pod has the same name: if it was written down and the answer was lost, writing it again
/// is refused. A machine of that name that is seen is another purchase: one that is given back, or did not help.
fn name(offer: &Offer, pod: &str, machines: &[Arc<Machine>]) -> String {
    let pool: String = offer.pool.name().chars().take(52).collect();
    let mut attempt = 0;
    loop {
        let parts = [offer.pool.uid(), pod, &offer.instance.name, &offer.zone, offer.capacity.as_str(), &attempt.to_string()];
        let digest = Sha256::digest(parts.join("/"));
        let suffix: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{pool}-{suffix}");
        if !machines.iter().any(|machine| machine.name() == name) {
            return name;
        }
        attempt += 1;
    }
}

/// What a pool may still buy.
struct Budget {
    milli_cpu: i64,
    memory: i64,
    machines: i64,
    money: f64,
}

impl Budget {
    fn of(pool: &NodePool, machines: &[Arc<Machine>], market: &Market<'_>) -> Budget {
        let limits = &pool.spec.limits;
        let parse = |text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| Quantity::try_from(text).unwrap_or_default();
        let mut budget = Budget {
            milli_cpu: limits.cpu.as_ref().map_or(i64::MAX, |limit| parse(limit).milli()),
            memory: limits.memory.as_ref().map_or(i64::MAX, |limit| parse(limit).value()),
            machines: limits.machines.map_or(i64::MAX, i64::from),
            money: limits.money_per_hour.as_ref().map_or(f64::INFINITY, |limit| parse(limit).as_f64()),
        };
        for machine in machines.iter().filter(|machine| machine.spec.node_pool == pool.name() && refusal(machine).is_none()) {
            match market.instance_type(&machine.spec.instance_type) {
                Some(instance) => budget.spend(instance),
                None => budget.machines -= 1,
            }
        }
        budget
    }

    fn allows(&self, instance: &InstanceType) -> bool {
        self.milli_cpu >= instance.cpu_milli
            && self.memory >= instance.memory_bytes
            && self.machines >= 1
            && self.money + 1e-9 >= instance.price_per_hour
    }

    fn spend(&mut self, instance: &InstanceType) {
        self.milli_cpu = self.milli_cpu.saturating_sub(instance.cpu_milli);
        self.memory = self.memory.saturating_sub(instance.memory_bytes);
        self.machines = self.machines.saturating_sub(1);
        self.money -= instance.price_per_hour;
    }
}
