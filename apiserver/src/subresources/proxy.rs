//! `services/NAME/proxy/…`, `pods/NAME/proxy/…` and `nodes/NAME/proxy/…`: a request passed on to a pod over plain HTTP, or to a
//! node's agent, as its caller's browser or `kubectl get --raw` sends it. NAME may carry a port, `NAME:PORT`, by number or (for a
//! Service) by name. Upgrades (WebSockets) are tunnelled.

use crate::aggregation::hide_token;
use crate::http::Call;
use crate::http::error::Status;
use crate::server::find;
use crate::stored;
use crate::subresources::node_agent::{Agent, exchange, no_addresses};
use crate::subresources::stream::{asks_for_upgrade, join};
use crate::verbs;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is between the caller and the server alone, and must not reach a pod: the caller's credentials above all.
const NOT_PASSED_ON: [HeaderName; 5] =
    [header::AUTHORIZATION, header::COOKIE, header::HOST, header::TRANSFER_ENCODING, header::PROXY_AUTHORIZATION];

/// Who is asked.
enum Backend {
    /// Over plain HTTP at this host and port.
    Address(String),
    Agent(Agent),
}

pub async fn handle(call: Call) -> Result<Response, Status> {
    let (name, port) = match call.name().rsplit_once(':') {
        Some((name, port)) => (name.to_owned(), Some(port.to_owned())),
        None => (call.name().to_owned(), None),
    };
    // `https:NAME:PORT` asks for TLS to the pod, whose certificate nobody here could check.
    if name.contains(':') {
        return Err(Status::bad_request(format!("invalid {} request {name:?}", call.strategy.names().singular)));
    }
    let kind = format!("{}ProxyOptions", call.strategy.names().kind);
    super::admit_connection(&call, &kind).await?;
    let object = verbs::get_object(&call.server, &*call.strategy, call.namespace(), &name).await?;
    let address = match call.strategy.names().plural {
        "nodes" => return send(call, node_backend(&object, &name, port.as_deref())?).await,
        "pods" => pod_address(&object, port.as_deref()),
        _ => service_address(&call, &object, port.as_deref())?,
    };
    let Some(address) = address else {
        let why = format!("no endpoints available for service {:?}", call.name());
        return Err(Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why));
    };
    send(call, Backend::Address(address)).await
}

/// A node's agent, or whatever else listens on another port of the node.
fn node_backend(node: &Value, name: &str, port: Option<&str>) -> Result<Backend, Status> {
    let agent = Agent::of(node).ok_or_else(|| no_addresses(node))?;
    let Some(port) = port.filter(|port| !port.is_empty()) else { return Ok(Backend::Agent(agent)) };
    match port.parse() {
        Ok(port) if port == agent.port => Ok(Backend::Agent(agent)),
        Ok(port) => Ok(Backend::Address(Agent { port, ..agent }.authority())),
        Err(_) => Err(Status::bad_request(format!("invalid node request {:?}", format!("{name}:{port}")))),
    }
}

fn pod_address(pod: &Value, port: Option<&str>) -> Option<String> {
    let ip = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty())?;
    let first = || pod["spec"]["containers"].as_array()?.iter().find_map(|c| c["ports"][0]["containerPort"].as_u64());
    let port = port.and_then(|port| port.parse().ok()).or_else(first).unwrap_or(80);
    Some(format!("{ip}:{port}"))
}

/// Any ready endpoint of the Service's port.
fn service_address(call: &Call, service: &Value, port: Option<&str>) -> Result<Option<String>, Status> {
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let asked = ports.iter().find(|known| match port {
        None => true,
        Some(port) => known["name"] == port || known["port"].as_u64().is_some_and(|number| number.to_string() == port),
    });
    let Some(asked) = asked else { return Ok(None) };
    let port_name = asked["name"].as_str().unwrap_or_default();
    let snapshot = call.server.snapshot();
    let Some(strategy) = call.server.strategy("", "v1", "endpoints") else { return Ok(None) };
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let Some(entry) = find(&snapshot, &*strategy, call.namespace(), name) else { return Ok(None) };
    let endpoints = stored::decode(&*strategy, &entry.bytes).map_err(|error| Status::internal(&error))?;
    let mut ready = vec![];
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        let target =
            subset["ports"].as_array().into_iter().flatten().find(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let Some(number) = target.and_then(|target| target["port"].as_u64()) else { continue };
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        ready.extend(addresses.filter_map(|address| address["ip"].as_str()).map(|ip| format!("{ip}:{number}")));
    }
    if ready.is_empty() {
        return Ok(None);
    }
    let chosen = rand::random_range(0..ready.len());
    Ok(ready.into_iter().nth(chosen))
}

fn unreachable(why: &dyn std::fmt::Display) -> Status {
    Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", format!("error trying to reach service: {why}"))
}

async fn send(mut call: Call, backend: Backend) -> Result<Response, Status> {
    let client = match asks_for_upgrade(&call.parts.headers) {
        true => call.parts.extensions.remove::<OnUpgrade>(),
        false => None,
    };
    let path = if call.info.rest.is_empty() { "/" } else { &call.info.rest };
    let uri = match call.parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut request = Request::new(call.take_body());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = uri.parse().map_err(|error: http::uri::InvalidUri| Status::bad_request(error.to_string()))?;
    *request.headers_mut() = passed_on(&call.parts.headers, client.is_some());
    let mut answer = match backend {
        Backend::Agent(agent) => call.server.agents.send(&agent, request).await?,
        Backend::Address(address) => send_to(&address, request).await?,
    };
    let switched = match client {
        Some(client) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let backend = hyper::upgrade::on(&mut answer).await.map_err(|error| unreachable(&error))?;
            join(&call.server, client, backend);
            true
        }
        _ => false,
    };
    let (mut parts, body) = answer.into_parts();
    // What a pod answers is shown under the API's own origin: it must not act there as a page of ours.
    parts.headers.insert(header::CONTENT_SECURITY_POLICY, http::HeaderValue::from_static("sandbox"));
    parts.headers.remove(header::SET_COOKIE);
    if switched {
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(parts, Body::new(body)).into_response())
}

async fn send_to(address: &str, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
    let host = http::HeaderValue::from_str(address).map_err(|error| unreachable(&error))?;
    request.headers_mut().insert(header::HOST, host);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(stream) => stream.map_err(|error| unreachable(&format!("dial tcp {address}: {error}")))?,
        Err(_) => return Err(unreachable(&format!("dial tcp {address}: i/o timeout"))),
    };
    exchange(TokioIo::new(stream), request).await.map_err(|error| unreachable(&error))
}

fn passed_on(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut passed = headers.clone();
    for name in NOT_PASSED_ON {
        passed.remove(name);
    }
    hide_token(&mut passed);
    if !upgrade {
        passed.remove(header::CONNECTION);
        passed.remove(header::UPGRADE);
    }
    passed
}
