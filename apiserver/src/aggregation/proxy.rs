//! A request for an extension server, passed on: with headers that say who asks, which the server believes because of the
//! certificate that this one shows, and without the caller's credentials.

use super::aggregator_user;
use super::api_service::{ApiService, Remote, Trust};
use crate::admission::webhook::{client::in_words, resolve};
use crate::http::authenticate::{PeerAddress, User};
use crate::http::error::Status;
use crate::http::request_info::RequestInfo;
use crate::server::ApiServer;
use crate::subresources::stream::{asks_for_upgrade, join};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt, BodyStream, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// By then an answer has begun, but to a watch and its like. As kube-apiserver's `--request-timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A subprotocol that holds a bearer token.
const PROTOCOL_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// What is said of one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// What a header's name may have. The percent sign is left out, for it begins what is encoded.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Among a response's extensions: it is an extension server's own, and goes to the caller as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proxied;

/// Passes a request on to whoever serves its group and version.
pub(crate) async fn forward(
    server: &Arc<ApiServer>,
    service: &ApiService,
    user: &User,
    info: &RequestInfo,
    parts: Parts,
    body: Body,
) -> Result<Response, Status> {
    let Some(remote) = &service.remote else { return Err(Status::no_such_path()) };
    let endpoint = resolve::service(server, &remote.namespace, &remote.service, remote.port);
    let endpoint = match endpoint {
        Ok(endpoint) if service.is_available => endpoint,
        Ok(_) => return Ok(refused(StatusCode::SERVICE_UNAVAILABLE, "service unavailable")),
        Err(why) => {
            tracing::debug!(service.name, why, "an APIService leads nowhere");
            return Ok(refused(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
        }
    };
    let transport = match server.aggregator.transports.to(remote) {
        Ok(transport) => transport,
        Err(why) => return Ok(refused(StatusCode::INTERNAL_SERVER_ERROR, &why)),
    };
    let mut parts = parts;
    let upgrade = asks_for_upgrade(&parts.headers);
    let client = if upgrade { parts.extensions.remove::<OnUpgrade>() } else { None };
    if upgrade && client.is_none() {
        return Err(Status::bad_request("this connection cannot be upgraded: HTTP/1.1 is needed"));
    }
    let request = request(&parts, endpoint, user, upgrade, body).map_err(Status::bad_request)?;
    let https = if upgrade { &transport.upgrading } else { &transport.client };
    let sent = https.request(request);
    let answer = if info.is_long_running() {
        sent.await
    } else {
        match tokio::time::timeout(ANSWER_TIMEOUT, sent).await {
            Ok(answer) => answer,
            Err(_) => return Err(timed_out()),
        }
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let why = format!("error trying to reach service: {}", in_words(&error));
            return Ok(refused(StatusCode::SERVICE_UNAVAILABLE, &why));
        }
    };
    match client {
        Some(client) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => Ok(switched(server, client, answer).await),
        _ => Ok(pass_back(server, answer)),
    }
}

fn timed_out() -> Status {
    let message = "Timeout: request did not complete within the allotted timeout";
    Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
}

/// As Go's `http.Error` writes it.
fn refused(code: StatusCode, why: &str) -> Response {
    let mut response = (code, format!("{why}\n")).into_response();
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.extensions_mut().insert(Proxied);
    response
}

fn request(parts: &Parts, endpoint: SocketAddr, user: &User, upgrade: bool, body: Body) -> Result<Request<Body>, String> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("https://{endpoint}{path}").parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = passed_on(parts, upgrade);
    identify(request.headers_mut(), user)?;
    Ok(request)
}

/// The caller's headers, without what is for this server alone.
fn passed_on(parts: &Parts, upgrade: bool) -> HeaderMap {
    let mut headers = parts.headers.clone();
    if !upgrade {
        let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<String> = named.flat_map(|value| value.split(',')).map(|name| name.trim().to_lowercase()).collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
        HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
    }
    headers.remove(header::HOST);
    headers.remove(header::AUTHORIZATION);
    let foreign: Vec<HeaderName> =
        headers.keys().filter(|name| [USER, UID, GROUP].contains(name) || name.as_str().starts_with(EXTRA)).cloned().collect();
    foreign.iter().for_each(|name| drop(headers.remove(name)));
    hide_token(&mut headers);
    if let Some(PeerAddress(peer)) = parts.extensions.get::<PeerAddress>() {
        let before = headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
        let all = before.map_or_else(|| peer.ip().to_string(), |before| format!("{before}, {}", peer.ip()));
        if let Ok(all) = HeaderValue::try_from(all) {
            headers.insert(FORWARDED_FOR, all);
        }
    }
    headers
}

/// A WebSocket's token goes no further than an ordinary one.
pub(crate) fn hide_token(headers: &mut HeaderMap) {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let left: Vec<&str> = all.iter().copied().filter(|protocol| !protocol.starts_with(PROTOCOL_TOKEN)).collect();
    if left.len() == all.len() {
        return;
    }
    let left = left.join(", ");
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let (false, Ok(left)) = (left.is_empty(), HeaderValue::try_from(left)) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, left);
    }
}

/// Says who asks.
fn identify(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|error| error.to_string());
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(key, NAME)).to_lowercase();
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        for one in values {
            headers.append(&name, value(one)?);
        }
    }
    Ok(())
}

/// Tells the client that the extension server has switched protocols, and joins the two.
async fn switched(server: &Arc<ApiServer>, client: OnUpgrade, mut answer: Response<Incoming>) -> Response {
    match hyper::upgrade::on(&mut answer).await {
        Ok(backend) => join(server, client, backend),
        Err(error) => return refused(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {error}")),
    }
    let (mut parts, _) = answer.into_parts();
    parts.extensions.insert(Proxied);
    Response::from_parts(parts, Body::empty())
}

fn pass_back(server: &Arc<ApiServer>, answer: Response<Incoming>) -> Response {
    let (mut parts, body) = answer.into_parts();
    HOP_BY_HOP.iter().for_each(|name| drop(parts.headers.remove(name)));
    parts.version = Version::default();
    parts.extensions.insert(Proxied);
    if body.size_hint().exact().is_some() {
        return Response::from_parts(parts, Body::new(body));
    }
    // It may go on and on, but not longer than the server does.
    let server = Arc::clone(server);
    let frames = BodyStream::new(body).take_until(Box::pin(async move { server.closing().await }));
    Response::from_parts(parts, Body::new(StreamBody::new(frames)))
}

// === what this server asks on its own behalf ===

/// An extension server's document at `path`, as the caller accepts it.
pub(crate) async fn document(server: &Arc<ApiServer>, service: &ApiService, request: &Parts) -> Result<Response, Status> {
    let info = RequestInfo::parse(&request.method, &request.uri);
    forward(server, service, &aggregator_user(), &info, request.clone(), Body::empty()).await
}

/// What is asked, and how much of an answer is taken.
pub(super) struct Ask<'a> {
    pub path: &'a str,
    pub accept: &'a str,
    /// What is known already.
    pub etag: Option<&'a str>,
    pub timeout: Duration,
    pub bytes_max: usize,
}

pub(super) struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Asks an endpoint; `Err` says in Go's words what went wrong.
pub(super) async fn ask(server: &ApiServer, remote: &Remote, endpoint: SocketAddr, ask: &Ask<'_>) -> Result<Answer, String> {
    let url = format!("https://{endpoint}{}", ask.path);
    let why = |why: &str| format!("Get \"{url}\": {why}");
    let asked = async {
        let mut request = Request::builder().method(Method::GET).uri(&url).header(header::ACCEPT, ask.accept);
        request = request.header(header::USER_AGENT, "kube-aggregator");
        if let Some(etag) = ask.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let mut request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        identify(request.headers_mut(), &aggregator_user())?;
        let transport = server.aggregator.transports.to(remote)?;
        let answer = transport.client.request(request).await.map_err(|error| why(&in_words(&error)))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ask.bytes_max).collect().await.map_err(|error| why(&error.to_string()))?;
        Ok(Answer { code: parts.status, headers: parts.headers, body: body.to_bytes() })
    };
    match tokio::time::timeout(ask.timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(why("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

impl Remote {
    /// The same without a look at its certificate.
    pub fn unverified(&self) -> Self {
        Remote { trust: Trust::Anybody, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_server_says_who_asks() {
        let request = Request::get("/apis/a.b/v1/things?watch=1")
            .header("authorization", "Bearer secret")
            .header("x-remote-user", "root")
            .header("x-remote-group", "system:masters")
            .header("x-remote-extra-a", "1")
            .header("x-remote-uid", "0")
            .header("connection", "x-hop, keep-alive")
            .header("x-hop", "1")
            .header("host", "here")
            .header("accept", "*/*")
            .header("sec-websocket-protocol", format!("{PROTOCOL_TOKEN}c2VjcmV0, v4.channel.k8s.io"));
        let (mut parts, _) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(PeerAddress(([10, 0, 0, 9], 1).into()));
        let mut user = User { name: "jane".into(), uid: "u".into(), groups: vec!["a".into(), "b".into()], ..User::default() };
        user.extra.insert("scopes.io/Key%".into(), vec!["1".into(), "2".into()]);
        let request = super::request(&parts, ([10, 0, 0, 1], 443).into(), &user, false, Body::empty()).unwrap();
        assert_eq!(request.uri(), "https://10.0.0.1:443/apis/a.b/v1/things?watch=1");
        let mut told: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        told.sort();
        let expected = [
            "accept: */*",
            "sec-websocket-protocol: v4.channel.k8s.io",
            "x-forwarded-for: 10.0.0.9",
            "x-remote-extra-scopes.io%2fkey%25: 1",
            "x-remote-extra-scopes.io%2fkey%25: 2",
            "x-remote-group: a",
            "x-remote-group: b",
            "x-remote-uid: u",
            "x-remote-user: jane",
        ];
        assert_eq!(told, expected);
    }
}
