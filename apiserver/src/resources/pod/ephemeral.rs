//! Ephemeral containers: what they must be like, and that what is there stays. They are added through a subresource of their
//! own, to look into a pod that runs.

use super::containers;
use super::update::difference;
use crate::http::error::Invalid;
use crate::kind::{bump_generation, keep};
use serde_json::{Value, json};
use slipway_api::core::{EphemeralContainer, Pod, PodSpec};
use slipway_api::pod::as_container;
use std::collections::BTreeSet;

pub const SUBRESOURCE: &str = "ephemeralcontainers";
pub const FIELDS: &[&[&str]] = &[&["spec", "ephemeralContainers"]];

const NOT_FOR_THESE: &str = "cannot be set for an Ephemeral Container";

/// All but the ephemeral containers stays as it is.
pub fn prepare(object: &mut Value, old: &Value) {
    let wanted = object["spec"].get("ephemeralContainers").filter(|list| !list.is_null()).cloned();
    *object = super::with_version_of(object, old);
    match wanted {
        Some(wanted) => object["spec"]["ephemeralContainers"] = wanted,
        None => crate::kind::remove(&mut object["spec"], "ephemeralContainers"),
    }
    keep(object, old, "status");
    bump_generation(object, old);
}

/// Of a spec as a whole, after its other containers have been checked.
pub fn check(at: &str, spec: &PodSpec, volumes: &BTreeSet<&str>, errors: &mut Vec<Invalid>) {
    let others = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let others: BTreeSet<&str> = others.map(|container| container.name.as_str()).collect();
    let mut names = others.clone();
    for (index, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = format!("{at}.ephemeralContainers[{index}]");
        containers::one(&at, &as_container(ephemeral), spec.restart_policy.as_deref(), volumes, errors);
        if !names.insert(&ephemeral.name) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(ephemeral.name)));
        }
        let target = ephemeral.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !others.contains(target) {
            errors.push(Invalid::not_found(format!("{at}.targetContainerName"), &json!(target)));
        }
        forbidden(&at, ephemeral, errors);
    }
}

/// A pod must not come to depend on what somebody looks into it with.
fn forbidden(at: &str, ephemeral: &EphemeralContainer, errors: &mut Vec<Invalid>) {
    let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let resources = ephemeral.resources.as_ref().is_some_and(|resources| {
        let given = |list: &Option<crate::resources::amounts::List>| list.as_ref().is_some_and(|list| !list.is_empty());
        given(&resources.limits) || given(&resources.requests) || some(resources.claims.as_ref().map(Vec::len))
    });
    let given = [
        ("ports", some(ephemeral.ports.as_ref().map(Vec::len))),
        ("resources", resources),
        ("resizePolicy", some(ephemeral.resize_policy.as_ref().map(Vec::len))),
        ("restartPolicy", ephemeral.restart_policy.is_some()),
        ("restartPolicyRules", some(ephemeral.restart_policy_rules.as_ref().map(Vec::len))),
        ("livenessProbe", ephemeral.liveness_probe.is_some()),
        ("readinessProbe", ephemeral.readiness_probe.is_some()),
        ("startupProbe", ephemeral.startup_probe.is_some()),
        ("lifecycle", ephemeral.lifecycle.is_some()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given);
    errors.extend(given.map(|(field, _)| Invalid::forbidden(format!("{at}.{field}"), NOT_FOR_THESE)));
    for (index, mount) in ephemeral.volume_mounts.iter().flatten().enumerate() {
        for (field, path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if path.as_deref().is_some_and(|path| !path.is_empty()) {
                errors.push(Invalid::forbidden(format!("{at}.volumeMounts[{index}].{field}"), NOT_FOR_THESE));
            }
        }
    }
}

/// They can be added, and neither changed nor taken away.
pub fn check_update(pod: &Pod, old: &Pod) -> Vec<Invalid> {
    if super::is_mirror(old) {
        return vec![Invalid::forbidden("[]", "static pods do not support ephemeral containers")];
    }
    let at = "spec.ephemeralContainers";
    let list = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let new = list(pod);
    let mut errors = vec![];
    for before in list(old) {
        let name = &before.name;
        match new.iter().find(|container| container.name == *name) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(Invalid::forbidden(at, &why));
            }
            Some(container) if *container != before => {
                let mut lines = vec![];
                difference(name, &json!(before), &json!(container), &mut lines);
                let why = format!("existing ephemeral containers {name:?} may not be changed\n{}", lines.join("\n"));
                errors.push(Invalid::forbidden(at, &why));
            }
            Some(_) => {}
        }
    }
    errors
}
