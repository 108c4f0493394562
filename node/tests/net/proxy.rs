//! The service rules of both backends, loaded into a network namespace and tried with real connections.
//!
//! A node with a bridge, three pods on it, and a client outside, each in a namespace of its own that exists as long as
//! its file is open: nothing is left behind. Needs root, nft, iptables and conntrack.

use crate::netns::{Net, join, runtime};
use serde_json::{Value, json};
use slipway_node::proxy::watched::Watched;
use slipway_node::proxy::{Backend, Loader, cleanup};
use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::Duration;

const SERVICE: &str = "10.96.0.7:80";
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    node: Net,
    pods: Vec<Net>,
    outside: Net,
    watched: Watched,
    loader: Option<Loader>,
    backend: Backend,
}

impl Cluster {
    fn new(backend: Backend) -> Cluster {
        let node = Net::new();
        node.sh("
            ip link add cni0 type bridge && ip addr add 10.244.0.1/24 dev cni0 && ip link set cni0 up
            sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1 net.bridge.bridge-nf-call-iptables=1");
        let outside = Net::new();
        join(&node, &outside, "172.31.0.2/24", "eth0");
        node.sh("ip addr add 172.31.0.1/24 dev eth0 && ip route add default via 172.31.0.2");
        outside.sh("ip route add default via 172.31.0.1");
        let pods: Vec<Net> = ["a", "b", "c"]
            .into_iter()
            .enumerate()
            .map(|(index, name)| {
                let pod = Net::new();
                join(&node, &pod, &format!("10.244.0.{}/24", index + 2), &format!("pod-{name}"));
                node.sh(&format!("ip link set pod-{name} master cni0 && bridge link set dev pod-{name} hairpin on"));
                pod.sh("ip route add default via 10.244.0.1");
                pod.serve(name);
                pod
            })
            .collect();
        outside.serve("outside");
        node.serve("node");
        let mut watched = Watched::new("here");
        watched.services_relist();
        watched.slices_relist();
        watched.services_relisted();
        watched.slices_relisted();
        Cluster { node, pods, outside, watched, loader: None, backend }
    }

    fn service(&mut self, name: &str, ip: &str, more: Value) {
        let mut spec = json!({"clusterIP": ip, "ports": [{"port": 80, "protocol": "TCP"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let status = json!({"loadBalancer": {"ingress": spec["ingress"]}});
        let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec, "status": status});
        self.watched.service(&serde_json::from_value(object).unwrap());
    }

    fn endpoints(&mut self, service: &str, addresses: &[(&str, &str)]) {
        let endpoints: Vec<Value> = addresses.iter().map(|(ip, node)| json!({"addresses": [ip], "nodeName": node})).collect();
        let object = json!({
            "metadata": {"name": service, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}, {"name": "", "port": 8080, "protocol": "UDP"}]});
        self.watched.slice(&serde_json::from_value(object).unwrap());
    }

    fn sync(&mut self) {
        let (watched, loader, backend) = (&mut self.watched, &mut self.loader, self.backend);
        self.node.within(|| {
            runtime().block_on(async {
                if loader.is_none() {
                    *loader = Some(Loader::new(backend, "10.244.0.0/16".parse().unwrap()).await.unwrap());
                }
                let loader = loader.as_mut().unwrap();
                loader.sync(watched.model(&[]), false).await.unwrap();
                assert_eq!(loader.deltas_refused(), 0, "every change can be loaded by itself");
            });
        });
    }
}

const A: (&str, &str) = ("10.244.0.2", "here");
const B: (&str, &str) = ("10.244.0.3", "here");
const C: (&str, &str) = ("10.244.0.4", "here");

fn even(counts: &BTreeMap<String, usize>, names: &[&str]) {
    assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), names);
    // With three of them 50 are expected of each: fewer than 20 happen once in ten million runs.
    assert!(counts.values().all(|count| *count >= 20), "{counts:?}");
}

fn cluster_ip_and_node_port(cluster: &mut Cluster) {
    let node_port = json!({"ports": [{"port": 80, "nodePort": 30080}], "externalIPs": ["192.0.2.7"]});
    cluster.service("web", "10.96.0.7", node_port);
    cluster.endpoints("web", &[A, B, C]);
    cluster.sync();
    even(&cluster.pods[0].spread(SERVICE), &["a", "b", "c"]);
    even(&cluster.node.spread(SERVICE), &["a", "b", "c"]);
    even(&cluster.outside.spread("172.31.0.1:30080"), &["a", "b", "c"]);
    for address in ["127.0.0.1:30080", "172.31.0.1:30080", "10.244.0.1:30080"] {
        assert!(cluster.node.ask(address).is_ok(), "{address} from the node itself");
    }
    assert!(cluster.pods[1].ask("172.31.0.1:30080").is_ok());
    assert!(cluster.outside.ask("192.0.2.7:80").is_ok());
    // Another port of the cluster IP is not somebody else's.
    if cluster.backend == Backend::Nftables {
        cluster.pods[0].is_refused("10.96.0.7:81");
    }

    cluster.endpoints("web", &[C]);
    cluster.sync();
    assert_eq!(cluster.pods[0].ask(SERVICE).unwrap(), ("c".into(), "10.244.0.2".into()), "a pod's address is kept");
    assert_eq!(cluster.outside.ask("172.31.0.1:30080").unwrap(), ("c".into(), "10.244.0.1".into()), "outsiders are masqueraded");
    assert_eq!(cluster.pods[2].ask(SERVICE).unwrap(), ("c".into(), "10.244.0.1".into()), "hairpin");

    // Towards the outside a pod has the node's address, and within the cluster its own.
    assert_eq!(cluster.pods[0].ask("172.31.0.2:8080").unwrap(), ("outside".into(), "172.31.0.1".into()));
    assert_eq!(cluster.pods[0].ask("10.244.0.3:8080").unwrap(), ("b".into(), "10.244.0.2".into()));

    // The API server's Service leads to the node itself.
    cluster.endpoints("web", &[("172.31.0.1", "")]);
    cluster.sync();
    assert_eq!(cluster.pods[0].ask(SERVICE).unwrap().0, "node");
    assert_eq!(cluster.node.ask(SERVICE).unwrap().0, "node");
}

fn refusal(cluster: &mut Cluster) {
    cluster.service("web", "10.96.0.7", json!({"ports": [{"port": 80, "nodePort": 30080}]}));
    cluster.endpoints("web", &[]);
    cluster.sync();
    cluster.pods[0].is_refused(SERVICE);
    cluster.node.is_refused(SERVICE);
    cluster.outside.is_refused("172.31.0.1:30080");
    cluster.node.is_refused("127.0.0.1:30080");
    cluster.endpoints("web", &[B]);
    cluster.sync();
    assert_eq!(cluster.pods[0].ask(SERVICE).unwrap().0, "b");
    assert_eq!(cluster.outside.ask("172.31.0.1:30080").unwrap().0, "b");
}

fn affinity(cluster: &mut Cluster) {
    let more =
        |seconds: u32| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    cluster.service("web", "10.96.0.7", more(600));
    cluster.endpoints("web", &[A, B, C]);
    cluster.sync();
    let first = cluster.pods[0].ask(SERVICE).unwrap().0;
    for _ in 0..30 {
        assert_eq!(cluster.pods[0].ask(SERVICE).unwrap().0, first);
    }
    // The others go; this client stays where it is, and clients of those that went find another.
    let rest: Vec<_> = [("a", A), ("b", B), ("c", C)].into_iter().filter(|(name, _)| *name == first).map(|(_, e)| e).collect();
    cluster.pods[1].ask(SERVICE).unwrap();
    cluster.endpoints("web", &rest);
    cluster.sync();
    assert_eq!(cluster.pods[0].ask(SERVICE).unwrap().0, first);
    assert_eq!(cluster.pods[1].ask(SERVICE).unwrap().0, first);
    // Another timeout, then none at all.
    cluster.endpoints("web", &[A, B, C]);
    cluster.service("web", "10.96.0.7", more(60));
    cluster.sync();
    let names: BTreeSet<String> = (0..20).map(|_| cluster.pods[0].ask(SERVICE).unwrap().0).collect();
    assert_eq!(names.len(), 1);
    cluster.service("web", "10.96.0.7", json!({}));
    cluster.sync();
    even(&cluster.pods[0].spread(SERVICE), &["a", "b", "c"]);
}

fn local_policies(cluster: &mut Cluster) {
    let more = json!({"ports": [{"port": 80, "nodePort": 30080}], "externalTrafficPolicy": "Local"});
    cluster.service("web", "10.96.0.7", more.clone());
    cluster.endpoints("web", &[A, ("172.31.0.2", "there")]);
    cluster.sync();
    for _ in 0..20 {
        let seen = cluster.outside.ask("172.31.0.1:30080").unwrap();
        assert_eq!(seen, ("a".into(), "172.31.0.2".into()), "only the endpoint here, and it sees the client");
    }
    even(&cluster.node.spread("172.31.0.1:30080"), &["a", "outside"]);
    even(&cluster.pods[1].spread("172.31.0.1:30080"), &["a", "outside"]);

    cluster.endpoints("web", &[("172.31.0.2", "there")]);
    cluster.sync();
    cluster.outside.is_dropped("172.31.0.1:30080");
    assert_eq!(cluster.pods[1].ask("172.31.0.1:30080").unwrap().0, "outside");
    assert_eq!(cluster.node.ask("127.0.0.1:30080").unwrap().0, "outside");

    cluster.service("web", "10.96.0.7", json!({"internalTrafficPolicy": "Local"}));
    cluster.sync();
    cluster.pods[0].is_dropped(SERVICE);
    cluster.endpoints("web", &[B, ("172.31.0.2", "there")]);
    cluster.sync();
    for _ in 0..20 {
        assert_eq!(cluster.pods[0].ask(SERVICE).unwrap().0, "b");
    }
}

fn load_balancer_source_ranges(cluster: &mut Cluster) {
    let more = |range: &str| json!({"ingress": [{"ip": "203.0.113.9"}], "loadBalancerSourceRanges": [range, "192.0.2.0/24"]});
    cluster.service("web", "10.96.0.7", more("172.31.0.0/24"));
    cluster.endpoints("web", &[A]);
    cluster.sync();
    assert_eq!(cluster.outside.ask("203.0.113.9:80").unwrap().0, "a");
    cluster.service("web", "10.96.0.7", more("172.30.0.0/24"));
    cluster.sync();
    cluster.outside.is_dropped("203.0.113.9:80");
}

fn udp(cluster: &mut Cluster) {
    cluster.service("web", "10.96.0.7", json!({"ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}]}));
    cluster.endpoints("web", &[A]);
    cluster.sync();
    let client = |net: &Net| net.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let (pod, outside) = (client(&cluster.pods[2]), client(&cluster.outside));
    let ask = |socket: &UdpSocket, to: &str| {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"?", to).unwrap();
        let mut data = [0; 64];
        let (length, from) = socket.recv_from(&mut data).unwrap();
        assert_eq!(from.to_string(), to);
        String::from_utf8_lossy(&data[..length]).split(' ').next().unwrap().to_string()
    };
    let (to, node) = ("10.96.0.7:53", "172.31.0.1:30053");
    assert_eq!((ask(&pod, to), ask(&outside, node)), ("a".into(), "a".into()));
    cluster.endpoints("web", &[B]);
    cluster.sync();
    assert_eq!((ask(&pod, to), ask(&outside, node)), ("b".into(), "b".into()), "the same sockets reach the new endpoint");

    // A proxy that starts anew does not know what was there before.
    cluster.loader = None;
    cluster.endpoints("web", &[C]);
    cluster.sync();
    assert_eq!((ask(&pod, to), ask(&outside, node)), ("c".into(), "c".into()));
}

fn rules_outlive_the_process_until_they_are_cleaned_up(cluster: &mut Cluster) {
    let (before, count) = ("nft list tables; iptables-save", "(nft list ruleset; iptables-save) | grep -ci slipway || true");
    cluster.node.sh(before);
    cluster.service("web", "10.96.0.7", json!({}));
    cluster.endpoints("web", &[A]);
    cluster.sync();
    cluster.loader = None;
    assert_eq!(cluster.pods[1].ask(SERVICE).unwrap().0, "a");
    assert_ne!(cluster.node.sh(count).trim(), "0");
    // The other backend takes over, and leaves nothing of the first.
    let other = if cluster.backend == Backend::Nftables { Backend::Iptables } else { Backend::Nftables };
    cluster.backend = other;
    cluster.sync();
    assert_eq!(cluster.pods[1].ask(SERVICE).unwrap().0, "a");
    let left = match other {
        Backend::Iptables => "nft list tables | grep -c slipway || true",
        _ => "iptables-save | grep -c SLIPWAY || true",
    };
    assert_eq!(cluster.node.sh(left).trim(), "0");
    cluster.node.within(|| runtime().block_on(cleanup()));
    assert_eq!(cluster.node.sh(count).trim(), "0");
}

fn with_both(scenario: fn(&mut Cluster)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        return;
    }
    for backend in [Backend::Nftables, Backend::Iptables] {
        eprintln!("{backend:?}");
        scenario(&mut Cluster::new(backend));
    }
}

#[test]
fn services_work_from_pods_the_node_and_outside() {
    with_both(cluster_ip_and_node_port);
}

#[test]
fn without_endpoints_connections_are_refused_at_once() {
    with_both(refusal);
}

#[test]
fn clients_stay_with_their_endpoint() {
    with_both(affinity);
}

#[test]
fn local_traffic_policies_are_kept() {
    with_both(local_policies);
}

#[test]
fn source_ranges_of_load_balancers_are_kept() {
    with_both(load_balancer_source_ranges);
}

#[test]
fn udp_clients_follow_their_endpoints() {
    with_both(udp);
}

#[test]
fn rules_stay_when_the_process_stops_and_go_on_clean_up() {
    with_both(rules_outlive_the_process_until_they_are_cleaned_up);
}
