//! Security contexts, in the words of CRI.

use crate::runtime::api;
use slipway_api::core::{Container, Pod, PodSpec, SecurityContext};
use slipway_api::pod::as_container;

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The namespaces. A container's own PID namespace has to be asked for: the default would share the sandbox's.
pub fn namespaces(spec: &PodSpec) -> api::NamespaceOption {
    let node =
        |yes: Option<bool>, other: api::NamespaceMode| if yes == Some(true) { api::NamespaceMode::Node } else { other } as i32;
    let pid = if spec.share_process_namespace == Some(true) { api::NamespaceMode::Pod } else { api::NamespaceMode::Container };
    api::NamespaceOption {
        network: node(spec.host_network, api::NamespaceMode::Pod),
        pid: node(spec.host_pid, pid),
        ipc: node(spec.host_ipc, api::NamespaceMode::Pod),
        ..Default::default()
    }
}

/// The PID namespace of another container instead of one's own. Where all share one, that is the other's already.
pub fn aim(namespaces: &mut api::NamespaceOption, container: &str) {
    if namespaces.pid == api::NamespaceMode::Container as i32 {
        namespaces.pid = api::NamespaceMode::Target as i32;
        namespaces.target_id = container.to_owned();
    }
}

fn int(value: Option<i64>) -> Option<api::Int64Value> {
    value.map(|value| api::Int64Value { value })
}

fn seccomp(kind: Option<&str>, local: Option<&str>) -> api::SecurityProfile {
    let (profile_type, localhost_ref) = match kind {
        Some("RuntimeDefault") => (api::security_profile::ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let path = format!("/var/lib/kubelet/seccomp/{}", local.unwrap_or_default());
            (api::security_profile::ProfileType::Localhost, path)
        }
        _ => (api::security_profile::ProfileType::Unconfined, String::new()),
    };
    api::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

pub fn groups(spec: &PodSpec) -> Vec<i64> {
    let security = spec.security_context.as_ref();
    let listed = security.and_then(|security| security.supplemental_groups.clone()).unwrap_or_default();
    listed.into_iter().chain(security.and_then(|security| security.fs_group)).collect()
}

pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|security| security.privileged) == Some(true)
}

pub fn of_sandbox(pod: &Pod) -> api::LinuxSandboxSecurityContext {
    let spec = pod.spec.clone().unwrap_or_default();
    let security = spec.security_context.clone().unwrap_or_default();
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    api::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&spec)),
        run_as_user: int(security.run_as_user),
        run_as_group: int(security.run_as_group.filter(|_| security.run_as_user.is_some())),
        supplemental_groups: groups(&spec),
        privileged: all.any(is_privileged) || ephemeral.any(|ephemeral| is_privileged(&as_container(ephemeral))),
        seccomp: Some(seccomp(Some("RuntimeDefault"), None)),
        ..Default::default()
    }
}

/// The user that a container runs as, where the pod or the container says so.
fn user(spec: &PodSpec, own: &SecurityContext) -> (Option<i64>, Option<i64>) {
    let of_pod = spec.security_context.clone().unwrap_or_default();
    (own.run_as_user.or(of_pod.run_as_user), own.run_as_group.or(of_pod.run_as_group))
}

/// Fails with Kubernetes' words when the container may not be root and would be.
pub fn of_container(pod: &Pod, container: &Container, image: &api::Image) -> Result<api::LinuxContainerSecurityContext, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let (mut run_as_user, run_as_group) = user(&spec, &own);
    let image_user = image.uid.as_ref().map(|uid| uid.value);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        let name = &container.name;
        match (run_as_user, image_user) {
            (Some(0), _) => return Err(format!("container's runAsUser breaks non-root policy (container: {name})")),
            (None, Some(0)) => {
                return Err(format!("container has runAsNonRoot and image will run as root (container: {name})"));
            }
            (None, None) if !image.username.is_empty() => {
                let user = &image.username;
                let why = "container has runAsNonRoot and image has non-numeric user";
                return Err(format!("{why} ({user}), cannot verify user is non-root (container: {name})"));
            }
            (None, None) => {
                return Err(format!("container has runAsNonRoot and image will run as root (container: {name})"));
            }
            _ => {}
        }
    }
    if run_as_user.is_none() && image.username.is_empty() {
        run_as_user = image_user;
    }
    let privileged = is_privileged(container);
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { vec![] } else { list.iter().map(|path| (*path).to_owned()).collect() };
    Ok(api::LinuxContainerSecurityContext {
        capabilities: Some(api::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: vec![],
        }),
        privileged,
        namespace_options: Some(namespaces(&spec)),
        run_as_user: int(run_as_user),
        run_as_group: int(run_as_group.filter(|_| run_as_user.is_some() || !image.username.is_empty())),
        run_as_username: if run_as_user.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(&spec),
        supplemental_groups_policy: match of_pod.supplemental_groups_policy.as_deref() {
            Some("Strict") => api::SupplementalGroupsPolicy::Strict,
            _ => api::SupplementalGroupsPolicy::Merge,
        } as i32,
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(
            profile.map(|profile| profile.type_.as_str()),
            profile.and_then(|profile| profile.localhost_profile.as_deref()),
        )),
        ..Default::default()
    })
}
