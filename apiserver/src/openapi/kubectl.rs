//! The real kubectl against the documents: `apply`, `create` and `explain` work without flags, and `apply` takes from the
//! schema how lists merge. With every version that is installed.

use crate::http::authenticate::User;
use crate::{ApiServer, Options};
use serde_json::{Value, json};
use slipway_store::memory::Memory;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Every kubectl of the search path, also those that carry their version in the name.
fn installed() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    folders.push("/usr/lib/google-cloud-sdk/bin".into());
    let mut found: Vec<PathBuf> = folders
        .iter()
        .filter_map(|folder| folder.read_dir().ok())
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name == "kubectl" || ["kubectl.1.27", "kubectl.1.30", "kubectl.1.33"].contains(&name.as_str())
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.dedup_by_key(|path| path.file_name().map(ToOwned::to_owned));
    if found.is_empty() {
        eprintln!("SKIPPED: no kubectl is installed");
    }
    found
}

struct Cluster {
    _api: Arc<ApiServer>,
    url: String,
    folder: tempfile::TempDir,
    serving: tokio::task::JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let api = ApiServer::start(Memory::new(), Options::default()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = api.router().layer(axum::Extension(User::admin()));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Cluster { _api: api, url, folder: tempfile::tempdir().unwrap(), serving }
    }

    async fn run(&self, kubectl: &PathBuf, arguments: &str, input: &str) -> (bool, String) {
        let mut command = tokio::process::Command::new(kubectl);
        let name = kubectl.file_name().unwrap();
        command.env("KUBECONFIG", "/dev/null").arg("--server").arg(&self.url);
        command.arg("--cache-dir").arg(self.folder.path().join(name)).args(arguments.split(' '));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("kubectl ends").unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    async fn must(&self, kubectl: &PathBuf, arguments: &str, input: &str) -> String {
        let (done, text) = self.run(kubectl, arguments, input).await;
        assert!(done, "{} {arguments}: {text}", kubectl.display());
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn deployment(name: &str, env: Value) -> String {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1", "env": env}]}}}})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_merges_lists_by_the_served_keys() {
    let cluster = Cluster::start().await;
    for kubectl in installed() {
        let name = kubectl.file_name().unwrap().to_string_lossy().replace('.', "-");
        let first = deployment(&name, json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
        let created = cluster.must(&kubectl, "apply -f -", &first).await;
        assert_eq!(created, format!("deployment.apps/{name} created\n"));
        let unchanged = cluster.must(&kubectl, "apply -f -", &first).await;
        assert_eq!(unchanged, format!("deployment.apps/{name} unchanged\n"));
        // Someone else adds a variable and a container, which apply must leave alone.
        let added = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "env": [{"name": "X", "value": "9"}]}, {"name": "other", "image": "o:1"}]}}}});
        cluster.must(&kubectl, &format!("patch deployment {name} -p {added}"), "").await;
        let second = deployment(&name, json!([{"name": "A", "value": "3"}]));
        let configured = cluster.must(&kubectl, "apply -f -", &second).await;
        assert_eq!(configured, format!("deployment.apps/{name} configured\n"));
        let object = cluster.must(&kubectl, &format!("get deployment {name} -o json"), "").await;
        let object: Value = serde_json::from_str(&object).unwrap();
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let names: Vec<&str> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
        assert_eq!(names, ["c", "other"], "{}", kubectl.display());
        let of_c = containers.iter().find(|container| container["name"] == "c").unwrap();
        let mut env: Vec<String> =
            of_c["env"].as_array().unwrap().iter().map(|one| format!("{}={}", one["name"], one["value"])).collect();
        env.sort();
        assert_eq!(env, ["\"A\"=\"3\"", "\"X\"=\"9\""], "{}", kubectl.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_told_of() {
    let cluster = Cluster::start().await;
    for kubectl in installed() {
        let bad = deployment("bad", json!([])).replace("\"image\"", "\"imagee\"");
        let (done, text) = cluster.run(&kubectl, "create -f -", &bad).await;
        assert!(!done);
        assert!(
            text.contains("strict decoding error: unknown field \"spec.template.spec.containers[0].imagee\""),
            "{}: {text}",
            kubectl.display()
        );
        let name = kubectl.file_name().unwrap().to_string_lossy().replace('.', "-");
        let odd = deployment(&name, json!([])).replace("\"selector\"", "\"selectr\":1,\"selector\"");
        let text = cluster.must(&kubectl, "create --validate=warn -f -", &odd).await;
        assert!(text.contains("Warning: unknown field \"spec.selectr\""), "{}: {text}", kubectl.display());
        assert!(text.contains("created"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_of_fields() {
    let cluster = Cluster::start().await;
    for kubectl in installed() {
        let about = cluster.must(&kubectl, "explain deployment.spec.replicas", "").await;
        assert!(about.contains("Number of desired pods."), "{}: {about}", kubectl.display());
        assert!(about.contains("integer"), "{about}");
        let about = cluster.must(&kubectl, "explain pod.spec.containers", "").await;
        assert!(about.contains("imagePullPolicy") && about.contains("required"), "{}: {about}", kubectl.display());
        let about = cluster.must(&kubectl, "explain nodepool.spec", "").await;
        assert!(about.contains("instanceTypes"), "{}: {about}", kubectl.display());
    }
}
