//! ReplicationControllers over the real API. What becomes of their pods when they are deleted is in `garbage_collection.rs`.

use crate::cluster::{Cluster, items};
use serde_json::{Value, json};

const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn controller(name: &str, replicas: u32) -> String {
    json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"app": name}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "web:1"}]},
        }},
    })
    .to_string()
}

async fn cluster_with(name: &str, replicas: u32) -> Cluster {
    let cluster = Cluster::start(1).await;
    cluster.create(CONTROLLERS, &controller(name, replicas)).await;
    let path = format!("{CONTROLLERS}/{name}");
    cluster.until(&path, "has its pods", |it| it["status"]["readyReplicas"] == replicas).await;
    cluster
}

async fn delete(cluster: &Cluster, name: &str, policy: Option<&str>) {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    cluster.server.call("DELETE", &format!("{CONTROLLERS}/{name}"), Some(&options)).await.expect(200);
}

async fn pods(cluster: &Cluster) -> Vec<Value> {
    items(&cluster.server.get(PODS).await.expect(200)).to_vec()
}

fn owners(pod: &Value) -> usize {
    pod["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len)
}

/// `[sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]`,
/// `[sig-apps] ReplicationController should adopt matching pods on creation [Conformance]`,
/// `[sig-apps] ReplicationController should release no longer matching pods [Conformance]`,
/// `[sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_scales_adopts_and_releases() {
    let cluster = Cluster::start(1).await;
    let orphan = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orphan", "labels": {"app": "rc"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "web:1"}]}});
    let orphan = cluster.create(PODS, &orphan.to_string()).await;
    let made = cluster.create(CONTROLLERS, &controller("rc", 2)).await;
    let rc = format!("{CONTROLLERS}/rc");
    cluster.until(&rc, "has its pods", |it| it["status"]["readyReplicas"] == 2).await;
    let adopted = cluster.server.get(&format!("{PODS}/orphan")).await.expect(200);
    assert_eq!(adopted["metadata"]["uid"], orphan["metadata"]["uid"]);
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);

    let scale = cluster.server.get(&format!("{rc}/scale")).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=rc")));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(3);
    cluster.server.put(&format!("{rc}/scale"), wanted).await.expect(200);
    cluster.until(&rc, "has three", |it| it["status"]["readyReplicas"] == 3).await;

    cluster.server.patch(&format!("{PODS}/orphan"), json!({"metadata": {"labels": {"app": "none"}}})).await.expect(200);
    cluster.until(&format!("{PODS}/orphan"), "is let go", |pod| owners(pod) == 0).await;
    cluster
        .until(PODS, "makes up for it", |list| {
            items(list).iter().filter(|pod| pod["metadata"]["labels"]["app"] == "rc").count() == 3
        })
        .await;

    let patched = cluster.server.patch(&rc, json!({"metadata": {"labels": {"test": "patched"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["labels"]["test"], "patched");
    cluster.server.delete(&format!("{CONTROLLERS}?labelSelector=test%3Dpatched")).await.expect(200);
    cluster.until_gone(&rc).await;
}

/// And so they do if the options say nothing, unlike those of a ReplicaSet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_pods_outlive_it_unless_asked_otherwise() {
    for policy in [Some("Orphan"), None] {
        let cluster = cluster_with("rc", 3).await;
        delete(&cluster, "rc", policy).await;
        cluster.until_gone(&format!("{CONTROLLERS}/rc")).await;
        let left = pods(&cluster).await;
        assert_eq!(left.len(), 3, "{policy:?}");
        assert!(left.iter().all(|pod| owners(pod) == 0), "{left:#?}");
    }
}

/// `[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_that_a_quota_keeps_it_from_its_pods() {
    let cluster = Cluster::start(1).await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    cluster.create(quotas, &json!({"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}}).to_string()).await;
    cluster.until(&format!("{quotas}/two"), "is counted", |quota| quota["status"]["hard"]["pods"] == "2").await;
    cluster.create(CONTROLLERS, &controller("rc", 3)).await;
    let rc = format!("{CONTROLLERS}/rc");
    let failing = |it: &Value| {
        it["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "ReplicaFailure"))
    };
    cluster.until(&rc, "fails", failing).await;
    let scale = cluster.server.patch(&format!("{rc}/scale"), json!({"spec": {"replicas": 2}})).await;
    scale.expect(200);
    cluster.until(&rc, "has no failure any more", |it| !failing(it) && it["status"]["replicas"] == 2).await;
}
