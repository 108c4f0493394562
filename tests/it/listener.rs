//! The listener: TLS, client certificates, HTTP/2, and the real kubectl.

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;
use slipway_apiserver::http::serve::tls;
use slipway_tests::authority::Authority;
use slipway_tests::{PATIENCE, TestServer, config_map};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio_util::sync::CancellationToken;

/// A server on a port of this machine, and a kubeconfig of its administrator.
struct Listening {
    server: TestServer,
    authority: Authority,
    url: String,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

async fn listen() -> Listening {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let authority = Authority::new("test-ca");
    let (cert, key) = authority.sign(&["localhost", "127.0.0.1"], "kube-apiserver", &[], ExtendedKeyUsagePurpose::ServerAuth);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let server = TestServer::memory().await;
    let shutdown = CancellationToken::new();
    let tls = tls(&cert, &key, Some(&authority.pem)).unwrap();
    let served = tokio::spawn(server.api.clone().serve(listener, tls, shutdown.clone()));
    Listening { server, authority, url, folder: tempfile::tempdir().unwrap(), shutdown, served }
}

impl Listening {
    fn kubeconfig(&self, name: &str, groups: &[&str]) -> PathBuf {
        let (cert, key) = self.authority.sign(&[], name, groups, ExtendedKeyUsagePurpose::ClientAuth);
        let file = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url, "certificate-authority": file("ca.pem", &self.authority.pem),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate": file(&format!("{name}.pem"), &cert), "client-key": file(&format!("{name}.key"), &key),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        });
        file(&format!("{name}.config"), &config.to_string())
    }

    async fn kubectl(&self, config: &Path, arguments: &[&str], input: Option<&str>) -> (bool, String) {
        let mut command = tokio::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(config).arg("--cache-dir").arg(self.folder.path().join("cache")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("kubectl is installed");
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, input.unwrap_or_default().as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("kubectl ends").unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_reads_and_deletes() {
    let listening = listen().await;
    let admin = listening.kubeconfig("kubernetes-admin", &["system:masters"]);
    let kubectl = async |arguments: &str, input: Option<&str>| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let (ok, text) = listening.kubectl(&admin, &arguments, input).await;
        assert!(ok, "kubectl {}: {text}", arguments.join(" "));
        text
    };
    assert_eq!(kubectl("create configmap a --from-literal=key=1", None).await, "configmap/a created\n");
    let table = kubectl("get configmaps", None).await;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&rows[0], &rows[1][..2]), (&vec!["NAME", "DATA", "AGE"], &["a", "1"][..]));
    assert_eq!(kubectl("get configmap a -o jsonpath={.data.key}", None).await, "1");
    kubectl("label configmap a team=x", None).await;
    assert_eq!(kubectl("get configmaps -l team=x -o name", None).await, "configmap/a\n");
    let manifest = config_map("b", "2").to_string();
    assert_eq!(kubectl("create -f -", Some(&manifest)).await, "configmap/b created\n");
    assert_eq!(kubectl("delete configmap a b", None).await, "configmap \"a\" deleted\nconfigmap \"b\" deleted\n");
    assert_eq!(kubectl("create namespace team", None).await, "namespace/team created\n");
    assert!(kubectl("version", None).await.contains("v1.37.0+slipway"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prints_refusals() {
    let listening = listen().await;
    let jane = listening.kubeconfig("jane", &["team-x"]);
    let (ok, text) = listening.kubectl(&jane, &["get", "pods"], None).await;
    assert!(!ok);
    assert_eq!(
        text,
        "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"\n"
    );
    let admin = listening.kubeconfig("kubernetes-admin", &["system:masters"]);
    let (ok, text) = listening.kubectl(&admin, &["get", "pod", "none"], None).await;
    assert_eq!((ok, text.as_str()), (false, "Error from server (NotFound): pods \"none\" not found\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_says_that_there_is_no_such_kind() {
    let listening = listen().await;
    let admin = listening.kubeconfig("kubernetes-admin", &["system:masters"]);
    for (version, kind) in [("widgets.example.com/v1", "Widget"), ("apps/v1", "Widget"), ("v1", "Widget")] {
        let manifest = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "w"}}).to_string();
        let (ok, text) = listening.kubectl(&admin, &["apply", "-f", "-"], Some(&manifest)).await;
        assert!(!ok && text.contains(&format!("no matches for kind \"{kind}\" in version \"{version}\"")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let listening = listen().await;
    let stranger = Authority::new("test-ca");
    let (cert, key) = stranger.sign(&[], "kubernetes-admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let config = listening.kubeconfig("kubernetes-admin", &["system:masters"]);
    std::fs::write(listening.folder.path().join("kubernetes-admin.pem"), cert).unwrap();
    std::fs::write(listening.folder.path().join("kubernetes-admin.key"), key).unwrap();
    let (ok, text) = listening.kubectl(&config, &["get", "pods"], None).await;
    assert!(!ok && !text.contains("No resources found"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shutdown_ends_watches_and_the_listener() {
    let listening = listen().await;
    let admin = listening.kubeconfig("kubernetes-admin", &["system:masters"]);
    let config = kube::config::Kubeconfig::read_from(&admin).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let api: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(client, "default");
    listening.server.post("/api/v1/namespaces/default/configmaps", config_map("a", "1")).await.expect(201);
    let mut events = std::pin::pin!(api.watch(&kube::api::WatchParams::default(), "0").await.unwrap());
    let first = futures::StreamExt::next(&mut events).await.unwrap().unwrap();
    assert!(matches!(first, kube::api::WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("a")));
    listening.shutdown.cancel();
    let end = tokio::time::timeout(PATIENCE, futures::StreamExt::next(&mut events)).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    tokio::time::timeout(PATIENCE, listening.served).await.unwrap().unwrap();
    let list = api.list(&Default::default()).await;
    assert!(list.is_err());
}
