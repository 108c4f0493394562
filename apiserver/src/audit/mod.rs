//! Audit: who asked for what, when, and what became of it, as `audit.k8s.io/v1` events.
//!
//! Every request has a [`Record`], which code that answers the request reaches without being handed it: by
//! [`impersonated`], and by `http::notes` for annotations. The [`Policy`] decides how much of it is told, and the [`Sink`]s keep what is told.

mod body;
mod file;
mod policy;
mod postgres;
mod redact;

pub use file::{LogFile, Rotation};
pub use policy::{Level, Policy, PolicyError, Stage};
pub use postgres::Table;

use crate::http::authenticate::{PeerAddress, User};
use crate::http::error::Status;
use crate::http::request_info::RequestInfo;
use crate::server::ApiServer;
use crate::subresources::review::user_info;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use policy::Decision;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client may bring an id of its own, as long as this.
const ID_CHARS_MAX: usize = 64;
/// Annotations of one event, and the bytes of each: code in the server writes them, but of what clients send.
const ANNOTATIONS_MAX: usize = 64;
const ANNOTATION_BYTES_MAX: usize = 4 * 1024;
const USER_AGENT_BYTES_MAX: usize = 1024;

/// What is told of, and to whom. The default tells nobody.
#[derive(Default)]
pub struct Audit {
    policy: Policy,
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) events: AtomicU64,
}

/// Keeps events. Must not wait: what cannot be kept at once is queued within a limit or counted as lost.
pub trait Sink: Send + Sync {
    fn keep(&self, event: &Event);
    /// Events that were lost because they came faster than they could be kept.
    fn dropped(&self) -> u64;
    fn name(&self) -> &'static str;
}

/// An `audit.k8s.io/v1` Event.
pub struct Event {
    pub value: Value,
    /// The same as JSON on one line, without its end.
    pub line: String,
}

impl Audit {
    pub fn new(policy: Policy, sinks: Vec<Box<dyn Sink>>) -> Self {
        Audit { policy, sinks, events: AtomicU64::new(0) }
    }

    /// Whether any request could be told of.
    pub fn is_on(&self) -> bool {
        !self.sinks.is_empty() && !self.policy.is_silent()
    }

    fn keep(&self, value: Value) {
        let event = Event { line: value.to_string(), value };
        self.events.fetch_add(1, Ordering::Relaxed);
        self.sinks.iter().for_each(|sink| sink.keep(&event));
    }
}

tokio::task_local! {
    static CURRENT: Arc<Record>;
}

/// The caller acts as somebody else from here on.
pub fn impersonated(user: &User) {
    with_current(|record| record.state.lock().impersonated = Some(user_info(user)));
}

/// The body that was read of the request, as JSON or YAML.
pub(crate) fn request_body(bytes: &[u8], content_type: &str) {
    with_current(|record| record.take_request(bytes, content_type));
}

fn with_current(act: impl FnOnce(&Record)) {
    // Outside of a request there is nothing to be told.
    CURRENT.try_with(|record| act(record)).ok();
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Stands for the request where nobody is told of it.
static NOTHING: LazyLock<RequestInfo> = LazyLock::new(|| RequestInfo::parse(&http::Method::GET, &http::Uri::default()));

/// One request, from its head until its answer has been sent.
pub(crate) struct Record {
    server: Arc<ApiServer>,
    pub(crate) id: String,
    request: Map<String, Value>,
    /// Of which resource, to redact bodies by.
    info: RequestInfo,
    method: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    decision: Decision,
    user: Value,
    impersonated: Option<Value>,
    annotations: BTreeMap<String, String>,
    request_object: Option<Value>,
    response_object: Option<Value>,
    object_ref: Map<String, Value>,
    status: Option<Value>,
    attempted: String,
    failed_authentication: bool,
}

impl Record {
    pub(crate) fn begin(server: &Arc<ApiServer>, parts: &Parts, info: &RequestInfo) -> Arc<Self> {
        let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let id = match text(AUDIT_ID) {
            "" => uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            given => cut(given.to_owned(), ID_CHARS_MAX),
        };
        if !server.options.audit.is_on() {
            // Most servers tell nobody: then a request costs no more than its id.
            let (server, info, state) = (Arc::clone(server), NOTHING.clone(), Mutex::default());
            return Arc::new(Record { server, id, request: Map::new(), info, method: String::new(), state });
        }
        let mut request = Map::new();
        let uri = parts.uri.path_and_query().map_or_else(|| info.path.clone(), ToString::to_string);
        request.insert("requestURI".into(), uri.into());
        request.insert("requestReceivedTimestamp".into(), timestamp(server.now()).into());
        let sources = source_ips(&parts.headers, parts.extensions.get::<PeerAddress>());
        if !sources.is_empty() {
            request.insert("sourceIPs".into(), sources.into());
        }
        let agent = cut(text(header::USER_AGENT).to_owned(), USER_AGENT_BYTES_MAX);
        if !agent.is_empty() {
            request.insert("userAgent".into(), agent.into());
        }
        let method = parts.method.as_str().to_ascii_lowercase();
        let state = State { object_ref: object_ref(info), attempted: attempted(&parts.headers), ..State::default() };
        Arc::new(Record { server: Arc::clone(server), id, request, info: info.clone(), method, state: Mutex::new(state) })
    }

    /// Runs what answers the request, so that it reaches this record.
    pub(crate) async fn scope<T>(self: &Arc<Self>, answer: impl Future<Output = T>) -> T {
        CURRENT.scope(Arc::clone(self), answer).await
    }

    fn audit(&self) -> &Audit {
        &self.server.options.audit
    }

    /// As an authoriser sees it: of a request for no resource, the method.
    fn verb(&self) -> &str {
        if self.info.is_resource { self.info.verb.as_str() } else { &self.method }
    }

    fn decide(&self, user: Option<&User>) {
        if !self.audit().is_on() {
            return;
        }
        let mut decision = self.audit().policy.decide(user, self.verb(), &self.info);
        let secret = self.info.group.is_empty() && self.info.resource == "secrets";
        // What is encrypted in the store must not lie openly in a log. Of Secrets, the values are left out.
        if !secret && self.server.options.encryption.seals(&self.info.group, &self.info.resource) {
            decision.level = decision.level.min(Level::Metadata);
        }
        let mut state = self.state.lock();
        state.decision = decision;
        state.user = user.map(user_info).unwrap_or_else(|| json!({}));
    }

    /// It is known who asks.
    pub(crate) fn authenticated(&self, user: &User) {
        self.decide(Some(user));
        self.tell(Stage::RequestReceived);
    }

    /// The credential was refused: there is one event, with the answer.
    pub(crate) fn failed_authentication(&self) {
        self.decide(None);
        self.state.lock().failed_authentication = true;
    }

    fn take_request(&self, bytes: &[u8], content_type: &str) {
        let mut state = self.state.lock();
        if state.decision.level == Level::None || bytes.is_empty() {
            return;
        }
        if content_type.contains("json") || content_type.is_empty() {
            complete(&mut state.object_ref, bytes);
        }
        if state.decision.level >= Level::Request && state.request_object.is_none() {
            let value = if content_type.contains("yaml") {
                crate::openapi::read_yaml_document(bytes).ok()
            } else {
                serde_json::from_slice(bytes).ok()
            };
            let keep_managed = !state.decision.omit_managed_fields;
            state.request_object = value.map(|value| redact::redacted(&self.info, value, keep_managed));
        }
    }

    /// What was noted while the request was answered.
    pub(crate) fn annotate(&self, annotations: BTreeMap<String, String>) {
        let mut state = self.state.lock();
        for (key, value) in annotations.into_iter().take(ANNOTATIONS_MAX) {
            state.annotations.insert(key, cut(value, ANNOTATION_BYTES_MAX));
        }
    }

    /// The request was refused, or failed.
    pub(crate) fn refused(&self, status: &Status) {
        if !self.audit().is_on() {
            return;
        }
        let message = redact::message(&self.info, status.reason, &status.message);
        let mut told = json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": status.reason, "code": status.code.as_u16(),
        });
        let mut state = self.state.lock();
        if state.failed_authentication {
            told["message"] = format!("Authentication failed, attempted: {}", state.attempted).into();
        }
        state.status = Some(told);
    }

    /// Tells of the answer, at once or when it has been sent, and puts the request's id on it.
    pub(crate) fn respond(self: &Arc<Self>, mut response: Response, panicked: bool) -> Response {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert(AUDIT_ID, id);
        }
        if !self.audit().is_on() {
            return response;
        }
        let (level, failed_authentication) = {
            let mut state = self.state.lock();
            let code = response.status().as_u16();
            state.status.get_or_insert_with(|| json!({"metadata": {}, "code": code}));
            (state.decision.level, state.failed_authentication)
        };
        if level == Level::None {
            return response;
        }
        if panicked {
            self.tell(Stage::Panic);
            return response;
        }
        if failed_authentication {
            self.tell(Stage::ResponseStarted);
            return response;
        }
        let long = self.info.is_long_running();
        if long {
            self.tell(Stage::ResponseStarted);
        }
        if long || level >= Level::RequestResponse {
            return body::observed(response, Arc::clone(self), level >= Level::RequestResponse && !long);
        }
        self.tell(Stage::ResponseComplete);
        response
    }

    /// The answer has been sent, or the client has gone. `object` is the body, if it was to be kept.
    fn complete(&self, object: Option<Value>, truncated: bool) {
        {
            let mut state = self.state.lock();
            let keep_managed = !state.decision.omit_managed_fields;
            state.response_object = object.map(|object| redact::redacted(&self.info, object, keep_managed));
            if truncated {
                state.annotations.insert("audit.k8s.io/truncated".into(), "true".into());
            }
        }
        self.tell(Stage::ResponseComplete);
    }

    fn tell(&self, stage: Stage) {
        let state = self.state.lock();
        if state.decision.level == Level::None || state.decision.omits(stage) {
            return;
        }
        let mut event = self.request.clone();
        let mut set = |field: &str, value: Value| event.insert(field.to_owned(), value);
        set("kind", "Event".into());
        set("apiVersion", "audit.k8s.io/v1".into());
        set("level", state.decision.level.as_str().into());
        set("auditID", self.id.as_str().into());
        set("stage", stage.as_str().into());
        set("verb", self.verb().into());
        set("user", state.user.clone());
        set("stageTimestamp", timestamp(self.server.now()).into());
        if let Some(user) = &state.impersonated {
            set("impersonatedUser", user.clone());
        }
        if !state.object_ref.is_empty() {
            set("objectRef", Value::Object(state.object_ref.clone()));
        }
        if stage != Stage::RequestReceived {
            if let Some(status) = &state.status {
                set("responseStatus", status.clone());
            }
            if let Some(object) = &state.request_object {
                set("requestObject", object.clone());
            }
            if let Some(object) = &state.response_object {
                set("responseObject", object.clone());
            }
        }
        if !state.annotations.is_empty() {
            set("annotations", json!(state.annotations));
        }
        drop(state);
        self.audit().keep(Value::Object(event));
    }
}

fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The client first, then the proxies that it came through; only the last is known, the others are what they say.
fn source_ips(headers: &HeaderMap, peer: Option<&PeerAddress>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let forwarded = text("x-forwarded-for").split(',').chain([text("x-real-ip")]).map(str::trim);
    let mut ips: Vec<String> = vec![];
    let known = peer.map(|PeerAddress(address)| address.ip().to_string());
    for ip in forwarded.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).chain(known) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

/// By which kinds of credential the caller tried.
fn attempted(headers: &HeaderMap) -> String {
    let scheme = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match scheme.and_then(|value| value.split(' ').next()) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => "bearer".into(),
        Some(scheme) if scheme.eq_ignore_ascii_case("basic") => "basic".into(),
        Some(_) => "unknown".into(),
        None => "x509".into(),
    }
}

fn object_ref(info: &RequestInfo) -> Map<String, Value> {
    let mut map = Map::new();
    if !info.is_resource {
        return map;
    }
    let fields = [
        ("resource", info.resource.as_str()),
        ("namespace", info.namespace.as_deref().unwrap_or_default()),
        ("name", info.name.as_deref().unwrap_or_default()),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ];
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        map.insert(field.to_owned(), value.into());
    }
    map
}

/// What the path does not say of the object but the body does: its name, UID and version.
fn complete(object_ref: &mut Map<String, Value>, body: &[u8]) {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        name: String,
        uid: String,
        resource_version: String,
    }
    if object_ref.is_empty() {
        return;
    }
    let Ok(Object { metadata }) = serde_json::from_slice::<Object>(body) else { return };
    for (field, value) in [("name", metadata.name), ("uid", metadata.uid), ("resourceVersion", metadata.resource_version)] {
        if !value.is_empty() {
            object_ref.entry(field).or_insert_with(|| value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_address_is_known_and_the_others_are_claimed() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1, nonsense, 192.0.2.2"));
        let peer = PeerAddress("192.0.2.9:1234".parse().unwrap());
        assert_eq!(source_ips(&headers, Some(&peer)), ["192.0.2.1", "192.0.2.2", "192.0.2.9"]);
        assert_eq!(source_ips(&HeaderMap::new(), Some(&peer)), ["192.0.2.9"]);
    }

    #[test]
    fn an_objects_name_may_come_from_its_body() {
        let info = RequestInfo::parse(&http::Method::POST, &"/apis/apps/v1/namespaces/a/deployments".parse().unwrap());
        let mut found = object_ref(&info);
        complete(&mut found, br#"{"metadata":{"name":"web","namespace":"elsewhere","labels":{"a":"b"}},"spec":{"x":[1]}}"#);
        let expected =
            json!({"resource": "deployments", "apiGroup": "apps", "apiVersion": "v1", "namespace": "a", "name": "web"});
        assert_eq!(Value::Object(found), expected);
    }

    #[test]
    fn timestamps_have_microseconds() {
        assert_eq!(timestamp("2026-01-02T03:04:05.000678Z".parse().unwrap()), "2026-01-02T03:04:05.000678Z");
        assert_eq!(timestamp("2026-01-02T03:04:05Z".parse().unwrap()), "2026-01-02T03:04:05.000000Z");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äää".into(), 3), "ä");
        assert_eq!(cut("abc".into(), 3), "abc");
    }
}
