//! A client that moves between two API servers on one Postgres sees what it has written, and what it was shown before.

use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_store::postgres::Postgres;
use slipway_tests::postgres::Cluster;
use slipway_tests::{Answer, TestServer, config_map};
use std::sync::Arc;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Two {
    servers: [TestServer; 2],
    /// Held so that Postgres does not end before them.
    _cluster: Arc<Cluster>,
}

impl Two {
    async fn start() -> Two {
        let cluster = Cluster::shared().await;
        let url = cluster.database().await;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let start = async || {
            let store = Postgres::connect(&url, slipway_store::postgres::Options::default()).await.unwrap();
            TestServer::start(store, Options { service_account_key_pem: Some(key.clone()), ..Options::default() }).await
        };
        Two { servers: [start().await, start().await], _cluster: cluster }
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

/// Each step asks the server that did not do the one before, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_server_has_what_was_written() {
    let two = Two::start().await;
    for round in 0..20 {
        let (one, other) = (&two.servers[round % 2], &two.servers[(round + 1) % 2]);
        let name = format!("m{round}");
        let path = format!("{MAPS}/{name}");
        let made = one.post(MAPS, config_map(&name, "1")).await.expect(201);
        assert_eq!(other.get(&path).await.expect(200), made);
        other.post(MAPS, config_map(&name, "2")).await.expect_status(409, "AlreadyExists");
        let mut wanted = made.clone();
        wanted["data"]["key"] = json!("2");
        let updated = other.put(&path, wanted.clone()).await.expect(200);
        // The first server's own cache may lag behind; what it decides on does not.
        one.put(&path, wanted).await.expect_status(409, "Conflict");
        let patched = one.patch(&path, json!({"data": {"more": "3"}})).await.expect(200);
        assert_eq!(patched["data"], json!({"key": "2", "more": "3"}));
        assert!(revision(&patched) > revision(&updated));
        let list = other.get(&format!("{MAPS}?fieldSelector=metadata.name%3D{name}")).await.expect(200);
        assert_eq!(list["items"], json!([patched]));
        let not_older = other.get(&format!("{path}?resourceVersion={}", revision(&patched))).await.expect(200);
        assert_eq!(not_older, patched);
        let mut watch = other.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&updated))).await;
        assert_eq!(watch.next().await.unwrap(), json!({"type": "MODIFIED", "object": patched}));
        other.delete(&path).await.expect(200);
        one.get(&path).await.expect_status(404, "NotFound");
        assert!(names(&one.get(MAPS).await.expect(200)).is_empty());
    }
}

/// A list that one server began is gone on with by the other, at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_server_goes_on_with_a_list() {
    let two = Two::start().await;
    let [one, other] = &two.servers;
    for n in 0..6 {
        one.post(MAPS, config_map(&format!("m{n}"), "1")).await.expect(201);
    }
    let first = one.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["m0", "m1"]);
    one.delete(&format!("{MAPS}/m2")).await.expect(200);
    other.post(MAPS, config_map("m3a", "1")).await.expect(201);
    one.patch(&format!("{MAPS}/m3"), json!({"data": {"key": "2"}})).await.expect(200);
    other.get(MAPS).await.expect(200);
    let mut list = first.clone();
    let mut seen = vec![];
    for server in [other, one, other] {
        let Some(token) = list["metadata"]["continue"].as_str() else { break };
        list = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
        assert_eq!(revision(&list), revision(&first));
        seen.extend(
            list["items"].as_array().unwrap().iter().map(|item| format!("{}={}", item["metadata"]["name"], item["data"]["key"])),
        );
        let left = list["metadata"]["remainingItemCount"].as_u64();
        assert_eq!(left, list["metadata"]["continue"].as_str().map(|_| 4 - seen.len() as u64));
    }
    assert_eq!(seen, [r#""m2"="1""#, r#""m3"="1""#, r#""m4"="1""#, r#""m5"="1""#]);
    // A server that was not there then has it too, for the store remembers.
    let exact = format!("{MAPS}?resourceVersion={}&resourceVersionMatch=Exact", revision(&first));
    assert_eq!(names(&other.get(&exact).await.expect(200)), ["m0", "m1", "m2", "m3", "m4", "m5"]);
}

/// A watch is gone on with at the other server from where it was: nothing is missed, nothing comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_server_goes_on_with_a_watch() {
    let two = Two::start().await;
    let mut from = revision(&two.servers[0].get(MAPS).await.expect(200)).to_owned();
    for round in 0..20 {
        let (watched, written) = (&two.servers[round % 2], &two.servers[(round + 1) % 2]);
        let mut watch = watched.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
        for name in [format!("a{round:02}"), format!("b{round:02}")] {
            written.post(MAPS, config_map(&name, "1")).await.expect(201);
        }
        let first = watch.next().await.unwrap();
        assert_eq!(first["object"]["metadata"]["name"], format!("a{round:02}"));
        drop(watch);
        let mut again = written.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&first["object"]))).await;
        let second = again.next().await.unwrap();
        assert_eq!(second["object"]["metadata"]["name"], format!("b{round:02}"));
        from = revision(&second["object"]).to_owned();
        let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut whole = watched.watch(&format!("{MAPS}?watch=1&{initial}&resourceVersion={from}")).await;
        for _ in 0..2 * (round + 1) {
            assert_eq!(whole.next().await.unwrap()["type"], "ADDED");
        }
        let end = whole.next().await.unwrap();
        assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert!(revision(&end["object"]) >= from.as_str());
    }
}

/// What decides about requests is looked up afresh when a cache does not have it yet: namespaces, accounts and their tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_server_knows_new_namespaces_and_tokens() {
    let two = Two::start().await;
    for round in 0..10 {
        let (one, other) = (&two.servers[round % 2], &two.servers[(round + 1) % 2]);
        let namespace = format!("n{round}");
        one.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await.expect(201);
        let path = format!("/api/v1/namespaces/{namespace}");
        other.post(&format!("{path}/serviceaccounts"), json!({"metadata": {"name": "robot"}})).await.expect(201);
        let made = one.post(&format!("{path}/serviceaccounts/robot/token"), json!({"spec": {}})).await.expect(201);
        let token = made["status"]["token"].as_str().unwrap();
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body("{}".into())
            .unwrap();
        let review = Answer::of(other.send(None, request).await).await.expect(201);
        assert_eq!(review["status"]["userInfo"]["username"], format!("system:serviceaccount:{namespace}:robot"));
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}});
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        one.post(&format!("{path}/pods"), pod).await.expect(201);
    }
}
