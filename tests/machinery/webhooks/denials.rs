//! Webhooks that deny what is asked.

use super::sample::Sample;
use super::{Hooks, MAPS, MUTATING, VALIDATING, register, rules, webhook};
use crate::kubectl_apply::{kubectls, listen_to};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer, config_map, eventually};
use std::sync::atomic::Ordering;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_webhook_is_told_of_the_request_and_may_deny_it() {
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

#[tokio::test]
async fn connections_bindings_and_evictions_are_denied() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let kind = review["request"]["kind"]["kind"].as_str().unwrap().to_owned();
        json!({"allowed": false, "status": {"message": format!("no {kind}")}})
    })
    .await;
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post(PODS, pod).await.expect(201);
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    server.post("/api/v1/nodes", node).await.expect(201);
    let all = rules(&["*"], "", &["pods/binding", "pods/eviction", "pods/attach", "pods/exec"]);
    register(&server, VALIDATING, "deny", vec![webhook("deny.k8s.io.x", hooks.config("/deny"), all)]).await;
    let binding =
        json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    let message = server.post(&format!("{PODS}/web/binding"), binding.clone()).await.expect_status(400, "");
    assert_eq!(message, "admission webhook \"deny.k8s.io.x\" denied the request: no Binding");
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "web"}});
    let message = server.post(&format!("{PODS}/web/eviction"), eviction).await.expect_status(400, "");
    assert!(message.ends_with("no Eviction"), "{message}");
    assert_eq!(hooks.take()[0].1["subResource"], "binding");
    server.delete(&format!("{VALIDATING}/deny")).await.expect(200);
    server.post(&format!("{PODS}/web/binding"), binding).await.expect(201);
    let attach = rules(&["CONNECT"], "", &["pods/attach"]);
    register(&server, VALIDATING, "attach", vec![webhook("deny.k8s.io.x", hooks.config("/deny"), attach)]).await;
    let request = Request::builder().method("POST").uri(format!("{PODS}/web/attach?stdin=true&tty=true&container=c"));
    let request = request.header("connection", "upgrade").header("upgrade", "SPDY/3.1").body(Body::empty()).unwrap();
    let answer = Answer::of(server.send(Some(User::admin()), request).await).await;
    let message = answer.expect_status(400, "");
    assert!(message.ends_with("no PodAttachOptions"), "{message}");
    let request = &hooks.take()[0].1;
    assert_eq!(request["operation"], "CONNECT");
    assert_eq!(
        request["object"],
        json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "tty": true, "container": "c"})
    );
}

#[tokio::test]
async fn a_deletion_is_denied() {
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

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation [Conformance]`
#[tokio::test]
async fn pods_and_config_maps_are_denied() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let mut pods = sample.webhook("deny-unwanted-pod-container-name-and-label.k8s.io", "/pods", &["CREATE"], "pods");
    pods["timeoutSeconds"] = json!(1);
    let mut fail_open = sample.failing("fail-open.k8s.io");
    fail_open["failurePolicy"] = json!("Ignore");
    sample.register(VALIDATING, "deny", vec![pods, sample.denying_maps(), fail_open]).await;
    let pod = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {"webhook-e2e-test": label}}, "spec": {"containers": [{"name": label, "image": "pause"}]}});
    let answer = server.post(PODS, pod("disallowed-pod", "webhook-disallow")).await;
    let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
    assert!(answer.code >= 400 && message.contains("the pod contains unwanted container name"), "{message}");
    assert!(message.contains("the pod contains unwanted label"), "{message}");
    let answer = server.post(PODS, pod("hanging-pod", "wait-forever")).await;
    let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
    assert!(answer.code >= 400 && message.contains("webhook") && message.contains("deadline"), "{message}");
    server.get(&format!("{PODS}/hanging-pod")).await.expect_status(404, "NotFound");

    let denied = |answer: Answer| {
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(answer.code >= 400 && message.contains("the configmap contains unwanted key and value"), "{message}");
    };
    denied(server.post(MAPS, Sample::non_compliant("disallowed-configmap")).await);
    let allowed = json!({"metadata": {"name": "allowed-configmap"}, "data": {"admit": "this"}});
    server.post(MAPS, allowed).await.expect(201);
    let path = format!("{MAPS}/allowed-configmap");
    let mut changed = server.get(&path).await.expect(200);
    changed["data"]["webhook-e2e-test"] = json!("webhook-disallow");
    denied(server.put(&path, changed).await);
    let patch = r#"{"data":{"webhook-e2e-test":"webhook-disallow"}}"#;
    denied(super::patched(server, "strategic-merge-patch", &path, patch).await);

    let labels = json!({"skip-webhook-admission": "yes", "webhook-test": "true"});
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "exempted", "labels": labels}})).await.expect(201);
    let exempted = "/api/v1/namespaces/exempted/configmaps";
    server.post(exempted, Sample::non_compliant("disallowed-configmap")).await.expect(201);
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny attaching pod [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_is_denied() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let hook = sample.webhook("deny-attaching-pod.k8s.io", "/pods/attach", &["CONNECT"], "pods/attach");
    sample.register(VALIDATING, "attach", vec![hook]).await;
    let nodes = tokio_util::sync::CancellationToken::new();
    let _ended_with_the_test = nodes.clone().drop_guard();
    tokio::spawn(slipway_node::simulated::run(server.client(), Default::default(), nodes));
    let pod = json!({"metadata": {"name": "to-be-attached-pod"},
        "spec": {"nodeName": "simulated-0", "containers": [{"name": "container1", "image": "pause"}]}});
    server.post(PODS, pod).await.expect(201);
    let path = format!("{PODS}/to-be-attached-pod");
    eventually("the pod to run", async || (server.get(&path).await.expect(200)["status"]["phase"] == "Running").then_some(()))
        .await;
    for kubectl in kubectls() {
        let listening = listen_to(TestServer::of(server.api.clone()), &kubectl).await;
        let attach = ["attach", "--namespace=default", "to-be-attached-pod", "-i", "-c=container1"];
        let (code, said) = listening.run(&attach, "").await;
        assert_ne!(code, 0, "{said}");
        assert!(said.contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{kubectl}: {said}");
    }
    let path = format!("{path}/attach?container=container1&stdin=true&stdout=true&stderr=true");
    let request = Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v5.channel.k8s.io");
    let answer = Answer::of(server.send(Some(User::admin()), request.body(Body::empty()).unwrap()).await).await;
    let message = answer.expect_status(400, "");
    assert!(message.contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{message}");
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should unconditionally reject operations on fail closed webhook [Conformance]`
#[tokio::test]
async fn without_its_authority_a_webhook_fails_closed() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let mut hook = sample.failing("fail-closed.k8s.io");
    hook["failurePolicy"] = json!("Fail");
    hook["namespaceSelector"]["matchExpressions"] = json!([{"key": "fail-closed-webhook", "operator": "In", "values": ["yes"]}]);
    sample.register(VALIDATING, "closed", vec![hook]).await;
    let labels = json!({"fail-closed-webhook": "yes", "webhook-test": "true"});
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "fail-closed", "labels": labels}})).await.expect(201);
    let foo = json!({"metadata": {"name": "foo"}});
    server.post("/api/v1/namespaces/fail-closed/configmaps", foo.clone()).await.expect_status(500, "InternalError");
    server.post(MAPS, foo).await.expect(201);
}
