//! The life of objects under a quota: charged when they are made, counted off when they go. Over the real API, with the
//! controllers.

use crate::cluster::Cluster;
use serde_json::{Value, json};

const QUOTA: &str = "/api/v1/namespaces/default/resourcequotas/test-quota";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

async fn quota(cluster: &Cluster, name: &str, hard: Value, more: Value) {
    let mut it = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
    it["spec"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    cluster.create(QUOTAS, &it.to_string()).await;
    let path = format!("{QUOTAS}/{name}");
    let counted = |quota: &Value| quota["status"]["hard"] == quota["spec"]["hard"] && quota["status"]["used"].is_object();
    cluster.until(&path, "is counted", counted).await;
}

async fn until_used(cluster: &Cluster, name: &str, resource: &str, amount: &str) {
    let path = format!("{QUOTAS}/{name}");
    cluster.until(&path, &format!("has {amount} {resource}"), |quota| quota["status"]["used"][resource] == amount).await;
}

/// An object of the collection is charged, a second one is refused, and its deletion is counted off.
async fn life_of(collection: &str, resource: &str, object: Value) {
    let cluster = Cluster::start(0).await;
    let before = cluster.server.get(collection).await.expect(200)["items"].as_array().map_or(0, Vec::len);
    // `kube-root-ca.crt` is among the ConfigMaps.
    let hard = (before + 1).to_string();
    quota(&cluster, "test-quota", json!({resource: hard}), json!({})).await;
    until_used(&cluster, "test-quota", resource, &before.to_string()).await;
    cluster.create(collection, &object.to_string()).await;
    until_used(&cluster, "test-quota", resource, &hard).await;
    let mut second = object.clone();
    second["metadata"]["name"] = json!("second");
    let message = cluster.server.post(collection, second).await.expect_status(403, "Forbidden");
    assert!(
        message.contains(&format!("exceeded quota: test-quota, requested: {resource}=1, used: {resource}={hard}")),
        "{message}"
    );
    let name = object["metadata"]["name"].as_str().unwrap();
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    cluster.server.call("DELETE", &format!("{collection}/{name}"), Some(&options)).await.expect(200);
    until_used(&cluster, "test-quota", resource, &before.to_string()).await;
}

fn named(api_version: &str, kind: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "test"}});
    object.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    object
}

fn template() -> Value {
    json!({"metadata": {"labels": {"name": "test"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_quota_is_counted_at_once() {
    let cluster = Cluster::start(0).await;
    let hard = json!({"pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1", "replicationcontrollers": "10",
        "resourcequotas": "2", "secrets": "10", "configmaps": "10", "persistentvolumeclaims": "10", "requests.storage": "10Gi",
        "cpu": "1", "memory": "500Mi", "requests.ephemeral-storage": "50Gi", "requests.nvidia.com/gpu": "3", "count/replicasets.apps": "5",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10"});
    quota(&cluster, "test-quota", hard.clone(), json!({})).await;
    let all = hard.as_object().unwrap().len();
    let counted = |quota: &Value| quota["status"]["used"].as_object().is_some_and(|used| used.len() == all);
    let counted = cluster.until(QUOTA, "has counted everything", counted).await;
    assert_eq!(counted["status"]["hard"], hard);
    // The quota itself is one.
    assert_eq!(counted["status"]["used"]["resourcequotas"], "1");
    assert_eq!(counted["status"]["used"]["services"], "0");
    assert_eq!(counted["status"]["used"]["requests.storage"], "0");
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_service() {
    let service = named("v1", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
    life_of("/api/v1/namespaces/default/services", "services", service).await;
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_secret() {
    life_of("/api/v1/namespaces/default/secrets", "secrets", named("v1", "Secret", json!({}))).await;
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_config_map() {
    let cluster = Cluster::start(0).await;
    cluster.until("/api/v1/namespaces/default/configmaps/kube-root-ca.crt", "is there", |map| map["kind"] == "ConfigMap").await;
    quota(&cluster, "test-quota", json!({"configmaps": "2"}), json!({})).await;
    until_used(&cluster, "test-quota", "configmaps", "1").await;
    let maps = "/api/v1/namespaces/default/configmaps";
    cluster.create(maps, &named("v1", "ConfigMap", json!({})).to_string()).await;
    until_used(&cluster, "test-quota", "configmaps", "2").await;
    cluster.server.delete(&format!("{maps}/test")).await.expect(200);
    until_used(&cluster, "test-quota", "configmaps", "1").await;
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_replication_controller() {
    let spec = json!({"spec": {"replicas": 0, "selector": {"name": "test"}, "template": template()}});
    let controller = named("v1", "ReplicationController", spec);
    life_of("/api/v1/namespaces/default/replicationcontrollers", "replicationcontrollers", controller).await;
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_replica_set() {
    let spec = json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"name": "test"}}, "template": template()}});
    life_of("/apis/apps/v1/namespaces/default/replicasets", "count/replicasets.apps", named("apps/v1", "ReplicaSet", spec)).await;
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a persistent volume claim`,
/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a persistent volume claim with a storage class`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_persistent_volume_claim() {
    let spec = json!({"spec": {"storageClassName": "gold", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = named("v1", "PersistentVolumeClaim", spec);
    let resource = "gold.storageclass.storage.k8s.io/persistentvolumeclaims";
    life_of("/api/v1/namespaces/default/persistentvolumeclaims", resource, claim).await;
}

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_pod() {
    let cluster = Cluster::start(1).await;
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi", "requests.example.com/dongle": "3"});
    quota(&cluster, "test-quota", hard, json!({})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, requests: Value| {
        let limits = json!({"example.com/dongle": requests.get("example.com/dongle").cloned().unwrap_or(json!("0"))});
        let container = json!({"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}})
    };
    cluster.create(pods, &pod("test", json!({"cpu": "500m", "memory": "252Mi", "example.com/dongle": "2"})).to_string()).await;
    let used = cluster.until(QUOTA, "has one pod", |quota| quota["status"]["used"]["pods"] == "1").await;
    assert_eq!(
        used["status"]["used"],
        json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "requests.example.com/dongle": "2"})
    );
    let greedy = pod("fail", json!({"cpu": "600m", "memory": "100Mi"}));
    cluster.server.post(pods, greedy).await.expect_status(403, "Forbidden");
    let dongles = pod("fail", json!({"cpu": "100m", "memory": "100Mi", "example.com/dongle": "2"}));
    let message = cluster.server.post(pods, dongles).await.expect_status(403, "Forbidden");
    assert!(message.contains("requested: requests.example.com/dongle=2"), "{message}");
    // What a pod asks for stays as it is, and so does what is used.
    let more = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}});
    cluster.server.patch(&format!("{pods}/test"), more).await.expect_status(422, "Invalid");
    until_used(&cluster, "test-quota", "cpu", "500m").await;
    cluster.server.delete(&format!("{pods}/test?gracePeriodSeconds=0")).await.expect(200);
    until_used(&cluster, "test-quota", "pods", "0").await;
    until_used(&cluster, "test-quota", "requests.example.com/dongle", "0").await;
}

/// `[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]`,
/// `[sig-api-machinery] ResourceQuota [Feature:ScopeSelectors] should verify ResourceQuota with terminating scopes through scope selectors.`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_for_pods_that_end_and_for_those_that_do_not() {
    let cluster = Cluster::start(0).await;
    let selector = json!({"scopeSelector": {"matchExpressions": [{"scopeName": "Terminating", "operator": "Exists"}]}});
    quota(&cluster, "terminating", json!({"pods": "5"}), json!({"scopes": ["Terminating"]})).await;
    quota(&cluster, "selected", json!({"pods": "5"}), selector).await;
    quota(&cluster, "not-terminating", json!({"pods": "5"}), json!({"scopes": ["NotTerminating"]})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |deadline: Value| {
        named("v1", "Pod", json!({"spec": {"activeDeadlineSeconds": deadline, "containers": [{"name": "c", "image": "i"}]}}))
    };
    for (deadline, terminating, lasting) in [(Value::Null, "0", "1"), (json!(3600), "1", "0")] {
        cluster.create(pods, &pod(deadline).to_string()).await;
        until_used(&cluster, "terminating", "pods", terminating).await;
        until_used(&cluster, "selected", "pods", terminating).await;
        until_used(&cluster, "not-terminating", "pods", lasting).await;
        cluster.server.delete(&format!("{pods}/test?gracePeriodSeconds=0")).await.expect(200);
        for name in ["terminating", "selected", "not-terminating"] {
            until_used(&cluster, name, "pods", "0").await;
        }
    }
}

/// `[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]`,
/// `[sig-api-machinery] ResourceQuota [Feature:ScopeSelectors] should verify ResourceQuota with best effort scope using scope-selectors.`,
/// `[sig-api-machinery] ResourceQuota should verify ResourceQuota with cross namespace pod affinity scope using scope-selectors.`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_for_pods_that_ask_for_nothing_and_for_those_that_look_elsewhere() {
    let cluster = Cluster::start(0).await;
    let selector = |scope: &str| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": "Exists"}]}});
    quota(&cluster, "best-effort", json!({"pods": "5"}), selector("BestEffort")).await;
    quota(&cluster, "not-best-effort", json!({"pods": "5"}), json!({"scopes": ["NotBestEffort"]})).await;
    quota(&cluster, "elsewhere", json!({"pods": "5"}), selector("CrossNamespacePodAffinity")).await;
    let pods = "/api/v1/namespaces/default/pods";
    let term = json!({"labelSelector": {}, "topologyKey": "kubernetes.io/hostname", "namespaces": ["ns1"]});
    let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    for (affinity, resources, expected) in
        [(Value::Null, json!({}), ["1", "0", "0"]), (affinity, json!({"requests": {"cpu": "1"}}), ["0", "1", "1"])]
    {
        let container = json!({"name": "c", "image": "i", "resources": resources});
        let pod = named("v1", "Pod", json!({"spec": {"affinity": affinity, "containers": [container]}}));
        cluster.create(pods, &pod.to_string()).await;
        for (name, amount) in ["best-effort", "not-best-effort", "elsewhere"].into_iter().zip(expected) {
            until_used(&cluster, name, "pods", amount).await;
        }
        cluster.server.delete(&format!("{pods}/test?gracePeriodSeconds=0")).await.expect(200);
        for name in ["best-effort", "not-best-effort", "elsewhere"] {
            until_used(&cluster, name, "pods", "0").await;
        }
    }
}

/// `[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]`,
/// `[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_quota_is_counted_anew() {
    let cluster = Cluster::start(0).await;
    quota(&cluster, "test-quota", json!({"cpu": "1", "memory": "500Mi"}), json!({})).await;
    cluster.server.patch(QUOTA, json!({"spec": {"hard": {"cpu": "2", "memory": "1Gi"}}})).await.expect(200);
    cluster.until(QUOTA, "is taken in", |quota| quota["status"]["hard"] == json!({"cpu": "2", "memory": "1Gi"})).await;
    cluster.server.delete(QUOTA).await.expect(200);
    cluster.until_gone(QUOTA).await;
}

/// Many writers under the eyes of the controller: what is there never exceeds the quota, and in the end all is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_never_makes_room_that_is_not_there() {
    let cluster = Cluster::start(0).await;
    quota(&cluster, "test-quota", json!({"count/secrets": "10"}), json!({})).await;
    until_used(&cluster, "test-quota", "count/secrets", "0").await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for round in 0..3 {
        let all = (0..30).map(|at| {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s{round}-{at}")}});
            cluster.server.post(secrets, secret)
        });
        let made = futures::future::join_all(all).await.into_iter().filter(|answer| answer.code == 201).count();
        assert_eq!(made, if round == 0 { 10 } else { 0 });
    }
    cluster.server.delete(secrets).await.expect(200);
    until_used(&cluster, "test-quota", "count/secrets", "0").await;
}
