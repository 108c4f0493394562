//! What a pod may ask of its node, on containerd.

use crate::cluster::{Cluster, enabled, http_get, shared};
use crate::conversation::Conversation;
use std::path::Path;
use std::process::Command;

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [example.test], options: [{name: ndots, value: '2'}]}
  hostAliases: [{ip: 192.0.2.7, hostnames: [seven.test, seven]}]
  containers:
    - name: main
      image: registry.slipway.test/web:1
      env: [{name: START_DELAY_MS, value: '3000'}]
      ports: [{containerPort: 8080, hostPort: 18081}]
      startupProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 60}
      livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      readinessProbe: {grpc: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: registry.slipway.test/web:1
      livenessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: never-starts}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: registry.slipway.test/web:1
      startupProbe: {httpGet: {path: /status/500, port: 8080}, periodSeconds: 1, failureThreshold: 2}
";

#[test]
fn probes_by_http_tcp_and_grpc_and_the_ports_and_names_of_a_pod() {
    if !enabled("probed") {
        return;
    }
    let cluster = shared("probed");
    cluster.apply(PROBED);
    cluster.wait_for("pod/probed", "{.status.containerStatuses[0].started}", "false");
    cluster.ok(&["wait", "--for=condition=Ready", "pod/probed", "--timeout=60s"]);
    assert_eq!(
        cluster.get("pod/probed", "{.status.containerStatuses[0].started} {.status.containerStatuses[0].restartCount}"),
        "true 0"
    );
    let described = cluster.ok(&["describe", "pod", "probed"]);
    assert!(described.contains("Startup probe failed: Get \"http://10.244."), "{described}");

    // The node's port: from the node, by its address and by loopback.
    let node = cluster.get("node/node-1", "{.status.addresses[?(@.type==\"InternalIP\")].address}");
    for address in
        [format!("{node}:18081"), "127.0.0.1:18081".into(), format!("{}:8080", cluster.get("pod/probed", "{.status.podIP}"))]
    {
        cluster.wait(&format!("{address} to answer"), || http_get(&address, "/hostname").as_deref() == Ok("probed\n"));
    }
    let pod = format!("{node}:18081");
    let resolv = http_get(&pod, "/file/etc/resolv.conf").expect("the pod answers");
    assert_eq!(resolv, "search example.test\nnameserver 192.0.2.53\noptions ndots:2\n");
    let hosts = http_get(&pod, "/file/etc/hosts").expect("the pod answers");
    assert!(hosts.contains("192.0.2.7\tseven.test\tseven\n") && hosts.contains("\tprobed\n"), "{hosts}");

    http_get(&pod, "/healthz/off").expect("the pod answers");
    cluster.ok(&["wait", "--for=condition=Ready=false", "pod/probed", "--timeout=60s"]);
    cluster.wait("the event", || {
        cluster
            .ok(&["describe", "pod", "probed"])
            .contains("Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")")
    });
    http_get(&pod, "/healthz/on").expect("the pod answers");
    cluster.ok(&["wait", "--for=condition=Ready", "pod/probed", "--timeout=60s"]);

    cluster.wait("the deaf one to be restarted", || {
        cluster.get("pod/deaf", "{.status.containerStatuses[0].restartCount}").parse::<u32>().is_ok_and(|count| count >= 1)
    });
    let described = cluster.ok(&["describe", "pod", "deaf"]);
    for wanted in
        ["Liveness probe failed: dial tcp 10.244.", ":9: connect: connection refused", "failed liveness probe, will be restarted"]
    {
        assert!(described.contains(wanted), "no {wanted:?} in\n{described}");
    }
    cluster.wait_for("pod/never-starts", "{.status.phase}", "Failed");
    let described = cluster.ok(&["describe", "pod", "never-starts"]);
    assert!(described.contains("Startup probe failed: HTTP probe failed with statuscode: 500"), "{described}");
    assert!(described.contains("Container main failed startup probe"), "{described}");
}

const SECURED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: secured}
spec:
  terminationGracePeriodSeconds: 0
  dnsPolicy: Default
  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000]}
  volumes: [{name: data, emptyDir: {}}]
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sleep, '3600']
      resources: {requests: {cpu: 100m}, limits: {cpu: 250m, memory: 64Mi}}
      securityContext:
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
      volumeMounts: [{name: data, mountPath: /data}]
---
apiVersion: v1
kind: Pod
metadata: {name: root}
spec:
  restartPolicy: Never
  containers:
    - {name: main, image: 'registry.slipway.test/busybox:1', command: [id], securityContext: {runAsNonRoot: true}}
---
apiVersion: v1
kind: Pod
metadata: {name: absent}
spec:
  restartPolicy: Never
  containers:
    - {name: main, image: 'registry.slipway.test/absent:1', imagePullPolicy: Never}
---
apiVersion: v1
kind: Pod
metadata: {name: second-try}
spec:
  restartPolicy: OnFailure
  volumes: [{name: kept, emptyDir: {}}]
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, '[ -e /kept/was ] || { touch /kept/was; exit 1; }']
      volumeMounts: [{name: kept, mountPath: /kept}]
---
apiVersion: v1
kind: Pod
metadata: {name: early}
spec:
  restartPolicy: Never
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'registry.slipway.test/busybox:1', command: [sleep, '3600']}]
";

#[test]
fn security_limits_and_restart_policies_are_kept() {
    if !enabled("secured") {
        return;
    }
    let cluster = shared("secured");
    cluster.apply(SECURED);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/secured", "--timeout=60s"]);
    let shell = |script: &str| cluster.ok(&["exec", "secured", "--", "sh", "-c", script]);
    assert_eq!(shell("echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)"), "1000 3000 2000 3000 4000\n");
    assert!(shell("touch /x 2>&1 || true").contains("Read-only file system"));
    assert_eq!(
        shell("touch /data/x; stat -c '%u %g' /data/x; grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\n'"),
        "1000 2000\nCapBnd:\t0000000000000400NoNewPrivs:\t1"
    );
    assert_eq!(
        shell("cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["25000", "100000"]
    );
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = |text: &str| text.lines().filter(|line| line.starts_with("nameserver")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(servers(&shell("cat /etc/resolv.conf")), servers(&own), "the node's servers");
    assert_eq!(cluster.get("pod/secured", "{.status.qosClass}"), "Burstable");

    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    cluster.wait_for("pod/root", waiting, "CreateContainerConfigError");
    assert!(
        cluster
            .get("pod/root", "{.status.containerStatuses[0].state.waiting.message}")
            .starts_with("container has runAsNonRoot and image will run as root")
    );
    cluster.wait_for("pod/absent", waiting, "ErrImageNeverPull");
    cluster.wait_for("pod/second-try", "{.status.phase} {.status.containerStatuses[0].restartCount}", "Succeeded 1");
    cluster.wait_for("pod/early", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
}

/// Leaves a line for each thing that happens to it, outside of itself.
fn graceful(name: &str, dir: &Path, grace: u32, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: {grace}
  volumes: [{{name: out, hostPath: {{path: {}, type: Directory}}}}]
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, '{script}']
      lifecycle: {{preStop: {{exec: {{command: [sh, -c, 'echo pre-stop >> /out/{name}; sleep 1']}}}}}}
      volumeMounts: [{{name: out, mountPath: /out}}]
---
",
        dir.display()
    )
}

#[test]
fn a_pod_ends_by_its_hook_its_signal_and_at_last_by_force() {
    if !enabled("graceful") {
        return;
    }
    let cluster = shared("graceful");
    let dir = cluster.data_dir.join("graceful");
    std::fs::create_dir_all(&dir).expect("the directory is ours");
    let loops = "while true; do sleep 0.1; done";
    cluster.apply(
        &[
            graceful("polite", &dir, 30, &format!("trap \"echo stopped >> /out/polite; exit 0\" TERM; echo up; {loops}")),
            graceful("stubborn", &dir, 3, &format!("trap \"echo ignored >> /out/stubborn\" TERM; echo up; {loops}")),
        ]
        .concat(),
    );
    cluster.ok(&["wait", "--for=condition=Ready", "pod/polite", "pod/stubborn", "--timeout=60s"]);
    let mut watch = Conversation::start(cluster.kubectl_command("").args(["get", "pods", "-w", "--output-watch-events"]));
    watch.until("stubborn");
    cluster.ok(&["delete", "pod", "polite", "stubborn", "--timeout=60s"]);
    let left = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert_eq!((left("polite").as_str(), left("stubborn").as_str()), ("pre-stop\nstopped\n", "pre-stop\nignored\n"));
    watch.until("DELETED    polite");
    assert!(watch.said().contains("Terminating"), "{}", watch.said());
    let killed = cluster.ok(&["get", "events", "--field-selector", "reason=Killing"]);
    assert!(killed.contains("Stopping container main"), "{killed}");
}

fn waits_for(cluster: &Cluster, reason: &str) {
    cluster.wait_for("pod/pulled", "{.status.containerStatuses[0].state.waiting.reason}", reason);
}

#[test]
fn an_image_is_pulled_from_a_registry_once_there_is_one() {
    if !enabled("pull") {
        return;
    }
    let cluster = shared("pull");
    // As a person would: containerd is told where the registry is by a file below the data directory.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/images/registry.sh");
    let hosts = Command::new(&script).arg("--hosts").output().expect("bash is installed");
    let certs = cluster.data_dir.join("containerd/certs.d/registry.slipway.test");
    std::fs::create_dir_all(&certs).expect("the directory is ours");
    std::fs::write(certs.join("hosts.toml"), &hosts.stdout).expect("the directory is ours");
    cluster.ok(&["run", "pulled", "--image=registry.slipway.test/pulled:1", "--image-pull-policy=Always"]);
    waits_for(&cluster, "ImagePullBackOff");
    cluster.wait("its events", || {
        let said = cluster.ok(&["describe", "pod", "pulled"]);
        [
            "Pulling image \"registry.slipway.test/pulled:1\"",
            "Failed to pull image",
            "Error: ErrImagePull",
            "Error: ImagePullBackOff",
            "Back-off pulling image",
        ]
        .iter()
        .all(|wanted| said.contains(wanted))
    });

    let images = cluster.data_dir.join("to-serve");
    std::fs::create_dir_all(&images).expect("the directory is ours");
    let archive = Path::new(&std::env::var("SLIPWAY_IMAGES").expect("it is set")).join("web-1.tar");
    std::fs::copy(archive, images.join("pulled-1.tar")).expect("the images were built");
    let mut registry = Conversation::start(Command::new(&script).arg(&images));
    registry.until("ready");
    cluster.ok(&["wait", "--for=condition=Ready", "pod/pulled", "--timeout=60s"]);
    let said = cluster.ok(&["describe", "pod", "pulled"]);
    assert!(said.contains("Successfully pulled image \"registry.slipway.test/pulled:1\" in"), "{said}");
    assert!(cluster.get("pod/pulled", "{.status.containerStatuses[0].imageID}").contains("@sha256:"));
    registry.stop();
    // What is there is not asked for again, unless the policy says so.
    cluster.ok(&["run", "present", "--image=registry.slipway.test/pulled:1", "--image-pull-policy=IfNotPresent"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/present", "--timeout=60s"]);
}
