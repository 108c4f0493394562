//! Deployments: what a rollout keeps to while it goes on, and how it fails.

use crate::cluster::{Cluster, enabled, shared, text};
use crate::conversation::Conversation;
use std::collections::{BTreeMap, BTreeSet};

fn deployment(name: &str, replicas: u32, more: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  {more}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: registry.slipway.test/web:1
          readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
"
    )
}

fn roll(cluster: &Cluster, name: &str) {
    cluster.ok(&["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"]);
}

/// Follows the pods of a deployment, and calls `look` with the live ones' names after every change.
struct Pods {
    watch: Conversation,
}

impl Pods {
    fn follow(cluster: &Cluster, app: &str) -> Self {
        let arguments = ["get", "pods", "-w", "--output-watch-events", "-l", &format!("app={app}")];
        Pods { watch: Conversation::start(cluster.kubectl_command("").args(arguments)) }
    }

    /// The names of the pods that existed, with whether they were ready, after each change.
    fn states(&self) -> Vec<BTreeMap<String, bool>> {
        let mut pods = BTreeMap::new();
        let mut states = vec![];
        for line in self.watch.said().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [event, name, ready, status, ..] = words[..] else { continue };
            match event {
                "ADDED" | "MODIFIED" => drop(pods.insert(name.to_owned(), ready == "1/1" && status == "Running")),
                "DELETED" => drop(pods.remove(name)),
                _ => continue,
            }
            states.push(pods.clone());
        }
        states
    }
}

#[test]
fn a_rollout_keeps_to_its_surge_and_its_minimum() {
    if !enabled("surge") {
        return;
    }
    let cluster = shared("surge");
    let rolling = "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}";
    cluster.apply(&deployment("rolls", 4, rolling));
    cluster.apply(&deployment("again", 2, "strategy: {type: Recreate}"));
    roll(&cluster, "rolls");
    roll(&cluster, "again");
    let said = cluster.ok(&["describe", "deployments"]);
    assert!(said.contains("1 max unavailable, 1 max surge") && said.contains("StrategyType:       Recreate"), "{said}");
    let mut counts = Conversation::start(cluster.kubectl_command("").args([
        "get",
        "deployment",
        "rolls",
        "-w",
        "-o",
        "jsonpath={.status.replicas} {.status.availableReplicas} {.status.updatedReplicas};",
    ]));
    counts.until("4 4 4;");
    let sizes = Conversation::start(cluster.kubectl_command("").args([
        "get",
        "replicasets",
        "-w",
        "-o",
        "jsonpath={.metadata.name} {.spec.replicas};",
    ]));
    let pods = Pods::follow(&cluster, "again");
    cluster.wait("the watch", || pods.states().last().is_some_and(|pods| pods.len() == 2));

    cluster.ok(&["set", "image", "deployment/rolls", "web=registry.slipway.test/web:2"]);
    cluster.ok(&["set", "image", "deployment/again", "web=registry.slipway.test/web:2"]);
    roll(&cluster, "rolls");
    roll(&cluster, "again");
    let said = counts.said();
    for state in said.split(';').filter(|state| !state.is_empty()) {
        let numbers: Vec<u32> = state.split(' ').map(|number| number.parse().unwrap_or(0)).collect();
        assert!(numbers[1] >= 3, "fewer than the minimum, at {state}: {said}");
    }
    // How many there may be is what the ReplicaSets are told; the status of each follows in its own time.
    let (said_of_sizes, mut told) = (sizes.said(), BTreeMap::new());
    for (name, size) in
        said_of_sizes.split(';').filter_map(|set| set.split_once(' ')).filter(|(name, _)| name.starts_with("rolls-"))
    {
        told.insert(name, size.parse::<u32>().unwrap_or(0));
        assert!(told.values().sum::<u32>() <= 5, "more than the surge: {said_of_sizes}");
    }
    assert_eq!(told.len(), 2, "both ReplicaSets have been seen: {said_of_sizes}");
    assert!(said.split(';').count() > 4, "the rollout has been seen: {said}");
    let states = pods.states();
    for state in &states {
        // As `again-HASH-ID`: those of one ReplicaSet share the hash.
        let sets: BTreeSet<&str> = state.keys().filter_map(|name| name.split('-').nth(1)).collect();
        assert!(sets.len() <= 1, "the old pods are gone before the new ones come: {states:#?}");
    }
    assert!(states.iter().any(|state| state.is_empty()), "{states:?}");
}

#[test]
fn a_rollout_that_makes_no_progress_says_so_and_is_undone() {
    if !enabled("stuck") {
        return;
    }
    let cluster = shared("stuck");
    cluster.apply(&deployment("stuck", 2, "progressDeadlineSeconds: 4"));
    roll(&cluster, "stuck");
    cluster.ok(&["set", "image", "deployment/stuck", "web=registry.slipway.test/missing:1"]);
    let progressing = "{.status.conditions[?(@.type==\"Progressing\")].";
    cluster.wait_for("deployment/stuck", &format!("{progressing}reason}}"), "ProgressDeadlineExceeded");
    assert_eq!(cluster.get("deployment/stuck", &format!("{progressing}status}}")), "False");
    assert!(cluster.get("deployment/stuck", &format!("{progressing}message}}")).ends_with("\" has timed out progressing."));
    let status = cluster.kubectl(&["rollout", "status", "deployment/stuck"]);
    assert!(!status.status.success() && text(&status).contains("exceeded its progress deadline"), "{}", text(&status));
    assert_eq!(cluster.get("deployment/stuck", "{.status.availableReplicas}"), "2", "what ran runs on");
    assert_eq!(cluster.get("deployment/stuck", "{.status.conditions[?(@.type==\"Available\")].status}"), "True");

    cluster.ok(&["rollout", "undo", "deployment/stuck"]);
    roll(&cluster, "stuck");
    assert_eq!(cluster.get("deployment/stuck", &format!("{progressing}reason}}")), "NewReplicaSetAvailable");

    // Paused, it scales but does not roll.
    cluster.ok(&["rollout", "pause", "deployment/stuck"]);
    cluster.ok(&["set", "image", "deployment/stuck", "web=registry.slipway.test/web:2"]);
    cluster.ok(&["scale", "deployment/stuck", "--replicas=3"]);
    cluster.wait_for("deployment/stuck", "{.status.availableReplicas}", "3");
    let images = |cluster: &Cluster| -> BTreeSet<String> {
        let pods = cluster.pods("app=stuck");
        pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(images(&cluster), BTreeSet::from(["registry.slipway.test/web:1".to_owned()]));
    assert_eq!(cluster.get("deployment/stuck", "{.status.updatedReplicas}"), "");
    cluster.ok(&["rollout", "resume", "deployment/stuck"]);
    roll(&cluster, "stuck");
    assert_eq!(images(&cluster), BTreeSet::from(["registry.slipway.test/web:2".to_owned()]));
}
