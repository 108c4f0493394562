//! Random models, for the properties that both backends must have.

use super::Cidr;
use super::model::{Entry, Front, Model, Protocol, Route, Target};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub fn pod_cidr() -> Cidr {
    "10.244.0.0/16".parse().unwrap()
}

fn targets() -> impl Strategy<Value = Arc<[Target]>> {
    prop::collection::btree_set((0u8..4, 1u8..6), 0..5)
        .prop_map(|set| set.iter().map(|(net, host)| Target { ip: Ipv4Addr::new(10, 244, *net, *host), port: 8080 }).collect())
}

fn route(number: u8) -> impl Strategy<Value = Vec<(Front, Arc<Route>)>> {
    let affinity = prop_oneof![3 => Just(None), 1 => (10u32..12).prop_map(Some)];
    let sources = prop_oneof![4 => Just(0u8), 1 => 1u8..3];
    let udp = if number.is_multiple_of(3) { Protocol::Udp } else { Protocol::Tcp };
    (targets(), any::<[bool; 4]>(), affinity, sources).prop_map(move |(targets, flags, affinity, sources)| {
        let [external, local, elsewhere, node_port] = flags;
        let here: Arc<[Target]> = targets.iter().filter(|target| target.ip.octets()[2] == 0).copied().collect();
        let sources: Arc<[Cidr]> = (0..sources).map(|n| Cidr::new(Ipv4Addr::new(192, 0, n, 0), 24)).collect();
        let cluster = Route {
            service: format!("default/s{number}:").into(),
            entry: Entry::Cluster,
            elsewhere: elsewhere && targets.is_empty(),
            targets: targets.clone(),
            local: None,
            affinity,
            sources: [].into(),
        };
        let out = Route { entry: Entry::External, elsewhere: false, local: local.then_some(here), ..cluster.clone() };
        let address = |ip: [u8; 4]| Front::Address { ip: ip.into(), protocol: udp, port: 80 };
        let mut routes = vec![(address([10, 96, 0, number]), Arc::new(cluster))];
        if external {
            routes.push((address([203, 0, 113, number]), Arc::new(Route { sources, ..out.clone() })));
        }
        if node_port {
            routes.push((Front::Node { protocol: udp, port: 30000 + u16::from(number) }, Arc::new(out)));
        }
        routes
    })
}

pub fn model() -> impl Strategy<Value = Model> {
    let services = prop::collection::btree_set(1u8..9, 0..8);
    services.prop_flat_map(|numbers| numbers.into_iter().map(route).collect::<Vec<_>>()).prop_map(|routes| {
        let mut model = Model::default();
        for (front, route) in routes.into_iter().flatten() {
            model.hairpin.extend(route.targets.iter().map(|target| target.ip).filter(|ip| ip.octets()[2] == 0));
            if let (Front::Address { ip, .. }, Entry::Cluster) = (front, route.entry) {
                model.cluster_ips.insert(ip);
            }
            model.routes.insert(front, route);
        }
        model
    })
}
