//! A node that falls silent, over the real API: it is marked and tainted, its pods come up elsewhere, and it may come back.

use crate::cluster::{Cluster, deployment, items};
use serde_json::{Value, json};
use std::time::Duration;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn readiness(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    ready.and_then(|ready| ready["status"].as_str()).unwrap_or("-").to_owned()
}

fn has_taint(node: &Value, effect: &str) -> bool {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().any(|taint| taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == effect)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_leave_a_silent_node() {
    let grace = Duration::from_secs(3);
    let options =
        slipway_controllers::Options { node_monitor_grace_period: grace, node_startup_grace_period: grace, ..Default::default() };
    let cluster = Cluster::start_with(3, options).await;
    let nodes = cluster.until(NODES, "have their ranges", |nodes| {
        items(nodes).len() == 3 && items(nodes).iter().all(|node| node["spec"]["podCIDR"].is_string())
    });
    let nodes = nodes.await;
    let mut ranges: Vec<&str> = items(&nodes).iter().filter_map(|node| node["spec"]["podCIDR"].as_str()).collect();
    ranges.sort_unstable();
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);

    let mut web: Value = serde_json::from_str(&deployment("web", 6)).expect("JSON");
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    web["spec"]["template"]["spec"]["tolerations"] =
        json!([toleration("node.kubernetes.io/unreachable"), toleration("node.kubernetes.io/not-ready")]);
    cluster.create(DEPLOYMENTS, &web.to_string()).await;
    let web = format!("{DEPLOYMENTS}/web");
    cluster.until(&web, "rolls out", |web| web["status"]["availableReplicas"] == 6).await;
    let pods = cluster.server.get(PODS).await.expect(200);
    let lost = pods["items"][0]["spec"]["nodeName"].as_str().expect("it is bound").to_owned();

    cluster.nodes.silence(&lost);
    let node = format!("{NODES}/{lost}");
    let gone = cluster.until(&node, "is given up", |node| {
        readiness(node) == "Unknown" && has_taint(node, "NoSchedule") && has_taint(node, "NoExecute")
    });
    let conditions = gone.await["status"]["conditions"].clone();
    let ready = conditions.as_array().and_then(|all| all.iter().find(|condition| condition["type"] == "Ready")).cloned();
    assert_eq!(ready.expect("just seen")["reason"], "NodeStatusUnknown");
    cluster
        .until(PODS, "come up elsewhere", |pods| {
            let elsewhere = items(pods).iter().filter(|pod| pod["spec"]["nodeName"] != lost.as_str());
            elsewhere.filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()).count()
                == 6
        })
        .await;

    cluster.nodes.revive(&lost);
    cluster
        .until(&node, "is back", |node| {
            readiness(node) == "True" && !has_taint(node, "NoSchedule") && !has_taint(node, "NoExecute")
        })
        .await;
    cluster.until(PODS, "are six again", |pods| items(pods).len() == 6).await;
}
