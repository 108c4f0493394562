//! What a pod must do, case by case.

use crate::rig::{IMAGE, NODE, Rig};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Node, Pod, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use slipway_api::condition;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Runs the cases whose name contains a word of the filter, and returns those that failed.
pub async fn run(rig: &Rig, filter: &[String]) -> Vec<&'static str> {
    let mut failed = vec![];
    macro_rules! cases {
        ($($name:ident),* $(,)?) => {$(
            if filter.is_empty() || filter.iter().any(|word| stringify!($name).contains(word.as_str())) {
                let started = Instant::now();
                let outcome = AssertUnwindSafe($name(rig)).catch_unwind().await;
                println!("test {} ... {} ({:.1?})", stringify!($name), if outcome.is_ok() { "ok" } else { "FAILED" }, started.elapsed());
                if outcome.is_err() {
                    failed.push(stringify!($name));
                }
            }
        )*};
    }
    cases!(
        the_node_says_what_it_has,
        a_pod_runs_to_its_end,
        environment_and_volumes_are_as_asked,
        a_volume_follows_its_config_map,
        a_missing_config_map_is_waited_for,
        a_crash_is_backed_off,
        init_containers_and_sidecars_keep_their_order,
        probes_decide_on_readiness_and_restarts,
        limits_and_security_reach_the_container,
        an_image_that_cannot_be_had_says_so,
        deletion_runs_hooks_and_leaves_nothing,
        commands_and_ports_are_reached_from_outside,
        the_next_agent_adopts_what_runs,
        a_resize_is_put_in_force_also_by_the_next_agent,
        a_dead_sandbox_is_made_again,
        starting_costs_little_more_than_the_runtime,
    );
    println!("{} failed: {failed:?}", failed.len());
    failed
}

fn sh(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": IMAGE, "command": ["/bin/busybox", "sh", "/bin/run", "-c", script] })
}

fn once(script: &str) -> Value {
    json!({ "restartPolicy": "Never", "containers": [sh("main", script)] })
}

fn with(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

fn main_status(pod: &Pod) -> ContainerStatus {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first().cloned()).unwrap_or_default()
}

fn waiting(pod: &Pod) -> Option<(String, String)> {
    let waiting = main_status(pod).state?.waiting?;
    Some((waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
}

fn is_ready(pod: &Pod) -> bool {
    slipway_api::pod::is_ready(pod)
}

async fn the_node_says_what_it_has(rig: &Rig) {
    let nodes: Api<Node> = Api::all(rig.client.clone());
    let status = nodes.get(NODE).await.unwrap().status.unwrap();
    let info = status.node_info.unwrap();
    assert!(info.container_runtime_version.starts_with("containerd://"), "{}", info.container_runtime_version);
    assert_eq!(status.capacity.unwrap()["pods"].0, "110");
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        assert!(condition::get(status.conditions.as_deref(), kind).is_some(), "{kind}");
    }
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(rig.client.clone(), "kube-node-lease");
    let lease = rig.until("the lease is there", async || leases.get_opt(NODE).await.ok().flatten()).await;
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some(NODE));
}

async fn a_pod_runs_to_its_end(rig: &Rig) {
    rig.create("ends", once("echo out; echo err >&2; echo last > /dev/termination-log; exit 0")).await;
    let pod = rig.phase("ends", "Succeeded").await;
    let ended = main_status(&pod).state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref(), ended.message.as_deref()), (0, Some("Completed"), Some("last\n")));
    let status = pod.status.clone().unwrap();
    assert_eq!(condition::get(status.conditions.as_deref(), "Ready").unwrap().reason.as_deref(), Some("PodCompleted"));
    assert!(status.pod_ip.unwrap().starts_with("10.244.7."), "an address of the node's share");
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let log = rig.logs("ends").await;
    assert!(matches!(log.as_str(), "out\nerr\n" | "err\nout\n"), "two streams have no order: {log}");
    for reason in ["Pulled", "Created", "Started"] {
        rig.event("ends", reason).await;
    }
    rig.create("fails", once("echo why >&2; exit 7")).await;
    let pod = rig.phase("fails", "Failed").await;
    assert_eq!(main_status(&pod).state.unwrap().terminated.unwrap().exit_code, 7);
    rig.delete("ends", 0).await;
    rig.delete("fails", 0).await;
}

async fn environment_and_volumes_are_as_asked(rig: &Rig) {
    let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "default");
    let map = json!({ "metadata": { "name": "settings" }, "data": { "color": "blue", "size": "xl" } });
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(rig.client.clone(), "default");
    let secret = json!({ "metadata": { "name": "keys" }, "stringData": { "key": "opensesame" } });
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let script = "echo color=$COLOR size=$C_size both=$BOTH name=$NAME ip=$IP cpu=$CPU key=$KEY; cat /etc/cm/color; echo; \
                  cat /etc/keys/sub/k; echo; stat -c %a /etc/keys/sub/k; cat /etc/pod/labels; echo; \
                  mount | grep -q 'on /scratch type tmpfs' && echo tmpfs; id -u; id -G; stat -c %g /data; \
                  test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; \
                  cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; cat /one; echo; hostname; grep extra /etc/hosts; \
                  grep nameserver /etc/resolv.conf; touch /etc/cm/x 2>/dev/null || echo readonly";
    let mut container = sh("main", script);
    container["env"] = json!([
        { "name": "COLOR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "color" } } },
        { "name": "BOTH", "value": "$(COLOR)-$(C_size)-$$(COLOR)" },
        { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
        { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "key" } } },
    ]);
    container["envFrom"] = json!([{ "prefix": "C_", "configMapRef": { "name": "settings" } }]);
    container["resources"] = json!({ "limits": { "cpu": "250m", "memory": "64Mi" } });
    container["volumeMounts"] = json!([
        { "name": "cm", "mountPath": "/etc/cm", "readOnly": true },
        { "name": "cm", "mountPath": "/one", "subPath": "size" },
        { "name": "keys", "mountPath": "/etc/keys" },
        { "name": "pod", "mountPath": "/etc/pod" },
        { "name": "scratch", "mountPath": "/scratch" },
        { "name": "data", "mountPath": "/data" },
    ]);
    let spec = json!({
        "restartPolicy": "Never", "containers": [container], "hostname": "given",
        "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["extra"] }],
        "securityContext": { "runAsUser": 0, "fsGroup": 4321, "supplementalGroups": [77] },
        "volumes": [
            { "name": "cm", "configMap": { "name": "settings" } },
            { "name": "keys", "secret": { "secretName": "keys", "items": [{ "key": "key", "path": "sub/k", "mode": 256 }] } },
            { "name": "pod", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.name" } }] } },
            { "name": "scratch", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } },
            { "name": "data", "emptyDir": {} },
        ],
    });
    rig.create("environment", spec).await;
    let pod = rig.phase("environment", "Succeeded").await;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    let wanted = format!(
        "color=blue size=xl both=blue-xl-$(COLOR) name=environment ip={ip} cpu=250 key=opensesame\nblue\nopensesame\n440\nenvironment\n\
         tmpfs\n0\n0 77 4321\n4321\ntoken\ndefault\nxl\ngiven\n10.9.8.7\textra\nnameserver 10.96.0.10\nreadonly\n"
    );
    assert_eq!(rig.logs("environment").await, wanted);
    let uid = pod.metadata.uid.unwrap();
    let mounted = || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&format!("pods/{uid}"));
    rig.until("its volumes are unmounted though it is still there", async || (!mounted()).then_some(())).await;
    rig.delete("environment", 0).await;
}

async fn a_volume_follows_its_config_map(rig: &Rig) {
    let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "default");
    let map = json!({ "metadata": { "name": "live" }, "data": { "v": "one\n" } });
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let mut container = sh("main", "cat /c/v; until grep -q two /c/v; do sleep 0.1; done; cat /c/v");
    container["volumeMounts"] = json!([{ "name": "c", "mountPath": "/c" }]);
    let volumes = json!([{ "name": "c", "configMap": { "name": "live" } }]);
    rig.create("follows", json!({ "restartPolicy": "Never", "containers": [container], "volumes": volumes })).await;
    rig.phase("follows", "Running").await;
    rig.until("it has read the first", async || (rig.logs("follows").await == "one\n").then_some(())).await;
    let change = Patch::Merge(json!({ "data": { "v": "two\n" } }));
    maps.patch("live", &PatchParams::default(), &change).await.unwrap();
    rig.phase("follows", "Succeeded").await;
    assert_eq!(rig.logs("follows").await, "one\ntwo\n");
    rig.delete("follows", 0).await;
}

async fn a_missing_config_map_is_waited_for(rig: &Rig) {
    let mut container = sh("main", "cat /c/v");
    container["volumeMounts"] = json!([{ "name": "c", "mountPath": "/c" }]);
    let volumes = json!([{ "name": "c", "configMap": { "name": "late" } }]);
    rig.create("waits", json!({ "restartPolicy": "Never", "containers": [container], "volumes": volumes })).await;
    let event = rig.event("waits", "FailedMount").await;
    assert_eq!(event.message.as_deref(), Some("MountVolume.SetUp failed for volume \"c\" : configmap \"late\" not found"));
    let pod = rig.pods().get("waits").await.unwrap();
    assert_eq!(waiting(&pod).unwrap().0, "ContainerCreating");
    let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "default");
    let map = json!({ "metadata": { "name": "late" }, "data": { "v": "here" } });
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    rig.phase("waits", "Succeeded").await;
    assert_eq!(rig.logs("waits").await, "here");
    rig.delete("waits", 0).await;

    let mut container = sh("main", "true");
    container["env"] = json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "nowhere", "key": "k" } } }]);
    rig.create("wrong", json!({ "restartPolicy": "Never", "containers": [container] })).await;
    let wanted = ("CreateContainerConfigError".to_owned(), "secret \"nowhere\" not found".to_owned());
    rig.pod_until("wrong", "it says what is missing", |pod| waiting(pod).as_ref() == Some(&wanted)).await;
    rig.delete("wrong", 0).await;
}

async fn a_crash_is_backed_off(rig: &Rig) {
    let container = with(sh("main", "echo dying; exit 3"), json!({ "terminationMessagePolicy": "FallbackToLogsOnError" }));
    rig.create("crashes", json!({ "containers": [container] })).await;
    let crashed = |pod: &Pod| waiting(pod).is_some_and(|(reason, _)| reason == "CrashLoopBackOff");
    let pod = rig.pod_until("crashes", "it crashes again and again", crashed).await;
    let status = main_status(&pod);
    assert_eq!(status.restart_count, 1, "the first restart is at once, the second is put off");
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref(), last.message.as_deref()), (3, Some("Error"), Some("dying\n")));
    let uid = pod.metadata.uid.clone().unwrap();
    let wanted = format!("back-off 10s restarting failed container=main pod=crashes_default({uid})");
    assert_eq!(waiting(&pod).unwrap().1, wanted);
    assert_eq!(slipway_api::pod::phase(&pod), "Running");
    let event = rig.event("crashes", "BackOff").await;
    assert_eq!(event.message, Some(format!("Back-off restarting failed container main in pod crashes_default({uid})")));
    assert_eq!(
        rig.pods().logs("crashes", &kube::api::LogParams { previous: true, ..Default::default() }).await.unwrap(),
        "dying\n"
    );
    rig.pod_until("crashes", "it is tried once more", |pod| main_status(pod).restart_count == 2).await;
    rig.delete("crashes", 0).await;
}

async fn init_containers_and_sidecars_keep_their_order(rig: &Rig) {
    let volume = |mut container: Value| {
        container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
        container
    };
    let first = volume(sh("first", "echo first >> /v/order"));
    let mut side = volume(sh(
        "side",
        "trap 'echo side-ends >> /v/order; cat /v/order; exit 0' TERM; echo side >> /v/order; touch /up; while :; do sleep 0.1; done",
    ));
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = json!({ "exec": { "command": ["/bin/busybox", "test", "-e", "/up"] }, "periodSeconds": 1 });
    let second = volume(sh("second", "echo second >> /v/order"));
    let main = volume(sh("main", "echo main >> /v/order"));
    let spec = json!({
        "restartPolicy": "Never", "initContainers": [first, side, second], "containers": [main],
        "volumes": [{ "name": "v", "emptyDir": {} }],
    });
    rig.create("order", spec).await;
    rig.phase("order", "Succeeded").await;
    let of_side = kube::api::LogParams { container: Some("side".into()), ..Default::default() };
    assert_eq!(rig.pods().logs("order", &of_side).await.unwrap(), "first\nside\nsecond\nmain\nside-ends\n");
    rig.delete("order", 0).await;

    rig.create(
        "stuck",
        json!({ "restartPolicy": "Never", "initContainers": [sh("bad", "exit 9")], "containers": [sh("main", "true")] }),
    )
    .await;
    let pod = rig.phase("stuck", "Failed").await;
    assert_eq!(waiting(&pod).unwrap().0, "PodInitializing");
    rig.delete("stuck", 0).await;
}

async fn probes_decide_on_readiness_and_restarts(rig: &Rig) {
    let mut container = sh("main", "mkdir -p /www; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & while :; do sleep 0.1; done");
    container["ports"] = json!([{ "name": "web", "containerPort": 8080 }]);
    container["readinessProbe"] = json!({ "httpGet": { "path": "/ok", "port": "web" }, "periodSeconds": 1 });
    let alive = ["/bin/busybox", "sh", "-c", "test ! -e /dead || { echo it is dead; false; }"];
    container["livenessProbe"] = json!({ "exec": { "command": alive }, "periodSeconds": 1, "failureThreshold": 2 });
    rig.create("probed", json!({ "containers": [container], "terminationGracePeriodSeconds": 2 })).await;
    let pod = rig.phase("probed", "Running").await;
    assert!(!is_ready(&pod), "not before its probe has succeeded");
    let event = rig.event("probed", "Unhealthy").await;
    let said = event.message.unwrap();
    assert!(said.starts_with("Readiness probe failed: "), "{said}");
    let run = async |script: &str| {
        let pod = rig.pods().get("probed").await.unwrap();
        let id = main_status(&pod).container_id.unwrap().replace("containerd://", "");
        let command = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
        let output = rig.runtime.exec_sync(&id, command, Duration::from_secs(10)).await.unwrap();
        assert_eq!(output.exit_code, 0, "{script}");
    };
    run("/bin/busybox mkdir -p /www; echo fine > /www/ok").await;
    rig.pod_until("probed", "it is ready", is_ready).await;
    run("/bin/busybox rm /www/ok").await;
    rig.pod_until("probed", "it is not ready any more", |pod| !is_ready(pod)).await;
    run("/bin/busybox touch /dead").await;
    rig.pod_until("probed", "it is restarted", |pod| main_status(pod).restart_count == 1).await;
    let words: Vec<String> = rig.events("probed").await.into_iter().filter_map(|event| event.message).collect();
    let wanted = "Container main failed liveness probe, will be restarted";
    assert!(words.iter().any(|word| word == wanted), "{words:?}");
    assert!(words.iter().any(|word| word == "Liveness probe failed: it is dead\n"), "{words:?}");
    rig.delete("probed", 0).await;
}

async fn limits_and_security_reach_the_container(rig: &Rig) {
    let script = "id -u; id -g; grep NoNewPrivs /proc/self/status | tr -d '\\t'; touch /x 2>/dev/null || echo readonly; \
                  grep Cap.ff /proc/self/status | tr -d '\\t'; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
                  cat /proc/self/oom_score_adj >/dev/null && echo scored";
    let mut container = json!({ "name": "main", "image": IMAGE, "command": ["/bin/busybox", "sh", "-c", script.replace("id -", "/bin/busybox id -").replace("grep", "/bin/busybox grep").replace("tr -d", "/bin/busybox tr -d").replace("touch", "/bin/busybox touch").replace("cat ", "/bin/busybox cat ")] });
    container["securityContext"] = json!({
        "runAsUser": 1234, "runAsGroup": 99, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
    });
    container["resources"] = json!({ "limits": { "memory": "32Mi", "cpu": "100m" } });
    rig.create("limited", json!({ "restartPolicy": "Never", "containers": [container] })).await;
    rig.phase("limited", "Succeeded").await;
    assert_eq!(rig.logs("limited").await, "1234\n99\nNoNewPrivs:1\nreadonly\nCapEff:0000000000000000\n33554432\nscored\n");
    rig.delete("limited", 0).await;

    let eat = json!({ "name": "main", "image": IMAGE, "command": ["/bin/busybox", "sh", "-c", "/bin/busybox tail /dev/zero"],
                      "resources": { "limits": { "memory": "16Mi" } } });
    rig.create("greedy", json!({ "restartPolicy": "Never", "containers": [eat] })).await;
    let pod = rig.phase("greedy", "Failed").await;
    let ended = main_status(&pod).state.unwrap().terminated.unwrap();
    // busybox's shell outlives its child, so either the container is known as killed for memory, or the shell says 137.
    assert!(ended.reason.as_deref() == Some("OOMKilled") || ended.exit_code == 137, "{ended:?}");
    rig.delete("greedy", 0).await;

    let mut container = sh("main", "true");
    container["securityContext"] = json!({ "runAsNonRoot": true });
    rig.create("root", json!({ "restartPolicy": "Never", "containers": [container] })).await;
    let wanted = "container has runAsNonRoot and image will run as root (container: main)";
    let says_why =
        |pod: &Pod| waiting(pod).is_some_and(|(reason, why)| reason == "CreateContainerConfigError" && why.starts_with(wanted));
    rig.pod_until("root", "it is refused", says_why).await;
    rig.delete("root", 0).await;
}

async fn an_image_that_cannot_be_had_says_so(rig: &Rig) {
    let absent = json!({ "name": "main", "image": "slipway.test/absent:1", "imagePullPolicy": "Never" });
    rig.create("never", json!({ "containers": [absent] })).await;
    let wanted = (
        "ErrImageNeverPull".to_owned(),
        "Container image \"slipway.test/absent:1\" is not present with pull policy of Never".to_owned(),
    );
    rig.pod_until("never", "it says so", |pod| waiting(pod).as_ref() == Some(&wanted)).await;
    rig.delete("never", 0).await;
    let absent = json!({ "name": "main", "image": "slipway.test/absent:1" });
    rig.create("unpulled", json!({ "containers": [absent] })).await;
    let reason = |pod: &Pod| waiting(pod).map(|(reason, _)| reason).unwrap_or_default();
    rig.pod_until("unpulled", "the error is shown", |pod| reason(pod) == "ErrImagePull").await;
    let pod = rig.pod_until("unpulled", "it backs off", |pod| reason(pod) == "ImagePullBackOff").await;
    let message = waiting(&pod).unwrap().1;
    assert!(message.starts_with("Back-off pulling image \"slipway.test/absent:1\""), "{message}");
    assert_eq!(slipway_api::pod::phase(&pod), "Pending");
    rig.event("unpulled", "Pulling").await;
    rig.delete("unpulled", 0).await;
}

async fn deletion_runs_hooks_and_leaves_nothing(rig: &Rig) {
    let dir = rig.data_dir.join("seen");
    std::fs::create_dir_all(&dir).unwrap();
    let mut container = sh("main", "trap 'echo term >> /seen/order; exit 0' TERM; echo up; while :; do sleep 0.1; done");
    container["lifecycle"] = json!({
        "postStart": { "exec": { "command": ["/bin/busybox", "sh", "-c", "echo started >> /seen/order"] } },
        "preStop": { "exec": { "command": ["/bin/busybox", "sh", "-c", "echo stopping >> /seen/order"] } },
    });
    container["volumeMounts"] = json!([{ "name": "seen", "mountPath": "/seen" }, { "name": "m", "mountPath": "/m" }]);
    let volumes = json!([{ "name": "seen", "hostPath": { "path": dir } }, { "name": "m", "emptyDir": { "medium": "Memory" } }]);
    rig.create("hooked", json!({ "containers": [container], "volumes": volumes })).await;
    let pod = rig.phase("hooked", "Running").await;
    rig.until("its trap is set", async || (rig.logs("hooked").await == "up\n").then_some(())).await;
    let uid = pod.metadata.uid.unwrap();
    let cgroup = format!("/sys/fs/cgroup/memory/slipway/{NODE}/pod{uid}");
    let two = format!("/sys/fs/cgroup/slipway/{NODE}/pod{uid}");
    let has_cgroup = || [&cgroup, &two].into_iter().any(|path| std::path::Path::new(path).exists());
    assert!(has_cgroup(), "the pod has a cgroup of its own");
    rig.delete("hooked", 30).await;
    assert_eq!(std::fs::read_to_string(dir.join("order")).unwrap(), "started\nstopping\nterm\n");
    rig.event("hooked", "Killing").await;
    let nothing_left = async || {
        let sandboxes = rig.runtime.list_sandboxes(Some(&uid)).await.ok()?;
        let containers = rig.runtime.list_containers(Some(&uid)).await.ok()?;
        let files = rig.data_dir.join("pods").join(&uid).exists() || has_cgroup();
        (sandboxes.is_empty() && containers.is_empty() && !files).then_some(())
    };
    rig.until("nothing is left of it", nothing_left).await;
}

async fn commands_and_ports_are_reached_from_outside(rig: &Rig) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let script =
        "trap 'exit 0' TERM; mkdir /www; echo hello > /www/i; httpd -p 8080 -h /www; while :; do echo tick; sleep 0.1; done";
    rig.create("reached", json!({ "containers": [sh("main", script)], "terminationGracePeriodSeconds": 1 })).await;
    rig.phase("reached", "Running").await;
    let pods: Api<Pod> = Api::namespaced(rig.remote.clone(), "default");
    let how = kube::api::AttachParams::default().stdin(true).stderr(false);
    let mut process =
        pods.exec("reached", ["/bin/busybox", "sh", "-c", "read word; echo got $word; exit 5"], &how).await.unwrap();
    process.stdin().unwrap().write_all(b"it\n").await.unwrap();
    let mut said = String::new();
    process.stdout().unwrap().read_to_string(&mut said).await.unwrap();
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!((said.as_str(), status.reason.as_deref()), ("got it\n", Some("NonZeroExitCode")));
    let code = status.details.unwrap().causes.unwrap().remove(0).message;
    assert_eq!(code.as_deref(), Some("5"));

    let mut attached = pods.attach("reached", &kube::api::AttachParams::default().stderr(false)).await.unwrap();
    let mut ticks = [0; 5];
    attached.stdout().unwrap().read_exact(&mut ticks).await.unwrap();
    assert_eq!(&ticks, b"tick\n");

    let mut forwarded = pods.portforward("reached", &[8080]).await.unwrap();
    let mut port = forwarded.take_stream(8080).unwrap();
    port.write_all(b"GET /i HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    port.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello\n"), "{answer}");

    let agent = format!("https://{}:10250/pods", crate::rig::NODE_IP);
    let anyone = std::process::Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &agent]).output();
    if let Ok(anyone) = anyone {
        assert_eq!(String::from_utf8_lossy(&anyone.stdout), "401", "nobody without a certificate is answered");
    }
    let request = http::Request::get("/stats/summary").body(vec![]).unwrap();
    let summary = rig.agent_client.request_text(request).await;
    assert!(summary.unwrap().contains("\"reached\""));
    rig.delete("reached", 1).await;
}

async fn the_next_agent_adopts_what_runs(rig: &Rig) {
    let mut container = sh("main", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    container["readinessProbe"] = json!({ "exec": { "command": ["/bin/busybox", "true"] }, "periodSeconds": 1 });
    rig.create("kept", json!({ "containers": [container] })).await;
    let before = rig.pod_until("kept", "it is ready", is_ready).await;
    rig.create("orphan", json!({ "containers": [sh("main", "sleep 1000")] })).await;
    let orphan = rig.phase("orphan", "Running").await.metadata.uid.unwrap();
    rig.stop().await;
    let how = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    rig.pods().delete("orphan", &how).await.unwrap();
    rig.start_agent(rig.node_client()).await;
    rig.until("the pod that was deleted meanwhile is ended", async || {
        rig.runtime.list_sandboxes(Some(&orphan)).await.ok()?.is_empty().then_some(())
    })
    .await;
    let after = rig.pods().get("kept").await.unwrap();
    assert_eq!(main_status(&after).container_id, main_status(&before).container_id, "it was not restarted");
    assert_eq!((main_status(&after).restart_count, is_ready(&after)), (0, true));
    let transition = |pod: &Pod| {
        let conditions = pod.status.as_ref().unwrap().conditions.as_deref();
        condition::get(conditions, "Ready").unwrap().last_transition_time.clone()
    };
    assert_eq!(transition(&after), transition(&before), "it stayed ready all the while");
    rig.delete("kept", 1).await;
}

async fn a_resize_is_put_in_force_also_by_the_next_agent(rig: &Rig) {
    let mut container = sh("main", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    container["resources"] =
        json!({ "requests": { "cpu": "50m", "memory": "1Mi" }, "limits": { "cpu": "200m", "memory": "64Mi" } });
    rig.create("sized", json!({ "containers": [container], "terminationGracePeriodSeconds": 1 })).await;
    let before = rig.pod_until("sized", "it is ready", is_ready).await;
    let resize = async |resources: Value| {
        let wanted = json!({ "spec": { "containers": [{ "name": "main", "resources": resources }] } });
        let params = kube::api::PatchParams::default();
        rig.pods().patch_subresource("resize", "sized", &params, &kube::api::Patch::Strategic(wanted)).await.unwrap();
    };
    let id = main_status(&before).container_id.unwrap();
    let id = id.trim_start_matches("containerd://").to_owned();
    let limits = async || {
        let files =
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max cpu/cpu.cfs_quota_us cpu.max 2>/dev/null || true";
        let command = ["/bin/busybox", "sh", "-c", &files.replace("cat ", "/bin/busybox cat ")].map(str::to_owned).to_vec();
        let output = rig.runtime.exec_sync(&id, command, std::time::Duration::from_secs(10)).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        words.join(" ")
    };
    assert_eq!(limits().await, "67108864 20000");
    resize(json!({ "limits": { "memory": "48Mi" } })).await;
    rig.until("less memory", async || (limits().await == "50331648 20000").then_some(())).await;

    // Less than it uses it does not get.
    resize(json!({ "requests": { "memory": "4Ki" }, "limits": { "memory": "8Ki" } })).await;
    let progress = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
        condition::get(conditions, "PodResizeInProgress").map(|found| found.reason.clone().unwrap_or_default())
    };
    rig.pod_until("sized", "it fails", |pod| progress(pod).as_deref() == Some("Error")).await;
    rig.event("sized", "ResizeError").await;
    assert_eq!(limits().await, "50331648 20000");

    rig.stop().await;
    resize(json!({ "requests": { "memory": "1Mi" }, "limits": { "cpu": "300m", "memory": "96Mi" } })).await;
    rig.start_agent(rig.node_client()).await;
    rig.until("more of both", async || (limits().await == "100663296 30000").then_some(())).await;
    let after = rig.pod_until("sized", "it is over", |pod| progress(pod).is_none()).await;
    assert_eq!(main_status(&after).container_id, main_status(&before).container_id, "it was not restarted");
    assert_eq!(main_status(&after).resources.unwrap().limits.unwrap()["cpu"].0, "300m");
    rig.delete("sized", 1).await;
}

async fn a_dead_sandbox_is_made_again(rig: &Rig) {
    rig.create("revived", json!({ "containers": [sh("main", "trap 'exit 0' TERM; while :; do sleep 0.1; done")], "terminationGracePeriodSeconds": 1 })).await;
    let pod = rig.phase("revived", "Running").await;
    let uid = pod.metadata.uid.clone().unwrap();
    let sandbox = rig.runtime.list_sandboxes(Some(&uid)).await.unwrap().remove(0).id;
    rig.runtime.stop_sandbox(&sandbox).await.unwrap();
    let made = async || {
        let all = rig.runtime.list_sandboxes(Some(&uid)).await.ok()?;
        all.iter()
            .any(|found| found.state == 0 && found.metadata.as_ref().is_some_and(|metadata| metadata.attempt == 1))
            .then_some(())
    };
    rig.until("there is a new sandbox", made).await;
    // Once, or twice if it was started in the old sandbox while that went away.
    let again = |pod: &Pod| main_status(pod).restart_count >= 1 && is_ready(pod);
    rig.pod_until("revived", "it runs again", again).await;
    rig.event("revived", "SandboxChanged").await;
    let now = rig.runtime.list_sandboxes(Some(&uid)).await.unwrap();
    assert!(now.iter().any(|found| found.id != sandbox && found.metadata.as_ref().unwrap().attempt == 1), "{now:?}");
    rig.delete("revived", 0).await;
}

/// Prints how long a pod takes, beside what the runtime's own three calls take. No time is asserted: the machine is shared.
async fn starting_costs_little_more_than_the_runtime(rig: &Rig) {
    use slipway_node::runtime::api;
    let (mut raw, mut whole) = (vec![], vec![]);
    for round in 0..5 {
        let uid = format!("raw-{round}");
        let config = api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata { name: uid.clone(), uid: uid.clone(), namespace: "raw".into(), attempt: 0 }),
            log_directory: rig.data_dir.join("raw").to_string_lossy().into_owned(),
            linux: Some(api::LinuxPodSandboxConfig { cgroup_parent: format!("/slipway/{NODE}/pod{uid}"), ..Default::default() }),
            ..Default::default()
        };
        let started = Instant::now();
        let sandbox = rig.runtime.run_sandbox(config.clone(), "").await.unwrap();
        let container = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(api::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: ["/bin/busybox", "sleep", "1000"].map(str::to_owned).to_vec(),
            log_path: "main.log".into(),
            linux: Some(api::LinuxContainerConfig::default()),
            ..Default::default()
        };
        let id = rig.runtime.create_container(&sandbox, container, config).await.unwrap();
        rig.runtime.start_container(&id).await.unwrap();
        raw.push(started.elapsed());
        rig.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        rig.runtime.stop_sandbox(&sandbox).await.unwrap();
        rig.runtime.remove_sandbox(&sandbox).await.unwrap();
        slipway_node::pod::cgroup::Cgroups::detect(NODE).tear_down(&uid);

        let name = format!("quick-{round}");
        let started = Instant::now();
        rig.create(
            &name,
            json!({ "containers": [{ "name": "main", "image": IMAGE, "command": ["/bin/busybox", "sleep", "1000"] }] }),
        )
        .await;
        rig.phase(&name, "Running").await;
        whole.push(started.elapsed());
        rig.delete(&name, 0).await;
    }
    raw.sort();
    whole.sort();
    println!("the runtime alone {:?}, a pod {:?} (medians of 5)", raw[2], whole[2]);
}
