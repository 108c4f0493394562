//! `services/NAME/proxy/…` and `pods/NAME/proxy/…`: a request passed on to a pod over plain HTTP, as its caller's
//! browser or `kubectl get --raw` sends it. NAME may carry a port, `NAME:PORT`, by number or (for a Service) by name.

use crate::http::Call;
use crate::http::error::Status;
use crate::server::find;
use crate::stored;
use crate::subresources::node_agent::exchange;
use crate::verbs;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is between the caller and the server alone, and must not reach a pod: the caller's credentials above all.
const NOT_PASSED_ON: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONNECTION,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
];

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
    let address = if call.strategy.names().plural == "pods" {
        pod_address(&object, port.as_deref())
    } else {
        service_address(&call, &object, port.as_deref())?
    };
    let Some(address) = address else {
        let why = format!("no endpoints available for service {:?}", call.name());
        return Err(Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why));
    };
    send(&call, &address).await
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

async fn send(call: &Call, address: &str) -> Result<Response, Status> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", format!("error trying to reach service: {why}"))
    };
    let path = if call.info.rest.is_empty() { "/" } else { &call.info.rest };
    let uri = match call.parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut request = Request::new(call.take_body());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = uri.parse().map_err(|error: http::uri::InvalidUri| Status::bad_request(error.to_string()))?;
    *request.headers_mut() = passed_on(&call.parts.headers);
    let host = http::HeaderValue::from_str(address).map_err(|error| unreachable(&error))?;
    request.headers_mut().insert(header::HOST, host);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(stream) => stream.map_err(|error| unreachable(&format!("dial tcp {address}: {error}")))?,
        Err(_) => return Err(unreachable(&format!("dial tcp {address}: i/o timeout"))),
    };
    let answer = exchange(TokioIo::new(stream), request).await.map_err(|error| unreachable(&error))?;
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    // What a pod answers is shown under the API's own origin: it must not act there as a page of ours.
    parts.headers.insert(header::CONTENT_SECURITY_POLICY, http::HeaderValue::from_static("sandbox"));
    parts.headers.remove(header::SET_COOKIE);
    Ok(Response::from_parts(parts, Body::new(body)).into_response())
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for name in NOT_PASSED_ON {
        passed.remove(name);
    }
    passed
}
