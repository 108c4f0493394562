//! kubectl's verbs, by the kubectls of several versions.

use crate::cluster::{Cluster, enabled, shared, text, versioned};
use std::process::Stdio;

pub const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: web, image: 'registry.slipway.test/web:1', ports: [{containerPort: 8080}]}
";

const SHELL: &str = "
apiVersion: v1
kind: Pod
metadata: {name: shell, labels: {app: shell}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: registry.slipway.test/busybox:1
      command: [sh, -c, 'echo first; echo second; echo third; exec sleep 3600']
";

/// One version of kubectl in the shared cluster.
pub struct Kubectl<'a> {
    pub cluster: &'a Cluster,
    pub version: &'a str,
}

impl Kubectl<'_> {
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cluster.kubectl_version(self.version, arguments);
        assert!(output.status.success(), "kubectl {} {}\n{}", self.version, arguments.join(" "), text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn shows(&self, arguments: &[&str], wanted: &[&str]) {
        let shown = self.ok(arguments);
        for wanted in wanted {
            assert!(shown.contains(wanted), "kubectl {} {}: no {wanted:?} in\n{shown}", self.version, arguments.join(" "));
        }
    }

    pub fn fails(&self, arguments: &[&str], message: &str) {
        let output = self.cluster.kubectl_version(self.version, arguments);
        let shown = text(&output);
        assert!(!output.status.success() && shown.contains(message), "kubectl {}: {shown}", arguments.join(" "));
    }
}

/// Every version that the machine has; at least the one on the path.
fn versions() -> Vec<&'static str> {
    let mut versions: Vec<&str> = ["1.27", "1.30", "1.33"].into_iter().filter(|version| versioned(version).is_some()).collect();
    if versions.is_empty() {
        versions.push("");
    }
    versions
}

pub fn with_every_version(test: &str, body: impl Fn(&Kubectl<'_>)) {
    if !enabled(test) {
        return;
    }
    for version in versions() {
        let cluster = shared(&format!("{test}-{}", version.replace('.', "-")));
        body(&Kubectl { cluster: &cluster, version });
    }
}

#[test]
fn a_deployment_from_apply_to_delete() {
    with_every_version("deploy", |kubectl| {
        let cluster = kubectl.cluster;
        let file = cluster.data_dir.join("web.yaml");
        std::fs::write(&file, WEB).expect("the directory is ours");
        let file = file.display().to_string();
        kubectl.shows(&["apply", "-f", &file], &["deployment.apps/web created"]);
        kubectl.shows(&["apply", "-f", &file], &["deployment.apps/web unchanged"]);
        kubectl.shows(&["rollout", "status", "deployment/web", "--timeout=60s"], &["successfully rolled out"]);

        kubectl.shows(&["get", "deployment", "web"], &["READY", "UP-TO-DATE", "1/1"]);
        kubectl.shows(
            &["get", "deployment", "web", "-o", "wide"],
            &["CONTAINERS", "IMAGES", "registry.slipway.test/web:1", "app=web"],
        );
        kubectl.shows(&["get", "deployment", "web", "-o", "yaml"], &["apiVersion: apps/v1", "kind: Deployment", "  name: web"]);
        kubectl.shows(&["get", "deployments", "-o", "name"], &["deployment.apps/web"]);
        kubectl.shows(&["get", "pods", "-l", "app=web", "-o", "wide"], &["Running", "node-1", "10.244."]);
        kubectl.shows(&["get", "pods", "-A", "--field-selector", "status.phase=Running"], &["NAMESPACE", "web-"]);
        kubectl.shows(&["get", "nodes", "--sort-by=.metadata.name"], &["node-1", "Ready"]);
        kubectl.shows(&["describe", "deployment", "web"], &["Replicas:", "1 desired", "ScalingReplicaSet", "NewReplicaSet:"]);
        kubectl.shows(&["describe", "pod", "-l", "app=web"], &["Scheduled", "Pulled", "Created", "Started", "node-1"]);
        kubectl.shows(&["describe", "node", "node-1"], &["Allocatable:", "Non-terminated Pods:", "Ready"]);

        kubectl.ok(&["label", "deployment", "web", "tier=front"]);
        kubectl.shows(&["get", "deployments", "-l", "tier=front", "-o", "name"], &["deployment.apps/web"]);
        kubectl.fails(&["label", "deployment", "web", "tier=back"], "--overwrite");
        kubectl.ok(&["annotate", "deployment", "web", "note=seen"]);
        kubectl.ok(&[
            "patch",
            "deployment",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/metadata/annotations/note"}]"#,
        ]);
        kubectl.ok(&["patch", "deployment", "web", "--type=merge", "-p", r#"{"spec":{"revisionHistoryLimit":3}}"#]);
        kubectl.ok(&["patch", "deployment", "web", "-p", r#"{"spec":{"minReadySeconds":0,"progressDeadlineSeconds":120}}"#]);
        assert_eq!(
            cluster.get(
                "deployment/web",
                "{.spec.revisionHistoryLimit} {.spec.progressDeadlineSeconds}{.metadata.annotations.note}"
            ),
            "3 120"
        );
        let edited = cluster
            .kubectl_command(kubectl.version)
            .env("KUBE_EDITOR", "sed -i s/tier:\\ front/tier:\\ edited/")
            .args(["edit", "deployment", "web"])
            .output();
        assert!(edited.as_ref().is_ok_and(|output| output.status.success()), "{edited:?}");
        assert_eq!(cluster.get("deployment/web", "{.metadata.labels.tier}"), "edited");

        kubectl.ok(&["scale", "deployment/web", "--replicas=2"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        assert_eq!(cluster.pods("app=web").len(), 2);
        kubectl.ok(&["set", "image", "deployment/web", "web=registry.slipway.test/web:2"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        kubectl.shows(&["rollout", "history", "deployment/web"], &["REVISION", "1", "2"]);
        kubectl.ok(&["rollout", "undo", "deployment/web"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        assert_eq!(cluster.get("deployment/web", "{.spec.template.spec.containers[0].image}"), "registry.slipway.test/web:1");
        kubectl.shows(&["expose", "deployment", "web", "--port=80", "--target-port=8080"], &["service/web exposed"]);
        kubectl.shows(&["describe", "service", "web"], &["Endpoints:", "10.244.", ":8080"]);
        kubectl.shows(&["get", "events", "--field-selector", "involvedObject.kind=Deployment"], &["ScalingReplicaSet"]);
        kubectl.shows(&["events", "--for", "deployment/web"], &["ScalingReplicaSet"]);

        kubectl.shows(&["delete", "deployment/web", "service/web"], &["deployment.apps \"web\" deleted"]);
        kubectl.fails(&["get", "deployment", "web"], "Error from server (NotFound): deployments.apps \"web\" not found");
        cluster.wait("its pods to be gone", || {
            cluster.json(&["get", "pods", "-l", "app=web"])["items"].as_array().is_some_and(Vec::is_empty)
        });
    });
}

#[test]
fn logs_exec_and_cp_reach_the_container() {
    with_every_version("reach", |kubectl| {
        let cluster = kubectl.cluster;
        cluster.apply(SHELL);
        kubectl.shows(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"], &["pod/shell condition met"]);
        cluster.wait("the lines", || cluster.ok(&["logs", "shell"]).lines().count() == 3);
        kubectl.shows(&["logs", "shell"], &["first\n", "second\n", "third\n"]);
        assert_eq!(kubectl.ok(&["logs", "shell", "--tail=1"]), "third\n");
        kubectl.shows(&["logs", "-l", "app=shell", "--since=1h", "--timestamps"], &["Z first"]);
        kubectl.fails(&["logs", "shell", "--previous"], "previous terminated container \"main\" in pod \"shell\" not found");

        assert_eq!(kubectl.ok(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2"]), "out\n");
        let failed = cluster.kubectl_version(kubectl.version, &["exec", "shell", "--", "sh", "-c", "exit 7"]);
        assert_eq!(failed.status.code(), Some(7), "{}", text(&failed));
        let mut cat = cluster.kubectl_command(kubectl.version);
        let mut cat = cat
            .args(["exec", "-i", "shell", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        std::io::Write::write_all(&mut cat.stdin.take().expect("piped"), b"through and back").expect("kubectl reads");
        assert_eq!(cat.wait_with_output().expect("kubectl ends").stdout, b"through and back");

        let (there, back) = (cluster.data_dir.join("there"), cluster.data_dir.join("back"));
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&there, &content).expect("the directory is ours");
        kubectl.ok(&["cp", &there.display().to_string(), "shell:/tmp/there"]);
        kubectl.ok(&["cp", "shell:/tmp/there", &back.display().to_string()]);
        assert!(std::fs::read(&back).expect("it was copied") == content, "what comes back is what went in");
        kubectl.ok(&["delete", "pod", "shell", "--grace-period=0", "--force"]);
    });
}

#[test]
fn a_pod_from_run_and_what_the_server_offers() {
    with_every_version("offers", |kubectl| {
        kubectl.shows(&["version"], &["Server Version"]);
        kubectl.shows(&["api-resources"], &["deployments", "deploy", "apps/v1", "Deployment", "machines", "nodepools"]);
        kubectl.shows(&["api-versions"], &["apps/v1", "batch/v1", "slipway.dev/v1alpha1"]);
        kubectl.ok(&[
            "run",
            "once",
            "--image=registry.slipway.test/busybox:1",
            "--restart=Never",
            "--command",
            "--",
            "sh",
            "-c",
            "echo done",
        ]);
        kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", "--timeout=60s"]);
        assert_eq!(kubectl.ok(&["logs", "once"]), "done\n");
        kubectl.shows(&["get", "pod", "once"], &["0/1", "Completed"]);
        kubectl.fails(&["run", "Bad_Name", "--image=x"], "Invalid value: \"Bad_Name\"");
        kubectl.ok(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
        kubectl.ok(&["create", "secret", "generic", "login", "--from-literal=password=p"]);
        kubectl.shows(&["get", "configmaps,secrets"], &["configmap/settings", "secret/login", "Opaque"]);
        kubectl.ok(&["cordon", "node-1"]);
        kubectl.shows(&["get", "nodes"], &["SchedulingDisabled"]);
        kubectl.ok(&["uncordon", "node-1"]);
    });
}
