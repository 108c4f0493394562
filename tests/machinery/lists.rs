//! Lists and watches by the letter of their documentation, and the forms in which they are shown.

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn with_maps(count: usize) -> TestServer {
    let server = TestServer::memory().await;
    for n in 0..count {
        server.post(MAPS, config_map(&format!("m{n:03}"), "1")).await.expect(201);
    }
    server
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_as_kubernetes_refuses_them() {
    let server = with_maps(1).await;
    let refused = async |query: &str| server.get(&format!("{MAPS}?{query}")).await.expect_status(422, "Invalid");
    let invalid = |why: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {why}");
    assert_eq!(
        refused("resourceVersionMatch=Exact").await,
        invalid("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
    );
    assert_eq!(
        refused("resourceVersion=0&resourceVersionMatch=Exact").await,
        invalid("resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
    );
    assert_eq!(
        refused("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=1").await,
        invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")
    );
    assert_eq!(
        refused("watch=1&sendInitialEvents=true").await,
        invalid("resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    );
    let both = refused("watch=1&resourceVersionMatch=Exact&resourceVersion=1").await;
    assert!(both.contains("is forbidden for watch unless sendInitialEvents is provided"), "{both}");
    assert!(both.contains("Unsupported value: \"Exact\": supported values: \"NotOlderThan\""), "{both}");
    let other = refused("resourceVersion=1&resourceVersionMatch=Newest").await;
    assert!(other.contains("Unsupported value: \"Newest\""), "{other}");
}

/// "Servers with support for API chunking should return chunks of results for list calls".
#[tokio::test]
async fn chunks_are_of_one_revision_and_count_what_remains() {
    const ALL: usize = 400;
    let server = with_maps(ALL).await;
    for limit in [17, 150] {
        let (mut token, mut seen, mut last) = (String::new(), 0, Value::Null);
        loop {
            let list = server.get(&format!("{MAPS}?limit={limit}&continue={token}")).await.expect(200);
            assert!(names(&list).len() <= limit);
            seen += names(&list).len();
            if last.is_null() {
                last = list["metadata"]["resourceVersion"].clone();
            }
            assert_eq!(list["metadata"]["resourceVersion"], last);
            match list["metadata"]["continue"].as_str() {
                Some(next) => {
                    assert_eq!(list["metadata"]["remainingItemCount"], ALL - seen);
                    token = next.to_owned();
                }
                None => {
                    assert_eq!(list["metadata"].get("remainingItemCount"), None);
                    break;
                }
            }
        }
        assert_eq!(seen, ALL);
    }
    let whole = server.get(MAPS).await.expect(200);
    assert_eq!(names(&whole).len(), ALL);
}

/// "Servers with support for Table transformation should return pod details", "… should return chunks of table results for
/// list calls".
#[tokio::test]
async fn tables_of_pods_and_of_chunks() {
    let server = with_maps(20).await;
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let table = server.get_as(TABLE, "/api/v1/namespaces/default/pods/p").await.expect(200);
    assert_eq!((&table["kind"], &table["columnDefinitions"][0]["name"]), (&json!("Table"), &json!("Name")));
    assert_eq!((table["rows"].as_array().unwrap().len(), &table["rows"][0]["cells"][0]), (1, &json!("p")));
    assert!(table["columnDefinitions"].as_array().unwrap().len() > 2);
    let first = server.get_as(TABLE, &format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!((first["rows"].as_array().unwrap().len(), &first["metadata"]["remainingItemCount"]), (2, &json!(18)));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = server.get_as(TABLE, &format!("{MAPS}?continue={token}")).await.expect(200);
    assert_eq!((rest["rows"].as_array().unwrap().len(), rest["metadata"].get("continue")), (18, None));
    let older = server.get_as("application/json;as=Table;v=v1beta1;g=meta.k8s.io", MAPS).await.expect(200);
    assert_eq!(
        (&older["apiVersion"], &older["rows"][0]["object"]["apiVersion"]),
        (&json!("meta.k8s.io/v1beta1"), &json!("meta.k8s.io/v1beta1"))
    );
    let message = server.get_as(TABLE, &format!("{MAPS}?includeObject=All")).await.expect_status(400, "BadRequest");
    assert!(message.starts_with("Unable to convert to Table as requested"), "{message}");
}

/// "Servers with support for Table transformation should return generic metadata details across all namespaces for nodes".
#[tokio::test]
async fn nodes_have_columns() {
    let server = TestServer::memory().await;
    server.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.expect(201);
    let table = server.get_as(TABLE, "/api/v1/nodes").await.expect(200);
    assert!(table["columnDefinitions"].as_array().unwrap().len() >= 2 && table["metadata"]["resourceVersion"] != "");
    assert_eq!(
        (&table["rows"][0]["cells"][0], &table["rows"][0]["object"]["kind"]),
        (&json!("n"), &json!("PartialObjectMetadata"))
    );
}

/// Every kind is shown as a Table, with a cell for each column.
#[tokio::test]
async fn every_kind_has_a_table() {
    let server = TestServer::memory().await;
    for strategy in server.api.strategies().iter() {
        let kind = strategy.names();
        let path = if kind.group.is_empty() {
            format!("/api/{}/{}", kind.version, kind.plural)
        } else {
            format!("/apis/{}/{}/{}", kind.group, kind.version, kind.plural)
        };
        let table = server.get_as(TABLE, &path).await.expect(200);
        let columns = table["columnDefinitions"].as_array().unwrap();
        assert_eq!(table["kind"], "Table", "{path}");
        // Events alone begin with the time.
        assert!(columns[0]["name"] == "Name" || kind.plural == "events", "{path}");
        for row in table["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), columns.len(), "{path}");
        }
    }
}

/// "Servers with support for Table transformation should return a 406 for a backend which does not implement metadata".
#[tokio::test]
async fn what_has_no_columns_is_not_to_be_had_as_a_table() {
    let server = with_maps(1).await;
    let review = json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}}});
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header(header::ACCEPT, TABLE)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(review.to_string()))
        .unwrap();
    let answer = slipway_tests::Answer::of(server.send(Some(User::admin()), request).await).await;
    let message = answer.expect_status(406, "NotAcceptable");
    assert_eq!(
        message,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    server.get_as(list, &format!("{MAPS}/m000")).await.expect_status(406, "NotAcceptable");
    let one = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    server.get_as(one, MAPS).await.expect_status(406, "NotAcceptable");
    server.get_as("application/json;as=Table;v=v9;g=meta.k8s.io", MAPS).await.expect_status(406, "NotAcceptable");
    server.get_as("text/html", MAPS).await.expect_status(406, "NotAcceptable");
    server.get_as("application/yaml", &format!("{MAPS}?watch=1")).await.expect(406);
    server.get_as(TABLE, "/api/v1").await.expect(406);
}

/// "Watchers should observe add, update, and delete watch notifications on configmaps", "… should be able to start watching
/// from a specific resource version", "… should be able to restart watching from the last resource version observed by the
/// previous watch", "… should observe an object deletion if it stops meeting the requirements of the selector".
#[tokio::test]
async fn watchers_see_what_their_selectors_ask_for() {
    let server = TestServer::memory().await;
    let mut a = server.watch(&format!("{MAPS}?watch=1&labelSelector=w%3Da")).await;
    let mut either = server.watch(&format!("{MAPS}?watch=1&labelSelector=w%20in%20(a,b)")).await;
    let mut map = config_map("one", "0");
    map["metadata"]["labels"] = json!({"w": "a"});
    server.post(MAPS, map).await.expect(201);
    let first = server.patch(&format!("{MAPS}/one"), json!({"data": {"mutation": "1"}})).await.expect(200);
    server.patch(&format!("{MAPS}/one"), json!({"data": {"mutation": "2"}})).await.expect(200);
    server.patch(&format!("{MAPS}/one"), json!({"metadata": {"labels": {"w": "b"}}})).await.expect(200);
    server.patch(&format!("{MAPS}/one"), json!({"metadata": {"labels": {"w": "a"}}})).await.expect(200);
    server.delete(&format!("{MAPS}/one")).await.expect(200);
    let mut seen = vec![];
    for _ in 0..6 {
        seen.push(a.brief().await);
    }
    assert_eq!(seen, ["ADDED one", "MODIFIED one", "MODIFIED one", "DELETED one", "ADDED one", "DELETED one"]);
    let mut seen = vec![];
    for _ in 0..6 {
        seen.push(either.brief().await);
    }
    assert_eq!(seen, ["ADDED one", "MODIFIED one", "MODIFIED one", "MODIFIED one", "MODIFIED one", "DELETED one"]);
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut later = server.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    assert_eq!(later.next().await.unwrap()["object"]["data"]["mutation"], "2");
}

/// "Watchers should receive events on concurrent watches in same order".
#[tokio::test]
async fn all_watches_see_one_order() {
    const CHANGES: usize = 40;
    let server = TestServer::memory().await;
    let start = server.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let first = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    for n in 0..CHANGES / 2 {
        server.post(MAPS, config_map(&format!("m{}", n % 7), "1")).await;
        server.delete(&format!("{MAPS}/m{}", (n * 3) % 7)).await;
    }
    server.post(MAPS, config_map("end", "1")).await.expect(201);
    let second = server.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    let mut orders = vec![];
    for mut watch in [first, second] {
        let mut seen = vec![];
        loop {
            let event = watch.next().await.unwrap();
            seen.push(event["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
            if event["object"]["metadata"]["name"] == "end" {
                break;
            }
        }
        orders.push(seen);
    }
    assert!(orders[0].len() > 10 && orders[0] == orders[1]);
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
