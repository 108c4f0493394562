//! containerd's own stream of events, as a hint that something changed. What changed is asked of CRI: a lost event costs a
//! second, never a wrong state. Other runtimes have no such stream, and are polled.

use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Endpoint, Uri};

const RETRY: Duration = Duration::from_secs(1);
/// A runtime that has no such stream isn't asked again soon.
const RETRY_UNKNOWN: Duration = Duration::from_secs(300);

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// The envelope; its content doesn't matter here.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "3")]
    topic: String,
}

#[derive(Debug, Default)]
struct Shared {
    notify: Notify,
    told: AtomicBool,
}

/// Says when something happened. Dropping it ends the stream.
#[derive(Debug)]
pub struct Changes {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Changes {
    pub fn follow(socket: &Path) -> Changes {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(follow(socket.to_owned(), shared.clone())).abort_handle();
        Changes { shared, task }
    }

    /// Many events are one: it returns once for all that happened since it did last.
    pub async fn happened(&self) {
        self.shared.notify.notified().await;
    }

    /// Whether the stream is up, so that polling can be rare.
    pub fn is_told(&self) -> bool {
        self.shared.told.load(Ordering::Relaxed)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(socket: PathBuf, shared: Arc<Shared>) {
    loop {
        let outcome = stream(&socket, &shared).await;
        shared.told.store(false, Ordering::Relaxed);
        let unknown = matches!(&outcome, Err(status) if status.code() == tonic::Code::Unimplemented);
        tokio::time::sleep(if unknown { RETRY_UNKNOWN } else { RETRY }).await;
    }
}

async fn stream(socket: &Path, shared: &Shared) -> Result<(), tonic::Status> {
    let socket = socket.to_owned();
    let connect = move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
    };
    let channel = Endpoint::from_static("http://containerd").connect_with_connector(tower::service_fn(connect)).await;
    let mut client = tonic::client::Grpc::new(channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<SubscribeRequest, Envelope>::default();
    let path = PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let filters = vec!["topic~=\"^/tasks/(start|exit|oom|delete)\"".to_owned()];
    let request = tonic::Request::new(SubscribeRequest { filters });
    let mut events = client.server_streaming(request, path, codec).await?.into_inner();
    shared.told.store(true, Ordering::Relaxed);
    // Whatever happened before the stream was up.
    shared.notify.notify_one();
    while events.message().await?.is_some() {
        shared.notify.notify_one();
    }
    Ok(())
}
