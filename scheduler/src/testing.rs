//! Nodes and pods for the tests, from as few words as possible.

use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use serde_json::{Value, json};
use slipway_api::core::{Node, Pod};
use std::sync::Arc;

/// `cpu: 4, memory: 8Gi`
fn list(text: &str) -> serde_json::Map<String, Value> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
    pairs.map(|(name, amount)| (name.trim().to_owned(), json!(amount.trim()))).collect()
}

/// A node with these resources, room for 110 pods, and its name as `kubernetes.io/hostname`.
pub fn node(name: &str, resources: &str) -> Node {
    let mut allocatable = json!({"memory": "32Gi", "pods": "110"});
    for (name, amount) in list(resources) {
        allocatable[name] = amount;
    }
    let labels = json!({"kubernetes.io/hostname": name});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}})).unwrap()
}

pub fn node_with(name: &str, resources: &str, labels: Value, spec: Value) -> Node {
    let mut node = node(name, resources);
    let more: std::collections::BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
    node.metadata.labels.as_mut().unwrap().extend(more);
    node.spec = Some(serde_json::from_value(spec).unwrap());
    node
}

pub fn node_info(name: &str, resources: &str) -> NodeInfo {
    NodeInfo::of(&node(name, resources))
}

pub fn cluster(nodes: &[(&str, &str)]) -> Snapshot {
    let mut cluster = Snapshot::default();
    for (name, resources) in nodes {
        cluster.set_node(&node(name, resources));
    }
    cluster
}

pub fn pod(name: &str, labels: Value, spec: Value) -> Pod {
    let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

pub fn pending(name: &str, spec: Value) -> PodInfo {
    PodInfo::pending(&pod(name, json!({}), spec))
}

pub fn placed(name: &str, requests: &str) -> Arc<PodInfo> {
    placed_with(name, json!({"containers": [{"name": "c", "resources": {"requests": list(requests)}}]}))
}

pub fn placed_with(name: &str, spec: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::placed(&pod(name, json!({}), spec)))
}
