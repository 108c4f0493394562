//! StatefulSets over the real API: order, names, claims, updates.

use crate::cluster::{Cluster, items};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const DB: &str = "/apis/apps/v1/namespaces/default/statefulsets/db";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn set(name: &str, replicas: u32, more: Value) -> Value {
    let mut set = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "db:1"}]}},
    }});
    set["spec"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    set
}

fn claim_templates() -> Value {
    json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand", "resources": {"requests": {"storage": "1Gi"}}}}])
}

fn is_through(set: &Value) -> bool {
    let (spec, status) = (&set["spec"], &set["status"]);
    let all = ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas"];
    all.iter().all(|field| status[*field] == spec["replicas"])
        && status["currentRevision"] == status["updateRevision"]
        && status["observedGeneration"] == set["metadata"]["generation"]
}

async fn images(cluster: &Cluster) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = cluster.server.get(PODS).await.expect(200);
    let pods = items(&pods).iter();
    pods.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["containers"][0]["image"]))).collect()
}

async fn set_image(cluster: &Cluster, image: &str) {
    let template = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    cluster.server.patch(DB, json!({"spec": {"template": template}})).await.expect(200);
}

/// The names of the pods in the order in which `event` told of them.
async fn names_told(watch: &mut slipway_tests::Watch, event: &str, count: usize) -> Vec<String> {
    let mut names = vec![];
    while names.len() < count {
        let told = watch.next_unhurried().await.expect("the watch goes on");
        if told["type"] == event {
            names.push(told["object"]["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go_in_order_under_their_names() {
    let cluster = Cluster::start(2).await;
    let service = json!({"metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 5432}]}});
    cluster.create("/api/v1/namespaces/default/services", &service.to_string()).await;
    let mut watch = cluster.server.watch(&format!("{PODS}?watch=1&labelSelector=app%3Ddb")).await;
    let made = cluster.create(SETS, &set("db", 3, json!({})).to_string()).await;
    assert_eq!(made["status"], json!({"replicas": 0, "availableReplicas": 0}));
    let through = cluster.until(DB, "is through", is_through).await;
    assert_eq!(names_told(&mut watch, "ADDED", 3).await, ["db-0", "db-1", "db-2"]);

    let pod = cluster.server.get(&format!("{PODS}/db-1")).await.expect(200);
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(labels["controller-revision-hash"], through["status"]["currentRevision"]);
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Ddb";
    let hostnames = |slices: &Value| {
        let endpoints = slices["items"][0]["endpoints"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            endpoints.iter().map(|one| one["hostname"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    };
    cluster.until(slices, "has the names", |slices| hostnames(slices) == ["db-0", "db-1", "db-2"]).await;

    // One that is deleted, or ends, comes back under its name.
    let uid = pod["metadata"]["uid"].clone();
    cluster.server.delete(&format!("{PODS}/db-1")).await.expect(200);
    cluster
        .until(&format!("{PODS}/db-1"), "is another", |pod| pod["metadata"]["uid"].is_string() && pod["metadata"]["uid"] != uid)
        .await;
    cluster.until(DB, "is through again", is_through).await;

    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "db", "namespace": "default"}, "spec": {"replicas": 1}});
    assert_eq!(cluster.server.get(&format!("{DB}/scale")).await.expect(200)["status"]["selector"], "app=db");
    let mut watch = cluster.server.watch(&format!("{PODS}?watch=1&labelSelector=app%3Ddb")).await;
    cluster.server.put(&format!("{DB}/scale"), scale).await.expect(200);
    cluster.until(DB, "has shrunk", is_through).await;
    assert_eq!(names_told(&mut watch, "DELETED", 2).await, ["db-2", "db-1"]);

    let messages = ["create Pod db-0 in StatefulSet db successful", "delete Pod db-2 in StatefulSet db successful"];
    let told = |events: &Value| messages.iter().all(|message| items(events).iter().any(|event| event["message"] == *message));
    let events = cluster.until(EVENTS, "tells of it", told).await;
    let event = items(&events).iter().find(|event| event["message"] == messages[1]).unwrap();
    assert_eq!((&event["reason"], &event["source"]["component"]), (&json!("SuccessfulDelete"), &json!("statefulset-controller")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_stops_at_the_partition_and_is_rolled_back() {
    let cluster = Cluster::start(2).await;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    cluster.create(SETS, &set("db", 3, json!({"updateStrategy": strategy})).to_string()).await;
    let first = cluster.until(DB, "is through", is_through).await["status"]["currentRevision"].clone();
    set_image(&cluster, "db:2").await;
    let partly = cluster
        .until(DB, "is through but for one", |db| db["status"]["updatedReplicas"] == 2 && db["status"]["readyReplicas"] == 3);
    let partly = partly.await;
    assert_eq!((&partly["status"]["currentRevision"], &partly["status"]["currentReplicas"]), (&first, &json!(1)));
    let old_and_new = [("db-0", "db:1"), ("db-1", "db:2"), ("db-2", "db:2")].map(|(name, image)| (name.into(), image.into()));
    assert_eq!(images(&cluster).await, BTreeMap::from(old_and_new));

    cluster.server.patch(DB, json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await.expect(200);
    cluster.until(DB, "is through", is_through).await;
    assert!(images(&cluster).await.values().all(|image| image == "db:2"));

    set_image(&cluster, "db:1").await;
    let back = cluster.until(DB, "is back", |db| is_through(db) && db["status"]["currentRevision"] == first).await;
    assert_eq!(back["status"]["collisionCount"], 0);
    let revisions = cluster.server.get(REVISIONS).await.expect(200);
    let mut numbers: Vec<i64> = items(&revisions).iter().filter_map(|one| one["revision"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);

    let why = cluster.server.patch(DB, json!({"spec": {"serviceName": "other"}})).await.expect_status(422, "Invalid");
    assert!(why.contains("updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_stay_with_the_names_until_they_are_to_go() {
    let cluster = Cluster::start(2).await;
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    let more = json!({"volumeClaimTemplates": claim_templates(), "persistentVolumeClaimRetentionPolicy": policy});
    // Nobody here provisions: the volume of the first is made, and bound, by hand.
    let volume = json!({"metadata": {"name": "volume"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand", "hostPath": {"path": "/tmp/none"}, "claimRef": {"namespace": "default", "name": "data-db-0"}}});
    cluster.create("/api/v1/persistentvolumes", &volume.to_string()).await;
    let made = cluster.create(SETS, &set("db", 3, more).to_string()).await;
    cluster.until(DB, "is through", is_through).await;
    let first = format!("{CLAIMS}/data-db-0");
    cluster.server.patch(&first, json!({"spec": {"volumeName": "volume"}})).await.expect(200);
    cluster.server.patch(&format!("{first}/status"), json!({"status": {"phase": "Bound"}})).await.expect(200);
    let claims = cluster.server.get(CLAIMS).await.expect(200);
    assert_eq!(items(&claims).len(), 3);
    for claim in items(&claims) {
        assert_eq!(claim["metadata"]["labels"]["app"], "db");
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);
    }

    // Templates as they were applied are those that there are, though these have been filled in.
    let same = cluster.server.patch(DB, json!({"spec": {"volumeClaimTemplates": claim_templates()}})).await.expect(200);
    assert_eq!(same["metadata"]["generation"], 1);
    let larger = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}}]);
    cluster.server.patch(DB, json!({"spec": {"volumeClaimTemplates": larger}})).await.expect_status(422, "Invalid");

    // The claim outlives the pod.
    let pod = format!("{PODS}/db-0");
    let uid = cluster.server.get(&pod).await.expect(200)["metadata"]["uid"].clone();
    cluster.server.delete(&pod).await.expect(200);
    let again =
        cluster.until(&pod, "is another", |pod| pod["metadata"]["uid"].is_string() && pod["metadata"]["uid"] != uid).await;
    assert_eq!(again["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-0");
    let bound = cluster.server.get(&first).await.expect(200);
    assert_eq!((&bound["spec"]["volumeName"], &bound["status"]["phase"]), (&json!("volume"), &json!("Bound")));
    cluster.until(DB, "is through", is_through).await;

    // What is too much takes its claim along; and all of them go with the set.
    cluster.server.patch(DB, json!({"spec": {"replicas": 1}})).await.expect(200);
    cluster.until(CLAIMS, "has one left", |claims| items(claims).len() == 1).await;
    cluster.server.patch(DB, json!({"spec": {"replicas": 2}})).await.expect(200);
    cluster.until(DB, "grows again", is_through).await;
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"});
    cluster.server.call("DELETE", DB, Some(&options)).await.expect(200);
    cluster.until_gone(DB).await;
    cluster.until_empty(PODS).await;
    cluster.until_empty(CLAIMS).await;
    cluster.until_empty(REVISIONS).await;
}

/// `[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a collection of
/// StatefulSets [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_are_listed_patched_and_deleted_together() {
    let cluster = Cluster::start(1).await;
    let path = format!("{SETS}/test-ss");
    cluster.create(SETS, &set("test-ss", 1, json!({})).to_string()).await;
    cluster.until(&path, "runs", is_through).await;
    let containers = json!([{"name": "c", "image": "pause:9"}]);
    let spec = json!({"replicas": 2, "template": {"spec": {"containers": containers}}});
    let patched =
        cluster.server.patch(&path, json!({"metadata": {"labels": {"test-ss": "patched"}}, "spec": spec})).await.expect(200);
    assert_eq!((&patched["metadata"]["labels"]["test-ss"], &patched["spec"]["replicas"]), (&json!("patched"), &json!(2)));
    let through = cluster.until(&path, "runs with two", is_through).await;
    assert_eq!(through["spec"]["template"]["spec"]["containers"][0]["image"], "pause:9");
    let marked = "/apis/apps/v1/statefulsets?labelSelector=test-ss%3Dpatched";
    assert_eq!(items(&cluster.server.get(marked).await.expect(200)).len(), 1);
    cluster.server.delete(&format!("{SETS}?labelSelector=test-ss%3Dpatched")).await.expect(200);
    cluster.until_empty(marked).await;
    cluster.until_empty(PODS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_die_in_the_middle_finish_when_they_are_back() {
    let mut cluster = Cluster::start(2).await;
    let more = json!({"podManagementPolicy": "Parallel", "volumeClaimTemplates": claim_templates()});
    cluster.create(SETS, &set("db", 12, more).to_string()).await;
    for at_least in [1, 6] {
        cluster.until(PODS, "has some pods", |pods| items(pods).len() >= at_least).await;
        cluster.kill_controllers().await;
        cluster.start_controllers();
    }
    cluster.until(DB, "is through", is_through).await;
    assert_eq!(items(&cluster.server.get(PODS).await.expect(200)).len(), 12);
    assert_eq!(items(&cluster.server.get(CLAIMS).await.expect(200)).len(), 12);
    assert_eq!(items(&cluster.server.get(REVISIONS).await.expect(200)).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_count_for_quotas_and_budgets() {
    let cluster = Cluster::start(1).await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"count/statefulsets.apps": "1"});
    cluster.create(quotas, &json!({"metadata": {"name": "few"}, "spec": {"hard": hard}}).to_string()).await;
    cluster
        .until(&format!("{quotas}/few"), "is counted", |quota| quota["status"]["used"]["count/statefulsets.apps"] == "0")
        .await;
    cluster.create(SETS, &set("db", 2, json!({})).to_string()).await;
    let why = cluster.server.post(SETS, set("other", 1, json!({}))).await.expect_status(403, "Forbidden");
    assert!(why.contains("exceeded quota: few, requested: count/statefulsets.apps=1"), "{why}");

    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "db"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "db"}}}});
    cluster.create(budgets, &budget.to_string()).await;
    let allows = |budget: &Value| budget["status"]["expectedPods"] == 2 && budget["status"]["disruptionsAllowed"] == 1;
    cluster.until(&format!("{budgets}/db"), "counts the set's pods", allows).await;
}
