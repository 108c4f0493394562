//! A pod and its containers in the words of CRI.

use super::{Context, environment, hosts, security};
use crate::runtime::{self, api};
use crate::volume;
use slipway_api::core::{Container, Pod};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const TERMINATION_LOG_DEFAULT: &str = "/dev/termination-log";

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

pub fn sandbox(pod: &Pod, attempt: u32, context: &Context) -> api::PodSandboxConfig {
    let (meta, spec) = (&pod.metadata, pod.spec.clone().unwrap_or_default());
    let host_network = spec.host_network == Some(true);
    let mut labels: HashMap<String, String> = meta.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    let ports = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = ports.into_iter().flat_map(|container| container.ports.iter().flatten());
    let port_mappings = ports
        .filter(|port| port.host_port.is_some_and(|port| port > 0) && !host_network)
        .map(|port| api::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => api::Protocol::Udp,
                Some("SCTP") => api::Protocol::Sctp,
                _ => api::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: text(&port.host_ip),
        })
        .collect();
    let sysctls = spec.security_context.iter().flat_map(|security| security.sysctls.iter().flatten());
    api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: text(&meta.name),
            uid: text(&meta.uid),
            namespace: text(&meta.namespace),
            attempt,
        }),
        hostname: if host_network { String::new() } else { hosts::kernel_hostname(pod, &context.options.cluster_domain) },
        log_directory: context.log_dir(pod).to_string_lossy().into_owned(),
        dns_config: Some(hosts::dns(pod, context)),
        port_mappings,
        labels,
        annotations: meta.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: context.cgroups.of_pod(meta.uid.as_deref().unwrap_or_default()),
            security_context: Some(security::of_sandbox(pod)),
            sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
            ..Default::default()
        }),
        windows: None,
    }
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    let meta = &pod.metadata;
    [(runtime::POD_NAME, &meta.name), (runtime::POD_NAMESPACE, &meta.namespace), (runtime::POD_UID, &meta.uid)]
        .map(|(key, value)| (key.to_owned(), text(value)))
}

/// Where the container's last words are written, outside of it.
pub fn termination_log(context: &Context, pod_uid: &str, name: &str, attempt: u32) -> PathBuf {
    context.pod_dir(pod_uid).join("containers").join(name).join(format!("{attempt}.termination"))
}

/// Everything for `CreateContainer`. The error is for `CreateContainerConfigError`.
pub async fn container(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &api::Image,
    volumes: &BTreeMap<String, PathBuf>,
    ips: &[String],
    context: &Context,
) -> Result<api::ContainerConfig, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let security_context = security::of_container(pod, container, image)?;
    let envs = environment::environment(pod, container, context, ips).await?;
    let expand = |list: Option<&Vec<String>>| list.into_iter().flatten().map(|word| environment::expand(word, &envs)).collect();
    let mut mounts = vec![];
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .get(&wanted.name)
            .ok_or_else(|| format!("cannot find volume \"{}\" to mount into container \"{}\"", wanted.name, container.name))?;
        let part = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(part), _) if !part.is_empty() => Some(part.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(environment::expand(expression, &envs)),
            _ => None,
        };
        let path = part.map_or_else(|| Ok(volume.clone()), |part| volume::sub_path(volume, &part))?;
        let propagation = match wanted.mount_propagation.as_deref() {
            Some("HostToContainer") => api::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => api::MountPropagation::PropagationBidirectional,
            _ => api::MountPropagation::PropagationPrivate,
        };
        let inside =
            if wanted.mount_path.starts_with('/') { wanted.mount_path.clone() } else { format!("/{}", wanted.mount_path) };
        mounts.push(mount(&inside, &path, wanted.read_only == Some(true), propagation));
    }
    let has = |mounts: &[api::Mount], path: &str| mounts.iter().any(|mount| mount.container_path == path);
    if !has(&mounts, "/etc/hosts") {
        let path = context.pod_dir(uid).join("etc-hosts");
        mounts.push(mount("/etc/hosts", &path, security_context.readonly_rootfs, api::MountPropagation::PropagationPrivate));
    }
    let last_words = termination_log(context, uid, &container.name, attempt);
    let inside = container.termination_message_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(TERMINATION_LOG_DEFAULT);
    mounts.push(mount(inside, &last_words, false, api::MountPropagation::PropagationPrivate));
    let mut labels: HashMap<String, String> = identity(pod).into();
    labels.insert(runtime::CONTAINER_NAME.into(), container.name.clone());
    let annotations = [
        (runtime::RESTART_COUNT, attempt.to_string()),
        (runtime::TERMINATION_LOG, last_words.to_string_lossy().into_owned()),
        (runtime::CONTAINER_HASH, text(&container.image)),
    ];
    let node_memory = context.allocatable("memory").and_then(|text| slipway_api::quantity::Quantity::parse(&text).ok());
    let resources = context.cgroups.of_container(pod, container, node_memory.map_or(0, |memory| memory.value()));
    Ok(api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(api::ImageSpec {
            image: image.id.clone(),
            user_specified_image: text(&container.image),
            ..Default::default()
        }),
        command: expand(container.command.as_ref()),
        args: expand(container.args.as_ref()),
        working_dir: text(&container.working_dir),
        envs: envs.iter().map(|(key, value)| api::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts,
        labels,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(api::LinuxContainerConfig { resources: Some(resources), security_context: Some(security_context) }),
        ..Default::default()
    })
}

fn mount(inside: &str, path: &Path, readonly: bool, propagation: api::MountPropagation) -> api::Mount {
    api::Mount {
        container_path: inside.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        readonly,
        propagation: propagation as i32,
        ..Default::default()
    }
}
