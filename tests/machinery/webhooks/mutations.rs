//! Webhooks that change what is written.

use super::sample::Sample;
use super::{Hooks, MAPS, MUTATING, patch, register, rules, webhook};
use serde_json::json;
use slipway_tests::{TestServer, config_map};

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

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap [Conformance]`
#[tokio::test]
async fn a_config_map_is_changed_by_one_webhook_after_the_other() {
    let Some(sample) = Sample::start().await else { return };
    sample.register(MUTATING, "stages", vec![sample.mutating_maps(1), sample.mutating_maps(2)]).await;
    let created = sample.server.post(MAPS, Sample::to_be_mutated("to-be-mutated")).await.expect(201);
    assert_eq!(created["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}));
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation [Conformance]`
#[tokio::test]
async fn what_a_webhook_adds_to_a_pod_is_defaulted() {
    let Some(sample) = Sample::start().await else { return };
    let hook = sample.webhook("adding-init-container.k8s.io", "/mutating-pods", &["CREATE"], "pods");
    sample.register(MUTATING, "pods", vec![hook]).await;
    let pod =
        json!({"metadata": {"name": "webhook-to-be-mutated"}, "spec": {"containers": [{"name": "example", "image": "pause"}]}});
    let created = sample.server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let added = created["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(added.len(), 1);
    assert_eq!(added[0]["name"], "webhook-added-init-container");
    assert_eq!(added[0]["terminationMessagePolicy"], "File");
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate everything except 'skip-me' configmaps [Conformance]`
#[tokio::test]
async fn a_match_condition_leaves_one_name_out() {
    let Some(sample) = Sample::start().await else { return };
    let mut hook = sample.mutating_maps(1);
    hook["matchConditions"] = json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    sample.register(MUTATING, "skip", vec![hook]).await;
    let created = sample.server.post(MAPS, Sample::to_be_mutated("any-other")).await.expect(201);
    assert_eq!(created["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes"}));
    let skipped = sample.server.post(MAPS, Sample::to_be_mutated("skip-me")).await.expect(201);
    assert_eq!(skipped["data"], json!({"mutation-start": "yes"}));
}
