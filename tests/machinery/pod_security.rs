//! Pod Security Standards over the API: what is refused, what is warned of.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{Answer, TestServer};

const PODS: &str = "/api/v1/namespaces/team/pods";

async fn server(labels: Value) -> TestServer {
    let server = TestServer::memory().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": labels}});
    server.post("/api/v1/namespaces", namespace).await.expect(201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    server.post("/api/v1/namespaces/team/serviceaccounts", account).await.expect(201);
    server
}

fn pod(name: &str, context: Value) -> Value {
    let container = json!({"name": "c", "image": "i", "securityContext": context});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}})
}

fn harmless() -> Value {
    json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// The answer and its warnings, without code and quotes.
async fn send(server: &TestServer, method: &str, path: &str, body: Value) -> (Answer, Vec<String>) {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    let response = server.send(Some(User::admin()), request.body(Body::from(body.to_string())).unwrap()).await;
    let warnings = response.headers().get_all("warning").iter().map(|value| {
        let text = value.to_str().unwrap();
        text.strip_prefix("299 - \"").unwrap().strip_suffix('"').unwrap().replace("\\\"", "\"")
    });
    let warnings = warnings.collect();
    (Answer::of(response).await, warnings)
}

#[tokio::test]
async fn a_level_is_enforced_on_pods() {
    let server = server(json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    let message = server.post(PODS, pod("bad", json!({}))).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"bad\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must \
         set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \
         \"RuntimeDefault\" or \"Localhost\")"
    );
    let (made, warnings) = send(&server, "POST", PODS, pod("good", harmless())).await;
    made.expect(201);
    assert_eq!(warnings, Vec::<String>::new());
    // Labels of a pod are nothing to the standards; its image is.
    server.patch(&format!("{PODS}/good"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
}

#[tokio::test]
async fn a_level_is_warned_of() {
    let server =
        server(json!({"pod-security.kubernetes.io/warn": "baseline", "pod-security.kubernetes.io/warn-version": "v1.30"})).await;
    let told =
        "would violate PodSecurity \"baseline:v1.30\": privileged (container \"c\" must not set securityContext.privileged=true)";
    let (made, warnings) = send(&server, "POST", PODS, pod("bad", json!({"privileged": true}))).await;
    made.expect(201);
    assert_eq!(warnings, [told]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x", json!({"privileged": true}))["spec"]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let (made, warnings) = send(&server, "POST", "/apis/apps/v1/namespaces/team/deployments", deployment).await;
    made.expect(201);
    assert_eq!(warnings, [told]);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}}}});
    let (made, warnings) = send(&server, "POST", "/apis/batch/v1/namespaces/team/jobs", job).await;
    made.expect(201);
    assert_eq!(warnings, [told]);
}

/// Who makes pods is not refused, but warned, where the level is enforced.
#[tokio::test]
async fn workloads_are_warned_of_what_is_enforced() {
    let server = server(json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let spec = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}});
    let (made, warnings) = send(&server, "POST", "/apis/apps/v1/namespaces/team/replicasets", set).await;
    made.expect(201);
    assert_eq!(warnings, ["would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"]);
}

#[tokio::test]
async fn a_namespace_that_becomes_stricter_tells_of_its_pods() {
    let server = server(json!({})).await;
    for name in ["b", "a"] {
        server.post(PODS, pod(name, json!({"privileged": true}))).await.expect(201);
    }
    server.post(PODS, pod("good", harmless())).await.expect(201);
    let labels = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let (patched, warnings) = send(&server, "PATCH", "/api/v1/namespaces/team", labels("baseline")).await;
    patched.expect(200);
    assert_eq!(
        warnings,
        [
            "existing pods in namespace \"team\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): privileged",
        ]
    );
    let (patched, warnings) = send(&server, "PATCH", "/api/v1/namespaces/team", labels("privileged")).await;
    patched.expect(200);
    assert_eq!(warnings, Vec::<String>::new());
    let (dry, warnings) = send(&server, "PATCH", "/api/v1/namespaces/team?dryRun=All", labels("restricted")).await;
    dry.expect(200);
    assert_eq!(warnings.len(), 2);
}

#[tokio::test]
async fn labels_that_cannot_be_read_are_refused() {
    let server = server(json!({})).await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "1.30"});
    let message =
        server.patch("/api/v1/namespaces/team", json!({"metadata": {"labels": labels}})).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "Namespace \"team\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of \
         privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.30\": must be \
         \"latest\" or \"v1.x\"]"
    );
}
