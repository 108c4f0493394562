//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{TestServer, config_map, eventually};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn path(plural: &str) -> String {
    format!("{GROUP}/{plural}")
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn rule(operations: &[&str], group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]})
}

async fn validating(server: &TestServer, name: &str, spec: Value, binding: Value) {
    server.post(&path("validatingadmissionpolicies"), object("ValidatingAdmissionPolicy", name, spec)).await.expect(201);
    let mut spec = json!({"policyName": name, "validationActions": ["Deny"]});
    spec.as_object_mut().unwrap().extend(binding.as_object().unwrap().clone());
    let name = format!("{name}-binding");
    let binding = object("ValidatingAdmissionPolicyBinding", &name, spec);
    server.post(&path("validatingadmissionpolicybindings"), binding).await.expect(201);
}

async fn mutating(server: &TestServer, name: &str, spec: Value) {
    server.post(&path("mutatingadmissionpolicies"), object("MutatingAdmissionPolicy", name, spec)).await.expect(201);
    let binding = object("MutatingAdmissionPolicyBinding", &format!("{name}-binding"), json!({"policyName": name}));
    server.post(&path("mutatingadmissionpolicybindings"), binding).await.expect(201);
}

fn deployment(name: &str, replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn each_validation_has_its_message_and_reason() {
    let server = TestServer::memory().await;
    let spec = json!({
        "matchConstraints": rule(&["CREATE", "UPDATE"], "apps", "deployments"),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas", "message": "the replicas must be odd", "reason": "Forbidden"},
        ],
    });
    validating(&server, "odd", spec, json!({})).await;
    let message = server.post(DEPLOYMENTS, deployment("web", 1)).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'odd' with binding 'odd-binding' denied request: \
         failed expression: variables.replicas > 1"
    );
    let message = server.post(DEPLOYMENTS, deployment("web", 2)).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("denied request: the replicas must be odd"), "{message}");
    server.post(DEPLOYMENTS, deployment("web", 3)).await.expect(201);
    let answer = server.put(&format!("{DEPLOYMENTS}/web"), deployment("web", 4)).await;
    assert_eq!(answer.body["details"]["causes"], json!([{"message": "the replicas must be odd"}]));
    answer.expect_status(403, "Forbidden");
    // The status is none of its business, and a Scale is another resource.
    server.patch(&format!("{DEPLOYMENTS}/web/status"), json!({"status": {"replicas": 4}})).await.expect(200);
    server.patch(&format!("{DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 4}})).await.expect(200);
}

/// As the suite's "should type check validation expressions", which is not of its conformance part.
#[tokio::test]
async fn should_type_check_validation_expressions() {
    let server = TestServer::memory().await;
    let spec = json!({
        "matchConstraints": rule(&["CREATE"], "apps", "deployments"),
        "validations": [
            {"expression": "object.spec.replicas > '1'", "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
            {"expression": "object.spec.template.spec.containers.all(c, c.name != '') && object.metadata.creationTimestamp > timestamp('2000-01-01T00:00:00Z')"},
            {"expression": "object.spec.nope == 1"},
        ],
    });
    let policies = path("validatingadmissionpolicies");
    server.post(&policies, object("ValidatingAdmissionPolicy", "typed", spec)).await.expect(201);
    let status = eventually("the types are checked", || async {
        let policy = server.get(&format!("{policies}/typed")).await.expect(200);
        Some(policy["status"].clone()).filter(|status| status["typeChecking"].is_object())
    })
    .await;
    assert_eq!(status["observedGeneration"], 1);
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().unwrap();
    let brief: Vec<(&str, &str)> = warnings
        .iter()
        .map(|one| (one["fieldRef"].as_str().unwrap(), one["warning"].as_str().unwrap().lines().next().unwrap()))
        .collect();
    assert_eq!(
        brief,
        [
            (
                "spec.validations[0].expression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"
            ),
            (
                "spec.validations[0].messageExpression",
                "apps/v1, Kind=Deployment: ERROR: <input>:1:28: found no matching overload for '_+_' applied to '(string, int)'"
            ),
            ("spec.validations[2].expression", "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'nope'"),
        ]
    );
}

#[tokio::test]
async fn variables_are_evaluated_when_they_are_asked_for() {
    let server = TestServer::memory().await;
    let spec = json!({
        "matchConstraints": rule(&["CREATE"], "", "configmaps"),
        "variables": [
            {"name": "never", "expression": "object.there.is.no.such.field"},
            {"name": "key", "expression": "object.?data.?key.orValue('')"},
            {"name": "twice", "expression": "variables.key + variables.key"},
        ],
        "validations": [{"expression": "variables.twice != 'xx' || variables.never", "messageExpression": "'twice ' + variables.key + ' is ' + variables.twice"}],
    });
    validating(&server, "variables", spec, json!({})).await;
    server.post(MAPS, config_map("a", "y")).await.expect(201);
    let message = server.post(MAPS, config_map("b", "x")).await.expect_status(422, "Invalid");
    assert!(
        message.ends_with(
            "denied request: expression 'variables.twice != 'xx' || variables.never' resulted in error: no such key: there"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn parameters_are_found_by_name_and_by_selector() {
    let server = TestServer::memory().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.expect(201);
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": rule(&["CREATE"], "apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas <= int(params.data.key)", "messageExpression": "'at most ' + params.data.key"}],
    });
    let named = json!({"paramRef": {"name": "limit", "parameterNotFoundAction": "Deny"}});
    validating(&server, "limit", spec.clone(), named).await;
    let message = server.post(DEPLOYMENTS, deployment("web", 3)).await.expect_status(422, "Invalid");
    assert!(
        message.ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{message}"
    );
    server.post(MAPS, config_map("limit", "2")).await.expect(201);
    server.get(&format!("{MAPS}/limit")).await.expect(200);
    let message = server.post(DEPLOYMENTS, deployment("web", 3)).await.expect_status(422, "Invalid");
    assert!(message.ends_with("denied request: at most 2"), "{message}");
    server.post(DEPLOYMENTS, deployment("web", 2)).await.expect(201);
    // In another namespace there is no such parameter.
    let elsewhere = "/apis/apps/v1/namespaces/other/deployments";
    server.post(elsewhere, deployment("web", 1)).await.expect_status(422, "Invalid");
    server.delete(&format!("{}/limit", path("validatingadmissionpolicies"))).await.expect(200);

    let selected = json!({"paramRef": {"selector": {"matchLabels": {"limit": "yes"}}, "namespace": "other", "parameterNotFoundAction": "Allow"}});
    validating(&server, "selected", spec, selected).await;
    server.post(elsewhere, deployment("many", 9)).await.expect(201);
    for (name, value) in [("one", "5"), ("two", "1")] {
        let mut limit = config_map(name, value);
        limit["metadata"]["labels"] = json!({"limit": "yes"});
        server.post("/api/v1/namespaces/other/configmaps", limit).await.expect(201);
    }
    server.get("/api/v1/namespaces/other/configmaps/two").await.expect(200);
    // All of them count.
    let message = server.post(DEPLOYMENTS, deployment("more", 2)).await.expect_status(422, "Invalid");
    assert!(message.ends_with("denied request: at most 1"), "{message}");
    server.post(DEPLOYMENTS, deployment("less", 1)).await.expect(201);
}

#[tokio::test]
async fn a_binding_warns_or_audits_instead_of_denying() {
    let server = TestServer::memory().await;
    let spec = json!({"matchConstraints": rule(&["CREATE"], "", "configmaps"), "validations": [{"expression": "false", "message": "not so"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "object.metadata.name"}]});
    validating(&server, "soft", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let request = Request::builder().method("POST").uri(MAPS).header("content-type", "application/json");
    let response = server.send(Some(User::admin()), request.body(Body::from(config_map("a", "b").to_string())).unwrap()).await;
    assert_eq!(response.status().as_u16(), 201);
    let warnings: Vec<&str> = response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        ["299 - \"Validation failed for ValidatingAdmissionPolicy 'soft' with binding 'soft-binding': not so\""]
    );
}

#[tokio::test]
async fn what_matches_is_decided_by_rules_selectors_and_conditions() {
    let server = TestServer::memory().await;
    let labelled = json!({"metadata": {"name": "strict", "labels": {"strict": "yes"}}});
    server.post("/api/v1/namespaces", labelled).await.expect(201);
    let mut constraints = rule(&["CREATE", "DELETE"], "", "configmaps");
    constraints["namespaceSelector"] = json!({"matchLabels": {"strict": "yes"}});
    constraints["objectSelector"] = json!({"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]});
    constraints["excludeResourceRules"] = json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "resourceNames": ["excluded"]}]);
    let spec = json!({
        "matchConstraints": constraints,
        "matchConditions": [{"name": "not-the-boss", "expression": "request.userInfo.username != 'boss' && !('bosses' in request.userInfo.groups)"}],
        "validations": [{"expression": "request.operation == 'DELETE' ? oldObject.data.key == 'gone' : namespaceObject.metadata.labels.strict == 'no'",
            "messageExpression": "request.operation + ' of ' + request.name + ' in ' + request.namespace"}],
    });
    validating(&server, "strict", spec, json!({})).await;
    let strict = "/api/v1/namespaces/strict/configmaps";
    server.post(MAPS, config_map("a", "b")).await.expect(201);
    let message = server.post(strict, config_map("a", "b")).await.expect_status(422, "Invalid");
    assert!(message.ends_with("denied request: CREATE of a in strict"), "{message}");
    server.post(strict, config_map("excluded", "b")).await.expect(201);
    let mut free = config_map("free", "b");
    free["metadata"]["labels"] = json!({"free": ""});
    server.post(strict, free).await.expect(201);
    let boss = User::new("boss", &["system:masters"]);
    server.call_as(boss.clone(), "POST", strict, Some(&config_map("a", "b"))).await.expect(201);
    server.call_as(boss, "POST", strict, Some(&config_map("gone", "gone"))).await.expect(201);
    let message = server.delete(&format!("{strict}/a")).await.expect_status(422, "Invalid");
    assert!(message.ends_with("denied request: DELETE of a in strict"), "{message}");
    server.delete(&format!("{strict}/gone")).await.expect(200);
}

#[tokio::test]
async fn an_expression_that_fails_denies_or_is_passed_over() {
    let server = TestServer::memory().await;
    let spec = |policy: &str| json!({"failurePolicy": policy, "matchConstraints": rule(&["CREATE"], "", "configmaps"), "validations": [{"expression": "object.nope"}]});
    validating(&server, "open", spec("Ignore"), json!({})).await;
    server.post(MAPS, config_map("a", "b")).await.expect(201);
    validating(&server, "shut", spec("Fail"), json!({})).await;
    let message = server.post(MAPS, config_map("b", "b")).await.expect_status(422, "Invalid");
    assert!(message.ends_with("denied request: expression 'object.nope' resulted in error: no such key: nope"), "{message}");
}

#[tokio::test]
async fn expressions_ask_the_authorizer() {
    let server = TestServer::memory().await;
    let spec = json!({"matchConstraints": rule(&["CREATE"], "", "configmaps"), "validations": [
        {"expression": "authorizer.requestResource.check('create').allowed()", "message": "may not create"},
        {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()", "message": "may not read secrets"},
        {"expression": "!authorizer.serviceAccount('default', 'nobody').group('').resource('pods').namespace('default').check('delete').allowed()"},
    ]});
    validating(&server, "rights", spec, json!({})).await;
    server.post(MAPS, config_map("a", "b")).await.expect(201);
}

/// What decides about admission must not be decided about by itself.
#[tokio::test]
async fn policies_do_not_match_policies() {
    let server = TestServer::memory().await;
    let all = json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    validating(&server, "all", json!({"matchConstraints": all, "validations": [{"expression": "false"}]}), json!({})).await;
    server.post(MAPS, config_map("a", "b")).await.expect_status(422, "Invalid");
    server.delete(&format!("{}/all-binding", path("validatingadmissionpolicybindings"))).await.expect(200);
    server.post(MAPS, config_map("a", "b")).await.expect(201);
}

/// Sidecars and defaults that are merged in.
#[tokio::test]
async fn a_configuration_is_merged_into_the_object() {
    let server = TestServer::memory().await;
    let expression = "Object{metadata: Object.metadata{labels: {'mutated': 'yes'}}, spec: Object.spec{template: Object.spec.template{spec: \
        Object.spec.template.spec{initContainers: [Object.spec.template.spec.initContainers{name: 'mesh', image: 'mesh:1', restartPolicy: 'Always'}]}}}}";
    let spec = json!({
        "matchConstraints": rule(&["CREATE"], "apps", "deployments"),
        "matchConditions": [{"name": "once", "expression": "!object.spec.template.spec.?initContainers.orValue([]).exists(c, c.name == 'mesh')"}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        "reinvocationPolicy": "IfNeeded",
    });
    mutating(&server, "mesh", spec).await;
    let created = server.post(DEPLOYMENTS, deployment("web", 1)).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({"mutated": "yes"}));
    let containers = &created["spec"]["template"]["spec"]["initContainers"];
    assert_eq!((&containers[0]["name"], containers.as_array().unwrap().len()), (&json!("mesh"), 1));
    // What the mutation left out is filled in.
    assert_eq!(containers[0]["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(created["spec"]["template"]["spec"]["containers"][0]["image"], "i");
}

#[tokio::test]
async fn a_json_patch_changes_the_object() {
    let server = TestServer::memory().await;
    let expression = "[JSONPatch{op: 'test', path: '/data/key', value: 'x'}, JSONPatch{op: 'add', path: '/metadata/annotations', \
        value: {'a/b': request.userInfo.username}}, JSONPatch{op: 'replace', path: '/data/key', value: variables.twice}]";
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": rule(&["CREATE"], "", "configmaps"),
        "variables": [{"name": "twice", "expression": "object.data.key + object.data.key"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    });
    mutating(&server, "patch", spec).await;
    let created = server.post(MAPS, config_map("a", "x")).await.expect(201);
    assert_eq!((&created["data"]["key"], &created["metadata"]["annotations"]["a/b"]), (&json!("xx"), &json!("kubernetes-admin")));
    let message = server.post(MAPS, config_map("b", "y")).await.expect_status(403, "Forbidden");
    assert!(
        message.starts_with(
            "configmaps \"b\" is forbidden: policy 'patch' with binding 'patch-binding' denied request: JSON Patch: "
        ),
        "{message}"
    );
    // What stands in an object can't be renamed.
    let rename = json!({"matchConstraints": rule(&["CREATE"], "", "secrets"), "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{name: 'other'}}"}}]});
    mutating(&server, "rename", rename).await;
    let secret = json!({"metadata": {"name": "s"}});
    server.post("/api/v1/namespaces/default/secrets", secret).await.expect_status(403, "Forbidden");
}

/// A validating policy sees what a mutating one made.
#[tokio::test]
async fn validation_comes_after_mutation() {
    let server = TestServer::memory().await;
    let mutation = json!({"matchConstraints": rule(&["CREATE"], "", "configmaps"), "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{data: {'owner': request.userInfo.username}}"}}]});
    mutating(&server, "owner", mutation).await;
    let validation = json!({"matchConstraints": rule(&["CREATE"], "", "configmaps"), "validations": [{"expression": "object.data.owner == 'kubernetes-admin'"}]});
    validating(&server, "owned", validation, json!({})).await;
    let created = server.post(MAPS, config_map("a", "b")).await.expect(201);
    assert_eq!(created["data"], json!({"key": "b", "owner": "kubernetes-admin"}));
}

/// Rules for deployments in namespaces with a label; the default one gets it.
async fn marked_deployments(server: &TestServer) -> Value {
    server.patch("/api/v1/namespaces/default", json!({"metadata": {"labels": {"marked": "true"}}})).await.expect(200);
    let mut constraints = rule(&["CREATE", "UPDATE"], "apps", "deployments");
    constraints["namespaceSelector"] = json!({"matchLabels": {"marked": "true"}});
    constraints
}

fn for_marked() -> Value {
    json!({"matchResources": {"namespaceSelector": {"matchLabels": {"marked": "true"}}}})
}

/// A ReplicaSet is none of a policy's business that is for Deployments.
async fn a_replica_set_is_allowed(server: &TestServer) {
    let mut set = deployment("non-replicated", 1);
    set["kind"] = json!("ReplicaSet");
    server.post("/apis/apps/v1/namespaces/default/replicasets", set).await.expect(201);
}

/// `[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]`
#[tokio::test]
async fn deployments_are_validated() {
    let server = TestServer::memory().await;
    let spec = json!({"matchConstraints": marked_deployments(&server).await, "validations": [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
        {"expression": "namespaceObject.metadata.name == 'default'", "message": "Internal error! Other namespace should not be allowed."},
    ]});
    validating(&server, "replicas.policy.example.com", spec, for_marked()).await;
    server.post(DEPLOYMENTS, deployment("marker-deployment", 1)).await.expect_status(422, "Invalid");
    server.post(DEPLOYMENTS, deployment("replicated", 2)).await.expect(201);
    a_replica_set_is_allowed(&server).await;
}

/// `[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]`
#[tokio::test]
async fn expressions_refer_to_variables() {
    let server = TestServer::memory().await;
    let spec = json!({
        "matchConstraints": marked_deployments(&server).await,
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}, {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [{"expression": "variables.replicas > 1"}, {"expression": "variables.oddReplicas"}],
    });
    validating(&server, "odd.policy.example.com", spec, for_marked()).await;
    server.post(DEPLOYMENTS, deployment("marker-deployment", 1)).await.expect_status(422, "Invalid");
    server.post(DEPLOYMENTS, deployment("replicated", 3)).await.expect(201);
    a_replica_set_is_allowed(&server).await;
}

/// A policy that applies one configuration to the deployments of the namespaces with the label.
async fn applying(server: &TestServer, expression: &str) {
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let spec =
        json!({"matchConstraints": marked_deployments(server).await, "mutations": [mutation], "reinvocationPolicy": "Never"});
    let policy = object("MutatingAdmissionPolicy", "apply.policy.example.com", spec);
    server.post(&path("mutatingadmissionpolicies"), policy).await.expect(201);
    let mut spec = for_marked();
    spec["policyName"] = json!("apply.policy.example.com");
    let binding = object("MutatingAdmissionPolicyBinding", "apply.binding.example.com", spec);
    server.post(&path("mutatingadmissionpolicybindings"), binding).await.expect(201);
}

/// `[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment with annotations [Conformance]`
#[tokio::test]
async fn deployments_are_annotated() {
    let server = TestServer::memory().await;
    applying(&server, "Object{metadata: Object.metadata{annotations: {\"mutated-by\": \"admission-policy\"}}}").await;
    let created = server.post(DEPLOYMENTS, deployment("marker-deployment", 1)).await.expect(201);
    assert_eq!(created["metadata"]["annotations"]["mutated-by"], "admission-policy");
}

/// `[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment [Conformance]`
#[tokio::test]
async fn deployments_are_changed() {
    let server = TestServer::memory().await;
    applying(&server, "Object{spec: Object.spec{replicas: 1337}}").await;
    let created = server.post(DEPLOYMENTS, deployment("marker-deployment", 1)).await.expect(201);
    assert_eq!(created["spec"]["replicas"], 1337);
}
