//! `pods/resize`: what may be asked for, who is asked, and what it is charged to.

use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::TestServer;

const PODS: &str = "/api/v1/namespaces/default/pods";
const RESIZE: &str = "/api/v1/namespaces/default/pods/web/resize";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn pod(name: &str, resources: Value) -> Value {
    let container = json!({"name": "c", "image": "nginx:1", "resources": resources});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}})
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}})
}

fn wanting(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
}

fn cpu(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str().unwrap()
}

async fn server() -> TestServer {
    let server = TestServer::memory().await;
    server.post(PODS, pod("web", requests("1", "1Gi"))).await.expect(201);
    server
}

#[tokio::test]
async fn requests_and_limits_change_and_nothing_else() {
    let server = server().await;
    let pod = server.get(RESIZE).await.expect(200);
    assert_eq!((&pod["kind"], cpu(&pod)), (&json!("Pod"), "1"));
    let mut wanted = wanting(requests("2", "1Gi"));
    wanted["metadata"] = json!({"labels": {"not": "written"}});
    wanted["spec"]["containers"][0]["image"] = json!("not-written");
    let resized = server.patch_as(STRATEGIC, RESIZE, wanted).await.expect(200);
    assert_eq!((cpu(&resized), &resized["metadata"]["generation"]), ("2", &json!(2)));
    assert_eq!((&resized["spec"]["containers"][0]["image"], resized["metadata"].get("labels")), (&json!("nginx:1"), None));
    let owner = resized["metadata"]["managedFields"].as_array().unwrap().iter().find(|entry| entry["subresource"] == "resize");
    let owned = &owner.unwrap()["fieldsV1"];
    assert_eq!(
        owned,
        &json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:resources": {"f:requests": {"f:cpu": {}}}}}}})
    );

    let mut new = resized.clone();
    new["spec"]["containers"][0]["resources"]["limits"] = json!({"memory": "2Gi"});
    let resized = server.put(RESIZE, new).await.expect(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["limits"]["memory"], "2Gi");
    let body = json!([{"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "3"}]);
    assert_eq!(cpu(&server.patch_as("application/json-patch+json", RESIZE, body).await.expect(200)), "3");
    let mut body = wanting(json!({"requests": {"cpu": "4"}}));
    (body["apiVersion"], body["kind"], body["metadata"]) = (json!("v1"), json!("Pod"), json!({"name": "web"}));
    let path = format!("{RESIZE}?fieldManager=me&force=true");
    let applied = server.patch_as("application/apply-patch+yaml", &path, body).await.expect(200);
    assert_eq!((cpu(&applied), &applied["metadata"]["generation"]), ("4", &json!(5)));
    server.put(RESIZE, resized).await.expect_status(409, "Conflict");
    let same = server.patch_as(STRATEGIC, RESIZE, wanting(json!({"requests": {"cpu": "4"}}))).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], applied["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn what_cannot_be_resized_is_refused() {
    let server = server().await;
    let message = server.patch_as(STRATEGIC, &format!("{PODS}/web"), wanting(requests("2", "1Gi"))).await;
    assert!(message.expect_status(422, "Invalid").contains("pod updates may not change fields other than"));
    let answer = server.patch_as(STRATEGIC, RESIZE, wanting(json!({"requests": {"memory": null}}))).await;
    assert_eq!(
        answer.body["details"]["causes"],
        json!([{"reason": "FieldValueForbidden", "field": "spec.containers[0].resources.requests",
            "message": "Forbidden: resource requests cannot be removed"}])
    );
    let guaranteed = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    let message = server.patch_as(STRATEGIC, RESIZE, wanting(guaranteed)).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "Pod \"web\" is invalid: spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"
    );
    let nobody = format!("{PODS}/nobody/resize");
    server.patch_as(STRATEGIC, &nobody, wanting(requests("2", "1Gi"))).await.expect_status(404, "NotFound");
    server.delete(RESIZE).await.expect_status(405, "MethodNotAllowed");
}

#[tokio::test]
async fn limit_ranges_and_quotas_are_asked() {
    let server = server().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"},
        "spec": {"limits": [{"type": "Pod", "max": {"memory": "4Gi"}}]}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"requests.cpu": "3"}}});
    server.delete(&format!("{PODS}/web")).await.expect(200);
    server.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let status = json!({"status": {"hard": {"requests.cpu": "3"}, "used": {"requests.cpu": "0"}}});
    server.patch("/api/v1/namespaces/default/resourcequotas/q/status", status).await.expect(200);
    let both = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}});
    server.post(PODS, pod("web", both("1", "1Gi"))).await.expect(201);
    server.post("/api/v1/namespaces/default/limitranges", range).await.expect(201);

    let message = server.patch_as(STRATEGIC, RESIZE, wanting(both("1", "5Gi"))).await.expect_status(403, "Forbidden");
    assert_eq!(message, "pods \"web\" is forbidden: maximum memory usage per Pod is 4Gi, but limit is 5Gi");
    let message = server.patch_as(STRATEGIC, RESIZE, wanting(both("4", "1Gi"))).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"web\" is forbidden: exceeded quota: q, requested: requests.cpu=3, used: requests.cpu=1, limited: requests.cpu=3"
    );
    server.patch_as(STRATEGIC, RESIZE, wanting(both("2500m", "1Gi"))).await.expect(200);
    let quota = server.get("/api/v1/namespaces/default/resourcequotas/q").await.expect(200);
    assert_eq!(quota["status"]["used"]["requests.cpu"], "2500m");
}

#[tokio::test]
async fn a_node_that_is_too_small_is_not_asked() {
    let server = TestServer::memory().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux"}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    server.post("/api/v1/nodes", node).await.expect(201);
    let mut bound = pod("web", requests("1", "1Gi"));
    bound["spec"]["nodeName"] = json!("n");
    server.post(PODS, bound).await.expect(201);
    let answer = server.patch_as(STRATEGIC, RESIZE, wanting(requests("3", "1Gi"))).await;
    assert_eq!(answer.body["details"]["causes"], json!([{"reason": "NodeCapacity"}]));
    let message = answer.expect_status(403, "Forbidden");
    let why = "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000";
    assert_eq!(message, format!("pods \"web\" is forbidden: {why}"));
    server.patch_as(STRATEGIC, RESIZE, wanting(requests("2", "1Gi"))).await.expect(200);
}

#[tokio::test]
async fn policies_are_asked_about_the_subresource() {
    let server = server().await;
    let base = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "small"}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/resize"]}]},
            "validations": [{"expression": "request.subResource == 'resize' && quantity(object.spec.containers[0].resources.requests.cpu).isLessThan(quantity('8'))",
                "message": "too large"}]}});
    server.post(&format!("{base}/validatingadmissionpolicies"), policy).await.expect(201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "small"}, "spec": {"policyName": "small", "validationActions": ["Deny"]}});
    server.post(&format!("{base}/validatingadmissionpolicybindings"), binding).await.expect(201);
    let message = server.patch_as(STRATEGIC, RESIZE, wanting(requests("9", "1Gi"))).await.expect_status(422, "Invalid");
    assert!(message.contains("too large"), "{message}");
    server.patch_as(STRATEGIC, RESIZE, wanting(requests("7", "1Gi"))).await.expect(200);
}

#[tokio::test]
async fn it_is_a_right_of_its_own() {
    let server = server().await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "edit"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await.expect(201);
    let eve = User::new("eve", &["system:authenticated"]);
    let answer = server.call_as(eve, "PATCH", RESIZE, Some(&wanting(requests("2", "1Gi")))).await;
    assert!(answer.expect_status(403, "Forbidden").contains("cannot patch resource \"pods/resize\""));
}
