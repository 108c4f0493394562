//! The container runtime, seen through the Container Runtime Interface.

pub mod containerd;
pub mod cri;
pub mod events;

pub mod mount_namespace;
pub mod pause;

use async_trait::async_trait;
pub use k8s_cri::v1 as api;
use std::time::Duration;

/// The labels that say whose a sandbox or container is; `crictl` and other tools read the same.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotations of a container: what the agent must know of it after its own restart.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_LOG: &str = "io.kubernetes.container.terminationMessagePath";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{message}")]
    NotFound { message: String },
    #[error("{message}")]
    Timeout { message: String },
    #[error("{message}")]
    Unavailable { message: String },
    /// The runtime's own words: they go into events and statuses.
    #[error("rpc error: code = {code} desc = {message}")]
    Refused { code: &'static str, message: String },
    #[error("{0}")]
    Start(String),
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// What a command in a container printed, and how it ended.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// The streams that an exec or attach asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// The calls of CRI that the agent makes. Each is idempotent as CRI asks of it.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn version(&self) -> Result<api::VersionResponse>;
    async fn conditions(&self) -> Result<Vec<api::RuntimeCondition>>;

    async fn run_sandbox(&self, config: api::PodSandboxConfig, handler: &str) -> Result<String>;
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    async fn sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus>;
    /// All, or those of one pod.
    async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<api::PodSandbox>>;

    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<api::Container>>;
    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus>;
    async fn container_stats(&self) -> Result<Vec<api::ContainerStats>>;
    /// Gives a container that runs other limits and shares.
    async fn update_container(&self, id: &str, resources: api::LinuxContainerResources) -> Result<()>;
    async fn reopen_log(&self, id: &str) -> Result<()>;

    /// Runs a command to its end. [`Error::Timeout`] when it took longer.
    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<Output>;
    /// Where the runtime serves the streams.
    async fn exec(&self, id: &str, command: Vec<String>, streams: Streams) -> Result<String>;
    async fn attach(&self, id: &str, streams: Streams) -> Result<String>;
    /// WebSocket clients name the ports beforehand; SPDY clients name one for each stream.
    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String>;

    async fn image(&self, name: &str) -> Result<Option<api::Image>>;
    async fn list_images(&self) -> Result<Vec<api::Image>>;
    /// Pulls, and returns the image's reference.
    async fn pull_image(&self, name: &str, auth: Option<api::AuthConfig>, sandbox: api::PodSandboxConfig) -> Result<String>;
    async fn remove_image(&self, id: &str) -> Result<()>;
}
