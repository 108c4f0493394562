//! Logs and streams through the server to a node's agent: here one that speaks TLS, demands the server's certificate and
//! says what it was asked.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_store::memory::Memory;
use slipway_tests::authority::Authority;
use slipway_tests::{Answer, TestServer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers a log request with its own URI, upgrades a stream that asks for SPDY, and refuses any other protocol.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let uri = request.uri().to_string();
    if request.headers().contains_key("authorization") {
        return Ok(Response::builder().status(500).body("the client's credentials came along".into()).unwrap());
    }
    match request.headers().get("upgrade").map(|value| value.as_bytes().to_owned()) {
        None if uri.contains("tailLines=7") => {
            Ok(Response::builder().status(400).body("container \"main\" is waiting".into()).unwrap())
        }
        None => Ok(Response::new(uri.into())),
        Some(protocol) if protocol == b"SPDY/3.1" => {
            tokio::spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                if uri.contains("command=true") {
                    for _streamtype in ["error", "stdout", "stderr"] {
                        let mut head = [0; 8];
                        stream.read_exact(&mut head).await.unwrap();
                        stream.read_exact(&mut vec![0; usize::from(head[7])]).await.unwrap();
                    }
                    // How it ended, on the first of them; then it hangs up in the middle of a frame.
                    stream.write_all(b"\0\0\0\x01\0\0\0\x14{\"status\":\"Success\"}\x80\x03\0\x07\0\0\0\x08\0").await.unwrap();
                    stream.flush().await.unwrap();
                    return;
                }
                stream.write_all(format!("{uri}\n").as_bytes()).await.unwrap();
                let mut bytes = [0; 5];
                stream.read_exact(&mut bytes).await.unwrap();
                bytes.reverse();
                stream.write_all(&bytes).await.unwrap();
            });
            let response = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
            Ok(response.header("x-stream-protocol-version", "v4.channel.k8s.io").body(Full::default()).unwrap())
        }
        Some(_) => Ok(Response::builder().status(403).body("unable to upgrade: v5.channel.k8s.io".into()).unwrap()),
    }
}

/// An agent on a free port of the loopback.
async fn agent(authority: &Authority) -> u16 {
    let (certificate, key) = authority.sign(&["127.0.0.1"], "node", &[], ExtendedKeyUsagePurpose::ServerAuth);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(
        vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
    );
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
                // The client may go at any time.
                let _ = connection.with_upgrades().await;
            });
        }
    });
    port
}

/// A server with one node, whose agent is at `port`, and one pod on it.
async fn server(authority: &Authority, port: u16) -> TestServer {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = Options {
        kubelet_client_identity: Some(authority.sign(
            &[],
            "kube-apiserver-kubelet-client",
            &[],
            ExtendedKeyUsagePurpose::ClientAuth,
        )),
        kubelet_ca_pem: Some(authority.pem.clone()),
        ..Options::default()
    };
    let server = TestServer::start(Memory::new(), options).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    server.post("/api/v1/nodes", node).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    server.patch("/api/v1/nodes/n1/status", status).await.expect(200);
    let pod = |node: Option<&str>, name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "a"}]}})
    };
    server.post(PODS, pod(Some("n1"), "a")).await.expect(201);
    server.post(PODS, pod(None, "waiting")).await.expect(201);
    server.api.cache.fresh().await.unwrap();
    server
}

async fn text(server: &TestServer, path: &str) -> (u16, String) {
    let request = Request::get(path).header("authorization", "Bearer secret").body(Body::empty()).unwrap();
    let response = server.send(Some(User::admin()), request).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_log_is_what_the_agent_answers() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Authority::new("test-ca");
    let server = server(&authority, agent(&authority).await).await;
    let (code, log) = text(&server, &format!("{PODS}/a/log?follow=true&tailLines=5&sinceSeconds=9&pretty=x")).await;
    assert_eq!((code, log.as_str()), (200, "/containerLogs/default/a/main?follow=true&tailLines=5&sinceSeconds=9"));
    server.get(&format!("{PODS}/a/log?container=other")).await.expect_status(400, "BadRequest");
    let refused = server.get(&format!("{PODS}/a/log?tailLines=7")).await.expect_status(400, "BadRequest");
    assert_eq!(refused, "container \"main\" is waiting");
    server.get(&format!("{PODS}/a/log?tailLines=-1")).await.expect_status(422, "Invalid");
    assert_eq!(server.get(&format!("{PODS}/waiting/log")).await.code, 204);
    server.get(&format!("{PODS}/none/log")).await.expect_status(404, "NotFound");
}

/// An agent whose certificate nobody vouches for is not believed.
#[tokio::test]
async fn an_agent_must_prove_who_it_is() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let impostor = Authority::new("impostor");
    let port = agent(&impostor).await;
    let server = server(&Authority::new("test-ca"), port).await;
    let message = server.get(&format!("{PODS}/a/log")).await.expect_status(500, "InternalError");
    assert!(message.contains("the agent of node n1 could not be reached") && message.contains("certificate"), "{message}");
}

/// Over a real connection, for a stream takes it over.
async fn open(server: &TestServer, path: &str, protocol: &'static str) -> (u16, TcpStream, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server.api.router().layer(axum::Extension(User::admin()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A WebSocket begins with a GET, what kubectl asks for SPDY with a POST.
    let method = if protocol.contains("Sec-WebSocket") { "GET" } else { "POST" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nAuthorization: Bearer s\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        answer.push(byte[0]);
    }
    let code = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (code, stream, answer)
}

#[tokio::test]
async fn a_stream_is_joined_with_the_agent_byte_by_byte() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Authority::new("test-ca");
    let server = server(&authority, agent(&authority).await).await;
    let path = format!("{PODS}/a/exec?command=ls&command=-l&stdin=true&stdout=true&stderr=true&container=main");
    let (code, mut stream, head) = open(&server, &path, "SPDY/3.1").await;
    assert_eq!(code, StatusCode::SWITCHING_PROTOCOLS.as_u16());
    assert!(String::from_utf8_lossy(&head).contains("x-stream-protocol-version: v4.channel.k8s.io"));
    stream.write_all(b"olleh").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "/exec/default/a/main?input=1&output=1&error=1&command=ls&command=-l\nhello");
    let (code, mut stream, _) = open(&server, &format!("{PODS}/a/portforward?ports=80"), "SPDY/3.1").await;
    assert_eq!(code, 101);
    stream.write_all(b"12345").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "/portForward/default/a?port=80\n54321");
}

/// The messages of a WebSocket until its end: what `v5.channel.k8s.io` says.
async fn messages(server: &TestServer, path: &str) -> Vec<Vec<u8>> {
    let websocket = "websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Protocol: v5.channel.k8s.io";
    let (code, mut stream, _) = open(server, path, websocket).await;
    assert_eq!(code, 101);
    let mut messages = vec![];
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.unwrap();
        let length = match head[1] {
            126 => usize::from(stream.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await.unwrap();
        match head[0] & 0xf {
            2 => messages.push(message),
            8 => return messages,
            other => panic!("an unexpected message: {other}"),
        }
    }
}

/// A node that hangs up without ceremony, having told how the command ended, adds nothing to that.
#[tokio::test]
async fn how_a_command_ended_is_told_once() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Authority::new("test-ca");
    let server = server(&authority, agent(&authority).await).await;
    let told = messages(&server, &format!("{PODS}/a/exec?command=true&stdout=true")).await;
    assert_eq!(told, [b"\x01".to_vec(), b"\x03{\"status\":\"Success\"}".to_vec()]);
}

#[tokio::test]
async fn a_refused_upgrade_comes_back_so_that_the_client_can_try_another() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Authority::new("test-ca");
    let server = server(&authority, agent(&authority).await).await;
    let (code, _, _) = open(&server, &format!("{PODS}/a/exec?command=ls&stdout=true"), "websocket").await;
    assert_eq!(code, 403);
    let (code, _, _) = open(&server, &format!("{PODS}/waiting/exec?command=ls"), "SPDY/3.1").await;
    assert_eq!(code, 400);
    let plain = Request::post(format!("{PODS}/a/exec?command=ls")).body(Body::empty()).unwrap();
    let message = Answer::of(server.send(Some(User::admin()), plain).await).await.expect_status(400, "BadRequest");
    assert_eq!(message, "Upgrade request required");
}

/// `nodes/NAME/proxy` asks the node's agent, with the server's identity and not the caller's.
#[tokio::test]
async fn a_node_is_asked_through_its_proxy() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Authority::new("test-ca");
    let port = agent(&authority).await;
    let server = server(&authority, port).await;
    let proxy = "/api/v1/nodes/n1/proxy";
    assert_eq!(text(&server, &format!("{proxy}/stats/summary?only=x")).await, (200, "/stats/summary?only=x".into()));
    assert_eq!(text(&server, proxy).await, (200, "/".into()));
    assert_eq!(text(&server, &format!("/api/v1/nodes/n1:{port}/proxy/healthz")).await, (200, "/healthz".into()));
    let (code, mut stream, _) = open(&server, &format!("{proxy}/exec/default/a/main?command=ls"), "SPDY/3.1").await;
    assert_eq!(code, 101);
    stream.write_all(b"olleh").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "/exec/default/a/main?command=ls\nhello");
    server.get("/api/v1/nodes/none/proxy/healthz").await.expect_status(404, "NotFound");
    // Something else that listens on the node is asked over plain HTTP.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let router = axum::Router::new().route("/hello", axum::routing::get(|| async { "plain" }));
    tokio::spawn(async move { axum::serve(other, router).await });
    assert_eq!(text(&server, &format!("/api/v1/nodes/n1:{port}/proxy/hello")).await, (200, "plain".into()));
    // The right to read a node is not the right to ask its agent.
    let reader = Request::get(format!("{proxy}/healthz")).body(Body::empty()).unwrap();
    assert_eq!(server.send(Some(User::new("somebody", &[])), reader).await.status(), 403);
}
