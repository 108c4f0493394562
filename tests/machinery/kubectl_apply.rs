//! What `kubectl apply`, `diff` and `scale` of several versions do, on both sides.

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::http::serve::tls;
use slipway_store::memory::Memory;
use slipway_tests::{PATIENCE, TestServer};
use std::process::Stdio;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "the-administrators-token";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// A server on a port of this machine, and a kubectl.
pub struct Listening {
    pub server: TestServer,
    kubectl: String,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What a server needs so that it can be listened to.
pub fn options() -> Options {
    Options { static_tokens: vec![(TOKEN.into(), User::admin())], ..Options::default() }
}

pub async fn listen(kubectl: &str) -> Listening {
    listen_to(TestServer::start(Memory::new(), options()).await, kubectl).await
}

pub async fn listen_to(server: TestServer, kubectl: &str) -> Listening {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let tls = tls(&certificate.pem(), &key.serialize_pem(), None).unwrap();
    tokio::spawn(server.api.clone().serve(listener, tls, shutdown.clone()));
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{address}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    });
    std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
    Listening { server, kubectl: kubectl.to_owned(), folder, shutdown }
}

impl Listening {
    /// The exit code and all that was said.
    pub async fn run(&self, arguments: &[&str], input: &str) -> (i32, String) {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.folder.path().join("config"));
        command.arg("--cache-dir").arg(self.folder.path().join("cache")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("kubectl is installed");
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("kubectl ends").unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    #[track_caller]
    pub fn ok<'a>(&'a self, arguments: &'a str, input: &'a Value) -> impl Future<Output = String> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let input = if input.is_null() { String::new() } else { input.to_string() };
            let (code, text) = self.run(&arguments.split(' ').collect::<Vec<_>>(), &input).await;
            assert_eq!(code, 0, "{} {arguments} at {caller}: {text}", self.kubectl);
            text
        }
    }

    async fn web(&self) -> Value {
        self.server.get(WEB).await.expect(200)
    }
}

/// Every version that the machine has; at least the one on the path.
pub fn kubectls() -> Vec<String> {
    let path = |version: &str| format!("/usr/lib/google-cloud-sdk/bin/kubectl.{version}");
    let mut all: Vec<String> =
        ["1.27", "1.30", "1.33"].map(path).into_iter().filter(|path| std::path::Path::new(path).exists()).collect();
    if all.is_empty() {
        all.push("kubectl".into());
    }
    all
}

fn web(replicas: i64, env: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "image": "i:1", "env": env, "ports": [{"containerPort": 80}]}]}}}})
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| format!("{} {}", entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap()))
        .collect()
}

fn env(object: &Value) -> Value {
    object["spec"]["template"]["spec"]["containers"][0].get("env").cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_clients_side_to_the_servers_and_back() {
    for kubectl in kubectls() {
        let listening = listen(&kubectl).await;
        let ok = async |arguments: &str, input: &Value| listening.ok(arguments, input).await;
        let (a, b) = (json!({"name": "A", "value": "1"}), json!({"name": "B", "value": "2"}));
        assert_eq!(ok("apply -f -", &web(1, json!([a, b]))).await, "deployment.apps/web created\n");
        assert_eq!(managers(&listening.web().await), ["kubectl-client-side-apply Update"]);
        assert_eq!(ok("apply -f -", &web(1, json!([a, b]))).await, "deployment.apps/web unchanged\n");
        // What the client's side applied before is the server's to remove.
        assert_eq!(ok("apply --server-side -f -", &web(2, json!([b]))).await, "deployment.apps/web serverside-applied\n");
        let object = listening.web().await;
        // The annotation is kept under a name of its own.
        assert_eq!(managers(&object), ["kubectl Apply", "kubectl-last-applied Apply"], "{kubectl}: {object:#}");
        assert_eq!((&object["spec"]["replicas"], env(&object)), (&json!(2), json!([b])));
        let version = object["metadata"]["resourceVersion"].clone();
        ok("apply --server-side -f -", &web(2, json!([b]))).await;
        assert_eq!(listening.web().await["metadata"]["resourceVersion"], version);
        // And back: the annotation was kept true.
        assert!(ok("apply view-last-applied deployment/web -o json", &Value::Null).await.contains("\"replicas\": 2"));
        assert_eq!(ok("apply -f -", &web(3, json!([a]))).await, "deployment.apps/web configured\n");
        let object = listening.web().await;
        assert_eq!((&object["spec"]["replicas"], env(&object)), (&json!(3), json!([a])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_between_managers_and_with_who_scales() {
    for kubectl in kubectls() {
        let listening = listen(&kubectl).await;
        let ok = async |arguments: &str, input: &Value| listening.ok(arguments, input).await;
        ok("apply --server-side -f -", &web(1, json!([]))).await;
        let other = web(2, json!([])).to_string();
        let arguments = ["apply", "--server-side", "--field-manager", "other", "-f", "-"];
        let (code, text) = listening.run(&arguments, &other).await;
        assert_eq!(code, 1);
        assert!(text.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"), "{text}");
        assert!(text.contains("Please review the fields above"), "{text}");
        ok("apply --server-side --field-manager other --force-conflicts -f -", &web(2, json!([]))).await;
        assert_eq!(listening.web().await["spec"]["replicas"], 2);
        ok("scale deployment web --replicas 5", &Value::Null).await;
        let (_, text) = listening.run(&arguments, &other).await;
        assert!(text.contains("with subresource \"scale\" using apps/v1: .spec.replicas"), "{text}");
        assert!(!ok("get deployment web -o yaml", &Value::Null).await.contains("managedFields"));
        assert!(ok("get deployment web -o yaml --show-managed-fields", &Value::Null).await.contains("subresource: scale"));
        let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "dat": {"a": "b"}}).to_string();
        let (_, text) = listening.run(&["apply", "--server-side", "-f", "-"], &unknown).await;
        assert!(
            text.contains("failed to create typed patch object") && text.contains(".dat: field not declared in schema"),
            "{text}"
        );
        let dry =
            ok("apply --server-side --dry-run=server -f - --field-manager other --force-conflicts", &web(7, json!([]))).await;
        assert_eq!(
            (dry.as_str(), &listening.web().await["spec"]["replicas"]),
            ("deployment.apps/web serverside-applied (server dry run)\n", &json!(5))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_shown_before_they_are_made() {
    for kubectl in kubectls() {
        let listening = listen(&kubectl).await;
        for side in ["--server-side=false", "--server-side"] {
            let sided = |verb: &'static str| vec![verb, side, "-f", "-"];
            let (code, text) = listening.run(&sided("diff"), &web(1, json!([])).to_string()).await;
            assert!(code == 1 && text.contains("+kind: Deployment"), "{kubectl} {side}: {text}");
            let (code, text) = listening.run(&sided("apply"), &web(1, json!([])).to_string()).await;
            assert_eq!(code, 0, "{text}");
            assert_eq!(listening.run(&sided("diff"), &web(1, json!([])).to_string()).await, (0, String::new()));
            let (code, text) = listening.run(&sided("diff"), &web(4, json!([])).to_string()).await;
            assert!(code == 1 && text.contains("-  replicas: 1") && text.contains("+  replicas: 4"), "{kubectl} {side}: {text}");
            assert_eq!(listening.web().await["spec"]["replicas"], 1);
            listening.ok("delete deployment web", &Value::Null).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_in_the_set_is_pruned() {
    for kubectl in kubectls() {
        let listening = listen(&kubectl).await;
        let map =
            |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"set": "x"}}});
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [map("a"), map("b")]});
        let apply = "apply --prune --prune-allowlist=core/v1/ConfigMap -l set=x -f -";
        listening.ok(apply, &both).await;
        let text = listening.ok(apply, &map("a")).await;
        assert!(text.contains("configmap/b pruned"), "{text}");
        listening.server.get("/api/v1/namespaces/default/configmaps/a").await.expect(200);
        listening.server.get("/api/v1/namespaces/default/configmaps/b").await.expect_status(404, "NotFound");
    }
}
