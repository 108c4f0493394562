//! Ways of changing an object.

use axum::body::Body;
use http::Request;
use serde_json::json;
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{Answer, TestServer, config_map};

#[tokio::test]
async fn a_patch_that_changes_nothing_writes_nothing() {
    let server = TestServer::memory().await;
    let created = server.post("/api/v1/namespaces/default/configmaps", config_map("m", "1")).await.expect(201);
    let patched = server.patch("/api/v1/namespaces/default/configmaps/m", json!({"data": created["data"]})).await.expect(200);
    assert_eq!(patched["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn sent(server: &TestServer, kind: &str, path: &str, body: &str) -> (Answer, Vec<String>) {
    let request =
        Request::patch(path).header("content-type", format!("application/{kind}+json")).body(Body::from(body.to_owned()));
    let response = server.send(Some(User::admin()), request.unwrap()).await;
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let warnings = response.headers().get_all("warning").iter().map(text).collect();
    (Answer::of(response).await, warnings)
}

#[tokio::test]
async fn what_a_patch_says_twice_or_of_unknown_fields_is_refused_or_warned_of() {
    let server = TestServer::memory().await;
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    server.post(DEPLOYMENTS, web).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let strict = format!("{path}?fieldValidation=Strict");
    let twice = r#"{"spec":{"replicas":2,"replicas":3,"foo":1}}"#;
    let all = "strict decoding error: duplicate field \"spec.replicas\", unknown field \"spec.foo\"";
    for kind in ["merge-patch", "strategic-merge-patch"] {
        let (answer, _) = sent(&server, kind, &strict, twice).await;
        let message = answer.expect_status(422, "Invalid");
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: ") && message.ends_with(all), "{message}");
    }
    let operations = r#"[{"op":"add","path":"/spec/foo","path":"/spec/bar","value":1,"x":2}]"#;
    let (answer, _) = sent(&server, "json-patch", &strict, operations).await;
    let message = answer.expect_status(422, "Invalid");
    let all = "strict decoding error: json patch duplicate field \"[0].path\", json patch unknown field \"[0].x\", unknown field \"spec.bar\"";
    assert!(message.ends_with(all), "{message}");
    let (answer, warnings) = sent(&server, "merge-patch", &path, twice).await;
    assert_eq!(answer.expect(200)["spec"]["replicas"], 3);
    assert_eq!(warnings, ["299 - \"duplicate field \\\"spec.replicas\\\"\"", "299 - \"unknown field \\\"spec.foo\\\"\""]);
    let (answer, warnings) = sent(&server, "merge-patch", &format!("{path}?fieldValidation=Ignore"), twice).await;
    answer.expect(200);
    assert!(warnings.is_empty());
    let (answer, _) = sent(&server, "merge-patch", &path, r#"{"spec":{"replicas":"x"}}"#).await;
    let message = answer.expect_status(422, "Invalid");
    assert!(
        message.ends_with("json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        "{message}"
    );
}

#[tokio::test]
async fn an_owner_that_stands_twice_is_one() {
    let server = TestServer::memory().await;
    let mut map = config_map("m", "1");
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"});
    map["metadata"]["ownerReferences"] = json!([owner, owner]);
    let request = Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    let response = server.send(Some(User::admin()), request.body(Body::from(map.to_string())).unwrap()).await;
    let warning = response.headers()["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains(".metadata.ownerReferences contains duplicate entries") && warning.contains("observed: u"),
        "{warning}"
    );
    assert_eq!(Answer::of(response).await.expect(201)["metadata"]["ownerReferences"], json!([owner]));
}

#[tokio::test]
async fn a_status_brings_annotations_but_no_spec() {
    let server = TestServer::memory().await;
    let budget =
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {"minAvailable": 1}});
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    server.post(path, budget).await.expect(201);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "spec": {"minAvailable": 5}, "status": {"currentHealthy": 2}});
    let patched = server.patch(&format!("{path}/b/status"), patch).await.expect(200);
    assert_eq!(
        (&patched["metadata"]["annotations"]["patchedstatus"], &patched["spec"]["minAvailable"]),
        (&json!("true"), &json!(1))
    );
    assert_eq!(patched["status"]["currentHealthy"], 2);
}
