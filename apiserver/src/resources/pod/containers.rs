//! Containers of a pod: ports, environment, mounts, resources, probes, hooks.

use super::validation::{id, seccomp};
use super::{probes, volumes};
use crate::http::error::Invalid;
use crate::resources::amounts::{self, List, amount, is_exact, is_extended};
use crate::resources::rules;
use serde_json::{Value, json};
use slipway_api::core::{
    Container, ContainerPort, ContainerResizePolicy, EnvFromSource, EnvVar, EnvVarSource, PodSpec, ResourceRequirements,
    SecurityContext,
};
use slipway_api::name;
use slipway_api::pod::is_sidecar;
use slipway_api::quantity::Quantity;
use std::collections::BTreeSet;

const FIELDS_OF_ENV: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES_OF_ENV: [&str; 6] =
    ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
const DEFAULT_GRACE_SECONDS: i64 = 30;

pub fn check(at: &str, spec: &PodSpec, volumes: &BTreeSet<&str>, errors: &mut Vec<Invalid>) {
    let grace = spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    if spec.containers.is_empty() {
        errors.push(Invalid::required(format!("{at}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let at = format!("{at}.containers[{index}]");
        one(&at, container, spec.restart_policy.as_deref(), volumes, errors);
        if !container.name.is_empty() && !names.insert(container.name.as_str()) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(container.name)));
        }
        probes::lifecycle(&format!("{at}.lifecycle"), container.lifecycle.as_ref(), grace, errors);
        probes::check_all(&at, container, errors);
        if container.restart_policy.is_some() && container.restart_policy_rules.is_none() {
            let policies = ["Always", "Never", "OnFailure"];
            rules::maybe_one_of(&format!("{at}.restartPolicy"), container.restart_policy.as_deref(), &policies, errors);
        }
        conflicts(&at, container, &mut host_ports, errors);
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let at = format!("{at}.initContainers[{index}]");
        one(&at, container, spec.restart_policy.as_deref(), volumes, errors);
        if !container.name.is_empty() && !names.insert(container.name.as_str()) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(container.name)));
        }
        if is_sidecar(container) {
            probes::lifecycle(&format!("{at}.lifecycle"), container.lifecycle.as_ref(), grace, errors);
            probes::check_all(&at, container, errors);
            conflicts(&at, container, &mut host_ports, errors);
        } else {
            let why = "may not be set for init containers without restartPolicy=Always";
            let given = [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ];
            let given = given.into_iter().filter(|(_, given)| *given);
            errors.extend(given.map(|(field, _)| Invalid::forbidden(format!("{at}.{field}"), why)));
            conflicts(&at, container, &mut BTreeSet::new(), errors);
        }
    }
}

/// What all containers have in common.
pub fn one(at: &str, container: &Container, of_pod: Option<&str>, volumes: &BTreeSet<&str>, errors: &mut Vec<Invalid>) {
    if container.name.is_empty() {
        errors.push(Invalid::required(format!("{at}.name"), ""));
    } else {
        rules::all(&format!("{at}.name"), &container.name, name::dns1123_label(&container.name), errors);
    }
    match container.image.as_deref().unwrap_or("") {
        "" => errors.push(Invalid::required(format!("{at}.image"), "")),
        image if image.trim() != image => {
            let why = "must not have leading or trailing whitespace";
            errors.push(Invalid::value(format!("{at}.image"), &json!(image), why));
        }
        _ => {}
    }
    let policies = ["FallbackToLogsOnError", "File"];
    rules::one_of(&format!("{at}.terminationMessagePolicy"), container.termination_message_policy.as_deref(), &policies, errors);
    ports(&format!("{at}.ports"), container.ports.as_deref().unwrap_or(&[]), errors);
    env(&format!("{at}.env"), container.env.as_deref().unwrap_or(&[]), errors);
    env_from(&format!("{at}.envFrom"), container.env_from.as_deref().unwrap_or(&[]), errors);
    volumes::mounts(&format!("{at}.volumeMounts"), container.volume_mounts.as_deref().unwrap_or(&[]), volumes, errors);
    let policies = ["Always", "IfNotPresent", "Never"];
    rules::one_of(&format!("{at}.imagePullPolicy"), container.image_pull_policy.as_deref(), &policies, errors);
    if let Some(wanted) = &container.resources {
        resources(&format!("{at}.resources"), wanted, errors);
    }
    resize_policy(&format!("{at}.resizePolicy"), container.resize_policy.as_deref().unwrap_or(&[]), of_pod, errors);
    if let Some(context) = &container.security_context {
        security_context(&format!("{at}.securityContext"), context, errors);
    }
}

fn ports(at: &str, ports: &[ContainerPort], errors: &mut Vec<Invalid>) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let wrong = rules::port_name(name);
            if !wrong.is_empty() {
                rules::all(&format!("{at}.name"), name, wrong, errors);
            } else if !names.insert(name) {
                errors.push(Invalid::duplicate(format!("{at}.name"), &json!(name)));
            }
        }
        match port.container_port {
            0 => errors.push(Invalid::required(format!("{at}.containerPort"), "")),
            number => rules::port(&format!("{at}.containerPort"), number, errors),
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            rules::port(&format!("{at}.hostPort"), number, errors);
        }
        rules::one_of(&format!("{at}.protocol"), port.protocol.as_deref(), &rules::PROTOCOLS, errors);
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err()) {
            errors.push(Invalid::value(format!("{at}.hostIP"), &json!(ip), super::validation::IP));
        }
    }
}

/// Two containers can't have one port of the node.
fn conflicts(at: &str, container: &Container, taken: &mut BTreeSet<String>, errors: &mut Vec<Invalid>) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let Some(number) = port.host_port.filter(|number| *number != 0) else { continue };
        let (protocol, ip) = (port.protocol.as_deref().unwrap_or("TCP"), port.host_ip.as_deref().unwrap_or(""));
        let place = format!("{protocol}/{ip}/{number}");
        if !taken.insert(place.clone()) {
            errors.push(Invalid::duplicate(format!("{at}.ports[{index}].hostPort"), &json!(place)));
        }
    }
}

/// On the node's network a container's ports are the node's.
pub fn host_network(at: &str, spec: &PodSpec, in_template: bool, errors: &mut Vec<Invalid>) {
    if spec.host_network != Some(true) {
        return;
    }
    let lists = [("containers", spec.containers.as_slice()), ("initContainers", spec.init_containers.as_deref().unwrap_or(&[]))];
    for (field, containers) in lists {
        for (container_index, container) in containers.iter().enumerate() {
            for (index, port) in container.ports.iter().flatten().enumerate() {
                let host_port = port.host_port.unwrap_or(0);
                if host_port != port.container_port && !(in_template && host_port == 0) {
                    let at = format!("{at}.{field}[{container_index}].ports[{index}].hostPort");
                    let why = "must match `containerPort` when `hostNetwork` is true";
                    errors.push(Invalid::value(at, &json!(host_port), why));
                }
            }
        }
    }
}

fn variable_name(at: &str, name: &str, errors: &mut Vec<Invalid>) {
    if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        let why = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        errors.push(Invalid::value(at, &json!(name), why));
    }
}

fn env(at: &str, variables: &[EnvVar], errors: &mut Vec<Invalid>) {
    for (index, variable) in variables.iter().enumerate() {
        let at = format!("{at}[{index}]");
        match variable.name.as_str() {
            "" => errors.push(Invalid::required(format!("{at}.name"), "")),
            name => variable_name(&format!("{at}.name"), name, errors),
        }
        if let Some(source) = &variable.value_from {
            value_from(&format!("{at}.valueFrom"), variable, source, errors);
        }
    }
}

fn value_from(at: &str, variable: &EnvVar, source: &EnvVarSource, errors: &mut Vec<Invalid>) {
    if let Some(field) = &source.field_ref {
        volumes::field_ref(&format!("{at}.fieldRef"), field, &FIELDS_OF_ENV, errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        resource_ref(&format!("{at}.resourceFieldRef"), &resource.resource, errors);
    }
    if let Some(map) = &source.config_map_key_ref {
        reference(&format!("{at}.configMapKeyRef.name"), &map.name, errors);
        volumes::key(&format!("{at}.configMapKeyRef.key"), &map.key, errors);
    }
    if let Some(secret) = &source.secret_key_ref {
        reference(&format!("{at}.secretKeyRef.name"), &secret.name, errors);
        volumes::key(&format!("{at}.secretKeyRef.key"), &secret.key, errors);
    }
    let given = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    let count = given.into_iter().filter(|given| *given).count();
    let mut refuse = |why: &str| errors.push(Invalid::value(at, &json!(""), why));
    if count == 0 {
        refuse("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
    } else if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        refuse("may not be specified when `value` is not empty");
    } else if count > 1 {
        refuse("may not have more than one field specified at a time");
    }
}

fn reference(at: &str, to: &str, errors: &mut Vec<Invalid>) {
    if !to.is_empty() {
        rules::all(at, to, name::dns1123_subdomain(to), errors);
    }
}

/// A request or limit of a container, for an environment variable or a file.
pub fn resource_ref(at: &str, resource: &str, errors: &mut Vec<Invalid>) {
    if resource.is_empty() {
        errors.push(Invalid::required(format!("{at}.resource"), ""));
    } else if !RESOURCES_OF_ENV.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        errors.push(Invalid::not_supported(format!("{at}.resource"), &json!(resource), &RESOURCES_OF_ENV));
    }
}

fn env_from(at: &str, sources: &[EnvFromSource], errors: &mut Vec<Invalid>) {
    for (index, source) in sources.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            variable_name(&format!("{at}.prefix"), prefix, errors);
        }
        let map = source.config_map_ref.as_ref().map(|map| ("configMapRef", &map.name));
        let secret = source.secret_ref.as_ref().map(|secret| ("secretRef", &secret.name));
        for (field, name) in [map, secret].into_iter().flatten() {
            match name.as_str() {
                "" => errors.push(Invalid::required(format!("{at}.{field}.name"), "")),
                name => reference(&format!("{at}.{field}.name"), name, errors),
            }
        }
        match (map, secret) {
            (None, None) => {
                errors.push(Invalid::value(&at, &json!(""), "must specify one of: `configMapRef` or `secretRef`"));
            }
            (Some(_), Some(_)) => {
                errors.push(Invalid::value(&at, &json!(""), "may not have more than one field specified at a time"));
            }
            _ => {}
        }
    }
}

/// A list of amounts: none negative.
pub fn quantities(at: &str, list: Option<&List>, errors: &mut Vec<Invalid>) {
    for (resource, text) in list.into_iter().flatten() {
        let at = format!("{at}[{resource}]");
        if let Some(quantity) = amount(&at, text, errors)
            && is_extended(resource)
            && quantity != Quantity::from_value(quantity.value())
        {
            errors.push(Invalid::value(&at, &json!(text.0), "must be an integer"));
        }
    }
}

fn resource_names(at: &str, list: Option<&List>, errors: &mut Vec<Invalid>) {
    for resource in list.into_iter().flatten().map(|(resource, _)| resource) {
        amounts::check_container_name(&format!("{at}[{resource}]"), resource, errors);
    }
}

pub fn resources(at: &str, wanted: &ResourceRequirements, errors: &mut Vec<Invalid>) {
    let (limits, requests) = (wanted.limits.as_ref(), wanted.requests.as_ref());
    resource_names(&format!("{at}.limits"), limits, errors);
    quantities(&format!("{at}.limits"), limits, errors);
    resource_names(&format!("{at}.requests"), requests, errors);
    quantities(&format!("{at}.requests"), requests, errors);
    for (resource, amount) in requests.into_iter().flatten() {
        let at_requests = format!("{at}.requests");
        let Ok(request) = Quantity::parse(&amount.0) else { continue };
        let limit = limits.and_then(|limits| limits.get(resource)).and_then(|limit| Quantity::parse(&limit.0).ok());
        match limit {
            Some(limit) if is_exact(resource) && request != limit => {
                let why = format!("must be equal to {resource} limit of {limit}");
                errors.push(Invalid::value(at_requests, &json!(amount.0), &why));
            }
            Some(limit) if request > limit => {
                let why = format!("must be less than or equal to {resource} limit of {limit}");
                errors.push(Invalid::value(at_requests, &json!(amount.0), &why));
            }
            None if is_exact(resource) => {
                errors.push(Invalid::required(format!("{at}.limits"), "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
}

/// Which resources a container is restarted for when they are resized. One that is never restarted can't be.
fn resize_policy(at: &str, policies: &[ContainerResizePolicy], of_pod: Option<&str>, errors: &mut Vec<Invalid>) {
    for (index, policy) in policies.iter().enumerate() {
        let resource = policy.resource_name.as_str();
        if policies[..index].iter().any(|other| other.resource_name == resource) {
            errors.push(Invalid::duplicate(format!("{at}[{index}]"), &json!(resource)));
        }
        rules::one_of(at, Some(resource), &["cpu", "memory"], errors);
        rules::one_of(at, Some(&policy.restart_policy), &["NotRequired", "RestartContainer"], errors);
        if of_pod == Some("Never") && policy.restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(Invalid::value(at, &json!(policy.restart_policy), why));
        }
    }
}

fn security_context(at: &str, context: &SecurityContext, errors: &mut Vec<Invalid>) {
    id(&format!("{at}.runAsUser"), context.run_as_user, errors);
    id(&format!("{at}.runAsGroup"), context.run_as_group, errors);
    let mounts = ["Default", "Unmasked"];
    rules::maybe_one_of(&format!("{at}.procMount"), context.proc_mount.as_deref(), &mounts, errors);
    if context.allow_privilege_escalation == Some(false) {
        let whole: Value = json!(context);
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Invalid::value(at, &whole, why));
        }
        let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref()).unwrap_or(&[]);
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Invalid::value(at, &whole, why));
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        seccomp(&format!("{at}.seccompProfile"), &profile.type_, profile.localhost_profile.as_deref(), errors);
    }
}
