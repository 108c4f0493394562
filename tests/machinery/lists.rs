//! Lists and watches by the letter of their documentation, and the forms in which they are shown.

use axum::body::Body;
use futures::StreamExt;
use http::{Request, header};
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{TestServer, config_map, eventually};
use std::time::Duration;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

pub async fn with_maps(count: usize) -> TestServer {
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

/// How many there are in the tests of pages.
const TEMPLATES: usize = 400;
const TEMPLATES_PATH: &str = "/api/v1/namespaces/default/podtemplates";

async fn make_templates(server: &TestServer) {
    let made = (0..TEMPLATES).map(|n| {
        let template = json!({"metadata": {"name": format!("template-{n:04}")}, "template": {"spec": {"containers": [{"name": "test", "image": "test2"}]}}});
        async move { server.post(TEMPLATES_PATH, template).await.expect(201) }
    });
    futures::stream::iter(made).buffer_unordered(20).collect::<Vec<_>>().await;
}

fn revision(list: &Value) -> i64 {
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Checks a page that begins with template number `found`: it says what remains. Answers with the number of the next.
fn check_page(list: &Value, found: usize) -> usize {
    let names = names(list);
    for (n, name) in names.iter().enumerate() {
        assert_eq!(*name, format!("template-{:04}", found + n));
    }
    let next = found + names.len();
    let remaining = list["metadata"]["continue"].is_string().then(|| TEMPLATES - next);
    assert_eq!(list["metadata"]["remainingItemCount"].as_u64().map(|count| count as usize), remaining);
    next
}

/// Reads from `token` on to the end, in pages of one revision.
async fn read_on(server: &TestServer, mut token: String, mut found: usize, mut limit: impl FnMut() -> usize) {
    let mut of = None;
    loop {
        let limit = limit();
        let list = server.get(&format!("{TEMPLATES_PATH}?limit={limit}&continue={token}")).await.expect(200);
        assert!(names(&list).len() <= limit);
        assert_eq!(revision(&list), *of.get_or_insert(revision(&list)));
        found = check_page(&list, found);
        match list["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, TEMPLATES);
}

/// `[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]`
#[tokio::test]
async fn chunks_are_of_one_revision_and_count_what_remains() {
    let server = TestServer::memory().await;
    make_templates(&server).await;
    for _ in 0..3 {
        read_on(&server, String::new(), 0, || rand::random_range(1..=TEMPLATES / 10)).await;
    }
    let whole = server.get(&format!("{TEMPLATES_PATH}?limit={}", TEMPLATES + 1)).await.expect(200);
    assert_eq!(check_page(&whole, 0), TEMPLATES);
}

/// `[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow] [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_on_inconsistently_when_its_revision_is_forgotten() {
    // Minutes, in a cluster.
    let horizon = Duration::from_millis(800);
    let cluster = slipway_tests::postgres::Cluster::shared().await;
    let options = slipway_store::postgres::Options { horizon, retention_interval: horizon / 4, ..Default::default() };
    let store = slipway_store::postgres::Postgres::connect(&cluster.database().await, options).await.unwrap();
    let cache_limits = slipway_store::cache::Limits { horizon, ..Default::default() };
    let server = TestServer::start(store, slipway_apiserver::Options { cache_limits, ..Default::default() }).await;
    make_templates(&server).await;
    let tenth = TEMPLATES / 10;
    let first = server.get(&format!("{TEMPLATES_PATH}?limit={tenth}")).await.expect(200);
    let found = check_page(&first, 0);
    let second = format!("{TEMPLATES_PATH}?limit={tenth}&continue={}", first["metadata"]["continue"].as_str().unwrap());
    check_page(&server.get(&second).await.expect(200), found);
    let expired = eventually("the token to expire", async || {
        // The newest revision is never forgotten, so others must be written.
        server.post(MAPS, json!({"metadata": {"generateName": "m-"}})).await.expect(201);
        let answer = server.get(&second).await;
        (answer.code != 200).then_some(answer)
    })
    .await;
    let token = expired.body["metadata"]["continue"].as_str().expect("another token").to_owned();
    let message = expired.expect_status(410, "Expired");
    assert!(message.starts_with("The provided continue parameter is too old to display a consistent list result."), "{message}");

    let list = server.get(&format!("{TEMPLATES_PATH}?limit={tenth}&continue={token}")).await.expect(200);
    assert_ne!(revision(&list), revision(&first));
    assert_eq!(names(&list).len(), tenth);
    let found = check_page(&list, found);
    let token = list["metadata"]["continue"].as_str().unwrap().to_owned();
    read_on(&server, token, found, || tenth).await;
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

/// `[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]`
#[tokio::test]
async fn what_has_no_columns_is_not_to_be_had_as_a_table() {
    let server = with_maps(1).await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
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
