//! RuntimeClasses, IngressClasses and Ingresses, PodTemplates: the kinds, and what admission makes of them.

use serde_json::{Value, json};
use slipway_tests::TestServer;

const RUNTIMES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
const INGRESS_CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    pod
}

fn runtime(name: &str, more: Value) -> Value {
    let mut class =
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runc"});
    class.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    class
}

/// `[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]`,
/// `[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance] [Conformance]`,
/// `[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance] [Conformance]`
/// (what admission does)
#[tokio::test]
async fn a_pod_gets_what_its_runtime_class_costs_and_where_it_runs() {
    let server = TestServer::memory().await;
    let message = server.post(PODS, pod("a", json!({"runtimeClassName": "no"}))).await.expect_status(403, "Forbidden");
    assert_eq!(message, "pods \"a\" is forbidden: pod rejected: RuntimeClass \"no\" not found");
    let more = json!({"overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}},
        "scheduling": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "fast", "operator": "Exists", "effect": "NoSchedule"}]}});
    server.post(RUNTIMES, runtime("sandbox", more)).await.expect(201);
    let made =
        server.post(PODS, pod("a", json!({"runtimeClassName": "sandbox", "nodeSelector": {"zone": "a"}}))).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "10m", "memory": "1Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "ssd", "zone": "a"}));
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().iter().filter(|one| one["key"] == "fast").count(), 1);
    let message = server
        .post(PODS, pod("b", json!({"runtimeClassName": "sandbox", "nodeSelector": {"disk": "hdd"}})))
        .await
        .expect_status(403, "Forbidden");
    let why = "conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd";
    assert_eq!(message, format!("pods \"b\" is forbidden: {why}"));
    let message = server.post(PODS, pod("b", json!({"overhead": {"cpu": "1"}}))).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"b\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
    );
    server.delete(&format!("{RUNTIMES}/sandbox")).await.expect(200);
    server.post(PODS, pod("b", json!({"runtimeClassName": "sandbox"}))).await.expect_status(403, "Forbidden");
}

/// `[sig-node] RuntimeClass should support RuntimeClasses API operations [Conformance]`
#[tokio::test]
async fn runtime_classes_are_served() {
    let server = TestServer::memory().await;
    let group = server.get("/apis/node.k8s.io").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "node.k8s.io/v1");
    server.post(RUNTIMES, runtime("a", json!({}))).await.expect(201);
    server.post(RUNTIMES, runtime("b", json!({"metadata": {"name": "b", "labels": {"x": "y"}}}))).await.expect(201);
    let patched =
        server.patch(&format!("{RUNTIMES}/a"), json!({"metadata": {"annotations": {"patched": "true"}}})).await.expect(200);
    let mut updated = patched.clone();
    updated["metadata"]["annotations"]["updated"] = json!("true");
    server.put(&format!("{RUNTIMES}/a"), updated.clone()).await.expect(200);
    updated["handler"] = json!("kata");
    updated["metadata"]["resourceVersion"] = Value::Null;
    let message = server.put(&format!("{RUNTIMES}/a"), updated).await.expect_status(422, "Invalid");
    assert_eq!(message, "RuntimeClass.node.k8s.io \"a\" is invalid: handler: Invalid value: \"kata\": field is immutable");
    assert_eq!(server.get(&format!("{RUNTIMES}?labelSelector=x%3Dy")).await.expect(200)["items"].as_array().unwrap().len(), 1);
    server.delete(RUNTIMES).await.expect(200);
    assert_eq!(server.get(RUNTIMES).await.expect(200)["items"], json!([]));
}

fn ingress_class(name: &str, default: bool) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "spec": {"controller": "example.com/controller"},
        "metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": default.to_string()}}})
}

fn ingress(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}})
}

/// `[sig-network] IngressClass should set default value on new IngressClass`,
/// `[sig-network] IngressClass should prevent Ingress creation if more than 1 IngressClass marked as default`
#[tokio::test]
async fn an_ingress_is_of_the_one_default_class() {
    let server = TestServer::memory().await;
    server.post(INGRESS_CLASSES, ingress_class("other", false)).await.expect(201);
    assert_eq!(server.post(INGRESSES, ingress("a")).await.expect(201)["spec"].get("ingressClassName"), None);
    server.post(INGRESS_CLASSES, ingress_class("one", true)).await.expect(201);
    assert_eq!(server.post(INGRESSES, ingress("b")).await.expect(201)["spec"]["ingressClassName"], "one");
    server.post(INGRESS_CLASSES, ingress_class("two", true)).await.expect(201);
    let message = server.post(INGRESSES, ingress("c")).await.expect_status(403, "Forbidden");
    let why = "Internal error occurred: 2 default IngressClasses were found, only 1 allowed";
    assert_eq!(message, format!("ingresses.networking.k8s.io \"c\" is forbidden: {why}"));
    let mut own = ingress("c");
    own["spec"]["ingressClassName"] = json!("other");
    server.post(INGRESSES, own).await.expect(201);
}

/// `[sig-network] Ingress API should support creating Ingress API operations [Conformance]`,
/// `[sig-network] IngressClass API should support creating IngressClass API operations [Conformance]`
#[tokio::test]
async fn ingresses_are_served() {
    let server = TestServer::memory().await;
    let made = server.post(INGRESSES, ingress("a")).await.expect(201);
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({"loadBalancer": {}})));
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}});
    let patched = server.patch(&format!("{INGRESSES}/a/status"), status).await.expect(200);
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "169.1.1.1");
    assert_eq!(server.get(&format!("{INGRESSES}/a/status")).await.expect(200)["status"], patched["status"]);
    let spec = json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]}});
    assert_eq!(server.patch(&format!("{INGRESSES}/a"), spec).await.expect(200)["metadata"]["generation"], 2);
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", INGRESSES).await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..5],
        [json!("a"), json!("<none>"), json!("a.example.com"), json!("169.1.1.1"), json!("80")]
    );
    let message = server.post(INGRESSES, json!({"metadata": {"name": "bad"}, "spec": {}})).await.expect_status(422, "Invalid");
    assert!(
        message.starts_with("Ingress.networking.k8s.io \"bad\" is invalid: spec: Invalid value: []: either `defaultBackend` or"),
        "{message}"
    );
    server.delete(INGRESSES).await.expect(200);
    server.post(INGRESS_CLASSES, ingress_class("c", false)).await.expect(201);
    let mut other = server.get(&format!("{INGRESS_CLASSES}/c")).await.expect(200);
    other["spec"]["controller"] = json!("example.com/other");
    server.put(&format!("{INGRESS_CLASSES}/c"), other).await.expect_status(422, "Invalid");
    server.delete(&format!("{INGRESS_CLASSES}/c")).await.expect(200);
}

/// `[sig-node] PodTemplates should run the lifecycle of PodTemplates [Conformance]`,
/// `[sig-node] PodTemplates should delete a collection of pod templates [Conformance]`,
/// `[sig-node] PodTemplates should replace a pod template [Conformance]`
#[tokio::test]
async fn pod_templates_are_served() {
    let server = TestServer::memory().await;
    let template = |name: &str| {
        json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name, "labels": {"set": "x"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}})
    };
    let made = server.post(TEMPLATES, template("one")).await.expect(201);
    assert_eq!(made["template"]["spec"]["restartPolicy"], "Always");
    let patched =
        server.patch(&format!("{TEMPLATES}/one"), json!({"metadata": {"labels": {"patched": "yes"}}})).await.expect(200);
    let mut replaced = patched.clone();
    replaced["metadata"]["annotations"] = json!({"updated": "true"});
    let replaced = server.put(&format!("{TEMPLATES}/one"), replaced).await.expect(200);
    assert_eq!(replaced["metadata"]["annotations"]["updated"], "true");
    server.post(TEMPLATES, template("two")).await.expect(201);
    assert_eq!(server.get("/api/v1/podtemplates?labelSelector=set%3Dx").await.expect(200)["items"].as_array().unwrap().len(), 2);
    server.delete(&format!("{TEMPLATES}?labelSelector=set%3Dx")).await.expect(200);
    assert_eq!(server.get(TEMPLATES).await.expect(200)["items"], json!([]));
}
