//! The cluster's DNS over real sockets: answers, truncation, forwarding, aliases, and its interface.
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use nix::sched::{CloneFlags, unshare};
use parking_lot::RwLock;
use serde_json::json;
use slipway_node::dns::forward::Upstream;
use slipway_node::dns::interface;
use slipway_node::dns::server::Server;
use slipway_node::dns::zone::Zone;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

fn zone() -> Zone {
    let mut zone = Zone::new(Name::from_ascii("cluster.local").unwrap(), "10.96.0.10".parse().unwrap(), vec![]);
    for (name, spec) in [
        ("web", json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]})),
        ("many", json!({"clusterIP": "None"})),
        ("far", json!({"type": "ExternalName", "externalName": "example.com"})),
        ("near", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"})),
        ("loop", json!({"type": "ExternalName", "externalName": "loop.shop.svc.cluster.local"})),
    ] {
        let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        zone.service(&serde_json::from_value(object).unwrap());
    }
    let endpoints: Vec<_> = (0..200).map(|n| json!({"addresses": [format!("10.244.0.{n}")]})).collect();
    let slice = json!({"metadata": {"name": "many-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "endpoints": endpoints});
    zone.slice(&serde_json::from_value(slice).unwrap());
    zone
}

async fn start(upstream: Vec<SocketAddr>, zone: Zone) -> SocketAddr {
    let zone = Arc::new(RwLock::new(zone));
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), zone, Upstream::Servers(upstream)).await.unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.run(CancellationToken::new()));
    address
}

/// A second server stands for the rest of the world.
async fn world() -> SocketAddr {
    let mut zone = Zone::new(Name::from_ascii("com").unwrap(), "192.0.2.53".parse().unwrap(), vec![]);
    let service = json!({"metadata": {"name": "example", "namespace": "default"}, "spec": {"clusterIP": "192.0.2.1"}});
    zone.service(&serde_json::from_value(service).unwrap());
    start(vec![], zone).await
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn over_udp(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question.to_vec().unwrap(), server).await.unwrap();
    let mut data = vec![0; 65536];
    let (length, _) = socket.recv_from(&mut data).await.unwrap();
    let answer = Message::from_vec(&data[..length]).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert!(length <= 512 || question.edns.is_some());
    answer
}

async fn over_tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let bytes = question.to_vec().unwrap();
    stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).await.unwrap();
    let mut data = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut data).await.unwrap();
    Message::from_vec(&data).unwrap()
}

fn data(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn answers_over_both_transports() {
    let server = start(vec![], zone()).await;
    let asked = question("web.shop.svc.cluster.local.", RecordType::A);
    let answer = over_udp(server, &asked).await;
    assert_eq!(data(&answer.answers), ["10.96.0.7"]);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available && !answer.metadata.truncation);
    assert_eq!(answer.answers[0].ttl, 5);
    let mut stream = TcpStream::connect(server).await.unwrap();
    for _ in 0..3 {
        assert_eq!(data(&over_tcp(&mut stream, &asked).await.answers), ["10.96.0.7"]);
    }
    // No such name, and no such type: different codes, the same authority.
    let no_name = over_udp(server, &question("nothing.shop.svc.cluster.local.", RecordType::A)).await;
    let no_data = over_udp(server, &question("web.shop.svc.cluster.local.", RecordType::AAAA)).await;
    assert_eq!(no_name.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(no_data.metadata.response_code, ResponseCode::NoError);
    for answer in [no_name, no_data] {
        assert!(answer.answers.is_empty());
        assert!(matches!(answer.authorities[0].data, RData::SOA(_)));
    }
}

#[tokio::test]
async fn what_does_not_fit_is_asked_again_over_tcp() {
    let server = start(vec![], zone()).await;
    let mut asked = question("many.shop.svc.cluster.local.", RecordType::A);
    assert!(over_udp(server, &asked).await.metadata.truncation);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let answer = over_udp(server, &asked).await;
    assert!(answer.metadata.truncation && answer.edns.is_some());
    let mut stream = TcpStream::connect(server).await.unwrap();
    let whole = over_tcp(&mut stream, &asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[tokio::test]
async fn the_rest_of_the_world_is_asked_elsewhere() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = start(vec![nobody, world().await], zone()).await;
    let asked = question("example.default.svc.com.", RecordType::A);
    assert_eq!(data(&over_udp(server, &asked).await.answers), ["192.0.2.1"]);
    let mut stream = TcpStream::connect(server).await.unwrap();
    assert_eq!(data(&over_tcp(&mut stream, &asked).await.answers), ["192.0.2.1"]);
    let no_name = over_udp(server, &question("nowhere.com.", RecordType::A)).await;
    assert_eq!(no_name.metadata.response_code, ResponseCode::NXDomain);

    let alone = start(vec![], zone()).await;
    assert_eq!(over_udp(alone, &asked).await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn aliases_are_followed() {
    let mut far = zone();
    let service = json!({"metadata": {"name": "far", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "example.default.svc.com"}});
    far.service(&serde_json::from_value(service).unwrap());
    let server = start(vec![world().await], far).await;
    let ask = async |name: &str| over_udp(server, &question(&format!("{name}.shop.svc.cluster.local."), RecordType::A)).await;
    assert_eq!(data(&ask("far").await.answers), ["example.default.svc.com.", "192.0.2.1"]);
    assert_eq!(data(&ask("near").await.answers), ["web.shop.svc.cluster.local.", "10.96.0.7"]);
    assert_eq!(ask("loop").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn rubbish_does_no_harm() {
    let server = start(vec![], zone()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for rubbish in [&b""[..], b"x", &[0; 11], &[255; 40]] {
        socket.send_to(rubbish, server).await.unwrap();
    }
    // A header that promises a question.
    socket.send_to(&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], server).await.unwrap();
    let mut data = [0; 512];
    let (length, _) = socket.recv_from(&mut data).await.unwrap();
    let answer = Message::from_vec(&data[..length]).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (0x0707, ResponseCode::FormErr));
    let asked = question("web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(over_udp(server, &asked).await.answers.len(), 1);
}

#[test]
fn the_interface_is_made_once_and_removed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        return;
    }
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = "10.96.0.10".parse().unwrap();
            interface::ensure(address).await.unwrap();
            interface::ensure(address).await.unwrap();
            let zone = Arc::new(RwLock::new(zone()));
            let server = Server::bind("10.96.0.10:53".parse().unwrap(), zone, Upstream::Servers(vec![])).await.unwrap();
            drop(server);
            interface::remove().await.unwrap();
            interface::remove().await.unwrap();
            assert!(UdpSocket::bind("10.96.0.10:53").await.is_err());
        });
    })
    .join()
    .unwrap();
}
