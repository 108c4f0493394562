//! What `resourceVersion` and `resourceVersionMatch` mean for get, list and watch, as Kubernetes documents them.

use serde_json::{Value, json};
use slipway_tests::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn revision(object: &Value) -> i64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// `a`, then `b`, then `a` deleted; with the revisions after each.
async fn history() -> (TestServer, [i64; 3]) {
    let server = TestServer::memory().await;
    let first = revision(&server.post(MAPS, config_map("a", "1")).await.expect(201));
    let second = revision(&server.post(MAPS, config_map("b", "1")).await.expect(201));
    server.delete(&format!("{MAPS}/a")).await.expect(200);
    let third = revision(&server.get(MAPS).await.expect(200));
    (server, [first, second, third])
}

#[tokio::test]
async fn a_list_is_of_the_moment_that_is_asked_for() {
    let (server, [first, second, third]) = history().await;
    let list = async |query: &str| server.get(&format!("{MAPS}?{query}")).await.expect(200);
    let at = |revision: i64, matching: &str| format!("resourceVersion={revision}&resourceVersionMatch={matching}");
    // Most recent, any, and not older than.
    for query in ["", "resourceVersion=", "limit=5", "resourceVersion=0", "resourceVersion=0&limit=5"] {
        let list = list(query).await;
        assert_eq!((names(&list), revision(&list)), (vec!["b"], third), "{query}");
    }
    for version in [first, second, third] {
        for query in [format!("resourceVersion={version}"), at(version, "NotOlderThan"), at(version, "NotOlderThan") + "&limit=5"]
        {
            let list = list(&query).await;
            assert_eq!((names(&list), revision(&list)), (vec!["b"], third), "{query}");
        }
    }
    assert_eq!(names(&list("resourceVersion=0&resourceVersionMatch=NotOlderThan").await), ["b"]);
    // Exactly; and with a limit and no match, exactly too.
    for (version, wanted) in [(first, vec!["a"]), (second, vec!["a", "b"]), (third, vec!["b"])] {
        for query in [at(version, "Exact"), at(version, "Exact") + "&limit=5", format!("resourceVersion={version}&limit=5")] {
            let list = list(&query).await;
            assert_eq!((names(&list), revision(&list)), (wanted.clone(), version), "{query}");
        }
    }
}

/// A list that reads the past keeps it for its next pages, and for nothing else.
#[tokio::test]
async fn the_past_of_one_kind_is_not_taken_for_that_of_another() {
    let (server, [_, second, _]) = history().await;
    server.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await.expect(201);
    let both = revision(&server.get(MAPS).await.expect(200));
    server.post(MAPS, config_map("later", "1")).await.expect(201);
    server.get(MAPS).await.expect(200);
    let exact = |path: &str, version: i64| format!("{path}?resourceVersion={version}&resourceVersionMatch=Exact");
    let page = server.get(&format!("{}&limit=1", exact(MAPS, second))).await.expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&server.get(&format!("{MAPS}?continue={token}")).await.expect(200)), ["b"]);
    server.post(MAPS, config_map("c", "1")).await.expect(201);
    let page = server.get(&format!("{}&limit=1", exact(MAPS, both))).await.expect(200);
    assert_eq!(names(&page), ["b"]);
    server.get(&format!("{}&limit=1", exact("/api/v1/namespaces/kube-system/configmaps", both))).await.expect(200);
    let secrets = server.get(&exact("/api/v1/secrets", both)).await.expect(200);
    assert_eq!(names(&secrets), ["s"]);
    let namespaces = server.get(&exact("/api/v1/namespaces", both)).await.expect(200);
    assert!(names(&namespaces).contains(&"default"));
}

#[tokio::test]
async fn a_get_is_not_older_than_asked_for() {
    let (server, [first, ..]) = history().await;
    server.patch(&format!("{MAPS}/b"), json!({"data": {"key": "2"}})).await.expect(200);
    for query in ["".to_owned(), "?resourceVersion=".into(), "?resourceVersion=0".into(), format!("?resourceVersion={first}")] {
        assert_eq!(server.get(&format!("{MAPS}/b{query}")).await.expect(200)["data"]["key"], "2", "{query}");
        server.get(&format!("{MAPS}/a{query}")).await.expect_status(404, "NotFound");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_written_yet_is_waited_for_and_then_refused() {
    let (server, [.., third]) = history().await;
    let future = third + 1000;
    for path in [
        format!("{MAPS}/b?resourceVersion={future}"),
        format!("{MAPS}?resourceVersion={future}"),
        format!("{MAPS}?resourceVersion={future}&resourceVersionMatch=NotOlderThan"),
        format!("{MAPS}?resourceVersion={future}&resourceVersionMatch=Exact"),
    ] {
        let answer = server.get(&path).await;
        let details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
        assert_eq!(answer.body["details"], details, "{path}");
        let message = answer.expect_status(504, "Timeout");
        assert_eq!(message, format!("Timeout: Too large resource version: {future}, current: {third}"));
    }
    // A watch begins there, if it does not ask for what exists.
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={}", third + 1)).await;
    server.post(MAPS, config_map("seen-already", "1")).await.expect(201);
    server.post(MAPS, config_map("new", "1")).await.expect(201);
    let event = watch.next_unhurried().await.unwrap();
    assert_eq!(event["object"]["metadata"]["name"], "new");
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{MAPS}?watch=1&{initial}&resourceVersion={future}")).await;
    let event = watch.next_unhurried().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(504)));
}

#[tokio::test]
async fn what_is_forgotten_is_refused_as_expired() {
    let (server, [first, second, third]) = history().await;
    server.api.store.compact(second).await.unwrap();
    let message = server.get(&format!("{MAPS}?resourceVersion={first}&resourceVersionMatch=Exact")).await;
    assert_eq!(message.expect_status(410, "Expired"), "The resourceVersion for the provided list is too old.");
    server.get(&format!("{MAPS}?resourceVersion={second}&resourceVersionMatch=Exact")).await.expect(200);
    // It need not be remembered for what may be newer.
    let newer = server.get(&format!("{MAPS}?resourceVersion={first}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert_eq!(revision(&newer), third);
}

#[tokio::test]
async fn a_token_has_its_own_version() {
    let (server, [_, second, _]) = history().await;
    let page = server.get(&format!("{MAPS}?resourceVersion={second}&limit=1")).await.expect(200);
    assert_eq!((names(&page), revision(&page)), (vec!["a"], second));
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = server.get(&format!("{MAPS}?continue={token}&resourceVersion=0")).await.expect(200);
    assert_eq!((names(&rest), revision(&rest)), (vec!["b"], second));
    let answer = server.get(&format!("{MAPS}?continue={token}&resourceVersion={second}")).await;
    assert_eq!(answer.expect_status(400, "BadRequest"), "specifying resource version is not allowed when using continue");
    let both = server.get(&format!("{MAPS}?continue={token}&resourceVersion=0&resourceVersionMatch=NotOlderThan")).await;
    let message = both.expect_status(422, "Invalid");
    assert!(message.contains("resourceVersionMatch is forbidden when continue is provided"), "{message}");
}

/// A bookmark has the version of everything that was written meanwhile, and a watch goes on from there.
#[tokio::test(start_paused = true)]
async fn a_bookmark_goes_ahead_of_what_concerns_the_watch() {
    let (server, [.., third]) = history().await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={third}")).await;
    for n in 0..3 {
        let elsewhere = json!({"metadata": {"name": format!("s{n}")}});
        server.post("/api/v1/namespaces/kube-system/secrets", elsewhere).await.expect(201);
    }
    let bookmark = watch.next_unhurried().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(revision(&bookmark["object"]) >= third + 3, "{bookmark}");
    assert_eq!((&bookmark["object"]["kind"], &bookmark["object"]["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(bookmark["object"]["metadata"].get("annotations"), None);
    let made = server.post(MAPS, config_map("next", "1")).await.expect(201);
    let from = revision(&bookmark["object"]);
    let mut again = server.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    assert_eq!(again.next_unhurried().await.unwrap(), json!({"type": "ADDED", "object": made}));
}
