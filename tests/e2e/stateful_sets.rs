//! StatefulSets on containerd: the order in which pods come, are replaced and go, and the names by which they find each other.

use crate::cluster::{Cluster, enabled, http_get, shared};
use crate::conversation::Conversation;

const PEERS: &str = include_str!("../../infra/samples/statefulset.yaml");
const SET: &str = "statefulset/peer";

/// What became of the pods, in its order: `+peer-0` made, `=peer-0` ready, `-peer-0` gone.
struct Story {
    watch: Conversation,
}

impl Story {
    fn follow(cluster: &Cluster) -> Self {
        let arguments = ["get", "pods", "-w", "--output-watch-events", "-l", "app=peer"];
        Story { watch: Conversation::start(cluster.kubectl_command("").args(arguments)) }
    }

    fn told(&self) -> Vec<String> {
        let mut told: Vec<String> = vec![];
        let mut ready = std::collections::BTreeSet::new();
        for line in self.watch.said().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [event, name, state, status, ..] = words[..] else { continue };
            match event {
                "ADDED" => told.push(format!("+{name}")),
                "DELETED" => {
                    ready.remove(name);
                    told.push(format!("-{name}"));
                    continue;
                }
                "MODIFIED" => {}
                _ => continue,
            }
            if state == "1/1" && status == "Running" && ready.insert(name.to_owned()) {
                told.push(format!("={name}"));
            }
        }
        told
    }

    /// Waits for what is told last, and answers with all that was told.
    fn until(&self, cluster: &Cluster, last: &str) -> String {
        cluster.wait(last, || self.told().last().is_some_and(|told| told == last));
        self.told().join(" ")
    }
}

fn roll(cluster: &Cluster) -> String {
    cluster.ok(&["rollout", "status", SET, "--timeout=120s"])
}

fn images(cluster: &Cluster) -> String {
    let path = "{range .items[*]}{.metadata.name}:{.spec.containers[0].image} {end}";
    let pods = cluster.ok(&["get", "pods", "-l", "app=peer", "-o", &format!("jsonpath={path}")]);
    pods.replace("registry.slipway.test/", "").trim().to_owned()
}

#[test]
fn a_set_comes_up_is_updated_and_goes_in_order_under_its_names() {
    if !enabled("stateful sets") {
        return;
    }
    let cluster = shared("stateful");
    let story = Story::follow(&cluster);
    cluster.apply(PEERS);
    roll(&cluster);
    assert_eq!(story.until(&cluster, "=peer-2"), "+peer-0 =peer-0 +peer-1 =peer-1 +peer-2 =peer-2");
    let listed = cluster.ok(&["get", "all"]);
    assert!(listed.contains("statefulset.apps/peer   3/3"), "{listed}");

    // From one to the others, by every length of their names.
    let address = cluster.get("pod/peer-0", "{.status.podIP}");
    let namespace = cluster.namespace();
    for peer in ["peer-1", "peer-2"] {
        for name in [
            format!("{peer}.peers"),
            format!("{peer}.peers.{namespace}.svc"),
            format!("{peer}.peers.{namespace}.svc.cluster.local"),
        ] {
            let fetch = format!("/fetch/{name}:8080/hostname");
            cluster.wait(&fetch, || http_get(&format!("{address}:8080"), &fetch).is_ok_and(|said| said.trim() == peer));
        }
    }

    // An update goes from the highest down to the partition.
    let partition = |from: u32| {
        let patch = format!("{{\"spec\":{{\"updateStrategy\":{{\"rollingUpdate\":{{\"partition\":{from}}}}}}}}}");
        cluster.ok(&["patch", SET, "-p", &patch]);
    };
    partition(1);
    cluster.ok(&["set", "image", SET, "web=registry.slipway.test/web:2"]);
    let said = roll(&cluster);
    assert!(said.contains("partitioned roll out complete: 2 new pods have been updated"), "{said}");
    let told = story.until(&cluster, "=peer-1");
    assert!(told.ends_with("=peer-2 -peer-2 +peer-2 =peer-2 -peer-1 +peer-1 =peer-1"), "{told}");
    assert_eq!(images(&cluster), "peer-0:web:1 peer-1:web:2 peer-2:web:2");
    partition(0);
    let said = roll(&cluster);
    assert!(said.contains("roll out complete: 3 new pods have been updated"), "{said}");
    assert_eq!(images(&cluster), "peer-0:web:2 peer-1:web:2 peer-2:web:2");

    // Back, and on again.
    let history = cluster.ok(&["rollout", "history", SET]);
    assert_eq!(history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count(), 2, "{history}");
    cluster.ok(&["rollout", "undo", SET]);
    roll(&cluster);
    assert_eq!(images(&cluster), "peer-0:web:1 peer-1:web:1 peer-2:web:1");
    cluster.ok(&["rollout", "restart", SET]);
    roll(&cluster);
    assert!(cluster.ok(&["rollout", "history", SET]).contains("\n4 "), "the restart is a revision of its own");

    // It shrinks from the highest down.
    cluster.ok(&["scale", SET, "--replicas=1"]);
    let told = story.until(&cluster, "-peer-1");
    assert!(told.ends_with("-peer-2 -peer-1"), "{told}");
    let described = cluster.ok(&["describe", SET]);
    for words in ["delete Pod peer-2 in StatefulSet peer successful", "create Pod peer-0 in StatefulSet peer successful"] {
        assert!(described.contains(words), "no {words:?} in\n{described}");
    }
    cluster.ok(&["delete", SET]);
    cluster.wait("its pods to go with it", || cluster.pods("app=peer").is_empty());
}
