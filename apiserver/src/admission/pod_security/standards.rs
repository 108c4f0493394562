//! The Pod Security Standards: which checks belong to which level, since which version.

use super::policy::{Level, Standard, Version};
use super::{baseline, restricted};
use slipway_api::core::{ContainerPort, Lifecycle, PodSpec, Probe, SecurityContext};
use std::collections::{BTreeMap, BTreeSet};

/// What the checks look at.
pub struct Subject<'a> {
    pub annotations: BTreeMap<String, String>,
    pub spec: &'a PodSpec,
}

/// What containers, init containers and ephemeral containers have in common.
pub struct One<'a> {
    pub name: &'a str,
    pub ports: &'a [ContainerPort],
    pub security: Option<&'a SecurityContext>,
    pub probes: [Option<&'a Probe>; 3],
    pub lifecycle: Option<&'a Lifecycle>,
}

impl Subject<'_> {
    /// In the order of the messages: init containers, containers, ephemeral ones.
    pub fn containers(&self) -> impl Iterator<Item = One<'_>> {
        let usual = self.spec.init_containers.iter().flatten().chain(&self.spec.containers);
        let usual = usual.map(|container| One {
            name: &container.name,
            ports: container.ports.as_deref().unwrap_or(&[]),
            security: container.security_context.as_ref(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe].map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        });
        let ephemeral = self.spec.ephemeral_containers.iter().flatten().map(|container| One {
            name: &container.name,
            ports: container.ports.as_deref().unwrap_or(&[]),
            security: container.security_context.as_ref(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe].map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        });
        usual.chain(ephemeral)
    }

    /// The names of the containers that `bad` is true of.
    pub fn those(&self, mut bad: impl FnMut(&One<'_>) -> bool) -> Vec<String> {
        self.containers().filter(|one| bad(one)).map(|one| one.name.to_owned()).collect()
    }

    pub fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// Its users are not the node's, so that root in it is nobody outside.
    pub fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }
}

/// Why a pod is not of a level: the reason alone is told of many pods, the detail of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    pub fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
        Some(Violation { reason: reason.into(), detail: detail.into() })
    }
}

pub type Decide = fn(&Subject<'_>) -> Option<Violation>;

struct Check {
    id: &'static str,
    level: Level,
    /// The minor versions from which on it is decided by what.
    since: &'static [(u32, Decide)],
    /// The check of the baseline that it makes superfluous.
    instead_of: &'static str,
}

const fn baseline(id: &'static str, since: &'static [(u32, Decide)]) -> Check {
    Check { id, level: Level::Baseline, since, instead_of: "" }
}

const fn restricted(id: &'static str, since: &'static [(u32, Decide)], instead_of: &'static str) -> Check {
    Check { id, level: Level::Restricted, since, instead_of }
}

/// Those of the baseline before those of the restricted level, each by name: the order of the messages.
static CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, baseline::app_armor)]),
    baseline("capabilities_baseline", &[(0, baseline::capabilities)]),
    baseline("hostNamespaces", &[(0, baseline::host_namespaces)]),
    baseline("hostPathVolumes", &[(0, baseline::host_paths)]),
    baseline("hostPorts", &[(0, baseline::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, baseline::probe_hosts)]),
    baseline("privileged", &[(0, baseline::privileged)]),
    baseline("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_35)]),
    baseline("seLinuxOptions", &[(0, baseline::selinux_0), (31, baseline::selinux_31)]),
    baseline("seccompProfile_baseline", &[(0, baseline::seccomp_0), (19, baseline::seccomp_19)]),
    baseline(
        "sysctls",
        &[
            (0, baseline::sysctls_0),
            (27, baseline::sysctls_27),
            (29, baseline::sysctls_29),
            (32, baseline::sysctls_32),
            (37, baseline::sysctls_37),
        ],
    ),
    baseline("windowsHostProcess", &[(0, baseline::host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, restricted::escalation_8), (25, restricted::escalation_25)], ""),
    restricted(
        "capabilities_restricted",
        &[(22, restricted::capabilities_22), (25, restricted::capabilities_25)],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, baseline::proc_mount)], "procMount"),
    restricted("restrictedVolumes", &[(0, restricted::volumes)], "hostPathVolumes"),
    restricted("runAsNonRoot", &[(0, restricted::non_root_0), (35, restricted::non_root_35)], ""),
    restricted("runAsUser", &[(23, restricted::user_23), (35, restricted::user_35)], ""),
    restricted(
        "seccompProfile_restricted",
        &[(19, restricted::seccomp_19), (25, restricted::seccomp_25)],
        "seccompProfile_baseline",
    ),
];

/// All that keeps the pod from being of the standard.
pub fn violations(standard: Standard, subject: &Subject<'_>) -> Vec<Violation> {
    let minor = match standard.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    let decide = |check: &Check| check.since.iter().rev().find(|(since, _)| *since <= minor).map(|(_, decide)| *decide);
    let asked: Vec<(&Check, Decide)> = CHECKS
        .iter()
        .filter(|check| check.level <= standard.level)
        .filter_map(|check| decide(check).map(|decide| (check, decide)))
        .collect();
    let replaced: BTreeSet<&str> = asked.iter().map(|(check, _)| check.instead_of).collect();
    let asked = asked.iter().filter(|(check, _)| !replaced.contains(check.id));
    asked.filter_map(|(_, decide)| decide(subject)).collect()
}

/// `privileged (container "a" must …), hostPort (…)`
pub fn details(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

// === how the details are worded ===

/// `"a", "b"`
pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

pub fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
pub fn containers(names: &[String]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and container "a"`: who sets what must not be set; `None` for nobody.
pub fn setters(pod: bool, names: &[String]) -> Option<String> {
    let containers = (!names.is_empty()).then(|| containers(names));
    let setters: Vec<String> = pod.then(|| "pod".to_owned()).into_iter().chain(containers).collect();
    (!setters.is_empty()).then(|| setters.join(" and "))
}
