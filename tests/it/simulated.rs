//! Simulated nodes over the real API: they join, renew their leases, run pods and let go of them.

use serde_json::{Value, json};
use slipway_node::simulated::{self, EXIT_AFTER, EXIT_CODE, Handle, Options};
use slipway_tests::{TestServer, eventually};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn nodes(options: Options) -> (TestServer, DropGuard) {
    let server = TestServer::memory().await;
    let shutdown = CancellationToken::new();
    tokio::spawn(simulated::run(server.client(), options, shutdown.clone()));
    (server, shutdown.drop_guard())
}

/// A pod that has its node already.
async fn pod(server: &TestServer, name: &str, node: &str, annotations: Value) {
    let spec = json!({"nodeName": node, "restartPolicy": "Never", "containers": [{"name": "c", "image": "web:1"}]});
    let metadata = json!({"name": name, "annotations": annotations});
    server.post(PODS, json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).await.expect(201);
}

async fn status(server: &TestServer, name: &str, phase: &str) -> Value {
    eventually(&format!("{name} to be {phase}"), || async {
        let pod = server.get(&format!("{PODS}/{name}")).await.expect(200);
        (pod["status"]["phase"] == phase).then(|| pod["status"].clone())
    })
    .await
}

async fn lease_time(server: &TestServer, node: &str) -> String {
    eventually(&format!("the lease of {node}"), || async {
        let lease = server.get(&format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")).await;
        lease.body["spec"]["renewTime"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn nodes_register_and_are_ready() {
    let zones = vec!["a".to_owned(), "b".to_owned()];
    let (server, _stop) = nodes(Options { count: 30, zones, ..Options::default() }).await;
    let items = eventually("30 nodes that are ready", || async {
        let items = server.get("/api/v1/nodes").await.expect(200)["items"].as_array()?.clone();
        let ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        (items.iter().filter(ready).count() == 30).then_some(items)
    })
    .await;
    let node = items.iter().find(|node| node["metadata"]["name"] == "simulated-7").unwrap();
    assert_eq!(node["metadata"]["labels"]["topology.kubernetes.io/zone"], "b");
    assert_eq!(node["status"]["allocatable"]["cpu"], "32");
    assert_eq!(node["status"]["addresses"][1], json!({"type": "Hostname", "address": "simulated-7"}));
}

#[tokio::test]
async fn pods_run_end_and_go() {
    let (server, _stop) = nodes(Options { count: 2, ..Options::default() }).await;
    pod(&server, "web", "simulated-1", json!({})).await;
    let running = status(&server, "web", "Running").await;
    let ready = running["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True");
    assert_eq!(running["containerStatuses"][0]["ready"], true);
    assert!(running["podIP"].as_str().is_some_and(|ip| ip.parse::<std::net::Ipv4Addr>().is_ok()));

    pod(&server, "done", "simulated-0", json!({EXIT_AFTER: "50ms"})).await;
    let done = status(&server, "done", "Succeeded").await;
    assert_eq!(done["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    pod(&server, "broken", "simulated-0", json!({EXIT_AFTER: "50ms", EXIT_CODE: "3"})).await;
    let broken = status(&server, "broken", "Failed").await;
    assert_eq!(broken["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);

    server.delete(&format!("{PODS}/web")).await.expect(200);
    eventually("web to be gone", || async { (server.get(&format!("{PODS}/web")).await.code == 404).then_some(()) }).await;
}

#[tokio::test]
async fn leases_are_renewed_until_a_node_falls_silent() {
    let handle = Handle::default();
    let options = Options { count: 2, lease_period: Duration::from_millis(100), handle: handle.clone(), ..Options::default() };
    let (server, _stop) = nodes(options).await;
    let renewed_after = |node: &'static str, before: String| {
        let server = &server;
        eventually("a renewal", move || {
            let before = before.clone();
            async move { Some(lease_time(server, node).await).filter(|time| *time > before) }
        })
    };
    let first = lease_time(&server, "simulated-0").await;
    renewed_after("simulated-0", first).await;

    handle.silence("simulated-0");
    // What was on its way has arrived once the other node has renewed twice.
    for _ in 0..2 {
        let before = lease_time(&server, "simulated-1").await;
        renewed_after("simulated-1", before).await;
    }
    let silent = lease_time(&server, "simulated-0").await;
    pod(&server, "web", "simulated-0", json!({})).await;
    pod(&server, "other", "simulated-1", json!({})).await;
    status(&server, "other", "Running").await;
    assert_eq!(lease_time(&server, "simulated-0").await, silent);
    assert_eq!(server.get(&format!("{PODS}/web")).await.expect(200)["status"]["phase"], "Pending");

    handle.revive("simulated-0");
    renewed_after("simulated-0", silent).await;
    status(&server, "web", "Running").await;
}

#[tokio::test]
async fn a_node_that_was_thought_dead_says_that_it_is_not() {
    let (server, _stop) = nodes(Options { count: 1, ..Options::default() }).await;
    lease_time(&server, "simulated-0").await;
    let unknown = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
    server.patch("/api/v1/nodes/simulated-0/status", unknown).await.expect(200);
    eventually("the node to be ready", || async {
        let node = server.get("/api/v1/nodes/simulated-0").await.expect(200);
        let ready = node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")?.clone();
        (ready["status"] == "True").then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_are_resized_and_looked_into() {
    let (server, _stop) = nodes(Options { count: 1, ..Options::default() }).await;
    eventually("the node", || async { (server.get("/api/v1/nodes/simulated-0").await.code == 200).then_some(()) }).await;
    let container = json!({"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "1"}}});
    let spec = json!({"nodeName": "simulated-0", "containers": [container]});
    server.post(PODS, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})).await.expect(201);
    status(&server, "web", "Running").await;

    let wanted = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    server.patch_as("application/strategic-merge-patch+json", &format!("{PODS}/web/resize"), wanted).await.expect(200);
    eventually("the resize", || async {
        let pod = server.get(&format!("{PODS}/web")).await.expect(200);
        let told = &pod["status"]["containerStatuses"][0];
        (told["resources"]["requests"]["cpu"] == "2" && told["allocatedResources"]["cpu"] == "2").then_some(())
    })
    .await;
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    server.patch(&format!("{PODS}/web/ephemeralcontainers"), debug).await.expect(200);
    eventually("the ephemeral container", || async {
        let pod = server.get(&format!("{PODS}/web")).await.expect(200);
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_object().then_some(())
    })
    .await;
}
