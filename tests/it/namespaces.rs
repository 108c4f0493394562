//! What a namespace begins with, and that nothing of it is left in the end, over the real API.

use crate::cluster::{Cluster, deployment};
use serde_json::json;

const TEAM: &str = "/api/v1/namespaces/team";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let cluster = Cluster::start(1).await;
    cluster.create("/api/v1/namespaces", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}"#).await;
    let found = |object: &serde_json::Value| object["metadata"]["uid"].is_string();
    cluster.until(&format!("{TEAM}/serviceaccounts/default"), "is there", found).await;
    let map = cluster.until(&format!("{TEAM}/configmaps/kube-root-ca.crt"), "is there", found).await;
    assert_eq!(map["data"]["ca.crt"], "-- the authority --");
    cluster.create("/apis/apps/v1/namespaces/team/deployments", &deployment("web", 2)).await;
    let web = "/apis/apps/v1/namespaces/team/deployments/web";
    cluster.until(web, "rolls out", |web| web["status"]["availableReplicas"] == 2).await;
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.org/hold"]}});
    cluster.create(&format!("{TEAM}/configmaps"), &held.to_string()).await;

    cluster.server.delete(TEAM).await.expect(200);
    let waiting = cluster.until(TEAM, "says what it waits for", |team| {
        let conditions = team["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let says =
            |text: &str| conditions.iter().any(|condition| condition["message"].as_str().is_some_and(|m| m.contains(text)));
        says("configmaps. has 1 resource instances") && says("example.org/hold in 1 resource instances")
    });
    assert_eq!(waiting.await["status"]["phase"], "Terminating");
    cluster.until_empty(&format!("{TEAM}/pods")).await;
    cluster.server.patch(&format!("{TEAM}/configmaps/held"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    cluster.until_gone(TEAM).await;
    // Nothing is left that a namespace of the same name would inherit.
    for list in ["/api/v1/configmaps", "/api/v1/serviceaccounts", "/api/v1/pods", "/apis/apps/v1/replicasets"] {
        let all = cluster.server.get(list).await.expect(200);
        let left = crate::cluster::items(&all).iter().filter(|object| object["metadata"]["namespace"] == "team").count();
        assert_eq!(left, 0, "{list}");
    }
}

fn namespace() -> String {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}).to_string()
}

/// A cluster with the namespace, in which pods can be made.
async fn with_team() -> Cluster {
    let cluster = Cluster::start(0).await;
    cluster.create("/api/v1/namespaces", &namespace()).await;
    cluster.until(&format!("{TEAM}/serviceaccounts/default"), "is there", |it| it["metadata"]["uid"].is_string()).await;
    cluster
}

/// `[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]`,
/// `[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is deleted [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_of_the_same_name_begins_empty() {
    let cluster = with_team().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test-pod"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.create(&format!("{TEAM}/pods"), &pod.to_string()).await;
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "test-service"}, "spec": {"ports": [{"port": 80}]}});
    cluster.create(&format!("{TEAM}/services"), &service.to_string()).await;
    cluster.server.delete(TEAM).await.expect(200);
    cluster.until_gone(TEAM).await;
    cluster.create("/api/v1/namespaces", &namespace()).await;
    for plural in ["pods", "services"] {
        let left = cluster.server.get(&format!("{TEAM}/{plural}")).await.expect(200);
        assert!(crate::cluster::items(&left).is_empty(), "{left:#}");
    }
}

/// `[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_before_what_they_use() {
    let cluster = Cluster::start(1).await;
    cluster.create("/api/v1/namespaces", &namespace()).await;
    cluster.until(&format!("{TEAM}/serviceaccounts/default"), "is there", |it| it["metadata"]["uid"].is_string()).await;
    let (pod, map) = (format!("{TEAM}/pods/test-pod"), format!("{TEAM}/configmaps/test-configmap"));
    let held = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test-pod", "finalizers": ["e2e.example.com/finalizer"]},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}});
    cluster.create(&format!("{TEAM}/pods"), &held.to_string()).await;
    cluster.until(&pod, "runs", |pod| pod["status"]["phase"] == "Running").await;
    let used = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-configmap"}, "data": {"key": "value"}});
    cluster.create(&format!("{TEAM}/configmaps"), &used.to_string()).await;
    cluster.server.delete(TEAM).await.expect(200);
    let processed = |team: &serde_json::Value| {
        let conditions = team["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().any(|condition| condition["type"] == "NamespaceDeletionContentFailure");
        team["status"]["phase"] == "Terminating" && told
    };
    cluster.until(TEAM, "is worked on", processed).await;
    cluster.until(&pod, "is being deleted", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    let told = cluster.until(TEAM, "tells what remains", |team| {
        team["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "NamespaceFinalizersRemaining" && condition["status"] == "True")
        })
    });
    told.await;
    assert_eq!(cluster.server.get(&map).await.expect(200)["metadata"].get("deletionTimestamp"), None);
    loop {
        let mut free = cluster.server.get(&pod).await.expect(200);
        free["metadata"]["finalizers"] = json!([]);
        let answer = cluster.server.put(&pod, free).await;
        if answer.code != 409 {
            answer.expect(200);
            break;
        }
    }
    cluster.until_gone(&pod).await;
    cluster.until_gone(TEAM).await;
    cluster.server.get(&map).await.expect(404);
}

/// `[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_in_every_namespace_and_comes_back() {
    let cluster = with_team().await;
    let path = format!("{TEAM}/configmaps/kube-root-ca.crt");
    let first = cluster.until(&path, "is there", |map| map["metadata"]["uid"].is_string()).await;
    cluster.server.delete(&path).await.expect(200);
    let again =
        |map: &serde_json::Value| map["metadata"]["uid"].is_string() && map["metadata"]["uid"] != first["metadata"]["uid"];
    cluster.until(&path, "comes back", again).await;
    cluster.server.patch(&path, json!({"data": {"ca.crt": ""}})).await.expect(200);
    cluster.until(&path, "is put right", |map| map["data"]["ca.crt"] == "-- the authority --").await;
}
