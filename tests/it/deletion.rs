//! Deletion: at once, with finalizers, with grace, of collections.

use serde_json::{Value, json};
use slipway_tests::config_map;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_finalizer_keeps_an_object_until_it_is_removed() {
    let server = super::server().await;
    let mut map = config_map("a", "1");
    map["metadata"]["finalizers"] = json!(["example.com/wait"]);
    server.post(MAPS, map).await.expect(201);
    let marked = server.delete(&format!("{MAPS}/a")).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = server.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(again["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    let more = json!({"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}});
    let message = server.patch(&format!("{MAPS}/a"), more).await.expect_status(422, "Invalid");
    assert!(message.contains("no new finalizers can be added if the object is being deleted"), "{message}");
    server.patch(&format!("{MAPS}/a"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    server.get(&format!("{MAPS}/a")).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let server = super::server().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        server.post(MAPS, config_map("a", "1")).await.expect(201);
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let marked = server.call("DELETE", &format!("{MAPS}/a"), Some(&options)).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        let options = json!({"propagationPolicy": "Background"});
        server.call("DELETE", &format!("{MAPS}/a"), Some(&options)).await.expect(200);
        server.get(&format!("{MAPS}/a")).await.expect_status(404, "NotFound");
    }
    let options = json!({"propagationPolicy": "Sideways"});
    server.call("DELETE", &format!("{MAPS}/a"), Some(&options)).await.expect_status(422, "Invalid");
}

#[tokio::test]
async fn preconditions_protect() {
    let server = super::server().await;
    let created = server.post(MAPS, config_map("a", "1")).await.expect(201);
    let wrong = json!({"preconditions": {"uid": "other"}});
    let message = server.call("DELETE", &format!("{MAPS}/a"), Some(&wrong)).await.expect_status(409, "Conflict");
    assert!(message.contains("Precondition failed: UID in precondition: other, UID in object meta: "), "{message}");
    let wrong = json!({"preconditions": {"resourceVersion": "1"}});
    server.call("DELETE", &format!("{MAPS}/a"), Some(&wrong)).await.expect_status(409, "Conflict");
    let right =
        json!({"preconditions": {"uid": created["metadata"]["uid"], "resourceVersion": created["metadata"]["resourceVersion"]}});
    server.call("DELETE", &format!("{MAPS}/a"), Some(&right)).await.expect(200);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = super::server().await;
    for name in ["a", "b", "c"] {
        let mut map = config_map(name, "1");
        map["metadata"]["labels"] = json!({"keep": if name == "b" { "yes" } else { "no" }});
        server.post(MAPS, map).await.expect(201);
    }
    let deleted = server.delete(&format!("{MAPS}?labelSelector=keep%3Dno")).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    server.delete("/api/v1/configmaps").await.expect_status(405, "MethodNotAllowed");
}

fn pod(name: &str, node: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 30},
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

#[tokio::test]
async fn a_running_pod_is_given_time_that_can_only_be_shortened() {
    let server = super::server().await;
    server.post(PODS, pod("a", Some("n1"))).await.expect(201);
    let marked = server.delete(&format!("{PODS}/a")).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = server.delete(&format!("{PODS}/a?gracePeriodSeconds=60")).await.expect(200);
    assert_eq!(longer["metadata"], marked["metadata"]);
    let shorter = server.delete(&format!("{PODS}/a?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str() < marked["metadata"]["deletionTimestamp"].as_str());
    server.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.expect(200);
    server.get(&format!("{PODS}/a")).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn a_pod_that_never_started_goes_at_once() {
    let server = super::server().await;
    server.post(PODS, pod("a", None)).await.expect(201);
    server.delete(&format!("{PODS}/a")).await.expect(200);
    server.get(&format!("{PODS}/a")).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn a_namespace_ends_only_when_it_is_finalized() {
    let server = super::server().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.expect(201);
    let marked = server.delete("/api/v1/namespaces/team").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let message = server.post("/api/v1/namespaces/team/configmaps", config_map("a", "1")).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    let mut finalized = server.get("/api/v1/namespaces/team").await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    server.put("/api/v1/namespaces/team/finalize", finalized).await.expect(200);
    server.get("/api/v1/namespaces/team").await.expect_status(404, "NotFound");
    server.delete("/api/v1/namespaces/default").await.expect_status(403, "Forbidden");
}

#[tokio::test]
async fn events_are_forgotten_after_an_hour() {
    let server = super::server().await;
    let event = |name: &str, at: &str| {
        json!({
            "metadata": {"name": name, "namespace": "default"}, "lastTimestamp": at, "firstTimestamp": at,
            "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}, "reason": "Test", "type": "Normal",
        })
    };
    let events = "/api/v1/namespaces/default/events";
    server.post(events, event("new", "2020-01-01T00:00:00Z")).await.expect(201);
    server.get(events).await.expect(200);
    assert_eq!(server.api.sweep_events().await, 0, "it was created just now");
}
