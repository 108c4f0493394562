//! Decisions, plugin by plugin, and what always holds of them.

use super::*;
use crate::plugins;
use crate::testing::{cluster, node, node_with, pending, placed, placed_with, pod};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

fn decided(pod: &PodInfo, cluster: &Snapshot) -> String {
    match decide(pod, None, cluster, plugins::all(), Sample::default()) {
        Decision::Bind { node, .. } => node.to_string(),
        Decision::Unschedulable(why) => why.to_string(),
    }
}

fn check_decided(spec: Value, cluster: &Snapshot, expected: Expect) {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c", "image": "web"}]);
    }
    expected.assert_eq(&decided(&pending("p", spec), cluster));
}

fn of(nodes: Vec<slipway_api::core::Node>) -> Snapshot {
    let mut cluster = Snapshot::default();
    nodes.iter().for_each(|node| drop(cluster.set_node(node)));
    cluster
}

fn container(requests: Value) -> Value {
    json!([{"name": "c", "resources": {"requests": requests}}])
}

fn labelled(name: &str, labels: Value, spec: Value) -> Arc<PodInfo> {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "c"}]);
    Arc::new(PodInfo::placed(&pod(name, labels, spec)))
}

#[test]
fn resources_must_be_free_and_the_emptier_node_wins() {
    let mut cluster = cluster(&[("a", "cpu: 4"), ("b", "cpu: 4")]);
    cluster.add_pod("a", placed("x", "cpu: 2, memory: 1Gi"));
    let asks = |cpu: &str, memory: &str| json!({"containers": container(json!({"cpu": cpu, "memory": memory}))});
    check_decided(asks("1", "1Gi"), &cluster, expect!["b"]);
    check_decided(asks("3", "1Gi"), &cluster, expect!["b"]);
    check_decided(asks("5", "1Gi"), &cluster, expect!["0/2 nodes are available: 2 Insufficient cpu."]);
    check_decided(asks("5", "64Gi"), &cluster, expect!["0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory."]);
    let gpu = json!({"containers": container(json!({"nvidia.com/gpu": "1"}))});
    check_decided(gpu, &cluster, expect!["0/2 nodes are available: 2 Insufficient nvidia.com/gpu."]);
}

#[test]
fn a_node_takes_so_many_pods() {
    let mut cluster = cluster(&[("a", "cpu: 4, pods: 1")]);
    cluster.add_pod("a", placed("x", "cpu: 1"));
    check_decided(json!({}), &cluster, expect!["0/1 nodes are available: 1 Too many pods."]);
}

#[test]
fn an_empty_cluster_has_its_own_words() {
    check_decided(json!({}), &Snapshot::default(), expect!["no nodes available to schedule pods"]);
}

#[test]
fn taints_and_cordons_keep_pods_away() {
    let taint = |effect: &str| json!({"taints": [{"key": "gpu", "value": "yes", "effect": effect}]});
    let nodes = of(vec![
        node_with("a", "cpu: 4", json!({}), taint("NoSchedule")),
        node_with("b", "cpu: 4", json!({}), taint("NoExecute")),
        node_with("c", "cpu: 4", json!({}), json!({"unschedulable": true})),
    ]);
    check_decided(
        json!({}),
        &nodes,
        expect!["0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint {gpu: yes}."],
    );
    check_decided(json!({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]}), &nodes, expect!["a"]);
    let cordoned = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
    check_decided(cordoned, &nodes, expect!["c"]);
    let soft = of(vec![node_with("a", "cpu: 8", json!({}), taint("PreferNoSchedule")), node("b", "cpu: 4")]);
    check_decided(json!({}), &soft, expect!["b"]);
}

#[test]
fn node_selectors_and_affinity_choose_nodes() {
    let nodes = of(vec![
        node_with("a", "cpu: 4", json!({"disk": "ssd", "gen": "3"}), json!({})),
        node_with("b", "cpu: 4", json!({"disk": "hdd", "gen": "5"}), json!({})),
    ]);
    check_decided(json!({"nodeSelector": {"disk": "hdd"}}), &nodes, expect!["b"]);
    check_decided(
        json!({"nodeSelector": {"disk": "tape"}}),
        &nodes,
        expect!["0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."],
    );
    let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    check_decided(
        required(json!([{"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["4"]}]}])),
        &nodes,
        expect!["b"],
    );
    let by_name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]);
    check_decided(required(by_name), &nodes, expect!["a"]);
    check_decided(
        required(json!([{}])),
        &nodes,
        expect!["0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."],
    );
    let preferred =
        json!([{"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]);
    check_decided(
        json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}),
        &nodes,
        expect!["a"],
    );
    check_decided(
        json!({"nodeName": "c"}),
        &nodes,
        expect!["0/2 nodes are available: 2 node(s) didn't match the requested node name."],
    );
}

#[test]
fn a_host_port_is_taken_once() {
    let mut cluster = cluster(&[("a", "cpu: 4")]);
    let ports = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    check_decided(ports.clone(), &cluster, expect!["a"]);
    cluster.add_pod("a", placed_with("x", ports.clone()));
    check_decided(
        ports.clone(),
        &cluster,
        expect!["0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."],
    );
    cluster.remove_pod("a", "default/x");
    check_decided(ports, &cluster, expect!["a"]);
}

fn zones() -> Snapshot {
    let zone = |name: &str, zone: &str| node_with(name, "cpu: 4", json!({"topology.kubernetes.io/zone": zone}), json!({}));
    of(vec![zone("a1", "a"), zone("a2", "a"), zone("b1", "b")])
}

fn near(kind: &str, topology: &str) -> Value {
    let term = json!({"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": topology});
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[test]
fn affinity_brings_pods_together_and_anti_affinity_keeps_them_apart() {
    let zone = "topology.kubernetes.io/zone";
    let mut cluster = zones();
    let lonely = expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."];
    check_decided(near("podAffinity", zone), &cluster, lonely);
    cluster.add_pod("b1", labelled("db", json!({"app": "db"}), json!({})));
    check_decided(near("podAffinity", zone), &cluster, expect!["b1"]);
    cluster.add_pod("a1", labelled("db2", json!({"app": "db"}), json!({})));
    check_decided(
        near("podAntiAffinity", zone),
        &cluster,
        expect!["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."],
    );
    check_decided(near("podAntiAffinity", "kubernetes.io/hostname"), &cluster, expect!["a2"]);
}

#[test]
fn the_first_of_a_group_that_wants_its_own_kind_may_go_anywhere() {
    let mut spec = near("podAffinity", "topology.kubernetes.io/zone");
    spec["containers"] = json!([{"name": "c"}]);
    let first = PodInfo::pending(&pod("p", json!({"app": "db"}), spec));
    assert!(["a1", "a2", "b1"].contains(&decided(&first, &zones()).as_str()));
}

#[test]
fn pods_that_are_there_keep_others_away() {
    let mut cluster = zones();
    cluster.add_pod("a1", labelled("hermit", json!({}), near("podAntiAffinity", "topology.kubernetes.io/zone")));
    let mut spec = json!({"containers": [{"name": "c"}]});
    spec["nodeSelector"] = json!({"topology.kubernetes.io/zone": "a"});
    let db = PodInfo::pending(&pod("p", json!({"app": "db"}), spec));
    expect!["0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't satisfy existing pods anti-affinity rules."]
        .assert_eq(&decided(&db, &cluster));
}

#[test]
fn spreading_keeps_the_skew() {
    let mut cluster = zones();
    let constraint = |key: &str, when: &str| json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"app": "web"}}});
    let web = |when: &str, key: &str, node: Value| {
        let spec =
            json!({"containers": [{"name": "c"}], "nodeSelector": node, "topologySpreadConstraints": [constraint(key, when)]});
        PodInfo::pending(&pod("p", json!({"app": "web"}), spec))
    };
    let zone = "topology.kubernetes.io/zone";
    cluster.add_pod("a1", labelled("w1", json!({"app": "web"}), json!({})));
    assert_eq!(decided(&web("DoNotSchedule", zone, json!({})), &cluster), "b1");
    assert_eq!(decided(&web("ScheduleAnyway", zone, json!({})), &cluster), "b1");
    cluster.add_pod("a2", labelled("w2", json!({"app": "web"}), json!({})));
    // Zone b is no choice for this one, and so it doesn't count as the emptier one.
    assert!(decided(&web("DoNotSchedule", zone, json!({zone: "a"})), &cluster).starts_with('a'));
    cluster.add_pod("b1", labelled("w3", json!({"app": "web"}), json!({})));
    cluster.add_pod("b1", labelled("w4", json!({"app": "web"}), json!({})));
    cluster.add_pod("a1", labelled("w5", json!({"app": "web"}), json!({})));
    expect!["b1"].assert_eq(&decided(&web("DoNotSchedule", zone, json!({})), &cluster));
    cluster.set_node(&node_with("b1", "cpu: 4", json!({zone: "b"}), json!({"unschedulable": true})));
    expect!["0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints."]
        .assert_eq(&decided(&web("DoNotSchedule", zone, json!({})), &cluster));
    expect!["0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints (missing required label)."]
        .assert_eq(&decided(&web("DoNotSchedule", "rack", json!({})), &cluster));
}

#[test]
fn siblings_spread_without_being_told_to() {
    let mut cluster = cluster(&[("a", "cpu: 64"), ("b", "cpu: 4")]);
    let sibling = |name: &str| {
        let mut pod = pod(name, json!({}), json!({"containers": [{"name": "c"}]}));
        pod.metadata.owner_references = serde_json::from_value(
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]),
        )
        .unwrap();
        pod
    };
    let mut seen = vec![];
    for name in ["p1", "p2", "p3", "p4"] {
        let chosen = decided(&PodInfo::pending(&sibling(name)), &cluster);
        cluster.add_pod(&chosen, Arc::new(PodInfo::placed(&sibling(name))));
        seen.push(chosen);
    }
    seen.sort();
    assert_eq!(seen, ["a", "a", "b", "b"]);
}

#[test]
fn a_node_that_has_the_image_is_preferred() {
    let mut with = node("a", "cpu: 4");
    with.status.as_mut().unwrap().images =
        serde_json::from_value(json!([{"names": ["web:latest"], "sizeBytes": 900_000_000}])).unwrap();
    check_decided(json!({}), &of(vec![with, node("b", "cpu: 4")]), expect!["a"]);
}

#[test]
fn a_node_that_could_be_bought_is_judged_like_any_other() {
    let offer = NodeInfo::of(&node("m7i.large", "cpu: 2, memory: 8Gi"));
    let asks = |cpu: &str| pod("p", json!({}), json!({"containers": container(json!({"cpu": cpu}))}));
    assert_eq!(fits(&asks("2"), &offer), Verdict::Fits);
    assert_eq!(fits(&asks("3"), &offer), Verdict::never(Reason::Insufficient("cpu".into())));
    let mut filled = offer.clone();
    filled.add(placed("x", "cpu: 1"));
    assert_eq!(fits(&asks("2"), &filled), Verdict::unfit(Reason::Insufficient("cpu".into())));
}

#[test]
fn a_nominated_node_comes_first() {
    let mut cluster = cluster(&[("a", "cpu: 4"), ("b", "cpu: 4")]);
    cluster.add_pod("a", placed("x", "cpu: 2"));
    let pod = pending("p", json!({"containers": container(json!({"cpu": "1"}))}));
    let chosen = decide(&pod, Some("a"), &cluster, plugins::all(), Sample::default());
    assert_eq!(chosen, Decision::Bind { node: "a".into(), looked_at: 0 });
}

#[test]
fn big_clusters_are_sampled() {
    let sample = Sample::default();
    assert_eq!((sample.enough(50), sample.enough(100), sample.enough(1000), sample.enough(10_000)), (50, 100, 420, 500));
    assert_eq!(Sample { percentage: 100, ..sample }.enough(1000), 1000);
    assert_eq!(Sample { percentage: 20, ..sample }.enough(1000), 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_node_is_overfull_and_decisions_repeat(
        nodes in prop::collection::vec((1i64..8, 1i64..16, 1i64..6), 1..8),
        pods in prop::collection::vec((0i64..4000, 0i64..8), 1..40),
        start in 0usize..100,
    ) {
        let mut cluster = Snapshot::default();
        for (index, (cpu, memory, pods)) in nodes.iter().enumerate() {
            cluster.set_node(&node(&format!("n{index}"), &format!("cpu: {cpu}, memory: {memory}Gi, pods: {pods}")));
        }
        for (index, (cpu, memory)) in pods.iter().enumerate() {
            let requests = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Gi")});
            let pod = pending(&format!("p{index}"), json!({"containers": container(requests)}));
            let sample = Sample { start, percentage: 0 };
            let decision = decide(&pod, None, &cluster, plugins::all(), sample);
            prop_assert_eq!(&decision, &decide(&pod, None, &cluster.clone(), plugins::all(), sample));
            match decision {
                Decision::Bind { node, .. } => cluster.add_pod(&node, Arc::new(pod)),
                Decision::Unschedulable(why) => {
                    let explained: usize = why.verdicts.values().map(Vec::len).sum();
                    prop_assert_eq!(explained, cluster.len());
                }
            }
            for node in cluster.nodes() {
                let (taken, has) = (&node.requested, &node.facts.allocatable);
                prop_assert!(taken.milli_cpu <= has.milli_cpu && taken.memory <= has.memory);
                prop_assert!(node.pods.len() as i64 <= node.facts.max_pods);
            }
        }
    }
}
