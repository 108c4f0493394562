//! Two nodes, the real CNI plugins, and our configuration, routes and masquerading between them.

use crate::netns::{Net, join, runtime};
use serde_json::{Value, json};
use slipway_node::cni::{Network, conflist, routes, sysctl};
use slipway_node::proxy::model::Model;
use slipway_node::proxy::{Backend, Loader};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const PLUGINS: &str = "/usr/lib/cni";

fn network(dir: &Path, number: u8) -> Network {
    Network {
        conf_dir: dir.join("conf"),
        data_dir: dir.join("data"),
        pod_cidr: format!("10.244.{number}.0/24").parse().unwrap(),
        mtu: None,
    }
}

/// Runs the plugins of our conflist one after the other, as a container runtime does, and gives back the pod's address.
fn plugins(node: &Net, pod: &Net, network: &Network, command: &str, id: &str) -> Option<String> {
    let list: Value = serde_json::from_str(&conflist(network)).unwrap();
    let mut previous = Value::Null;
    let plugins = list["plugins"].as_array().unwrap();
    let order: Vec<&Value> = if command == "DEL" { plugins.iter().rev().collect() } else { plugins.iter().collect() };
    for plugin in order {
        let mut conf = plugin.clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        if conf["capabilities"]["portMappings"] == true {
            conf["runtimeConfig"] = json!({"portMappings": [{"hostPort": 8081, "containerPort": 8080, "protocol": "tcp"}]});
        }
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        let netns = pod.path();
        let output = node.within(|| {
            let mut child = Command::new(format!("{PLUGINS}/{}", plugin["type"].as_str().unwrap()))
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", id)
                .env("CNI_NETNS", netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", PLUGINS)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{command} {conf}: {}", String::from_utf8_lossy(&output.stdout));
        previous = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    }
    Some(previous["ips"][0]["address"].as_str()?.split('/').next()?.to_string())
}

fn node_object(number: u8) -> slipway_api::core::Node {
    serde_json::from_value(json!({
        "metadata": {"name": format!("n{number}")},
        "spec": {"podCIDR": format!("10.244.{number}.0/24")},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.31.0.{number}")}]}}))
    .unwrap()
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_the_outside() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: network namespaces need root");
        return;
    }
    if !Path::new(PLUGINS).join("bridge").exists() {
        eprintln!("SKIPPED: no CNI plugins in {PLUGINS}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let outside = Net::new();
    outside.sh("ip link add lan type bridge && ip addr add 172.31.0.254/24 dev lan && ip link set lan up");
    outside.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
    outside.serve("outside");
    let nodes: Vec<(Net, Net, String, Network)> = [1, 2]
        .into_iter()
        .map(|number| {
            let node = Net::new();
            join(&outside, &node, &format!("172.31.0.{number}/24"), &format!("port{number}"));
            outside.sh(&format!("ip link set port{number} master lan"));
            node.sh("ip route add default via 172.31.0.254");
            node.within(|| {
                sysctl::prepare().unwrap();
                runtime().block_on(async {
                    let objects = [node_object(1), node_object(2)];
                    routes::sync(&format!("n{number}"), objects.iter()).await.unwrap();
                    // Again, with nothing to do.
                    routes::sync(&format!("n{number}"), objects.iter()).await.unwrap();
                    let mut loader = Loader::new(Backend::Auto, "10.244.0.0/16".parse().unwrap()).await.unwrap();
                    loader.sync(Model::default(), true).await.unwrap();
                });
            });
            let network = network(&dir.path().join(number.to_string()), number);
            let pod = Net::new();
            let ip = plugins(&node, &pod, &network, "ADD", &format!("pod{number}")).unwrap();
            pod.serve(if number == 1 { "one" } else { "two" });
            (node, pod, ip, network)
        })
        .collect();
    let (first, second) = (&nodes[0], &nodes[1]);
    assert!(first.2.starts_with("10.244.1.") && second.2.starts_with("10.244.2."), "{} {}", first.2, second.2);
    let to = |ip: &str| format!("{ip}:8080");
    assert_eq!(first.1.ask(&to(&second.2)).unwrap(), ("two".into(), first.2.clone()), "its own address within the cluster");
    assert_eq!(second.1.ask(&to(&first.2)).unwrap(), ("one".into(), second.2.clone()));
    assert_eq!(first.0.ask(&to(&second.2)).unwrap().0, "two", "from another node");
    assert_eq!(first.1.ask("172.31.0.254:8080").unwrap(), ("outside".into(), "172.31.0.1".into()), "the node's outside it");
    assert_eq!(outside.ask("172.31.0.2:8081").unwrap().0, "two", "hostPort");

    // A node is gone, and then everything.
    let count = |node: &Net| node.sh("ip -4 route | grep -c ' via 172.31.0.[12] ' || true").trim().to_string();
    assert_eq!(count(&first.0), "1");
    first.0.within(|| runtime().block_on(routes::sync("n1", [node_object(1)].iter())).unwrap());
    assert_eq!(count(&first.0), "0");
    for (node, pod, _, network) in &nodes {
        plugins(node, pod, network, "DEL", if node.path() == first.0.path() { "pod1" } else { "pod2" });
        node.within(|| runtime().block_on(slipway_node::cni::cleanup(network)).unwrap());
        assert_eq!(node.sh("ip -o link | grep -c cni0 || true").trim(), "0");
        assert_eq!(count(node), "0");
        assert!(!network.data_dir.exists());
    }
}
