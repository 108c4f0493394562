//! PodTopologySpread: keeps the number of matching pods even over the domains of a topology.
//!
//! A pod of a controller that says nothing about it prefers, as by default in Kubernetes, to be spread over hosts and zones;
//! its siblings are told by their controller.

use crate::affinity::Spread;
use crate::framework::{Event, Filter, Plugin, Reason, SCORE_MAX, Score, Verdict};
use crate::plugins::taint_toleration::HARD;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use slipway_api::toleration::first_untolerated;
use std::collections::{BTreeMap, HashMap, HashSet};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The skews that the default constraints bear with.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

pub struct PodTopologySpread;

struct Constraint<'a> {
    spread: &'a Spread,
    matches_itself: bool,
    counts: BTreeMap<String, i64>,
    /// The fewest in any domain.
    least: i64,
}

struct Required<'a> {
    pod: &'a PodInfo,
    constraints: Vec<Constraint<'a>>,
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        let spreads = &pod.wants.required_spread;
        if spreads.is_empty() {
            return None;
        }
        let constraint = |spread: &'a Spread| {
            let matches_itself = spread.selector.matches(&pod.labels);
            Constraint { spread, matches_itself, counts: BTreeMap::new(), least: 0 }
        };
        let mut required = Required { pod, constraints: spreads.iter().map(constraint).collect() };
        for node in cluster.nodes().filter(|node| spreads.iter().all(|spread| node.label(&spread.topology_key).is_some())) {
            for constraint in &mut required.constraints {
                if counts_for(constraint.spread, pod, node) {
                    let matching = matching(constraint.spread, pod, node);
                    let domain = node.label(&constraint.spread.topology_key).unwrap_or_default();
                    *constraint.counts.entry(domain.to_owned()).or_default() += matching;
                }
            }
        }
        required.constraints.iter_mut().for_each(Constraint::find_least);
        Some(Box::new(required))
    }

    fn score<'a>(&self, pod: &'a PodInfo, cluster: &'a Snapshot, feasible: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let wants = &pod.wants;
        if !wants.preferred_spread.is_empty() {
            return Some(Box::new(Preferred::of(pod, cluster, feasible)));
        }
        if wants.required_spread.is_empty() { Siblings::of(pod, cluster, feasible) } else { None }
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, _: &Snapshot) -> bool {
        let spreads = &pod.wants.required_spread;
        let matching = |other: &PodInfo| {
            other.namespace == pod.namespace && spreads.iter().any(|spread| spread.selector.matches(&other.labels))
        };
        let in_topology = |node: &NodeInfo| spreads.iter().all(|spread| node.label(&spread.topology_key).is_some());
        match event {
            Event::PodPlaced(other) | Event::PodGone(other) => matching(other),
            Event::NodeAdded(node) => in_topology(node),
            Event::NodeChanged(node, old) => node.facts.labels != old.labels || node.facts.taints != old.taints,
            Event::NodeRemoved => true,
        }
    }
}

/// Whether the node's domain counts at all.
fn counts_for(spread: &Spread, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!spread.honor_node_affinity || pod.wants.node.match_node(&node.facts))
        && (!spread.honor_node_taints || first_untolerated(&node.facts.taints, &pod.wants.tolerations, &HARD).is_none())
}

fn matching(spread: &Spread, pod: &PodInfo, node: &NodeInfo) -> i64 {
    let same = |other: &PodInfo| other.namespace == pod.namespace && !other.deleting && spread.selector.matches(&other.labels);
    if spread.selector.is_nothing() { 0 } else { node.pods.iter().filter(|other| same(other)).count() as i64 }
}

impl Constraint<'_> {
    fn find_least(&mut self) {
        let enough = self.counts.len() as i64 >= self.spread.min_domains;
        self.least = if enough { self.counts.values().copied().min().unwrap_or(0) } else { 0 };
    }
}

impl Filter for Required<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        for constraint in &self.constraints {
            let Some(domain) = node.label(&constraint.spread.topology_key) else {
                return Verdict::never(Reason::SpreadLabelMissing);
            };
            let count = constraint.counts.get(domain).copied().unwrap_or(0);
            if count + i64::from(constraint.matches_itself) - constraint.least > constraint.spread.max_skew {
                return Verdict::unfit(Reason::Spread);
            }
        }
        Verdict::Fits
    }

    fn adjust(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        if pod.namespace != self.pod.namespace || pod.deleting {
            return;
        }
        for constraint in &mut self.constraints {
            let domain = node.label(&constraint.spread.topology_key);
            let counted = counts_for(constraint.spread, self.pod, node) && constraint.spread.selector.matches(&pod.labels);
            if let Some(count) = domain.filter(|_| counted).and_then(|domain| constraint.counts.get_mut(domain)) {
                *count += by;
                constraint.find_least();
            }
        }
    }
}

/// Fewer matching pods are better; domains weigh the more the more there are, so that hosts don't drown zones out.
struct Preferred<'a> {
    pod: &'a PodInfo,
    constraints: Vec<(&'a Spread, f64, HashMap<&'a str, i64>)>,
}

/// A node outside the topology: it scores 0 after normalizing.
const OUTSIDE: i64 = -1;

impl<'a> Preferred<'a> {
    fn of(pod: &'a PodInfo, cluster: &'a Snapshot, feasible: &[&'a NodeInfo]) -> Preferred<'a> {
        let mut constraints = vec![];
        for spread in &pod.wants.preferred_spread {
            let domains: HashSet<&str> = feasible.iter().filter_map(|node| node.label(&spread.topology_key)).collect();
            let mut counts = HashMap::new();
            // A host is counted when it is scored: there is but one of it.
            if spread.topology_key != HOSTNAME {
                for node in cluster.nodes().filter(|node| counts_for(spread, pod, node)) {
                    if let Some(domain) = node.label(&spread.topology_key).filter(|domain| domains.contains(domain)) {
                        *counts.entry(domain).or_default() += matching(spread, pod, node);
                    }
                }
            }
            constraints.push((spread, ((domains.len() + 2) as f64).ln(), counts));
        }
        Preferred { pod, constraints }
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut sum = 0.0;
        for (spread, weight, counts) in &self.constraints {
            let Some(domain) = node.label(&spread.topology_key) else { return OUTSIDE };
            let count = if spread.topology_key == HOSTNAME {
                matching(spread, self.pod, node)
            } else {
                counts.get(domain).copied().unwrap_or(0)
            };
            sum += count as f64 * weight + (spread.max_skew - 1) as f64;
        }
        sum.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        fewer_is_better(scores);
    }
}

fn fewer_is_better(scores: &mut [i64]) {
    let inside = || scores.iter().copied().filter(|score| *score != OUTSIDE);
    let (least, most) = (inside().min().unwrap_or(0), inside().max().unwrap_or(0));
    for score in scores {
        *score = match *score {
            OUTSIDE => 0,
            _ if most == 0 => SCORE_MAX,
            score => SCORE_MAX * (most + least - score) / most,
        };
    }
}

/// The default constraints, for pods of one controller.
struct Siblings<'a> {
    on: Option<&'a imbl::OrdMap<std::sync::Arc<str>, i64>>,
    zones: HashMap<&'a str, i64>,
    weights: [f64; 2],
}

impl<'a> Siblings<'a> {
    fn of(pod: &'a PodInfo, cluster: &'a Snapshot, feasible: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let on = cluster.pods_of(pod.controller.as_ref()?);
        let mut zones = HashMap::new();
        let in_zones: HashSet<&str> = feasible.iter().filter_map(|node| node.label(ZONE)).collect();
        if !in_zones.is_empty() {
            for (node, count) in on.into_iter().flatten() {
                if let Some(zone) = cluster.node(node).and_then(|node| node.label(ZONE)) {
                    *zones.entry(zone).or_default() += count;
                }
            }
        }
        let weights = [feasible.len(), in_zones.len()].map(|domains| ((domains + 2) as f64).ln());
        Some(Box::new(Siblings { on, zones, weights }))
    }
}

impl Score for Siblings<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let here = self.on.and_then(|on| on.get(node.name())).copied().unwrap_or(0);
        let in_zone = node.label(ZONE).map(|zone| self.zones.get(zone).copied().unwrap_or(0));
        let counts = [Some(here), in_zone].into_iter().zip(self.weights).zip(DEFAULTS);
        let sum: f64 = counts.filter_map(|((count, weight), (_, skew))| Some(count? as f64 * weight + (skew - 1) as f64)).sum();
        sum.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        fewer_is_better(scores);
    }
}
