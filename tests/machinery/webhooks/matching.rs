//! Which requests a webhook is asked about.

use super::{DEPLOYMENTS, Hooks, MAPS, MUTATING, VALIDATING, deployment, patch, register, rules, webhook};
use serde_json::json;
use slipway_tests::{TestServer, config_map};

#[tokio::test]
async fn selectors_scopes_and_wildcards_decide() {
    let server = TestServer::memory().await;
    let hooks = Hooks::allowing().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "free", "labels": {"free": "yes"}}})).await.expect(201);
    server.get("/api/v1/namespaces/free").await.expect(200);
    let any =
        |resources: &str| json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resources]}]);
    let mut by_namespace = webhook("namespace.k8s.io.x", hooks.config("/namespace"), any("configmaps"));
    by_namespace["namespaceSelector"] = json!({"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]});
    let mut by_object = webhook("object.k8s.io.x", hooks.config("/object"), any("configmaps"));
    by_object["objectSelector"] = json!({"matchLabels": {"mine": "yes"}});
    let mut cluster = webhook("cluster.k8s.io.x", hooks.config("/cluster"), any("*"));
    cluster["rules"][0]["scope"] = json!("Cluster");
    let status = webhook("status.k8s.io.x", hooks.config("/status"), any("*/status"));
    let scale = webhook("scale.k8s.io.x", hooks.config("/scale"), any("*/scale"));
    let objects = webhook("objects.k8s.io.x", hooks.config("/objects"), rules(&["UPDATE"], "apps", &["*"]));
    register(&server, VALIDATING, "c", vec![by_namespace, by_object, cluster, status, scale, objects]).await;

    server.post(MAPS, config_map("a", "b")).await.expect(201);
    assert_eq!(hooks.paths(), ["/namespace"]);
    server.post("/api/v1/namespaces/free/configmaps", config_map("a", "b")).await.expect(201);
    assert_eq!(hooks.paths(), Vec::<String>::new());
    let mut mine = config_map("mine", "b");
    mine["metadata"]["labels"] = json!({"mine": "yes"});
    server.post("/api/v1/namespaces/free/configmaps", mine).await.expect(201);
    assert_eq!(hooks.paths(), ["/object"]);
    // The label that goes counts as well as the one that comes.
    server.patch("/api/v1/namespaces/free/configmaps/mine", json!({"metadata": {"labels": null}})).await.expect(200);
    assert_eq!(hooks.paths(), ["/object"]);
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "new"}})).await.expect(201);
    assert_eq!(hooks.paths(), ["/cluster"]);
    server.post(DEPLOYMENTS, deployment("web")).await.expect(201);
    assert_eq!(hooks.paths(), Vec::<String>::new());
    server.patch(&format!("{DEPLOYMENTS}/web/status"), json!({"status": {"replicas": 1}})).await.expect(200);
    assert_eq!(hooks.paths(), ["/status"]);
    server.patch(&format!("{DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 2}})).await.expect(200);
    let asked = hooks.take();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (&asked[0].0[..], &asked[0].1["kind"]["kind"], &asked[0].1["object"]["spec"]),
        ("/scale", &json!("Scale"), &json!({"replicas": 2}))
    );
    server.patch(&format!("{DEPLOYMENTS}/web"), json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(hooks.paths(), ["/objects"]);
}

/// A webhook that asked for `v1` of one group is asked about writes to another group that serves the same objects.
#[tokio::test]
async fn equivalent_resources_are_converted() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let note = review["request"]["object"]["message"].clone();
        if note.is_string() {
            patch(json!([{"op": "replace", "path": "/message", "value": "changed"}]))
        } else {
            json!({"allowed": false})
        }
    })
    .await;
    register(
        &server,
        MUTATING,
        "core",
        vec![webhook("core.k8s.io.x", hooks.config("/core"), rules(&["CREATE"], "", &["events"]))],
    )
    .await;
    let mut exact = webhook("exact.k8s.io.x", hooks.config("/exact"), rules(&["CREATE"], "", &["events"]));
    exact["matchPolicy"] = json!("Exact");
    register(&server, VALIDATING, "exact", vec![exact]).await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "note": "as it was",
        "reason": "R", "action": "A", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c.x", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let created = server.post("/apis/events.k8s.io/v1/namespaces/default/events", event).await.expect(201);
    assert_eq!((&created["note"], &created["apiVersion"]), (&json!("changed"), &json!("events.k8s.io/v1")));
    let asked = hooks.take();
    assert_eq!(asked.len(), 1);
    let request = &asked[0].1;
    assert_eq!((&request["kind"]["group"], &request["requestKind"]["group"]), (&json!(""), &json!("events.k8s.io")));
    assert_eq!(request["object"]["apiVersion"], "v1");
}

/// A condition that can't be evaluated refuses what its webhook would have been asked about.
#[tokio::test]
async fn a_condition_that_fails_refuses() {
    let server = TestServer::memory().await;
    let hooks = Hooks::allowing().await;
    let mut hook = webhook("nope.k8s.io.x", hooks.config("/x"), rules(&["CREATE"], "", &["configmaps"]));
    hook["matchConditions"] = json!([{"name": "nope", "expression": "object.nope == 1"}]);
    register(&server, VALIDATING, "nope", vec![hook]).await;
    let message = server.post(MAPS, config_map("c", "b")).await.expect_status(403, "Forbidden");
    assert_eq!(message, "configmaps \"c\" is forbidden: expression 'nope' resulted in error: no such key: nope");
}
