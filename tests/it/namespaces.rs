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
