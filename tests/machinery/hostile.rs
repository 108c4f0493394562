//! Clients that mean no good, or know no better: memory stays bounded, and others are served.

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::http::serve::tls;
use slipway_store::memory::Memory;
use slipway_tests::{Answer, PATIENCE, TestServer, config_map};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn post(server: &TestServer, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(MAPS).header("content-type", content_type).body(body.into()).unwrap();
    Answer::of(server.send(Some(User::admin()), request).await).await
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = TestServer::memory().await;
    let large = config_map("large", &"x".repeat(3 * 1024 * 1024));
    let message = post(&server, "application/json", large.to_string()).await.expect_status(413, "RequestEntityTooLarge");
    assert_eq!(message, "Request entity too large: limit is 3145728");
    // An endless one, too: no more of it is read than is allowed.
    let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 65536])));
    post(&server, "application/json", Body::from_stream(endless.boxed())).await.expect_status(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn deep_nesting_is_refused_in_every_format() {
    let server = TestServer::memory().await;
    for depth in [200, 100_000] {
        let json =
            format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"data\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(post(&server, "application/json", json.clone()).await.code, 400);
        assert_eq!(post(&server, "application/yaml", json).await.code, 400);
        let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for content_type in [
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/json-patch+json",
            "application/apply-patch+yaml",
        ] {
            let path = format!("{MAPS}/m?fieldManager=x&force=true");
            let request = Request::patch(path).header("content-type", content_type).body(Body::from(objects.clone())).unwrap();
            let answer = Answer::of(server.send(Some(User::admin()), request).await).await;
            assert!((400..500).contains(&answer.code), "{content_type}: {}", answer.code);
        }
    }
}

/// Each line doubles the one before: some kilobytes would become more than there is memory.
#[tokio::test]
async fn aliases_do_not_blow_up() {
    let server = TestServer::memory().await;
    let mut yaml =
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: bomb}\nx0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
            .to_owned();
    for n in 1..40 {
        let before = vec![format!("*x{}", n - 1); 9].join(", ");
        yaml.push_str(&format!("x{n}: &x{n} [{before}]\n"));
    }
    let answer = tokio::time::timeout(PATIENCE, post(&server, "application/yaml", yaml)).await.expect("it is refused at once");
    assert_eq!(answer.code, 400, "{}", answer.body);
}

/// A body that trickles in holds a seat, so it must come to an end.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::memory().await;
    let trickle = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    });
    post(&server, "application/json", Body::from_stream(trickle.boxed())).await.expect_status(504, "Timeout");
}

/// A watch whose reader stopped is ended, and what was kept for it is let go.
#[tokio::test(start_paused = true)]
async fn a_watch_that_nobody_reads_is_cut_off() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let mut stopped = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1000")).await;
    assert_eq!(stopped.brief().await, "ADDED a");
    let mut reads = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1000")).await;
    assert_eq!(reads.brief().await, "ADDED a");
    let reader = tokio::spawn(async move { reads.next_unhurried().await });
    tokio::time::sleep(Duration::from_secs(120)).await;
    server.post(MAPS, config_map("b", "1")).await.expect(201);
    assert_eq!(reader.await.unwrap().unwrap()["object"]["metadata"]["name"], "b");
    assert_eq!(stopped.brief().await, "END");
}

/// One that reads too slowly for what happens is told so, and may come again.
#[tokio::test]
async fn a_watch_that_lags_behind_is_cut_off() {
    let limits = slipway_store::cache::Limits { watcher_backlog_max: 5, ..Default::default() };
    let server = TestServer::start(Memory::new(), Options { cache_limits: limits, ..Default::default() }).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
    for n in 0..50 {
        server.post(MAPS, config_map(&format!("m{n}"), "1")).await.expect(201);
    }
    server.get(MAPS).await.expect(200);
    let mut last = Value::Null;
    while let Some(event) = watch.next().await {
        last = event;
    }
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)), "{last}");
}

// === over sockets ===

pub struct Listening {
    server: TestServer,
    address: SocketAddr,
    tls: rustls::ClientConfig,
    shutdown: CancellationToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub const TOKEN: &str = "hostile-tests";

pub async fn listen() -> Listening {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let options = Options { static_tokens: vec![(TOKEN.into(), User::admin())], ..Options::default() };
    let server = TestServer::start(Memory::new(), options).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let tls = tls(&certificate.pem(), &key.serialize_pem(), None).unwrap();
    tokio::spawn(Arc::clone(&server.api).serve(listener, tls, shutdown.clone()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Listening { server, address, tls: config, shutdown }
}

impl Listening {
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_with(b"http/1.1").await
    }

    /// Speaks another protocol.
    pub async fn connect_with(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = self.tls.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }

    /// Sends a head on a connection of its own; answers with the status line, empty if the connection was closed.
    pub async fn ask(&self, head: &str) -> String {
        let mut stream = self.connect().await;
        // The server may hang up while it is being written to.
        stream.write_all(head.as_bytes()).await.ok();
        stream.flush().await.ok();
        let mut answer = vec![0; 64];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer").unwrap_or(0);
        let text = String::from_utf8_lossy(&answer[..read]).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    }

    pub async fn is_served(&self) {
        let head = format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        assert_eq!(self.ask(&head).await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused() {
    let listening = listen().await;
    let large = format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\nX-Large: {}\r\n\r\n", "x".repeat(2 * 1024 * 1024));
    let answer = listening.ask(&large).await;
    assert!(answer.contains("431") || answer.is_empty(), "{answer}");
    let many = format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-Many: x\r\n".repeat(1000));
    let answer = listening.ask(&many).await;
    assert!(answer.contains("431") || answer.is_empty(), "{answer}");
    listening.is_served().await;
}

/// Kilobytes that the process has in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// As many descriptors as the system lets this process have.
fn raise_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    usize::try_from(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0).unwrap_or(usize::MAX)
}

/// Each takes two descriptors here, for both ends are in this process.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_leave_others_served() {
    let listening = listen().await;
    let count = 10_000.min(raise_limit() / 2 - 200);
    listening.is_served().await;
    let before = resident();
    let mut idle = vec![];
    for n in 0..count {
        let mut stream = TcpStream::connect(listening.address).await.unwrap();
        // Some say nothing at all, some begin a handshake and leave it at that.
        if n % 2 == 0 {
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.ok();
        }
        idle.push(stream);
    }
    listening.is_served().await;
    let grown = resident().saturating_sub(before);
    assert!(grown < count * 40, "{grown} KiB for {count} connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_request_keeps_nobody_waiting() {
    let listening = listen().await;
    let mut slow = vec![];
    for _ in 0..100 {
        let mut stream = listening.connect().await;
        stream.write_all(format!("GET {MAPS} HTTP/1.1\r\nHost: local").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..50 {
        let mut stream = listening.connect().await;
        let head = format!(
            "POST {MAPS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    listening.is_served().await;
    listening.server.get(MAPS).await.expect(200);
}
