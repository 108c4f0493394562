//! `pods/exec`, `pods/attach` and `pods/portforward`: the client's upgrade request is sent on to the node's agent, and
//! after its 101 the two connections are joined byte by byte. What is spoken on them (SPDY/3.1, WebSocket up to version 4) is
//! between the client and the container runtime. Any other answer is passed back, so that a client that asked for a protocol
//! that isn't there tries its next one.
//!
//! What newer clients speak and runtimes do not is translated here: `channels`, and port forwards that hide SPDY in a WebSocket.

mod channels;
mod spdy;

use super::node_agent::{Agent, agent_of, container, path, pod_of, unreachable};
use crate::http::Call;
use crate::http::error::Status;
use crate::http::websocket;
use crate::server::ApiServer;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A port forward as kubectl does it since 1.31: a SPDY connection inside of a WebSocket (KEP-4006).
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Bytes that wait in each direction of a tunnel.
const TUNNEL_BUFFER_BYTES: usize = 32 * 1024;
/// How long a backend may go on when nothing more comes from the client.
const LINGER: Duration = Duration::from_secs(30);
/// What is for this server alone, or is said anew for each connection.
const NOT_PASSED_ON: [HeaderName; 5] =
    [header::HOST, header::AUTHORIZATION, header::COOKIE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

pub async fn handle(mut call: Call) -> Result<Response, Status> {
    let options = match call.info.subresource.as_str() {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => "PodPortForwardOptions",
    };
    // Before anything else, as in Kubernetes: who is denied the connection learns nothing of the pod.
    crate::subresources::admit_connection(&call, options).await?;
    if !asks_for_upgrade(&call.parts.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let (pod, node) = pod_of(&call).await?;
    let node = node.ok_or_else(|| Status::bad_request(format!("pod {} does not have a host assigned", call.name())))?;
    let uri = uri(&call, &pod)?;
    let agent = agent_of(&call.server, &node)?;
    if websocket::is_asked(&call.parts) {
        let protocol = if call.info.subresource == "portforward" { TUNNEL } else { channels::PROTOCOL };
        if websocket::offers(&call.parts.headers, protocol) {
            return translate(call, &agent, &uri, protocol).await;
        }
    }
    let client = call.parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or_else(|| Status::bad_request("this connection cannot be upgraded: HTTP/1.1 is needed"))?;

    let mut request = Request::new(Body::empty());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = uri.parse().map_err(|error: http::uri::InvalidUri| Status::internal(&error))?;
    for (name, value) in &call.parts.headers {
        if !NOT_PASSED_ON.contains(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let mut answer = call.server.agents.send(&agent, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(Body::new));
    }
    let backend = hyper::upgrade::on(&mut answer);
    let backend = backend.await.map_err(|error| unreachable(&agent.node, &error.to_string()))?;
    join(&call.server, client, backend);
    let (parts, _) = answer.into_parts();
    Ok(Response::from_parts(parts, Body::empty()))
}

/// Speaks SPDY with the agent, and `protocol` with the client.
async fn translate(mut call: Call, agent: &Agent, uri: &str, protocol: &'static str) -> Result<Response, Status> {
    let spoken = if protocol == TUNNEL { "portforward.k8s.io" } else { "v4.channel.k8s.io" };
    let request = Request::post(uri)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", spoken)
        .body(Body::empty())
        .map_err(|error| Status::internal(&error))?;
    let mut answer = call.server.agents.send(agent, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer.map(Body::new));
    }
    let backend = hyper::upgrade::on(&mut answer).await.map_err(|error| unreachable(&agent.node, &error.to_string()))?;
    let backend = TokioIo::new(backend);
    let wanted = wanted(&call);
    let upgrade = websocket::upgrade(&mut call.parts, &[protocol]).await?;
    let server = std::sync::Arc::clone(&call.server);
    Ok(upgrade.on_upgrade(async move |socket| {
        tokio::select! {
            () = async {
                if protocol == TUNNEL { carry(socket, backend).await } else { channels::translate(socket, backend, wanted).await }
            } => {}
            () = server.closing() => {}
        }
    }))
}

/// Carries a connection's bytes in the messages of a WebSocket, until the node has said all or the client is gone.
async fn carry(socket: WebSocket, backend: TokioIo<Upgraded>) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(backend);
    let outwards = async {
        let mut buffer = vec![0; TUNNEL_BUFFER_BYTES];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if to_client.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                break;
            }
        }
    };
    let inwards = async {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(bytes) => {
                    // A node that reads no more may still have something to say.
                    let _ = writer.write_all(&bytes).await;
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = outwards => {}
        () = inwards => {}
    }
    // The client may be gone already.
    let _ = to_client.send(Message::Close(None)).await;
}

/// Joins the two until the backend has said all. That it reads no more is no reason to lose what it said last.
async fn tunnel(client: OnUpgrade, backend: Upgraded) {
    let client = match client.await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%error, "a client went away before its tunnel was open");
            return;
        }
    };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_backend, mut to_backend) = tokio::io::split(TokioIo::new(backend));
    let inwards = async {
        carry_bytes(&mut from_client, &mut to_backend).await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = inwards => {}
        () = carry_bytes(&mut from_backend, &mut to_client) => {}
    }
}

/// Carries what comes until its end, and tells that end. Which of the two has failed is the same to both. (`tokio::io::copy`
/// reads on while it writes, and gives up what it still holds when that fails.)
async fn carry_bytes(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
    let mut buffer = vec![0; TUNNEL_BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // It may be gone already.
    let _ = to.shutdown().await;
}

/// Joins a client with a backend that has switched protocols, byte by byte, until one of them or the server ends.
pub(crate) fn join(server: &Arc<ApiServer>, client: OnUpgrade, backend: Upgraded) {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        tokio::select! {
            () = tunnel(client, backend) => {}
            () = server.closing() => {}
        }
    });
}

pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = connection.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    named && headers.contains_key(header::UPGRADE)
}

/// The agent's path for what the client asks.
fn uri(call: &Call, pod: &serde_json::Value) -> Result<String, Status> {
    let (namespace, name, query) = (call.namespace(), call.name(), &call.info.query);
    let mut out = form_urlencoded::Serializer::new(String::new());
    if call.info.subresource == "portforward" {
        for port in query.all("ports") {
            out.append_pair("port", port);
        }
        let (path, query) = (path(&["portForward", namespace, name]), out.finish());
        return Ok(if query.is_empty() { path } else { format!("{path}?{query}") });
    }
    let container = container(pod, query.get("container"))?;
    let channels::Wanted { stdin, stdout, stderr, tty } = wanted(call);
    if !stdin && !stdout && !stderr {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    if tty && stderr {
        return Err(Status::bad_request("tty and stderr cannot both be true"));
    }
    for (wanted, parameter) in [(stdin, "input"), (stdout, "output"), (stderr, "error"), (tty, "tty")] {
        if wanted {
            out.append_pair(parameter, "1");
        }
    }
    for word in query.all("command") {
        out.append_pair("command", word);
    }
    let verb = if call.info.subresource == "exec" { "exec" } else { "attach" };
    Ok(format!("{}?{}", path(&[verb, namespace, name, &container]), out.finish()))
}

/// The client asks for stdin and a terminal; the outputs it may ask not to have.
fn wanted(call: &Call) -> channels::Wanted {
    let query = &call.info.query;
    let (stdin, tty) = (query.flag("stdin"), query.flag("tty"));
    let stdout = query.optional_flag("stdout") != Some(false);
    // A terminal has one output.
    let stderr = query.optional_flag("stderr").unwrap_or(!tty);
    channels::Wanted { stdin, stdout, stderr, tty }
}
