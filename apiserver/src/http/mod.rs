//! From a connection to a request that a verb can carry out, and back.

pub mod authenticate;
pub mod authorize;
pub mod compression;
pub mod error;
pub mod health;
mod idle;
pub mod impersonate;
pub mod limits;
pub mod metrics;
pub mod negotiate;
pub mod notes;
pub mod protobuf;
pub mod query;
pub mod request_info;
pub mod respond;
pub mod serve;
pub mod session;
pub mod stall;
pub mod websocket;

use crate::aggregation::{self, Proxied};
use crate::audit;
use crate::custom_resources;
use crate::flow_control::{self, schema::Flow};
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::http::negotiate::{Accept, Offer};
use crate::http::request_info::{RequestInfo, Verb};
use crate::kind::Strategy;
use crate::openapi::FieldValidation;
use crate::server::ApiServer;
use crate::verbs;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tracing::Instrument;

/// One authorised request for a resource that is served.
pub struct Call {
    pub server: Arc<ApiServer>,
    pub strategy: Arc<dyn Strategy>,
    pub user: User,
    pub info: RequestInfo,
    /// Method, headers and extensions (among them hyper's `OnUpgrade`).
    pub parts: Parts,
    body: Mutex<Body>,
}

impl Call {
    /// Empty for kinds of the cluster.
    pub fn namespace(&self) -> &str {
        if self.strategy.names().namespaced { self.info.namespace.as_deref().unwrap_or_default() } else { "" }
    }

    pub fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or_default()
    }

    pub fn accept(&self) -> Result<Accept, Status> {
        Accept::parse(&self.parts.headers, self.offer())
    }

    fn offer(&self) -> Offer {
        let names = self.strategy.names();
        // A review is called with another kind's strategy. Those that are only written have no columns.
        let own = self.info.resource == names.plural;
        let table = own && !matches!(self.info.subresource.as_str(), "binding" | "eviction" | "token");
        let protobuf = !own || protobuf::of_strategy(&*self.strategy).is_some();
        Offer { protobuf, table, stream: self.info.verb == Verb::Watch }
    }

    /// Of the body that `read_body` hands out.
    pub fn content_type(&self) -> &str {
        if self.is_protobuf() { "application/json" } else { self.sent_type() }
    }

    fn sent_type(&self) -> &str {
        self.parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn is_protobuf(&self) -> bool {
        self.sent_type().split(';').next() == Some(protobuf::CONTENT_TYPE)
    }

    /// The body; empty the second time.
    pub fn take_body(&self) -> Body {
        std::mem::take(&mut *self.body.lock())
    }

    /// Reads the body, up to `limits::BODY_BYTES_MAX`. One in protobuf is handed out as JSON, and `content_type` says so.
    pub async fn read_body(&self) -> Result<Bytes, Status> {
        let body = limits::read(self.take_body()).await?;
        if self.is_protobuf() && !body.is_empty() {
            if !self.offer().protobuf {
                return Err(Status::unsupported_media_type());
            }
            let body: Bytes = protobuf::decode(&body)?.to_string().into();
            audit::request_body(&body, "application/json");
            return Ok(body);
        }
        audit::request_body(&body, self.content_type());
        Ok(body)
    }

    /// Reads and decodes an object of the call's kind (see `openapi::decode`).
    pub async fn read_object(&self) -> Result<(Value, Vec<String>), Status> {
        let body = self.read_body().await?;
        crate::openapi::decode(&*self.strategy, &body, self.content_type(), self.field_validation()?)
    }

    pub fn field_validation(&self) -> Result<FieldValidation, Status> {
        FieldValidation::parse(self.info.query.get("fieldValidation"))
    }
}

pub fn router(server: Arc<ApiServer>) -> Router {
    Router::new().fallback(handle).with_state(server)
}

/// One request from its head to the head of its answer: timed, counted, and told of in a span.
async fn handle(State(server): State<Arc<ApiServer>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let info = RequestInfo::parse(&parts.method, &parts.uri);
    let span = tracing::debug_span!("request", verb = info.verb.as_str(), path = info.path, user = tracing::field::Empty);
    let start = Instant::now();
    let reader = respond::Reader::of(&parts.headers);
    let record = audit::Record::begin(&server, &parts, &info);
    let flow = OnceLock::new();
    let answer = AssertUnwindSafe(answer(Arc::clone(&server), info.clone(), parts, body, &record, &flow)).catch_unwind();
    let (answered, notes) = notes::gather(record.scope(answer.instrument(span.clone()))).await;
    record.annotate(notes.annotations);
    let refused = |status: Status| {
        record.refused(&status);
        reader.status(&status)
    };
    let mut response = match answered {
        Ok(Ok(response)) => record.respond(response, false),
        Ok(Err(status)) => record.respond(refused(status), false),
        Err(panic) => {
            server.metrics.panicked();
            record.respond(refused(Status::internal(&Panicked(text_of(&*panic)))), true)
        }
    };
    let ours = response.extensions().get::<Proxied>().is_none();
    if info.is_resource && !info.is_long_running() && reader.gzip && ours {
        response = compression::whole(response).await;
    }
    if let Some(flow) = flow.get() {
        flow_control::tell(flow, response.headers_mut());
    }
    notes.warnings.iter().for_each(|warning| respond::warn(&mut response, warning));
    let took = start.elapsed();
    server.metrics.answered(&server, &info, response.status(), took);
    span.in_scope(|| tracing::debug!(code = response.status().as_u16(), took_us = took.as_micros(), "answered"));
    response
}

/// A request that panicked is answered with a 500, and the server goes on.
#[derive(Debug, thiserror::Error)]
#[error("the request panicked: {0}")]
struct Panicked(String);

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

async fn answer(
    server: Arc<ApiServer>,
    info: RequestInfo,
    mut parts: Parts,
    body: Body,
    record: &audit::Record,
    flow: &OnceLock<Flow>,
) -> Result<Response, Status> {
    let user = authenticate::authenticate(&server, &mut parts).await.inspect_err(|_| record.failed_authentication())?;
    record.authenticated(&user);
    authorize::check_anonymous(&user, &info).inspect_err(|_| record.failed_authentication())?;
    let user = impersonate::act(&server, user, &mut parts)?;
    tracing::Span::current().record("user", user.name.as_str());
    let flow = server.flow_control.classify(&user, &info).map(|found| flow.get_or_init(|| found));
    let permit = match flow {
        // What lasts takes no seats, but a watch while it begins.
        Some(flow) if !info.is_long_running() || info.verb == Verb::Watch => {
            let control = Arc::clone(&server.flow_control);
            Some(control.enter(flow, &info).await?)
        }
        _ => None,
    };
    let authorized = authorize::authorize(&server, &user, &info);
    notes::annotate("authorization.k8s.io/decision", if authorized.is_ok() { "allow" } else { "forbid" });
    authorized?;
    if info.is_long_running() {
        let open = server.metrics.long_running();
        let framing = websocket_framing(&info, &parts).map(|framing| (framing, parts.clone()));
        let mut response = dispatch(server, user, info, parts, body).await?;
        drop(permit);
        // An extension server has cut its watches itself.
        let ours = response.extensions().get::<Proxied>().is_none();
        if let Some((framing, parts)) = framing.filter(|_| ours) {
            response = websocket::messages(parts, response, framing).await?;
        }
        // Counted for as long as the body lasts.
        return Ok(response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _open = &open;
                frame
            }))
        }));
    }
    let response = dispatch(server, user, info, parts, body).await;
    drop(permit);
    response
}

/// How a watch or a log is cut into messages, where the client wants those (exec and its like see to it themselves).
fn websocket_framing(info: &RequestInfo, parts: &Parts) -> Option<websocket::Framing> {
    let framing = match info.subresource.as_str() {
        _ if info.verb == Verb::Watch => websocket::Framing::Lines,
        "log" => websocket::Framing::Bytes,
        _ => return None,
    };
    websocket::is_asked(parts).then_some(framing)
}

async fn dispatch(server: Arc<ApiServer>, user: User, info: RequestInfo, parts: Parts, body: Body) -> Result<Response, Status> {
    let mut remote = server.aggregator.remote(&info.group, &info.version);
    if remote.is_none() && !info.version.is_empty() && !server.serves(&info.group, &info.version) {
        custom_resources::look_again(&server).await;
        remote = server.aggregator.remote(&info.group, &info.version);
    }
    if let Some(service) = remote {
        return Box::pin(aggregation::forward(&server, &service, &user, &info, parts, body)).await;
    }
    if !info.is_resource {
        if info.verb != Verb::Get {
            return Ok(respond::page_not_found());
        }
        if info.path == "/metrics" {
            return metrics::respond(&server);
        }
        if let Some(response) = health::respond(&server, &info).await {
            return response;
        }
        if let Some(response) = crate::openapi::respond(&server, &parts).await {
            return response;
        }
        return crate::discovery::respond(&server, &parts).unwrap_or_else(|| Ok(respond::page_not_found()));
    }
    if server.serves(&info.group, &info.version) && server.strategy(&info.group, &info.version, &info.resource).is_none() {
        custom_resources::look_again(&server).await;
    }
    if !server.serves(&info.group, &info.version) {
        return Ok(respond::page_not_found());
    }
    if let Some(review) = crate::subresources::review::find(&info.group, &info.version, &info.resource) {
        let strategy = server.strategy("", "v1", "pods").ok_or_else(Status::no_such_path)?;
        let call = Call { server, strategy, user, info, parts, body: Mutex::new(body) };
        return Box::pin(crate::subresources::review::create(call, review)).await;
    }
    let strategy = server.strategy(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_path)?;
    serve_resource(Call { server, strategy, user, info, parts, body: Mutex::new(body) }).await
}

/// Kinds that decide on other requests: rights are looked up in the cache, and so is what admission goes by.
const DECIDING: [(&str, &str); 6] = [
    ("", "limitranges"),
    ("", "resourcequotas"),
    ("node.k8s.io", "runtimeclasses"),
    ("networking.k8s.io", "ingressclasses"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "storageclasses"),
];

/// Carries out a call. Who was told that a right is granted or taken, or that a limit holds, can rely on it.
async fn serve_resource(call: Call) -> Result<Response, Status> {
    if matches!(call.info.verb, Verb::Get | Verb::List | Verb::Watch) {
        return serve_verb(call).await;
    }
    let kind = (call.info.group.as_str(), call.info.resource.as_str());
    let decides = kind.0 == crate::authorization::rbac::GROUP || DECIDING.contains(&kind);
    let server = Arc::clone(&call.server);
    let response = serve_verb(call).await?;
    if !decides {
        // Others are not waited for, but who follows the store has had its turn before the answer goes out.
        tokio::task::yield_now().await;
    } else if let Err(error) = server.cache.fresh().await {
        tracing::warn!(%error, "the cache does not follow a write that decides on other requests");
    }
    Ok(response)
}

/// Hands a call to its verb.
async fn serve_verb(call: Call) -> Result<Response, Status> {
    let names = call.strategy.names();
    if !names.namespaced && call.info.namespace.is_some() && names.plural != "namespaces" {
        return Err(Status::no_such_path());
    }
    match call.info.subresource.as_str() {
        "" => {}
        "status" if names.status && call.info.rest.is_empty() => {}
        own if call.info.rest.is_empty() && call.strategy.parts().iter().any(|part| part.name == own) => {}
        _ => return Box::pin(crate::subresources::handle(call)).await,
    }
    let across = names.namespaced && call.info.namespace.is_none();
    // Each is thousands of bytes, and what holds it is moved several times before it begins.
    match call.info.verb {
        Verb::Get if !across => Box::pin(verbs::get::get(call)).await,
        Verb::List => Box::pin(verbs::list::list(call)).await,
        Verb::Watch => Box::pin(verbs::watch::watch(call)).await,
        Verb::Create if !across && call.info.name.is_none() => Box::pin(verbs::create::create(call)).await,
        Verb::Update if !across && call.info.name.is_some() => Box::pin(verbs::update::update(call)).await,
        Verb::Patch if !across && call.info.name.is_some() => Box::pin(verbs::patch::patch(call)).await,
        Verb::Delete if !across && call.info.subresource.is_empty() => Box::pin(verbs::delete::delete(call)).await,
        Verb::DeleteCollection if !across => Box::pin(verbs::delete::delete_collection(call)).await,
        _ => Err(Status::method_not_allowed()),
    }
}
