//! The checks of the baseline: nothing that is known to lead out of a container.

use super::standards::{Subject, Violation, containers, plural, quoted, setters};
use slipway_api::core::{LifecycleHandler, PodSecurityContext, Probe, SELinuxOptions, SecurityContext};
use std::collections::BTreeSet;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// In the order in which they became allowed: the first five always were.
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_ANNOTATION_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The security contexts of pod and containers, asked for one thing: who answers with a bad value, and with which.
pub fn bad_values<'a>(
    subject: &'a Subject<'_>,
    of_pod: fn(&PodSecurityContext) -> Option<&str>,
    of_container: fn(&SecurityContext) -> Option<&str>,
    is_good: fn(&str) -> bool,
) -> (bool, Vec<String>, BTreeSet<String>) {
    let mut values = BTreeSet::new();
    let mut bad = |value: Option<&str>| {
        let bad = value.filter(|value| !is_good(value));
        values.extend(bad.map(str::to_owned));
        bad.is_some()
    };
    let pod = bad(subject.spec.security_context.as_ref().and_then(of_pod));
    let names = subject.those(|one| bad(one.security.and_then(of_container)));
    (pod, names, values)
}

pub fn app_armor(subject: &Subject<'_>) -> Option<Violation> {
    let (pod, names, values) = bad_values(
        subject,
        |context| Some(context.app_armor_profile.as_ref()?.type_.as_str()),
        |context| Some(context.app_armor_profile.as_ref()?.type_.as_str()),
        |type_| ["RuntimeDefault", "Localhost"].contains(&type_),
    );
    let is_good = |value: &str| ["", "runtime/default"].contains(&value) || value.starts_with("localhost/");
    let annotated = subject.annotations.iter().filter(|(key, value)| key.starts_with(APP_ARMOR_ANNOTATION) && !is_good(value));
    let annotated: Vec<String> = annotated.map(|(key, value)| format!("{key}={value:?}")).collect();
    let annotations = (!annotated.is_empty()).then(|| plural("annotation", "annotations", annotated.len()).to_owned());
    let who: Vec<String> = setters(pod, &names).into_iter().chain(annotations).collect();
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotated).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    Violation::new(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

pub fn capabilities(subject: &Subject<'_>) -> Option<Violation> {
    let (names, added) = adding(subject, |capability| CAPABILITIES.contains(&capability));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(added));
    Violation::new("non-default capabilities", detail)
}

/// The containers that add other capabilities, and which.
pub fn adding(subject: &Subject<'_>, is_good: fn(&str) -> bool) -> (Vec<String>, BTreeSet<String>) {
    let mut found = BTreeSet::new();
    let names = subject.those(|one| {
        let capabilities = one.security.and_then(|security| security.capabilities.as_ref());
        let added = capabilities.into_iter().flat_map(|capabilities| capabilities.add.iter().flatten());
        let bad: Vec<String> = added.filter(|capability| !is_good(capability)).cloned().collect();
        let any = !bad.is_empty();
        found.extend(bad);
        any
    });
    (names, found)
}

pub fn host_namespaces(subject: &Subject<'_>) -> Option<Violation> {
    let spec = subject.spec;
    let fields = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let shared = fields.into_iter().filter(|(_, shared)| *shared == Some(true)).map(|(field, _)| format!("{field}=true"));
    let shared: Vec<String> = shared.collect();
    if shared.is_empty() { None } else { Violation::new("host namespaces", shared.join(", ")) }
}

pub fn host_paths(subject: &Subject<'_>) -> Option<Violation> {
    let volumes = subject.spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let names: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    Violation::new("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

pub fn host_ports(subject: &Subject<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = subject.those(|one| {
        let own: Vec<String> =
            one.ports.iter().filter_map(|port| port.host_port.filter(|port| *port != 0)).map(|port| port.to_string()).collect();
        let any = !own.is_empty();
        ports.extend(own);
        any
    });
    if names.is_empty() {
        return None;
    }
    let uses = plural("uses", "use", names.len());
    let what = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    Violation::new("hostPort", format!("{} {uses} {what} {}", containers(&names), ports.join(", ")))
}

pub fn probe_hosts(subject: &Subject<'_>) -> Option<Violation> {
    fn given(host: Option<&String>) -> Option<String> {
        host.filter(|host| !host.is_empty()).cloned()
    }
    fn of_probe(probe: &Probe) -> [Option<String>; 2] {
        let http = probe.http_get.as_ref().and_then(|get| given(get.host.as_ref()));
        [http, probe.tcp_socket.as_ref().and_then(|socket| given(socket.host.as_ref()))]
    }
    fn of_handler(handler: &LifecycleHandler) -> [Option<String>; 2] {
        let http = handler.http_get.as_ref().and_then(|get| given(get.host.as_ref()));
        [http, handler.tcp_socket.as_ref().and_then(|socket| given(socket.host.as_ref()))]
    }
    let mut hosts = BTreeSet::new();
    let names = subject.those(|one| {
        let probes = one.probes.into_iter().flatten().flat_map(of_probe);
        let handlers = one.lifecycle.into_iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        let own: Vec<String> = probes.chain(handlers.flatten().flat_map(of_handler)).flatten().collect();
        let any = !own.is_empty();
        hosts.extend(own);
        any
    });
    if names.is_empty() {
        return None;
    }
    let names: BTreeSet<String> = names.into_iter().collect();
    let names: Vec<String> = names.into_iter().collect();
    let uses = plural("uses", "use", names.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    Violation::new("probe or lifecycle host", format!("{} {uses} {what} {}", containers(&names), quoted(hosts)))
}

pub fn privileged(subject: &Subject<'_>) -> Option<Violation> {
    let names = subject.those(|one| one.security.is_some_and(|security| security.privileged == Some(true)));
    if names.is_empty() {
        return None;
    }
    Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

pub fn proc_mount(subject: &Subject<'_>) -> Option<Violation> {
    let (_, names, types) = bad_values(subject, |_| None, |context| context.proc_mount.as_deref(), |type_| type_ == "Default");
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(types));
    Violation::new("procMount", detail)
}

pub fn proc_mount_35(subject: &Subject<'_>) -> Option<Violation> {
    if subject.has_own_users() { None } else { proc_mount(subject) }
}

pub fn selinux_0(subject: &Subject<'_>) -> Option<Violation> {
    selinux(subject, &SELINUX_TYPES[..4])
}

pub fn selinux_31(subject: &Subject<'_>) -> Option<Violation> {
    selinux(subject, &SELINUX_TYPES)
}

fn selinux(subject: &Subject<'_>, types: &[&str]) -> Option<Violation> {
    let (mut bad_types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else { return false };
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let type_ = options.type_.as_deref().unwrap_or("");
        let bad = [!types.contains(&type_), given(&options.user), given(&options.role)];
        if bad[0] {
            bad_types.insert(type_.to_owned());
        }
        (user, role) = (user || bad[1], role || bad[2]);
        bad.contains(&true)
    };
    let pod = is_bad(subject.spec.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref()));
    let names = subject.those(|one| is_bad(one.security.and_then(|security| security.se_linux_options.as_ref())));
    let who = setters(pod, &names)?;
    let mut what = vec![];
    if !bad_types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", bad_types.len()), quoted(bad_types)));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    Violation::new("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

/// Before there were fields, annotations said it.
pub fn seccomp_0(subject: &Subject<'_>) -> Option<Violation> {
    let is_good = |value: &str| ["runtime/default", "docker/default"].contains(&value) || value.starts_with("localhost/");
    let keys = subject.containers().map(|one| format!("{SECCOMP_ANNOTATION}{}", one.name));
    let keys = std::iter::once(SECCOMP_ANNOTATION_POD.to_owned()).chain(keys);
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = subject.annotations.get(&key).filter(|value| !is_good(value))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", bad.len());
    Violation::new("seccompProfile", format!("forbidden {what} {}", bad.into_iter().collect::<Vec<_>>().join(", ")))
}

pub fn seccomp_19(subject: &Subject<'_>) -> Option<Violation> {
    let (pod, names, types) = seccomp_types(subject);
    let who = setters(pod, &names)?;
    Violation::new("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(types)))
}

pub fn seccomp_types(subject: &Subject<'_>) -> (bool, Vec<String>, BTreeSet<String>) {
    bad_values(
        subject,
        |context| Some(context.seccomp_profile.as_ref()?.type_.as_str()),
        |context| Some(context.seccomp_profile.as_ref()?.type_.as_str()),
        |type_| ["Localhost", "RuntimeDefault"].contains(&type_),
    )
}

pub fn sysctls_0(subject: &Subject<'_>) -> Option<Violation> {
    sysctls(subject, &SYSCTLS[..5])
}

pub fn sysctls_27(subject: &Subject<'_>) -> Option<Violation> {
    sysctls(subject, &SYSCTLS[..6])
}

pub fn sysctls_29(subject: &Subject<'_>) -> Option<Violation> {
    sysctls(subject, &SYSCTLS[..10])
}

pub fn sysctls_32(subject: &Subject<'_>) -> Option<Violation> {
    sysctls(subject, &SYSCTLS[..12])
}

pub fn sysctls_37(subject: &Subject<'_>) -> Option<Violation> {
    sysctls(subject, &SYSCTLS)
}

fn sysctls(subject: &Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    let set = subject.spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    let bad: Vec<&str> = set.map(|sysctl| sysctl.name.as_str()).filter(|name| !allowed.contains(name)).collect();
    if bad.is_empty() { None } else { Violation::new("forbidden sysctls", bad.join(", ")) }
}

pub fn host_process(subject: &Subject<'_>) -> Option<Violation> {
    let context = subject.spec.security_context.as_ref();
    let pod = context.and_then(|context| context.windows_options.as_ref()?.host_process) == Some(true);
    let names =
        subject.those(|one| one.security.and_then(|security| security.windows_options.as_ref()?.host_process) == Some(true));
    let who = setters(pod, &names)?;
    Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
