//! What is served, as it is told: to the suite's eyes, and to kubectl's.

use crate::aggregation::{TOKEN, listen};
use crate::extension_server::options;
use serde_json::{Value, json};
use slipway_apiserver::{Options, User};
use slipway_store::memory::Memory;
use slipway_tests::authority::Authority;
use slipway_tests::{PATIENCE, TestServer};
use tokio_util::sync::DropGuard;

pub const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What the suite looks for: group, version, resource.
const EXPECTED: [(&str, &str, &str); 20] = [
    ("", "v1", "namespaces"),
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "v1", "apiservices"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "storageclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
];

/// `[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]`
/// `[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]`
#[tokio::test]
async fn each_group_is_told_of_with_its_resources() {
    let server = TestServer::memory().await;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for (group, version, resource) in EXPECTED {
        let root = if group.is_empty() { "/api" } else { "/apis" };
        let groups = server.get_as(V2, root).await.expect(200);
        let told = list(&groups["items"]).iter().any(|one| {
            let is_it = one["metadata"]["name"] == group || (group.is_empty() && one["metadata"]["name"].is_null());
            let versions = list(&one["versions"]);
            let version = versions.iter().find(|one| one["version"] == version);
            is_it && version.is_some_and(|version| list(&version["resources"]).iter().any(|one| one["resource"] == resource))
        });
        assert!(told, "{group} {version} {resource}");
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let resources = server.get(&path).await.expect(200);
        let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        assert_eq!(resources["groupVersion"], group_version);
        assert!(list(&resources["resources"]).iter().any(|one| one["name"] == resource), "{group_version} {resource}");
    }
}

/// `[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]`
#[tokio::test]
async fn each_group_prefers_one_of_its_versions() {
    let server = TestServer::memory().await;
    let groups = server.get("/apis/").await.expect(200)["groups"].as_array().unwrap().clone();
    assert!(!groups.is_empty());
    for group in groups {
        let one = server.get(&format!("/apis/{}/", group["name"].as_str().unwrap())).await.expect(200);
        let versions = one["versions"].as_array().unwrap();
        assert!(versions.iter().any(|version| version["groupVersion"] == one["preferredVersion"]["groupVersion"]), "{one}");
    }
}

/// kubectl, which asks as Go's client does.
pub struct Kubectl {
    folder: tempfile::TempDir,
    /// The server is served until this is dropped.
    _shutdown: DropGuard,
}

impl Kubectl {
    /// `None`, and a word, where there is no kubectl.
    pub async fn of(server: &TestServer) -> Option<Kubectl> {
        if std::process::Command::new("kubectl").arg("version").arg("--client").output().is_err() {
            eprintln!("SKIPPED: there is no kubectl");
            return None;
        }
        let (address, _, shutdown) = listen(server, None).await;
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("https://127.0.0.1:{}", address.port()), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        });
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Some(Kubectl { folder, _shutdown: shutdown.drop_guard() })
    }

    /// What it says, well or badly.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::new("kubectl");
        let folder = self.folder.path();
        command.arg("--kubeconfig").arg(folder.join("config")).arg("--cache-dir").arg(folder.join("cache"));
        let output = tokio::time::timeout(PATIENCE, command.args(arguments).kill_on_drop(true).output());
        let output = output.await.expect("kubectl ends").unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

/// A server that takes kubectl for an administrator.
pub async fn with_token() -> TestServer {
    let options = Options { static_tokens: vec![(TOKEN.into(), User::admin())], ..options(&Authority::new("front-proxy")) };
    TestServer::start(Memory::new(), options).await
}

/// `[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]`
#[tokio::test]
async fn what_gos_client_makes_of_the_lists() {
    let server = with_token().await;
    let Some(kubectl) = Kubectl::of(&server).await else { return };
    let versions = kubectl.run(&["api-versions"]).await;
    let resources = kubectl.run(&["api-resources", "-o", "name"]).await;
    for (group, version, resource) in EXPECTED {
        let (group_version, name) = match group {
            "" => (version.to_owned(), resource.to_owned()),
            group => (format!("{group}/{version}"), format!("{resource}.{group}")),
        };
        assert!(versions.lines().any(|line| line == group_version), "{group_version}: {versions}");
        assert!(resources.lines().any(|line| line == name), "{name}: {resources}");
    }
    // Of the versions that a group does not prefer, too, it knows what is in them.
    for version in ["v1", "v2"] {
        let told = kubectl.run(&["explain", "hpa", &format!("--api-version=autoscaling/{version}")]).await;
        assert!(told.contains(&format!("VERSION:    {version}")), "{version}: {told}");
    }
}
