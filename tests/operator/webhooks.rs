//! The operator's webhooks, over HTTPS with a certificate that it made for itself.

use anyhow::Context;
use axum::Router;
use axum::extract::Json;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::sync::Arc;

/// A site that asks for more is refused.
const REPLICAS_MAX: i64 = 5;

pub struct Identity {
    pub ca_pem: String,
    config: Arc<rustls::ServerConfig>,
}

impl Identity {
    /// Of a Service, as `site-operator.default.svc`.
    pub fn new(host: &str) -> anyhow::Result<Identity> {
        let mut authority = CertificateParams::new(vec![])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &authority)?;
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
        Ok(Identity { ca_pem: authority.pem(), config: Arc::new(config) })
    }
}

pub async fn serve(identity: Identity) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/default", post(async |Json(review): Json<Value>| Json(reviewed(&review, default))))
        .route("/check", post(async |Json(review): Json<Value>| Json(reviewed(&review, check))))
        .route("/convert", post(async |Json(review): Json<Value>| Json(convert(review))));
    let acceptor = tokio_rustls::TlsAcceptor::from(identity.config);
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8443").await.context("the webhooks' port")?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a webhook's connection broke: {error}");
            }
        });
    }
}

fn reviewed(review: &Value, answer: fn(&Value) -> Value) -> Value {
    let request = &review["request"];
    let mut response = answer(&request["object"]);
    response["uid"] = request["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn default(site: &Value) -> Value {
    if site["spec"].get("replicas").is_some() {
        return json!({"allowed": true});
    }
    let patch = json!([{"op": "add", "path": "/spec/replicas", "value": 2}]).to_string();
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch)})
}

fn check(site: &Value) -> Value {
    let replicas = site["spec"]["replicas"].as_i64().unwrap_or_default();
    if replicas > REPLICAS_MAX {
        let message = format!("{replicas} replicas are more than {REPLICAS_MAX}");
        return json!({"allowed": false, "status": {"code": 403, "message": message}});
    }
    let warnings = if replicas == 0 { json!(["nobody will hear the greeting"]) } else { json!([]) };
    json!({"allowed": true, "warnings": warnings})
}

fn convert(review: Value) -> Value {
    let request = &review["request"];
    let desired = &request["desiredAPIVersion"];
    let (from, to) = if desired == "example.test/v1" { ("message", "greeting") } else { ("greeting", "message") };
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let converted: Vec<Value> = objects
        .into_iter()
        .map(|mut object| {
            object["apiVersion"] = desired.clone();
            if let Some(text) = object["spec"].as_object_mut().and_then(|spec| spec.remove(from)) {
                object["spec"][to] = text;
            }
            object
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted},
    })
}
