//! Network policies, addresses and the ranges that they are from.

use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::TestServer;

const GROUP: &str = "/apis/networking.k8s.io/v1";

fn verbs_of(resources: &Value, name: &str) -> Vec<String> {
    let told = resources["resources"].as_array().unwrap().iter().find(|one| one["name"] == name);
    let told = told.unwrap_or_else(|| panic!("{name} is not told of"));
    told["verbs"].as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations [Conformance]`
#[tokio::test]
async fn the_range_of_services() {
    let server = TestServer::memory().await;
    let ranges = format!("{GROUP}/servicecidrs");
    let default = server.get(&format!("{ranges}/kubernetes")).await.expect(200);
    assert_eq!(default["spec"]["cidrs"], json!([server.api.options.service_cidr]));
    assert_eq!(
        (&default["status"]["conditions"][0]["type"], &default["status"]["conditions"][0]["status"]),
        (&json!("Ready"), &json!("True"))
    );
    let status = server.get(&format!("{ranges}/kubernetes/status")).await.expect(200);
    assert_eq!((&status["apiVersion"], &status["kind"]), (&json!("networking.k8s.io/v1"), &json!("ServiceCIDR")));
    assert_eq!(status["metadata"]["uid"], default["metadata"]["uid"]);
    let list = server.get(&ranges).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server.watch(&format!("{ranges}?watch=1&resourceVersion={revision}")).await;
    let resources = server.get(GROUP).await.expect(200);
    assert_eq!(verbs_of(&resources, "servicecidrs/status"), ["get", "patch", "update"]);

    // One more, which nothing takes addresses from.
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["203.0.113.0/24"]}, "status": {"conditions": [{"type": "Ready"}]}});
    assert_eq!(server.post(&ranges, more).await.expect(201)["status"], json!({}));
    assert_eq!(watch.brief().await, "ADDED more");
    let condition = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Tested", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let changed = server.patch(&format!("{ranges}/more/status"), condition).await.expect(200);
    assert_eq!(changed["status"]["conditions"][0]["reason"], "Tested");
    let message = server.patch(&format!("{ranges}/more"), json!({"spec": {"cidrs": ["198.51.100.0/24"]}})).await;
    let message = message.expect_status(422, "Invalid");
    assert!(message.ends_with("spec.cidrs[0]: Invalid value: \"198.51.100.0/24\": field is immutable"), "{message}");
    let both = json!({"spec": {"cidrs": ["203.0.113.0/24", "2001:db8:cb00::/64"]}});
    let grown = server.patch(&format!("{ranges}/more"), both).await.expect(200);
    assert_eq!(grown["status"], changed["status"], "an ordinary update leaves the status alone");
    server.delete(&format!("{ranges}/more")).await.expect(200);
}

/// `[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations [Conformance]`
#[tokio::test]
async fn addresses_are_somebodys() {
    let server = TestServer::memory().await;
    let addresses = format!("{GROUP}/ipaddresses");
    let address = |name: &str, kind: &str| {
        json!({"metadata": {"name": name, "labels": {"type": kind}},
        "spec": {"parentRef": {"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"}}})
    };
    let made = server.post(&addresses, address("255.255.255.255", "broadcast")).await.expect(201);
    server.post(&addresses, address("fe80::42:1dff:fe84:f9e2", "link-local")).await.expect(201);
    let path = format!("{addresses}/255.255.255.255");
    let patched = server.patch(&path, json!({"metadata": {"annotations": {"patched": "true"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(revision(&patched) > revision(&made));
    let mut wanted = server.get(&path).await.expect(200);
    wanted["metadata"]["annotations"]["updated"] = json!("true");
    assert_eq!(server.put(&path, wanted).await.expect(200)["metadata"]["annotations"]["updated"], "true");
    server.get(&path).await.expect(200);
    let broadcast = format!("{addresses}?labelSelector=type%3Dbroadcast");
    let list = server.get(&broadcast).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server.watch(&format!("{broadcast}&watch=1&resourceVersion={revision}")).await;
    server.delete(&path).await.expect(200);
    assert_eq!(watch.brief().await, "DELETED 255.255.255.255");
    let local = format!("{addresses}?labelSelector=type%3Dlink-local");
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", &local).await.expect(200);
    assert_eq!(table["rows"][0]["cells"][1], "myresources.mygroup/foo/bar");
    server.delete(&local).await.expect(200);
    assert_eq!(server.get(&local).await.expect(200)["items"], json!([]));
    for (name, why) in [
        ("1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ("FE80::1", "must be in canonical form (\\\"fe80::1\\\")"),
    ] {
        let answer = server.post(&addresses, address(name, "x")).await.expect_status(422, "Invalid");
        assert!(answer.contains(&why.replace("\\\"", "\"")), "{answer}");
    }
}

#[tokio::test]
async fn the_operations_of_network_policies() {
    let policy = json!({"spec": {"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}});
    crate::operations::Operations::of(GROUP, "networkpolicies").await.exercise(policy, None).await;
}

#[tokio::test]
async fn teams_write_policies_and_claims_of_their_namespace() {
    let server = TestServer::memory().await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    for (user, role) in [("eve", "edit"), ("vic", "view")] {
        let binding = json!({"metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]});
        server.post(bindings, binding).await.expect(201);
    }
    let user = |name: &str| User::new(name, &["system:authenticated"]);
    let claim = json!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}});
    for (collection, spec) in [
        (format!("{GROUP}/namespaces/default/networkpolicies"), json!({})),
        ("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims".to_owned(), claim.clone()),
        ("/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates".to_owned(), json!({"spec": claim})),
    ] {
        let object = json!({"metadata": {"name": "o"}, "spec": spec});
        server.call_as(user("vic"), "POST", &collection, Some(&object)).await.expect_status(403, "Forbidden");
        server.call_as(user("eve"), "POST", &collection, Some(&object)).await.expect(201);
        server.call_as(user("vic"), "GET", &format!("{collection}/o"), None).await.expect(200);
        server.call_as(user("eve"), "DELETE", &format!("{collection}/o"), None).await.expect(200);
    }
    for cluster in ["/apis/resource.k8s.io/v1/deviceclasses", "/apis/storage.k8s.io/v1/csidrivers"] {
        server.call_as(user("eve"), "GET", cluster, None).await.expect_status(403, "Forbidden");
    }
}
