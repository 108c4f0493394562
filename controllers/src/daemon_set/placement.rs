//! Where a daemon's pod may be, and the pod that is made for one node.

use slipway_api::{
    apps::DaemonSet,
    core::{
        Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
    },
    selector::{Operator, Requirement},
    toleration::first_untolerated,
};

use super::revision::HASH_LABEL;
use crate::{pods, resource::Object};

/// (key, effect) of the taints that every daemon tolerates: what it does is needed on an ailing node all the more.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const TOLERATED_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    pub should_run: bool,
    /// A pod that is there may stay, although none would be put there now.
    pub may_stay: bool,
}

/// What of a node decides about daemons.
pub fn relevant(node: &Node) -> impl PartialEq + use<> {
    let spec = node.spec.clone().unwrap_or_default();
    (node.metadata.labels.clone(), spec.taints, spec.unschedulable, node.metadata.uid.clone())
}

pub fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let spec = set.spec.template.spec.clone().unwrap_or_default();
    let named = spec.node_name.as_deref().is_none_or(|name| name.is_empty() || name == node.name());
    if !(named && selects(&spec, node)) {
        return Fit { should_run: false, may_stay: false };
    }
    let taints: &[Taint] = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or(&[]);
    let tolerations = tolerations(set);
    Fit {
        should_run: first_untolerated(taints, &tolerations, &["NoSchedule", "NoExecute"]).is_none(),
        may_stay: first_untolerated(taints, &tolerations, &["NoExecute"]).is_none(),
    }
}

/// Whether the pod's node selector and required node affinity let it onto the node.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(name, value)| node.label(name) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node)))
}

fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let by_label = |wanted: &NodeSelectorRequirement| requirement_holds(wanted, node.label(&wanted.key));
    let by_field =
        |wanted: &NodeSelectorRequirement| wanted.key == "metadata.name" && requirement_holds(wanted, Some(node.name()));
    // A term that asks for nothing matches nothing.
    let empty = term.match_expressions.iter().flatten().next().is_none() && term.match_fields.iter().flatten().next().is_none();
    !empty && expressions.into_iter().all(by_label) && fields.into_iter().all(by_field)
}

fn requirement_holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let Some(operator) = Operator::from_expression(&wanted.operator) else { return false };
    Requirement::new(&wanted.key, operator, wanted.values.clone().unwrap_or_default())
        .is_ok_and(|requirement| requirement.holds_for(value))
}

fn tolerations(set: &DaemonSet) -> Vec<Toleration> {
    let spec = set.spec.template.spec.clone().unwrap_or_default();
    let mut tolerations = spec.tolerations.unwrap_or_default();
    let host_network = (spec.host_network == Some(true)).then_some(TOLERATED_ON_HOST_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(host_network) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// The scheduler binds it; the affinity leaves it one node to choose from.
pub fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let mut pod = pods::from_template(&set.spec.template, set);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    labels.insert("pod-template-generation".into(), set.metadata.generation.unwrap_or(1).to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(set));
    let pinned = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.into()]),
        }]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![pinned] });
    pod
}

/// The node that the pod is on, or is meant for.
pub fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    name.values.as_ref()?.first().map(String::as_str)
}
