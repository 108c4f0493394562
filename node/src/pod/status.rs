//! The pod's status: a pure function of the pod, of what runs, of what the agent remembers, and of the time.

use super::allocation::Change;
use super::memory::Memory;
use super::observed::{Container, Observed, State};
use super::plan::{Plan, restarts};
use jiff::Timestamp;
use slipway_api::core::{
    self, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodCondition, PodIP, PodSpec, PodStatus,
};
use slipway_api::meta::Time;
use slipway_api::pod::{as_container, is_sidecar, qos_class};
use slipway_api::resize;
use std::collections::BTreeMap;

/// What the agent knows beside the pod itself.
pub struct Facts<'a> {
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub plan: &'a Plan,
    pub host_ips: &'a [String],
    /// Termination messages, by container id.
    pub messages: &'a BTreeMap<String, String>,
    pub now: Timestamp,
}

pub fn status(pod: &Pod, facts: &Facts) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return old };
    let mut status = old.clone();
    status.observed_generation = pod.metadata.generation;
    status.qos_class = Some(qos_class(pod).to_owned());
    status.start_time = old.start_time.clone().or(Some(whole_seconds(facts.now)));
    status.host_ip = facts.host_ips.first().cloned();
    status.host_ips = Some(facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let host_network = spec.host_network == Some(true);
    let ips: Vec<String> = match facts.observed.sandboxes.first() {
        Some(_) if host_network => facts.host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        None => vec![],
    };
    if !ips.is_empty() {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
    let initialized = is_initialized(spec, facts);
    let describe = |containers: &[core::Container], old: Option<&Vec<ContainerStatus>>, init: bool| -> Vec<ContainerStatus> {
        let status = |container| container_status(spec, container, old, facts, init, initialized);
        containers.iter().map(status).collect()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if !init.is_empty() {
        status.init_container_statuses = Some(describe(init, old.init_container_statuses.as_ref(), true));
    }
    status.container_statuses = Some(describe(&spec.containers, old.container_statuses.as_ref(), false));
    let ephemeral: Vec<core::Container> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    if !ephemeral.is_empty() {
        let mut all = describe(&ephemeral, old.ephemeral_container_statuses.as_ref(), false);
        // Nothing waits for one of them to be ready, and it has no resources.
        for status in &mut all {
            (status.ready, status.started) = (false, None);
            (status.resources, status.allocated_resources) = (None, None);
        }
        status.ephemeral_container_statuses = Some(all);
    }
    if spec.resources.is_some() {
        status.resources.clone_from(&facts.memory.in_force.pod);
        status.allocated_resources = facts.memory.granted.pod.as_ref().and_then(|granted| granted.requests.clone());
    }
    let phase = match old.phase.as_deref() {
        Some(ended @ ("Succeeded" | "Failed")) => ended.to_owned(),
        _ => phase(spec, &status, facts).to_owned(),
    };
    if let Some(ending) = &facts.memory.ending {
        status.reason = Some(ending.reason.clone());
        status.message = Some(ending.message.clone());
    }
    status.phase = Some(phase);
    conditions(pod, spec, &mut status, facts, initialized);
    status
}

/// The API keeps whole seconds, so what is compared with it must be cut likewise.
fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn is_initialized(spec: &PodSpec, facts: &Facts) -> bool {
    let sandbox = facts.observed.sandboxes.first().map(|sandbox| sandbox.id.as_str());
    let ran = |name: &str| facts.observed.latest(name).filter(|container| Some(container.sandbox.as_str()) == sandbox);
    if spec.containers.iter().any(|container| ran(&container.name).is_some()) {
        return true;
    }
    spec.init_containers.iter().flatten().all(|container| match ran(&container.name) {
        Some(latest) if is_sidecar(container) => latest.is_running() && facts.memory.probes.is_started(container, &latest.id),
        Some(latest) => latest.state == State::Exited && latest.exit_code == 0,
        None => false,
    })
}

fn container_status(
    spec: &PodSpec,
    container: &core::Container,
    old: Option<&Vec<ContainerStatus>>,
    facts: &Facts,
    init: bool,
    initialized: bool,
) -> ContainerStatus {
    let name = container.name.as_str();
    let old = old.and_then(|old| old.iter().find(|old| old.name == name));
    let waiting = facts.plan.waiting.get(name).map(|waiting| ContainerStateWaiting {
        reason: Some(waiting.reason.clone()),
        message: Some(waiting.message.clone()).filter(|message| !message.is_empty()),
    });
    let mut status = ContainerStatus {
        name: name.to_owned(),
        image: container.image.clone().unwrap_or_default(),
        ready: false,
        started: Some(false),
        ..Default::default()
    };
    resources(&mut status, container, facts);
    let Some(latest) = facts.observed.latest(name) else {
        // What ended and was removed since is only in the status by now.
        if let Some(old) = old.filter(|old| is_terminated(old)) {
            return ContainerStatus { ready: init && old.ready, ..old.clone() };
        }
        let has_init = spec.init_containers.as_ref().is_some_and(|init| !init.is_empty());
        let default = if has_init && !initialized { "PodInitializing" } else { "ContainerCreating" };
        let waiting = waiting.unwrap_or_else(|| ContainerStateWaiting { reason: Some(default.into()), message: None });
        status.state = Some(ContainerState { waiting: Some(waiting), ..Default::default() });
        status.last_state = Some(old.and_then(|old| old.last_state.clone()).unwrap_or_default());
        status.restart_count = old.map_or(0, |old| old.restart_count);
        return status;
    };
    status.container_id = Some(format!("containerd://{}", latest.id));
    status.image_id.clone_from(&latest.image_id);
    status.restart_count = latest.attempt as i32;
    let before = facts.observed.previous(name).filter(|before| before.has_ended()).map(|before| terminated(before, facts));
    let mut last_state = before
        .map(|terminated| ContainerState { terminated: Some(terminated), ..Default::default() })
        .or_else(|| old.filter(|old| old.restart_count == status.restart_count).and_then(|old| old.last_state.clone()))
        .unwrap_or_default();
    let mut state = ContainerState::default();
    match latest.state {
        State::Created => {
            state.waiting =
                Some(waiting.unwrap_or(ContainerStateWaiting { reason: Some("ContainerCreating".into()), message: None }));
        }
        State::Running => {
            state.running = Some(ContainerStateRunning { started_at: latest.started_at.map(whole_seconds) });
            let probes = &facts.memory.probes;
            status.started = Some(probes.is_started(container, &latest.id));
            status.ready = (!init || is_sidecar(container)) && probes.is_ready(container, &latest.id);
        }
        State::Exited | State::Unknown => {
            let ended = terminated(latest, facts);
            match waiting {
                Some(waiting) if !facts.plan.over => {
                    state.waiting = Some(waiting);
                    last_state = ContainerState { terminated: Some(ended), ..Default::default() };
                }
                _ => {
                    status.ready = init && !is_sidecar(container) && ended.exit_code == 0;
                    state.terminated = Some(ended);
                }
            }
        }
    }
    status.state = Some(state);
    status.last_state = Some(last_state);
    status
}

/// What the container has: what was put in force while it runs, else what it will start with.
fn resources(status: &mut ContainerStatus, container: &core::Container, facts: &Facts) {
    let (name, memory) = (&container.name, facts.memory);
    let asked = container.resources.clone().unwrap_or_default();
    let granted = memory.granted.containers.get(name).unwrap_or(&asked);
    let runs = facts.observed.latest(name).is_some_and(Container::is_running);
    let in_force = memory.in_force.containers.get(name).filter(|_| runs);
    status.resources = Some(in_force.unwrap_or(granted).clone());
    status.allocated_resources = granted.requests.clone().filter(|requests| !requests.is_empty());
}

fn is_terminated(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.terminated.is_some())
}

fn terminated(container: &Container, facts: &Facts) -> ContainerStateTerminated {
    let lost = container.state == State::Unknown;
    let reason = match (lost, container.reason.as_str(), container.exit_code) {
        (true, ..) => "ContainerStatusUnknown",
        (_, "", 0) => "Completed",
        (_, "", _) => "Error",
        (_, reason, _) => reason,
    };
    let message = facts.messages.get(&container.id).cloned().filter(|message| !message.is_empty());
    ContainerStateTerminated {
        exit_code: if lost { 137 } else { container.exit_code },
        reason: Some(reason.to_owned()),
        message: message.or_else(|| Some(container.message.clone()).filter(|message| !message.is_empty())),
        started_at: Some(whole_seconds(container.started_at.unwrap_or(container.created_at))),
        finished_at: Some(whole_seconds(container.finished_at.unwrap_or(facts.now))),
        container_id: Some(format!("containerd://{}", container.id)),
        ..Default::default()
    }
}

fn state_of(status: &ContainerStatus) -> (bool, Option<i32>) {
    let state = status.state.as_ref();
    let running = state.is_some_and(|state| state.running.is_some());
    (running, state.and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code))
}

fn phase(spec: &PodSpec, status: &PodStatus, facts: &Facts) -> &'static str {
    let ending = facts.memory.ending.is_some();
    if ending && facts.plan.over {
        return "Failed";
    }
    let empty = vec![];
    let inits = spec.init_containers.iter().flatten().zip(status.init_container_statuses.as_ref().unwrap_or(&empty));
    for (container, init) in inits.filter(|(container, _)| !is_sidecar(container)) {
        if let (_, Some(code)) = state_of(init)
            && code != 0
            && (facts.plan.over || !restarts(spec, container, code))
        {
            return "Failed";
        }
    }
    let (mut waiting, mut running, mut restarting, mut failed) = (0, 0, 0, 0);
    let statuses = status.container_statuses.as_ref().unwrap_or(&empty);
    for (container, status) in spec.containers.iter().zip(statuses) {
        match state_of(status) {
            (true, _) => running += 1,
            (_, Some(code)) if !facts.plan.over && restarts(spec, container, code) => restarting += 1,
            (_, Some(code)) => failed += usize::from(code != 0),
            _ if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) => restarting += 1,
            _ => waiting += 1,
        }
    }
    match () {
        () if waiting > 0 && facts.plan.over => "Failed",
        () if waiting > 0 => "Pending",
        () if running > 0 || restarting > 0 => "Running",
        () if !facts.plan.over && facts.observed.running().next().is_some() => "Running",
        () if failed > 0 => "Failed",
        () => "Succeeded",
    }
}

/// Those that a pod has only while it is resized.
pub const RESIZE: [&str; 2] = [resize::PENDING, resize::IN_PROGRESS];

type Condition = (&'static str, (bool, &'static str, String));

fn resize_conditions(spec: &PodSpec, facts: &Facts) -> Vec<Condition> {
    let memory = facts.memory;
    let mut all = vec![];
    if facts.plan.over {
        return all;
    }
    if let Some(pending) = &memory.resize.pending {
        all.push((resize::PENDING, (true, pending.reason, pending.message.clone())));
    }
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let restarts = || {
        facts
            .observed
            .containers
            .iter()
            .any(|container| memory.resize.restarting.contains(&container.id) && is_last(container, facts))
    };
    let changes = containers.any(|container| {
        let runs = facts.observed.latest(&container.name).is_some_and(Container::is_running);
        runs && memory.change(container) != Change::Nothing
    });
    if memory.resize.is_running || changes || restarts() || memory.granted.pod != memory.in_force.pod {
        let (reason, message) = match &memory.resize.failure {
            Some((why, _)) => (resize::ERROR, why.clone()),
            None => ("", String::new()),
        };
        all.push((resize::IN_PROGRESS, (true, reason, message)));
    }
    all
}

/// Nothing has been started in its place yet.
fn is_last(container: &Container, facts: &Facts) -> bool {
    facts.observed.latest(&container.name).is_some_and(|latest| latest.id == container.id)
}

fn conditions(pod: &Pod, spec: &PodSpec, status: &mut PodStatus, facts: &Facts, initialized: bool) {
    let phase = status.phase.clone().unwrap_or_default();
    let ended = match phase.as_str() {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let unready = |statuses: Option<&Vec<ContainerStatus>>, names: &mut dyn Iterator<Item = &core::Container>| -> Vec<String> {
        let is_ready = |name: &str| statuses.iter().copied().flatten().any(|status| status.name == name && status.ready);
        names.filter(|container| !is_ready(&container.name)).map(|container| container.name.clone()).collect()
    };
    let mut wanting = unready(
        status.init_container_statuses.as_ref(),
        &mut spec.init_containers.iter().flatten().filter(|container| is_sidecar(container)),
    );
    wanting.extend(unready(status.container_statuses.as_ref(), &mut spec.containers.iter()));
    let containers = match ended {
        Some(reason) => (false, reason, String::new()),
        None if wanting.is_empty() => (true, "", String::new()),
        None => (false, "ContainersNotReady", format!("containers with unready status: [{}]", wanting.join(" "))),
    };
    let mut ready = containers.clone();
    if ready.0 {
        let gates = spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
        let wrong: Vec<String> = gates
            .filter_map(|gate| {
                let found = status.conditions.iter().flatten().find(|condition| condition.type_ == gate);
                match found.map(|condition| condition.status.as_str()) {
                    Some("True") => None,
                    Some(other) => Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {other}")),
                    None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
                }
            })
            .collect();
        if !wrong.is_empty() {
            ready = (false, "ReadinessGatesNotReady", wrong.join(", "));
        }
    }
    let incomplete =
        unready(status.init_container_statuses.as_ref(), &mut spec.init_containers.iter().flatten().filter(|_| !initialized));
    let initialized = match ended {
        Some("PodCompleted") => (true, "PodCompleted", String::new()),
        _ if initialized => (true, "", String::new()),
        _ => (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" "))),
    };
    let has_network = facts.observed.sandbox().is_some_and(|sandbox| spec.host_network == Some(true) || !sandbox.ips.is_empty());
    let all = [
        ("PodReadyToStartContainers", (has_network, "", String::new())),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", (true, "", String::new())),
    ];
    let all: Vec<_> = all.into_iter().chain(resize_conditions(spec, facts)).collect();
    let old = status.conditions.take().unwrap_or_default();
    let ours = |kind: &str| RESIZE.contains(&kind) || all.iter().any(|(name, _)| *name == kind);
    let mut conditions: Vec<PodCondition> = vec![];
    for (kind, (holds, reason, message)) in &all {
        let holds = if *holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == *kind);
        let since = before.filter(|before| before.status == holds).and_then(|before| before.last_transition_time.clone());
        conditions.push(PodCondition {
            type_: (*kind).to_owned(),
            status: holds.to_owned(),
            reason: Some((*reason).to_owned()).filter(|reason| !reason.is_empty()),
            message: Some(message.clone()).filter(|message| !message.is_empty()),
            last_transition_time: since.or(Some(whole_seconds(facts.now))),
            observed_generation: pod.metadata.generation,
            last_probe_time: None,
        });
    }
    conditions.extend(old.into_iter().filter(|condition| !ours(&condition.type_)));
    status.conditions = Some(conditions);
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
