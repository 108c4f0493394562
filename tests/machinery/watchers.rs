//! Watches as the conformance suite follows them, and streaming lists.

use crate::lists::with_maps;
use rand::RngExt;
use serde_json::{Value, json};
use slipway_tests::{TestServer, Watch, config_map};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn labelled(name: &str, label: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"watch-this-configmap": label}}})
}

/// Watches the ConfigMaps with one of the labels, from `version` on if there is one.
async fn watch(server: &TestServer, version: Option<&Value>, labels: &str) -> Watch {
    let version = version.map_or_else(String::new, |object| {
        format!("&resourceVersion={}", object["metadata"]["resourceVersion"].as_str().unwrap())
    });
    server.watch(&format!("{MAPS}?watch=1&labelSelector=watch-this-configmap%20in%20({labels}){version}")).await
}

/// The next event is this.
async fn sees(watch: &mut Watch, type_: &str, object: &Value) {
    assert_eq!(watch.next().await.expect("the watch goes on"), json!({"type": type_, "object": object}));
}

async fn mutate(server: &TestServer, name: &str, mutation: &str) -> Value {
    server.patch(&format!("{MAPS}/{name}"), json!({"data": {"mutation": mutation}})).await.expect(200)
}

async fn relabel(server: &TestServer, name: &str, label: &str) -> Value {
    let labels = json!({"metadata": {"labels": {"watch-this-configmap": label}}});
    server.patch(&format!("{MAPS}/{name}"), labels).await.expect(200)
}

/// `[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]`
#[tokio::test]
async fn watchers_see_what_their_selectors_ask_for() {
    let server = TestServer::memory().await;
    let (mut a, mut b, mut either) =
        (watch(&server, None, "A").await, watch(&server, None, "B").await, watch(&server, None, "A,B").await);
    // What comes to the one and not to the other is seen by what the other gets next.
    let map = server.post(MAPS, labelled("a", "A")).await.expect(201);
    for watch in [&mut a, &mut either] {
        sees(watch, "ADDED", &map).await;
    }
    for mutation in ["1", "2"] {
        let map = mutate(&server, "a", mutation).await;
        for watch in [&mut a, &mut either] {
            sees(watch, "MODIFIED", &map).await;
        }
    }
    server.delete(&format!("{MAPS}/a")).await.expect(200);
    for watch in [&mut a, &mut either] {
        assert_eq!(watch.brief().await, "DELETED a");
    }
    let map = server.post(MAPS, labelled("b", "B")).await.expect(201);
    server.delete(&format!("{MAPS}/b")).await.expect(200);
    for watch in [&mut b, &mut either] {
        sees(watch, "ADDED", &map).await;
        assert_eq!(watch.brief().await, "DELETED b");
    }
    let last = server.post(MAPS, labelled("last", "A")).await.expect(201);
    sees(&mut a, "ADDED", &last).await;
    let moved = relabel(&server, "last", "B").await;
    sees(&mut b, "ADDED", &moved).await;
}

/// `[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]`
#[tokio::test]
async fn a_watch_begins_where_it_is_told_to() {
    let server = TestServer::memory().await;
    server.post(MAPS, labelled("m", "from")).await.expect(201);
    let first = mutate(&server, "m", "1").await;
    let second = mutate(&server, "m", "2").await;
    server.delete(&format!("{MAPS}/m")).await.expect(200);
    let mut watch = watch(&server, Some(&first), "from").await;
    sees(&mut watch, "MODIFIED", &second).await;
    assert_eq!(watch.brief().await, "DELETED m");
}

/// `[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]`
#[tokio::test]
async fn a_watch_goes_on_where_another_ended() {
    let server = TestServer::memory().await;
    let mut broken = watch(&server, None, "restarted").await;
    let map = server.post(MAPS, labelled("m", "restarted")).await.expect(201);
    mutate(&server, "m", "1").await;
    sees(&mut broken, "ADDED", &map).await;
    let last = broken.next().await.unwrap();
    assert_eq!(last["type"], "MODIFIED");
    drop(broken);
    let second = mutate(&server, "m", "2").await;
    let mut restarted = watch(&server, Some(&last["object"]), "restarted").await;
    server.delete(&format!("{MAPS}/m")).await.expect(200);
    sees(&mut restarted, "MODIFIED", &second).await;
    assert_eq!(restarted.brief().await, "DELETED m");
}

/// `[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]`
#[tokio::test]
async fn what_is_not_selected_any_more_is_deleted_for_the_watcher() {
    let server = TestServer::memory().await;
    let mut watch = watch(&server, None, "changed").await;
    let map = server.post(MAPS, labelled("m", "changed")).await.expect(201);
    let first = mutate(&server, "m", "1").await;
    relabel(&server, "m", "wrong-value").await;
    sees(&mut watch, "ADDED", &map).await;
    sees(&mut watch, "MODIFIED", &first).await;
    assert_eq!(watch.brief().await, "DELETED m");
    mutate(&server, "m", "2").await;
    let restored = relabel(&server, "m", "changed").await;
    let third = mutate(&server, "m", "3").await;
    server.delete(&format!("{MAPS}/m")).await.expect(200);
    sees(&mut watch, "ADDED", &restored).await;
    sees(&mut watch, "MODIFIED", &third).await;
    assert_eq!(watch.brief().await, "DELETED m");
}

/// Makes, changes and deletes ConfigMaps at random until it is told to stop.
async fn produce(server: Arc<TestServer>, stop: Arc<AtomicBool>) {
    let (mut made, mut existing) = (0, vec![]);
    while !stop.load(Ordering::Relaxed) {
        let (choice, at) = (rand::rng().random_range(0..3), rand::rng().random_range(0..existing.len().max(1)));
        match choice {
            1 if !existing.is_empty() => {
                let value = rand::rng().random_range(0..1_000_000).to_string();
                let path = format!("{MAPS}/cm-{}", existing[at]);
                server.put(&path, config_map(&format!("cm-{}", existing[at]), &value)).await.expect(200);
            }
            2 if !existing.is_empty() => {
                server.delete(&format!("{MAPS}/cm-{}", existing.remove(at))).await.expect(200);
            }
            _ => {
                server.post(MAPS, config_map(&format!("cm-{made}"), "1")).await.expect(201);
                existing.push(made);
                made += 1;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// `[sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watches_see_one_order() {
    const ITERATIONS: usize = 100;
    let server = Arc::new(TestServer::memory().await);
    let list = server.get(MAPS).await.expect(200);
    let mut version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let stop = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(server.clone(), stop.clone()));
    let mut watches: Vec<Watch> = vec![];
    for _ in 0..ITERATIONS {
        watches.push(server.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await);
        let mut seen = vec![];
        for watch in &mut watches {
            let event = watch.next().await.expect("the watch goes on");
            assert_eq!(event["object"]["kind"], "ConfigMap");
            seen.push(event["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
        }
        version = seen[0].clone();
        assert!(seen.iter().all(|other| *other == version), "{seen:?}");
    }
    stop.store(true, Ordering::Relaxed);
    producer.await.unwrap();
}

/// A streaming list: what exists, a bookmark that says so, then what happens.
#[tokio::test]
async fn a_streaming_list_ends_with_a_bookmark() {
    let server = with_maps(3).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    for version in ["", "&resourceVersion=0", "&resourceVersion=1"] {
        let mut watch = server.watch(&format!("{MAPS}?{query}{version}")).await;
        let seen = [watch.brief().await, watch.brief().await, watch.brief().await];
        assert_eq!(seen, ["ADDED m000", "ADDED m001", "ADDED m002"], "{version}");
        let bookmark = watch.next().await.unwrap();
        assert_eq!(
            (&bookmark["type"], &bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"]),
            (&json!("BOOKMARK"), &json!("true"))
        );
        // From there on a watch goes on without a gap.
        let version = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap();
        let mut after = server.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
        server.patch(&format!("{MAPS}/m001"), json!({"data": {"again": version}})).await.expect(200);
        server.patch(&format!("{MAPS}/m001"), json!({"data": {"again": "x"}})).await.expect(200);
        assert_eq!((watch.brief().await, after.brief().await), ("MODIFIED m001".to_owned(), "MODIFIED m001".to_owned()));
    }
    let mut without = server.watch(&format!("{MAPS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")).await;
    server.post(MAPS, config_map("new", "1")).await.expect(201);
    assert_eq!(without.brief().await, "ADDED new");
}
