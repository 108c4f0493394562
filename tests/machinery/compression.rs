//! Large answers, gzipped for those who ask.

use axum::body::Body;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::Value;
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{TestServer, config_map};
use std::io::Read;
use std::process::Stdio;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The body as it is sent, and whether it is gzipped.
async fn fetch(server: &TestServer, path: &str, accept: &str, encoding: &str) -> (Bytes, bool) {
    let request = Request::builder().uri(path).header(header::ACCEPT, accept).header(header::ACCEPT_ENCODING, encoding);
    let response = server.send(Some(User::admin()), request.body(Body::empty()).unwrap()).await;
    assert!(response.status().is_success(), "{path}: {}", response.status());
    let packed = response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    (response.into_body().collect().await.unwrap().to_bytes(), packed)
}

fn inflated(packed: &[u8]) -> Vec<u8> {
    let mut plain = vec![];
    let mut decoder = GzDecoder::new(packed);
    decoder.read_to_end(&mut plain).unwrap();
    assert_eq!(decoder.into_inner().len(), 0, "there is more than one member");
    plain
}

/// By the program gzip, which checks length and checksum.
async fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut child = tokio::process::Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let packed = packed.to_vec();
    tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut stdin, &packed).await });
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    output.stdout
}

async fn large() -> TestServer {
    let server = TestServer::memory().await;
    for n in 0..150 {
        let value: String = (0..200).map(|word| format!("word-{} ", (word * 7919 + n) % 1000)).collect();
        server.post(MAPS, config_map(&format!("m{n:03}"), &value)).await.expect(201);
    }
    server
}

#[tokio::test]
async fn a_large_list_is_one_gzip_member_with_the_same_content() {
    let server = large().await;
    for accept in ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"] {
        for path in [MAPS, "/api/v1/configmaps?limit=140", "/api/v1/configmaps?labelSelector=!none"] {
            let (plain, packed) = fetch(&server, path, accept, "identity").await;
            assert!(!packed && plain.len() > 128 * 1024);
            let (body, packed) = fetch(&server, path, accept, "gzip").await;
            assert!(packed && body.len() * 2 < plain.len(), "{accept}: {} of {} bytes", body.len(), plain.len());
            if path.contains("limit") {
                // Continue tokens may tell another revision.
                continue;
            }
            assert!(inflated(&body) == plain, "{accept} {path}: another content");
            assert!(gunzip(&body).await == plain, "{accept} {path}: another content by gzip");
        }
    }
}

#[tokio::test]
async fn what_was_compressed_once_is_sent_again_until_it_changes() {
    let server = large().await;
    let (first, _) = fetch(&server, MAPS, "application/json", "gzip").await;
    let (second, _) = fetch(&server, MAPS, "application/json", "gzip").await;
    assert!(first == second);
    server.patch(&format!("{MAPS}/m070"), serde_json::json!({"data": {"key": "changed"}})).await.expect(200);
    server.delete(&format!("{MAPS}/m100")).await.expect(200);
    let (third, _) = fetch(&server, MAPS, "application/json", "gzip").await;
    let list: Value = serde_json::from_slice(&inflated(&third)).unwrap();
    let items = list["items"].as_array().unwrap();
    let find = |name: &str| items.iter().find(|item| item["metadata"]["name"] == name);
    assert_eq!((find("m070").unwrap()["data"]["key"].as_str(), find("m100").is_none()), (Some("changed"), true));
    assert_eq!(serde_json::to_value(&list).unwrap(), server.get(MAPS).await.expect(200));
}

#[tokio::test]
async fn small_answers_and_watches_are_sent_as_they_are() {
    let server = large().await;
    let (_, packed) = fetch(&server, &format!("{MAPS}/m001"), "application/json", "gzip").await;
    assert!(!packed);
    let (_, packed) = fetch(&server, &format!("{MAPS}?limit=5"), "application/json", "gzip").await;
    assert!(!packed);
    let (_, packed) = fetch(&server, &format!("{MAPS}?watch=1&timeoutSeconds=1"), "application/json", "gzip").await;
    assert!(!packed);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let (body, packed) = fetch(&server, &format!("{MAPS}?includeObject=Object"), table, "gzip").await;
    let table: Value = serde_json::from_slice(&inflated(&body)).unwrap();
    assert!(packed && table["rows"].as_array().unwrap().len() == 150);
}

#[tokio::test]
async fn one_large_object_is_compressed() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("big", &"abc ".repeat(60_000))).await.expect(201);
    let (plain, _) = fetch(&server, &format!("{MAPS}/big"), "application/json", "").await;
    let (body, packed) = fetch(&server, &format!("{MAPS}/big"), "application/json", "deflate, gzip;q=0.8").await;
    assert!(packed && inflated(&body) == plain);
}
