//! What hangs below objects, and the way to a node's agent.

use axum::body::Body;
use base64::Engine;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_store::memory::Memory;
use slipway_tests::{Answer, TestServer};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "a"}]}})
}

fn binding(pod: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"apiVersion": "v1", "kind": "Node", "name": node}})
}

#[tokio::test]
async fn scale_reads_and_writes_the_replicas() {
    let server = TestServer::memory().await;
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec});
    server.post(DEPLOYMENTS, deployment).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = server.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=web");
    let stale = scale.clone();
    scale["spec"]["replicas"] = json!(5);
    let updated = server.put(&path, scale).await.expect(200);
    assert_eq!(updated["spec"]["replicas"], 5);
    let object = server.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(5), &json!(2)));
    server.put(&path, stale).await.expect_status(409, "Conflict");
    assert_eq!(server.patch(&path, json!({"spec": {"replicas": 0}})).await.expect(200)["spec"].get("replicas"), None);
    let message = server.patch(&path, json!({"spec": {"replicas": -1}})).await.expect_status(422, "Invalid");
    let why = "spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(message, format!("Scale.autoscaling \"web\" is invalid: {why}"));
    server.get(&format!("{PODS}/web/scale")).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = TestServer::memory().await;
    server.post(PODS, pod("a")).await.expect(201);
    server.post(PODS, pod("b")).await.expect(201);
    let answer = server.post(&format!("{PODS}/a/binding"), binding("a", "n1")).await.expect(201);
    assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Success")));
    let bound = server.get(&format!("{PODS}/a")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert!(
        bound["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    let message = server.post(&format!("{PODS}/a/binding"), binding("a", "n2")).await.expect_status(409, "Conflict");
    let why = "pod a is already assigned to node \"n1\"";
    assert_eq!(message, format!("Operation cannot be fulfilled on pods/binding \"a\": {why}"));
    server.post("/api/v1/namespaces/default/bindings", binding("b", "n2")).await.expect(201);
    server.post(&format!("{PODS}/none/binding"), binding("none", "n1")).await.expect_status(404, "NotFound");
    let message = server.post(&format!("{PODS}/b/binding"), binding("b", "")).await.expect_status(422, "Invalid");
    assert_eq!(message, "Binding \"b\" is invalid: target.name: Required value");
    let racers = (0..6).map(|at| async move { format!("n{at}") });
    server.post(PODS, pod("c")).await.expect(201);
    let nodes = futures::future::join_all(racers).await;
    let path = format!("{PODS}/c/binding");
    let all = nodes.iter().map(|node| server.post(&path, binding("c", node)));
    let codes: Vec<u16> = futures::future::join_all(all).await.into_iter().map(|answer| answer.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
}

#[tokio::test]
async fn an_eviction_deletes_a_pod_that_nothing_protects() {
    let server = TestServer::memory().await;
    server.post(PODS, pod("a")).await.expect(201);
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let path = format!("{PODS}/a/eviction");
    server.post(&format!("{path}?dryRun=All"), eviction("a")).await.expect(201);
    assert_eq!(server.get(&format!("{PODS}/a")).await.expect(200)["metadata"].get("deletionTimestamp"), None);
    server.post(&path, eviction("b")).await.expect_status(400, "BadRequest");
    let mut wrong = eviction("a");
    wrong["deleteOptions"] = json!({"preconditions": {"uid": "other"}});
    server.post(&path, wrong).await.expect_status(409, "Conflict");
    let mut now = eviction("a");
    now["deleteOptions"] = json!({"gracePeriodSeconds": 0});
    server.post(&path, now).await.expect(201);
    server.get(&format!("{PODS}/a")).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn a_budget_is_charged_and_then_refuses() {
    let server = TestServer::memory().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    for name in ["a", "b"] {
        server.post(PODS, pod(name)).await.expect(201);
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        server.patch(&format!("{PODS}/{name}/status"), ready).await.expect(200);
    }
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    server.post(budgets, budget).await.expect(201);
    let evict = |name: &'static str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let server = &server;
        async move { server.post(&format!("{PODS}/{name}/eviction"), eviction).await }
    };
    let unseen = evict("a").await;
    assert_eq!(unseen.body["details"]["retryAfterSeconds"], 10);
    unseen.expect_status(429, "TooManyRequests");
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2, "expectedPods": 2}});
    server.patch(&format!("{budgets}/web/status"), status).await.expect(200);
    evict("a").await.expect(201);
    let charged = server.get(&format!("{budgets}/web")).await.expect(200);
    assert_eq!(charged["status"]["disruptionsAllowed"], 0);
    assert!(charged["status"]["disruptedPods"]["a"].is_string());
    let refused = evict("b").await;
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "DisruptionBudget");
    let message = refused.expect_status(429, "TooManyRequests");
    assert_eq!(message, "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(server.get(&format!("{PODS}/b")).await.expect(200)["metadata"].get("deletionTimestamp"), None);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let server = TestServer::memory().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    server.post("/api/v1/namespaces", namespace).await.expect(201);
    server.delete("/api/v1/namespaces/team").await.expect(200);
    let mut going = server.get("/api/v1/namespaces/team").await.expect(200);
    assert_eq!((&going["status"]["phase"], &going["spec"]["finalizers"]), (&json!("Terminating"), &json!(["kubernetes"])));
    going["spec"]["finalizers"] = json!([]);
    server.put("/api/v1/namespaces/team/finalize", going).await.expect(200);
    server.get("/api/v1/namespaces/team").await.expect_status(404, "NotFound");
}

fn with_key() -> Options {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    Options { service_account_key_pem: Some(key), ..Options::default() }
}

async fn ask(server: &TestServer, token: &str, path: &str) -> Answer {
    let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    Answer::of(server.send(None, request).await).await
}

/// The token of a pod is its account's, until the pod is gone; its key is published.
#[tokio::test]
async fn a_token_lives_as_long_as_the_pod_it_is_bound_to() {
    let server = TestServer::start(Memory::new(), with_key()).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let made = server.post(PODS, pod("a")).await.expect(201);
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": made["metadata"]["uid"]});
    let request = |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = server.post(path, request(json!({"expirationSeconds": 600, "boundObjectRef": bound}))).await.expect(201);
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let part = |at: usize| -> Value {
        let part = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(part(1)["sub"], "system:serviceaccount:default:default");
    assert_eq!(part(1)["kubernetes.io"]["pod"]["name"], "a");
    let keys = server.get("/openid/v1/jwks").await.expect(200);
    assert_eq!(keys["keys"][0]["kid"], part(0)["kid"]);
    let configuration = server.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(configuration["issuer"], part(1)["iss"]);

    let known = ask(&server, &token, "/api").await;
    assert_ne!(known.code, 401, "{}", known.body);
    ask(&server, &format!("{token}x"), "/api").await.expect_status(401, "Unauthorized");
    server.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.expect(200);
    server.api.cache.fresh().await.unwrap();
    ask(&server, &token, "/api").await.expect_status(401, "Unauthorized");

    let short = server.post(path, request(json!({"expirationSeconds": 60}))).await.expect_status(422, "Invalid");
    assert!(short.ends_with("may not specify a duration less than 10 minutes"), "{short}");
    let gone = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "a"}});
    server.post(path, request(gone)).await.expect_status(404, "NotFound");
    let none = "/api/v1/namespaces/default/serviceaccounts/none/token";
    server.post(none, request(json!({}))).await.expect_status(404, "NotFound");
    let elsewhere = server.post(path, request(json!({"audiences": ["vault"]}))).await.expect(201);
    let elsewhere = elsewhere["status"]["token"].as_str().unwrap();
    ask(&server, elsewhere, "/api").await.expect_status(401, "Unauthorized");
}

#[tokio::test]
async fn a_caller_can_ask_who_they_are() {
    let server = TestServer::memory().await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review).await.expect(201);
    assert_eq!(answer["status"]["userInfo"]["username"], "kubernetes-admin");
    server.get("/apis/authentication.k8s.io/v1/selfsubjectreviews").await.expect_status(405, "MethodNotAllowed");
}
