//! What is secret is told to nobody: not in logs at any level, not in audit at any level, not in errors; whatever is done with
//! it, in whichever form, and whether it succeeds or fails.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::audit::{Audit, Event, Policy, Sink};
use slipway_apiserver::http::protobuf;
use slipway_apiserver::{Options, User};
use slipway_store::memory::Memory;
use slipway_tests::{Answer, TestServer};
use std::io::Write;
use std::sync::{Arc, Mutex};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const HIDDEN: &str = "wX5-hidden-in-here";

/// All that is written to it.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<String>>);

impl Told {
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Told {
    fn keep(&self, event: &Event) {
        self.0.lock().unwrap().push_str(&event.line);
    }
    fn dropped(&self) -> u64 {
        0
    }
    fn name(&self) -> &'static str {
        "test"
    }
}

struct Watched {
    server: TestServer,
    log: Told,
    audit: Told,
    secrets: Vec<String>,
    _logging: tracing::subscriber::DefaultGuard,
}

impl Watched {
    async fn start(level: &str) -> Self {
        let (log, audit) = (Told::default(), Told::default());
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": level}]});
        let options = Options {
            audit: Arc::new(Audit::new(Policy::parse(&policy.to_string()).unwrap(), vec![Box::new(audit.clone())])),
            service_account_key_pem: Some(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()),
            ..Options::default()
        };
        let server = TestServer::start(Memory::new(), options).await;
        let encoded = STANDARD.encode(HIDDEN).trim_end_matches('=').to_owned();
        Watched { server, log, audit, secrets: vec![HIDDEN.into(), encoded], _logging: logging }
    }

    fn check(&self, what: &str, place: &str, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret), "{what}: {place} has {secret}: {text}");
        }
    }

    /// Sends it and looks for what must not be told. The answer may have it if it is the object itself.
    async fn send(&self, what: &str, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let response = self.server.send(Some(User::admin()), request.body(body.into()).unwrap()).await;
        let answer = Answer::of(response).await;
        if answer.code >= 400 {
            self.check(what, "the error", &answer.body.to_string());
        }
        let audit = self.audit.take();
        assert!(audit.contains("\"stage\":\"ResponseComplete\""), "{what} is not told of");
        self.check(what, "the audit", &audit);
        self.check(what, "the log", &self.log.take());
        answer
    }
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": HIDDEN}})
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// What works.
async fn good(watched: &Watched) {
    let encoded = STANDARD.encode(HIDDEN);
    let one = format!("{SECRETS}/json");
    watched.send("create", "POST", SECRETS, JSON, secret("json").to_string()).await.expect(201);
    let yaml = format!("kind: Secret\napiVersion: v1\nmetadata: {{name: yaml}}\nstringData: {{a: {HIDDEN}}}\n");
    watched.send("create in YAML", "POST", SECRETS, YAML, yaml).await.expect(201);
    let binary = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "protobuf"}, "data": {"a": encoded}});
    let binary = protobuf::encode(&binary).unwrap().unwrap();
    watched.send("create in protobuf", "POST", SECRETS, protobuf::CONTENT_TYPE, binary).await.expect(201);
    watched.send("dry run", "POST", &format!("{SECRETS}?dryRun=All"), JSON, secret("dry").to_string()).await.expect(201);
    watched.send("update", "PUT", &one, JSON, secret("json").to_string()).await.expect(200);
    watched.send("merge", "PATCH", &one, MERGE, json!({"stringData": {"b": HIDDEN}}).to_string()).await.expect(200);
    watched.send("strategic", "PATCH", &one, STRATEGIC, json!({"data": {"c": encoded}}).to_string()).await.expect(200);
    let patch = json!([{"op": "add", "path": "/data/d", "value": encoded}, {"op": "test", "path": "/data/d", "value": encoded}]);
    watched.send("JSON patch", "PATCH", &one, JSON_PATCH, patch.to_string()).await.expect(200);
    let path = format!("{one}?fieldManager=x&force=true");
    watched.send("apply", "PATCH", &path, APPLY, secret("json").to_string()).await.expect(200);
    let annotated =
        json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": secret("json").to_string()}}});
    watched.send("annotate", "PATCH", &one, MERGE, annotated.to_string()).await.expect(200);
    watched.send("get", "GET", &one, JSON, "").await.expect(200);
    watched.send("list", "GET", SECRETS, JSON, "").await.expect(200);
    watched.send("delete", "DELETE", &format!("{SECRETS}/yaml"), JSON, "").await.expect(200);
    watched.send("delete all", "DELETE", &format!("{SECRETS}?labelSelector=none"), JSON, "").await.expect(200);
}

/// What does not.
async fn bad(watched: &Watched) {
    let one = format!("{SECRETS}/json");
    let path = format!("{one}?fieldManager=y");
    let strict = format!("{SECRETS}?fieldValidation=Strict");
    let with = |rest: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object.to_string()
    };
    for (what, method, path, content_type, body) in [
        ("exists", "POST", SECRETS, JSON, secret("json").to_string()),
        ("no base64", "POST", SECRETS, JSON, with(json!({"data": {"a": HIDDEN}}))),
        ("no map", "POST", SECRETS, JSON, with(json!({"data": HIDDEN}))),
        ("a list", "POST", SECRETS, JSON, with(json!({"stringData": {"a": [HIDDEN]}}))),
        ("an unknown field", "POST", &strict, JSON, with(json!({"nonsense": HIDDEN}))),
        ("a wrong type", "POST", SECRETS, JSON, with(json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": HIDDEN}}))),
        ("broken JSON", "POST", SECRETS, JSON, format!("{{\"data\":{{\"a\":\"{HIDDEN}\"")),
        ("text", "POST", SECRETS, JSON, format!("\"{HIDDEN}\"")),
        ("broken YAML", "POST", SECRETS, YAML, format!("data: {{a: {HIDDEN}\nb: [")),
        ("an unknown alias", "POST", SECRETS, YAML, format!("data: {{a: *x, b: {HIDDEN}}}\n")),
        ("twice in YAML", "POST", &strict, YAML, format!("kind: Secret\nmetadata: {{name: x}}\nstringData: {{a: {HIDDEN}, a: {HIDDEN}}}\n")),
        ("no protobuf", "POST", SECRETS, protobuf::CONTENT_TYPE, format!("k8s\0\n\x0c\n\x02v1\x12\x06Secret\x12\x7f{HIDDEN}")),
        ("another kind", "POST", SECRETS, JSON, json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": HIDDEN}}).to_string()),
        ("another media type", "POST", SECRETS, "text/plain", HIDDEN.to_owned()),
        ("too large", "POST", SECRETS, JSON, with(json!({"stringData": {"a": HIDDEN.repeat(100_000)}}))),
        ("merge of no base64", "PATCH", &one, MERGE, json!({"data": {"a": HIDDEN}}).to_string()),
        ("merge of a wrong type", "PATCH", &one, MERGE, json!({"data": {"a": {"b": HIDDEN}}}).to_string()),
        ("a broken merge", "PATCH", &one, MERGE, format!("{{\"data\":{{\"a\":\"{HIDDEN}\"")),
        ("an unknown directive", "PATCH", &one, STRATEGIC, json!({"data": {"$patch": HIDDEN, "a": HIDDEN}}).to_string()),
        ("strategic of no base64", "PATCH", &one, STRATEGIC, json!({"data": {"a": HIDDEN}}).to_string()),
        ("a failed test", "PATCH", &one, JSON_PATCH, json!([{"op": "test", "path": "/data/a", "value": HIDDEN}]).to_string()),
        ("an unknown operation", "PATCH", &one, JSON_PATCH, json!([{"op": HIDDEN, "path": "/data/a", "value": HIDDEN}]).to_string()),
        ("a value that is none", "PATCH", &one, JSON_PATCH, json!([{"op": "add", "path": "/data", "value": HIDDEN}]).to_string()),
        ("a conflict", "PATCH", &path, APPLY, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "json"}, "data": {"a": STANDARD.encode(HIDDEN)}, "type": "other"}).to_string()),
        ("an apply that does not fit", "PATCH", &path, APPLY, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "json"}, "data": {"a": [HIDDEN]}}).to_string()),
        ("an apply of text", "PATCH", &path, APPLY, HIDDEN.to_owned()),
        ("a broken apply", "PATCH", &path, APPLY, format!("data: {{a: {HIDDEN}")),
        ("a stale update", "PUT", &one, JSON, json!({"metadata": {"name": "json", "resourceVersion": "1"}, "stringData": {"a": HIDDEN}}).to_string()),
        ("of none such", "PUT", "/api/v1/namespaces/default/secrets/none", JSON, secret("other").to_string()),
    ] {
        let answer = watched.send(what, method, path, content_type, body).await;
        assert!(answer.code >= 400, "{what} is answered with {}", answer.code);
    }
}

async fn tokens(watched: &mut Watched) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "robot"}}).to_string();
    watched.send("an account", "POST", accounts, JSON, account).await.expect(201);
    let path = format!("{accounts}/robot/token");
    let answer = watched.server.post(&path, json!({"spec": {}})).await.expect(201);
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    // Of a token, the signature is the secret; a part of the rest may be told.
    let signature = token.rsplit('.').next().unwrap().to_owned();
    watched.secrets.push(signature);
    watched.check("a token", "the audit", &watched.audit.take());
    watched.check("a token", "the log", &watched.log.take());
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    watched.send("a review", "POST", reviews, JSON, json!({"spec": {"token": token}}).to_string()).await.expect(201);
    for (what, body) in [
        ("a wrong review", json!({"spec": {"token": [token]}}).to_string()),
        ("a broken review", format!("{{\"spec\":{{\"token\":\"{token}\"")),
    ] {
        let answer = watched.send(what, "POST", reviews, JSON, body).await;
        assert!((400..500).contains(&answer.code), "{what} is answered with {}", answer.code);
    }
    watched
        .send("a wrong token", "POST", reviews, JSON, json!({"spec": {"token": format!("{token}x")}}).to_string())
        .await
        .expect(201);
    for credential in [token.clone(), format!("x{token}"), HIDDEN.to_owned()] {
        let request = Request::get(SECRETS).header("authorization", format!("Bearer {credential}")).body(Body::empty()).unwrap();
        let refused = Answer::of(watched.server.send(None, request).await).await;
        assert!([401, 403].contains(&refused.code));
        watched.check("a credential", "the error", &refused.body.to_string());
        watched.check("a credential", "the audit", &watched.audit.take());
        watched.check("a credential", "the log", &watched.log.take());
    }
}

#[tokio::test]
async fn nobody_is_told_of_a_secret() {
    for level in ["RequestResponse", "Metadata"] {
        let mut watched = Watched::start(level).await;
        good(&watched).await;
        bad(&watched).await;
        tokens(&mut watched).await;
    }
}
