//! InterPodAffinity: pods that want to be near other pods, or far from them; and the wishes of the pods that are there.

use crate::affinity::{Affinity, Namespaces, Term};
use crate::framework::{Event, Filter, Plugin, Reason, SCORE_MAX, Score, Verdict};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use std::collections::HashMap;

/// How much the required affinity of a pod that is there counts as a wish for the one that comes.
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub struct InterPodAffinity;

/// Counts by topology key and value.
#[derive(Default)]
struct Domains(HashMap<String, HashMap<String, i64>>);

impl Domains {
    fn add(&mut self, term: &Term, node: &NodeInfo, by: i64) {
        let Some(value) = term.domain(node) else { return };
        let Some(values) = self.0.get_mut(&term.topology_key) else {
            self.0.insert(term.topology_key.clone(), HashMap::from([(value.to_owned(), by)]));
            return;
        };
        match values.get_mut(value) {
            Some(count) => *count += by,
            None => drop(values.insert(value.to_owned(), by)),
        }
    }

    fn at(&self, key: &str, node: &NodeInfo) -> i64 {
        let count = || self.0.get(key)?.get(node.label(key)?).copied();
        count().unwrap_or(0)
    }

    fn sum(&self, node: &NodeInfo) -> i64 {
        self.0.keys().map(|key| self.at(key, node)).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.values().all(|values| values.values().all(|count| *count == 0))
    }
}

struct Required<'a> {
    pod: &'a PodInfo,
    affinity: &'a Affinity,
    namespaces: &'a Namespaces,
    /// Pods that match all of the pod's affinity terms.
    wanted: Domains,
    /// Pods that match one of its anti-affinity terms.
    shunned: Domains,
    /// Pods whose anti-affinity matches it.
    shunning: Domains,
    matches_itself: bool,
}

static NO_AFFINITY: Affinity = Affinity { required: vec![], required_anti: vec![], preferred: vec![] };

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
        let affinity = pod.affinity.as_deref().unwrap_or(&NO_AFFINITY);
        let asks = !affinity.required.is_empty() || !affinity.required_anti.is_empty();
        if !asks && !cluster.has_affinity() {
            return None;
        }
        let namespaces = &cluster.namespaces;
        let matches_itself = affinity.required.iter().all(|term| term.matches(pod, namespaces));
        let (wanted, shunned, shunning) = Default::default();
        let mut required = Required { pod, affinity, namespaces, wanted, shunned, shunning, matches_itself };
        if asks {
            for node in cluster.nodes() {
                node.pods.iter().for_each(|other| required.count(other, node, 1));
            }
        } else {
            for node in cluster.nodes_with_affinity() {
                node.pods_with_affinity.iter().for_each(|other| required.count(other, node, 1));
            }
        }
        Some(Box::new(required))
    }

    fn score<'a>(&self, pod: &'a PodInfo, cluster: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let preferred = pod.affinity.as_ref().map_or(&[][..], |affinity| &affinity.preferred);
        if preferred.is_empty() && !cluster.has_affinity() {
            return None;
        }
        let namespaces = &cluster.namespaces;
        let mut wishes = Domains::default();
        if !preferred.is_empty() {
            for node in cluster.nodes() {
                for other in &node.pods {
                    let terms = preferred.iter().filter(|(_, term)| term.matches(other, namespaces));
                    terms.for_each(|(weight, term)| wishes.add(term, node, *weight));
                }
            }
        }
        for node in cluster.nodes_with_affinity() {
            for affinity in node.pods_with_affinity.iter().filter_map(|other| other.affinity.as_ref()) {
                let hard = affinity.required.iter().map(|term| (HARD_AFFINITY_WEIGHT, term));
                let soft = affinity.preferred.iter().map(|(weight, term)| (*weight, term));
                let matching = hard.chain(soft).filter(|(_, term)| term.matches(pod, namespaces));
                matching.for_each(|(weight, term)| wishes.add(term, node, weight));
            }
        }
        (!wishes.is_empty()).then(|| Box::new(Wishes(wishes)) as Box<dyn Score>)
    }

    fn wakes(&self, pod: &PodInfo, event: &Event<'_>, cluster: &Snapshot) -> bool {
        let affinity = pod.affinity.as_deref().unwrap_or(&NO_AFFINITY);
        let touches = |terms: &[Term], other: &PodInfo| terms.iter().any(|term| term.matches(other, &cluster.namespaces));
        match event {
            Event::PodPlaced(other) => touches(&affinity.required, other),
            Event::PodGone(other) => touches(&affinity.required_anti, other) || touches(other.required_anti_affinity(), pod),
            Event::NodeAdded(_) => true,
            Event::NodeChanged(node, old) => node.facts.labels != old.labels,
            Event::NodeRemoved => false,
        }
    }
}

impl Required<'_> {
    fn count(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        for term in other.required_anti_affinity() {
            if term.matches(self.pod, self.namespaces) {
                self.shunning.add(term, node, by);
            }
        }
        let wanted = &self.affinity.required;
        if !wanted.is_empty() && wanted.iter().all(|term| term.matches(other, self.namespaces)) {
            wanted.iter().for_each(|term| self.wanted.add(term, node, by));
        }
        for term in &self.affinity.required_anti {
            if term.matches(other, self.namespaces) {
                self.shunned.add(term, node, by);
            }
        }
    }

    /// Where no pod matches yet, the first of a group that wants its own kind near may go anywhere.
    fn is_near_what_it_wants(&self, node: &NodeInfo) -> bool {
        let terms = &self.affinity.required;
        if terms.iter().any(|term| term.domain(node).is_none()) {
            return false;
        }
        let near = terms.iter().all(|term| self.wanted.at(&term.topology_key, node) > 0);
        near || (self.matches_itself && self.wanted.is_empty())
    }
}

impl Filter for Required<'_> {
    fn check(&self, node: &NodeInfo) -> Verdict {
        if !self.is_near_what_it_wants(node) {
            return Verdict::never(Reason::PodAffinity);
        }
        if self.affinity.required_anti.iter().any(|term| self.shunned.at(&term.topology_key, node) > 0) {
            return Verdict::unfit(Reason::PodAntiAffinity);
        }
        if self.shunning.sum(node) > 0 {
            return Verdict::unfit(Reason::ExistingAntiAffinity);
        }
        Verdict::Fits
    }

    fn adjust(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        self.count(pod, node, by);
    }
}

struct Wishes(Domains);

impl Score for Wishes {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.sum(node)
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (Some(least), Some(most)) = (scores.iter().copied().min(), scores.iter().copied().max()) else { return };
        for score in scores {
            *score = if most > least { SCORE_MAX * (*score - least) / (most - least) } else { 0 };
        }
    }
}
