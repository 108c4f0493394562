//! Pods in containerd: their configuration, their probes, their ends.

use crate::cluster::{enabled, shared};

const VOLUMES: &str = include_str!("../../infra/samples/volumes.yaml");
const INIT_SIDECAR: &str = include_str!("../../infra/samples/init-sidecar.yaml");
const CRASHLOOP: &str = include_str!("../../infra/samples/crashloop.yaml");

#[test]
fn configuration_reaches_environment_and_files_and_updates_the_files() {
    if !enabled("volumes") {
        return;
    }
    let cluster = shared("volumes");
    cluster.apply(VOLUMES);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/volumes", "--timeout=60s"]);
    let shell = |script: &str| cluster.ok(&["exec", "volumes", "--", "sh", "-c", script]);
    assert_eq!(shell("echo $GREETING $PASSWORD $LOGIN_username $MEMORY_LIMIT"), "hello correct-horse admin 33554432\n");
    assert_eq!(
        shell("cat /config/greeting /secret/password /all/from-config/greeting /all/from-secret/username"),
        "hellocorrect-horsehelloadmin"
    );
    assert_eq!(shell("stat -L -c %a /secret/password"), "400\n");
    assert!(shell("cat /all/labels").contains("app=\"volumes\""));
    assert!(shell("cat /all/annotations").contains("note=\"shown through the downward API\""));
    assert_eq!(shell("cut -d. -f2 /all/token | wc -l"), "1\n");
    assert!(shell("mount | grep ' /scratch '").contains("tmpfs"));
    assert!(shell("cat /etc/app.conf").contains("colour = blue"));
    assert!(
        shell("cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes")
            .contains("33554432")
    );

    cluster.ok(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"greeting":"good day"}}"#]);
    cluster.ok(&["label", "pod", "volumes", "seen=yes"]);
    cluster.wait("the files to follow", || {
        shell("cat /config/greeting") == "good day" && shell("cat /all/labels").contains("seen=\"yes\"")
    });
    assert_eq!(shell("echo $GREETING; grep colour /etc/app.conf"), "hello\ncolour = blue\n", "these stay as they were");
}

#[test]
fn init_containers_run_first_and_a_sidecar_beside_the_main_container() {
    if !enabled("sidecar") {
        return;
    }
    let cluster = shared("sidecar");
    cluster.apply(INIT_SIDECAR);
    cluster.wait_for("pod/init-sidecar", "{.status.phase}", "Succeeded");
    assert_eq!(cluster.get("pod/init-sidecar", "{.status.initContainerStatuses[0].state.terminated.reason}"), "Completed");
    let followed = cluster.ok(&["logs", "init-sidecar", "-c", "follow"]);
    let lines: Vec<&str> = followed.lines().collect();
    assert_eq!(lines.first(), Some(&"prepared"), "{followed}");
    assert!(lines.contains(&"post-start") && lines.contains(&"line 5"), "{followed}");
}

#[test]
fn a_crashing_container_backs_off_and_says_so() {
    if !enabled("crashloop") {
        return;
    }
    let cluster = shared("crashloop");
    cluster.apply(CRASHLOOP);
    cluster.wait_for("pod/crashloop", "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff");
    cluster.wait("a restart", || {
        cluster.get("pod/crashloop", "{.status.containerStatuses[0].restartCount}").parse::<u32>().is_ok_and(|count| count >= 1)
    });
    assert_eq!(cluster.get("pod/crashloop", "{.status.containerStatuses[0].lastState.terminated.exitCode}"), "3");
    cluster.wait("the event", || {
        cluster.ok(&["describe", "pod", "crashloop"]).contains("Back-off restarting failed container crash")
    });
    cluster.wait("the log of the one before", || cluster.ok(&["logs", "crashloop", "--previous"]).contains("going down"));
    cluster.wait("the back-off to grow", || {
        let message = cluster.get("pod/crashloop", "{.status.containerStatuses[0].state.waiting.message}");
        message.starts_with("back-off 20s restarting failed container=crash pod=crashloop_crashloop(")
    });
    cluster.wait_for("pod/no-such-image", "{.status.containerStatuses[0].state.waiting.reason}", "ImagePullBackOff");
}

#[test]
fn probes_decide_who_is_ready_and_who_is_restarted() {
    if !enabled("probes") {
        return;
    }
    let cluster = shared("probes");
    let pod = |name: &str, script: &str, probe: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, '{script}; exec sleep 3600']
      {probe}
---
"
        )
    };
    let exec = |file: &str| format!("{{exec: {{command: [cat, {file}]}}, periodSeconds: 1, failureThreshold: 1}}");
    cluster.apply(
        &[
            pod("unready", "true", &format!("readinessProbe: {}", exec("/tmp/ready"))),
            pod("dies", "touch /tmp/alive; sleep 4; rm /tmp/alive", &format!("livenessProbe: {}", exec("/tmp/alive"))),
        ]
        .concat(),
    );
    cluster.wait_for("pod/unready", "{.status.containerStatuses[0].started} {.status.containerStatuses[0].ready}", "true false");
    cluster.ok(&["exec", "unready", "--", "touch", "/tmp/ready"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/unready", "--timeout=60s"]);
    cluster.wait_for("pod/dies", "{.status.containerStatuses[0].restartCount}", "1");
    let events = cluster.ok(&["describe", "pod", "dies"]);
    assert!(events.contains("Liveness probe failed") && events.contains("failed liveness probe, will be restarted"), "{events}");
}

#[test]
fn a_container_says_why_it_ended() {
    if !enabled("ends") {
        return;
    }
    let cluster = shared("ends");
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: message}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, 'echo last words > /dev/termination-log; exit 4']
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, 'exec tail /dev/zero']
      resources: {limits: {memory: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
    - {name: main, image: 'registry.slipway.test/web:1', env: [{name: PORT, value: '18080'}]}
",
    );
    cluster.wait_for("pod/message", "{.status.phase}", "Failed");
    let ended = "{.status.containerStatuses[0].state.terminated";
    assert_eq!(cluster.get("pod/message", &format!("{ended}.exitCode}} {ended}.message}}")), "4 last words\n");
    cluster.wait_for("pod/greedy", "{.status.phase}", "Failed");
    assert_eq!(cluster.get("pod/greedy", &format!("{ended}.reason}} {ended}.exitCode}}")), "OOMKilled 137");
    cluster.ok(&["wait", "--for=condition=Ready", "pod/host", "--timeout=60s"]);
    assert_eq!(cluster.get("pod/host", "{.status.podIP}"), cluster.get("pod/host", "{.status.hostIP}"));
    cluster.wait("the node's port", || crate::cluster::http_get("127.0.0.1:18080", "/hostname").is_ok());
}
