//! How `kubectl get pods` shows a pod: one word for its state, gathered from the states of its containers.

use crate::kind::{Column, age};
use crate::resources::show::{self, NONE};
use jiff::Timestamp;
use serde_json::{Value, json};
use slipway_api::condition;
use slipway_api::core::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use slipway_api::pod::{is_sidecar, is_terminal};

pub fn columns() -> Vec<Column> {
    vec![
        Column::NAME,
        Column::text("Ready", "How many of the containers are ready to work."),
        Column::text("Status", "The pod's state, summed up from its phase and its containers."),
        Column::text("Restarts", "How often containers were restarted, and when the last time."),
        Column::AGE,
        Column::text("IP", "The pod's address.").wide(),
        Column::text("Node", "The node that the pod runs on.").wide(),
        Column::text("Nominated Node", "The node that is being cleared for the pod.").wide(),
        Column::text("Readiness Gates", "How many of the readiness gates are open.").wide(),
    ]
}

pub fn row(pod: &Pod, object: &Value, now: Timestamp) -> Vec<Value> {
    let state = State::of(pod);
    let status = pod.status.clone().unwrap_or_default();
    let ip = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.as_str()).or(status.pod_ip.as_deref());
    let restarts = match state.last_restart {
        Some(at) if state.restarts != 0 => format!("{} ({} ago)", state.restarts, show::since(Some(at), now)),
        _ => state.restarts.to_string(),
    };
    vec![
        show::name(object),
        json!(format!("{}/{}", state.ready, state.total)),
        json!(state.reason),
        json!(restarts),
        age(object, now),
        show::or_none(ip),
        show::or_none(pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref())),
        show::or_none(status.nominated_node_name.as_deref()),
        readiness_gates(pod, &status),
    ]
}

fn readiness_gates(pod: &Pod, status: &PodStatus) -> Value {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or(&[]);
    if gates.is_empty() {
        return json!(NONE);
    }
    let open = gates.iter().filter(|gate| condition::is_true(status.conditions.as_deref(), &gate.condition_type)).count();
    json!(format!("{open}/{}", gates.len()))
}

struct State {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

impl State {
    fn of(pod: &Pod) -> State {
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let init = spec.init_containers.as_deref().unwrap_or(&[]);
        let sidecar = |name: &str| init.iter().any(|container| container.name == name && is_sidecar(container));

        let phase = status.phase.clone().unwrap_or_default();
        let mut state = State {
            ready: 0,
            total: spec.containers.len() + init.iter().filter(|container| is_sidecar(container)).count(),
            reason: status.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or(phase),
            restarts: 0,
            last_restart: None,
        };
        let gated =
            |c: &slipway_api::core::PodCondition| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated");
        if status.conditions.iter().flatten().any(gated) {
            state.reason = "SchedulingGated".to_owned();
        }
        let init_statuses = status.init_container_statuses.as_deref().unwrap_or(&[]);
        let initializing = state.read_init(init_statuses, init.len(), &sidecar);
        if !initializing || condition::is_true(status.conditions.as_deref(), "Initialized") {
            state.restarts = 0;
            state.last_restart = None;
            init_statuses.iter().filter(|status| sidecar(&status.name)).for_each(|status| state.count_restarts(status));
            state.read_main(&status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if status.reason.as_deref() == Some("NodeLost") {
                state.reason = "Unknown".to_owned();
            } else if !is_terminal(pod) {
                state.reason = "Terminating".to_owned();
            }
        }
        state
    }

    fn count_restarts(&mut self, status: &ContainerStatus) {
        self.restarts += status.restart_count;
        let ended = status.last_state.as_ref().and_then(|last| last.terminated.as_ref()).and_then(|t| t.finished_at.as_ref());
        self.last_restart = self.last_restart.max(ended.map(|time| time.0));
    }

    /// Whether the pod is still at its init containers, which `reason` then tells of.
    fn read_init(&mut self, statuses: &[ContainerStatus], count: usize, sidecar: &dyn Fn(&str) -> bool) -> bool {
        for (index, status) in statuses.iter().enumerate() {
            self.count_restarts(status);
            let current = status.state.clone().unwrap_or_default();
            let waiting = current.waiting.and_then(|waiting| waiting.reason).filter(|r| !r.is_empty() && r != "PodInitializing");
            match (&current.terminated, waiting) {
                (Some(ended), _) if ended.exit_code == 0 => continue,
                _ if sidecar(&status.name) && status.started == Some(true) => {
                    self.ready += usize::from(status.ready);
                    continue;
                }
                (Some(ended), _) => self.reason = format!("Init:{}", why_ended(ended)),
                (None, Some(reason)) => self.reason = format!("Init:{reason}"),
                (None, None) => self.reason = format!("Init:{index}/{count}"),
            }
            return true;
        }
        false
    }

    fn read_main(&mut self, status: &PodStatus) {
        let mut running = false;
        // Backwards: the first container has the last word.
        for container in status.container_statuses.iter().flatten().rev() {
            self.count_restarts(container);
            let current = container.state.clone().unwrap_or_default();
            let waiting = current.waiting.and_then(|waiting| waiting.reason).filter(|reason| !reason.is_empty());
            if let Some(reason) = waiting {
                self.reason = reason;
            } else if let Some(ended) = &current.terminated {
                self.reason = why_ended(ended);
            } else if container.ready && current.running.is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition::is_true(status.conditions.as_deref(), "Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn why_ended(ended: &ContainerStateTerminated) -> String {
    match (ended.reason.as_deref().unwrap_or(""), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(spec: Value, status: Value) -> Vec<String> {
        shown(json!({"name": "p"}), spec, status)
    }

    fn shown(metadata: Value, spec: Value, status: Value) -> Vec<String> {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status});
        let pod: Pod = serde_json::from_value(object.clone()).unwrap();
        row(&pod, &object, "2026-01-01T01:00:00Z".parse().unwrap())
            .iter()
            .map(|cell| cell.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn main(state: Value, ready: bool, restarts: i32) -> Value {
        json!({"name": "c", "ready": ready, "restartCount": restarts, "image": "i", "imageID": "", "state": state})
    }

    #[test]
    fn states_are_one_word() {
        let one = json!({"containers": [{"name": "c"}]});
        let init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let pending = json!({"phase": "Pending"});
        assert_eq!(cells(one.clone(), pending)[1..4], ["0/1", "Pending", "0"]);
        let running = json!({"phase": "Running", "containerStatuses": [main(json!({"running": {}}), true, 0)]});
        assert_eq!(cells(one.clone(), running.clone())[1..4], ["1/1", "Running", "0"]);
        let deleted = json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(shown(deleted, one.clone(), running)[2], "Terminating");
        let crash = json!({"phase": "Running", "containerStatuses": [{
            "name": "c", "ready": false, "restartCount": 4, "image": "i", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:00Z"}},
        }]});
        assert_eq!(cells(one.clone(), crash)[1..4], ["0/1", "CrashLoopBackOff", "4 (60s ago)"]);
        let done = json!({"phase": "Succeeded", "containerStatuses": [main(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), false, 0)]});
        assert_eq!(cells(one.clone(), done)[2], "Completed");
        let killed = json!({"phase": "Failed", "containerStatuses": [main(json!({"terminated": {"exitCode": 137, "signal": 9}}), false, 0)]});
        assert_eq!(cells(one, killed)[2], "Signal:9");
        let waits = json!({"name": "i", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"running": {}}});
        let at_first = json!({"phase": "Pending", "initContainerStatuses": [waits],
            "containerStatuses": [main(json!({"waiting": {"reason": "PodInitializing"}}), false, 0)]});
        assert_eq!(cells(init.clone(), at_first)[1..3], ["0/1", "Init:0/2"]);
        let failed = json!({"name": "i", "ready": false, "restartCount": 2, "image": "", "imageID": "",
            "state": {"terminated": {"exitCode": 3}}});
        let broken = json!({"phase": "Pending", "initContainerStatuses": [failed]});
        assert_eq!(cells(init, broken)[2..4], ["Init:ExitCode:3", "2"]);
    }

    #[test]
    fn a_started_sidecar_counts_as_a_container() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let sidecar = json!({"name": "s", "ready": true, "started": true, "restartCount": 1, "image": "", "imageID": "", "state": {"running": {}}});
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.244.0.7"}], "initContainerStatuses": [sidecar],
            "containerStatuses": [main(json!({"running": {}}), true, 1)]});
        let cells = cells(spec, status);
        assert_eq!(cells[1..4], ["2/2", "Running", "2"]);
        assert_eq!(cells[5..], ["10.244.0.7", "<none>", "<none>", "<none>"]);
    }
}
