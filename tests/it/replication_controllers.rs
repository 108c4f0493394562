//! ReplicationControllers over the real API, and what becomes of their pods when they are deleted.

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

/// Conformance: "ReplicationController should get and update a ReplicationController scale", "should adopt matching pods on
/// creation", "should release no longer matching pods", "should test the lifecycle of a ReplicationController".
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

/// Conformance: "Garbage collector should delete pods created by rc when not orphaning".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_the_pods_go_with_it() {
    let cluster = cluster_with("rc", 3).await;
    delete(&cluster, "rc", Some("Background")).await;
    cluster.until_gone(&format!("{CONTROLLERS}/rc")).await;
    cluster.until_empty(PODS).await;
}

/// Conformance: "Garbage collector should orphan pods created by rc if delete options say so"; and so they do if the
/// options say nothing.
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

/// Conformance: "Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so"
/// and "should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_it_waits_for_its_pods_and_spares_those_of_another() {
    let cluster = cluster_with("rc", 4).await;
    let other = cluster.create(CONTROLLERS, &controller("other", 0)).await;
    let reference =
        json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "other", "uid": other["metadata"]["uid"]});
    let all = pods(&cluster).await;
    for pod in &all[..2] {
        let mut both = pod["metadata"]["ownerReferences"].as_array().unwrap().clone();
        both.push(reference.clone());
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        cluster.server.patch(&path, json!({"metadata": {"ownerReferences": both}})).await.expect(200);
    }
    delete(&cluster, "rc", Some("Foreground")).await;
    cluster.until_gone(&format!("{CONTROLLERS}/rc")).await;
    let left = pods(&cluster).await;
    assert_eq!(left.len(), 2, "those of the other, and they went before the controller did: {left:#?}");
    for pod in &left {
        assert!(pod["metadata"].get("deletionTimestamp").is_none());
        assert_eq!(pod["metadata"]["ownerReferences"], json!([reference]));
    }
}

/// Conformance: "Garbage collector should not be blocked by dependency circle".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_is_deleted() {
    let cluster = Cluster::start(0).await;
    let mut uids = vec![];
    for name in ["a", "b", "c"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "web:1"}]}});
        uids.push(cluster.create(PODS, &pod.to_string()).await["metadata"]["uid"].clone());
    }
    for (name, owner, uid) in [("a", "c", &uids[2]), ("b", "a", &uids[0]), ("c", "b", &uids[1])] {
        let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": uid, "controller": true, "blockOwnerDeletion": true}]);
        cluster.server.patch(&format!("{PODS}/{name}"), json!({"metadata": {"ownerReferences": owners}})).await.expect(200);
    }
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"});
    cluster.server.call("DELETE", &format!("{PODS}/a"), Some(&options)).await.expect(200);
    cluster.until_empty(PODS).await;
}
