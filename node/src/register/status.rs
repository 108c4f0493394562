//! The node's status: a pure function of what was measured.

use super::machine::{Disk, Machine, architecture};
use crate::Options;
use crate::runtime::api;
use jiff::Timestamp;
use slipway_api::core::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use slipway_api::meta::Time;
use slipway_api::quantity::Quantity;
use std::collections::BTreeMap;

const MEMORY_RESERVED: i64 = 100 << 20;
/// As kubelet's eviction thresholds: below these the node says that it is under pressure.
const MEMORY_PRESSURE_BELOW: i64 = 100 << 20;
const DISK_PRESSURE_BELOW_PERCENT: u64 = 10;
const INODE_PRESSURE_BELOW_PERCENT: u64 = 5;
const IMAGES_MAX: usize = 50;
pub const VERSION: &str = concat!("v1.37.0+slipway-", env!("CARGO_PKG_VERSION"));

pub struct Facts<'a> {
    pub machine: &'a Machine,
    pub version: Option<api::VersionResponse>,
    pub conditions: Result<Vec<api::RuntimeCondition>, String>,
    pub images: Vec<api::Image>,
    pub memory_available: i64,
    pub disk: Disk,
}

pub fn status(options: &Options, facts: &Facts, old: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let machine = facts.machine;
    let resources = |memory: i64, disk: i64| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity::parse(&machine.cpus.to_string()).unwrap_or_default().into()),
            ("memory".to_owned(), Quantity::from_bytes(memory).into()),
            ("ephemeral-storage".to_owned(), Quantity::from_bytes(disk).into()),
            ("pods".to_owned(), Quantity::parse(&options.pods_max.to_string()).unwrap_or_default().into()),
        ])
    };
    let version = facts.version.clone().unwrap_or_default();
    let mut images = facts.images.clone();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    let images = images.into_iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
        size_bytes: Some(image.size as i64),
    });
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        capacity: Some(resources(machine.memory_bytes, machine.disk_bytes)),
        allocatable: Some(resources(machine.memory_bytes - MEMORY_RESERVED, machine.disk_bytes / 10 * 9)),
        addresses: Some(vec![address("InternalIP", options.node_ip.to_string()), address("Hostname", options.node_name.clone())]),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: options.port.into() }) }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: VERSION.into(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..Default::default()
        }),
        images: Some(images.collect()),
        conditions: Some(conditions(facts, old, now)),
        ..Default::default()
    }
}

fn conditions(facts: &Facts, old: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let memory = facts.memory_available < MEMORY_PRESSURE_BELOW;
    let below = |available: u64, all: u64, percent: u64| all > 0 && available * 100 < all * percent;
    let disk = below(facts.disk.available_bytes, facts.disk.bytes, DISK_PRESSURE_BELOW_PERCENT)
        || below(facts.disk.available_inodes, facts.disk.inodes, INODE_PRESSURE_BELOW_PERCENT);
    let wrong: Vec<String> = match &facts.conditions {
        Err(why) => vec![format!("container runtime is down: {why}")],
        Ok(conditions) => conditions
            .iter()
            .filter(|condition| !condition.status)
            .map(|condition| {
                let what = if condition.r#type == "NetworkReady" { "container runtime network" } else { "container runtime" };
                let api::RuntimeCondition { r#type, reason, message, .. } = condition;
                format!("{what} not ready: {type}={} reason:{reason} message:{message}", "false")
            })
            .collect(),
    };
    let pick = |holds: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if holds { yes } else { no };
        (holds, reason, message.to_owned())
    };
    let memory = pick(
        memory,
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    );
    let disk = pick(
        disk,
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    );
    let pid = (false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned());
    let ready = match wrong.is_empty() {
        true => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        false => (false, "KubeletNotReady", wrong.join(", ")),
    };
    let all = [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pid), ("Ready", ready)];
    let now = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    all.into_iter()
        .map(|(kind, (holds, reason, message))| {
            let status = if holds { "True" } else { "False" };
            let before = old.and_then(|old| old.conditions.iter().flatten().find(|condition| condition.type_ == kind));
            let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
            NodeCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_heartbeat_time: now.clone(),
                last_transition_time: since.or_else(|| now.clone()),
            }
        })
        .collect()
}

/// But for the time of the look.
pub fn is_same(old: Option<&NodeStatus>, fresh: &NodeStatus) -> bool {
    let Some(old) = old else { return false };
    let conditions = |status: &NodeStatus| -> Vec<(String, String, Option<String>, Option<String>)> {
        let ours = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
        let list = status.conditions.iter().flatten().filter(|condition| ours.contains(&condition.type_.as_str()));
        let mut list: Vec<_> = list
            .map(|condition| {
                (condition.type_.clone(), condition.status.clone(), condition.reason.clone(), condition.message.clone())
            })
            .collect();
        list.sort();
        list
    };
    old.capacity == fresh.capacity
        && old.allocatable == fresh.allocatable
        && old.addresses == fresh.addresses
        && old.daemon_endpoints == fresh.daemon_endpoints
        && old.node_info == fresh.node_info
        && old.images == fresh.images
        && conditions(old) == conditions(fresh)
}
