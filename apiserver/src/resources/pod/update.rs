//! What an update may change of a pod: little, for a pod runs as it was made.

use crate::http::error::Invalid;
use serde_json::{Value, json};
use slipway_api::core::{Container, Pod, PodSpec, Toleration};

const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// How much of a difference a message shows.
const SHOWN_MAX: usize = 10;

pub fn check(pod: &Pod, old: &Pod) -> Vec<Invalid> {
    let mut errors = vec![];
    let (new, old) = (pod.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let counts = [
        ("spec.containers", new.containers.len(), old.containers.len()),
        ("spec.initContainers", count(&new.init_containers), count(&old.init_containers)),
    ];
    for (at, new, old) in counts {
        if new != old {
            errors.push(Invalid::forbidden(at, "pod updates may not add or remove containers"));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    deadline(&new, &old, &mut errors);
    gates(&new, &old, &mut errors);
    tolerations(&new, &old, &mut errors);

    // With all that may change put back, nothing may differ.
    let mut munged = new.clone();
    put_back_images(&mut munged.containers, &old.containers);
    if let (Some(new), Some(old)) = (&mut munged.init_containers, &old.init_containers) {
        put_back_images(new, old);
    }
    munged.active_deadline_seconds = old.active_deadline_seconds;
    munged.scheduling_gates = old.scheduling_gates.clone();
    munged.tolerations = old.tolerations.clone();
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) && new.termination_grace_period_seconds == Some(1)
    {
        munged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        narrow(&new, &old, &mut munged, &mut errors);
    }
    let (munged, old) = (json!(munged), json!(old));
    if munged != old {
        let mut lines = vec![];
        difference("spec", &old, &munged, &mut lines);
        let why = format!("pod updates may not change fields other than {CHANGEABLE}\n{}", lines.join("\n"));
        errors.push(Invalid::forbidden("spec", &why));
    }
    errors
}

fn count(containers: &Option<Vec<Container>>) -> usize {
    containers.as_ref().map_or(0, Vec::len)
}

fn put_back_images(new: &mut [Container], old: &[Container]) {
    for (new, old) in new.iter_mut().zip(old) {
        new.image.clone_from(&old.image);
    }
}

fn deadline(new: &PodSpec, old: &PodSpec, errors: &mut Vec<Invalid>) {
    let at = "spec.activeDeadlineSeconds";
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.push(Invalid::value(at, &json!(new), "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(Invalid::value(at, &Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn gates(new: &PodSpec, old: &PodSpec, errors: &mut Vec<Invalid>) {
    for gate in new.scheduling_gates.iter().flatten() {
        if !old.scheduling_gates.iter().flatten().any(|old| old.name == gate.name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(Invalid::forbidden("spec.schedulingGates", &why));
        }
    }
}

fn tolerations(new: &PodSpec, old: &PodSpec, errors: &mut Vec<Invalid>) {
    let but_seconds = |toleration: &Toleration| Toleration { toleration_seconds: None, ..toleration.clone() };
    let kept = |old: &Toleration| {
        let same = |new: &Toleration| but_seconds(new) == but_seconds(old);
        new.tolerations.iter().flatten().any(same)
    };
    if !old.tolerations.iter().flatten().all(kept) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Invalid::forbidden("spec.tolerations", why));
    }
}

/// A pod that waits at a gate may be narrowed: to more labels of nodes.
fn narrow(new: &PodSpec, old: &PodSpec, munged: &mut PodSpec, errors: &mut Vec<Invalid>) {
    let more = new.node_selector.clone().unwrap_or_default();
    let kept = old.node_selector.iter().flatten().all(|(key, value)| more.get(key) == Some(value));
    if kept {
        munged.node_selector.clone_from(&old.node_selector);
    } else {
        let why = "Invalid value: only additions are allowed (no mutations or deletions)";
        errors.push(Invalid::value("spec.nodeSelector", &json!(new.node_selector), why.trim_start_matches("Invalid value: ")));
        munged.node_selector.clone_from(&old.node_selector);
    }
}

/// The places that differ, as `-` and `+` lines.
pub fn difference(at: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if old == new || lines.len() >= SHOWN_MAX {
        return;
    }
    match (old, new) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (old, new) = (one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null));
                difference(&format!("{at}.{key}"), old, new, lines);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (old, new)) in one.iter().zip(other).enumerate() {
                difference(&format!("{at}[{index}]"), old, new, lines);
            }
        }
        _ => {
            lines.push(format!("- {at}: {old}"));
            lines.push(format!("+ {at}: {new}"));
        }
    }
}
