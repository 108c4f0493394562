//! What runs of a pod, as the runtime tells it.

use crate::runtime::{self, Runtime, api};
use jiff::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    /// Empty for pods of the host's network, and while the network is being made.
    pub ips: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    /// The runtime lost it.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub sandbox: String,
    /// How often it was started before: the restart count.
    pub attempt: u32,
    pub state: State,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_id: String,
    /// The image that the pod asked for when this container was made.
    pub hash: String,
    pub log_path: String,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Exited | State::Unknown)
    }
}

/// Sandboxes and containers, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl Observed {
    /// The sandbox that containers may run in.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The one before the latest.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|container| container.name == name).nth(1)
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.is_running())
    }
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

/// Asks the runtime. Statuses of ended containers that `known` has already are not asked for again: they don't change.
pub async fn observe(runtime: &dyn Runtime, pod_uid: &str, known: &Observed) -> runtime::Result<Observed> {
    let (sandboxes, containers) =
        futures::try_join!(runtime.list_sandboxes(Some(pod_uid)), runtime.list_containers(Some(pod_uid)))?;
    let mut observed = Observed::default();
    for listed in sandboxes {
        let ready = listed.state == api::PodSandboxState::SandboxReady as i32;
        let before = known.sandboxes.iter().find(|sandbox| sandbox.id == listed.id);
        let ips = match before {
            Some(before) if !ready || !before.ips.is_empty() => before.ips.clone(),
            _ => match runtime.sandbox_status(&listed.id).await {
                Ok(status) => addresses(&status),
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            },
        };
        observed.sandboxes.push(Sandbox {
            id: listed.id,
            attempt: listed.metadata.map_or(0, |metadata| metadata.attempt),
            ready,
            created_at: time(listed.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
            ips,
        });
    }
    for listed in containers {
        let ended = listed.state == api::ContainerState::ContainerExited as i32;
        if let Some(before) = known.containers.iter().find(|before| ended && before.id == listed.id && before.has_ended()) {
            observed.containers.push(before.clone());
            continue;
        }
        match runtime.container_status(&listed.id).await {
            Ok(status) => observed.containers.push(container(status, listed.pod_sandbox_id)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    observed.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
    observed.containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
    Ok(observed)
}

fn addresses(status: &api::PodSandboxStatus) -> Vec<String> {
    let Some(network) = &status.network else { return vec![] };
    let more = network.additional_ips.iter().map(|ip| ip.ip.clone());
    std::iter::once(network.ip.clone()).chain(more).filter(|ip| !ip.is_empty()).collect()
}

fn container(status: api::ContainerStatus, sandbox: String) -> Container {
    let metadata = status.metadata.unwrap_or_default();
    let count = status.annotations.get(runtime::RESTART_COUNT).and_then(|count| count.parse().ok());
    Container {
        id: status.id,
        sandbox,
        attempt: count.unwrap_or(metadata.attempt),
        name: metadata.name,
        state: match api::ContainerState::try_from(status.state) {
            Ok(api::ContainerState::ContainerCreated) => State::Created,
            Ok(api::ContainerState::ContainerRunning) => State::Running,
            Ok(api::ContainerState::ContainerExited) => State::Exited,
            _ => State::Unknown,
        },
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_id: status.image_ref,
        hash: status.annotations.get(runtime::CONTAINER_HASH).cloned().unwrap_or_default(),
        log_path: status.log_path,
    }
}
