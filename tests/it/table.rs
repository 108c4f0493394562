//! Tables and partial metadata, as kubectl and the garbage collector ask for them.

use serde_json::{Value, json};
use slipway_tests::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

fn names(table: &Value) -> Vec<&str> {
    table["rows"].as_array().unwrap().iter().map(|row| row["cells"][0].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_list_and_an_object_are_shown_as_rows() {
    let server = TestServer::memory().await;
    for name in ["a", "b"] {
        server.post(MAPS, config_map(name, "1")).await.expect(201);
    }
    let table = server.get_as(TABLE, MAPS).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(names(&table), ["a", "b"]);
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["resourceVersion"].as_str().is_some_and(|version| version != "0"));

    let page = server.get_as(TABLE, &format!("{MAPS}?limit=1")).await.expect(200);
    assert_eq!(names(&page), ["a"]);
    let rest = page["metadata"]["continue"].as_str().unwrap();
    let rest = server.get_as(TABLE, &format!("{MAPS}?limit=1&continue={rest}")).await.expect(200);
    assert_eq!(names(&rest), ["b"]);

    let one = server.get_as(TABLE, &format!("{MAPS}/a?includeObject=Object")).await.expect(200);
    assert_eq!(one["rows"][0]["object"]["data"]["key"], "1");
    let bare = server.get_as(TABLE, &format!("{MAPS}/a?includeObject=None")).await.expect(200);
    assert_eq!(bare["rows"][0].get("object").filter(|object| !object.is_null()), None);
}

#[tokio::test]
async fn watch_events_are_rows_and_only_the_first_has_columns() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let mut watch = server.watch_with(TABLE, &format!("{MAPS}?watch=1")).await;
    let first = watch.next().await.unwrap();
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert!(first["object"]["columnDefinitions"].is_array());
    server.post(MAPS, config_map("b", "1")).await.expect(201);
    let second = watch.next().await.unwrap();
    assert_eq!(names(&second["object"]), ["b"]);
    assert!(second["object"]["columnDefinitions"].as_array().is_none_or(Vec::is_empty));
}

#[tokio::test]
async fn metadata_can_be_had_alone() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let one = server.get_as(PARTIAL, &format!("{MAPS}/a")).await.expect(200);
    assert_eq!((&one["kind"], &one["metadata"]["name"], one.get("data")), (&json!("PartialObjectMetadata"), &json!("a"), None));
    let list = server.get_as(PARTIAL_LIST, MAPS).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!((&list["items"][0]["metadata"]["name"], list["items"][0].get("data")), (&json!("a"), None));
}
