//! PATCH over the whole way: content types, conflicts, immutable fields, dry run.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{Answer, TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn patch(server: &TestServer, content_type: &str, path: &str, patch: &Value) -> Answer {
    let request = Request::patch(path).header("content-type", content_type).body(Body::from(patch.to_string())).unwrap();
    Answer::of(server.send(Some(User::admin()), request).await).await
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"},
            ]}},
        },
    })
}

#[tokio::test]
async fn each_content_type_is_its_own_patch() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let path = format!("{MAPS}/a");
    let changed = patch(&server, MERGE, &path, &json!({"data": {"x": "2"}})).await.expect(200);
    assert_eq!(changed["data"], json!({"key": "1", "x": "2"}));
    let changed = patch(&server, JSON, &path, &json!([{"op": "remove", "path": "/data/x"}])).await.expect(200);
    assert_eq!(changed["data"], json!({"key": "1"}));
    let changed = patch(&server, STRATEGIC, &path, &json!({"data": {"$patch": "replace", "y": "3"}})).await.expect(200);
    assert_eq!(changed["data"], json!({"y": "3"}));
    let message = patch(&server, "application/json", &path, &json!({})).await.expect_status(415, "UnsupportedMediaType");
    assert!(message.contains("accepted media types include: application/json-patch+json"), "{message}");
    patch(&server, "application/apply-patch+yaml", &path, &json!({})).await.expect_status(422, "Invalid");
    patch(&server, MERGE, &format!("{MAPS}/none"), &json!({})).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn a_patch_that_does_not_fit_is_unprocessable_and_says_why() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let path = format!("{MAPS}/a");
    let wrong = json!([{"op": "test", "path": "/data/key", "value": "2"}, {"op": "remove", "path": "/data/key"}]);
    let answer = patch(&server, JSON, &path, &wrong).await;
    assert!(
        answer.body["details"]["causes"][0]["message"].as_str().is_some_and(|why| why.contains("value did not match")),
        "{}",
        answer.body
    );
    let message = answer.expect_status(422, "Invalid");
    assert_eq!(message, "the server rejected our request due to an error in our request");
    assert_eq!(server.get(&path).await.expect(200)["data"], json!({"key": "1"}));
    patch(&server, JSON, &path, &json!({"op": "test"})).await.expect_status(400, "BadRequest");
    patch(&server, MERGE, &path, &json!([])).await.expect_status(400, "BadRequest");
}

#[tokio::test]
async fn strategic_merge_knows_the_lists_of_a_pod_template() {
    let server = TestServer::memory().await;
    server.post(DEPLOYMENTS, deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}]}}}});
    let changed = patch(&server, STRATEGIC, &path, &image).await.expect(200);
    let containers = &changed["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["image"], &containers[1]["image"]), (&json!("a:2"), &json!("b:1")));
    assert_eq!(containers[0]["env"].as_array().map(Vec::len), Some(2), "{containers}");
    assert_eq!(changed["metadata"]["generation"], 2);
    let gone = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}}});
    let changed = patch(&server, STRATEGIC, &path, &gone).await.expect(200);
    assert_eq!(changed["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(1));
    // A merge patch replaces the list.
    let changed = patch(&server, MERGE, &path, &image).await.expect(200);
    assert_eq!(changed["spec"]["template"]["spec"]["containers"].as_array().map(Vec::len), Some(1));
    assert_eq!(changed["spec"]["template"]["spec"]["containers"][0]["name"], "a");
}

#[tokio::test]
async fn patches_without_a_version_all_happen_and_one_with_a_stale_version_does_not() {
    let server = TestServer::memory().await;
    let created = server.post(MAPS, config_map("a", "1")).await.expect(201);
    let path = format!("{MAPS}/a");
    let patches: Vec<Value> = (0..20).map(|n| json!({"data": {format!("k{n}"): "x"}})).collect();
    let all = patches.iter().map(|change| patch(&server, MERGE, &path, change));
    for answer in futures::future::join_all(all).await {
        answer.expect(200);
    }
    assert_eq!(server.get(&path).await.expect(200)["data"].as_object().map(|data| data.len()), Some(21));
    let stale = json!({"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "data": {"z": "1"}});
    patch(&server, MERGE, &path, &stale).await.expect_status(409, "Conflict");
}

#[tokio::test]
async fn what_may_not_change_does_not() {
    let server = TestServer::memory().await;
    let created = server.post(MAPS, config_map("a", "1")).await.expect(201);
    let path = format!("{MAPS}/a");
    patch(&server, MERGE, &path, &json!({"metadata": {"name": "b"}})).await.expect_status(400, "BadRequest");
    patch(&server, MERGE, &path, &json!({"metadata": {"uid": "other"}})).await.expect_status(409, "Conflict");
    let time = json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}});
    let message = patch(&server, MERGE, &path, &time).await.expect_status(422, "Invalid");
    assert!(message.contains("metadata.creationTimestamp") && message.ends_with("field is immutable"), "{message}");
    let absent = patch(&server, MERGE, &path, &json!({"metadata": {"creationTimestamp": null}})).await.expect(200);
    assert_eq!(absent["metadata"]["creationTimestamp"], created["metadata"]["creationTimestamp"]);
    let dry = patch(&server, MERGE, &format!("{path}?dryRun=All"), &json!({"data": {"key": "9"}})).await.expect(200);
    assert_eq!(dry["data"]["key"], "9");
    assert_eq!(server.get(&path).await.expect(200)["data"]["key"], "1");
}

#[tokio::test]
async fn status_and_spec_are_patched_apart() {
    let server = TestServer::memory().await;
    server.post(DEPLOYMENTS, deployment()).await.expect(201);
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 4}});
    let changed = patch(&server, MERGE, &format!("{DEPLOYMENTS}/web/status"), &both).await.expect(200);
    assert_eq!((&changed["spec"]["replicas"], &changed["status"]["replicas"]), (&json!(1), &json!(4)));
    let changed =
        patch(&server, MERGE, &format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 5}, "status": {"replicas": 9}})).await;
    let changed = changed.expect(200);
    assert_eq!((&changed["spec"]["replicas"], &changed["status"]["replicas"]), (&json!(5), &json!(4)));
}
