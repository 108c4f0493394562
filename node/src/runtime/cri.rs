//! [`Runtime`] over a CRI socket.

use super::api::image_service_client::ImageServiceClient;
use super::api::runtime_service_client::RuntimeServiceClient;
use super::{Error, Output, POD_UID, Result, Runtime, Streams, api};
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

/// A call that should be quick: listing, status, stats.
const QUICK: Duration = Duration::from_secs(30);
/// Making a sandbox runs the network plugins.
const SLOW: Duration = Duration::from_secs(240);
/// A pull that makes no end: registries are slow, and images large.
const PULL: Duration = Duration::from_secs(30 * 60);
/// A list of many containers is larger than gRPC's default of 4 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    /// Connects when the first call is made, and again when the runtime came back.
    pub fn new(socket: &Path) -> Cri {
        let socket: PathBuf = socket.to_owned();
        let connect = move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
        };
        let channel = Endpoint::from_static("http://cri").connect_with_connector_lazy(tower::service_fn(connect));
        Cri {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
        }
    }
}

fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn refused(status: Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => Error::NotFound { message },
        Code::DeadlineExceeded | Code::Cancelled => Error::Timeout { message },
        Code::Unavailable => Error::Unavailable { message },
        // containerd 1.6 answers some look-ups of what is gone with Unknown.
        Code::Unknown if message.ends_with("not found") && !message.contains("pull") => Error::NotFound { message },
        Code::InvalidArgument => Error::Refused { code: "InvalidArgument", message },
        Code::AlreadyExists => Error::Refused { code: "AlreadyExists", message },
        Code::FailedPrecondition => Error::Refused { code: "FailedPrecondition", message },
        Code::PermissionDenied => Error::Refused { code: "PermissionDenied", message },
        Code::Internal => Error::Refused { code: "Internal", message },
        Code::Unimplemented => Error::Refused { code: "Unimplemented", message },
        _ => Error::Refused { code: "Unknown", message },
    }
}

/// What is gone already needn't be stopped or removed.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn of_pod(uid: Option<&str>) -> HashMap<String, String> {
    uid.map(|uid| (POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

macro_rules! call {
    ($client:expr, $method:ident, $limit:expr, $message:expr) => {
        $client.clone().$method(within($limit, $message)).await.map(tonic::Response::into_inner).map_err(refused)
    };
}

fn missing(what: &str) -> Error {
    Error::Refused { code: "Internal", message: format!("the runtime's answer has no {what}") }
}

#[async_trait]
impl Runtime for Cri {
    async fn version(&self) -> Result<api::VersionResponse> {
        call!(self.runtime, version, QUICK, api::VersionRequest { version: "v1".into() })
    }

    async fn conditions(&self) -> Result<Vec<api::RuntimeCondition>> {
        let answer = call!(self.runtime, status, QUICK, api::StatusRequest { verbose: false })?;
        Ok(answer.status.map(|status| status.conditions).unwrap_or_default())
    }

    async fn run_sandbox(&self, config: api::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = api::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(call!(self.runtime, run_pod_sandbox, SLOW, request)?.pod_sandbox_id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = api::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, stop_pod_sandbox, SLOW, request).map(drop))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = api::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, remove_pod_sandbox, SLOW, request).map(drop))
    }

    async fn sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus> {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        call!(self.runtime, pod_sandbox_status, QUICK, request)?.status.ok_or_else(|| missing("status"))
    }

    async fn list_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<api::PodSandbox>> {
        let filter = api::PodSandboxFilter { label_selector: of_pod(pod_uid), ..Default::default() };
        Ok(call!(self.runtime, list_pod_sandbox, QUICK, api::ListPodSandboxRequest { filter: Some(filter) })?.items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String> {
        let request = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime, create_container, SLOW, request)?.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        call!(self.runtime, start_container, SLOW, api::StartContainerRequest { container_id: id.to_owned() }).map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let request = api::StopContainerRequest { container_id: id.to_owned(), timeout: grace.as_secs() as i64 };
        gone_is_fine(call!(self.runtime, stop_container, grace + SLOW, request).map(drop))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = api::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, remove_container, SLOW, request).map(drop))
    }

    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<api::Container>> {
        let filter = api::ContainerFilter { label_selector: of_pod(pod_uid), ..Default::default() };
        Ok(call!(self.runtime, list_containers, QUICK, api::ListContainersRequest { filter: Some(filter) })?.containers)
    }

    async fn container_status(&self, id: &str) -> Result<api::ContainerStatus> {
        let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        call!(self.runtime, container_status, QUICK, request)?.status.ok_or_else(|| missing("status"))
    }

    async fn container_stats(&self) -> Result<Vec<api::ContainerStats>> {
        Ok(call!(self.runtime, list_container_stats, QUICK, api::ListContainerStatsRequest { filter: None })?.stats)
    }

    async fn update_container(&self, id: &str, resources: api::LinuxContainerResources) -> Result<()> {
        let request =
            api::UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(resources), ..Default::default() };
        call!(self.runtime, update_container_resources, QUICK, request).map(drop)
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = api::ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime, reopen_container_log, QUICK, request).map(drop)
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<Output> {
        // CRI counts in whole seconds, and zero is no limit.
        let seconds = timeout.as_secs().max(1) as i64;
        let request = api::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds };
        let answer = call!(self.runtime, exec_sync, timeout + QUICK, request)?;
        Ok(Output { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec(&self, id: &str, command: Vec<String>, streams: Streams) -> Result<String> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let request = api::ExecRequest { container_id: id.to_owned(), cmd: command, tty, stdin, stdout, stderr };
        Ok(call!(self.runtime, exec, QUICK, request)?.url)
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<String> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let request = api::AttachRequest { container_id: id.to_owned(), stdin, tty, stdout, stderr };
        Ok(call!(self.runtime, attach, QUICK, request)?.url)
    }

    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        let request = api::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(call!(self.runtime, port_forward, QUICK, request)?.url)
    }

    async fn image(&self, name: &str) -> Result<Option<api::Image>> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        Ok(call!(self.images, image_status, QUICK, api::ImageStatusRequest { image, verbose: false })?.image)
    }

    async fn list_images(&self) -> Result<Vec<api::Image>> {
        Ok(call!(self.images, list_images, QUICK, api::ListImagesRequest { filter: None })?.images)
    }

    async fn pull_image(&self, name: &str, auth: Option<api::AuthConfig>, sandbox: api::PodSandboxConfig) -> Result<String> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = api::PullImageRequest { image, auth, sandbox_config: Some(sandbox) };
        Ok(call!(self.images, pull_image, PULL, request)?.image_ref)
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        let image = Some(api::ImageSpec { image: id.to_owned(), ..Default::default() });
        gone_is_fine(call!(self.images, remove_image, SLOW, api::RemoveImageRequest { image }).map(drop))
    }
}
