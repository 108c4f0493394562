//! Admission webhooks, asked over real HTTPS.

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
use slipway_tests::{TestServer, config_map};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// What a hook says to a request.
type Decide = dyn Fn(&Value) -> Value + Send + Sync;

/// A server of webhooks: by path, and what each was asked.
#[derive(Clone)]
struct Hooks {
    port: u16,
    bundle: String,
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
    async fn start(decide: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Hooks {
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

    fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The paths that were asked.
    fn paths(&self) -> Vec<String> {
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
        "/garbage" => return "garbage".into_response(),
        "/error" => return (http::StatusCode::INTERNAL_SERVER_ERROR, "it is broken").into_response(),
        "/huge" => return "x".repeat(10 << 20).into_response(),
        _ => {}
    }
    let mut response = (served.decide)(&review);
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    axum::Json(json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})).into_response()
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn rules(operations: &[&str], group: &str, resources: &[&str]) -> Value {
    json!([{"operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": resources}])
}

fn webhook(name: &str, config: Value, rules: Value) -> Value {
    json!({"name": name, "clientConfig": config, "rules": rules, "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5})
}

async fn register(server: &TestServer, path: &str, name: &str, webhooks: Vec<Value>) {
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

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents"
#[tokio::test]
async fn should_include_webhook_resources_in_discovery_documents() {
    let server = TestServer::memory().await;
    let groups = server.get("/apis").await.expect(200);
    let group =
        groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "admissionregistration.k8s.io").unwrap();
    assert_eq!(group["versions"], json!([{"groupVersion": "admissionregistration.k8s.io/v1", "version": "v1"}]));
    let resources = server.get("/apis/admissionregistration.k8s.io/v1").await.expect(200);
    let names: Vec<&str> =
        resources["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    for name in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies/status"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation"
#[tokio::test]
async fn should_be_able_to_deny_configmap_creation() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let wrong = review["request"]["object"]["data"]["key"] == "webhook-disallow";
        let status = json!({"code": 403, "reason": "Forbidden", "message": "the configmap contains unwanted key and value"});
        if wrong { json!({"allowed": false, "status": status}) } else { json!({"allowed": true, "warnings": ["look out"]}) }
    })
    .await;
    let hook = webhook("deny-unwanted.k8s.io.x", hooks.config("/deny"), rules(&["CREATE", "UPDATE"], "", &["configmaps"]));
    register(&server, VALIDATING, "deny", vec![hook]).await;
    let message = server.post(MAPS, config_map("a", "webhook-disallow")).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "admission webhook \"deny-unwanted.k8s.io.x\" denied the request: the configmap contains unwanted key and value"
    );
    let request = Request::builder().method("POST").uri(MAPS).header("content-type", "application/json");
    let response = server.send(Some(User::admin()), request.body(Body::from(config_map("a", "fine").to_string())).unwrap()).await;
    assert_eq!(response.status().as_u16(), 201);
    assert_eq!(response.headers()["warning"], "299 - \"look out\"");
    // A patch is an update too.
    server.patch(&format!("{MAPS}/a"), json!({"data": {"key": "webhook-disallow"}})).await.expect_status(403, "Forbidden");
    let asked = hooks.take();
    let request = &asked[0].1;
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"], &request["dryRun"]),
        (&json!("CREATE"), &json!("a"), &json!("default"), &json!(false))
    );
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(request["requestKind"], request["kind"]);
    assert_eq!(request["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(request["options"], json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}));
    assert!(request["object"]["metadata"]["uid"].is_string() && request["oldObject"].is_null());
    assert_eq!((&asked[2].1["operation"], &asked[2].1["oldObject"]["data"]["key"]), (&json!("UPDATE"), &json!("fine")));
    // One connection served them all.
    assert_eq!(hooks.connections.load(Ordering::SeqCst), 1);
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod"
#[tokio::test]
async fn should_be_able_to_deny_connections_bindings_and_evictions() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let kind = review["request"]["kind"]["kind"].as_str().unwrap().to_owned();
        json!({"allowed": false, "status": {"message": format!("no {kind}")}})
    })
    .await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post(pods, pod).await.expect(201);
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    server.post("/api/v1/nodes", node).await.expect(201);
    let all = rules(&["*"], "", &["pods/binding", "pods/eviction", "pods/attach", "pods/exec"]);
    register(&server, VALIDATING, "deny", vec![webhook("deny.k8s.io.x", hooks.config("/deny"), all)]).await;
    let binding =
        json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    let message = server.post(&format!("{pods}/web/binding"), binding.clone()).await.expect_status(400, "");
    assert_eq!(message, "admission webhook \"deny.k8s.io.x\" denied the request: no Binding");
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "web"}});
    let message = server.post(&format!("{pods}/web/eviction"), eviction).await.expect_status(400, "");
    assert!(message.ends_with("no Eviction"), "{message}");
    assert_eq!(hooks.take()[0].1["subResource"], "binding");
    server.delete(&format!("{VALIDATING}/deny")).await.expect(200);
    server.post(&format!("{pods}/web/binding"), binding).await.expect(201);
    let attach = rules(&["CONNECT"], "", &["pods/attach"]);
    register(&server, VALIDATING, "attach", vec![webhook("deny.k8s.io.x", hooks.config("/deny"), attach)]).await;
    let request = Request::builder().method("POST").uri(format!("{pods}/web/attach?stdin=true&tty=true&container=c"));
    let request = request.header("connection", "upgrade").header("upgrade", "SPDY/3.1").body(Body::empty()).unwrap();
    let answer = slipway_tests::Answer::of(server.send(Some(User::admin()), request).await).await;
    let message = answer.expect_status(400, "");
    assert!(message.ends_with("no PodAttachOptions"), "{message}");
    let request = &hooks.take()[0].1;
    assert_eq!(request["operation"], "CONNECT");
    assert_eq!(
        request["object"],
        json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "tty": true, "container": "c"})
    );
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and deletion",
/// for a kind that is built in.
#[tokio::test]
async fn should_be_able_to_deny_deletion() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let kept = review["request"]["oldObject"]["data"]["key"] == "keep";
        json!({"allowed": !kept, "status": {"code": 403, "reason": "Forbidden"}})
    })
    .await;
    let hook = || webhook("keep.k8s.io.x", hooks.config("/keep"), rules(&["DELETE"], "", &["configmaps"]));
    register(&server, VALIDATING, "keep", vec![hook()]).await;
    register(
        &server,
        MUTATING,
        "told",
        vec![webhook("told.k8s.io.x", hooks.config("/told"), rules(&["DELETE"], "", &["configmaps"]))],
    )
    .await;
    server.post(MAPS, config_map("a", "keep")).await.expect(201);
    let message = server.delete(&format!("{MAPS}/a")).await.expect_status(403, "Forbidden");
    assert_eq!(message, "admission webhook \"told.k8s.io.x\" denied the request: Forbidden");
    let request = &hooks.take()[0].1;
    assert_eq!((&request["operation"], &request["name"], &request["object"]), (&json!("DELETE"), &json!("a"), &Value::Null));
    assert_eq!(request["options"]["kind"], "DeleteOptions");
    server.delete(&format!("{MUTATING}/told")).await.expect(200);
    server.delete(&format!("{MAPS}?fieldSelector=metadata.name=a")).await.expect_status(403, "Forbidden");
    server.patch(&format!("{MAPS}/a"), json!({"data": {"key": "go"}})).await.expect(200);
    server.delete(&format!("{MAPS}/a")).await.expect(200);
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook"
#[tokio::test]
async fn should_unconditionally_reject_operations_on_fail_closed_webhook() {
    let server = TestServer::memory().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let config = json!({"url": format!("https://127.0.0.1:{nobody}/x")});
    let hook = webhook("fail-closed.k8s.io.x", config, rules(&["CREATE"], "", &["configmaps"]));
    register(&server, VALIDATING, "closed", vec![hook.clone()]).await;
    let message = server.post(MAPS, config_map("a", "b")).await.expect_status(500, "InternalError");
    assert_eq!(
        message,
        format!(
            "Internal error occurred: failed calling webhook \"fail-closed.k8s.io.x\": failed to call webhook: Post \
             \"https://127.0.0.1:{nobody}/x?timeout=5s\": dial tcp: connect: connection refused"
        )
    );
    server
        .patch(
            &format!("{VALIDATING}/closed"),
            json!({"webhooks": [{"failurePolicy": "Ignore", "name": hook["name"], "clientConfig": hook["clientConfig"],
        "rules": hook["rules"], "sideEffects": "None", "admissionReviewVersions": ["v1"]}]}),
        )
        .await
        .expect(200);
    server.post(MAPS, config_map("a", "b")).await.expect(201);
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout"
#[tokio::test]
async fn should_honor_timeout() {
    let server = TestServer::memory().await;
    let hooks = Hooks::allowing().await;
    let mut hook = webhook("slow.k8s.io.x", hooks.config("/slow"), rules(&["CREATE"], "", &["configmaps"]));
    hook["timeoutSeconds"] = json!(1);
    register(&server, VALIDATING, "slow", vec![hook.clone()]).await;
    let message = server.post(MAPS, config_map("a", "b")).await.expect_status(500, "InternalError");
    assert!(
        message.starts_with(
            "Internal error occurred: failed calling webhook \"slow.k8s.io.x\": failed to call webhook: Post \"https://127.0.0.1:"
        ),
        "{message}"
    );
    assert!(message.ends_with("/slow?timeout=1s\": context deadline exceeded"), "{message}");
    server.delete(&format!("{VALIDATING}/slow")).await.expect(200);
    hook["failurePolicy"] = json!("Ignore");
    register(&server, VALIDATING, "slow", vec![hook]).await;
    server.post(MAPS, config_map("a", "b")).await.expect(201);
}

#[tokio::test]
async fn wrong_answers_fail_the_webhook() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| match review["path"].as_str().unwrap() {
        "/uid" => json!({"uid": "another", "allowed": true}),
        "/patch" => json!({"allowed": true, "patch": STANDARD.encode("[]")}),
        "/bad-patch" => patch(json!([{"op": "remove", "path": "/nope/nope"}])),
        "/bad-object" => patch(json!([{"op": "add", "path": "/data", "value": "text"}])),
        _ => json!({"allowed": true}),
    })
    .await;
    let other = Hooks::allowing().await;
    let mut foreign = hooks.config("/fine");
    foreign["caBundle"] = other.bundle.clone().into();
    for (config, wanted) in [
        (hooks.config("/garbage"), "received invalid webhook response: expected value at line 1 column 1"),
        (
            hooks.config("/error"),
            "failed to call webhook: an error on the server (\"it is broken\") has prevented the request from succeeding",
        ),
        (hooks.config("/huge"), "failed to call webhook: the answer could not be read: length limit exceeded"),
        (hooks.config("/uid"), "received invalid webhook response: expected response.uid="),
        (hooks.config("/patch"), "received invalid webhook response: webhook returned response.patch but not response.patchType"),
        (hooks.config("/bad-patch"), "failed to apply patch"),
        (hooks.config("/bad-object"), ""),
        (foreign, "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        (
            json!({"url": format!("https://localhost:{}/x", hooks.port), "caBundle": hooks.bundle}),
            "tls: failed to verify certificate: x509: ",
        ),
        (
            json!({"service": {"name": "none", "namespace": "default"}, "caBundle": hooks.bundle}),
            "failed to call webhook: service \"none\" not found",
        ),
    ] {
        register(&server, MUTATING, "wrong", vec![webhook("wrong.k8s.io.x", config, rules(&["CREATE"], "", &["configmaps"]))])
            .await;
        let answer = server.post(MAPS, config_map("a", "b")).await;
        assert!(answer.code >= 400, "{wanted}");
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message} instead of {wanted}");
        server.delete(&format!("{MUTATING}/wrong")).await.expect(200);
    }
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap" and "should mutate pod and apply defaults after
/// mutation"
#[tokio::test]
async fn should_mutate_and_apply_defaults_after_mutation() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| match review["request"]["kind"]["kind"].as_str() {
        Some("Pod") => patch(json!([{"op": "add", "path": "/spec/initContainers", "value": [{"image": "webhook", "name": "added", "resources": {}}]}])),
        _ => patch(json!([{"op": "add", "path": "/data/mutation-stage-1", "value": "yes"}])),
    })
    .await;
    register(
        &server,
        MUTATING,
        "mutate",
        vec![webhook("mutate.k8s.io.x", hooks.config("/m"), rules(&["CREATE"], "", &["configmaps", "pods"]))],
    )
    .await;
    let created = server.post(MAPS, config_map("a", "b")).await.expect(201);
    assert_eq!(created["data"], json!({"key": "b", "mutation-stage-1": "yes"}));
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let added = &created["spec"]["initContainers"][0];
    assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook configuration
/// objects"
#[tokio::test]
async fn should_not_be_able_to_mutate_or_prevent_deletion_of_webhook_configuration_objects() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|_| json!({"allowed": false})).await;
    let all = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    register(&server, VALIDATING, "all", vec![webhook("all.k8s.io.x", hooks.config("/v"), all.clone())]).await;
    register(&server, MUTATING, "all", vec![webhook("all.k8s.io.x", hooks.config("/m"), all.clone())]).await;
    server.post(MAPS, config_map("a", "b")).await.expect_status(400, "");
    register(&server, VALIDATING, "another", vec![webhook("x.k8s.io.x", hooks.config("/x"), all)]).await;
    let labelled = server.patch(&format!("{VALIDATING}/another"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["labels"], json!({"a": "b"}));
    for one in [format!("{VALIDATING}/another"), format!("{VALIDATING}/all"), format!("{MUTATING}/all")] {
        server.delete(&one).await.expect(200);
    }
    server.post(MAPS, config_map("a", "b")).await.expect(201);
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work", "patching/updating a
/// mutating webhook should work", "listing validating webhooks should work", "listing mutating webhooks should work"
#[tokio::test]
async fn changed_and_removed_webhooks_count_at_once() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| match review["path"].as_str() {
        Some("/deny") => json!({"allowed": false}),
        _ => patch(json!([{"op": "add", "path": "/data/added", "value": "yes"}])),
    })
    .await;
    let create = |path: &'static str, hook: &str| {
        let hook = webhook("hook.k8s.io.x", hooks.config(hook), rules(&["CREATE"], "", &["configmaps"]));
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" },
            "metadata": {"name": "c", "labels": {"list": "yes"}}, "webhooks": [hook]})
    };
    server.post(VALIDATING, create(VALIDATING, "/deny")).await.expect(201);
    server.post(MAPS, config_map("a", "b")).await.expect_status(400, "");
    // Without CREATE in its rules it says nothing to a creation.
    let mut current = server.get(&format!("{VALIDATING}/c")).await.expect(200);
    current["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    server.put(&format!("{VALIDATING}/c"), current.clone()).await.expect(200);
    server.post(MAPS, config_map("a", "b")).await.expect(201);
    current["webhooks"][0]["rules"][0]["operations"] = json!(["CREATE"]);
    server.patch(&format!("{VALIDATING}/c"), json!({"webhooks": current["webhooks"]})).await.expect(200);
    server.post(MAPS, config_map("b", "b")).await.expect_status(400, "");
    assert_eq!(
        server.get(&format!("{VALIDATING}?labelSelector=list=yes")).await.expect(200)["items"].as_array().unwrap().len(),
        1
    );
    server.delete(&format!("{VALIDATING}?labelSelector=list=yes")).await.expect(200);
    server.post(MAPS, config_map("b", "b")).await.expect(201);

    server.post(MUTATING, create(MUTATING, "/add")).await.expect(201);
    assert_eq!(server.post(MAPS, config_map("c", "b")).await.expect(201)["data"]["added"], "yes");
    let mut current = server.get(&format!("{MUTATING}/c")).await.expect(200);
    current["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    server.put(&format!("{MUTATING}/c"), current).await.expect(200);
    assert_eq!(server.post(MAPS, config_map("d", "b")).await.expect(201)["data"].get("added"), None);
    server.delete(&format!("{MUTATING}?labelSelector=list=yes")).await.expect(200);
}

/// Conformance: "AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook configurations with
/// match conditions", "should be able to create and update mutating webhook configurations with match conditions", "should reject
/// validating webhook configurations with invalid match conditions", "should reject mutating webhook configurations with invalid match
/// conditions", "should mutate everything except 'skip-me' configmaps"
#[tokio::test]
async fn match_conditions_are_checked_and_obeyed() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|_| patch(json!([{"op": "add", "path": "/data/mutated", "value": "yes"}]))).await;
    for path in [VALIDATING, MUTATING] {
        let mut hook = webhook("c.k8s.io.x", hooks.config("/x"), rules(&["CREATE"], "", &["configmaps"]));
        hook["matchConditions"] = json!([{"name": "bad", "expression": "... [] bad expression"}]);
        let kind = if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
        let configuration =
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "c"}, "webhooks": [hook]});
        let message = server.post(path, configuration).await.expect_status(422, "Invalid");
        assert!(message.contains("compilation failed"), "{message}");
    }
    let mut hook = webhook("skip.k8s.io.x", hooks.config("/x"), rules(&["CREATE"], "", &["configmaps"]));
    hook["matchConditions"] = json!([{"name": "skip", "expression": "object.metadata.name != 'skip-me'"}]);
    register(&server, MUTATING, "skip", vec![hook]).await;
    assert_eq!(server.post(MAPS, config_map("skip-me", "b")).await.expect(201)["data"].get("mutated"), None);
    assert_eq!(server.post(MAPS, config_map("take-me", "b")).await.expect(201)["data"]["mutated"], "yes");
    // One that can't be evaluated refuses what its webhook would have been asked about.
    let mut hook = webhook("nope.k8s.io.x", hooks.config("/x"), rules(&["CREATE"], "", &["configmaps"]));
    hook["matchConditions"] = json!([{"name": "nope", "expression": "object.nope == 1"}]);
    register(&server, VALIDATING, "nope", vec![hook]).await;
    let message = server.post(MAPS, config_map("c", "b")).await.expect_status(403, "Forbidden");
    assert_eq!(message, "configmaps \"c\" is forbidden: expression 'nope' resulted in error: no such key: nope");
}

#[tokio::test]
async fn webhooks_are_asked_in_order_and_again_if_they_want_to_be() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let data = &review["request"]["object"]["data"];
        let add = |field: &str, value: &str| patch(json!([{"op": "add", "path": format!("/data/{field}"), "value": value}]));
        match review["path"].as_str().unwrap() {
            "/first" if data.get("second").is_some() => add("first", "saw the second"),
            "/first" => add("first", "came first"),
            "/second" if data.get("second").is_none() => add("second", "yes"),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let rule = rules(&["CREATE"], "", &["configmaps"]);
    let mut first = webhook("first.k8s.io.x", hooks.config("/first"), rule.clone());
    first["reinvocationPolicy"] = json!("IfNeeded");
    let once = webhook("once.k8s.io.x", hooks.config("/once"), rule.clone());
    register(&server, MUTATING, "b", vec![webhook("second.k8s.io.x", hooks.config("/second"), rule)]).await;
    register(&server, MUTATING, "a", vec![first, once]).await;
    let created = server.post(MAPS, config_map("m", "x")).await.expect(201);
    assert_eq!(created["data"], json!({"key": "x", "first": "saw the second", "second": "yes"}));
    assert_eq!(hooks.paths(), ["/first", "/once", "/second", "/first"]);
}

#[tokio::test]
async fn selectors_scopes_and_wildcards_decide() {
    let server = TestServer::memory().await;
    let hooks = Hooks::allowing().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "free", "labels": {"free": "yes"}}})).await.expect(201);
    server.get("/api/v1/namespaces/free").await.expect(200);
    let any =
        |resources: &str| json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resources]}]);
    let mut by_namespace = webhook("namespace.k8s.io.x", hooks.config("/namespace"), any("configmaps"));
    by_namespace["namespaceSelector"] = json!({"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]});
    let mut by_object = webhook("object.k8s.io.x", hooks.config("/object"), any("configmaps"));
    by_object["objectSelector"] = json!({"matchLabels": {"mine": "yes"}});
    let mut cluster = webhook("cluster.k8s.io.x", hooks.config("/cluster"), any("*"));
    cluster["rules"][0]["scope"] = json!("Cluster");
    let status = webhook("status.k8s.io.x", hooks.config("/status"), any("*/status"));
    let scale = webhook("scale.k8s.io.x", hooks.config("/scale"), any("*/scale"));
    let objects = webhook("objects.k8s.io.x", hooks.config("/objects"), rules(&["UPDATE"], "apps", &["*"]));
    register(&server, VALIDATING, "c", vec![by_namespace, by_object, cluster, status, scale, objects]).await;

    server.post(MAPS, config_map("a", "b")).await.expect(201);
    assert_eq!(hooks.paths(), ["/namespace"]);
    server.post("/api/v1/namespaces/free/configmaps", config_map("a", "b")).await.expect(201);
    assert_eq!(hooks.paths(), Vec::<String>::new());
    let mut mine = config_map("mine", "b");
    mine["metadata"]["labels"] = json!({"mine": "yes"});
    server.post("/api/v1/namespaces/free/configmaps", mine).await.expect(201);
    assert_eq!(hooks.paths(), ["/object"]);
    // The label that goes counts as well as the one that comes.
    server.patch("/api/v1/namespaces/free/configmaps/mine", json!({"metadata": {"labels": null}})).await.expect(200);
    assert_eq!(hooks.paths(), ["/object"]);
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "new"}})).await.expect(201);
    assert_eq!(hooks.paths(), ["/cluster"]);
    server.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    assert_eq!(hooks.paths(), Vec::<String>::new());
    server.patch(&format!("{DEPLOYMENTS}/web/status"), json!({"status": {"replicas": 1}})).await.expect(200);
    assert_eq!(hooks.paths(), ["/status"]);
    server.patch(&format!("{DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 2}})).await.expect(200);
    let asked = hooks.take();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (&asked[0].0[..], &asked[0].1["kind"]["kind"], &asked[0].1["object"]["spec"]),
        ("/scale", &json!("Scale"), &json!({"replicas": 2}))
    );
    server.patch(&format!("{DEPLOYMENTS}/web"), json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(hooks.paths(), ["/objects"]);
}

/// A webhook that asked for `v1` of one group is asked about writes to another group that serves the same objects.
#[tokio::test]
async fn equivalent_resources_are_converted() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let note = review["request"]["object"]["message"].clone();
        if note.is_string() {
            patch(json!([{"op": "replace", "path": "/message", "value": "changed"}]))
        } else {
            json!({"allowed": false})
        }
    })
    .await;
    register(
        &server,
        MUTATING,
        "core",
        vec![webhook("core.k8s.io.x", hooks.config("/core"), rules(&["CREATE"], "", &["events"]))],
    )
    .await;
    let mut exact = webhook("exact.k8s.io.x", hooks.config("/exact"), rules(&["CREATE"], "", &["events"]));
    exact["matchPolicy"] = json!("Exact");
    register(&server, VALIDATING, "exact", vec![exact]).await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "note": "as it was",
        "reason": "R", "action": "A", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c.x", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let created = server.post("/apis/events.k8s.io/v1/namespaces/default/events", event).await.expect(201);
    assert_eq!((&created["note"], &created["apiVersion"]), (&json!("changed"), &json!("events.k8s.io/v1")));
    let asked = hooks.take();
    assert_eq!(asked.len(), 1);
    let request = &asked[0].1;
    assert_eq!((&request["kind"]["group"], &request["requestKind"]["group"]), (&json!(""), &json!("events.k8s.io")));
    assert_eq!(request["object"]["apiVersion"], "v1");
}

/// A Service's endpoint is asked, and its certificate must be for the Service's name.
#[tokio::test]
async fn a_service_is_found_and_its_name_verified() {
    let server = TestServer::memory().await;
    let hooks = Hooks::allowing().await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}], "selector": {"a": "b"}}});
    server.post("/api/v1/namespaces/default/services", service).await.expect(201);
    // An endpoint is nothing that only this machine reaches.
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let ip = udp.connect("192.0.2.1:9").and_then(|()| udp.local_addr()).map(|address| address.ip().to_string());
    let Ok(ip) = ip else { return eprintln!("SKIPPED: this machine has no address but its loopback") };
    let slice = |ready: bool| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": hooks.port}], "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}]})
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    server.post(slices, slice(false)).await.expect(201);
    server.get(&format!("{slices}/hook-1")).await.expect(200);
    let config = json!({"service": {"name": "hook", "namespace": "default", "path": "/s"}, "caBundle": hooks.bundle});
    register(&server, VALIDATING, "s", vec![webhook("s.k8s.io.x", config, rules(&["CREATE"], "", &["configmaps"]))]).await;
    let message = server.post(MAPS, config_map("a", "b")).await.expect_status(500, "InternalError");
    assert!(message.ends_with("no endpoints available for service \"hook\""), "{message}");
    server.put(&format!("{slices}/hook-1"), slice(true)).await.expect(200);
    server.get(&format!("{slices}/hook-1")).await.expect(200);
    server.post(MAPS, config_map("a", "b")).await.expect(201);
    assert_eq!(hooks.paths(), ["/s"]);
}

#[tokio::test]
async fn a_dry_run_is_told_of() {
    let server = TestServer::memory().await;
    let hooks = Hooks::allowing().await;
    register(&server, VALIDATING, "d", vec![webhook("d.k8s.io.x", hooks.config("/d"), rules(&["CREATE"], "", &["configmaps"]))])
        .await;
    server.post(&format!("{MAPS}?dryRun=All"), config_map("a", "b")).await.expect(201);
    let request = &hooks.take()[0].1;
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
}
