//! Admission webhooks that are asked about custom resources and about their definitions.

use crate::custom_resources::{CRDS, establish};
use crate::webhooks::{Hooks, MUTATING, VALIDATING, patch, register, webhook};
use serde_json::{Value, json};
use slipway_tests::{TestServer, eventually};

const OBJECTS: &str = "/apis/stable.example.com/v1/namespaces/default/e2e-test-crds";
const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/e2e-test-crds.stable.example.com";

/// As the suite's: `data` may be anything, or only what is named.
fn definition(data: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"data": data}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "e2e-test-crds.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "e2e-test-crds", "singular": "e2e-test-crd", "kind": "E2e-test-crd", "listKind": "E2e-test-crd-list"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn free() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn object(name: &str, data: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "E2e-test-crd", "metadata": {"name": name}, "data": data})
}

fn rules(operations: &[&str], group: &str, resource: &str) -> Value {
    json!([{"operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}])
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny custom resource creation, update and deletion [Conformance]`
#[tokio::test]
async fn creation_update_and_deletion_are_denied() {
    let server = TestServer::memory().await;
    establish(&server, definition(free())).await;
    let hooks = Hooks::start(|review| {
        let request = &review["request"];
        let deleted = request["operation"] == "DELETE";
        let data = &request[if deleted { "oldObject" } else { "object" }]["data"]["webhook-e2e-test"];
        let denied = match data.as_str() {
            Some("webhook-disallow") if !deleted => Some("the custom resource contains unwanted data"),
            Some("webhook-nondeletable") if deleted => {
                Some("the custom resource cannot be deleted because it contains unwanted key and value")
            }
            _ => None,
        };
        match denied {
            Some(why) => json!({"allowed": false, "status": {"reason": why}}),
            None => json!({"allowed": true}),
        }
    })
    .await;
    let rules = rules(&["CREATE", "UPDATE", "DELETE"], "stable.example.com", "e2e-test-crds");
    let hook = webhook("deny-unwanted-custom-resource-data.k8s.io", hooks.config("/custom-resource"), rules);
    register(&server, VALIDATING, "deny", vec![hook]).await;
    let answer = server.post(OBJECTS, object("one", json!({"webhook-e2e-test": "webhook-disallow"}))).await;
    assert!(answer.expect_status(400, "").contains("the custom resource contains unwanted data"));
    server.post(OBJECTS, object("two", json!({"webhook-e2e-test": "webhook-nondeletable"}))).await.expect(201);
    let path = format!("{OBJECTS}/two");
    let answer = server.patch(&path, json!({"data": {"webhook-e2e-test": "webhook-disallow"}})).await;
    assert!(answer.expect_status(400, "").contains("the custom resource contains unwanted data"));
    let mut current = server.get(&path).await.expect(200);
    current["data"]["webhook-e2e-test"] = json!("webhook-disallow");
    assert!(server.put(&path, current).await.expect_status(400, "").contains("the custom resource contains unwanted data"));
    let message = server.delete(&path).await.expect_status(400, "");
    assert!(message.contains("the custom resource cannot be deleted because it contains unwanted key and value"), "{message}");
    let mut current = server.get(&path).await.expect(200);
    current["data"] = json!({});
    server.put(&path, current).await.expect(200);
    server.delete(&path).await.expect(200);
    let asked = hooks.take();
    let request = &asked[0].1;
    assert_eq!(request["kind"], json!({"group": "stable.example.com", "version": "v1", "kind": "E2e-test-crd"}));
    assert_eq!(request["resource"], json!({"group": "stable.example.com", "version": "v1", "resource": "e2e-test-crds"}));
}

/// Two webhooks, of which each goes on where the one before it left off.
async fn stages(server: &TestServer) -> Hooks {
    let hooks = Hooks::start(|review| {
        let data = &review["request"]["object"]["data"];
        let add = |stage: &str| patch(json!([{"op": "add", "path": format!("/data/{stage}"), "value": "yes"}]));
        match (data["mutation-start"] == "yes", data["mutation-stage-1"] == "yes") {
            (true, false) => add("mutation-stage-1"),
            (true, true) if data.get("mutation-stage-2").is_none() => add("mutation-stage-2"),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let hook = |stage: u8| {
        let rules = rules(&["CREATE", "UPDATE"], "stable.example.com", "e2e-test-crds");
        webhook(&format!("mutate-custom-resource-data-stage-{stage}.k8s.io"), hooks.config("/mutating-custom-resource"), rules)
    };
    register(server, MUTATING, "mutate", vec![hook(1), hook(2)]).await;
    hooks
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource [Conformance]`
#[tokio::test]
async fn custom_resources_are_mutated() {
    let server = TestServer::memory().await;
    establish(&server, definition(free())).await;
    stages(&server).await;
    let made = server.post(OBJECTS, object("one", json!({"mutation-start": "yes"}))).await.expect(201);
    assert_eq!(made["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}));
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with pruning [Conformance]`
#[tokio::test]
async fn what_a_webhook_adds_is_pruned() {
    let server = TestServer::memory().await;
    let text = json!({"type": "string"});
    let known = json!({"type": "object", "properties": {"mutation-start": text, "mutation-stage-1": text}});
    establish(&server, definition(known)).await;
    stages(&server).await;
    let made = server.post(OBJECTS, object("one", json!({"mutation-start": "yes"}))).await.expect(201);
    assert_eq!(made["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes"}));
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate custom resource with different stored version [Conformance]`
#[tokio::test]
async fn a_webhook_is_asked_in_the_version_of_its_rule() {
    let server = TestServer::memory().await;
    let mut crd = definition(free());
    let schema = crd["spec"]["versions"][0]["schema"].clone();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    crd["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "v2", "served": true, "storage": false, "schema": schema}));
    crd["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    establish(&server, crd).await;
    let hooks = stages(&server).await;
    let made = server.post(OBJECTS, object("one", json!({"mutation-start": "yes"}))).await.expect(201);
    assert_eq!(made["data"]["mutation-stage-2"], "yes");
    // From here on v2 is stored.
    let mut current = server.get(CRD).await.expect(200);
    current["spec"]["versions"][0]["storage"] = json!(false);
    current["spec"]["versions"][1]["storage"] = json!(true);
    server.put(CRD, current).await.expect(200);
    let stored = async |name: &str| -> Value {
        let snapshot = server.api.cache.fresh().await.unwrap();
        let key = format!("/stable.example.com/e2e-test-crds/default/{name}");
        serde_json::from_slice(&snapshot.objects.get(key.as_str()).unwrap().bytes).unwrap()
    };
    eventually("v2 to be stored", || async {
        let patched = server.patch(&format!("{OBJECTS}/one"), json!({"dummy": "test"})).await.expect(200);
        assert_eq!((&patched["dummy"], &patched["apiVersion"]), (&json!("test"), &json!("stable.example.com/v1")));
        (stored("one").await["apiVersion"] == "stable.example.com/v2").then_some(())
    })
    .await;
    hooks.take();
    // Who writes v2 is shown to a webhook of v1 as v1, and gets its patch as v2.
    let other = OBJECTS.replace("/v1/", "/v2/");
    let mut two = object("two", json!({"mutation-start": "yes"}));
    two["apiVersion"] = json!("stable.example.com/v2");
    let made = server.post(&other, two).await.expect(201);
    assert_eq!((&made["apiVersion"], &made["data"]["mutation-stage-2"]), (&json!("stable.example.com/v2"), &json!("yes")));
    let request = &hooks.take()[0].1;
    assert_eq!(request["object"]["apiVersion"], "stable.example.com/v1");
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
}

/// `[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny crd creation [Conformance]`
#[tokio::test]
async fn the_creation_of_a_definition_is_denied() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let labels = &review["request"]["object"]["metadata"]["labels"];
        let denied = labels["webhook-e2e-test"] == "webhook-disallow";
        json!({"allowed": !denied, "status": {"reason": "the crd contains unwanted label"}})
    })
    .await;
    let rules = rules(&["CREATE"], "apiextensions.k8s.io", "customresourcedefinitions");
    let hook = webhook("deny-crd-with-unwanted-label.k8s.io", hooks.config("/crd"), rules);
    register(&server, VALIDATING, "deny", vec![hook]).await;
    let mut crd = definition(free());
    crd["metadata"]["labels"] = json!({"webhook-e2e-test": "webhook-disallow"});
    let message = server.post(CRDS, crd).await.expect_status(400, "");
    assert!(message.contains("the crd contains unwanted label"), "{message}");
    assert_eq!(server.get(CRD).await.code, 404);
    establish(&server, definition(free())).await;
}
