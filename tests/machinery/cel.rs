//! CEL as it is met in the API. The language itself is tested in `apiserver/src/cel`.

use serde_json::{Value, json};
use slipway_tests::TestServer;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";

fn policy(expression: &str) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": expression}]}})
}

#[tokio::test]
async fn an_expression_that_does_not_compile_is_refused_with_the_place() {
    let server = TestServer::memory().await;
    let message = server.post(POLICIES, policy("object.x == nope")).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"p\" is invalid: spec.validations[0].expression: Invalid value: \
         \"object.x == nope\": compilation failed: ERROR: <input>:1:13: undeclared reference to 'nope' (in container '')\n \
         | object.x == nope\n | ............^"
    );
    let message = server.post(POLICIES, policy("1 + 1")).await.expect_status(422, "Invalid");
    assert!(message.ends_with("must evaluate to bool"), "{message}");
}

/// Deep and long ones are refused, and none takes the server with it.
#[tokio::test]
async fn hostile_expressions_are_refused() {
    let server = TestServer::memory().await;
    for hostile in [
        "(".repeat(90_000),
        "[".repeat(90_000),
        "-(".repeat(40_000),
        "a.".repeat(40_000),
        "x?".repeat(40_000),
        "!".repeat(99_000),
    ] {
        server.post(POLICIES, policy(&hostile)).await.expect_status(422, "Invalid");
    }
    let long = format!("'{}' == ''", "x".repeat(100_000));
    let message = server.post(POLICIES, policy(&long)).await.expect_status(422, "Invalid");
    assert!(message.contains("expression code point size exceeds limit"), "{message:.200}");
}

/// An expression that would run for ages is stopped, and others are answered meanwhile.
#[tokio::test]
async fn an_expression_that_runs_away_is_stopped() {
    let server = TestServer::memory().await;
    let all = "object.data.text.split('').all(a, object.data.text.split('').all(b, object.data.text.split('').all(c, a != 'y')))";
    server.post(POLICIES, policy(all)).await.expect(201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    server.post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", binding).await.expect(201);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"text": "x".repeat(5_000)}});
    let message = server.post("/api/v1/namespaces/default/configmaps", object).await.expect_status(422, "Invalid");
    assert!(message.contains("resulted in error: operation cancelled: actual cost limit exceeded"), "{message:.600}");
}
