//! Protocol buffers, as Go clients prefer them.

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::http::protobuf::decode;
use slipway_tests::{PATIENCE, TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const GO: &str = "application/vnd.kubernetes.protobuf,application/json";

struct Answer {
    code: u16,
    content_type: String,
    body: Bytes,
}

impl Answer {
    fn object(&self) -> Value {
        assert_eq!(self.content_type, PROTOBUF, "{}", String::from_utf8_lossy(&self.body));
        decode(&self.body).unwrap()
    }
}

async fn send(server: &TestServer, method: &str, path: &str, accept: &str, body: Option<(&str, Bytes)>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
    let mut sent = Body::empty();
    if let Some((content_type, bytes)) = body {
        request = request.header(header::CONTENT_TYPE, content_type);
        sent = Body::from(bytes);
    }
    let response = server.send(Some(User::admin()), request.body(sent).unwrap()).await;
    let content_type = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let code = response.status().as_u16();
    Answer { code, content_type, body: response.into_body().collect().await.unwrap().to_bytes() }
}

async fn get(server: &TestServer, path: &str) -> Answer {
    send(server, "GET", path, GO, None).await
}

/// What the list and the object are in JSON, but for kind and version, which items of a list do not tell in protobuf.
fn bare(mut object: Value) -> Value {
    let fields = object.as_object_mut().unwrap();
    fields.remove("kind");
    fields.remove("apiVersion");
    object
}

#[tokio::test]
async fn objects_and_lists_are_the_same_as_in_json() {
    let server = TestServer::memory().await;
    for name in ["a", "b", "c"] {
        server.post(MAPS, config_map(name, "1")).await.expect(201);
    }
    let one = get(&server, &format!("{MAPS}/a")).await.object();
    assert_eq!(one, server.get(&format!("{MAPS}/a")).await.expect(200));
    let list = get(&server, MAPS).await.object();
    let plain = server.get(MAPS).await.expect(200);
    assert_eq!((&list["kind"], &list["metadata"]), (&json!("ConfigMapList"), &plain["metadata"]));
    let items: Vec<Value> = plain["items"].as_array().unwrap().iter().cloned().map(bare).collect();
    assert_eq!(list["items"], json!(items));
    let page = get(&server, &format!("{MAPS}?limit=1")).await.object();
    assert_eq!((page["metadata"]["remainingItemCount"].as_i64(), page["items"].as_array().unwrap().len()), (Some(2), 1));
    // The kinds that every cluster has from the start.
    for path in ["/api/v1/namespaces", "/api/v1/services", "/api/v1/serviceaccounts"] {
        let (list, plain) = (get(&server, path).await.object(), server.get(path).await.expect(200));
        let items: Vec<Value> = plain["items"].as_array().unwrap().iter().cloned().map(bare).collect();
        assert_eq!(list["items"], json!(items), "{path}");
    }
}

/// As client-go does with `ContentType: application/vnd.kubernetes.protobuf`.
#[tokio::test]
async fn what_is_written_in_protobuf_is_answered_in_protobuf() {
    let server = TestServer::memory().await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"key": "1"}, "binaryData": {"b": "AAE="}});
    let body = slipway_apiserver::http::protobuf::encode(&map).unwrap().unwrap();
    let created = send(&server, "POST", MAPS, GO, Some((PROTOBUF, body))).await;
    assert_eq!(created.code, 201);
    let mut object = created.object();
    assert_eq!((&object["data"], &object["binaryData"]), (&map["data"], &map["binaryData"]));
    object["data"]["key"] = "2".into();
    let body = slipway_apiserver::http::protobuf::encode(&object).unwrap().unwrap();
    let updated = send(&server, "PUT", &format!("{MAPS}/a"), GO, Some((PROTOBUF, body))).await.object();
    assert_eq!(updated["data"]["key"], "2");
    let deleted = send(&server, "DELETE", &format!("{MAPS}/a"), GO, None).await.object();
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
}

#[tokio::test]
async fn refusals_and_discovery_are_in_protobuf_too() {
    let server = TestServer::memory().await;
    let missing = get(&server, &format!("{MAPS}/none")).await;
    assert_eq!((missing.code, &missing.object()["reason"]), (404, &json!("NotFound")));
    for path in ["/api", "/apis", "/apis/apps", "/api/v1", "/apis/apps/v1"] {
        let (mut answer, plain) = (get(&server, path).await.object(), server.get(path).await.expect(200));
        if plain.get("apiVersion").is_none() {
            answer.as_object_mut().unwrap().remove("apiVersion");
        }
        assert_eq!(answer["kind"], plain["kind"], "{path}");
        assert_eq!(answer["groups"].as_array().map(Vec::len), plain["groups"].as_array().map(Vec::len), "{path}");
        assert_eq!(answer["resources"].as_array().map(Vec::len), plain["resources"].as_array().map(Vec::len), "{path}");
    }
    let resources = get(&server, "/apis/apps/v1").await.object();
    assert_eq!(resources["resources"], server.get("/apis/apps/v1").await.expect(200)["resources"]);
}

#[tokio::test]
async fn metadata_alone_is_had_in_protobuf_and_a_table_is_not() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let one = send(&server, "GET", &format!("{MAPS}/a"), &partial, None).await.object();
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
    let lists = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = send(&server, "GET", MAPS, &lists, None).await.object();
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]["name"]), (&json!("PartialObjectMetadataList"), &json!("a")));
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(send(&server, "GET", MAPS, &table, None).await.code, 406);
    let json = send(&server, "GET", MAPS, &format!("{table},application/json;as=Table;g=meta.k8s.io;v=v1"), None).await;
    assert_eq!((json.code, json.content_type.as_str()), (200, "application/json"));
}

/// Kinds that Kubernetes has no message for are had in JSON, if that is accepted.
#[tokio::test]
async fn other_kinds_are_not_to_be_had_in_protobuf() {
    let server = TestServer::memory().await;
    let pools = "/apis/slipway.dev/v1alpha1/nodepools";
    let refused = send(&server, "GET", pools, PROTOBUF, None).await;
    assert_eq!(refused.code, 406);
    let status: Value = serde_json::from_slice(&refused.body).unwrap_or_else(|_| decode(&refused.body).unwrap());
    assert_eq!(status["message"], "only the following media types are accepted: application/json, application/yaml");
    assert_eq!(get(&server, pools).await.content_type, "application/json");
    let sent = send(&server, "POST", pools, "application/json", Some((PROTOBUF, Bytes::from_static(b"k8s\0\x12\0")))).await;
    assert_eq!(sent.code, 415);
}

struct Frames {
    body: axum::body::BodyDataStream,
    buffer: Vec<u8>,
}

impl Frames {
    async fn open(server: &TestServer, accept: &str, path: &str) -> Self {
        let request = Request::builder().uri(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = server.send(Some(User::admin()), request).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
        Frames { body: response.into_body().into_data_stream(), buffer: vec![] }
    }

    /// Type and object of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(len) = self.buffer.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize)
                && self.buffer.len() >= 4 + len
            {
                let frame: Vec<u8> = self.buffer.drain(..4 + len).skip(4).collect();
                return event(frame.into());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("an event was expected");
            self.buffer.extend_from_slice(&chunk.expect("the watch goes on").unwrap());
        }
    }
}

/// A WatchEvent: field 1 is the type, field 2 has the object in its field 1.
fn event(mut frame: Bytes) -> (String, Value) {
    let field = |tag: u8, bytes: &mut Bytes| {
        assert_eq!(bytes.get_u8(), tag);
        let mut len = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes.get_u8();
            len |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        bytes.split_to(len)
    };
    let type_ = field(0x0a, &mut frame);
    let mut object = field(0x12, &mut frame);
    let raw = field(0x0a, &mut object);
    (String::from_utf8(type_.to_vec()).unwrap(), decode(&raw).unwrap())
}

#[tokio::test]
async fn a_watch_is_framed_by_lengths() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let accept = format!("{PROTOBUF};stream=watch,{PROTOBUF}");
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Frames::open(&server, &accept, &format!("{MAPS}?{query}")).await;
    let mut labelled = Frames::open(&server, PROTOBUF, &format!("{MAPS}?watch=1&labelSelector=on%3Dyes")).await;
    let (type_, object) = watch.next().await;
    assert_eq!((type_.as_str(), object), ("ADDED", server.get(&format!("{MAPS}/a")).await.expect(200)));
    let (type_, bookmark) = watch.next().await;
    assert_eq!((type_.as_str(), &bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let changed = server.patch(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"on": "yes"}}})).await.expect(200);
    let last = server.patch(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"on": "no"}}})).await.expect(200);
    assert_eq!(watch.next().await, ("MODIFIED".to_owned(), changed.clone()));
    assert_eq!(labelled.next().await, ("ADDED".to_owned(), changed.clone()));
    let (type_, ceased) = labelled.next().await;
    assert_eq!((type_.as_str(), &ceased["metadata"]["labels"]["on"]), ("DELETED", &json!("yes")));
    assert_eq!(ceased["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let (_, object) = Frames::open(&server, &partial, &format!("{MAPS}?watch=1")).await.next().await;
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
}

#[tokio::test]
async fn a_watch_that_is_too_old_says_so_in_protobuf() {
    let options = slipway_apiserver::Options {
        cache_limits: slipway_store::cache::Limits { ring_events_max: 2, ..Default::default() },
        ..Default::default()
    };
    let server = TestServer::start(slipway_store::memory::Memory::new(), options).await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(MAPS, config_map(name, "1")).await.expect(201);
    }
    server.get(MAPS).await.expect(200);
    let (type_, status) = Frames::open(&server, PROTOBUF, &format!("{MAPS}?watch=1&resourceVersion=1")).await.next().await;
    assert_eq!((type_.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
}
