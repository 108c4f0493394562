//! Two real nodes: the cluster's own, and a machine that has joined with a token.

use crate::cluster::{Cluster, condition, enabled, http_get};
use crate::machine::{Machine, TOKEN, TOKEN_SECRET};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const WEB: &str = include_str!("../../infra/samples/web.yaml");

const SHELL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 0
  nodeName: node-2
  containers: [{name: main, image: "registry.slipway.test/busybox:1", command: [sleep, "3600"]}]
"#;

/// Four pods that leave a lost node after five seconds.
fn web() -> String {
    let impatient = ["not-ready", "unreachable"]
        .map(|why| format!("{{key: node.kubernetes.io/{why}, operator: Exists, effect: NoExecute, tolerationSeconds: 5}}"))
        .join(", ");
    let spec = format!("    spec:\n      tolerations: [{impatient}]\n");
    WEB.replace("replicas: 3", "replicas: 4").replace("    spec:\n      termination", &format!("{spec}      termination"))
}

/// Name and address of the ready pods, by node.
fn ready_pods(cluster: &Cluster) -> BTreeMap<String, Vec<(String, String)>> {
    let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut by_node: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for pod in cluster.pods("app=web").iter().filter(|pod| condition(pod, "Ready") == "True") {
        let (name, ip) = (field(&pod["metadata"]["name"]), field(&pod["status"]["podIP"]));
        by_node.entry(field(&pod["spec"]["nodeName"])).or_default().push((name, ip));
    }
    by_node
}

fn node_2(cluster: &Cluster) -> Value {
    cluster.json(&["get", "node", "node-2"])
}

fn taints(node: &Value) -> BTreeSet<String> {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|taint| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())).collect()
}

#[test]
fn a_machine_joins_serves_falls_silent_and_comes_back() {
    if !enabled("machines") {
        return;
    }
    let flags = ["--node-name", "node-1", "--node-monitor-grace-period", "20s"];
    let cluster = Cluster::start_for_machines("machines", &flags);
    cluster.apply(TOKEN_SECRET);
    let mut machine = Machine::new(&cluster, "m2", 12);
    machine.join(&cluster, "node-2", Some(TOKEN));
    cluster.import_images();
    machine.import_images();
    for node in ["node-1", "node-2"] {
        cluster.wait(&format!("{node} to be Ready"), || condition(&cluster.json(&["get", "node", node]), "Ready") == "True");
    }
    assert_eq!(cluster.get("node/node-2", "{.status.addresses[?(@.type==\"InternalIP\")].address}"), machine.ip);

    cluster.apply(&web());
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    cluster.apply(SHELL);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]);
    serves(&cluster, &machine);
    streams(&cluster);
    starts_again_without_a_token(&cluster, &mut machine);
    falls_silent_and_comes_back(&cluster, &mut machine);
}

/// Pods of either node reach those of the other, by address and through the Service.
fn serves(cluster: &Cluster, machine: &Machine) {
    let pods = ready_pods(cluster);
    assert_eq!(pods.keys().collect::<Vec<_>>(), ["node-1", "node-2"], "they spread over both nodes: {pods:?}");
    assert_eq!(pods.values().map(Vec::len).collect::<Vec<_>>(), [2, 2], "evenly: {pods:?}");
    let names: BTreeSet<String> = pods.values().flatten().map(|(name, _)| name.clone()).collect();
    let (here, there) = (&pods["node-1"][0], &pods["node-2"][0]);
    for (from, to) in [(here, there), (there, here)] {
        let answer = || http_get(&format!("{}:8080", from.1), &format!("/fetch/{}:8080/hostname", to.1));
        cluster.wait("a pod to reach one on the other node", || answer().is_ok());
        assert_eq!(answer().unwrap().trim(), to.0);
        // By name: each node's own DNS answers, and its own rules lead to pods of both.
        let service = || http_get(&format!("{}:8080", from.1), "/fetch/web.default.svc.cluster.local:80/hostname");
        cluster.wait("the Service to answer on both nodes", || service().is_ok());
        let seen: BTreeSet<String> = (0..80).map(|_| service().expect("the Service answers").trim().to_owned()).collect();
        assert_eq!(seen, names, "the Service leads to the pods of both nodes");
    }
    // A pod sees who asks it across nodes: pods' addresses are kept.
    let client = http_get(&format!("{}:8080", here.1), &format!("/fetch/{}:8080/client", there.1)).unwrap();
    assert!(client.trim().starts_with(&here.1), "{client} is {}", here.1);
    // Any node's node port leads to the Service, and the machine itself reaches the API as pods do.
    let node_port: BTreeSet<String> =
        (0..80).map(|_| http_get(&format!("{}:30080", machine.ip), "/hostname").expect("it answers").trim().to_owned()).collect();
    assert_eq!(node_port, names);
    machine.inside(|| std::net::TcpStream::connect("10.96.0.1:443").expect("the API's Service leads there from the machine"));
}

/// kubectl's streams go through the API server to the machine's agent, by the certificate that it asked for.
fn streams(cluster: &Cluster) {
    let pod = &ready_pods(cluster)["node-2"][0].0;
    assert!(cluster.ok(&["logs", pod]).contains("listens on port 8080"));
    assert_eq!(cluster.ok(&["exec", "shell", "--", "hostname"]), "shell\n");
    assert_eq!(cluster.with_input(&["exec", "-i", "shell", "--", "cat"], "through\n"), "through\n");
    let requests = cluster.json(&["get", "certificatesigningrequests"]);
    let signers: BTreeSet<&str> =
        requests["items"].as_array().unwrap().iter().filter_map(|request| request["spec"]["signerName"].as_str()).collect();
    let both = BTreeSet::from(["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"]);
    assert_eq!(signers, both);
}

fn starts_again_without_a_token(cluster: &Cluster, machine: &mut Machine) {
    let requests = || cluster.ok(&["get", "certificatesigningrequests", "-o", "name"]);
    let before = requests();
    cluster.ok(&["delete", "secret", "bootstrap-token-abcdef", "-n", "kube-system"]);
    machine.end_agent(Signal::SIGTERM);
    machine.join(cluster, "node-2", None);
    let echo = || cluster.kubectl(&["exec", "shell", "--", "true"]).status.success();
    cluster.wait("the machine's agent to answer again", echo);
    assert_eq!(requests(), before, "the certificates were kept");
    assert_eq!(cluster.get("pod/shell", "{.status.containerStatuses[0].restartCount}"), "0", "pods are taken over");
}

fn falls_silent_and_comes_back(cluster: &Cluster, machine: &mut Machine) {
    let there: BTreeSet<String> = ready_pods(cluster)["node-2"].iter().map(|(name, _)| name.clone()).collect();
    machine.end_agent(Signal::SIGKILL);
    cluster.wait("node-2 to be NotReady", || condition(&node_2(cluster), "Ready") == "Unknown");
    let unreachable = ["NoExecute", "NoSchedule"].map(|effect| format!("node.kubernetes.io/unreachable:{effect}"));
    cluster.wait("node-2 to be tainted", || unreachable.iter().all(|taint| taints(&node_2(cluster)).contains(taint)));
    cluster.wait("the pods to come up on node-1", || ready_pods(cluster).get("node-1").is_some_and(|pods| pods.len() == 4));
    assert_eq!(ready_pods(cluster).len(), 1, "none on the lost node");
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let service = format!("{}:80", cluster.get("service/web", "{.spec.clusterIP}"));
    cluster.wait("the Service to lead to the new pods alone", || {
        (0..40).all(|_| http_get(&service, "/hostname").is_ok_and(|name| !there.contains(name.trim())))
    });
    // Nobody can tell whether the lost node still runs them, so they are not forgotten.
    for pod in &there {
        assert_ne!(cluster.get(&format!("pod/{pod}"), "{.metadata.deletionTimestamp}"), "", "{pod} is being deleted");
    }
    assert!(machine.running_tasks() >= 6, "and indeed they run on");

    machine.join(cluster, "node-2", None);
    cluster.wait("node-2 to be Ready again", || condition(&node_2(cluster), "Ready") == "True");
    cluster.wait("the taints to go", || taints(&node_2(cluster)).is_empty());
    let pods = || cluster.ok(&["get", "pods", "-o", "name"]);
    cluster.wait("the old pods to be gone", || there.iter().all(|pod| !pods().contains(pod.as_str())));
    // What stays is at most the shell, if it has outlasted the silence: a Pod of nobody's tolerates five minutes of it.
    cluster.wait("their containers to have ended", || machine.running_tasks() == 2);
    assert_eq!(cluster.ok(&["exec", "shell", "--", "echo", "alive"]), "alive\n");
}
