//! The objects that simulated nodes write.

use super::world::{Container, SimulatedPod, Stage};
use super::{LABEL, Options};
use serde_json::{Value, json};
use slipway_api::jiff::Timestamp;
use slipway_api::resize::PENDING;
use std::net::Ipv4Addr;

/// Where nodes without a pod CIDR take addresses from, a /24 each: carrier-grade NAT space, which no real node here uses.
const SYNTHETIC_PODS: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// The nodes' own addresses: benchmarking space.
const SYNTHETIC_NODES: u32 = u32::from_be_bytes([198, 18, 0, 1]);
pub const LEASE_SECONDS: i32 = 40;

pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

pub fn node_address(index: usize) -> String {
    Ipv4Addr::from(SYNTHETIC_NODES.wrapping_add(index as u32)).to_string()
}

/// The first address and the number of addresses of a node's pod range.
pub fn pod_range(index: usize, cidr: Option<&str>) -> (u32, u32) {
    let parse = |cidr: &str| {
        let (base, bits) = cidr.split_once('/')?;
        let (base, bits): (Ipv4Addr, u32) = (base.parse().ok()?, bits.parse().ok()?);
        (bits <= 30).then(|| (u32::from(base), 1u32.checked_shl(32 - bits).unwrap_or(u32::MAX)))
    };
    cidr.and_then(parse).unwrap_or((SYNTHETIC_PODS.wrapping_add((index as u32) << 8), 256))
}

pub fn ready_condition(now: Timestamp) -> Value {
    let now = seconds(now);
    json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the simulated node is ready",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}

pub fn node(index: usize, name: &str, options: &Options, now: Timestamp) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": "simulated", LABEL: "true",
    });
    if !options.zones.is_empty() {
        labels["topology.kubernetes.io/zone"] = json!(options.zones[index % options.zones.len()]);
    }
    for (key, value) in &options.labels {
        labels[key] = json!(value);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": options.taints},
        "status": node_status(index, name, options, now),
    })
}

pub fn node_status(index: usize, name: &str, options: &Options, now: Timestamp) -> Value {
    let heartbeat = seconds(now);
    let fine = |kind: &str, reason: &str| {
        json!({
            "type": kind, "status": "False", "reason": reason, "message": "",
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": heartbeat,
        })
    };
    let version = concat!("v1.37.0+slipway.", env!("CARGO_PKG_VERSION"));
    json!({
        "capacity": options.capacity,
        "allocatable": options.capacity,
        "addresses": [{"type": "InternalIP", "address": node_address(index)}, {"type": "Hostname", "address": name}],
        "conditions": [
            fine("MemoryPressure", "KubeletHasSufficientMemory"),
            fine("DiskPressure", "KubeletHasNoDiskPressure"),
            fine("PIDPressure", "KubeletHasSufficientPID"),
            ready_condition(now),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "simulated", "kernelVersion": "simulated",
            "containerRuntimeVersion": "simulated://1", "kubeletVersion": version, "kubeProxyVersion": version,
            "machineID": name, "systemUUID": name, "bootID": name,
        },
    })
}

pub fn lease(node: &str, uid: &str, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node, "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}],
        },
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micros(now)},
    })
}

pub fn renewal(now: Timestamp) -> Value {
    json!({"spec": {"renewTime": micros(now)}})
}

/// The status of a pod, whole but for the conditions of others.
pub fn pod_status(pod: &SimulatedPod, host_ip: &str, now: Timestamp) -> Value {
    let stamp = seconds(now);
    let (phase, ready, reason) = match pod.stage {
        Stage::Starting => ("Pending", false, Some("ContainersNotReady")),
        Stage::Running => ("Running", true, None),
        Stage::Ended { code: 0 } => ("Succeeded", false, Some("PodCompleted")),
        Stage::Ended { .. } | Stage::Stopped => ("Failed", false, Some("PodFailed")),
    };
    let condition = |kind: &str, holds: bool, reason: Option<&str>| {
        let mut condition = json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": stamp});
        if let Some(reason) = reason {
            condition["reason"] = json!(reason);
        }
        condition
    };
    let started = seconds(pod.started.unwrap_or(now));
    let state = match pod.stage {
        Stage::Starting => json!({"waiting": {"reason": "ContainerCreating"}}),
        Stage::Running => json!({"running": {"startedAt": started}}),
        Stage::Ended { code } => {
            let reason = if code == 0 { "Completed" } else { "Error" };
            json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": stamp}})
        }
        Stage::Stopped => json!({"terminated": {"exitCode": 137, "reason": "Error", "startedAt": started, "finishedAt": stamp}}),
    };
    let status_of = |container: &Container, state: &Value, up: bool| {
        let mut status = json!({
            "name": container.name, "image": container.image, "imageID": format!("simulated://{}", container.image),
            "containerID": format!("simulated://{}/{}", pod.uid, container.name),
            "state": state, "ready": up, "started": up, "restartCount": pod.restarts, "resources": container.resources,
        });
        if let Some(requests) = container.resources.requests.as_ref().filter(|requests| !requests.is_empty()) {
            status["allocatedResources"] = json!(requests);
        }
        if let Some(code) = pod.last_exit.filter(|_| pod.restarts > 0) {
            let reason = if code == 0 { "Completed" } else { "Error" };
            status["lastState"] = json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": stamp}});
        }
        status
    };
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": started}});
    let init = pod.init_containers.iter().map(|container| {
        if container.sidecar { status_of(container, &state, ready) } else { status_of(container, &done, false) }
    });
    let ip = if pod.host_network { host_ip.to_owned() } else { Ipv4Addr::from(pod.ip).to_string() };
    let mut status = json!({
        "phase": phase,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": seconds(pod.seen),
        "qosClass": pod.qos_class,
        "conditions": [
            condition("PodReadyToStartContainers", ready, None),
            condition("Initialized", true, None),
            condition("Ready", ready, reason),
            condition("ContainersReady", ready, reason),
            condition("PodScheduled", true, None),
        ],
        "containerStatuses": pod.containers.iter().map(|container| status_of(container, &state, ready)).collect::<Vec<_>>(),
    });
    if !pod.init_containers.is_empty() {
        status["initContainerStatuses"] = json!(init.collect::<Vec<_>>());
    }
    if !pod.ephemeral_containers.is_empty() {
        status["ephemeralContainerStatuses"] = ephemeral_statuses(pod, &state);
    }
    if let (Some(conditions), true) = (status["conditions"].as_array_mut(), pod.told_pending) {
        conditions.push(resize_condition(pod, &stamp));
    }
    status
}

/// As they never start again, nothing is counted of them, and nothing waits for them.
fn ephemeral_statuses(pod: &SimulatedPod, state: &Value) -> Value {
    let of = |container: &Container| {
        json!({
            "name": container.name, "image": container.image, "imageID": format!("simulated://{}", container.image),
            "containerID": format!("simulated://{}/{}", pod.uid, container.name),
            "state": state, "ready": false, "restartCount": 0,
        })
    };
    json!(pod.ephemeral_containers.iter().map(of).collect::<Vec<_>>())
}

/// Why the pod has not what it wants; that it was so, is taken back.
fn resize_condition(pod: &SimulatedPod, stamp: &str) -> Value {
    match &pod.pending {
        Some((pending, _)) => json!({
            "type": PENDING, "status": "True", "reason": pending.reason, "message": pending.message, "lastTransitionTime": stamp,
        }),
        None => json!({"type": PENDING, "$patch": "delete"}),
    }
}
