//! Kubernetes' own clients, unchanged: the official Python and JavaScript ones, and kube-rs, each over HTTPS with the
//! cluster's kubeconfig.

use crate::cluster::{Cluster, enabled, shared, text};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, AttachParams, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};
use slipway_api::core::{ConfigMap, Pod};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where `./dev e2e` puts clients that are not on the path.
pub fn clients() -> PathBuf {
    PathBuf::from(
        std::env::var("SLIPWAY_CLIENTS").expect("SLIPWAY_CLIENTS names the folder of the clients (./dev e2e installs them)"),
    )
}

/// Runs a client's script, which says "ok" if all that it tried came out as it should.
fn run(cluster: &Cluster, program: &Path, script: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clients").join(script);
    let output = Command::new(program)
        .arg(&script)
        .arg(cluster.data_dir.join("kubeconfig"))
        .arg(cluster.namespace())
        .env("CLIENT_MODULES", clients())
        .stdin(Stdio::null())
        .output()
        .expect("the interpreter is installed");
    let said = text(&output);
    assert!(output.status.success() && said.lines().any(|line| line == "ok"), "{said}\n{}", cluster.log_tail());
}

#[test]
fn the_official_python_client() {
    if enabled("the_official_python_client") {
        run(&shared("python-client"), &clients().join("bin/python3"), "client.py");
    }
}

#[test]
fn the_official_javascript_client() {
    if enabled("the_official_javascript_client") {
        run(&shared("javascript-client"), Path::new("node"), "client.mjs");
    }
}

#[test]
fn kube_rs() {
    if !enabled("kube_rs") {
        return;
    }
    let cluster = shared("kube-rs");
    // On this thread, which is in the cluster's network.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.data_dir.join("kubeconfig")).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("it is whole");
        let client = kube::Client::try_from(config).expect("it has all that a client needs");
        config_maps(Api::namespaced(client.clone(), &cluster.namespace())).await;
        pods(Api::namespaced(client, &cluster.namespace())).await;
    });
}

fn config_map(value: Value) -> ConfigMap {
    serde_json::from_value(value).expect("a ConfigMap")
}

async fn config_maps(maps: Api<ConfigMap>) {
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let from = list.metadata.resource_version.expect("a list has a revision");
    let made = maps.create(&PostParams::default(), &config_map(json!({"metadata": {"name": "rs"}, "data": {"a": "1"}}))).await;
    let made = made.expect("it is created");
    let again = maps.create(&PostParams::default(), &made).await.expect_err("resourceVersion is set");
    assert!(matches!(again, kube::Error::Api(status) if status.code == 400));
    let apply = |manager: &str, force: bool| PatchParams { force, ..PatchParams::apply(manager) };
    let wish = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rs"}, "data": {"b": "2"}});
    let applied = maps.patch("rs", &apply("kube-rs", false), &Patch::Apply(&wish)).await.expect("nobody else has that field");
    assert_eq!(applied.data.expect("data").len(), 2);
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rs"}, "data": {"b": "3"}});
    let conflict = maps.patch("rs", &apply("other", false), &Patch::Apply(&theirs)).await.expect_err("kube-rs has it");
    assert!(matches!(conflict, kube::Error::Api(status) if status.code == 409));
    maps.patch("rs", &apply("other", true), &Patch::Apply(&theirs)).await.expect("forced");
    maps.delete("rs", &DeleteParams::default()).await.expect("it is deleted");

    let params = WatchParams::default().fields("metadata.name=rs").timeout(10);
    let mut events = maps.watch(&params, &from).await.expect("a watch").boxed();
    let mut seen = vec![];
    while let Some(event) = events.try_next().await.expect("an event") {
        seen.push(match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(error) => panic!("{error:?}"),
        });
        if seen.ends_with(&["deleted"]) {
            break;
        }
    }
    assert_eq!(seen, ["added", "modified", "modified", "deleted"]);
}

async fn pods(pods: Api<Pod>) {
    let pod = json!({
        "metadata": {"name": "rs"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "registry.slipway.test/busybox:1", "command": ["sleep", "1000"]},
            {"name": "web", "image": "registry.slipway.test/web:1"},
        ]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("it is created");
    let running = await_condition(pods.clone(), "rs", conditions::is_pod_running());
    tokio::time::timeout(crate::cluster::PATIENCE, running).await.expect("in time").expect("a watch");

    let command = ["sh", "-c", "read line; echo got $line"];
    let params = AttachParams::default().container("main").stdin(true).stderr(false);
    let mut session = pods.exec("rs", command, &params).await.expect("exec over a WebSocket");
    session.stdin().expect("asked for").write_all(b"a line\n").await.expect("it is read");
    let mut said = String::new();
    session.stdout().expect("asked for").read_to_string(&mut said).await.expect("it ends");
    assert_eq!(said, "got a line\n");

    let mut tunnel = pods.portforward("rs", &[8080]).await.expect("a tunnel over a WebSocket");
    let mut stream = tunnel.take_stream(8080).expect("asked for");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it ends");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    pods.delete("rs", &DeleteParams::default()).await.expect("it is deleted");
}
