//! `x-kubernetes-validations` of custom kinds, over the API.

use crate::custom_resource_suite::definition;
use crate::custom_resources::{CRDS, establish};
use serde_json::{Value, json};
use slipway_tests::TestServer;

const OBJECTS: &str = "/apis/mygroup.example.com/v1beta1/foos";

fn with(spec: Value, rules: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": {"spec": spec}});
    schema["properties"]["spec"]["x-kubernetes-validations"] = rules;
    let mut crd = definition("foo", schema);
    crd["spec"]["versions"][0].as_object_mut().unwrap().remove("subresources");
    crd
}

fn object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "mygroup.example.com/v1beta1", "kind": "Kindfoo", "metadata": {"name": name}, "spec": spec})
}

fn xy() -> Value {
    json!({"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}})
}

/// `[sig-api-machinery] CustomResourceValidationRules [Privileged:ClusterAdmin] MUST NOT fail validation for create of a custom resource that satisfies the x-kubernetes-validations rules`
/// and its neighbours.
#[tokio::test]
async fn a_rule_says_why_and_where() {
    let server = TestServer::memory().await;
    let mut spec = xy();
    spec["properties"]["name"] = json!({"type": "string", "maxLength": 10});
    let rules = json!([
        {"rule": "self.x < 10", "messageExpression": "'too much for ' + self.name", "fieldPath": ".x", "reason": "FieldValueForbidden"},
        {"rule": "self.y < 10", "message": "y is too large", "fieldPath": ".y", "reason": "FieldValueRequired"},
        {"rule": "self.x + self.y != 7", "messageExpression": "self.x == 3 ? '' : 'not seven'", "message": "never seven"},
    ]);
    establish(&server, with(spec, rules)).await;
    server.post(OBJECTS, object("a", json!({"x": 1, "y": 2}))).await.expect(201);
    let refused = async |spec: Value| server.post(OBJECTS, object("b", spec)).await.expect_status(422, "Invalid");
    let begins = "Kindfoo.mygroup.example.com \"b\" is invalid: ";
    assert_eq!(
        refused(json!({"x": 11, "y": 12, "name": "b"})).await,
        format!("{begins}[spec.x: Forbidden: too much for b, spec.y: Required value: y is too large]")
    );
    assert_eq!(refused(json!({"x": 4, "y": 3})).await, format!("{begins}spec: Invalid value: not seven"));
    assert_eq!(
        refused(json!({"x": 3, "y": 4})).await,
        format!("{begins}spec: Invalid value: never seven"),
        "an empty message is none"
    );
}

#[tokio::test]
async fn transitions_are_held_against_what_was() {
    let server = TestServer::memory().await;
    let mut spec = xy();
    spec["properties"]["x"]["x-kubernetes-validations"] = json!([{"rule": "self >= oldSelf", "message": "x only grows"}]);
    let rules = json!([{"rule": "oldSelf.hasValue() || self.y == 0", "optionalOldSelf": true, "message": "y begins at 0"}]);
    establish(&server, with(spec, rules)).await;
    let message = server.post(OBJECTS, object("a", json!({"x": 1, "y": 1}))).await.expect_status(422, "Invalid");
    assert!(message.ends_with("spec: Invalid value: y begins at 0"), "{message}");
    server.post(OBJECTS, object("a", json!({"x": 5, "y": 0}))).await.expect(201);
    server.patch(&format!("{OBJECTS}/a"), json!({"spec": {"y": 9, "x": 6}})).await.expect(200);
    let message = server.patch(&format!("{OBJECTS}/a"), json!({"spec": {"x": 4}})).await.expect_status(422, "Invalid");
    assert!(message.ends_with("spec.x: Invalid value: 4: x only grows"), "{message}");
}

#[tokio::test]
async fn rules_that_may_cost_too_much_are_refused_with_their_definition() {
    let server = TestServer::memory().await;
    let list = |max: Option<u64>| {
        let mut list = json!({"type": "array", "items": {"type": "string"}});
        if let Some(max) = max {
            list["maxItems"] = json!(max);
            list["items"]["maxLength"] = json!(max);
        }
        json!({"type": "object", "properties": {"list": list}})
    };
    let rule = json!([{"rule": "self.list.all(a, self.list.all(b, a == b || a.contains(b)))"}]);
    let message = server.post(CRDS, with(list(None), rule.clone())).await.expect_status(422, "Invalid");
    let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Forbidden: ";
    let why = "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert!(message.contains(&format!("{at}{why}")), "{message}");
    // What is made of a number may be of any length, says Kubernetes' estimate.
    let message = json!([{"rule": "self.x < 9", "messageExpression": "'x is ' + string(self.x)"}]);
    let message = server.post(CRDS, with(xy(), message)).await.expect_status(422, "Invalid");
    assert!(
        message.contains(
            ".messageExpression: Forbidden: estimated messageExpression cost exceeds budget by factor of more than 100x"
        )
    );
    establish(&server, with(list(Some(20)), rule)).await;
}

/// What is within the limit by its estimate may still be stopped when it is evaluated.
#[tokio::test]
async fn what_costs_too_much_is_stopped() {
    let server = TestServer::memory().await;
    let list =
        json!({"type": "object", "properties": {"list": {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}}});
    let heavy = "self.list.all(a, self.list.all(b, a != b || a == b))";
    establish(&server, with(list, json!([{"rule": heavy}]))).await;
    server.post(OBJECTS, object("small", json!({"list": (0..10).collect::<Vec<_>>()}))).await.expect(201);
    let answer = server.post(OBJECTS, object("large", json!({"list": (0..1000).collect::<Vec<_>>()}))).await;
    let message = answer.expect_status(422, "Invalid");
    assert!(message.contains("no further validation rules will be run due to call cost exceeds limit for rule: "), "{message}");
}
