//! Admission webhooks, asked over real HTTPS.

mod calls;
mod configurations;
mod denials;
mod matching;
mod mutations;
mod sample;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

pub const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// What a hook says to a request.
type Decide = dyn Fn(&Value) -> Value + Send + Sync;

/// A server of webhooks: by path, and what each was asked.
#[derive(Clone)]
pub struct Hooks {
    pub port: u16,
    pub bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    connections: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Served {
    decide: Arc<Decide>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Hooks {
    /// Serves `decide` under every path: it sees the AdmissionReview with the path in it as `path`, and answers with the response.
    pub async fn start(decide: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Hooks {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let hooks = Hooks {
            port: listener.local_addr().unwrap().port(),
            bundle: STANDARD.encode(ca.pem()),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let served = Served { decide: Arc::new(decide), asked: Arc::clone(&hooks.asked) };
        let router = axum::Router::new().fallback(answer).with_state(served);
        let connections = Arc::clone(&hooks.connections);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = TowerToHyperService::new(router);
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(tls), service)
                        .await;
                });
            }
        });
        hooks
    }

    /// One that allows everything.
    async fn allowing() -> Hooks {
        Hooks::start(|_| json!({"allowed": true})).await
    }

    pub fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    pub fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The paths that were asked.
    pub fn paths(&self) -> Vec<String> {
        self.take().into_iter().map(|(path, _)| path).collect()
    }
}

async fn answer(State(served): State<Served>, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 24).await.unwrap();
    let mut review: Value = serde_json::from_slice(&body).unwrap();
    review["path"] = path.as_str().into();
    served.asked.lock().unwrap().push((path.clone(), review["request"].clone()));
    match path.as_str() {
        "/slow" => tokio::time::sleep(Duration::from_secs(60)).await,
        sample::DELAYED => tokio::time::sleep(sample::DELAY).await,
        _ if sample::waits_forever(&review["request"]["object"]) => std::future::pending().await,
        "/garbage" => return "garbage".into_response(),
        "/error" => return (http::StatusCode::INTERNAL_SERVER_ERROR, "it is broken").into_response(),
        "/huge" => return "x".repeat(10 << 20).into_response(),
        _ => {}
    }
    let mut response = (served.decide)(&review);
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    axum::Json(json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response})).into_response()
}

pub fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn rules(operations: &[&str], group: &str, resources: &[&str]) -> Value {
    json!([{"operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": resources}])
}

pub fn webhook(name: &str, config: Value, rules: Value) -> Value {
    json!({"name": name, "clientConfig": config, "rules": rules, "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5})
}

pub async fn register(server: &TestServer, path: &str, name: &str, webhooks: Vec<Value>) {
    let kind = if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
    let configuration =
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": webhooks});
    server.post(path, configuration).await.expect(201);
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// A patch of any type, as `json-patch`.
async fn patched(server: &TestServer, kind: &str, path: &str, body: &str) -> Answer {
    let request =
        Request::patch(path).header("content-type", format!("application/{kind}+json")).body(Body::from(body.to_owned()));
    Answer::of(server.send(Some(User::admin()), request.unwrap()).await).await
}
