//! The configurations of webhooks as objects: found, listed, changed, removed, and out of the reach of webhooks.

use super::sample::Sample;
use super::{Hooks, MAPS, MUTATING, VALIDATING, register, webhook};
use serde_json::{Value, json};
use slipway_tests::{TestServer, config_map};

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should include webhook resources in discovery documents [Conformance]`
#[tokio::test]
async fn discovery_has_the_configurations() {
    let server = TestServer::memory().await;
    let version = json!({"groupVersion": "admissionregistration.k8s.io/v1", "version": "v1"});
    let groups = server.get("/apis").await.expect(200);
    let mut groups = groups["groups"].as_array().unwrap().iter();
    let group = groups.find(|group| group["name"] == "admissionregistration.k8s.io").unwrap();
    assert_eq!(group["versions"], json!([version]));
    let group = server.get("/apis/admissionregistration.k8s.io").await.expect(200);
    assert_eq!((&group["name"], &group["versions"]), (&json!("admissionregistration.k8s.io"), &json!([version])));
    let resources = server.get("/apis/admissionregistration.k8s.io/v1").await.expect(200);
    assert_eq!(resources["groupVersion"], "admissionregistration.k8s.io/v1");
    let all = resources["resources"].as_array().unwrap();
    for name in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies/status"] {
        assert!(all.iter().any(|resource| resource["name"] == name), "{name}");
    }
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing validating webhooks should work [Conformance]`
#[tokio::test]
async fn validating_configurations_are_listed_and_go_together() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let ten = ten(&sample, VALIDATING, || sample.denying_maps()).await;
    assert_eq!(server.get(&ten).await.expect(200)["items"].as_array().unwrap().len(), 10);
    assert!(denied(server, "first").await);
    server.delete(&ten).await.expect(200);
    assert!(!denied(server, "second").await);
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] listing mutating webhooks should work [Conformance]`
#[tokio::test]
async fn mutating_configurations_are_listed_and_go_together() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let ten = ten(&sample, MUTATING, || sample.mutating_maps(1)).await;
    assert_eq!(server.get(&ten).await.expect(200)["items"].as_array().unwrap().len(), 10);
    assert!(mutated(server, "first").await);
    server.delete(&ten).await.expect(200);
    assert!(!mutated(server, "second").await);
}

/// Ten configurations with one label; answers with the path that selects them.
async fn ten(sample: &Sample, path: &str, webhook: impl Fn() -> Value) -> String {
    for n in 0..10 {
        let name = format!("list-{n}");
        sample.register(path, &name, vec![webhook()]).await;
        let labels = json!({"metadata": {"labels": {"e2e-list-test-uuid": "one"}}});
        sample.server.patch(&format!("{path}/{name}"), labels).await.expect(200);
    }
    format!("{path}?labelSelector=e2e-list-test-uuid%3Done")
}

/// Whether a ConfigMap that the sample does not like is denied.
async fn denied(server: &TestServer, name: &str) -> bool {
    let answer = server.post(MAPS, Sample::non_compliant(name)).await;
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert!(answer.code == 201 || message.contains("denied"), "{message}");
    answer.code != 201
}

/// Whether a new ConfigMap is changed.
async fn mutated(server: &TestServer, name: &str) -> bool {
    let created = server.post(MAPS, Sample::to_be_mutated(name)).await.expect(201);
    created["data"]["mutation-stage-1"] == "yes"
}

/// Takes creation out of a configuration's rules by an update, and puts it back by a patch.
async fn without_creation_and_with_it(server: &TestServer, path: &str, mut meanwhile: impl AsyncFnMut()) {
    let mut current = server.get(path).await.expect(200);
    current["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    server.put(path, current).await.expect(200);
    meanwhile().await;
    let patch = r#"[{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]"#;
    super::patched(server, "json-patch", path, patch).await.expect(200);
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a validating webhook should work [Conformance]`
#[tokio::test]
async fn changes_of_a_validating_configuration_count() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    sample.register(VALIDATING, "c", vec![sample.denying_maps()]).await;
    assert!(denied(server, "first").await);
    let allowed = async || assert!(!denied(server, "second").await);
    without_creation_and_with_it(server, &format!("{VALIDATING}/c"), allowed).await;
    assert!(denied(server, "third").await);
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] patching/updating a mutating webhook should work [Conformance]`
#[tokio::test]
async fn changes_of_a_mutating_configuration_count() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    sample.register(MUTATING, "c", vec![sample.mutating_maps(1)]).await;
    let left = async || assert!(!mutated(server, "first").await);
    without_creation_and_with_it(server, &format!("{MUTATING}/c"), left).await;
    assert!(mutated(server, "second").await);
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update validating webhook configurations with match conditions [Conformance]`,
/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to create and update mutating webhook configurations with match conditions [Conformance]`
#[tokio::test]
async fn match_conditions_are_kept_and_changed() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let condition = |name: &str, of: &str| json!({"name": name, "expression": format!("object.metadata.namespace == '{of}'")});
    for (path, mut hook) in [(VALIDATING, sample.denying_maps()), (MUTATING, sample.mutating_maps(1))] {
        hook["matchConditions"] = json!([condition("expression-1", "production")]);
        sample.register(path, "conditions", vec![hook]).await;
        let one = format!("{path}/conditions");
        let mut read = server.get(&one).await.expect(200);
        assert_eq!(read["webhooks"][0]["matchConditions"], json!([condition("expression-1", "production")]));
        let both = json!([condition("expression-1", "production"), condition("expression-2", "staging")]);
        read["webhooks"][0]["matchConditions"] = both.clone();
        server.put(&one, read).await.expect(200);
        assert_eq!(server.get(&one).await.expect(200)["webhooks"][0]["matchConditions"], both);
    }
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject validating webhook configurations with invalid match conditions [Conformance]`,
/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should reject mutating webhook configurations with invalid match conditions [Conformance]`
#[tokio::test]
async fn match_conditions_that_do_not_compile_are_refused() {
    let Some(sample) = Sample::start().await else { return };
    for (path, mut hook) in [(VALIDATING, sample.denying_maps()), (MUTATING, sample.mutating_maps(1))] {
        hook["matchConditions"] = json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
        let configuration = sample.configuration(path, "invalid", vec![hook]);
        let message = sample.server.post(path, configuration).await.expect_status(422, "Invalid");
        assert!(message.contains("compilation failed"), "{message}");
    }
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should not be able to mutate or prevent deletion of webhook configuration objects [Conformance]`
#[tokio::test]
async fn configurations_are_neither_changed_nor_kept_by_webhooks() {
    let Some(sample) = Sample::start().await else { return };
    let server = &sample.server;
    let on_configurations = |name: &str, path: &str, operation: &str| {
        let mut hook = sample.webhook(name, path, &[operation], "");
        let resources = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
        hook["rules"] = json!([{"operations": [operation], "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "resources": resources}]);
        hook["failurePolicy"] = json!("Fail");
        hook
    };
    let deny = on_configurations("deny-webhook-configuration-deletions.k8s.io", "/always-deny", "DELETE");
    sample.register(VALIDATING, "blocking", vec![deny]).await;
    let label = on_configurations("add-label-to-webhook-configurations.k8s.io", "/add-label", "CREATE");
    sample.register(MUTATING, "blocking", vec![label]).await;
    for path in [VALIDATING, MUTATING] {
        // It matches nothing, and could not be called.
        let mut dummy = sample.webhook("dummy-webhook.k8s.io", "", &["CREATE"], "invalid");
        dummy["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        dummy["failurePolicy"] = json!("Ignore");
        let created = sample.register(path, "dummy", vec![dummy]).await;
        assert_eq!(created["metadata"].get("labels"), None);
        server.delete(&format!("{path}/dummy")).await.expect(200);
    }
    assert_eq!(sample.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_webhook_for_everything_is_not_asked_about_configurations() {
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
