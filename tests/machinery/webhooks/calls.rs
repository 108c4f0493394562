//! How a webhook is called, and what becomes of wrong answers and none.

use super::sample::{DELAYED, Sample};
use super::{Hooks, MAPS, MUTATING, VALIDATING, patch, register, rules, webhook};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use slipway_tests::{TestServer, config_map};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_webhook_that_nobody_serves_fails_the_request_or_is_passed_over() {
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

#[tokio::test]
async fn a_webhook_that_takes_too_long_is_given_up() {
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

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should honor timeout [Conformance]`
#[tokio::test]
async fn a_timeout_is_honoured() {
    let Some(sample) = Sample::start().await else { return };
    for (timeout, policy, waits) in
        [(json!(1), "Fail", false), (json!(1), "Ignore", true), (json!(10), "Fail", true), (json!(null), "Fail", true)]
    {
        let mut hook = sample.webhook("allow-configmap-with-delay-webhook.k8s.io", DELAYED, &["CREATE"], "configmaps");
        hook["failurePolicy"] = json!(policy);
        hook["timeoutSeconds"] = timeout;
        let created = sample.register(VALIDATING, "slow", vec![hook]).await;
        let map = json!({"metadata": {"name": "e2e-test-slow-webhook-configmap"}});
        let answer = sample.server.post(MAPS, map).await;
        if waits {
            answer.expect(201);
            sample.server.delete(&format!("{MAPS}/e2e-test-slow-webhook-configmap")).await.expect(200);
        } else {
            let message = answer.expect_status(500, "InternalError");
            assert!(message.contains(&format!("{DELAYED}?timeout=1s")), "{message}");
            assert!(message.contains("context deadline exceeded"), "{message}");
        }
        if created["webhooks"][0]["timeoutSeconds"] != 1 {
            assert_eq!(created["webhooks"][0]["timeoutSeconds"], 10);
        }
        sample.server.delete(&format!("{VALIDATING}/slow")).await.expect(200);
    }
}
