//! Helm, unchanged: a chart with a definition of its own kind, hooks, tests and what charts usually have is installed, upgraded
//! over a change that somebody else made, rolled back, and goes.

use crate::clients::clients;
use crate::cluster::{Cluster, Shared, enabled, shared, text};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const RELEASE: &str = "pier";

/// Helm never deletes a chart's definitions of kinds; they would stand in the way of nobody, but do not belong to the cluster.
struct Charted(Shared);

impl Drop for Charted {
    fn drop(&mut self) {
        self.0.kubectl(&["delete", "crd", "buoys.helm.example.test", "--wait=false", "--ignore-not-found"]);
    }
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    Command::new(clients().join("bin/helm"))
        .args(arguments)
        .args(["--namespace", &cluster.namespace()])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clients"))
        .env("KUBECONFIG", cluster.data_dir.join("kubeconfig"))
        .env("HOME", &cluster.data_dir)
        .stdin(Stdio::null())
        .output()
        .expect("Helm is installed")
}

fn helm(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(output.status.success(), "helm {}\n{}\n{}", arguments.join(" "), text(&output), cluster.log_tail());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The revisions of the release, oldest first, each with its state.
fn history(cluster: &Cluster) -> Vec<String> {
    let history: Value = serde_json::from_str(&helm(cluster, &["history", RELEASE, "-o", "json"])).expect("JSON");
    let said = |revision: &Value| format!("{} {}", revision["revision"], revision["status"].as_str().unwrap_or_default());
    history.as_array().expect("a list").iter().map(said).collect()
}

#[test]
fn a_chart_is_installed_upgraded_and_rolled_back() {
    if !enabled("helm") {
        return;
    }
    let charted = Charted(shared("helm"));
    let cluster = &*charted.0;
    install(cluster);
    upgrade_over_a_change(cluster);
    what_fails_is_taken_back(cluster);

    let said = helm(cluster, &["rollback", RELEASE, "1", "--wait", "--timeout", "2m"]);
    assert!(said.contains("Rollback was a success"), "{said}");
    assert_eq!(cluster.get(&format!("configmap/{RELEASE}"), "{.data.greeting}"), "hello");
    assert_eq!(cluster.get(&format!("deployment/{RELEASE}"), "{.spec.replicas}"), "1");
    assert_eq!(history(cluster).last().expect("revisions"), "5 deployed");

    helm(cluster, &["uninstall", RELEASE, "--wait", "--timeout", "2m"]);
    let left =
        cluster.ok(&["get", "deployment,service,configmap,secret,buoy,role,ingress", "-l", "app.kubernetes.io/instance=pier"]);
    assert_eq!(left.trim(), "");
    assert_eq!(helm(cluster, &["list", "-a", "-q"]).trim(), "");
}

fn install(cluster: &Cluster) {
    let said = helm(cluster, &["install", RELEASE, "chart", "--wait", "--timeout", "2m"]);
    assert!(said.contains("STATUS: deployed") && said.contains("pier greets with hello."), "{said}");
    assert_eq!(cluster.get(&format!("deployment/{RELEASE}"), "{.status.readyReplicas}"), "1");
    assert_eq!(cluster.get(&format!("job/{RELEASE}-before"), "{.status.succeeded}"), "1");
    assert_eq!(cluster.get(&format!("buoy/{RELEASE}"), "{.spec.lights}"), r#"["north","hello"]"#);
    assert_eq!(cluster.get(&format!("configmap/{RELEASE}"), "{.data.served}"), "true");
    let version: Value = serde_json::from_str(&cluster.ok(&["version", "-o", "json"])).expect("JSON");
    assert_eq!(
        cluster.get(&format!("configmap/{RELEASE}"), "{.data.version}"),
        version["serverVersion"]["gitVersion"].as_str().unwrap()
    );

    let again = run(cluster, &["install", RELEASE, "chart"]);
    assert!(!again.status.success() && text(&again).contains("cannot re-use a name that is still in use"), "{}", text(&again));
    let tested = helm(cluster, &["test", RELEASE, "--logs", "--timeout", "2m"]);
    assert!(tested.contains("Succeeded") && tested.contains("the service answers"), "{tested}");
    let kept = cluster.ok(&["get", "secret", "-l", "owner=helm,name=pier,status=deployed", "-o", "jsonpath={.items[*].type}"]);
    assert_eq!(kept, "helm.sh/release.v1");
    // What the server defaults is no difference to the chart.
    let manifest = helm(cluster, &["get", "manifest", RELEASE]);
    let diff = cluster.kubectl_with_input(&["diff", "-f", "-"], &manifest);
    assert!(diff.status.success(), "{}", text(&diff));
}

fn upgrade_over_a_change(cluster: &Cluster) {
    // Rendered with what the cluster says of itself; nothing is written.
    let rendered = helm(cluster, &["upgrade", RELEASE, "chart", "--dry-run=server", "--set", "greeting=ahoy"]);
    assert!(rendered.contains("account: \"default\"") && rendered.contains("greeting: \"ahoy\""), "{rendered}");
    assert_eq!(cluster.get(&format!("configmap/{RELEASE}"), "{.data.greeting}"), "hello");
    // Helm merges three ways: what it does not change stays as somebody else left it.
    cluster.ok(&["annotate", "deployment", RELEASE, "example.test/looked-after-by=somebody"]);
    cluster.ok(&["set", "env", "deployment", RELEASE, "EXTRA=1"]);
    let set = ["--set", "greeting=moin,replicas=2,colour=green"];
    helm(cluster, &[&["upgrade", RELEASE, "chart", "--wait", "--timeout", "2m"], &set[..]].concat());
    let deployment = cluster.json(&["get", "deployment", RELEASE]);
    assert_eq!(deployment["metadata"]["annotations"]["example.test/looked-after-by"], "somebody");
    assert_eq!(deployment["status"]["readyReplicas"], 2, "{deployment}");
    let variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables").clone();
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert!(names.contains(&"EXTRA") && names.contains(&"GREETING"), "{names:?}");
    assert_eq!(cluster.get(&format!("buoy/{RELEASE}"), "{.spec}"), r#"{"colour":"green","lights":["north","moin"]}"#);
    assert_eq!(history(cluster), ["1 superseded", "2 deployed"]);
}

fn what_fails_is_taken_back(cluster: &Cluster) {
    let refused = run(cluster, &["upgrade", RELEASE, "chart", "--set", "greeting=moin,replicas=2,colour=blue"]);
    let why = r#"spec.colour: Unsupported value: "blue": supported values: "red", "green""#;
    assert!(!refused.status.success() && text(&refused).contains(why), "{}", text(&refused));
    assert_eq!(history(cluster), ["1 superseded", "2 deployed", "3 failed"]);

    let failing = ["upgrade", RELEASE, "chart", "--set", "greeting=fails,colour=green", "--timeout", "1m"];
    let failed = run(cluster, &failing);
    let said = text(&failed);
    assert!(!failed.status.success() && said.contains("pre-upgrade hooks failed"), "{said}");
    assert_eq!(cluster.get(&format!("configmap/{RELEASE}"), "{.data.greeting}"), "moin");
    assert_eq!(history(cluster).last().expect("revisions"), "4 failed");
}
