//! The process itself: it stops and starts, dies and comes back, and leaves nothing behind.

use crate::cluster::{Cluster, enabled, text};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

const WRITERS: usize = 5;
const WRITTEN_BEFORE_DEATH: usize = 30;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sleep, "3600"]
    - name: other
      image: registry.slipway.test/web:1
"#;

/// What tells a container from its successor.
fn containers(cluster: &Cluster) -> Vec<(String, String, u64)> {
    let pod = cluster.json(&["get", "pod", "stays"]);
    let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    all.iter().map(|c| (field(&c["name"]), field(&c["containerID"]), c["restartCount"].as_u64().unwrap_or(99))).collect()
}

fn running_tasks(cluster: &Cluster) -> usize {
    text(&cluster.ctr(&["tasks", "list"])).matches("RUNNING").count()
}

#[test]
fn a_cluster_stops_dies_comes_back_and_leaves_nothing() {
    if !enabled("lifecycle") {
        return;
    }
    let mut cluster = Cluster::start_with_node("lifecycle");
    cluster.wait("the default service account", || cluster.kubectl(&["get", "serviceaccount", "default"]).status.success());
    cluster.apply(POD);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=60s"]);
    let before = containers(&cluster);
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|(_, id, restarts)| id.starts_with("containerd://") && *restarts == 0), "{before:?}");

    let second = cluster.second();
    assert!(!second.status.success() && text(&second).contains("another slipway runs"), "{}", text(&second));

    // An orderly stop: the pod's two containers and its sandbox run on.
    cluster.signal(Signal::SIGTERM);
    let took = cluster.wait_ended();
    assert!(took < Duration::from_secs(30), "it took {took:?} to stop:\n{}", cluster.log_tail());
    assert!(running_tasks(&cluster) >= 3, "pods keep running:\n{}", text(&cluster.ctr(&["tasks", "list"])));
    cluster.launch();
    same_pod(&cluster, &before);

    // Death in the middle of writes: what was acknowledged is there afterwards.
    let stored = write_until_killed(&mut cluster);
    assert!(running_tasks(&cluster) >= 3, "pods keep running:\n{}", text(&cluster.ctr(&["tasks", "list"])));
    cluster.launch();
    let maps = cluster.json(&["get", "configmaps"]);
    let found: BTreeMap<&str, &str> = maps["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|map| Some((map["metadata"]["name"].as_str()?, map["data"]["value"].as_str()?)))
        .collect();
    for (name, value) in &stored {
        assert_eq!(found.get(name.as_str()).copied(), value.as_deref(), "{name} is not as was acknowledged");
    }
    same_pod(&cluster, &before);
    // The node agent works on after it: a new container is started, an old one is ended.
    assert_eq!(cluster.ok(&["exec", "stays", "-c", "main", "--", "echo", "alive"]), "alive\n");
    cluster.ok(&["run", "next", "--image=registry.slipway.test/web:1"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/next", "--timeout=60s"]);

    cluster.signal(Signal::SIGTERM);
    cluster.wait_ended();
    let cleaned = cluster.clean();
    assert!(cleaned.status.success(), "{}", text(&cleaned));
    nothing_is_left(&cluster);
}

/// Several clients create, change and delete until the process is killed under them. Answers what they were told is
/// stored: a value, or nothing after a deletion. An object whose last write was not answered is left out.
fn write_until_killed(cluster: &mut Cluster) -> BTreeMap<String, Option<String>> {
    let stored = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (cluster, stored) = (&*cluster, &stored);
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("written-{writer}-{number}");
                    let patch = r#"{"data":{"value":"changed"}}"#;
                    let writes: [(&[&str], _); 3] = [
                        (&["create", "configmap", &name, "--from-literal=value=new"], Some("new".to_owned())),
                        (&["patch", "configmap", &name, "--type=merge", "-p", patch], Some("changed".to_owned())),
                        (&["delete", "configmap", &name], None),
                    ];
                    for (write, value) in writes.into_iter().take(1 + number % 3) {
                        if !cluster.kubectl(write).status.success() {
                            stored.lock().expect("no holder panics").remove(&name);
                            return;
                        }
                        stored.lock().expect("no holder panics").insert(name.clone(), value);
                    }
                }
            });
        }
        cluster.wait("many writes", || stored.lock().expect("no holder panics").len() >= WRITTEN_BEFORE_DEATH);
        cluster.signal(Signal::SIGKILL);
    });
    cluster.wait_ended();
    stored.into_inner().expect("no holder panics")
}

/// The node agent has looked at the pod again, and left it alone.
fn same_pod(cluster: &Cluster, before: &[(String, String, u64)]) {
    let started = cluster.get("node/node-1", "{.status.conditions[?(@.type==\"Ready\")].lastHeartbeatTime}");
    cluster.ok(&["wait", "--for=condition=Ready", "node/node-1", "--timeout=60s"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=60s"]);
    cluster.wait("the node agent to answer", || cluster.kubectl(&["exec", "stays", "-c", "main", "--", "true"]).status.success());
    assert_eq!(containers(cluster), before, "adopted, not restarted (heartbeat before: {started})");
}

fn nothing_is_left(cluster: &Cluster) {
    let dir = cluster.data_dir.display().to_string();
    assert!(!cluster.data_dir.exists(), "the data directory is gone");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux");
    assert!(!mounts.contains(&dir), "mounts are left:\n{mounts}");
    let processes = text(&Command::new("ps").args(["-eo", "args"]).output().expect("ps is installed"));
    let left: Vec<&str> = processes.lines().filter(|line| line.contains(&dir)).collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    let tables = text(&Command::new("nft").args(["list", "tables"]).output().expect("nft is installed"));
    assert!(!tables.contains("slipway"), "rules are left:\n{tables}");
    let links = text(&Command::new("ip").args(["-brief", "link"]).output().expect("ip is installed"));
    let left: Vec<&str> =
        links.lines().filter(|link| !link.starts_with("lo ") && !link.starts_with(crate::machine::UPLINK)).collect();
    assert!(left.is_empty(), "interfaces are left: {left:?}");
}
