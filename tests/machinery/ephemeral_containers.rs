//! `pods/ephemeralcontainers`: what may be added, by whom, and who is asked.

use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::TestServer;

const PODS: &str = "/api/v1/namespaces/default/pods";
const EPHEMERAL: &str = "/api/v1/namespaces/default/pods/web/ephemeralcontainers";

async fn server() -> TestServer {
    let server = TestServer::memory().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    server.post(PODS, pod).await.expect(201);
    server
}

fn debug(name: &str) -> Value {
    json!({"name": name, "image": "busybox:1", "targetContainerName": "c", "stdin": true, "tty": true})
}

fn names(pod: &Value) -> Vec<&str> {
    pod["spec"]["ephemeralContainers"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
}

/// `[sig-node] Ephemeral Containers should update the ephemeral containers in an existing pod [Conformance]`
#[tokio::test]
async fn they_are_added_by_patches_and_updates() {
    let server = server().await;
    let pod = server.get(EPHEMERAL).await.expect(200);
    assert_eq!((&pod["kind"], &pod["metadata"]["generation"]), (&json!("Pod"), &json!(1)));

    let body = json!({"spec": {"ephemeralContainers": [debug("one")]}});
    let patched = server.patch_as("application/strategic-merge-patch+json", EPHEMERAL, body).await.expect(200);
    assert_eq!((names(&patched), &patched["metadata"]["generation"]), (vec!["one"], &json!(2)));
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "IfNotPresent");
    // Merged by name: the first stays.
    let body = json!({"spec": {"ephemeralContainers": [debug("two")]}});
    let patched = server.patch_as("application/strategic-merge-patch+json", EPHEMERAL, body).await.expect(200);
    let mut sorted = names(&patched);
    sorted.sort_unstable();
    assert_eq!((sorted, &patched["metadata"]["generation"]), (vec!["one", "two"], &json!(3)));
    let owner = patched["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["subresource"] == "ephemeralcontainers");
    let fields = &owner.unwrap()["fieldsV1"];
    assert!(fields["f:spec"]["f:ephemeralContainers"]["k:{\"name\":\"one\"}"].is_object(), "{fields}");
    assert_eq!(fields.as_object().unwrap().len(), 1, "{fields}");

    let mut new = patched.clone();
    new["metadata"]["labels"] = json!({"not": "written"});
    new["spec"]["containers"][0]["image"] = json!("not-written");
    new["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(debug("three"));
    let updated = server.put(EPHEMERAL, new).await.expect(200);
    assert_eq!(names(&updated).len(), 3);
    assert_eq!((updated["metadata"].get("labels"), &updated["spec"]["containers"][0]["image"]), (None, &json!("nginx:1")));
    let body = json!([{"op": "add", "path": "/spec/ephemeralContainers/-", "value": debug("four")}]);
    let patched = server.patch_as("application/json-patch+json", EPHEMERAL, body).await.expect(200);
    assert_eq!(names(&patched).len(), 4);
    let body =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"ephemeralContainers": [debug("five")]}});
    let path = format!("{EPHEMERAL}?fieldManager=me");
    let applied = server.patch_as("application/apply-patch+yaml", &path, body).await.expect(200);
    assert_eq!(names(&applied).len(), 5);
    server.put(EPHEMERAL, patched).await.expect_status(409, "Conflict");
}

#[tokio::test]
async fn what_is_there_stays_and_the_pod_itself_cannot_name_them() {
    let server = server().await;
    let strategic = "application/strategic-merge-patch+json";
    let add = |container: Value| json!({"spec": {"ephemeralContainers": [container]}});
    server.patch_as(strategic, EPHEMERAL, add(debug("one"))).await.expect(200);
    let changed = json!({"name": "one", "image": "other"});
    let message = server.patch_as(strategic, EPHEMERAL, add(changed)).await.expect_status(422, "Invalid");
    assert!(message.contains("existing ephemeral containers \"one\" may not be changed"), "{message}");
    let none = json!({"spec": {"ephemeralContainers": []}});
    let message = server.patch(EPHEMERAL, none).await.expect_status(422, "Invalid");
    assert!(message.contains("existing ephemeral containers \"one\" may not be removed"), "{message}");
    let elsewhere = json!({"name": "two", "image": "i", "targetContainerName": "nobody"});
    let answer = server.patch_as(strategic, EPHEMERAL, add(elsewhere)).await;
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "FieldValueNotFound");
    assert_eq!(
        answer.body["details"]["causes"][0]["field"], "spec.ephemeralContainers[0].targetContainerName",
        "{}",
        answer.body
    );

    let path = format!("{PODS}/web");
    let message = server.patch_as(strategic, &path, add(debug("two"))).await.expect_status(422, "Invalid");
    assert!(message.contains("pod updates may not change fields other than"), "{message}");
    server.patch(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let message = server.post(PODS, pod).await.expect_status(422, "Invalid");
    assert_eq!(message, "Pod \"new\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create");
    let nobody = format!("{PODS}/nobody/ephemeralcontainers");
    server.patch_as(strategic, &nobody, add(debug("one"))).await.expect_status(404, "NotFound");
    let apply = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nobody"}, "spec": {"ephemeralContainers": []}});
    let path = format!("{nobody}?fieldManager=me");
    server.patch_as("application/apply-patch+yaml", &path, apply).await.expect_status(404, "NotFound");
    server.post(EPHEMERAL, debug("one")).await.expect_status(405, "MethodNotAllowed");
    server.delete(EPHEMERAL).await.expect_status(405, "MethodNotAllowed");
}

#[tokio::test]
async fn the_namespaces_security_holds_for_them() {
    let server = server().await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    server.patch("/api/v1/namespaces/default", label).await.expect(200);
    let mut privileged = debug("root");
    privileged["securityContext"] = json!({"privileged": true});
    let strategic = "application/strategic-merge-patch+json";
    let body = json!({"spec": {"ephemeralContainers": [privileged]}});
    let message = server.patch_as(strategic, EPHEMERAL, body).await.expect_status(403, "Forbidden");
    assert!(message.contains("privileged (container \"root\" must not set securityContext.privileged=true)"), "{message}");
    let body = json!({"spec": {"ephemeralContainers": [debug("one")]}});
    server.patch_as(strategic, EPHEMERAL, body).await.expect(200);
}

#[tokio::test]
async fn it_is_a_right_of_its_own() {
    let server = server().await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "edit"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", role).await.expect(201);
    let eve = || User::new("eve", &["system:authenticated"]);
    let body = json!({"metadata": {"labels": {"a": "b"}}});
    server.call_as(eve(), "PATCH", &format!("{PODS}/web"), Some(&body)).await.expect(200);
    let body = json!({"spec": {"ephemeralContainers": [debug("one")]}});
    let message = server.call_as(eve(), "PATCH", EPHEMERAL, Some(&body)).await.expect_status(403, "Forbidden");
    assert!(message.contains("cannot patch resource \"pods/ephemeralcontainers\""), "{message}");
}
