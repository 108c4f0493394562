//! Who may name an owner, where that is enforced.

use serde_json::json;
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_store::memory::Memory;
use slipway_tests::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn naming_an_owner_needs_rights() {
    let options = Options { owner_references_permission_enforcement: true, ..Options::default() };
    let server = TestServer::start(Memory::new(), options).await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "writer"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch", "update"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "writer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "writer"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await.expect(201);
    server.api.cache.fresh().await.unwrap();
    let writer = || User::new("writer", &["system:authenticated"]);
    let map = |name: &str, blocks: bool| {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1", "blockOwnerDeletion": blocks});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [owner]}})
    };
    let made = server.call_as(writer(), "POST", MAPS, Some(&map("a", false))).await.expect(201);
    let message = server.call_as(writer(), "POST", MAPS, Some(&map("b", true))).await.expect_status(403, "Forbidden");
    let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
    assert!(message.starts_with(&format!("configmaps \"b\" is forbidden: {why}: ")), "{message}");
    let free = json!({"metadata": {"ownerReferences": null}});
    let path = format!("{MAPS}/a");
    let message = server.call_as(writer(), "PATCH", &path, Some(&free)).await.expect_status(403, "Forbidden");
    assert!(
        message.starts_with("configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: "),
        "{message}"
    );
    let labelled = json!({"metadata": {"labels": {"a": "b"}, "ownerReferences": made["metadata"]["ownerReferences"]}});
    server.call_as(writer(), "PATCH", &path, Some(&labelled)).await.expect(200);
    server.patch(&path, free).await.expect(200);
}
