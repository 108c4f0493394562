//! What a pod wants of its node and of its neighbours, read once from its spec.

use imbl::HashMap;
use slipway_api::core::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, Toleration, TopologySpreadConstraint,
};
use slipway_api::meta::LabelSelector;
use slipway_api::selector::{Labels, Operator, Requirement, Selector};

use crate::snapshot::{NodeFacts, NodeInfo, PodInfo};

/// The labels of each namespace.
pub type Namespaces = HashMap<String, Labels>;

/// One term of a node selector: all its clauses must hold, and one without clauses never does.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    name: Vec<Requirement>,
}

fn requirement(of: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = Operator::from_expression(&of.operator)?;
    Some(Requirement { key: of.key.clone(), operator, values: of.values.clone().unwrap_or_default() })
}

impl NodeTerm {
    /// None if it can't match: it has no clause, or one that isn't understood.
    fn of(term: &NodeSelectorTerm) -> Option<NodeTerm> {
        let read =
            |list: &Option<Vec<NodeSelectorRequirement>>| list.iter().flatten().map(requirement).collect::<Option<Vec<_>>>();
        let (labels, name) = (read(&term.match_expressions)?, read(&term.match_fields)?);
        let only_names = name.iter().all(|field| field.key == "metadata.name");
        (only_names && !(labels.is_empty() && name.is_empty())).then_some(NodeTerm { labels, name })
    }

    pub fn matches(&self, node: &NodeFacts) -> bool {
        self.labels.iter().all(|label| label.matches(&node.labels))
            && self.name.iter().all(|name| name.holds_for(Some(&node.name)))
    }
}

fn node_terms(selector: &NodeSelector) -> Vec<NodeTerm> {
    selector.node_selector_terms.iter().filter_map(NodeTerm::of).collect()
}

/// `nodeSelector` and required node affinity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeRequirements {
    pub labels: Labels,
    pub terms: Option<Vec<NodeTerm>>,
}

impl NodeRequirements {
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    pub fn match_node(&self, node: &NodeFacts) -> bool {
        self.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }
}

/// How evenly pods are to be spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: String,
    pub selector: Selector,
    pub min_domains: i64,
    pub honor_node_affinity: bool,
    pub honor_node_taints: bool,
}

impl Spread {
    fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Spread {
        let keys = constraint.match_label_keys.as_deref().unwrap_or(&[]);
        Spread {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            selector: with_label_keys(constraint.label_selector.as_ref(), labels, keys, Operator::In),
            min_domains: constraint.min_domains.unwrap_or(1).into(),
            honor_node_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_node_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// The selector, narrowed to the pod's own values of some labels.
fn with_label_keys(selector: Option<&LabelSelector>, labels: &Labels, keys: &[String], operator: Operator) -> Selector {
    let mut selector = Selector::from_optional(selector);
    if !selector.is_nothing() {
        for key in keys {
            if let Some(value) = labels.get(key) {
                selector.require(Requirement { key: key.clone(), operator, values: vec![value.clone()] });
            }
        }
    }
    selector
}

/// What a pod wants of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    pub node_name: Option<String>,
    pub node: NodeRequirements,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    /// `DoNotSchedule`.
    pub required_spread: Vec<Spread>,
    /// `ScheduleAnyway`.
    pub preferred_spread: Vec<Spread>,
    /// Of its containers, init containers included.
    pub images: Vec<String>,
    pub never_preempts: bool,
}

impl Wants {
    pub fn of(pod: &Pod) -> Wants {
        let Some(spec) = &pod.spec else { return Wants::default() };
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = affinity.and_then(|node| node.preferred_during_scheduling_ignored_during_execution.as_ref());
        let spread = |when: &str| {
            let constraints = spec.topology_spread_constraints.iter().flatten();
            constraints.filter(|one| one.when_unsatisfiable == when).map(|one| Spread::of(one, &labels)).collect()
        };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        Wants {
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            node: NodeRequirements { labels: spec.node_selector.clone().unwrap_or_default(), terms: required.map(node_terms) },
            preferred_nodes: preferred
                .into_iter()
                .flatten()
                .filter_map(|term| Some((i64::from(term.weight), NodeTerm::of(&term.preference)?)))
                .collect(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            required_spread: spread("DoNotSchedule"),
            preferred_spread: spread("ScheduleAnyway"),
            images: containers.filter_map(|container| container.image.as_deref().map(full_name)).collect(),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
        }
    }
}

/// Nodes report images with their tag.
fn full_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// One (anti-)affinity term towards other pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub topology_key: String,
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

impl Term {
    fn of(term: &PodAffinityTerm, pod: &Pod) -> Term {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut selector =
            with_label_keys(term.label_selector.as_ref(), &labels, term.match_label_keys.as_deref().unwrap_or(&[]), Operator::In);
        for key in term.mismatch_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key).filter(|_| !selector.is_nothing()) {
                selector.require(Requirement { key: key.clone(), operator: Operator::NotIn, values: vec![value.clone()] });
            }
        }
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        let namespace_selector = term.namespace_selector.as_ref().map(Selector::from);
        Term { topology_key: term.topology_key.clone(), selector, namespaces, namespace_selector }
    }

    pub fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        let in_namespace = self.namespaces.contains(&pod.namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespaces.get(&pod.namespace)));
        in_namespace && self.selector.matches(&pod.labels)
    }

    /// The node's place in the term's topology.
    pub fn domain<'n>(&self, node: &'n NodeInfo) -> Option<&'n str> {
        node.label(&self.topology_key)
    }
}

/// A pod's affinities towards other pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affinity {
    pub required: Vec<Term>,
    pub required_anti: Vec<Term>,
    /// With weights; those of anti-affinity are negative.
    pub preferred: Vec<(i64, Term)>,
}

impl Affinity {
    pub fn of(pod: &Pod) -> Option<Affinity> {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
        let mut found = Affinity::default();
        let terms = |terms: &Option<Vec<PodAffinityTerm>>| terms.iter().flatten().map(|term| Term::of(term, pod)).collect();
        if let Some(towards) = &affinity.pod_affinity {
            found.required = terms(&towards.required_during_scheduling_ignored_during_execution);
            for weighted in towards.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                found.preferred.push((weighted.weight.into(), Term::of(&weighted.pod_affinity_term, pod)));
            }
        }
        if let Some(away) = &affinity.pod_anti_affinity {
            found.required_anti = terms(&away.required_during_scheduling_ignored_during_execution);
            for weighted in away.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                found.preferred.push((-i64::from(weighted.weight), Term::of(&weighted.pod_affinity_term, pod)));
            }
        }
        (found != Affinity::default()).then_some(found)
    }
}

/// Whether the node is one that the pod's selector and required node affinity allow.
pub fn matches_node(pod: &Pod, node: &Node) -> bool {
    Wants::of(pod).node.match_node(&NodeFacts::of(node))
}
