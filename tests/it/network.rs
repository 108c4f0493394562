//! The node's proxy and DNS, fed by the real API server, in a network namespace of their own.
#![allow(clippy::unwrap_used)]

use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use slipway_api::core::Service;
use slipway_api::discovery::EndpointSlice;
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::{ApiServer, Options};
use slipway_node::{dns, proxy};
use slipway_store::memory::Memory;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const VIP: &str = "10.96.0.77:80";
const NAME_SERVER: &str = "10.96.0.10:53";
/// For one try; what comes later is tried again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tries until it is so: changes take their way through watches.
async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    for _ in 0..1000 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} never came");
}

/// Who answers at the Service's address: `None` if the connection is refused.
async fn served() -> Option<String> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(VIP)).await.unwrap_or_else(|late| Err(late.into())) {
        Ok(mut stream) => {
            let mut name = String::new();
            stream.read_to_string(&mut name).await.unwrap();
            Some(name)
        }
        Err(error) => {
            // Before the first rules are there, the address leads nowhere.
            let known = [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::TimedOut];
            assert!(known.contains(&error.kind()), "{error}");
            None
        }
    }
}

async fn serve(name: &'static str, address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut stream, name.as_bytes()).await.unwrap();
        }
    });
}

/// The first address that the name has.
async fn resolve(name: &str) -> Option<[u8; 4]> {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.connect(NAME_SERVER).await.ok()?;
    socket.send(&question).await.ok()?;
    let mut answer = [0; 512];
    // What was asked before the server was there is never answered.
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.ok()?.ok()?;
    // One answer: its data are the last four bytes.
    (answer[7] > 0).then(|| answer[length - 4..length].try_into().unwrap())
}

fn slice(addresses: &[&str]) -> serde_json::Value {
    let endpoints: Vec<_> = addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints})
}

async fn scenario() {
    let server = ApiServer::start(Memory::new(), Options::default()).await.unwrap();
    let client = server.client(User::admin());
    let stop = CancellationToken::new();
    let options = proxy::Options {
        node_name: "n1".into(),
        backend: proxy::Backend::Auto,
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        served_here: vec!["10.96.0.10".parse().unwrap()],
    };
    let running = tokio::spawn(proxy::run(client.clone(), options, stop.clone()));
    let options = dns::Options {
        listen: NAME_SERVER.parse().unwrap(),
        make_interface: true,
        domain: "cluster.local".into(),
        resolv_conf: "/dev/null".into(),
        reverse: vec![],
    };
    let naming = tokio::spawn(dns::run(client.clone(), options, stop.clone()));

    serve("one", "192.0.2.1:8080").await;
    serve("two", "192.0.2.2:8080").await;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
    let service = Service {
        metadata: ObjectMeta { name: Some("web".into()), ..ObjectMeta::default() },
        spec: serde_json::from_value(json!({"clusterIP": "10.96.0.77", "ports": [{"port": 80, "targetPort": 8080}]})).unwrap(),
        ..Service::default()
    };
    services.create(&PostParams::default(), &service).await.unwrap();
    until("the name", || async { resolve("web.default.svc.cluster.local").await == Some([10, 96, 0, 77]) }).await;
    slices.create(&PostParams::default(), &serde_json::from_value(slice(&["192.0.2.1"])).unwrap()).await.unwrap();
    until("the first endpoint", || async { served().await.as_deref() == Some("one") }).await;

    let change = Patch::Merge(slice(&["192.0.2.2"]));
    slices.patch("web-1", &PatchParams::default(), &change).await.unwrap();
    until("the second endpoint", || async { served().await.as_deref() == Some("two") }).await;

    // The rules stay when the proxy stops; one that starts goes on from there.
    stop.cancel();
    running.await.unwrap().unwrap();
    naming.await.unwrap().unwrap();
    assert_eq!(served().await.as_deref(), Some("two"));

    let stop = CancellationToken::new();
    let options = proxy::Options {
        node_name: "n1".into(),
        backend: proxy::Backend::Auto,
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        served_here: vec![],
    };
    tokio::spawn(proxy::run(server.client(User::admin()), options, stop.clone()));
    slices.delete("web-1", &DeleteParams::default()).await.unwrap();
    until("refusal", || async { TcpStream::connect(VIP).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) })
        .await;
    stop.cancel();
    server.close();
}

#[test]
fn services_and_names_follow_the_api_server() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        return;
    }
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let setup = "ip link set lo up && ip link add out type bridge && ip addr add 192.0.2.1/24 dev out
            ip addr add 192.0.2.2/24 dev out && ip link set out up && ip route add default via 192.0.2.254";
        assert!(Command::new("sh").args(["-ec", setup]).status().unwrap().success());
        // All on this thread: only it is in the namespace.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scenario());
    };
    std::thread::spawn(inside).join().unwrap();
}
