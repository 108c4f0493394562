//! What becomes of dependents when their owner is deleted, over the real API.

use crate::cluster::{Cluster, deployment, items};
use serde_json::json;
use slipway_tests::Answer;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn cluster_with_web() -> Cluster {
    let cluster = Cluster::start(1).await;
    cluster.create(DEPLOYMENTS, &deployment("web", 2)).await;
    cluster.until(WEB, "rolls out", |web| web["status"]["availableReplicas"] == 2).await;
    cluster
}

async fn delete(cluster: &Cluster, policy: &str) -> Answer {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    cluster.server.call("DELETE", WEB, Some(&options)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_dependents_go_after_the_owner() {
    let cluster = cluster_with_web().await;
    delete(&cluster, "Background").await.expect(200);
    cluster.server.get(WEB).await.expect(404);
    cluster.until_empty(SETS).await;
    cluster.until_empty(PODS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_the_owner_goes_last() {
    let cluster = cluster_with_web().await;
    delete(&cluster, "Foreground").await.expect(200);
    cluster.until_gone(WEB).await;
    assert!(items(&cluster.server.get(SETS).await.expect(200)).is_empty(), "sets went first");
    assert!(items(&cluster.server.get(PODS).await.expect(200)).is_empty(), "and pods before them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted_by_the_next() {
    let cluster = cluster_with_web().await;
    delete(&cluster, "Orphan").await.expect(200);
    cluster.until_gone(WEB).await;
    let sets = cluster.server.get(SETS).await.expect(200);
    assert_eq!(items(&sets).len(), 1);
    assert!(sets["items"][0]["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty), "{sets:#}");
    let before: Vec<_> =
        items(&cluster.server.get(PODS).await.expect(200)).iter().map(|pod| pod["metadata"]["uid"].clone()).collect();

    let new = cluster.create(DEPLOYMENTS, &deployment("web", 2)).await;
    let adopted = cluster
        .until(SETS, "is adopted", |sets| sets["items"][0]["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"]);
    adopted.await;
    cluster.until(WEB, "counts them", |web| web["status"]["availableReplicas"] == 2).await;
    let after: Vec<_> =
        items(&cluster.server.get(PODS).await.expect(200)).iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    assert_eq!(before, after, "the same pods");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_any_kind_goes_with_its_last_owner() {
    let cluster = Cluster::start(0).await;
    let map = |name: &str, owners: Vec<serde_json::Value>| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": owners}}).to_string()
    };
    let mut owners = vec![];
    for name in ["one", "two"] {
        let owner = cluster.create(MAPS, &map(name, vec![])).await;
        owners.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": owner["metadata"]["uid"]}));
    }
    cluster.create(MAPS, &map("child", owners)).await;
    // Its owner never existed: found out by asking, not by waiting.
    let nobody =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"});
    cluster.create(MAPS, &map("dangling", vec![nobody])).await;
    cluster.until_gone(&format!("{MAPS}/dangling")).await;

    cluster.server.delete(&format!("{MAPS}/one")).await.expect(200);
    let child = format!("{MAPS}/child");
    cluster
        .until(&child, "keeps the other owner", |child| {
            child["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.len() == 1)
        })
        .await;
    cluster.server.delete(&format!("{MAPS}/two")).await.expect(200);
    cluster.until_gone(&child).await;
}
