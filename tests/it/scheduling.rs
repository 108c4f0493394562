//! The scheduler over the real API: pods come to the nodes that suit them, and those that can't are told why.

use serde_json::{Value, json};
use slipway_scheduler::Options;
use slipway_tests::{TestServer, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with a running scheduler, which stops with it.
struct Cluster {
    server: TestServer,
    _stop: DropGuard,
}

impl Cluster {
    async fn start() -> Cluster {
        let server = TestServer::memory().await;
        let shutdown = CancellationToken::new();
        tokio::spawn(slipway_scheduler::run(
            server.api.client(slipway_apiserver::User::new("system:kube-scheduler", &[])),
            Options::default(),
            shutdown.clone(),
        ));
        Cluster { server, _stop: shutdown.drop_guard() }
    }

    async fn node(&self, name: &str, cpu: &str, labels: Value, spec: Value) {
        let mut labels = labels;
        labels["kubernetes.io/hostname"] = json!(name);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec});
        self.server.post("/api/v1/nodes", node).await.expect(201);
        let has = json!({"cpu": cpu, "memory": "32Gi", "pods": "110"});
        let status = json!({"status": {"capacity": has, "allocatable": has}});
        self.server.patch(&format!("/api/v1/nodes/{name}/status"), status).await.expect(200);
    }

    async fn plain_node(&self, name: &str, cpu: &str) {
        self.node(name, cpu, json!({}), json!({})).await;
    }

    async fn pod(&self, name: &str, labels: Value, spec: Value) {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c", "image": "web:1"}]);
        }
        let metadata = json!({"name": name, "labels": labels});
        self.server.post(PODS, json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).await.expect(201);
    }

    /// The node that the pod has come to.
    async fn node_of(&self, name: &str) -> String {
        eventually(&format!("a node for {name}"), || async {
            let pod = self.server.get(&format!("{PODS}/{name}")).await.expect(200);
            pod["spec"]["nodeName"].as_str().map(str::to_owned)
        })
        .await
    }

    /// Why the pod has no node.
    async fn refusal(&self, name: &str) -> String {
        eventually(&format!("a refusal of {name}"), || async {
            let pod = self.server.get(&format!("{PODS}/{name}")).await.expect(200);
            let conditions = pod["status"]["conditions"].as_array()?.clone();
            let scheduled = conditions.into_iter().find(|condition| condition["type"] == "PodScheduled")?;
            assert_eq!((&scheduled["status"], &scheduled["reason"]), (&json!("False"), &json!("Unschedulable")), "{pod:#}");
            scheduled["message"].as_str().map(str::to_owned)
        })
        .await
    }

    async fn event(&self, reason: &str, about: &str) -> Value {
        eventually(&format!("the event {reason} of {about}"), || async {
            let events = self.server.get("/api/v1/namespaces/default/events").await.expect(200);
            let of = |event: &&Value| event["reason"] == reason && event["involvedObject"]["name"] == about;
            events["items"].as_array()?.iter().find(of).cloned()
        })
        .await
    }
}

fn asks(cpu: &str) -> Value {
    json!([{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": cpu}}}])
}

#[tokio::test]
async fn a_pod_comes_to_a_node_with_room_and_an_event_says_so() {
    let cluster = Cluster::start().await;
    cluster.plain_node("small", "1").await;
    cluster.plain_node("big", "8").await;
    cluster.pod("web", json!({}), json!({"containers": asks("4")})).await;
    assert_eq!(cluster.node_of("web").await, "big");
    let event = cluster.event("Scheduled", "web").await;
    assert_eq!((&event["type"], &event["message"]), (&json!("Normal"), &json!("Successfully assigned default/web to big")));
    assert_eq!(event["source"]["component"], "default-scheduler");
}

#[tokio::test]
async fn who_finds_no_room_is_told_why_and_comes_to_a_node_that_appears() {
    let cluster = Cluster::start().await;
    cluster.plain_node("a", "1").await;
    cluster.node("b", "8", json!({}), json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]})).await;
    cluster.pod("web", json!({}), json!({"containers": asks("4")})).await;
    let why = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}. \
               preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(cluster.refusal("web").await, why);
    let event = cluster.event("FailedScheduling", "web").await;
    assert_eq!((&event["type"], &event["message"]), (&json!("Warning"), &json!(why)));
    cluster.plain_node("c", "8").await;
    assert_eq!(cluster.node_of("web").await, "c");
    let pod = cluster.server.get(&format!("{PODS}/web")).await.expect(200);
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let scheduled = conditions.iter().find(|condition| condition["type"] == "PodScheduled").unwrap();
    assert_eq!(scheduled["status"], "True");
}

#[tokio::test]
async fn without_nodes_it_waits() {
    let cluster = Cluster::start().await;
    cluster.pod("web", json!({}), json!({})).await;
    assert_eq!(cluster.refusal("web").await, "no nodes available to schedule pods");
    cluster.plain_node("a", "1").await;
    assert_eq!(cluster.node_of("web").await, "a");
}

#[tokio::test]
async fn room_that_a_pod_leaves_goes_to_who_waits() {
    let cluster = Cluster::start().await;
    cluster.plain_node("a", "2").await;
    cluster.pod("first", json!({}), json!({"containers": asks("2")})).await;
    assert_eq!(cluster.node_of("first").await, "a");
    cluster.pod("second", json!({}), json!({"containers": asks("2")})).await;
    assert!(cluster.refusal("second").await.starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    cluster.server.delete(&format!("{PODS}/first?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(cluster.node_of("second").await, "a");
}

#[tokio::test]
async fn selectors_affinity_and_tolerations_lead_to_nodes() {
    let cluster = Cluster::start().await;
    cluster.node("ssd", "8", json!({"disk": "ssd"}), json!({})).await;
    cluster.node("hdd", "8", json!({"disk": "hdd"}), json!({})).await;
    let taint = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoExecute"}]});
    cluster.node("gpu", "8", json!({"disk": "none"}), taint).await;

    cluster.pod("by-selector", json!({}), json!({"nodeSelector": {"disk": "ssd"}})).await;
    assert_eq!(cluster.node_of("by-selector").await, "ssd");
    let term =
        |operator: &str, value: &str| json!({"matchExpressions": [{"key": "disk", "operator": operator, "values": [value]}]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term("NotIn", "ssd")]}});
    cluster.pod("by-affinity", json!({}), json!({"affinity": {"nodeAffinity": required}})).await;
    assert_eq!(cluster.node_of("by-affinity").await, "hdd");
    let preferred =
        json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term("In", "ssd")}]});
    cluster.pod("by-preference", json!({}), json!({"affinity": {"nodeAffinity": preferred}})).await;
    assert_eq!(cluster.node_of("by-preference").await, "ssd");

    let gpu = json!({"nodeSelector": {"disk": "none"}});
    cluster.pod("intolerant", json!({}), gpu.clone()).await;
    assert!(cluster.refusal("intolerant").await.contains("1 node(s) had untolerated taint {gpu: yes}"));
    let mut tolerant = gpu;
    tolerant["tolerations"] = json!([{"key": "gpu", "operator": "Exists"}]);
    cluster.pod("tolerant", json!({}), tolerant).await;
    assert_eq!(cluster.node_of("tolerant").await, "gpu");
}

#[tokio::test]
async fn uncordoning_lets_pods_in() {
    let cluster = Cluster::start().await;
    cluster.node("a", "8", json!({}), json!({"unschedulable": true})).await;
    cluster.pod("web", json!({}), json!({})).await;
    assert!(cluster.refusal("web").await.starts_with("0/1 nodes are available: 1 node(s) were unschedulable."));
    cluster.server.patch("/api/v1/nodes/a", json!({"spec": {"unschedulable": null, "taints": null}})).await.expect(200);
    assert_eq!(cluster.node_of("web").await, "a");
}

#[tokio::test]
async fn anti_affinity_and_affinity_place_pods_by_their_neighbours() {
    let cluster = Cluster::start().await;
    cluster.plain_node("a", "8").await;
    cluster.plain_node("b", "8").await;
    let towards = |kind: &str, app: &str| {
        let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"});
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    };
    for name in ["db-0", "db-1", "db-2"] {
        cluster.pod(name, json!({"app": "db"}), towards("podAntiAffinity", "db")).await;
    }
    let mut nodes = vec![cluster.node_of("db-0").await, cluster.node_of("db-1").await];
    cluster.pod("cache", json!({}), towards("podAffinity", "nothing")).await;
    assert!(cluster.refusal("cache").await.starts_with("0/2 nodes are available: 2 node(s) didn't match pod affinity rules."));
    let refusal = cluster.refusal("db-2").await;
    assert!(refusal.starts_with("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."), "{refusal}");
    cluster.plain_node("c", "8").await;
    nodes.push(cluster.node_of("db-2").await);
    nodes.sort();
    assert_eq!(nodes, ["a", "b", "c"]);

    cluster.pod("near", json!({}), towards("podAffinity", "first")).await;
    cluster.pod("first", json!({"app": "first"}), json!({})).await;
    assert_eq!(cluster.node_of("near").await, cluster.node_of("first").await);
}

#[tokio::test]
async fn pods_spread_over_zones() {
    let cluster = Cluster::start().await;
    for (node, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        cluster.node(node, "8", json!({"topology.kubernetes.io/zone": zone}), json!({})).await;
    }
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    let mut in_b = 0;
    for index in 0..6 {
        let name = format!("web-{index}");
        cluster.pod(&name, json!({"app": "web"}), json!({"topologySpreadConstraints": [constraint]})).await;
        in_b += usize::from(cluster.node_of(&name).await == "b1");
    }
    assert_eq!(in_b, 3);
}

#[tokio::test]
async fn the_more_important_pod_takes_the_place_of_a_lesser_one() {
    let cluster = Cluster::start().await;
    cluster.plain_node("a", "2").await;
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000,
    });
    cluster.server.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.expect(201);
    cluster.pod("low", json!({}), json!({"containers": asks("2"), "terminationGracePeriodSeconds": 0})).await;
    assert_eq!(cluster.node_of("low").await, "a");
    cluster.pod("high", json!({}), json!({"containers": asks("2"), "priorityClassName": "high"})).await;
    let event = cluster.event("Preempted", "low").await;
    let message = event["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Preempted by pod ") && message.ends_with(" on node a"), "{message}");
    assert_eq!(cluster.node_of("high").await, "a");
    assert_eq!(cluster.server.get(&format!("{PODS}/low")).await.code, 404);
}

#[tokio::test]
async fn other_schedulers_pods_are_left_to_them() {
    let cluster = Cluster::start().await;
    cluster.plain_node("a", "2").await;
    cluster.pod("theirs", json!({}), json!({"schedulerName": "theirs"})).await;
    cluster.pod("ours", json!({}), json!({})).await;
    assert_eq!(cluster.node_of("ours").await, "a");
    let theirs = cluster.server.get(&format!("{PODS}/theirs")).await.expect(200);
    assert_eq!(theirs["spec"].get("nodeName"), None);
}
