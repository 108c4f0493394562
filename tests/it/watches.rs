//! Watches: what comes, in which order, and how they end.

use serde_json::json;
use slipway_tests::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn version(server: &TestServer) -> String {
    server.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn changes_come_in_order_after_the_revision() {
    let server = super::server().await;
    server.post(MAPS, config_map("before", "1")).await.expect(201);
    let start = version(&server).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    server.patch(&format!("{MAPS}/a"), json!({"data": {"key": "2"}})).await.expect(200);
    server.post("/api/v1/namespaces/kube-system/configmaps", config_map("other", "1")).await.expect(201);
    server.delete(&format!("{MAPS}/a")).await.expect(200);
    let added = watch.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["data"]["key"]), (&json!("ADDED"), &json!("1")));
    let modified = watch.next().await.unwrap();
    assert_eq!((&modified["type"], &modified["object"]["data"]["key"]), (&json!("MODIFIED"), &json!("2")));
    let deleted = watch.next().await.unwrap();
    assert_eq!((&deleted["type"], &deleted["object"]["data"]["key"]), (&json!("DELETED"), &json!("2")));
    let number =
        |event: &serde_json::Value| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<i64>().unwrap();
    assert!(number(&added) < number(&modified) && number(&modified) + 1 < number(&deleted));
    // A watch that comes later is told the same.
    let mut again = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    assert_eq!(
        [again.next().await.unwrap(), again.next().await.unwrap(), again.next().await.unwrap()],
        [added, modified, deleted]
    );
}

#[tokio::test]
async fn without_a_revision_what_exists_comes_first() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    server.post(MAPS, config_map("b", "1")).await.expect(201);
    let mut watch = server.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!([watch.brief().await, watch.brief().await], ["ADDED a", "ADDED b"]);
    server.post(MAPS, config_map("c", "1")).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED c");
}

#[tokio::test]
async fn the_end_of_the_initial_events_is_told() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let metadata = &bookmark["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(metadata["resourceVersion"], version(&server).await);
    server.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.expect_status(422, "Invalid");
}

#[tokio::test]
async fn a_selector_adds_and_deletes() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let start = version(&server).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}&labelSelector=on%3Dyes")).await;
    let label =
        async |value: &str| server.patch(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"on": value}}})).await.expect(200);
    label("yes").await;
    server.patch(&format!("{MAPS}/a"), json!({"data": {"key": "2"}})).await.expect(200);
    let last = label("no").await;
    label("yes").await;
    server.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!([watch.brief().await, watch.brief().await], ["ADDED a", "MODIFIED a"]);
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    // As it last matched, at the revision at which it ceased to.
    assert_eq!(deleted["object"]["metadata"]["labels"]["on"], "yes");
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
    assert_eq!([watch.brief().await, watch.brief().await], ["ADDED a", "DELETED a"]);
}

#[tokio::test]
async fn one_object_can_be_watched() {
    let server = super::server().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    server.post(MAPS, config_map("b", "1")).await.expect(201);
    server.post(MAPS, config_map("bb", "1")).await.expect(201);
    server.delete(&format!("{MAPS}/b")).await.expect(200);
    assert_eq!([watch.brief().await, watch.brief().await], ["ADDED b", "DELETED b"]);
}

#[tokio::test]
async fn a_forgotten_revision_is_an_error_event() {
    let options = slipway_apiserver::Options {
        cache_limits: slipway_store::cache::Limits { ring_events_max: 2, ..Default::default() },
        ..Default::default()
    };
    let server = TestServer::start(slipway_store::memory::Memory::new(), options).await;
    let start = version(&server).await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(MAPS, config_map(name, "1")).await.expect(201);
    }
    version(&server).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: "), "{event}");
    assert_eq!(watch.brief().await, "END");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_and_the_end_come_in_time() {
    let server = TestServer::memory().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=90")).await;
    let mut types = vec![];
    // A paused clock jumps ahead when all wait, so patience is not needed here.
    while let Some(event) = watch.next_unhurried().await {
        types.push(event["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(types, ["BOOKMARK", "BOOKMARK"]);
}

#[tokio::test]
async fn a_table_watch_tells_the_columns_once() {
    let server = super::server().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut watch = server.watch_with(accept, &format!("{MAPS}?watch=1")).await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    server.post(MAPS, config_map("b", "1")).await.expect(201);
    let (first, second) = (watch.next().await.unwrap(), watch.next().await.unwrap());
    assert_eq!((&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(first["object"]["columnDefinitions"].is_array() && second["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn closing_the_server_ends_its_watches() {
    let server = super::server().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1")).await;
    server.api.close();
    assert_eq!(watch.brief().await, "END");
}

#[tokio::test]
async fn a_kube_client_watches_in_process() {
    use futures::StreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{WatchStreamExt, watcher};
    let server = super::server().await;
    let api: kube::Api<ConfigMap> = kube::Api::namespaced(server.client(), "default");
    let mut seen = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
    let map =
        ConfigMap { metadata: kube::api::ObjectMeta { name: Some("a".into()), ..Default::default() }, ..Default::default() };
    api.create(&Default::default(), &map).await.unwrap();
    let first = tokio::time::timeout(slipway_tests::PATIENCE, seen.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.metadata.name.as_deref(), Some("a"));
}
