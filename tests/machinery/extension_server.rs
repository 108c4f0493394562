//! A small extension API server, as the sample-apiserver: flunders in `wardle.example.com/v1alpha1`, over TLS, for those alone whose
//! certificate is of the authority that the cluster tells extension servers of.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::request_header::RequestHeader;
use slipway_apiserver::http::serve::tls_for_certificates;
use slipway_store::memory::Memory;
use slipway_tests::authority::Authority;
use slipway_tests::{TestServer, eventually};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

pub const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
pub const WARDLE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com";
pub const ROOT: &str = "/apis/wardle.example.com/v1alpha1";
pub const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A server that shows extension servers a certificate of its own authority.
pub async fn server(front: &Authority) -> TestServer {
    TestServer::start(Memory::new(), options(front)).await
}

pub fn options(front: &Authority) -> Options {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let rule = RequestHeader {
        client_ca_pem: front.pem.clone(),
        allowed_names: vec!["front-proxy-client".into()],
        ..RequestHeader::default()
    };
    Options {
        client_ca_pem: Some(Authority::new("users").pem),
        request_header: Some(rule),
        proxy_client_identity: Some(front.sign(&[], "front-proxy-client", &[], ExtendedKeyUsagePurpose::ClientAuth)),
        ..Options::default()
    }
}

/// An address of this machine that others reach, as endpoints must be; `None`, and a word, if it has none.
pub fn address() -> Option<String> {
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let ip = udp.connect("192.0.2.1:9").and_then(|()| udp.local_addr()).map(|address| address.ip().to_string());
    if ip.is_err() {
        eprintln!("SKIPPED: this machine has no address but its loopback");
    }
    ip.ok()
}

#[derive(Default)]
struct State {
    flunders: Mutex<BTreeMap<String, Value>>,
    /// Who asked: the path, and the headers.
    seen: Mutex<Vec<(String, HeaderMap)>>,
    /// Only tells what it serves as servers did before aggregated discovery.
    is_old: AtomicBool,
    /// Answers with errors.
    is_broken: AtomicBool,
}

pub struct Extension {
    pub port: u16,
    /// Who signed its certificate.
    pub bundle: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A router that is served to the cluster's proxies, under the name of a Service in the default namespace.
pub struct Listening {
    pub port: u16,
    /// Who signed its certificate.
    pub bundle: String,
    pub task: tokio::task::JoinHandle<()>,
}

pub async fn listen(server: &TestServer, service: &str, router: axum::Router) -> Listening {
    let told = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = server.get(told).await.expect(200)["data"]["requestheader-client-ca-file"].clone();
    let authority = Authority::new(service);
    let name = format!("{service}.default.svc");
    let (cert, key) = authority.sign(&[name.as_str()], service, &[], ExtendedKeyUsagePurpose::ServerAuth);
    let acceptor = tokio_rustls::TlsAcceptor::from(tls_for_certificates(&cert, &key, told.as_str().unwrap()).unwrap());
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            connections.spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = TowerToHyperService::new(router);
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(tls), service).await;
            });
        }
    });
    Listening { port, bundle: STANDARD.encode(authority.pem), task }
}

impl Extension {
    /// Serves those whom the cluster says its proxies are.
    pub async fn start(server: &TestServer) -> Extension {
        let state: Arc<State> = Arc::default();
        let (changes, _) = broadcast::channel(64);
        let served = Arc::clone(&state);
        let router = axum::Router::new().fallback(move |request| answer(Arc::clone(&served), changes.clone(), request));
        let Listening { port, bundle, task } = listen(server, "wardle", router).await;
        Extension { port, bundle, state, task }
    }

    pub fn age(&self) {
        self.state.is_old.store(true, Ordering::Relaxed);
    }

    pub fn break_down(&self, broken: bool) {
        self.state.is_broken.store(broken, Ordering::Relaxed);
    }

    /// The headers of the requests for this path so far.
    pub fn headers(&self, path: &str) -> Vec<HeaderMap> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|(asked, _)| asked == path).map(|(_, headers)| headers.clone()).collect()
    }

    pub fn slice(&self, ip: &str, ready: bool) -> Value {
        json!({
            "metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": "wardle"}}, "addressType": "IPv4",
            "ports": [{"name": "https", "port": self.port}], "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}],
        })
    }

    pub fn api_service(&self) -> Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1alpha1.wardle.example.com"},
            "spec": {"group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                     "caBundle": self.bundle, "service": {"namespace": "default", "name": "wardle"}},
        })
    }

    /// Its Service and where that leads.
    pub async fn expose(&self, server: &TestServer, ip: &str) {
        let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
        server.post(SERVICES, json!({"metadata": {"name": "wardle"}, "spec": {"ports": ports}})).await.expect(201);
        server.post(SLICES, self.slice(ip, true)).await.expect(201);
    }

    /// All that it takes; waits until requests are passed on.
    pub async fn register(&self, server: &TestServer, ip: &str) {
        self.expose(server, ip).await;
        server.post(API_SERVICES, self.api_service()).await.expect(201);
        available(server, "True", "Passed").await;
        eventually("requests to be passed on", || async { (server.get(FLUNDERS).await.code == 200).then_some(()) }).await;
    }
}

/// Waits for the condition, and answers with its message.
pub async fn available(server: &TestServer, status: &str, reason: &str) -> String {
    eventually(&format!("Available to be {status}, {reason}"), || async {
        let object = server.get(WARDLE).await.body;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == "Available")?;
        let is_so = condition["status"] == status && condition["reason"] == reason;
        is_so.then(|| condition["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

async fn answer(state: Arc<State>, changes: broadcast::Sender<Value>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    state.seen.lock().unwrap().push((path.clone(), parts.headers.clone()));
    if state.is_broken.load(Ordering::Relaxed) {
        return (StatusCode::INTERNAL_SERVER_ERROR, "it is broken").into_response();
    }
    let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = if parts.method == Method::POST { axum::body::to_bytes(body, 1 << 20).await.unwrap() } else { Default::default() };
    match (&parts.method, path.as_str()) {
        (&Method::GET, "/apis") if !state.is_old.load(Ordering::Relaxed) && accept.contains("v=v2;as=") => {
            ([(header::CONTENT_TYPE, V2), (header::ETAG, "\"1\"")], discovery().to_string()).into_response()
        }
        (&Method::GET, "/apis") => {
            let version = json!({"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"});
            let group = json!({"name": "wardle.example.com", "versions": [version], "preferredVersion": version});
            axum::Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})).into_response()
        }
        (&Method::GET, ROOT) => axum::Json(resources()).into_response(),
        (&Method::GET, "/openapi/v2") => axum::Json(openapi_v2()).into_response(),
        (&Method::GET, "/openapi/v3") => {
            let url = json!({"serverRelativeURL": format!("/openapi/v3{ROOT}?hash=abc")});
            axum::Json(json!({"paths": {&ROOT[1..]: url, "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1"}}}))
                .into_response()
        }
        (&Method::GET, "/openapi/v3/apis/wardle.example.com/v1alpha1") => {
            let schema = json!({"com.example.wardle.v1alpha1.Flunder": {"type": "object", "description": "A flunder."}});
            axum::Json(json!({"openapi": "3.0.0", "components": {"schemas": schema}})).into_response()
        }
        (&Method::GET, FLUNDERS) if parts.uri.query().is_some_and(|query| query.contains("watch=")) => watch(&changes),
        (&Method::GET, FLUNDERS) => {
            let items: Vec<Value> = state.flunders.lock().unwrap().values().cloned().collect();
            axum::Json(json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1", "metadata": {"resourceVersion": "1"}, "items": items}))
                .into_response()
        }
        (&Method::POST, FLUNDERS) => {
            let mut object: Value = serde_json::from_slice(&body).unwrap();
            object["metadata"]["namespace"] = "default".into();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            state.flunders.lock().unwrap().insert(name, object.clone());
            let _ = changes.send(json!({"type": "ADDED", "object": object}));
            (StatusCode::CREATED, axum::Json(object)).into_response()
        }
        (&Method::GET, path) if path.ends_with("/shell") => echo(&mut parts),
        (&Method::DELETE, path) => {
            match path.strip_prefix(FLUNDERS).and_then(|rest| state.flunders.lock().unwrap().remove(rest.trim_start_matches('/')))
            {
                Some(_) => axum::Json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).into_response(),
                None => not_found(),
            }
        }
        _ => not_found(),
    }
}

fn not_found() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
    (StatusCode::NOT_FOUND, axum::Json(status)).into_response()
}

/// Goes on for as long as the server runs.
fn watch(changes: &broadcast::Sender<Value>) -> Response {
    let changes = changes.subscribe();
    let lines = futures::stream::unfold(changes, async |mut changes| {
        let change = changes.recv().await.ok()?;
        Some((Ok::<_, std::convert::Infallible>(format!("{change}\n")), changes))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines.boxed())).into_response()
}

/// Another protocol, which says everything twice.
fn echo(parts: &mut http::request::Parts) -> Response {
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else { return StatusCode::BAD_REQUEST.into_response() };
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(length) = stream.read(&mut buffer).await {
            if length == 0 || stream.write_all(&buffer[..length].repeat(2)).await.is_err() {
                break;
            }
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "twice")]).into_response()
}

const VERBS: [&str; 5] = ["create", "delete", "get", "list", "watch"];

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": VERBS, "shortNames": ["fl"]},
        {"name": "flunders/shell", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
    ]})
}

fn discovery() -> Value {
    let kind = json!({"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"});
    let flunders = json!({
        "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "verbs": VERBS, "shortNames": ["fl"],
        "responseKind": kind, "subresources": [{"subresource": "shell", "responseKind": kind, "verbs": ["get"]}],
    });
    let versions = json!([{"version": "v1alpha1", "freshness": "Current", "resources": [flunders]}]);
    // What it says of a group that is not its own counts for nothing.
    let apps = json!({"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": []}]});
    let items = json!([{"metadata": {"name": "wardle.example.com"}, "versions": versions}, apps]);
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn openapi_v2() -> Value {
    let flunder = "#/definitions/com.example.wardle.v1alpha1.Flunder";
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    json!({
        "swagger": "2.0", "info": {"title": "wardle", "version": "v1"},
        "paths": {
            FLUNDERS.replace("default", "{namespace}"): {"get": {"responses": {"200": {"description": "OK", "schema": {"$ref": flunder}}}}},
            "/api/v1/pods": {"get": {"description": "not its own"}},
        },
        "definitions": {
            "com.example.wardle.v1alpha1.Flunder": {
                "type": "object", "properties": {"metadata": {"$ref": format!("#/definitions/{meta}")}},
                "x-kubernetes-group-version-kind": [{"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"}],
            },
            meta: {"type": "object", "description": "another description"},
        },
    })
}
