//! What hangs below an object: `scale`, `binding`, `eviction`, `log`, `exec`, `token`, … (`status`, and what else is the object
//! itself, as `resize` of pods, is served by the verbs), and the reviews: resources that are only asked and never stored.

pub mod access_review;
pub mod approval;
pub mod binding;
pub mod eviction;
pub mod finalize;
pub mod node_agent;
pub mod proxy;
pub mod review;
pub mod scale;
pub mod stream;
pub mod token;
pub mod token_review;

use crate::admission::{self, AdmissionContext, Operation};
use crate::http::Call;
use crate::http::error::Status;
use crate::http::request_info::Verb;
use crate::kind::Names;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

/// A subresource, as discovery tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Subresource {
    pub name: &'static str,
    /// Group, version and kind of what it takes or answers.
    pub kind: (&'static str, &'static str, &'static str),
    pub verbs: &'static [&'static str],
}

const READ_WRITE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// The subresources of a kind, by name.
pub fn of(names: &Names) -> Vec<Subresource> {
    let own = (names.group, names.version, names.kind);
    let mut all: Vec<Subresource> = match (names.group, names.plural) {
        ("", "pods") => vec![
            Subresource { name: "attach", kind: ("", "v1", "PodAttachOptions"), verbs: CONNECT },
            Subresource { name: "binding", kind: ("", "v1", "Binding"), verbs: &["create"] },
            Subresource { name: "ephemeralcontainers", kind: own, verbs: READ_WRITE },
            Subresource { name: "eviction", kind: ("policy", "v1", "Eviction"), verbs: &["create"] },
            Subresource { name: "exec", kind: ("", "v1", "PodExecOptions"), verbs: CONNECT },
            Subresource { name: "log", kind: ("", "v1", "Pod"), verbs: &["get"] },
            Subresource { name: "portforward", kind: ("", "v1", "PodPortForwardOptions"), verbs: CONNECT },
            Subresource { name: "proxy", kind: ("", "v1", "PodProxyOptions"), verbs: PROXY },
            Subresource { name: "resize", kind: own, verbs: READ_WRITE },
        ],
        ("", "nodes") => vec![Subresource { name: "proxy", kind: ("", "v1", "NodeProxyOptions"), verbs: PROXY }],
        ("", "services") => vec![Subresource { name: "proxy", kind: ("", "v1", "ServiceProxyOptions"), verbs: PROXY }],
        ("", "serviceaccounts") => {
            vec![Subresource { name: "token", kind: ("authentication.k8s.io", "v1", "TokenRequest"), verbs: &["create"] }]
        }
        ("", "namespaces") => vec![Subresource { name: "finalize", kind: own, verbs: &["update"] }],
        ("certificates.k8s.io", "certificatesigningrequests") => {
            vec![Subresource { name: "approval", kind: own, verbs: READ_WRITE }]
        }
        _ => vec![],
    };
    if names.scale {
        all.push(Subresource { name: "scale", kind: ("autoscaling", "v1", "Scale"), verbs: READ_WRITE });
    }
    if names.status {
        all.push(Subresource { name: "status", kind: own, verbs: READ_WRITE });
    }
    all.sort_by_key(|sub| sub.name);
    all
}

/// Serves a request whose `info.subresource` is neither empty nor `status`. The caller is authorised, the strategy is
/// that of the parent resource.
pub async fn handle(call: Call) -> Result<Response, Status> {
    let names = *call.strategy.names();
    let served = of(&names);
    let Some(sub) = served.iter().find(|sub| sub.name == call.info.subresource) else { return Err(Status::no_such_path()) };
    if !call.info.rest.is_empty() && sub.name != "proxy" {
        return Err(Status::no_such_path());
    }
    if names.namespaced && call.info.namespace.is_none() {
        return Err(Status::method_not_allowed());
    }
    match (names.plural, sub.name, call.info.verb) {
        ("pods", "exec" | "attach" | "portforward", Verb::Get | Verb::Create) => stream::handle(call).await,
        (_, "proxy", _) => proxy::handle(call).await,
        ("pods", "log", Verb::Get) => node_agent::log(call).await,
        ("pods", "binding", Verb::Create) => binding::create(call).await,
        ("pods", "eviction", Verb::Create) => eviction::create(call).await,
        ("serviceaccounts", "token", Verb::Create) => token::create(call).await,
        ("namespaces", "finalize", Verb::Update) => finalize::update(call).await,
        ("certificatesigningrequests", "approval", Verb::Get | Verb::Update | Verb::Patch) => approval::handle(call).await,
        (_, "scale", Verb::Get | Verb::Update | Verb::Patch) => scale::handle(call).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Asks webhooks and policies about a body that is not of the strategy's kind, or about opening a connection.
pub(crate) async fn admit(
    call: &Call,
    operation: Operation,
    name: &str,
    dry_run: bool,
    object: &mut Value,
) -> Result<(), Status> {
    let context = AdmissionContext {
        server: &call.server,
        user: &call.user,
        strategy: &*call.strategy,
        operation,
        namespace: call.namespace(),
        name,
        subresource: if call.info.subresource.is_empty() { "binding" } else { &call.info.subresource },
        old: None,
        dry_run,
    };
    admission::dynamic::subresource(&context, object).await
}

/// The options of a request for a connection, as an object of their kind.
pub(crate) async fn admit_connection(call: &Call, kind: &str) -> Result<(), Status> {
    let query = &call.info.query;
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    for field in ["stdin", "stdout", "stderr", "tty"] {
        if let Some(value) = query.get(field) {
            options[field] = json!(matches!(value, "true" | "1"));
        }
    }
    if let Some(container) = query.get("container") {
        options["container"] = json!(container);
    }
    let command: Vec<&str> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = json!(command);
    }
    let ports: Vec<i64> = query.all("ports").filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        options["ports"] = json!(ports);
    }
    if kind.ends_with("ProxyOptions") {
        options["path"] = json!(call.info.rest.trim_start_matches('/'));
    }
    admit(call, Operation::Connect, call.name(), false, &mut options).await
}

/// A body that is not of the strategy's kind (a Scale, a Binding, …): JSON or YAML.
pub(crate) fn parse_body(content_type: &str, body: &[u8]) -> Result<Value, Status> {
    let unreadable =
        |error: &dyn std::fmt::Display| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"));
    let object: Value = match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => serde_json::from_slice(body).map_err(|error| unreadable(&error))?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => {
            crate::openapi::read_yaml_document(body).map_err(|error| unreadable(&error))?
        }
        _ => {
            return Err(Status::unsupported_media_type());
        }
    };
    if object.is_object() { Ok(object) } else { Err(unreadable(&"the body is not an object")) }
}

/// What a write that answers with no object of its own is told.
fn success(code: StatusCode) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16()})
}
