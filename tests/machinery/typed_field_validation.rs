//! Fields of built-in kinds that are unknown or stand twice, by what the client wants done about them.

use axum::body::Body;
use http::Request;
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A Deployment as text, for JSON values have no field twice; `metadata` and `spec` are put into it.
fn deployment(metadata: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
            "spec": {{{spec} "selector": {{"matchLabels": {{"app": "nginx"}}}}, "template": {{
                "metadata": {{"labels": {{"app": "nginx"}}}}, "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest"}}]}}}}}}}}"#
    )
}

async fn created(server: &TestServer, validation: &str, body: String) -> (Answer, Vec<String>) {
    let path = format!("{DEPLOYMENTS}?fieldManager=field_validation_mgr&fieldValidation={validation}");
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(body)).unwrap();
    let response = server.send(Some(User::admin()), request).await;
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let warnings = response.headers().get_all("warning").iter().map(text).collect();
    (Answer::of(response).await, warnings)
}

const TWICE: &str = r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#;

/// `[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]`
#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_if_the_client_is_strict() {
    let server = TestServer::memory().await;
    let (answer, _) = created(&server, "Strict", deployment("", TWICE)).await;
    let message = answer.expect_status(400, "BadRequest");
    let wanted = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(message.contains(wanted), "{message}");
    server.get(&format!("{DEPLOYMENTS}/my-dep")).await.expect_status(404, "NotFound");
}

/// `[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]`
#[tokio::test]
async fn unknown_metadata_is_refused_if_the_client_is_strict() {
    let server = TestServer::memory().await;
    let (answer, _) = created(&server, "Strict", deployment(r#""unknownMeta": "foo","#, "")).await;
    let message = answer.expect_status(400, "BadRequest");
    assert!(message.contains(r#"strict decoding error: unknown field "metadata.unknownMeta""#), "{message}");
}

#[tokio::test]
async fn others_are_warned_or_told_nothing_and_the_last_value_counts() {
    let server = TestServer::memory().await;
    for (validation, wanted) in [
        ("Warn", &[r#"299 - "unknown field \"spec.unknownField\"""#, r#"299 - "duplicate field \"spec.replicas\"""#][..]),
        ("Ignore", &[]),
    ] {
        let (answer, warnings) = created(&server, validation, deployment("", TWICE)).await;
        let deployment = answer.expect(201);
        assert_eq!((&deployment["spec"]["replicas"], deployment["spec"].get("unknownField")), (&serde_json::json!(3), None));
        assert_eq!(warnings, wanted);
        server.delete(&format!("{DEPLOYMENTS}/my-dep")).await.expect(200);
    }
    let (answer, _) = created(&server, "Sometimes", deployment("", "")).await;
    let message = answer.expect_status(422, "Invalid");
    assert!(
        message.contains(r#"fieldValidation: Unsupported value: "Sometimes": supported values: "Ignore", "Strict", "Warn""#),
        "{message}"
    );
}
