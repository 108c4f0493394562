//! What Kubernetes' conformance suite does with CustomResourceDefinitions, step by step.

use crate::custom_resources::{CRDS, establish};
use axum::body::Body;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer, eventually};

/// Anything may stand in it.
fn free() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A definition of the cluster's scope with one version, as the suite's fixtures make them.
pub fn definition(name: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{name}s.mygroup.example.com")},
        "spec": {
            "group": "mygroup.example.com", "scope": "Cluster",
            "names": {"plural": format!("{name}s"), "singular": name, "kind": format!("Kind{name}"), "listKind": format!("Kind{name}List")},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}],
        },
    })
}

fn instance(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "mygroup.example.com/v1beta1", "kind": kind, "metadata": {"name": name}, "content": {"key": "value"}, "num": {"num1": 1}})
}

async fn gone(server: &TestServer, name: &str) {
    eventually("the definition to go", || async { (server.get(&format!("{CRDS}/{name}")).await.code == 404).then_some(()) })
        .await;
}

async fn json_patch(server: &TestServer, path: &str, patch: Value) -> Answer {
    let request = http::Request::builder().method("PATCH").uri(path).header("content-type", "application/json-patch+json");
    Answer::of(server.send(Some(User::admin()), request.body(Body::from(patch.to_string())).unwrap()).await).await
}

/// `[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]`
/// `[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works [Conformance]`
#[tokio::test]
async fn definitions_are_listed_and_deleted_together() {
    let server = TestServer::memory().await;
    let mut made = vec![];
    for n in 0..10 {
        let mut one = definition(&format!("e2e{n}"), free());
        one["metadata"]["labels"] = json!({"e2e-list-test-uuid": "x"});
        establish(&server, one).await;
        made.push(server.get(&format!("{CRDS}/e2e{n}s.mygroup.example.com")).await.expect(200));
    }
    establish(&server, definition("other", free())).await;
    let selector = format!("{CRDS}?labelSelector=e2e-list-test-uuid%3Dx");
    let list = server.get(&selector).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 10);
    for (item, made) in items.iter().zip(&made) {
        assert_eq!((&item["metadata"]["name"], &item["spec"]), (&made["metadata"]["name"], &made["spec"]));
    }
    server.delete(&selector).await.expect(200);
    for n in 0..10 {
        gone(&server, &format!("e2e{n}s.mygroup.example.com")).await;
        assert_eq!(server.get(&format!("/apis/mygroup.example.com/v1beta1/e2e{n}s")).await.code, 404);
    }
    server.get(&format!("{CRDS}/others.mygroup.example.com")).await.expect(200);
    server.get("/apis/mygroup.example.com/v1beta1/others").await.expect(200);
    server.delete(&format!("{CRDS}/others.mygroup.example.com")).await.expect(200);
    gone(&server, "others.mygroup.example.com").await;
}

/// `[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works [Conformance]`
#[tokio::test]
async fn the_status_of_a_definition_is_written_apart() {
    let server = TestServer::memory().await;
    establish(&server, definition("foo", free())).await;
    let path = format!("{CRDS}/foos.mygroup.example.com");
    let status = format!("{path}/status");
    let updated = eventually("no conflict", || async {
        let mut object = server.get(&status).await.expect(200);
        assert_eq!(object["spec"], server.get(&path).await.expect(200)["spec"]);
        let condition = json!({"type": "", "status": "", "message": "updated", "lastTransitionTime": null, "reason": ""});
        object["status"]["conditions"].as_array_mut().unwrap().push(condition);
        let answer = server.put(&status, object).await;
        assert!(matches!(answer.code, 200 | 409), "{:#}", answer.body);
        (answer.code == 200).then_some(answer.body)
    })
    .await;
    let has = |object: &Value, message: &str| {
        object["status"]["conditions"].as_array().unwrap().iter().any(|one| one["message"] == message)
    };
    assert!(has(&updated, "updated"));
    let patch = json!([{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]);
    let patched = json_patch(&server, &status, patch).await.expect(200);
    assert!(has(&patched, "patched"));
}

/// `[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents [Conformance]`
#[tokio::test]
async fn definitions_are_in_the_discovery_documents() {
    let server = TestServer::memory().await;
    let groups = server.get("/apis").await.expect(200);
    let group = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "apiextensions.k8s.io").unwrap();
    assert!(group["versions"].as_array().unwrap().iter().any(|version| version["version"] == "v1"));
    let group = server.get("/apis/apiextensions.k8s.io").await.expect(200);
    assert_eq!(group["name"], "apiextensions.k8s.io");
    assert!(group["versions"].as_array().unwrap().iter().any(|version| version["version"] == "v1"));
    let resources = server.get("/apis/apiextensions.k8s.io/v1").await.expect(200);
    assert_eq!(resources["groupVersion"], "apiextensions.k8s.io/v1");
    assert!(resources["resources"].as_array().unwrap().iter().any(|one| one["name"] == "customresourcedefinitions"));
}

/// `[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]`
#[tokio::test]
async fn defaults_are_filled_into_requests_and_what_is_stored() {
    let server = TestServer::memory().await;
    let text = json!({"type": "string"});
    let mut schema = free();
    schema["properties"] = json!({"a": text, "b": text});
    establish(&server, definition("foo", schema)).await;
    let (path, objects) = (format!("{CRDS}/foos.mygroup.example.com"), "/apis/mygroup.example.com/v1beta1/foos");
    let plain = |name: &str| json!({"apiVersion": "mygroup.example.com/v1beta1", "kind": "Kindfoo", "metadata": {"name": name}});
    let made = server.post(objects, plain("one")).await.expect(201);
    assert_eq!(made.get("a"), None);
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties";
    json_patch(&server, &path, json!([{"op": "add", "path": format!("{at}/a/default"), "value": "A"}])).await.expect(200);
    eventually("the default on reading", || async {
        let a = server.get(&format!("{objects}/one")).await.expect(200).get("a").cloned();
        assert!(a.is_none() || a == Some(json!("A")), "{a:?}");
        a
    })
    .await;
    assert_eq!(server.post(objects, plain("two")).await.expect(201)["a"], "A");
    let patch = json!([{"op": "remove", "path": format!("{at}/a/default")}, {"op": "add", "path": format!("{at}/b/default"), "value": "B"}]);
    json_patch(&server, &path, patch).await.expect(200);
    let two = eventually("the other default", || async {
        let two = server.get(&format!("{objects}/two")).await.expect(200);
        two.get("b").is_some().then_some(two)
    })
    .await;
    assert_eq!((&two["a"], &two["b"]), (&json!("A"), &json!("B")), "what was written stays");
    assert_eq!(server.get(&format!("{objects}/one")).await.expect(200).get("a"), None);
}

/// `[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects [Conformance]`
#[tokio::test]
async fn watches_of_single_objects() {
    let server = TestServer::memory().await;
    establish(&server, definition("noxu", free())).await;
    let objects = "/apis/mygroup.example.com/v1beta1/noxus";
    let watch = async |name: &str| {
        server.watch(&format!("{objects}?watch=1&timeoutSeconds=600&fieldSelector=metadata.name%3D{name}")).await
    };
    let (mut a, mut b) = (watch("name1").await, watch("name2").await);
    for name in ["name1", "name2"] {
        let made = server.post(objects, instance("Kindnoxu", name)).await.expect(201);
        assert!(made["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty()));
        assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("mygroup.example.com/v1beta1"), &json!("Kindnoxu")));
    }
    for name in ["name1", "name2"] {
        let patch = json!([{"op": "add", "path": "/dummy", "value": "test"}]);
        assert_eq!(json_patch(&server, &format!("{objects}/{name}"), patch).await.expect(200)["dummy"], "test");
    }
    for name in ["name1", "name2"] {
        server.delete(&format!("{objects}/{name}")).await.expect(200);
    }
    // Each sees its own, in order, and nothing of the other.
    for (watch, name) in [(&mut a, "name1"), (&mut b, "name2")] {
        for type_ in ["ADDED", "MODIFIED", "DELETED"] {
            assert_eq!(watch.brief().await, format!("{type_} {name}"));
        }
    }
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn resources<'v>(document: &'v Value, group: &str, version: &str) -> Vec<&'v str> {
    let groups = document["items"].as_array().unwrap();
    let found = groups.iter().filter(|one| one["metadata"].get("name").map_or("", |name| name.as_str().unwrap()) == group);
    let versions = found.flat_map(|group| group["versions"].as_array().unwrap()).filter(|one| one["version"] == version);
    versions.flat_map(|one| one["resources"].as_array().unwrap()).map(|one| one["resource"].as_str().unwrap()).collect()
}

/// `[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]`
/// `[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs [Conformance]`
#[tokio::test]
async fn custom_kinds_are_discovered() {
    let server = TestServer::memory().await;
    let mut crd = definition("testcrd", free());
    crd["spec"]["scope"] = json!("Namespaced");
    crd["spec"]["names"]["kind"] = json!("testcrd");
    crd["spec"]["names"]["listKind"] = json!("testcrdList");
    establish(&server, crd).await;
    let document = eventually("the kind in the document", || async {
        let document = server.get_as(AGGREGATED, "/apis").await.expect(200);
        resources(&document, "mygroup.example.com", "v1beta1").contains(&"testcrds").then_some(document)
    })
    .await;
    assert_eq!(document["kind"], "APIGroupDiscoveryList");
    let group =
        document["items"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "mygroup.example.com").unwrap();
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!(resource["responseKind"], json!({"group": "mygroup.example.com", "version": "v1beta1", "kind": "testcrd"}));
    assert_eq!((&resource["scope"], &resource["singularResource"]), (&json!("Namespaced"), &json!("testcrd")));
    let names: Vec<&str> =
        resource["subresources"].as_array().unwrap().iter().map(|one| one["subresource"].as_str().unwrap()).collect();
    assert_eq!(names, ["scale", "status"]);
    // What client-go's interface asks for: one document for all groups, and the legacy one beside it.
    assert!(resources(&server.get_as(AGGREGATED, "/api").await.expect(200), "", "v1").contains(&"namespaces"));
    server.delete(&format!("{CRDS}/testcrds.mygroup.example.com")).await.expect(200);
    eventually("the kind to go", || async {
        let document = server.get_as(AGGREGATED, "/apis").await.expect(200);
        resources(&document, "mygroup.example.com", "v1beta1").is_empty().then_some(())
    })
    .await;
}

/// Kinds of namespaces go with their definition too, whatever finalizers hold; meanwhile none are made.
#[tokio::test]
async fn what_is_terminating_takes_no_new_objects() {
    let server = TestServer::memory().await;
    let mut crd = definition("foo", free());
    crd["spec"]["scope"] = json!("Namespaced");
    establish(&server, crd).await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.expect(201);
    let path = format!("{CRDS}/foos.mygroup.example.com");
    let objects = |namespace: &str| format!("/apis/mygroup.example.com/v1beta1/namespaces/{namespace}/foos");
    let mut held = instance("Kindfoo", "held");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    server.post(&objects("default"), held).await.expect(201);
    for namespace in ["default", "other"] {
        server.post(&objects(namespace), instance("Kindfoo", "free")).await.expect(201);
    }
    let mut watch = server.watch(&format!("{}?watch=1", objects("other"))).await;
    assert_eq!(watch.brief().await, "ADDED free");
    let marked = server.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(watch.brief().await, "DELETED free");
    let object = eventually("the deletion to be in progress", || async {
        let object = server.get(&path).await.expect(200);
        object["status"]["conditions"].to_string().contains("InstanceDeletionInProgress").then_some(object)
    })
    .await;
    let condition = object["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Terminating").unwrap();
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!("CustomResource deletion is in progress")));
    let message = server.post(&objects("other"), instance("Kindfoo", "late")).await.expect_status(405, "MethodNotAllowed");
    assert_eq!(message, "create not allowed while custom resource definition is terminating");
    let left = server.get("/apis/mygroup.example.com/v1beta1/foos").await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert!(left["items"][0]["metadata"]["deletionTimestamp"].is_string());
    server.patch(&format!("{}/held", objects("default")), json!({"metadata": {"finalizers": null}})).await.expect(200);
    gone(&server, "foos.mygroup.example.com").await;
    assert_eq!(server.get(&objects("default")).await.code, 404);
}

/// What is stored in the version that is asked for is sent as it lies in the cache.
#[tokio::test]
async fn stored_bytes_are_sent_as_they_are() {
    let server = TestServer::memory().await;
    establish(&server, definition("foo", free())).await;
    let objects = "/apis/mygroup.example.com/v1beta1/foos";
    let mut watch = server.watch(&format!("{objects}?watch=1")).await;
    let odd = r#"{"kind":"Kindfoo","apiVersion":"mygroup.example.com/v1beta1","metadata":{"name" : "odd"},  "z":{"b":"\u0041", "a":"1" }}"#;
    let write = slipway_store::Write {
        key: "/mygroup.example.com/foos/odd".into(),
        expect: slipway_store::Expect::Absent,
        change: slipway_store::Change::Put(odd.into()),
    };
    let revision = server.api.store.write(write).await.unwrap();
    let sent = odd.replace("\"metadata\":{", &format!("\"metadata\":{{\"resourceVersion\":\"{revision}\","));
    let text = async |path: &str| String::from_utf8(server.bytes(path).await.to_vec()).unwrap();
    assert_eq!(text(&format!("{objects}/odd")).await.trim_end(), sent);
    assert!(text(objects).await.contains(&sent), "the list has other bytes");
    assert!(text(&format!("{objects}?labelSelector=!none&limit=5")).await.contains(&sent), "the filtered list has other bytes");
    let event = format!("\"object\":{sent}}}\n");
    while !watch.next_line().await.ends_with(&event) {}
}
