//! kubectl as Kubernetes' own conformance suite (sig-cli) uses it.

use crate::cluster::{Shared, enabled, shared, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

const CONTROLLER: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: primary, labels: {app: store, role: primary}}
spec:
  replicas: 1
  selector: {app: store, role: primary}
  template:
    metadata: {labels: {app: store, role: primary}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: primary, image: "registry.slipway.test/web:1", ports: [{name: primary-server, containerPort: 8080}]}
"#;

fn with_controller(namespace: &str) -> Shared {
    let cluster = shared(namespace);
    cluster.apply(CONTROLLER);
    cluster.wait_for("rc/primary", "{.status.readyReplicas}", "1");
    cluster
}

/// `[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]`,
/// `[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]`,
/// `[sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]`
#[test]
fn kubectl_learns_what_it_talks_to() {
    if !enabled("kubectl_learns_what_it_talks_to") {
        return;
    }
    let cluster = shared("suite-about");
    assert!(cluster.ok(&["api-versions"]).lines().any(|line| line == "v1"));
    assert!(cluster.ok(&["cluster-info"]).contains("Kubernetes control plane"));
    let version = cluster.ok(&["version", "-o", "json"]);
    let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
    for side in ["clientVersion", "serverVersion"] {
        for field in ["major", "minor", "gitVersion", "gitCommit", "goVersion", "platform"] {
            assert!(version[side][field].is_string(), "{side}.{field}: {version:#}");
        }
    }
}

/// `[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods [Conformance]`
#[test]
fn kubectl_describes_a_controller_and_its_pods() {
    if !enabled("kubectl_describes_a_controller_and_its_pods") {
        return;
    }
    let cluster = with_controller("suite-describe");
    cluster.ok(&["expose", "rc", "primary", "--name=primary", "--port=6379", "--target-port=primary-server"]);
    let pod = cluster.pods("app=store")[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let says = |what: &[&str], words: &[&str]| {
        let description = cluster.ok(&[&["describe"], what].concat());
        words.iter().for_each(|word| assert!(description.contains(word), "{what:?} lacks {word}:\n{description}"));
    };
    let namespace = cluster.namespace();
    says(
        &["pod", &pod],
        &[
            "Name:",
            "Namespace:",
            "Node:",
            "Labels:",
            "app=store",
            "Status:",
            "Running",
            "IP:",
            "Controlled By:  ReplicationController/primary",
            "Image:",
            "State:",
        ],
    );
    says(
        &["rc", "primary"],
        &[
            "Name:",
            "Namespace:",
            "Selector:",
            "Labels:",
            "Replicas:",
            "1 current",
            "1 desired",
            "Pods Status:",
            "1 Running",
            "Pod Template:",
            "Image:",
            "Events:",
        ],
    );
    says(
        &["service", "primary"],
        &[
            "Name:",
            "Labels:",
            "Selector:",
            "Type:",
            "ClusterIP",
            "IP:",
            "Port:",
            "6379",
            "TargetPort:",
            "primary-server",
            "Endpoints:",
            "Session Affinity:",
        ],
    );
    says(
        &["node", "node-1"],
        &[
            "Name:",
            "Labels:",
            "Annotations:",
            "CreationTimestamp:",
            "Conditions:",
            "Type",
            "Status",
            "LastHeartbeatTime",
            "Addresses:",
            "Capacity:",
            "Kubelet Version:",
            "Non-terminated Pods:",
        ],
    );
    says(
        &["namespace", &namespace],
        &["Name:", &namespace, "Labels:", "Status:", "Active", "No resource quota", "No LimitRange resource"],
    );
}

/// `[sig-cli] Kubectl client Kubectl expose should create services for rc [Conformance]`,
/// `[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc [Conformance]`,
/// `[sig-cli] Kubectl client Update Demo should scale a replication controller [Conformance]`,
/// `[sig-cli] Kubectl client Update Demo should create and stop a replication controller [Conformance]`
#[test]
fn kubectl_exposes_annotates_scales_and_stops_a_controller() {
    if !enabled("kubectl_exposes_annotates_scales_and_stops_a_controller") {
        return;
    }
    let cluster = with_controller("suite-controller");
    cluster.ok(&["expose", "rc", "primary", "--name=rm2", "--port=1234", "--target-port=8080"]);
    cluster.ok(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=8080"]);
    for (service, port) in [("rm2", "1234"), ("rm3", "2345")] {
        assert_eq!(
            cluster.get(&format!("service/{service}"), "{.spec.ports[0].port}-{.spec.ports[0].targetPort}"),
            format!("{port}-8080")
        );
        let address =
            || cluster.get(&format!("endpoints/{service}"), "{.subsets[0].addresses[0].ip}:{.subsets[0].ports[0].port}");
        cluster.wait("its endpoint", || address().ends_with(":8080"));
    }
    for pod in cluster.pods("app=store") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        cluster.ok(&["patch", "pod", name, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
    }
    assert!(cluster.pods("app=store").iter().all(|pod| pod["metadata"]["annotations"]["x"] == "y"));
    for replicas in [2, 1, 2] {
        cluster.ok(&["scale", "rc", "primary", &format!("--replicas={replicas}"), "--timeout=1m"]);
        cluster.wait("so many pods", || cluster.pods("app=store").len() == replicas);
        cluster.wait_for("rc/primary", "{.status.readyReplicas}", &replicas.to_string());
    }
    cluster.ok(&["delete", "rc", "primary", "--grace-period=0", "--force"]);
    cluster.wait("the end of its pods", || cluster.pods("app=store").is_empty());
}

/// `[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never [Conformance]`,
/// `[sig-cli] Kubectl client Kubectl label should update the label on a resource [Conformance]`,
/// `[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]`,
/// `[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods [Conformance]`
#[test]
fn kubectl_runs_labels_replaces_and_tries_a_pod() {
    if !enabled("kubectl_runs_labels_replaces_and_tries_a_pod") {
        return;
    }
    let cluster = shared("suite-pod");
    cluster.ok(&["run", "one", "--restart=Never", "--image=registry.slipway.test/web:1", "--labels=run=one"]);
    let image = "{.spec.containers[0].image}";
    assert_eq!(cluster.get("pod/one", image), "registry.slipway.test/web:1");
    assert_eq!(cluster.get("pod/one", "{.spec.restartPolicy}"), "Never");
    cluster.ok(&["label", "pod", "one", "testing-label=testing-label-value"]);
    assert!(cluster.ok(&["get", "pod", "one", "-L", "testing-label"]).contains("testing-label-value"));
    cluster.ok(&["label", "pod", "one", "testing-label-"]);
    assert!(!cluster.ok(&["get", "pod", "one", "-L", "testing-label"]).contains("testing-label-value"));
    let patch = r#"{"spec":{"containers":[{"name":"one","image":"registry.slipway.test/web:2"}]}}"#;
    let tried = cluster.ok(&["patch", "pod", "one", "-p", patch, "--dry-run=server", "-o", &format!("jsonpath={image}")]);
    assert_eq!(tried, "registry.slipway.test/web:2");
    assert_eq!(cluster.get("pod/one", image), "registry.slipway.test/web:1", "nothing was written");
    let pod = cluster.ok(&["get", "pod", "one", "-o", "json"]);
    cluster.with_input(&["replace", "-f", "-"], &pod.replace("web:1", "web:2"));
    assert_eq!(cluster.get("pod/one", image), "registry.slipway.test/web:2");
}

/// `[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]`
#[test]
fn kubectl_diff_finds_what_would_change() {
    if !enabled("kubectl_diff_finds_what_would_change") {
        return;
    }
    let cluster = shared("suite-diff");
    let manifest = |version: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec: {{replicas: 0, selector: {{matchLabels: {{app: d}}}}, \
             template: {{metadata: {{labels: {{app: d}}}}, spec: {{containers: [{{name: c, image: 'registry.slipway.test/web:{version}'}}]}}}}}}"
        )
    };
    cluster.apply(&manifest(1));
    let none = cluster.kubectl_with_input(&["diff", "-f", "-"], &manifest(1));
    assert_eq!(none.status.code(), Some(0), "{}", text(&none));
    let some = cluster.kubectl_with_input(&["diff", "-f", "-"], &manifest(2));
    assert_eq!(some.status.code(), Some(1));
    let said = text(&some);
    assert!(
        said.contains("-      - image: registry.slipway.test/web:1")
            && said.contains("+      - image: registry.slipway.test/web:2"),
        "{said}"
    );
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Proxy {
    /// Starts `kubectl proxy`, and waits for the line in which it says where.
    fn start(cluster: &Shared, arguments: &[&str]) -> (Proxy, String) {
        let mut command = cluster.kubectl_command("");
        let mut proxy = Proxy(command.arg("proxy").args(arguments).stdout(Stdio::piped()).spawn().expect("kubectl is installed"));
        let mut line = String::new();
        BufReader::new(proxy.0.stdout.take().expect("piped")).read_line(&mut line).expect("it says where");
        (proxy, line.trim().to_owned())
    }
}

/// `[sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]`,
/// `[sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]`
#[test]
fn kubectl_proxies_the_api() {
    if !enabled("kubectl_proxies_the_api") {
        return;
    }
    let cluster = shared("suite-proxy");
    let (_proxy, said) = Proxy::start(&cluster, &["--port=0", "--disable-filter"]);
    let address = said.strip_prefix("Starting to serve on ").expect("an address");
    assert!(crate::cluster::http_get(address, "/api/").expect("an answer").contains("\"versions\""));

    let socket = cluster.data_dir.join("proxy.sock");
    let (_other, _) = Proxy::start(&cluster, &[&format!("--unix-socket={}", socket.display())]);
    let mut stream = UnixStream::connect(&socket).expect("it listens");
    stream.write_all(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"versions\""), "{answer}");
}
