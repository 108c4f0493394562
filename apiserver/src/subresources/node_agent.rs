//! The way to a pod's node agent: which node, which address, and one HTTP/1.1 connection over TLS for each request.
//! `pods/log` is served here; `stream` and `proxy` use the same connection.

use crate::http::Call;
use crate::http::error::{Invalid, Status, qualified};
use crate::server::{ApiServer, find};
use crate::stored;
use crate::verbs;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const AGENT_PORT: u16 = 10250;
/// A node that does not answer a connection within this time is taken to be away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an agent's error, to be passed on as a message.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// How the server proves to node agents who it is, and knows them.
#[derive(Clone)]
pub struct Agents {
    tls: Option<TlsConnector>,
}

impl Agents {
    /// `identity` is a certificate chain and a key, `ca` whoever signs the agents' serving certificates, all in PEM.
    /// Without both no agent can be reached: there is no unverified way.
    pub fn new(identity: Option<&(String, String)>, ca: Option<&str>) -> Result<Self, String> {
        let (Some((chain, key)), Some(ca)) = (identity, ca) else { return Ok(Agents { tls: None }) };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| error.to_string())?;
        Ok(Agents { tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// Sends one request on a connection of its own, which lives as long as the answer's body or its upgrade.
    pub async fn send(&self, agent: &Agent, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let authority = agent.authority();
        let tls = self.tls.as_ref().ok_or_else(|| unreachable(&agent.node, "the server has no certificate for node agents"))?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let tcp = TcpStream::connect(&authority).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(agent.host.clone()).map_err(std::io::Error::other)?;
            tls.connect(name, tcp).await
        });
        let stream = match connected.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(&agent.node, &format!("dial tcp {authority}: {error}"))),
            Err(_) => return Err(unreachable(&agent.node, &format!("dial tcp {authority}: i/o timeout"))),
        };
        if let Ok(host) = HeaderValue::from_str(&authority) {
            request.headers_mut().insert(header::HOST, host);
        }
        exchange(TokioIo::new(stream), request).await.map_err(|error| unreachable(&agent.node, &error.to_string()))
    }
}

/// One request over an open connection, which is driven by a task until it ends or is upgraded.
pub(super) async fn exchange<S>(stream: TokioIo<S>, request: Request<Body>) -> hyper::Result<Response<Incoming>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    sender.send_request(request).await
}

/// Where a node's agent listens.
#[derive(Debug, Clone)]
pub struct Agent {
    pub node: String,
    pub host: String,
    pub port: u16,
}

impl Agent {
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    pub fn of(node: &Value) -> Option<Agent> {
        let addresses = node["status"]["addresses"].as_array()?;
        let host = ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"].iter().find_map(|wanted| {
            addresses.iter().find(|address| address["type"] == *wanted).and_then(|address| address["address"].as_str())
        })?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(AGENT_PORT);
        Some(Agent { node: node["metadata"]["name"].as_str()?.to_owned(), host: host.to_owned(), port })
    }
}

/// The agent of a node by its name.
pub fn agent_of(server: &ApiServer, node: &str) -> Result<Agent, Status> {
    let not_found = || Status::not_found("", "nodes", node);
    let strategy = server.strategy("", "v1", "nodes").ok_or_else(not_found)?;
    let snapshot = server.snapshot();
    let entry = find(&snapshot, &*strategy, "", node).ok_or_else(not_found)?;
    let object = stored::decode(&*strategy, &entry.bytes).map_err(|error| Status::internal(&error))?;
    Agent::of(&object).ok_or_else(|| no_addresses(&object))
}

pub fn no_addresses(node: &Value) -> Status {
    let known = &node["status"]["addresses"];
    let why = format!("Internal error occurred: no preferred addresses found; known addresses: {known}");
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", why)
}

/// The call's pod, and its node's name if it has one.
pub async fn pod_of(call: &Call) -> Result<(Value, Option<String>), Status> {
    let pod = verbs::get_object(&call.server, &*call.strategy, call.namespace(), call.name()).await?;
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()).map(str::to_owned);
    Ok((pod, node))
}

/// The container that is meant: the one asked for, or the only one.
pub fn container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array();
        list.into_iter().flatten().filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
    };
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match asked {
        Some(asked) if main.iter().chain(&init).chain(&ephemeral).any(|known| known == asked) => Ok(asked.to_owned()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let mut why = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                why += &format!(" or one of the init containers: [{}]", init.join(" "));
            }
            if !ephemeral.is_empty() {
                why += &format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" "));
            }
            Err(Status::bad_request(why))
        }
    }
}

pub fn unreachable(node: &str, why: &str) -> Status {
    tracing::warn!(node, why, "a node agent could not be reached");
    let message = format!("Internal error occurred: the agent of node {node} could not be reached: {why}");
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).with_details(json!({"causes": [{"message": why}]}))
}

/// Path segments, percent-encoded.
pub fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.extend(percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC));
    }
    path
}

// === pods/log ===

/// Passes a container's log through as the agent sends it.
pub async fn log(call: Call) -> Result<Response, Status> {
    let query = log_query(&call)?;
    let (pod, node) = pod_of(&call).await?;
    let container = container(&pod, call.info.query.get("container"))?;
    let Some(node) = node else {
        let mut empty = Response::new(Body::empty());
        *empty.status_mut() = StatusCode::NO_CONTENT;
        return Ok(empty);
    };
    let agent = agent_of(&call.server, &node)?;
    let path = path(&["containerLogs", call.namespace(), call.name(), &container]);
    let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
    let request = Request::get(uri).body(Body::empty()).map_err(|error| Status::internal(&error))?;
    let answer = call.server.agents.send(&agent, request).await?;
    if !answer.status().is_success() {
        return Err(refusal(answer, "pods/log", call.name()).await);
    }
    let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(Body::new(answer.into_body()));
    let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// `PodLogOptions` as the agent takes them.
fn log_query(call: &Call) -> Result<String, Status> {
    let query = &call.info.query;
    let mut errors = vec![];
    for (name, least) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        let Some(number) = query.integer(name)? else { continue };
        if number < least {
            let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(Invalid::value(name, &json!(number), why));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.push(Invalid::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", call.name(), &errors));
    }
    let mut out = form_urlencoded::Serializer::new(String::new());
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            out.append_pair(flag, "true");
        }
    }
    for name in ["tailLines", "sinceSeconds", "sinceTime", "limitBytes", "stream"] {
        if let Some(value) = query.get(name) {
            out.append_pair(name, value);
        }
    }
    Ok(out.finish())
}

/// What an agent's error means to the client: its text, where it is about what was asked for.
pub async fn refusal(answer: Response<Incoming>, resource: &str, name: &str) -> Status {
    let code = answer.status();
    let text = match Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim_end().to_owned(),
        Err(error) => error.to_string(),
    };
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => Status::new(code, "InternalError", format!("Internal error occurred: {text}")),
        StatusCode::NOT_FOUND => {
            let message =
                format!("the server could not find the requested resource ({} {name}): {text}", qualified(resource, ""));
            Status::new(code, "NotFound", message).with_details(json!({"name": name, "kind": resource}))
        }
        _ => Status::new(code, "", format!("the node's agent answered {code}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_container_need_not_be_named() {
        let pod = |containers: Value| json!({"metadata": {"name": "web"}, "spec": {"containers": containers, "initContainers": [{"name": "i"}]}});
        let one = pod(json!([{"name": "a"}]));
        assert_eq!(container(&one, None).unwrap(), "a");
        assert_eq!(container(&one, Some("i")).unwrap(), "i");
        assert_eq!(container(&one, Some("z")).unwrap_err().message, "container z is not valid for pod web");
        assert_eq!(
            container(&pod(json!([{"name": "a"}, {"name": "b"}])), None).unwrap_err().message,
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
        );
    }

    #[test]
    fn an_agent_listens_where_its_node_says() {
        let node = json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "fd00::1"}],
                       "daemonEndpoints": {"kubeletEndpoint": {"Port": 7}}},
        });
        assert_eq!(Agent::of(&node).unwrap().authority(), "[fd00::1]:7");
        assert!(Agent::of(&json!({"metadata": {"name": "n1"}})).is_none());
        assert_eq!(path(&["exec", "a b", "x/y"]), "/exec/a%20b/x%2Fy");
    }
}
