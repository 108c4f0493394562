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

/// `[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]`
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

/// `[sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]`
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

const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const SIMPLE: &str = "/api/v1/namespaces/default/replicationcontrollers/simple";

/// A ReplicationController with two pods.
async fn cluster_with_controller() -> Cluster {
    let cluster = Cluster::start(1).await;
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "simple"}, "spec": {
        "replicas": 2, "selector": {"app": "gc"},
        "template": {"metadata": {"labels": {"app": "gc"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}}}});
    cluster.create(CONTROLLERS, &controller.to_string()).await;
    cluster.until(SIMPLE, "has its pods", |it| it["status"]["replicas"] == 2).await;
    cluster
}

async fn delete_controller(cluster: &Cluster, options: serde_json::Value) {
    let mut whole = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    whole.as_object_mut().unwrap().extend(options.as_object().cloned().unwrap());
    let answer = cluster.server.call("DELETE", SIMPLE, Some(&whole)).await;
    assert!(matches!(answer.code, 200 | 202), "{:#}", answer.body);
}

/// `[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_with_their_replication_controller() {
    let cluster = cluster_with_controller().await;
    delete_controller(&cluster, json!({"orphanDependents": false})).await;
    cluster.until_gone(SIMPLE).await;
    cluster.until_empty(PODS).await;
}

/// `[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Conformance]`,
/// `[sig-api-machinery] Garbage collector should orphan pods created by rc if deleteOptions.OrphanDependents is nil`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_outlive_their_replication_controller_if_asked() {
    let cluster = cluster_with_controller().await;
    delete_controller(&cluster, json!({"propagationPolicy": "Orphan"})).await;
    cluster.until_gone(SIMPLE).await;
    let pods = cluster.server.get(PODS).await.expect(200);
    assert_eq!(items(&pods).len(), 2);
    for pod in items(&pods) {
        assert!(pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty), "{pod:#}");
        assert_eq!(pod["metadata"].get("deletionTimestamp"), None);
    }
}

/// `[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_goes_after_its_pods() {
    let cluster = cluster_with_controller().await;
    let pods = cluster.server.get(PODS).await.expect(200);
    let held = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let hold = json!({"metadata": {"finalizers": ["example.org/hold"]}});
    cluster.server.patch(&format!("{PODS}/{held}"), hold).await.expect(200);
    delete_controller(&cluster, json!({"propagationPolicy": "Foreground"})).await;
    cluster.until(PODS, "has only the held pod left", |pods| items(pods).len() == 1).await;
    let waiting = cluster.server.get(SIMPLE).await.expect(200);
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    cluster.server.patch(&format!("{PODS}/{held}"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    cluster.until_gone(SIMPLE).await;
    assert!(items(&cluster.server.get(PODS).await.expect(200)).is_empty());
}

fn owned(name: &str, owners: &[(&str, &serde_json::Value)], blocks: bool) -> serde_json::Value {
    let owners: Vec<_> = owners
        .iter()
        .map(|(name, uid)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": blocks}))
        .collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": owners}})
}

/// `[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for
/// dependents to be deleted [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependent_of_two_stays_for_the_one_that_stays() {
    let cluster = Cluster::start(0).await;
    let going = cluster.create(MAPS, &owned("going", &[], false).to_string()).await["metadata"]["uid"].clone();
    let staying = cluster.create(MAPS, &owned("staying", &[], false).to_string()).await["metadata"]["uid"].clone();
    cluster.create(MAPS, &owned("both", &[("going", &going), ("staying", &staying)], true).to_string()).await;
    cluster.create(MAPS, &owned("one", &[("going", &going)], true).to_string()).await;
    let foreground = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"});
    cluster.server.call("DELETE", &format!("{MAPS}/going"), Some(&foreground)).await.expect(200);
    cluster.until_gone(&format!("{MAPS}/going")).await;
    cluster.until_gone(&format!("{MAPS}/one")).await;
    let both = cluster.server.get(&format!("{MAPS}/both")).await.expect(200);
    assert_eq!(items_of(&both["metadata"]["ownerReferences"]), ["staying"]);
    assert_eq!(both["metadata"].get("deletionTimestamp"), None);
}

fn items_of(owners: &serde_json::Value) -> Vec<&str> {
    owners.as_array().into_iter().flatten().filter_map(|owner| owner["name"].as_str()).collect()
}

/// `[sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_goes() {
    let cluster = Cluster::start(0).await;
    let mut uids = vec![];
    for name in ["a", "b", "c"] {
        uids.push(cluster.create(MAPS, &owned(name, &[], false).to_string()).await["metadata"]["uid"].clone());
    }
    for (name, owner, uid) in [("a", "c", &uids[2]), ("b", "a", &uids[0]), ("c", "b", &uids[1])] {
        let reference = owned(name, &[(owner, uid)], true)["metadata"]["ownerReferences"].clone();
        cluster.server.patch(&format!("{MAPS}/{name}"), json!({"metadata": {"ownerReferences": reference}})).await.expect(200);
    }
    let foreground = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"});
    cluster.server.call("DELETE", &format!("{MAPS}/a"), Some(&foreground)).await.expect(200);
    for name in ["a", "b", "c"] {
        cluster.until_gone(&format!("{MAPS}/{name}")).await;
    }
}

/// An object of the cluster cannot be owned by one of a namespace: it stays, and an event says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_out_of_reach_is_told_of() {
    let cluster = Cluster::start(0).await;
    let uid = cluster.create(MAPS, &owned("owner", &[], false).to_string()).await["metadata"]["uid"].clone();
    let owners = owned("x", &[("owner", &uid)], false)["metadata"]["ownerReferences"].clone();
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1, "metadata": {"name": "odd", "ownerReferences": owners}});
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    cluster.create(classes, &class.to_string()).await;
    let told = cluster.until("/api/v1/events", "tells of the owner", |events| {
        items(events).iter().any(|event| event["reason"] == "OwnerRefInvalidNamespace")
    });
    let told = told.await;
    let event = items(&told).iter().find(|event| event["reason"] == "OwnerRefInvalidNamespace").unwrap();
    assert_eq!((&event["type"], &event["involvedObject"]["name"]), (&json!("Warning"), &json!("odd")));
    cluster.server.get(&format!("{classes}/odd")).await.expect(200);
}
