//! The conformance suite's sample webhook, served as in its tests: behind a Service of the cluster, for the namespaces that a label
//! selects.

use super::{Hooks, MUTATING, patch};
use serde_json::{Value, json};
use slipway_tests::TestServer;
use std::time::Duration;

/// It allows everything, late. (The suite's takes five seconds.)
pub const DELAYED: &str = "/always-allow-delay-2s";
pub const DELAY: Duration = Duration::from_secs(2);

const LABEL: &str = "webhook-e2e-test";

pub struct Sample {
    pub server: TestServer,
    hooks: Hooks,
}

/// Whether it never answers to a request for this object.
pub fn waits_forever(object: &Value) -> bool {
    object["metadata"]["labels"][LABEL] == "wait-forever"
}

fn decide(review: &Value) -> Value {
    let object = &review["request"]["object"];
    let deny = |message: &str| json!({"allowed": false, "status": {"message": message}});
    let add = |path: &str, value: Value| patch(json!([{"op": "add", "path": path, "value": value}]));
    match review["path"].as_str().unwrap_or_default() {
        "/pods" if object["metadata"]["labels"][LABEL] == "webhook-disallow" => {
            assert_eq!(object["spec"]["containers"][0]["name"], "webhook-disallow");
            deny("the pod contains unwanted container name; the pod contains unwanted label;")
        }
        "/configmaps" if object["data"][LABEL] == "webhook-disallow" => {
            json!({"allowed": false, "status": {"reason": "the configmap contains unwanted key and value"}})
        }
        "/pods/attach" => {
            deny(&format!("attaching to pod '{}' is not allowed", review["request"]["name"].as_str().unwrap_or_default()))
        }
        "/always-deny" => deny("this webhook denies all requests"),
        "/add-label" => add("/metadata/labels", json!({"added-label": "yes"})),
        "/mutating-pods" => {
            let container = json!({"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}});
            add("/spec/initContainers", json!([container]))
        }
        "/mutating-configmaps" if object["data"].get("mutation-stage-1").is_some() => add("/data/mutation-stage-2", json!("yes")),
        "/mutating-configmaps" if object["data"]["mutation-start"] == "yes" => add("/data/mutation-stage-1", json!("yes")),
        _ => json!({"allowed": true}),
    }
}

impl Sample {
    /// `None`, and said: this machine has no address that a Service could lead to.
    pub async fn start() -> Option<Sample> {
        let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let ip = udp.connect("192.0.2.1:9").and_then(|()| udp.local_addr()).map(|address| address.ip().to_string());
        let Ok(ip) = ip else {
            eprintln!("SKIPPED: this machine has no address but its loopback");
            return None;
        };
        let server = TestServer::start(slipway_store::memory::Memory::new(), crate::kubectl_apply::options()).await;
        let hooks = Hooks::start(decide).await;
        let namespace = json!({"metadata": {"labels": {"webhook-test": "true"}}});
        server.patch("/api/v1/namespaces/default", namespace).await.expect(200);
        let service = json!({"metadata": {"name": "hook"}, "spec": {"selector": {"webhook": "true"}, "ports": [{"port": 8443, "targetPort": 8444}]}});
        server.post("/api/v1/namespaces/default/services", service).await.expect(201);
        let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": hooks.port}], "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]});
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        server.post(slices, slice).await.expect(201);
        server.get(slices).await.expect(200);
        Some(Sample { server, hooks })
    }

    /// A webhook of the Service, for the namespaces with the label.
    pub fn webhook(&self, name: &str, path: &str, operations: &[&str], resource: &str) -> Value {
        let service = json!({"namespace": "default", "name": "hook", "path": path, "port": 8443});
        json!({
            "name": name, "clientConfig": {"service": service, "caBundle": self.hooks.bundle},
            "rules": super::rules(operations, "", &[resource]), "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
            "namespaceSelector": {"matchLabels": {"webhook-test": "true"}},
        })
    }

    pub fn denying_maps(&self) -> Value {
        let operations = ["CREATE", "UPDATE", "DELETE"];
        let mut hook = self.webhook("deny-unwanted-configmap-data.k8s.io", "/configmaps", &operations, "configmaps");
        hook["namespaceSelector"]["matchExpressions"] =
            json!([{"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}]);
        hook
    }

    pub fn mutating_maps(&self, stage: usize) -> Value {
        let name = format!("adding-configmap-data-stage-{stage}.k8s.io");
        self.webhook(&name, "/mutating-configmaps", &["CREATE"], "configmaps")
    }

    /// One that can't be called, for nobody is told which authority to trust.
    pub fn failing(&self, name: &str) -> Value {
        let mut hook = self.webhook(name, "/configmaps", &["CREATE"], "configmaps");
        hook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        hook
    }

    pub fn configuration(&self, path: &str, name: &str, webhooks: Vec<Value>) -> Value {
        let kind = if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": webhooks})
    }

    pub async fn register(&self, path: &str, name: &str, webhooks: Vec<Value>) -> Value {
        self.server.post(path, self.configuration(path, name, webhooks)).await.expect(201)
    }

    /// The paths that were asked.
    pub fn asked(&self) -> Vec<String> {
        self.hooks.paths()
    }

    pub fn non_compliant(name: &str) -> Value {
        json!({"metadata": {"name": name}, "data": {LABEL: "webhook-disallow"}})
    }

    pub fn to_be_mutated(name: &str) -> Value {
        json!({"metadata": {"name": name}, "data": {"mutation-start": "yes"}})
    }
}
