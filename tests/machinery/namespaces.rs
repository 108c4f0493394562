//! Namespaces as objects; what empties them is tested in `tests/it`.

use serde_json::{Value, json};
use slipway_tests::{TestServer, config_map};

const TEAM: &str = "/api/v1/namespaces/team";

async fn server() -> TestServer {
    let server = TestServer::memory().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    server.post("/api/v1/namespaces", namespace).await.expect(201);
    server
}

/// `[sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]`,
/// `[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]`
#[tokio::test]
async fn a_namespace_is_labelled() {
    let server = server().await;
    let patched = server.patch(TEAM, json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["labels"]["testLabel"], "testValue");
    let mut updated = patched;
    updated["metadata"]["labels"]["team"] = json!("updated");
    let updated = server.put(TEAM, updated).await.expect(200);
    assert_eq!(updated["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    assert_eq!(updated["metadata"]["labels"]["team"], "updated");
}

/// `[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]`
#[tokio::test]
async fn the_status_of_a_namespace_is_changed() {
    let server = server().await;
    let status = format!("{TEAM}/status");
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "E2E", "message": "Set by e2e test"});
    let patch = json!({"metadata": {"annotations": {"e2e": "patched"}}, "status": {"conditions": [condition("StatusPatch")]}});
    let patched = server.patch(&status, patch).await.expect(200);
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatch");
    assert_eq!(patched["status"]["phase"], "Active");
    let mut whole = server.get(TEAM).await.expect(200);
    whole["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdate"));
    let updated = server.put(&status, whole).await.expect(200);
    assert_eq!(updated["status"]["conditions"][1]["type"], "StatusUpdate");
}

/// `[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace [Conformance]`
#[tokio::test]
async fn a_namespace_is_finalized_by_those_who_hold_it() {
    let server = server().await;
    let mut team = server.get(TEAM).await.expect(200);
    team["spec"]["finalizers"].as_array_mut().unwrap().push(json!("e2e.example.com/fakeFinalizer"));
    let held = server.put(&format!("{TEAM}/finalize"), team).await.expect(200);
    assert_eq!(held["spec"]["finalizers"], json!(["kubernetes", "e2e.example.com/fakeFinalizer"]));
    let mut free = held;
    free["spec"]["finalizers"] = json!(["kubernetes"]);
    let free = server.put(&format!("{TEAM}/finalize"), free).await.expect(200);
    assert_eq!(free["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn what_every_cluster_has_is_not_deleted_and_what_is_not_there_is_not_written_to() {
    let server = server().await;
    for name in ["default", "kube-system", "kube-public"] {
        let message = server.delete(&format!("/api/v1/namespaces/{name}")).await.expect_status(403, "Forbidden");
        assert_eq!(message, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
    let message = server.post("/api/v1/namespaces/nowhere/configmaps", config_map("a", "b")).await.expect_status(404, "NotFound");
    assert_eq!(message, "namespaces \"nowhere\" not found");
    server.delete(TEAM).await.expect(200);
    let refused = server.post(&format!("{TEAM}/configmaps"), config_map("a", "b")).await;
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let message = refused.expect_status(403, "Forbidden");
    let why = "unable to create new content in namespace team because it is being terminated";
    assert_eq!(message, format!("configmaps \"a\" is forbidden: {why}"));
    let terminating = server.get(TEAM).await.expect(200);
    assert_eq!(terminating["status"]["phase"], "Terminating");
    assert_eq!(terminating["spec"]["finalizers"], json!(["kubernetes"]));
    assert_ne!(terminating["metadata"]["deletionTimestamp"], Value::Null);
}
