//! The verbs of kubectl that change what runs, follow what happens, or hold a terminal, by the kubectls of several versions.

use crate::cluster::{Cluster, PATIENCE, text};
use crate::conversation::Conversation;
use crate::kubectl::{Kubectl, WEB, with_every_version};
use std::time::Instant;

const TALKS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: talks, labels: {app: talks}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, 'echo one; sleep 3; echo two; n=0; while true; do n=$((n+1)); echo tick $n; sleep 1; done']
---
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: kept, emptyDir: {}}]
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, 'if [ -e /kept/was ]; then echo second life; exec sleep 3600; fi; touch /kept/was; echo first life; exit 1']
      volumeMounts: [{name: kept, mountPath: /kept}]
";

fn names(cluster: &Cluster, kinds: &str, selector: &str) -> Vec<String> {
    cluster.ok(&["get", kinds, "-l", selector, "-o", "name"]).lines().map(str::to_owned).collect()
}

fn write(cluster: &Cluster, name: &str, content: &str) -> String {
    let path = cluster.data_dir.join(name);
    std::fs::write(&path, content).expect("the directory is ours");
    path.display().to_string()
}

/// What a shell has to run for this kubectl.
fn command_line(kubectl: &Kubectl<'_>, arguments: &str) -> String {
    let command = kubectl.cluster.kubectl_command(kubectl.version);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    format!("{} {arguments}", words.join(" "))
}

fn follow(kubectl: &Kubectl<'_>, arguments: &[&str]) -> Conversation {
    Conversation::start(kubectl.cluster.kubectl_command(kubectl.version).args(arguments))
}

#[test]
fn replace_restart_pause_and_the_three_cascades() {
    with_every_version("cascade", |kubectl| {
        let cluster = kubectl.cluster;
        let manifest = write(cluster, "web.yaml", WEB);
        kubectl.ok(&["create", "-f", &manifest]);
        kubectl.fails(&["create", "-f", &manifest], "deployments.apps \"web\" already exists");
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);

        let two = write(cluster, "web-two.yaml", &WEB.replace("replicas: 1", "replicas: 2"));
        kubectl.shows(&["replace", "-f", &two], &["deployment.apps/web replaced"]);
        assert_eq!(cluster.get("deployment/web", "{.spec.replicas}"), "2");
        let stale = cluster.ok(&["get", "deployment", "web", "-o", "json"]);
        kubectl.ok(&["label", "deployment", "web", "seen=yes"]);
        let stale = write(cluster, "stale.json", &stale);
        kubectl
            .fails(&["replace", "-f", &stale], "the object has been modified; please apply your changes to the latest version");

        let before = names(cluster, "pods", "app=web");
        kubectl.shows(&["rollout", "restart", "deployment/web"], &["deployment.apps/web restarted"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        cluster.wait("new pods alone", || names(cluster, "pods", "app=web").iter().all(|pod| !before.contains(pod)));

        kubectl.shows(&["rollout", "pause", "deployment/web"], &["deployment.apps/web paused"]);
        kubectl.fails(&["rollout", "pause", "deployment/web"], "is already paused");
        kubectl.ok(&["set", "image", "deployment/web", "web=registry.slipway.test/web:2"]);
        kubectl.ok(&["set", "env", "deployment/web", "COLOUR=blue"]);
        cluster.wait_for("deployment/web", "{.status.conditions[?(@.type==\"Progressing\")].reason}", "DeploymentPaused");
        cluster.wait_for(
            "deployment/web",
            "{.status.observedGeneration}",
            &cluster.get("deployment/web", "{.metadata.generation}"),
        );
        let sets = names(cluster, "replicasets", "app=web").len();
        kubectl.shows(&["rollout", "resume", "deployment/web"], &["deployment.apps/web resumed"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        assert_eq!(names(cluster, "replicasets", "app=web").len(), sets + 1, "two changes during the pause are one rollout");
        kubectl
            .shows(&["rollout", "history", "deployment/web", "--revision=3"], &["Image:\tregistry.slipway.test/web:2", "blue"]);
        kubectl.ok(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        assert_eq!(cluster.get("deployment/web", "{.spec.template.spec.containers[0].image}"), "registry.slipway.test/web:1");
        kubectl
            .fails(&["rollout", "undo", "deployment/web", "--to-revision=77"], "unable to find specified revision 77 in history");

        let pods = names(cluster, "pods", "app=web");
        kubectl.ok(&["delete", "deployment/web", "--cascade=orphan"]);
        assert!(!names(cluster, "replicasets", "app=web").is_empty());
        cluster.wait("the ReplicaSets to be nobody's", || {
            cluster.get("replicasets", "{.items[*].metadata.ownerReferences}").is_empty()
        });
        let live: Vec<String> = names(cluster, "pods", "app=web").into_iter().filter(|pod| pods.contains(pod)).collect();
        assert!(live.len() >= 2, "orphans stay: {live:?} of {pods:?}");
        // A Deployment of the same selector adopts them, and starts nothing.
        kubectl.ok(&["create", "-f", &two]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        let adopted = names(cluster, "pods", "app=web");
        assert!(adopted.iter().filter(|pod| live.contains(pod)).count() >= 2, "{adopted:?} after {live:?}");

        kubectl.ok(&["delete", "deployment/web", "--cascade=foreground", "--timeout=60s"]);
        assert_eq!(names(cluster, "replicasets,pods", "app=web"), Vec::<String>::new(), "dependents go first");
        kubectl.ok(&["create", "-f", &two]);
        cluster.wait("pods", || names(cluster, "pods", "app=web").len() == 2);
        kubectl.ok(&["delete", "deployment/web", "--cascade=background"]);
        cluster.wait("dependents to follow", || names(cluster, "replicasets,pods", "app=web").is_empty());
    });
}

#[test]
fn watches_logs_and_terminals_are_live() {
    with_every_version("live", |kubectl| {
        let cluster = kubectl.cluster;
        let mut table = follow(kubectl, &["get", "pods", "-w"]);
        let mut events = follow(kubectl, &["get", "pods", "--watch-only", "--output-watch-events"]);
        // A watch that lists nothing says nothing: what it must not miss is made again until it is there.
        cluster.wait("the watch", || {
            cluster.ok(&["run", "probe", "--image=registry.slipway.test/web:1", "--restart=Never"]);
            cluster.ok(&["delete", "pod", "probe", "--grace-period=0", "--force"]);
            events.said().contains("DELETED")
        });
        cluster.apply(TALKS);
        for wanted in ["ADDED      talks", "MODIFIED   talks"] {
            events.until(wanted);
        }
        table.until("ContainerCreating");
        table.until("talks");
        table.until("Running");

        let mut log = follow(kubectl, &["logs", "-f", "talks"]);
        log.until("two\n");
        log.until("tick 3\n");
        assert!(log.said().starts_with("one\n"), "{}", log.said());
        let mut last = follow(kubectl, &["logs", "-f", "talks", "--tail=1"]);
        last.until("tick 5\n");
        assert!(!last.said().contains("one"), "{}", last.said());
        let stamped = kubectl.ok(&["logs", "talks", "--timestamps"]);
        let two =
            stamped.lines().find(|line| line.ends_with(" two")).and_then(|line| line.split(' ').next()).expect("it is there");
        let since = kubectl.ok(&["logs", "talks", "--since-time", &format!("{}Z", &two[..19])]);
        assert!(since.starts_with("two\n") && since.contains("tick 1"), "{since}");
        assert_eq!(kubectl.ok(&["logs", "talks", "--limit-bytes=3"]), "one");
        kubectl.fails(&["logs", "talks", "-c", "nobody"], "container nobody is not valid for pod talks");
        cluster.wait("the second life", || cluster.ok(&["logs", "again"]) == "second life\n");
        assert_eq!(kubectl.ok(&["logs", "again", "--previous"]), "first life\n");

        terminal(kubectl);

        kubectl.shows(&["delete", "pod", "talks", "--grace-period=0", "--force"], &["pod \"talks\" force deleted"]);
        kubectl.ok(&["wait", "--for=delete", "pod/talks", "--timeout=30s"]);
        events.until("DELETED    talks");
        assert!(log.ended().success(), "a followed log ends with its container");

        // A pod that lives as long as the terminal it was started with.
        let run = "run -q guest --rm -it --restart=Never --image=registry.slipway.test/busybox:1 --command -- sh -c \
                   'until read -t 1 word; do echo waiting; done; tty; echo \"heard $word\"; exit 3'";
        let mut guest = Conversation::in_terminal(&command_line(kubectl, run));
        // What was said before the terminal was attached is not to be seen.
        guest.until("waiting");
        guest.say("hello\r");
        guest.until("heard hello");
        assert!(guest.said().contains("/dev/pts/"), "{}", guest.said());
        assert_eq!(guest.ended().code(), Some(3), "{}", guest.said());
        kubectl.fails(&["get", "pod", "guest"], "pods \"guest\" not found");
    });
}

/// `exec -it`: a terminal on both sides, of the same size, also when that changes.
fn terminal(kubectl: &Kubectl<'_>) {
    let flag = kubectl.cluster.data_dir.join("grow");
    let _ = std::fs::remove_file(&flag);
    let exec = command_line(kubectl, "exec -it talks -- sh");
    let grows = format!("while [ ! -e {} ]; do sleep 0.1; done; stty rows 41 cols 101", flag.display());
    let mut shell = Conversation::in_terminal(&format!("stty rows 33 cols 77; ({grows}) </dev/tty & exec {exec}"));
    shell.until("# ");
    shell.say("tty; stty size; echo $((20+3))\r");
    shell.until("23\r\n");
    assert!(shell.said().contains("/dev/pts/") && shell.said().contains("33 77"), "{}", shell.said());
    std::fs::write(&flag, "").expect("the directory is ours");
    let until = Instant::now() + PATIENCE;
    while !shell.said().contains("41 101") {
        assert!(Instant::now() < until, "the terminal keeps its size:\n{}", shell.said());
        shell.say("stty size\r");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    // The key for an interrupt reaches the program, not kubectl.
    shell.say("echo sleeps $((30+4)); sleep 1000\r");
    shell.until("sleeps 34");
    shell.say("\u{3}");
    shell.say("echo back $((40+2)); exit 5\r");
    shell.until("back 42");
    assert_eq!(shell.ended().code(), Some(5), "{}", shell.said());
}

#[test]
fn a_node_is_cordoned_tainted_and_drained_within_the_budget() {
    with_every_version("drain", |kubectl| {
        let cluster = kubectl.cluster;
        cluster.apply(&WEB.replace("replicas: 1", "replicas: 2"));
        kubectl.ok(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=1"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        cluster.wait_for("poddisruptionbudget/web", "{.status.disruptionsAllowed}", "1");
        kubectl.shows(&["get", "poddisruptionbudgets"], &["MIN AVAILABLE", "ALLOWED DISRUPTIONS"]);

        // The second eviction has to wait for the first pod's successor, which has nowhere to go.
        let drain = |timeout: &str| {
            let timeout = format!("--timeout={timeout}");
            cluster
                .kubectl_version(kubectl.version, &["drain", "node-1", "--pod-selector=app=web", "--ignore-daemonsets", &timeout])
        };
        let held = drain("8s");
        let said = text(&held);
        assert!(!held.status.success() && said.contains("evicting pod"), "{said}");
        assert!(said.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{said}");
        kubectl.shows(&["get", "node", "node-1"], &["Ready,SchedulingDisabled"]);
        kubectl
            .shows(&["describe", "node", "node-1"], &["Unschedulable:      true", "node.kubernetes.io/unschedulable:NoSchedule"]);
        let running = || cluster.json(&["get", "pods", "-l", "app=web", "--field-selector", "status.phase=Running"]);
        cluster.wait("one to be left", || running()["items"].as_array().is_some_and(|pods| pods.len() == 1));
        cluster.wait("the other to say why it waits", || {
            text(&cluster.kubectl(&["describe", "pods", "-l", "app=web"])).contains("1 node(s) were unschedulable")
        });
        kubectl.shows(&["uncordon", "node-1"], &["node/node-1 uncordoned"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        kubectl.ok(&["delete", "poddisruptionbudget", "web"]);
        let drained = drain("60s");
        assert!(drained.status.success() && text(&drained).contains("node/node-1 drained"), "{}", text(&drained));
        kubectl.ok(&["uncordon", "node-1"]);

        kubectl.shows(&["taint", "node", "node-1", "only=mine:NoExecute"], &["node/node-1 tainted"]);
        kubectl.fails(&["taint", "node", "node-1", "only=yours:NoExecute"], "--overwrite is false");
        kubectl.shows(&["describe", "node", "node-1"], &["Taints:             only=mine:NoExecute"]);
        cluster.wait("pods to leave and their successors to wait", || {
            let said = text(&cluster.kubectl(&["describe", "pods", "-l", "app=web"]));
            running()["items"].as_array().is_some_and(Vec::is_empty)
                && said.contains("1 node(s) had untolerated taint {only: mine}")
        });
        kubectl.shows(&["taint", "node", "node-1", "only-"], &["node/node-1 untainted"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    });
}

#[test]
fn what_is_there_is_shown_in_many_ways() {
    with_every_version("shown", |kubectl| {
        let cluster = kubectl.cluster;
        cluster.apply(WEB);
        kubectl.shows(
            &["create", "job", "counts", "--image=registry.slipway.test/busybox:1", "--", "echo", "counted"],
            &["created"],
        );
        kubectl.shows(&["expose", "deployment/web", "--port=80", "--target-port=8080", "--type=NodePort"], &["exposed"]);
        kubectl.shows(&["wait", "--for=condition=Complete", "job/counts", "--timeout=60s"], &["job.batch/counts condition met"]);
        kubectl.shows(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"], &["condition met"]);
        kubectl.fails(
            &["wait", "--for=condition=Complete=Unknown", "job/counts", "--timeout=1s"],
            "timed out waiting for the condition",
        );
        kubectl.shows(&["logs", "job/counts"], &["counted"]);
        kubectl.shows(&["logs", "deployment/web"], &["listens on port 8080"]);

        kubectl.shows(&["describe", "job", "counts"], &["Completions:", "1 Succeeded", "SuccessfulCreate", "Completed"]);
        kubectl.shows(
            &["describe", "deployment", "web"],
            &["StrategyType:", "25% max unavailable, 25% max surge", "NewReplicaSetAvailable"],
        );
        kubectl.shows(&["describe", "service", "web"], &["Type:", "NodePort", "Endpoints:", "Session Affinity:"]);
        kubectl.shows(
            &["describe", "node", "node-1"],
            &["Allocated resources:", "Container Runtime Version:", "PodCIDR:", "Lease:"],
        );
        kubectl.shows(
            &["describe", "pods", "-l", "app=web"],
            &[
                "Service Account:  default",
                "Controlled By:  ReplicaSet/web-",
                "kube-api-access-",
                "QoS Class:",
                "Container ID:   containerd://",
            ],
        );
        kubectl.shows(&["describe", "replicaset", "-l", "app=web"], &["Controlled By:  Deployment/web", "SuccessfulCreate"]);
        kubectl.shows(&["describe", "namespace", &cluster.namespace()], &["Status:", "Active"]);

        let sorted = kubectl.ok(&["get", "pods", "--sort-by=.metadata.name", "-o", "name"]);
        let mut wanted: Vec<&str> = sorted.lines().collect();
        wanted.sort_unstable();
        assert_eq!(sorted.lines().collect::<Vec<_>>(), wanted);
        let by_count = kubectl.ok(&["get", "pods", "--sort-by=.status.startTime", "-o", "jsonpath={.items[*].status.startTime}"]);
        assert!(by_count.split(' ').is_sorted(), "{by_count}");
        let one = |selector: &str| cluster.ok(&["get", "pods", "--field-selector", selector, "-o", "name"]).lines().count();
        assert_eq!((one("status.phase=Succeeded"), one("status.phase!=Succeeded"), one("spec.nodeName=nowhere")), (1, 1, 0));
        kubectl.fails(&["get", "pods", "--field-selector", "spec.colour=blue"], "field label not supported: spec.colour");
        kubectl.shows(&["get", "pods", "-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName"], &["NODE", "node-1"]);
        kubectl.shows(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[*].name}"], &["web"]);
        kubectl.shows(&["get", "pods", "-A", "--show-labels", "-o", "wide"], &["NOMINATED NODE", "READINESS GATES", "app=web"]);
        kubectl.shows(
            &["get", "all"],
            &["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-", "job.batch/counts"],
        );
        kubectl.shows(&["get", "job", "counts", "-o", "wide"], &["1/1", "CONTAINERS", "SELECTOR"]);
        kubectl.shows(&["get", "nodes", "-o", "wide"], &["INTERNAL-IP", "KERNEL-VERSION", "containerd://"]);
        kubectl.shows(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web"], &["IPv4", "8080", "10.244."]);
        kubectl.shows(&["get", "events", "--sort-by=.metadata.creationTimestamp"], &["SuccessfulCreate", "Scheduled", "Started"]);
        kubectl.shows(&["events", "--types=Normal"], &["Job/counts", "Pod/"]);
        kubectl.shows(
            &["api-resources", "--namespaced=false", "-o", "wide"],
            &["nodes", "no", "create,delete,deletecollection,get,list,patch,update,watch"],
        );
        kubectl.shows(&["api-resources", "--api-group=apps", "-o", "name"], &["deployments.apps", "daemonsets.apps"]);
        kubectl.shows(&["version", "-o", "json"], &["serverVersion", "gitVersion"]);
        kubectl.shows(&["cluster-info"], &["is running at"]);

        let (there, back) = (cluster.data_dir.join("folder"), cluster.data_dir.join("folder-back"));
        std::fs::create_dir_all(there.join("deep")).expect("the directory is ours");
        std::fs::write(there.join("deep/file"), "in a folder").expect("the directory is ours");
        let _ = std::fs::remove_dir_all(&back);
        kubectl.ok(&["run", "box", "--image=registry.slipway.test/busybox:1", "--command", "--", "sleep", "3600"]);
        kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Running", "pod/box", "--timeout=60s"]);
        kubectl.ok(&["cp", &there.display().to_string(), "box:/tmp/folder"]);
        assert_eq!(kubectl.ok(&["exec", "box", "--", "cat", "/tmp/folder/deep/file"]), "in a folder");
        kubectl.ok(&["cp", "box:/tmp/folder", &back.display().to_string()]);
        assert_eq!(std::fs::read_to_string(back.join("deep/file")).expect("it came back"), "in a folder");
        kubectl.ok(&["delete", "pod", "box", "--grace-period=1"]);
        kubectl.ok(&["delete", "all", "-l", "app=web"]);
        kubectl.ok(&["delete", "jobs", "--all"]);
        cluster.wait("the job's pod to go with it", || names(cluster, "pods", "job-name=counts").is_empty());
    });
}
