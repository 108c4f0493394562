//! Ways of changing an object.

use serde_json::json;
use slipway_tests::{TestServer, config_map};

#[tokio::test]
async fn a_patch_that_changes_nothing_writes_nothing() {
    let server = TestServer::memory().await;
    let created = server.post("/api/v1/namespaces/default/configmaps", config_map("m", "1")).await.expect(201);
    let patched = server.patch("/api/v1/namespaces/default/configmaps/m", json!({"data": created["data"]})).await.expect(200);
    assert_eq!(patched["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
}
