//! What a pod's spec must be like. Containers, volumes and what the scheduler reads have files of their own.

use super::{containers, ephemeral, scheduling, volumes, whole};
use crate::http::error::Invalid;
use crate::resources::rules;
use serde_json::{Value, json};
use slipway_api::core::{HostAlias, PodDNSConfig, PodSecurityContext, PodSpec};
use slipway_api::name;
use std::net::IpAddr;

const IDS: &str = "must be between 0 and 2147483647, inclusive";
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
pub const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// `in_template`: the spec is that of a template, whose pods' host ports are filled in later.
pub fn spec(at: &str, spec: &PodSpec, in_template: bool, errors: &mut Vec<Invalid>) {
    let volumes = volumes::check(&format!("{at}.volumes"), spec.volumes.as_deref().unwrap_or(&[]), errors);
    containers::check(at, spec, &volumes, errors);
    ephemeral::check(at, spec, &volumes, errors);
    whole::check(&format!("{at}.resources"), spec, errors);
    containers::host_network(at, spec, in_template, errors);
    rules::one_of(&format!("{at}.restartPolicy"), spec.restart_policy.as_deref(), &["Always", "Never", "OnFailure"], errors);
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    rules::one_of(&format!("{at}.dnsPolicy"), spec.dns_policy.as_deref(), &policies, errors);
    rules::labels(&format!("{at}.nodeSelector"), spec.node_selector.as_ref(), errors);
    if let Some(context) = &spec.security_context {
        security_context(&format!("{at}.securityContext"), context, errors);
    }
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            errors.push(Invalid::required(format!("{at}.imagePullSecrets[{index}].name"), ""));
        }
    }
    scheduling::affinity(&format!("{at}.affinity"), spec.affinity.as_ref(), errors);
    dns(&format!("{at}.dnsConfig"), spec.dns_policy.as_deref(), spec.dns_config.as_ref(), errors);
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = format!("{at}.readinessGates[{index}].conditionType");
        rules::all(&at, &gate.condition_type, name::qualified_name(&gate.condition_type), errors);
    }
    scheduling::gates(&format!("{at}.schedulingGates"), spec.scheduling_gates.as_deref().unwrap_or(&[]), errors);
    scheduling::spread(
        &format!("{at}.topologySpreadConstraints"),
        spec.topology_spread_constraints.as_deref().unwrap_or(&[]),
        errors,
    );
    names(at, spec, errors);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(Invalid::value(format!("{at}.activeDeadlineSeconds"), &json!(seconds), why));
    }
    scheduling::tolerations(&format!("{at}.tolerations"), spec.tolerations.as_deref().unwrap_or(&[]), errors);
    host_aliases(&format!("{at}.hostAliases"), spec.host_aliases.as_deref().unwrap_or(&[]), errors);
    let policies = ["Never", "PreemptLowerPriority"];
    rules::maybe_one_of(&format!("{at}.preemptionPolicy"), spec.preemption_policy.as_deref(), &policies, errors);
    containers::quantities(&format!("{at}.overhead"), spec.overhead.as_ref(), errors);
    if let Some(os) = &spec.os {
        rules::one_of(&format!("{at}.os.name"), Some(&os.name), &["linux", "windows"], errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Invalid::value(format!("{at}.shareProcessNamespace"), &json!(true), why));
    }
}

fn names(at: &str, spec: &PodSpec, errors: &mut Vec<Invalid>) {
    type Rule = fn(&str) -> Vec<String>;
    let fields: [(&str, Option<&String>, Rule); 6] = [
        ("serviceAccountName", spec.service_account_name.as_ref(), name::dns1123_subdomain),
        ("nodeName", spec.node_name.as_ref(), name::dns1123_subdomain),
        ("hostname", spec.hostname.as_ref(), name::dns1123_label),
        ("subdomain", spec.subdomain.as_ref(), name::dns1123_label),
        ("priorityClassName", spec.priority_class_name.as_ref(), name::dns1123_subdomain),
        ("runtimeClassName", spec.runtime_class_name.as_ref(), name::dns1123_subdomain),
    ];
    for (field, value, rule) in fields {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            rules::all(&format!("{at}.{field}"), value, rule(value), errors);
        }
    }
}

fn host_aliases(at: &str, aliases: &[HostAlias], errors: &mut Vec<Invalid>) {
    for (index, alias) in aliases.iter().enumerate() {
        if alias.ip.parse::<IpAddr>().is_err() {
            errors.push(Invalid::value(format!("{at}[{index}].ip"), &json!(alias.ip), IP));
        }
        for hostname in alias.hostnames.iter().flatten() {
            rules::all(&format!("{at}[{index}].hostnames"), hostname, name::dns1123_subdomain(hostname), errors);
        }
    }
}

fn security_context(at: &str, context: &PodSecurityContext, errors: &mut Vec<Invalid>) {
    id(&format!("{at}.fsGroup"), context.fs_group, errors);
    id(&format!("{at}.runAsUser"), context.run_as_user, errors);
    id(&format!("{at}.runAsGroup"), context.run_as_group, errors);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(&format!("{at}.supplementalGroups[{index}]"), Some(*group), errors);
    }
    let policies = ["Always", "OnRootMismatch"];
    rules::maybe_one_of(&format!("{at}.fsGroupChangePolicy"), context.fs_group_change_policy.as_deref(), &policies, errors);
    let policies = ["Merge", "Strict"];
    rules::maybe_one_of(
        &format!("{at}.supplementalGroupsPolicy"),
        context.supplemental_groups_policy.as_deref(),
        &policies,
        errors,
    );
    let mut seen = std::collections::BTreeSet::new();
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = format!("{at}.sysctls[{index}].name");
        let segment = |part: &str| {
            part.split('.').all(|word| {
                let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let bytes = word.as_bytes();
                edge(bytes.first())
                    && edge(bytes.last())
                    && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b))
            })
        };
        if sysctl.name.is_empty() {
            errors.push(Invalid::required(at, ""));
        } else if sysctl.name.len() > 253 || !sysctl.name.split('/').all(segment) {
            let why = "must have at most 253 characters and match regex \
                       ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(Invalid::value(at, &json!(sysctl.name), why));
        } else if !seen.insert(&sysctl.name) {
            errors.push(Invalid::duplicate(at, &json!(sysctl.name)));
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        seccomp(&format!("{at}.seccompProfile"), &profile.type_, profile.localhost_profile.as_deref(), errors);
    }
}

pub fn id(at: &str, id: Option<i64>, errors: &mut Vec<Invalid>) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.push(Invalid::value(at, &json!(id), IDS));
    }
}

pub fn seccomp(at: &str, kind: &str, localhost: Option<&str>, errors: &mut Vec<Invalid>) {
    match (kind, localhost) {
        ("Localhost", None) => {
            errors.push(Invalid::required(format!("{at}.localhostProfile"), "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(path)) => volumes::relative_path(&format!("{at}.localhostProfile"), path, errors),
        ("RuntimeDefault" | "Unconfined", Some(_)) => {
            let why = "can only be set when seccomp type is Localhost";
            errors.push(Invalid::value(format!("{at}.localhostProfile"), &json!(localhost), why));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.push(Invalid::required(format!("{at}.type"), "type is required when seccompProfile is set")),
        (other, _) => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(Invalid::not_supported(format!("{at}.type"), &json!(other), &supported));
        }
    }
}

fn dns(at: &str, policy: Option<&str>, config: Option<&PodDNSConfig>, errors: &mut Vec<Invalid>) {
    let alone = policy == Some("None");
    let Some(config) = config else {
        if alone {
            errors.push(Invalid::required(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or(&[]);
    if alone && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Invalid::required(format!("{at}.nameservers"), why));
    }
    if servers.len() > NAMESERVERS_MAX {
        let why = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(Invalid::value(format!("{at}.nameservers"), &json!(servers), &why));
    }
    for (index, server) in servers.iter().enumerate().filter(|(_, server)| server.parse::<IpAddr>().is_err()) {
        errors.push(Invalid::value(format!("{at}.nameservers[{index}]"), &json!(server), IP));
    }
    let searches = config.searches.as_deref().unwrap_or(&[]);
    if searches.len() > SEARCHES_MAX {
        let why = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(Invalid::value(format!("{at}.searches"), &Value::Null, &why));
    }
    if searches.iter().map(|search| search.len() + 1).sum::<usize>() > SEARCH_CHARS_MAX + 1 {
        let why = format!("must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list");
        errors.push(Invalid::value(format!("{at}.searches"), &json!(searches), &why));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let bare = search.strip_suffix('.').unwrap_or(search).replace('_', "-");
        rules::all(&format!("{at}.searches[{index}]"), search, name::dns1123_subdomain(bare.trim_start_matches('-')), errors);
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or("").is_empty() {
            errors.push(Invalid::required(format!("{at}.options[{index}]"), "must not be empty"));
        }
    }
}
