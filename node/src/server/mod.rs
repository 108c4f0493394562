//! The agent's HTTPS server: logs, exec, attach, port-forward, stats. Its only client is the API server.

mod logs;
mod stats;
mod tls;
mod tunnel;

use crate::Error;
use crate::pod::Context;
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use kube::Client;
use slipway_api::core::Pod;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

type Shared = Arc<Context>;

/// Serves until `shutdown`.
pub async fn serve(context: Shared, client: Client, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
    let acceptor = tls::acceptor(&context.options, client, shutdown.clone()).await?;
    let router = router(context);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else { continue };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.current().accept(stream).await else { return };
            let allowed = tls::is_allowed(stream.get_ref().1);
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let router = router.clone();
                async move {
                    if !allowed {
                        return Ok::<_, std::convert::Infallible>((StatusCode::UNAUTHORIZED, "Unauthorized").into_response());
                    }
                    Ok(router.oneshot(request.map(axum::body::Body::new)).await.unwrap_or_else(|never| match never {}))
                }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

fn router(context: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(exec))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(port_forward))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(stats::metrics))
        .route("/metrics/resource", get(stats::metrics))
        .with_state(context)
}

/// What is refused, with its status.
pub struct Refused(pub StatusCode, pub String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<crate::runtime::Error> for Refused {
    fn from(error: crate::runtime::Error) -> Self {
        let code = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        Refused(code, error.to_string())
    }
}

/// The latest container of this name, or the one before it.
async fn find(
    context: &Context,
    path: &HashMap<String, String>,
    previous: bool,
) -> Result<crate::runtime::api::Container, Refused> {
    let of = |key: &str| path.get(key).cloned().unwrap_or_default();
    let (namespace, pod, name) = (of("namespace"), of("pod"), of("container"));
    let is_label = |container: &crate::runtime::api::Container, key: &str, value: &str| {
        container.labels.get(key).map(String::as_str) == Some(value)
    };
    let mut found = context.runtime.list_containers(None).await?;
    found.retain(|container| {
        is_label(container, crate::runtime::POD_NAMESPACE, &namespace)
            && is_label(container, crate::runtime::POD_NAME, &pod)
            && is_label(container, crate::runtime::CONTAINER_NAME, &name)
    });
    found.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    let word = if previous { "previous terminated container" } else { "container" };
    let missing = || Refused(StatusCode::BAD_REQUEST, format!("{word} \"{name}\" in pod \"{pod}\" not found"));
    found.into_iter().nth(usize::from(previous)).ok_or_else(missing)
}

async fn find_running(context: &Context, path: &HashMap<String, String>) -> Result<String, Refused> {
    let container = find(context, path, false).await?;
    if container.state != crate::runtime::api::ContainerState::ContainerRunning as i32 {
        let name = path.get("container").cloned().unwrap_or_default();
        return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("container not running ({name})")));
    }
    Ok(container.id)
}

type Asked = Query<Vec<(String, String)>>;

fn streams(query: &[(String, String)]) -> crate::runtime::Streams {
    // kubectl says `stdin`, the node's own API `input`; both come through.
    let on = |names: [&str; 2]| {
        query.iter().any(|(key, value)| names.contains(&key.as_str()) && matches!(value.as_str(), "1" | "true"))
    };
    crate::runtime::Streams {
        stdin: on(["input", "stdin"]),
        stdout: on(["output", "stdout"]),
        stderr: on(["error", "stderr"]) && !on(["tty", "tty"]),
        tty: on(["tty", "tty"]),
    }
}

async fn exec(
    State(context): State<Shared>,
    Path(path): Path<HashMap<String, String>>,
    Query(query): Asked,
    request: Request,
) -> Result<Response, Refused> {
    let id = find_running(&context, &path).await?;
    let command = query.iter().filter(|(key, _)| key == "command").map(|(_, word)| word.clone()).collect();
    let url = context.runtime.exec(&id, command, streams(&query)).await?;
    tunnel::through(&url, request).await
}

async fn attach(
    State(context): State<Shared>,
    Path(path): Path<HashMap<String, String>>,
    Query(query): Asked,
    request: Request,
) -> Result<Response, Refused> {
    let id = find_running(&context, &path).await?;
    let url = context.runtime.attach(&id, streams(&query)).await?;
    tunnel::through(&url, request).await
}

async fn port_forward(
    State(context): State<Shared>,
    Path(path): Path<HashMap<String, String>>,
    Query(query): Asked,
    request: Request,
) -> Result<Response, Refused> {
    let of = |key: &str| path.get(key).cloned().unwrap_or_default();
    let (namespace, pod) = (of("namespace"), of("pod"));
    let sandboxes = context.runtime.list_sandboxes(None).await?;
    let found = sandboxes.into_iter().find(|sandbox| {
        let ready = sandbox.state == crate::runtime::api::PodSandboxState::SandboxReady as i32;
        ready && sandbox.metadata.as_ref().is_some_and(|metadata| metadata.name == pod && metadata.namespace == namespace)
    });
    let sandbox = found.ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("pod \"{pod}\" is not running")))?;
    // `port=80&port=443`, or `ports=80,443`.
    let asked = query.iter().filter(|(key, _)| matches!(key.as_str(), "port" | "ports"));
    let ports = asked.flat_map(|(_, value)| value.split(',')).filter_map(|port| port.parse().ok()).collect();
    let url = context.runtime.port_forward(&sandbox.id, ports).await?;
    tunnel::through(&url, request).await
}

async fn pods(State(context): State<Shared>) -> Result<Response, Refused> {
    let pods: kube::Api<Pod> = kube::Api::all(context.objects.client.clone());
    let of_node = kube::api::ListParams::default().fields(&format!("spec.nodeName={}", context.options.node_name));
    let list = pods.list(&of_node).await.map_err(|error| Refused(StatusCode::BAD_GATEWAY, error.to_string()))?;
    let body = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list.items });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}
