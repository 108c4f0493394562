//! What the scheduler reads of a pod: affinities, tolerations, spreading, gates.

use crate::http::error::Invalid;
use crate::resources::rules;
use serde_json::json;
use slipway_api::core::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSchedulingGate, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use slipway_api::name;
use std::collections::BTreeSet;

const WEIGHT: &str = "must be in the range 1-100";
const EMPTY_KEY: &str = "can not be empty";

pub fn affinity(at: &str, affinity: Option<&Affinity>, errors: &mut Vec<Invalid>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let at = format!("{at}.nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(&format!("{at}.requiredDuringSchedulingIgnoredDuringExecution"), selector, errors);
        }
        for (index, term) in node.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let at = format!("{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
            weight(&at, term.weight, errors);
            node_term(&format!("{at}.preference"), &term.preference, errors);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        let at = format!("{at}.podAffinity");
        pod_terms(
            &at,
            pods.required_during_scheduling_ignored_during_execution.as_deref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_deref(),
            errors,
        );
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let at = format!("{at}.podAntiAffinity");
        pod_terms(
            &at,
            pods.required_during_scheduling_ignored_during_execution.as_deref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_deref(),
            errors,
        );
    }
}

pub fn node_selector(at: &str, selector: &NodeSelector, errors: &mut Vec<Invalid>) {
    let at = format!("{at}.nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Invalid::required(&at, "must have at least one node selector term"));
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(&format!("{at}[{index}]"), term, errors);
    }
}

fn weight(at: &str, weight: i32, errors: &mut Vec<Invalid>) {
    if !(1..=100).contains(&weight) {
        errors.push(Invalid::value(format!("{at}.weight"), &json!(weight), WEIGHT));
    }
}

fn node_term(at: &str, term: &NodeSelectorTerm, errors: &mut Vec<Invalid>) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = format!("{at}.matchExpressions[{index}]");
        node_requirement(&at, requirement, errors);
        rules::all(&format!("{at}.key"), &requirement.key, name::qualified_name(&requirement.key), errors);
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        let at = format!("{at}.matchFields[{index}]");
        match requirement.operator.as_str() {
            "In" | "NotIn" if requirement.values.as_ref().map_or(0, Vec::len) != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(Invalid::required(format!("{at}.values"), why));
            }
            "In" | "NotIn" => {}
            other => errors.push(Invalid::value(format!("{at}.operator"), &json!(other), "not a valid selector operator")),
        }
        if requirement.key != "metadata.name" {
            errors.push(Invalid::value(format!("{at}.key"), &json!(requirement.key), "not a valid field selector key"));
        }
    }
}

fn node_requirement(at: &str, requirement: &NodeSelectorRequirement, errors: &mut Vec<Invalid>) {
    let count = requirement.values.as_ref().map_or(0, Vec::len);
    match requirement.operator.as_str() {
        "In" | "NotIn" if count == 0 => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Invalid::required(format!("{at}.values"), why));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Invalid::forbidden(format!("{at}.values"), why));
        }
        "Gt" | "Lt" if count != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(Invalid::required(format!("{at}.values"), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Invalid::value(format!("{at}.operator"), &json!(other), "not a valid selector operator")),
    }
}

fn pod_terms(
    at: &str,
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    errors: &mut Vec<Invalid>,
) {
    for (index, term) in required.unwrap_or(&[]).iter().enumerate() {
        pod_term(&format!("{at}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"), term, errors);
    }
    for (index, weighted) in preferred.unwrap_or(&[]).iter().enumerate() {
        let at = format!("{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        weight(&at, weighted.weight, errors);
        pod_term(&format!("{at}.podAffinityTerm"), &weighted.pod_affinity_term, errors);
    }
}

fn pod_term(at: &str, term: &PodAffinityTerm, errors: &mut Vec<Invalid>) {
    if let Some(selector) = &term.label_selector {
        rules::label_selector(&format!("{at}.labelSelector"), selector, errors);
    }
    if let Some(selector) = &term.namespace_selector {
        rules::label_selector(&format!("{at}.namespaceSelector"), selector, errors);
    }
    for namespace in term.namespaces.iter().flatten() {
        rules::all(&format!("{at}.namespace"), namespace, name::dns1123_label(namespace), errors);
    }
    topology_key(at, &term.topology_key, errors);
}

fn topology_key(at: &str, key: &str, errors: &mut Vec<Invalid>) {
    let at = format!("{at}.topologyKey");
    if key.is_empty() {
        errors.push(Invalid::required(&at, EMPTY_KEY));
    }
    rules::all(&at, key, name::qualified_name(key), errors);
}

pub fn tolerations(at: &str, tolerations: &[Toleration], errors: &mut Vec<Invalid>) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let key = toleration.key.as_deref().unwrap_or("");
        let operator = toleration.operator.as_deref().unwrap_or("");
        let value = toleration.value.as_deref().unwrap_or("");
        let effect = toleration.effect.as_deref().unwrap_or("");
        if !key.is_empty() {
            rules::all(&format!("{at}.key"), key, name::qualified_name(key), errors);
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Invalid::value(format!("{at}.operator"), &json!(operator), why));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Invalid::value(format!("{at}.effect"), &json!(effect), why));
        }
        match operator {
            "" | "Equal" => {
                let wrong = name::label_value(value).join(";");
                if !wrong.is_empty() {
                    errors.push(Invalid::value(format!("{at}.operator"), &json!(value), &wrong));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(Invalid::value(format!("{at}.operator"), &json!(toleration), why));
            }
            "Exists" => {}
            other => errors.push(Invalid::not_supported(format!("{at}.operator"), &json!(other), &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
            rules::maybe_one_of(&format!("{at}.effect"), Some(effect), &effects, errors);
        }
    }
}

pub fn spread(at: &str, constraints: &[TopologySpreadConstraint], errors: &mut Vec<Invalid>) {
    let mut seen = BTreeSet::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if constraint.max_skew <= 0 {
            errors.push(Invalid::value(format!("{at}.maxSkew"), &json!(constraint.max_skew), rules::POSITIVE));
        }
        topology_key(&at, &constraint.topology_key, errors);
        let when = constraint.when_unsatisfiable.as_str();
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(Invalid::not_supported(format!("{at}.whenUnsatisfiable"), &json!(when), &supported));
        }
        if !seen.insert((&constraint.topology_key, when)) {
            let pair = format!("{{{}, {when}}}", constraint.topology_key);
            errors.push(Invalid::duplicate(format!("{at}.{{topologyKey, whenUnsatisfiable}}"), &json!(pair)));
        }
        if let Some(least) = constraint.min_domains {
            if least <= 0 {
                errors.push(Invalid::value(format!("{at}.minDomains"), &json!(least), rules::POSITIVE));
            }
            if when != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(Invalid::value(format!("{at}.minDomains"), &json!(least), &why));
            }
        }
        let policies = ["Honor", "Ignore"];
        rules::maybe_one_of(&format!("{at}.nodeAffinityPolicy"), constraint.node_affinity_policy.as_deref(), &policies, errors);
        rules::maybe_one_of(&format!("{at}.nodeTaintsPolicy"), constraint.node_taints_policy.as_deref(), &policies, errors);
        if let Some(selector) = &constraint.label_selector {
            rules::label_selector(&format!("{at}.labelSelector"), selector, errors);
        }
    }
}

pub fn gates(at: &str, gates: &[PodSchedulingGate], errors: &mut Vec<Invalid>) {
    let mut seen = BTreeSet::new();
    for (index, gate) in gates.iter().enumerate() {
        let at = format!("{at}[{index}]");
        rules::all(&at, &gate.name, name::qualified_name(&gate.name), errors);
        if !seen.insert(&gate.name) {
            errors.push(Invalid::duplicate(at, &json!(gate.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[Invalid]) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn tolerations_fit_together() {
        let mut errors = vec![];
        let list: Vec<Toleration> = serde_json::from_value(json!([
            {"operator": "Exists"}, {"key": "a", "value": "b"}, {"operator": "Equal"},
            {"key": "a", "operator": "Exists", "value": "x"}, {"key": "a", "tolerationSeconds": 5, "effect": "NoSchedule"},
            {"key": "a", "operator": "Has", "effect": "Never"}
        ]))
        .unwrap();
        tolerations("t", &list, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "t[2].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "t[3].operator: Invalid value: {\"key\":\"a\",\"operator\":\"Exists\",\"value\":\"x\"}: value must be empty when `operator` is 'Exists'",
                "t[4].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "t[5].operator: Unsupported value: \"Has\": supported values: \"Equal\", \"Exists\"",
                "t[5].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"",
            ]
        );
    }

    #[test]
    fn affinities_and_spreading() {
        let mut errors = vec![];
        let it: Affinity = serde_json::from_value(json!({
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {"matchExpressions": [
                    {"key": "a", "operator": "In"}, {"key": "b", "operator": "Gt", "values": ["1"]}]}}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]}
        }))
        .unwrap();
        affinity("a", Some(&it), &mut errors);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields[..3],
            [
                "a.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
                "a.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight",
                "a.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values",
            ]
        );
        assert_eq!(fields[3], "a.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey");
        let mut errors = vec![];
        let list: Vec<TopologySpreadConstraint> = serde_json::from_value(json!([
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 0},
            {"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "Panic"}
        ]))
        .unwrap();
        spread("s", &list, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "s[1].maxSkew: Invalid value: 0: must be greater than 0",
                "s[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, DoNotSchedule}\"",
                "s[1].minDomains: Invalid value: 0: must be greater than 0",
                "s[2].whenUnsatisfiable: Unsupported value: \"Panic\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            ]
        );
    }
}
