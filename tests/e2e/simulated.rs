//! Simulated nodes, for clusters larger than a machine.

use crate::cluster::{Cluster, condition, enabled};

#[test]
fn twenty_simulated_nodes_run_a_hundred_pods() {
    if !enabled("simulated") {
        return;
    }
    let cluster = Cluster::start("simulated", &["--nodes", "0", "--simulated-nodes", "20"]);
    cluster.wait("twenty Ready nodes", || {
        let nodes = cluster.json(&["get", "nodes"]);
        nodes["items"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().filter(|node| condition(node, "Ready") == "True").count() == 20)
    });
    cluster.ok(&["create", "deployment", "many", "--image=registry.slipway.test/web:1", "--replicas=100"]);
    cluster.ok(&["rollout", "status", "deployment/many", "--timeout=90s"]);
    let pods = cluster.pods("app=many");
    assert_eq!(pods.len(), 100);
    let mut nodes: Vec<&str> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), 20, "the pods are spread over every node");

    // A drained node's pods come up elsewhere.
    let drained = nodes[0].to_owned();
    cluster.ok(&["drain", &drained, "--ignore-daemonsets", "--force", "--timeout=60s"]);
    cluster.ok(&["rollout", "status", "deployment/many", "--timeout=90s"]);
    cluster.wait("a hundred pods elsewhere", || {
        let pods = cluster.pods("app=many");
        pods.len() == 100
            && pods.iter().all(|pod| pod["spec"]["nodeName"] != drained.as_str() && condition(pod, "Ready") == "True")
    });
    cluster.ok(&["scale", "deployment/many", "--replicas=0"]);
    cluster.wait("no pods", || cluster.json(&["get", "pods"])["items"].as_array().is_some_and(Vec::is_empty));
}
