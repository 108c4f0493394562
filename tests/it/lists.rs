//! Lists: selectors, pages, revisions, forms.

use serde_json::{Value, json};
use slipway_tests::{TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn with_maps(count: usize) -> TestServer {
    let server = super::server().await;
    for n in 0..count {
        let mut map = config_map(&format!("m{n:02}"), "1");
        map["metadata"]["labels"] = json!({"parity": if n % 2 == 0 { "even" } else { "odd" }});
        server.post(MAPS, map).await.expect(201);
    }
    server
}

/// Bytes that no serialiser would write come out of a get, a list and a watch as they are in the store.
#[tokio::test]
async fn stored_bytes_are_sent_as_they_are() {
    let server = with_maps(1).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1")).await;
    let odd = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"namespace" : "default","name":"odd"},  "data":{"b":"\u0041", "a":"1" }}"#;
    let write = slipway_store::Write {
        key: "/core/configmaps/default/odd".into(),
        expect: slipway_store::Expect::Absent,
        change: slipway_store::Change::Put(odd.into()),
    };
    let revision = server.api.store.write(write).await.unwrap();
    let sent = odd.replace("\"metadata\":{", &format!("\"metadata\":{{\"resourceVersion\":\"{revision}\","));
    let text = async |path: &str| String::from_utf8(server.bytes(path).await.to_vec()).unwrap();
    assert_eq!(text(&format!("{MAPS}/odd")).await.trim_end(), sent);
    assert!(text(MAPS).await.contains(&format!(",{sent}]}}")), "the list has other bytes");
    assert!(text("/api/v1/configmaps?labelSelector=!parity&limit=5").await.contains(&sent), "the filtered list has other bytes");
    let event = format!("\"object\":{sent}}}\n");
    while !watch.next_line().await.ends_with(&event) {}
}

#[tokio::test]
async fn a_list_has_the_objects_in_order_and_a_revision() {
    let server = with_maps(3).await;
    let list = server.get(MAPS).await.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(names(&list), ["m00", "m01", "m02"]);
    let last = &list["items"][2];
    assert_eq!(list["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
    assert_eq!(*last, server.get(&format!("{MAPS}/m02")).await.expect(200));
    let everywhere = server.get("/api/v1/configmaps").await.expect(200);
    assert_eq!(names(&everywhere), ["m00", "m01", "m02"]);
    let elsewhere = server.get("/api/v1/namespaces/kube-system/configmaps").await.expect(200);
    assert_eq!(elsewhere["items"], json!([]));
}

#[tokio::test]
async fn selectors_filter() {
    let server = with_maps(4).await;
    let list = server.get(&format!("{MAPS}?labelSelector=parity%3Dodd")).await.expect(200);
    assert_eq!(names(&list), ["m01", "m03"]);
    let list = server.get(&format!("{MAPS}?labelSelector=parity%20in%20(even),other!%3Dx")).await.expect(200);
    assert_eq!(names(&list), ["m00", "m02"]);
    let list = server.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm02")).await.expect(200);
    assert_eq!(names(&list), ["m02"]);
    let list = server.get("/api/v1/configmaps?fieldSelector=metadata.namespace!%3Ddefault").await.expect(200);
    assert_eq!(names(&list), Vec::<&str>::new());
    server.get(&format!("{MAPS}?labelSelector=a%20in")).await.expect_status(400, "BadRequest");
    server.get(&format!("{MAPS}?fieldSelector=data.key%3Dx")).await.expect_status(400, "BadRequest");
}

#[tokio::test]
async fn pages_show_one_moment() {
    let server = with_maps(5).await;
    let first = server.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["m00", "m01"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens between the pages is not seen.
    server.delete(&format!("{MAPS}/m02")).await.expect(200);
    server.post(MAPS, config_map("m05", "1")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m02", "m03"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["m04"]);
    assert_eq!(third["metadata"].get("continue"), None);
    let filtered = server.get(&format!("{MAPS}?limit=1&labelSelector=parity%3Deven")).await.expect(200);
    assert_eq!((names(&filtered), filtered["metadata"].get("remainingItemCount")), (vec!["m00"], None));
    server.get(&format!("{MAPS}?continue=nonsense")).await.expect_status(400, "BadRequest");
}

#[tokio::test]
async fn a_list_at_a_revision() {
    let server = with_maps(2).await;
    let list = server.get(MAPS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.post(MAPS, config_map("new", "1")).await.expect(201);
    let exact = server.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!((names(&exact), exact["metadata"]["resourceVersion"].as_str()), (vec!["m00", "m01"], Some(version.as_str())));
    let newer = server.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan")).await.expect(200);
    assert!(names(&newer).starts_with(&["m00", "m01"]));
    let future = server.get(&format!("{MAPS}?resourceVersion=1000000&resourceVersionMatch=Exact")).await;
    let message = future.expect_status(504, "Timeout");
    assert!(message.starts_with("Timeout: Too large resource version: 1000000, current: "), "{message}");
    assert!(server.get(&format!("{MAPS}?resourceVersion=0")).await.expect(200)["items"].is_array());
    server.get(&format!("{MAPS}?resourceVersion=x")).await.expect_status(422, "Invalid");
}

#[tokio::test]
async fn a_forgotten_page_can_be_gone_on_with_inconsistently() {
    let options = slipway_apiserver::Options {
        cache_limits: slipway_store::cache::Limits { horizon: std::time::Duration::ZERO, ..Default::default() },
        ..Default::default()
    };
    let server = TestServer::start(slipway_store::memory::Memory::new(), options).await;
    for name in ["a", "b", "c"] {
        server.post(MAPS, config_map(name, "1")).await.expect(201);
    }
    let first = server.get(&format!("{MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    server.post(MAPS, config_map("d", "1")).await.expect(201);
    // So that the cache has seen it: what is current counts as pinned.
    let newest = server.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    server.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    server.api.store.compact(newest).await.unwrap();
    let expired = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    let token = expired.body["metadata"]["continue"].as_str().unwrap().to_owned();
    let message = expired.expect_status(410, "Expired");
    assert!(message.starts_with("The provided continue parameter is too old to display a consistent list result."), "{message}");
    let rest = server.get(&format!("{MAPS}?continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["b", "c", "d"]);
}

#[tokio::test]
async fn a_list_in_other_forms() {
    let server = with_maps(2).await;
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", MAPS).await.expect(200);
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][1]["cells"][0], "m01");
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let partial = server.get_as("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", MAPS).await.expect(200);
    assert_eq!((&partial["kind"], names(&partial)), (&json!("PartialObjectMetadataList"), vec!["m00", "m01"]));
}

#[tokio::test]
async fn a_long_list_comes_whole() {
    let server = super::server().await;
    let value = "x".repeat(20_000);
    for n in 0..40 {
        server.post(MAPS, config_map(&format!("m{n:02}"), &value)).await.expect(201);
    }
    let list = server.get(MAPS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
    assert!(list["items"].as_array().unwrap().iter().all(|item| item["data"]["key"] == value.as_str()));
}
