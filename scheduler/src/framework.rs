//! Filter, score, choose: the decision for one pod on one snapshot.
//!
//! Pure: the same pod, snapshot and [`Sample`] give the same decision.

use crate::plugins::Plugins;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use slipway_api::core::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The best a plugin can say of a node.
pub const SCORE_MAX: i64 = 100;

/// Why a node won't do, worded as Kubernetes does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Unschedulable,
    NodeName,
    Taint { key: String, value: String },
    NodeAffinity,
    Ports,
    TooManyPods,
    Insufficient(String),
    Spread,
    SpreadLabelMissing,
    PodAffinity,
    PodAntiAffinity,
    ExistingAntiAffinity,
    NoVictims,
    PreemptionNotHelpful,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Unschedulable => "node(s) were unschedulable",
            Reason::NodeName => "node(s) didn't match the requested node name",
            Reason::Taint { key, value } => return write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Reason::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Reason::Ports => "node(s) didn't have free ports for the requested pod ports",
            Reason::TooManyPods => "Too many pods",
            Reason::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Reason::Spread => "node(s) didn't match pod topology spread constraints",
            Reason::SpreadLabelMissing => "node(s) didn't match pod topology spread constraints (missing required label)",
            Reason::PodAffinity => "node(s) didn't match pod affinity rules",
            Reason::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Reason::ExistingAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
            Reason::NoVictims => "No preemption victims found for incoming pod",
            Reason::PreemptionNotHelpful => "Preemption is not helpful for scheduling",
        })
    }
}

/// What a filter says of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Fits,
    /// Evicting pods may help.
    Unfit(Vec<Reason>),
    /// Nothing done to pods can help.
    Never(Vec<Reason>),
}

impl Verdict {
    pub fn never(reason: Reason) -> Verdict {
        Verdict::Never(vec![reason])
    }

    pub fn unfit(reason: Reason) -> Verdict {
        Verdict::Unfit(vec![reason])
    }

    pub fn fits(&self) -> bool {
        *self == Verdict::Fits
    }

    pub fn reasons(&self) -> &[Reason] {
        match self {
            Verdict::Fits => &[],
            Verdict::Unfit(reasons) | Verdict::Never(reasons) => reasons,
        }
    }
}

/// Something that happened in the cluster and may make room for a pod that had none.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    NodeAdded(&'a NodeInfo),
    /// With what it said before.
    NodeChanged(&'a NodeInfo, &'a crate::snapshot::NodeFacts),
    NodeRemoved,
    /// A pod came to a node, or changed its labels there.
    PodPlaced(&'a PodInfo),
    /// A pod left its node.
    PodGone(&'a PodInfo),
}

/// A plugin works out once per pod what it then asks of every node. `None` says that it has nothing to ask for this pod.
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    fn filter<'a>(&self, _pod: &'a PodInfo, _cluster: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        None
    }

    fn score<'a>(&self, _pod: &'a PodInfo, _cluster: &'a Snapshot, _feasible: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        None
    }

    /// Whether a pod that this plugin found no node for should be tried again.
    fn wakes(&self, _pod: &PodInfo, _event: &Event<'_>, _cluster: &Snapshot) -> bool {
        false
    }
}

pub trait Filter {
    fn check(&self, node: &NodeInfo) -> Verdict;

    /// Takes into account that a pod comes to (`+1`) or leaves (`-1`) a node, for what-if questions.
    fn adjust(&mut self, _pod: &PodInfo, _node: &NodeInfo, _by: i64) {}
}

pub trait Score {
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings the scores of all feasible nodes into 0 to [`SCORE_MAX`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// The most goes to [`SCORE_MAX`], nothing to 0; reversed, the other way round.
pub fn normalize_to_max(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let share = if most == 0 { 0 } else { *score * SCORE_MAX / most };
        *score = if reverse { SCORE_MAX - share } else { share };
    }
}

/// Which nodes are looked at. In a big cluster, a part of the nodes that fit is enough to choose from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Where to begin, so that all nodes have their turn.
    pub start: usize,
    /// The share of nodes that is enough, in percent; 0 chooses it by the size of the cluster.
    pub percentage: u32,
}

impl Sample {
    /// Below this many feasible nodes no search ends early.
    pub const NODES_MIN: usize = 100;
    const PERCENTAGE_MIN: usize = 5;

    /// How many feasible nodes are enough.
    pub fn enough(&self, nodes: usize) -> usize {
        if nodes < Self::NODES_MIN || self.percentage >= 100 {
            return nodes;
        }
        let percentage = match self.percentage {
            0 => 50usize.saturating_sub(nodes / 125).max(Self::PERCENTAGE_MIN),
            given => given as usize,
        };
        (nodes * percentage / 100).max(Self::NODES_MIN)
    }
}

/// Why no node would do: nodes of which the same is true stand together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    pub nodes: usize,
    pub verdicts: BTreeMap<Verdict, Vec<Arc<str>>>,
    /// The plugins that said so.
    pub plugins: BTreeSet<&'static str>,
}

impl Explanation {
    pub fn add(&mut self, node: &Arc<str>, plugin: &'static str, verdict: Verdict) {
        self.plugins.insert(plugin);
        self.verdicts.entry(verdict).or_default().push(node.clone());
    }

    /// How many nodes each reason holds for, in the order in which it is printed.
    fn counted(&self) -> Vec<String> {
        let mut counts: BTreeMap<&Reason, usize> = BTreeMap::new();
        for (verdict, nodes) in &self.verdicts {
            for reason in verdict.reasons() {
                *counts.entry(reason).or_default() += nodes.len();
            }
        }
        let mut lines: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.sort();
        lines
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: {}.", self.nodes, self.counted().join(", "))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Bind {
        node: Arc<str>,
        /// How many nodes were looked at; the next search begins after them.
        looked_at: usize,
    },
    Unschedulable(Explanation),
}

pub type Filters<'a> = Vec<(&'static str, Box<dyn Filter + 'a>)>;

pub fn filters<'a>(pod: &'a PodInfo, cluster: &'a Snapshot, plugins: &Plugins) -> Filters<'a> {
    plugins.iter().filter_map(|(plugin, _)| Some((plugin.name(), plugin.filter(pod, cluster)?))).collect()
}

/// The first objection to the node, with who raised it.
pub fn check(filters: &Filters<'_>, node: &NodeInfo) -> Option<(&'static str, Verdict)> {
    filters.iter().find_map(|(name, filter)| {
        let verdict = filter.check(node);
        (!verdict.fits()).then_some((*name, verdict))
    })
}

/// [`check`], leaving room for pods at least as important that victims on the node make way for.
pub fn check_with_nominated(
    filters: &Filters<'_>,
    pod: &PodInfo,
    node: &NodeInfo,
    cluster: &Snapshot,
) -> Option<(&'static str, Verdict)> {
    let waiting = cluster.nominated(node.name()).into_iter().flatten();
    let mut waiting = waiting.filter(|other| other.priority >= pod.priority && other.key != pod.key).peekable();
    if waiting.peek().is_some() {
        let mut crowded = node.clone();
        waiting.for_each(|other| crowded.add(other.clone()));
        if let Some(objection) = check(filters, &crowded) {
            return Some(objection);
        }
    }
    check(filters, node)
}

/// Finds the best node for a pod, or says why there is none. A node that the pod was nominated for comes first.
pub fn decide(pod: &PodInfo, nominated: Option<&str>, cluster: &Snapshot, plugins: &Plugins, sample: Sample) -> Decision {
    let filters = filters(pod, cluster, plugins);
    let fits = |node: &&Arc<NodeInfo>| check_with_nominated(&filters, pod, node, cluster).is_none();
    if let Some(node) = nominated.and_then(|name| cluster.node(name)).filter(fits) {
        return Decision::Bind { node: node.name().clone(), looked_at: 0 };
    }
    let enough = sample.enough(cluster.len());
    let mut explanation = Explanation { nodes: cluster.len(), ..Explanation::default() };
    let mut feasible: Vec<&NodeInfo> = Vec::with_capacity(enough);
    let mut looked_at = 0;
    for node in cluster.nodes_from(sample.start) {
        looked_at += 1;
        match check_with_nominated(&filters, pod, node, cluster) {
            None => feasible.push(node),
            Some((plugin, verdict)) => explanation.add(node.name(), plugin, verdict),
        }
        if feasible.len() >= enough {
            break;
        }
    }
    match choose(pod, cluster, plugins, &feasible) {
        Some(node) => Decision::Bind { node: node.name().clone(), looked_at },
        None => Decision::Unschedulable(explanation),
    }
}

fn choose<'a>(pod: &'a PodInfo, cluster: &'a Snapshot, plugins: &Plugins, feasible: &[&'a NodeInfo]) -> Option<&'a NodeInfo> {
    if feasible.len() < 2 {
        return feasible.first().copied();
    }
    let mut totals = vec![0i64; feasible.len()];
    for (plugin, weight) in plugins.iter() {
        let Some(score) = plugin.score(pod, cluster, feasible) else { continue };
        let mut scores: Vec<i64> = feasible.iter().map(|node| score.score(node)).collect();
        score.normalize(&mut scores);
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += score * weight);
    }
    let best = totals.into_iter().zip(feasible).max_by_key(|(total, node)| (*total, node.facts.tie_break(pod)));
    best.map(|(_, node)| *node)
}

/// Whether a pod could run on a node: one that exists, or one that could be bought. Of other nodes nothing is known here.
pub fn fits(pod: &Pod, node: &NodeInfo) -> Verdict {
    fits_info(&PodInfo::pending(pod), node)
}

/// [`fits`] for a pod that was read before.
pub fn fits_info(pod: &PodInfo, node: &NodeInfo) -> Verdict {
    let alone = Snapshot::of_one(node);
    let filters = filters(pod, &alone, crate::plugins::all());
    check(&filters, node).map_or(Verdict::Fits, |(_, verdict)| verdict)
}

#[cfg(test)]
#[path = "framework_tests.rs"]
mod tests;
