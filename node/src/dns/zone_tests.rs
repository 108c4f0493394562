use super::*;
use serde_json::{Value, json};

fn zone() -> Zone {
    let cidrs = vec!["10.96.0.0/16".parse().unwrap(), "10.244.0.0/16".parse().unwrap()];
    let mut zone = Zone::new(Name::from_ascii("cluster.local").unwrap(), "10.96.0.10".parse().unwrap(), cidrs);
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    for (name, spec) in [
        ("web", json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": ports})),
        ("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        ("none", json!({"clusterIP": "None"})),
        ("far", json!({"type": "ExternalName", "externalName": "example.com"})),
    ] {
        let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        zone.service(&serde_json::from_value(object).unwrap());
    }
    zone.slice(&serde_json::from_value(slice()).unwrap());
    zone
}

fn slice() -> Value {
    json!({"metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 15432}],
        "endpoints": [
            {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.1.3"]},
            {"addresses": ["10.244.1.4"], "conditions": {"ready": false}}]})
}

fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
    let show = |records: Vec<Record>| records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>();
    match zone.answer(&Name::from_ascii(name).unwrap(), kind) {
        Answer::Found { records, additional } => [show(records), show(additional)].concat().join(", "),
        other => format!("{other:?}").split(' ').next().unwrap().to_string(),
    }
}

#[test]
fn services_have_their_addresses() {
    let zone = zone();
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::A), "10.96.0.7");
    assert_eq!(ask(&zone, "WEB.Shop.svc.CLUSTER.local.", RecordType::A), "10.96.0.7");
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::AAAA), "fd00::7");
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::TXT), "NoData");
}

#[test]
fn headless_services_have_their_ready_endpoints() {
    let mut zone = zone();
    assert_eq!(ask(&zone, "db.shop.svc.cluster.local.", RecordType::A), "10.244.1.2, 10.244.1.3");
    assert_eq!(ask(&zone, "db-0.db.shop.svc.cluster.local.", RecordType::A), "10.244.1.2");
    assert_eq!(ask(&zone, "10-244-1-3.db.shop.svc.cluster.local.", RecordType::A), "10.244.1.3");
    assert_eq!(ask(&zone, "10-244-1-4.db.shop.svc.cluster.local.", RecordType::A), "NoName");
    assert_eq!(ask(&zone, "db-0.db.shop.svc.cluster.local.", RecordType::AAAA), "NoData");
    assert_eq!(ask(&zone, "none.shop.svc.cluster.local.", RecordType::A), "NoName", "as the specification says");
    zone.slice_deleted(&serde_json::from_value(slice()).unwrap());
    assert_eq!(ask(&zone, "db.shop.svc.cluster.local.", RecordType::A), "NoName");
}

#[test]
fn named_ports_have_srv_records() {
    let zone = zone();
    let web = "0 100 80 web.shop.svc.cluster.local., 10.96.0.7, fd00::7";
    assert_eq!(ask(&zone, "_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV), web);
    let db =
        "0 50 15432 db-0.db.shop.svc.cluster.local., 0 50 15432 10-244-1-3.db.shop.svc.cluster.local., 10.244.1.2, 10.244.1.3";
    assert_eq!(ask(&zone, "_sql._tcp.db.shop.svc.cluster.local.", RecordType::SRV), db);
    assert_eq!(ask(&zone, "_http._udp.web.shop.svc.cluster.local.", RecordType::SRV), "NoName");
    assert_eq!(ask(&zone, "_http._tcp.web.shop.svc.cluster.local.", RecordType::A), "NoData");
    assert_eq!(ask(&zone, "_tcp.web.shop.svc.cluster.local.", RecordType::SRV), "NoData");
    assert_eq!(ask(&zone, "_sctp.web.shop.svc.cluster.local.", RecordType::SRV), "NoName");
}

#[test]
fn addresses_have_names() {
    let zone = zone();
    assert_eq!(ask(&zone, "7.0.96.10.in-addr.arpa.", RecordType::PTR), "web.shop.svc.cluster.local.");
    assert_eq!(ask(&zone, "2.1.244.10.in-addr.arpa.", RecordType::PTR), "db-0.db.shop.svc.cluster.local.");
    assert_eq!(ask(&zone, "9.9.96.10.in-addr.arpa.", RecordType::PTR), "NoName");
    assert_eq!(ask(&zone, "8.8.8.8.in-addr.arpa.", RecordType::PTR), "NotOurs");
    let six = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(ask(&zone, six, RecordType::PTR), "web.shop.svc.cluster.local.");
}

#[test]
fn pods_have_names_by_address() {
    let zone = zone();
    assert_eq!(ask(&zone, "10-244-1-2.shop.pod.cluster.local.", RecordType::A), "10.244.1.2");
    assert_eq!(ask(&zone, "10-244-1.shop.pod.cluster.local.", RecordType::A), "NoName");
    assert_eq!(ask(&zone, "10-244-1-2.shop.pod.cluster.local.", RecordType::AAAA), "NoData");
}

#[test]
fn what_lies_between_exists_and_the_rest_does_not() {
    let zone = zone();
    for name in ["cluster.local.", "svc.cluster.local.", "shop.svc.cluster.local.", "pod.cluster.local."] {
        assert_eq!(ask(&zone, name, RecordType::A), "NoData", "{name}");
    }
    for name in
        ["nothing.shop.svc.cluster.local.", "else.svc.cluster.local.", "a.web.shop.svc.cluster.local.", "x.cluster.local."]
    {
        assert_eq!(ask(&zone, name, RecordType::A), "NoName", "{name}");
    }
    assert_eq!(ask(&zone, "dns-version.cluster.local.", RecordType::TXT), "1.1.0");
    assert_eq!(ask(&zone, "ns.dns.cluster.local.", RecordType::A), "10.96.0.10");
    assert_eq!(ask(&zone, "example.com.", RecordType::A), "NotOurs");
    assert_eq!(ask(&zone, "far.shop.svc.cluster.local.", RecordType::CNAME), "example.com.");
    assert_eq!(ask(&zone, "far.shop.svc.cluster.local.", RecordType::A), "Elsewhere");
}

#[test]
fn what_a_new_list_lacks_is_gone() {
    let mut zone = zone();
    zone.services_relist();
    zone.services_relisted();
    zone.slices_relist();
    zone.slices_relisted();
    assert_eq!(ask(&zone, "web.shop.svc.cluster.local.", RecordType::A), "NoName");
    assert!(zone.slices.is_empty() && zone.owners.is_empty());
}
