//! Looking into a pod that runs, and giving it other resources: `kubectl debug`, `--subresource resize`.

use crate::cluster::{Cluster, enabled, shared};
use crate::conversation::Conversation;

const WEB: &str = "apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, 'echo serving; exec sleep 4711']
";

fn ephemeral(cluster: &Cluster, name: &str, field: &str) -> String {
    cluster.get("pod/web", &format!("{{.status.ephemeralContainerStatuses[?(@.name=='{name}')]{field}}}"))
}

/// `[sig-node] Ephemeral Containers will start an ephemeral container in an existing pod [Conformance]`
#[test]
fn kubectl_debug_looks_into_a_running_pod() {
    if !enabled("debug") {
        return;
    }
    let cluster = shared("debug");
    cluster.apply(WEB);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    let image = "--image=registry.slipway.test/busybox:1";
    let command = cluster.kubectl_command("");
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let kubectl = std::iter::once("kubectl".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    let mut shell = Conversation::in_terminal(&format!("{kubectl} debug -it web {image} --target=main --container=look -- sh"));
    cluster.wait("it to run", || !ephemeral(&cluster, "look", ".state.running.startedAt").is_empty());
    shell.say("\r");
    shell.until("# ");
    // It sees the processes of its target, which are not its own.
    shell.say("ps | grep -q '[s]leep 4711' && echo seen-$((40+2))\r");
    shell.until("seen-42");
    shell.say("echo told > /proc/1/root/tmp/note; exit 3\r");
    cluster.wait_for("pod/web", "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}", "3");
    assert_eq!(cluster.ok(&["exec", "web", "-c", "main", "--", "cat", "/tmp/note"]), "told\n");

    // Another one, with logs and exec of its own; the first does not start again.
    cluster.ok(&["debug", "web", image, "--container=side", "--", "sh", "-c", "echo hello from side; exec sleep 3600"]);
    cluster.wait("the second to run", || !ephemeral(&cluster, "side", ".state.running.startedAt").is_empty());
    cluster.wait("its log", || cluster.ok(&["logs", "web", "-c", "side"]) == "hello from side\n");
    assert!(!cluster.ok(&["exec", "web", "-c", "side", "--", "ps"]).contains("4711"), "it has processes of its own");
    assert_eq!(ephemeral(&cluster, "look", ".restartCount"), "0");
    assert_eq!(cluster.get("pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
    assert_eq!(cluster.get("pod/web", "{.metadata.generation}"), cluster.get("pod/web", "{.status.observedGeneration}"));
    cluster.ok(&["delete", "pod", "web", "--timeout=60s"]);
}

const RESIZED: &str = "apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sleep, '3600']
      resources:
        requests: {cpu: 100m, memory: 32Mi}
        limits: {cpu: 200m, memory: 64Mi}
      resizePolicy:
        - {resourceName: memory, restartPolicy: RestartContainer}
    - name: other
      image: registry.slipway.test/busybox:1
      command: [sleep, '3600']
";

/// What the container's cgroup says of its CPU quota and its memory, by whichever version of cgroups.
fn limits(cluster: &Cluster) -> String {
    let script = "cut -d' ' -f1 /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us; \
                  cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    let output = cluster.kubectl(&["exec", "sized", "-c", "main", "--", "sh", "-c", script]);
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn resize(cluster: &Cluster, resources: &str) {
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#);
    cluster.ok(&["patch", "pod", "sized", "--subresource", "resize", "--patch", &patch]);
}

#[test]
fn a_running_pod_gets_other_resources() {
    if !enabled("resize") {
        return;
    }
    let cluster = shared("resize");
    cluster.apply(RESIZED);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/sized", "--timeout=60s"]);
    assert_eq!(limits(&cluster), "20000 67108864");
    let status = |field: &str| cluster.get("pod/sized", &format!("{{.status.containerStatuses[0]{field}}}"));
    let first = status(".containerID");

    resize(&cluster, r#"{"requests":{"cpu":"300m"},"limits":{"cpu":"500m"}}"#);
    cluster.wait("the CPU to follow", || limits(&cluster) == "50000 67108864");
    cluster.wait_for("pod/sized", "{.status.containerStatuses[0].resources.limits.cpu}", "500m");
    assert_eq!(status(".allocatedResources.cpu"), "300m");
    assert_eq!((status(".restartCount"), status(".containerID")), ("0".into(), first.clone()));

    // Its memory it gets by a restart; the container beside it goes on.
    resize(&cluster, r#"{"requests":{"memory":"48Mi"},"limits":{"memory":"96Mi"}}"#);
    cluster.wait_for("pod/sized", "{.status.containerStatuses[0].restartCount}", "1");
    cluster.wait("the memory to follow", || limits(&cluster) == "50000 100663296");
    assert_ne!(status(".containerID"), first);
    assert_eq!(cluster.get("pod/sized", "{.status.containerStatuses[1].restartCount}"), "0");
    resize(&cluster, r#"{"requests":{"cpu":"50m"},"limits":{"cpu":"100m"}}"#);
    cluster.wait("less CPU", || limits(&cluster) == "10000 100663296");
    assert_eq!(status(".restartCount"), "1");
    cluster.wait("the resize to be over", || {
        let pod = cluster.json(&["get", "pod", "sized"]);
        let resizing =
            |condition: &serde_json::Value| condition["type"].as_str().is_some_and(|kind| kind.starts_with("PodResize"));
        !pod["status"]["conditions"].as_array().unwrap().iter().any(resizing)
    });
    cluster.wait("the events", || {
        let events = cluster.ok(&["describe", "pod", "sized"]);
        events.contains("ResizeStarted") && events.contains("ResizeCompleted") && events.contains("resize requires restart")
    });
}

#[test]
fn a_resize_waits_until_others_make_room() {
    if !enabled("deferred") {
        return;
    }
    let cluster = shared("deferred");
    let milli = |text: &str| match text.strip_suffix('m') {
        Some(milli) => milli.parse::<i64>().unwrap(),
        None => text.parse::<i64>().unwrap() * 1000,
    };
    let allocatable = milli(&cluster.get("node/node-1", "{.status.allocatable.cpu}"));
    let pod = |name: &str, cpu: i64| {
        let request = RESIZED.replace("limits: {cpu: 200m, ", "limits: {").replace("cpu: 100m", &format!("cpu: {cpu}m"));
        request.replace("name: sized", &format!("name: {name}"))
    };
    let (large, small) = (allocatable * 6 / 10, allocatable / 10);
    cluster.apply(&pod("large", large));
    cluster.apply(&pod("sized", small));
    for name in ["pod/large", "pod/sized"] {
        cluster.ok(&["wait", "--for=condition=Ready", name, "--timeout=60s"]);
    }
    resize(&cluster, &format!(r#"{{"requests":{{"cpu":"{}m"}}}}"#, allocatable / 2));
    let pending = "{.status.conditions[?(@.type=='PodResizePending')].reason}";
    cluster.wait_for("pod/sized", pending, "Deferred");
    assert_eq!(cluster.get("pod/sized", "{.status.containerStatuses[0].allocatedResources.cpu}"), format!("{small}m"));
    cluster.ok(&["delete", "pod", "large", "--timeout=60s"]);
    cluster.wait("room", || {
        let granted = cluster.get("pod/sized", "{.status.containerStatuses[0].resources.requests.cpu}");
        milli(&granted) == allocatable / 2 && cluster.get("pod/sized", pending).is_empty()
    });
    let patch = r#"{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"1000"}}}]}}"#;
    let output = cluster.kubectl(&["patch", "pod", "sized", "--subresource", "resize", "--patch", patch]);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(why.contains("node didn't have enough allocatable resources: cpu"), "{why}");
}
