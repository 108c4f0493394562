//! Strict decoding of objects that are applied or sent whole, as the conformance suite asks for it.

use crate::custom_resources::establish;
use axum::body::Body;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer};

const OBJECTS: &str = "/apis/mygroup.example.com/v1beta1/noxus";

/// Of the cluster's scope and two versions, the second of which is stored.
async fn with(schema: Value) -> TestServer {
    let server = TestServer::memory().await;
    let mut crd = crate::custom_resource_suite::definition("noxu", schema);
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v1");
    crd["spec"]["versions"][0]["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    establish(&server, crd).await;
    server
}

fn schema(of_spec: Value) -> Value {
    let number = json!({"type": "integer", "format": "int32"});
    let text = json!({"type": "string"});
    let mut spec = json!({"type": "object", "properties": {
        "foo": text, "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "items": {"type": "object", "required": ["containerPort", "protocol"], "properties": {
                "containerPort": number, "hostIP": text, "hostPort": number, "name": text, "protocol": text}}}}});
    for (name, value) in of_spec.as_object().unwrap() {
        match name.as_str() {
            "template" => spec["properties"]["template"] = value.clone(),
            _ => spec[name] = value.clone(),
        }
    }
    json!({"type": "object", "properties": {"spec": spec}})
}

async fn apply(server: &TestServer, middle: &str) -> Answer {
    let body = format!(
        "\napiVersion: mygroup.example.com/v1beta1\nkind: Kindnoxu\nmetadata:\n  name: mytest\n{middle}\n  cronSpec: \"* * * * */5\"\n  \
         ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP"
    );
    let path = format!("{OBJECTS}/mytest?fieldManager=field_validation_mgr&fieldValidation=Strict");
    let request = http::Request::builder().method("PATCH").uri(path).header("content-type", "application/apply-patch+yaml");
    Answer::of(server.send(Some(User::admin()), request.body(Body::from(body)).unwrap()).await).await
}

async fn create_deployment(server: &TestServer, metadata: &str, spec: &str) -> String {
    let body = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
        "spec": {{{spec} "selector": {{"matchLabels": {{"app": "nginx"}}}}, "template": {{"metadata": {{"labels": {{"app": "nginx"}}}},
        "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest"}}]}}}}}}}}"#
    );
    let path = "/apis/apps/v1/namespaces/default/deployments?fieldManager=field_validation_mgr&fieldValidation=Strict";
    let request = http::Request::builder().method("POST").uri(path).header("content-type", "application/json");
    let answer = Answer::of(server.send(Some(User::admin()), request.body(Body::from(body)).unwrap()).await).await;
    answer.expect_status(400, "BadRequest")
}

/// `[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]`
/// `[sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]`
#[tokio::test]
async fn a_typed_object_with_unknown_and_duplicate_fields() {
    let server = TestServer::memory().await;
    let message = create_deployment(&server, "", r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#).await;
    let wanted = "strict decoding error: unknown field \"spec.unknownField\", duplicate field \"spec.replicas\"";
    assert!(message.contains(wanted), "{message}");
    let message = create_deployment(&server, r#""unknownMeta": "foo","#, "").await;
    assert!(message.contains("strict decoding error: unknown field \"metadata.unknownMeta\""), "{message}");
}

/// `[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]`
#[tokio::test]
async fn a_valid_object_is_applied() {
    let server = with(schema(json!({}))).await;
    let applied = apply(&server, "  finalizers:\n  - test-finalizer\nspec:\n  foo: foo1").await.expect(201);
    assert_eq!(applied["spec"]["foo"], "foo1");
}

/// `[sig-api-machinery] FieldValidation should create/apply a CR with unknown fields for CRD with no validation schema [Conformance]`
#[tokio::test]
async fn without_a_schema_anything_is_applied() {
    let server = with(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let applied = apply(&server, "  finalizers:\n  - test-finalizer\nspec:\n  unknown: uk1").await.expect(201);
    assert_eq!(applied["spec"]["unknown"], "uk1");
}

/// `[sig-api-machinery] FieldValidation should create/apply an invalid CR with extra properties for CRD with validation schema [Conformance]`
#[tokio::test]
async fn an_object_with_extra_properties_is_not_applied() {
    let server = with(schema(json!({}))).await;
    let answer = apply(&server, "  finalizers:\n  - test-finalizer\nunknownField: unknown\nspec:\n  foo: foo1").await;
    assert!(answer.code >= 400);
    assert!(answer.body.to_string().contains(".unknownField: field not declared in schema"), "{:#}", answer.body);
    assert_eq!(server.get(&format!("{OBJECTS}/mytest")).await.code, 404);
}

/// `[sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]`
#[tokio::test]
async fn unknown_metadata_is_not_applied() {
    let template = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"}}});
    let server = with(schema(json!({"x-kubernetes-preserve-unknown-fields": true, "template": template}))).await;
    let sub = "spec:\n  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n        name: subobject\n        namespace: ns\n  foo: foo1";
    let answer = apply(&server, &format!("  unknownMeta: unknown\n  finalizers:\n  - test-finalizer\n{sub}")).await;
    assert!(answer.code >= 400);
    let text = answer.body.to_string();
    assert!(
        text.contains(".spec.template.metadata.unknownSubMeta: field not declared in schema")
            && text.contains(".metadata.unknownMeta: field not declared in schema"),
        "{text}"
    );
    let answer = apply(&server, &format!("  finalizers:\n  - test-finalizer\n{sub}")).await;
    let text = answer.body.to_string();
    assert!(text.contains(".spec.template.metadata.unknownSubMeta: field not declared in schema"), "{text}");
    assert_eq!(server.get(&format!("{OBJECTS}/mytest")).await.code, 404);
}

/// `[sig-api-machinery] FieldValidation should detect duplicates in a CR when preserving unknown fields [Conformance]`
#[tokio::test]
async fn duplicates_are_found_where_unknown_fields_are_kept() {
    let server = with(schema(json!({"x-kubernetes-preserve-unknown-fields": true}))).await;
    let answer = apply(&server, "  finalizers:\n  - test-finalizer\nspec:\n  unknown: uk1\n  foo: foo1\n  foo: foo2").await;
    assert!(answer.code >= 400);
    assert!(answer.body.to_string().contains(r#"line 11: key \"foo\" already set in map"#), "{:#}", answer.body);
}
