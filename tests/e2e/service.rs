//! Services: a Deployment behind a ClusterIP and a NodePort, from outside and from within pods.

use crate::cluster::{Cluster, enabled, http_get, shared};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const WEB: &str = include_str!("../../infra/samples/web.yaml");

/// The sample Deployment on a node port that no other test uses, with a preStop hook that outlives the time in which
/// the proxy learns that the pod goes.
fn web(node_port: u16) -> String {
    let manifest = WEB.replace("30080", &node_port.to_string());
    manifest.replace("          ports:\n", "          lifecycle: {preStop: {sleep: {seconds: 3}}}\n          ports:\n")
}

fn addresses(cluster: &Cluster) -> Vec<(String, String)> {
    let pods = cluster.pods("app=web");
    let field = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    pods.iter().map(|pod| (field(&pod["metadata"]["name"]), field(&pod["status"]["podIP"]))).collect()
}

/// Who answers when asked so often that a spread over three leaves nobody out.
fn who_answers(address: &str, path: &str) -> BTreeSet<String> {
    (0..60).map(|_| http_get(address, path).expect("the service answers").trim().to_owned()).collect()
}

#[test]
fn a_deployment_answers_on_its_node_port_its_cluster_ip_and_by_name() {
    if !enabled("service") {
        return;
    }
    let cluster = shared("service");
    cluster.apply(&web(30081));
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let pods = addresses(&cluster);
    let names: BTreeSet<String> = pods.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), 3);

    let node = cluster.get("node/node-1", "{.status.addresses[?(@.type==\"InternalIP\")].address}");
    let cluster_ip = cluster.get("service/web", "{.spec.clusterIP}");
    cluster.wait("the service to be programmed", || http_get(&format!("{node}:30081"), "/").is_ok());
    assert_eq!(who_answers(&format!("{node}:30081"), "/hostname"), names, "the node port spreads over all pods");
    assert_eq!(who_answers(&format!("{cluster_ip}:80"), "/hostname"), names, "so does the cluster's address from the node");

    let pod = format!("{}:8080", pods[0].1);
    for name in [cluster_ip.as_str(), "web", "web.service", "web.service.svc.cluster.local"] {
        let seen = who_answers(&pod, &format!("/fetch/{name}:80/hostname"));
        assert_eq!(seen, names, "a pod reaches {name}, itself behind it included");
    }

    // The pod that isn't ready gets nothing, and comes back when it is.
    http_get(&pod, "/readyz/off").expect("the pod answers");
    cluster.wait_for(&format!("pod/{}", pods[0].0), "{.status.conditions[?(@.type==\"Ready\")].status}", "False");
    let others: BTreeSet<String> = names.iter().filter(|name| **name != pods[0].0).cloned().collect();
    cluster.wait("the pod to be left out", || who_answers(&format!("{cluster_ip}:80"), "/hostname") == others);
    assert_eq!(who_answers(&format!("{node}:30081"), "/hostname"), others);
    http_get(&pod, "/readyz/on").expect("the pod answers");
    cluster.wait("the pod to be back", || who_answers(&format!("{cluster_ip}:80"), "/hostname") == names);
}

#[test]
fn a_rolling_update_and_its_undo_lose_no_request() {
    if !enabled("rolling update") {
        return;
    }
    let cluster = shared("rolling");
    cluster.apply(&web(30082));
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let address = format!("{}:80", cluster.get("service/web", "{.spec.clusterIP}"));
    cluster.wait("the service to be programmed", || http_get(&address, "/version").is_ok());

    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut failures = vec![];
            while !stop.load(Ordering::SeqCst) {
                failures.extend(http_get(&address, "/version").err());
                asked.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
            failures
        });
        cluster.ok(&["set", "image", "deployment/web", "web=registry.slipway.test/web:2"]);
        cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        cluster.wait("the new version alone", || who_answers(&address, "/version") == BTreeSet::from(["2".into()]));
        cluster.ok(&["rollout", "undo", "deployment/web"]);
        cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
        cluster.wait("the old version alone", || who_answers(&address, "/version") == BTreeSet::from(["1".into()]));
        stop.store(true, Ordering::SeqCst);
        client.join().expect("the client ends")
    });
    assert!(failures.is_empty(), "{} of {} failed: {:?}", failures.len(), asked.into_inner(), failures.first());
}
