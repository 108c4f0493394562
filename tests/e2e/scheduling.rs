//! Where pods come to, on simulated nodes: what keeps them apart, what makes them wait, and who makes way.

use crate::cluster::{Cluster, condition, enabled};
use std::collections::BTreeMap;

const ANTI_AFFINITY: &str = include_str!("../../infra/samples/anti-affinity.yaml");
const PRIORITIES: &str = include_str!("../../infra/samples/priorities.yaml");

const SPREAD_OVER_ZONES: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: zones}
spec:
  replicas: 6
  selector: {matchLabels: {app: zones}}
  template:
    metadata: {labels: {app: zones}}
    spec:
      topologySpreadConstraints:
        - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: zones}}}
      containers: [{name: main, image: 'registry.slipway.test/web:1'}]
";

/// A node that nobody runs: pods are bound to it, and stay as they are.
const EXTRA: &str = "
apiVersion: v1
kind: Node
metadata: {name: extra, labels: {kubernetes.io/hostname: extra}}
";

fn pod(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  {spec}
---
"
    )
}

/// How many pods of a label each node has.
fn per_node(cluster: &Cluster, selector: &str) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for pod in cluster.pods(selector) {
        *nodes.entry(pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    nodes
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect()
}

fn says(cluster: &Cluster, kind: &str, wanted: &str) {
    cluster.wait(&format!("{kind} to say {wanted:?}"), || {
        cluster.ok(&[&["describe", "pods"], &kind.split(' ').collect::<Vec<_>>()[..]].concat()).contains(wanted)
    });
}

#[test]
fn pods_keep_apart_wait_with_reasons_and_make_way() {
    if !enabled("scheduling") {
        return;
    }
    let cluster = Cluster::start("scheduling", &["--nodes", "0", "--simulated-nodes", "3"]);
    cluster.wait("three Ready nodes", || {
        let nodes = cluster.json(&["get", "nodes"]);
        nodes["items"].as_array().is_some_and(|nodes| nodes.iter().filter(|node| condition(node, "Ready") == "True").count() == 3)
    });
    for (node, zone) in [("simulated-0", "a"), ("simulated-1", "b"), ("simulated-2", "c")] {
        cluster.ok(&["label", "node", node, &format!("topology.kubernetes.io/zone={zone}")]);
    }
    one_a_node(&cluster);
    even_over_zones(&cluster);
    taints_and_tolerations(&cluster);
    preemption(&cluster);
}

/// The fourth has no place until there is a fourth node, and none again when that is gone.
fn one_a_node(cluster: &Cluster) {
    cluster.apply(ANTI_AFFINITY);
    cluster.ok(&["rollout", "status", "deployment/spread", "--timeout=60s"]);
    let each = [("simulated-0", 1), ("simulated-1", 1), ("simulated-2", 1)];
    assert_eq!(per_node(cluster, "app=spread"), counts(&each));
    cluster.ok(&["scale", "deployment/spread", "--replicas=4"]);
    says(cluster, "-l app=spread", "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.");
    cluster.apply(EXTRA);
    let status = r#"{"status":{"allocatable":{"cpu":"1","memory":"1Gi","pods":"10"},"capacity":{"cpu":"1","memory":"1Gi","pods":"10"},
        "conditions":[{"type":"Ready","status":"True","reason":"KubeletReady","message":""}]}}"#;
    cluster.ok(&["patch", "node", "extra", "--subresource=status", "--type=merge", "-p", status]);
    cluster.wait("the fourth on the new node", || per_node(cluster, "app=spread").get("extra") == Some(&1));
    cluster.ok(&["delete", "node", "extra"]);
    cluster.wait("its successor to wait again", || per_node(cluster, "app=spread") == counts(&[&each[..], &[("", 1)]].concat()));
    cluster.ok(&["delete", "deployment", "spread"]);
}

fn even_over_zones(cluster: &Cluster) {
    cluster.apply(SPREAD_OVER_ZONES);
    cluster.ok(&["rollout", "status", "deployment/zones", "--timeout=60s"]);
    assert_eq!(per_node(cluster, "app=zones"), counts(&[("simulated-0", 2), ("simulated-1", 2), ("simulated-2", 2)]));
    cluster.ok(&["cordon", "simulated-1", "simulated-2"]);
    cluster.ok(&["scale", "deployment/zones", "--replicas=8"]);
    // A third in zone a is even enough, a fourth is not.
    says(
        cluster,
        "-l app=zones",
        "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 2 node(s) were unschedulable.",
    );
    assert_eq!(per_node(cluster, "app=zones").get("simulated-0"), Some(&3));
    cluster.ok(&["uncordon", "simulated-1"]);
    cluster.wait("the eighth in zone b", || per_node(cluster, "app=zones").get("simulated-1") == Some(&3));
    cluster.ok(&["uncordon", "simulated-2"]);
    cluster.ok(&["delete", "deployment", "zones"]);
}

fn taints_and_tolerations(cluster: &Cluster) {
    cluster.ok(&["taint", "nodes", "--all", "only=mine:NoSchedule"]);
    let container = "containers: [{name: main, image: 'registry.slipway.test/web:1'}]";
    cluster.apply(
        &[
            pod("mine", &format!("tolerations: [{{key: only, operator: Equal, value: mine}}]\n  {container}")),
            pod("yours", container),
            pod("choosy", "tolerations: [{operator: Exists}]\n  nodeSelector: {topology.kubernetes.io/zone: b}\n  containers: [{name: main, image: 'registry.slipway.test/web:1', resources: {requests: {cpu: 100}}}]"),
        ]
        .concat(),
    );
    cluster.ok(&["wait", "--for=condition=Ready", "pod/mine", "--timeout=60s"]);
    says(cluster, "yours", "0/3 nodes are available: 3 node(s) had untolerated taint {only: mine}.");
    says(cluster, "choosy", "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.");
    cluster.ok(&["taint", "node", "simulated-2", "only-"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/yours", "--timeout=60s"]);
    assert_eq!(cluster.get("pod/yours", "{.spec.nodeName}"), "simulated-2");
    cluster.ok(&["taint", "nodes", "simulated-0", "simulated-1", "only-"]);
    cluster.ok(&["delete", "pods", "--all"]);
}

/// Three of `batch` fill a node; one of them goes for each of `urgent`.
fn preemption(cluster: &Cluster) {
    let manifest = PRIORITIES.replace("cpu: 500m", "cpu: 10");
    assert_ne!(manifest, PRIORITIES);
    let (batch, urgent) = manifest.rsplit_once("---").expect("several objects");
    cluster.apply(batch);
    let running = |app: &str| {
        let selector = format!("app={app}");
        let pods = cluster.pods(&selector);
        pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count()
    };
    cluster.wait("a full cluster", || running("batch") == 9);
    cluster.apply(urgent);
    cluster.ok(&["rollout", "status", "deployment/urgent", "--timeout=60s"]);
    cluster.ok(&["scale", "deployment/urgent", "--replicas=3"]);
    cluster.ok(&["rollout", "status", "deployment/urgent", "--timeout=60s"]);
    cluster.wait("as many to have made way", || running("batch") == 6);
    cluster.wait("the event", || {
        let events = cluster.ok(&["get", "events", "--field-selector", "reason=Preempted"]);
        events.matches("pod/batch-").count() == 3 && events.contains("Preempted by pod")
    });
    says(
        cluster,
        "-l app=batch",
        "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.",
    );
}
