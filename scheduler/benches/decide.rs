//! How long one decision takes on a cluster of 1,000 nodes with 10 pods each.

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use slipway_scheduler::framework::Sample;
use slipway_scheduler::{PodInfo, Snapshot, decide, plugins};
use std::hint::black_box;
use std::sync::Arc;

const NODES: usize = 1_000;
const PODS_PER_NODE: usize = 10;

fn pod(name: &str, spec: Value) -> slipway_api::core::Pod {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web", "controller": true}]);
    let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}, "ownerReferences": owner});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a valid pod")
}

fn spec() -> Value {
    json!({"containers": [{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]})
}

fn cluster() -> Snapshot {
    let mut cluster = Snapshot::default();
    for index in 0..NODES {
        let name = format!("node-{index}");
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", index % 3)});
        let allocatable = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
        let node = json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}});
        cluster.set_node(&serde_json::from_value(node).expect("a valid node"));
        for number in 0..PODS_PER_NODE {
            let pod = PodInfo::placed(&pod(&format!("pod-{index}-{number}"), spec()));
            cluster.add_pod(&format!("node-{index}"), Arc::new(pod));
        }
    }
    cluster
}

fn bench(criterion: &mut Criterion) {
    let cluster = cluster();
    let mut measure = |name: &str, more: Value| {
        let mut spec = spec();
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let pod = PodInfo::pending(&pod("new", spec));
        let mut start = 0;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                start += 1;
                black_box(decide(&pod, None, &cluster, plugins::all(), Sample { start, percentage: 0 }))
            });
        });
    };
    let selector = json!({"matchLabels": {"app": "web"}});
    measure("plain", json!({}));
    measure("no room anywhere", json!({"nodeSelector": {"no": "such"}}));
    let constraint =
        |key: &str| json!({"maxSkew": 1000, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector});
    measure("spread over zones", json!({"topologySpreadConstraints": [constraint("topology.kubernetes.io/zone")]}));
    let term = json!({"labelSelector": selector, "topologyKey": "topology.kubernetes.io/zone"});
    measure("affinity", json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}));
}

criterion_group!(benches, bench);
criterion_main!(benches);
