use super::*;
use serde_json::{Value, json};

const NODE: &str = "here";

fn routes_of(service: Value, slices: &[Value]) -> String {
    let service = Service::of(&serde_json::from_value(service).unwrap()).unwrap();
    let slices: Vec<Slice> =
        slices.iter().map(|slice| Slice::of(&serde_json::from_value(slice.clone()).unwrap(), NODE).unwrap().1).collect();
    let contribution = contribution(&Name::new("default", "web"), &service, slices.iter());
    let mut lines = String::new();
    for (front, route) in &contribution.routes {
        let front = match front {
            Front::Address { ip, protocol, port } => format!("{ip}:{port}/{}", protocol.name()),
            Front::Node { protocol, port } => format!("node:{port}/{}", protocol.name()),
        };
        let list = |targets: &[Target]| targets.iter().map(|t| format!("{}:{}", t.ip, t.port)).collect::<Vec<_>>().join(" ");
        let local = route.local.as_ref().map_or(String::new(), |local| format!(" local [{}]", list(local)));
        let refused = if route.is_refused() { " refused" } else { "" };
        let elsewhere = if route.elsewhere { " elsewhere" } else { "" };
        lines += &format!("{front} {:?} [{}]{local}{refused}{elsewhere}\n", route.entry, list(&route.targets));
    }
    lines
}

fn service(more: Value) -> Value {
    let mut spec =
        json!({"clusterIP": "10.96.1.1", "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec,
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "lb"}]}}})
}

/// `(address, node, ready, serving and terminating)`
fn slice(endpoints: &[(&str, &str, bool, bool)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node, ready, draining)| {
            json!({"addresses": [ip], "nodeName": node,
                "conditions": {"ready": ready, "serving": *ready || *draining, "terminating": draining}})
        })
        .collect();
    json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 1}]})
}

#[test]
fn every_address_leads_to_the_ready_endpoints() {
    let slices = [slice(&[
        ("10.244.1.3", "there", true, false),
        ("10.244.0.2", "here", true, false),
        ("10.244.0.9", "here", false, false),
    ])];
    let expected = "\
10.96.1.1:80/tcp Cluster [10.244.0.2:8080 10.244.1.3:8080]
192.0.2.7:80/tcp External [10.244.0.2:8080 10.244.1.3:8080]
203.0.113.1:80/tcp External [10.244.0.2:8080 10.244.1.3:8080]
node:30080/tcp External [10.244.0.2:8080 10.244.1.3:8080]
";
    assert_eq!(routes_of(service(json!({"externalIPs": ["192.0.2.7"]})), &slices), expected);
}

#[test]
fn endpoints_in_two_slices_count_once_and_ready_wins() {
    let slices = [slice(&[("10.244.0.2", "here", true, false)]), slice(&[("10.244.0.2", "here", false, true)])];
    assert!(routes_of(service(json!({})), &slices).starts_with("10.96.1.1:80/tcp Cluster [10.244.0.2:8080]\n"));
}

#[test]
fn those_that_terminate_serve_only_when_none_is_ready() {
    let mixed = [slice(&[("10.244.0.2", "here", false, true), ("10.244.1.3", "there", true, false)])];
    assert!(routes_of(service(json!({})), &mixed).starts_with("10.96.1.1:80/tcp Cluster [10.244.1.3:8080]\n"));
    let draining = [slice(&[("10.244.0.2", "here", false, true), ("10.244.1.3", "there", false, false)])];
    assert!(routes_of(service(json!({})), &draining).starts_with("10.96.1.1:80/tcp Cluster [10.244.0.2:8080]\n"));
}

#[test]
fn nobody_means_refused() {
    assert!(routes_of(service(json!({})), &[]).starts_with("10.96.1.1:80/tcp Cluster [] refused\n"));
}

#[test]
fn the_local_policies_keep_to_this_node() {
    let both = [slice(&[("10.244.1.3", "there", true, false), ("10.244.0.2", "here", true, false)])];
    let policies = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    let expected = "\
10.96.1.1:80/tcp Cluster [10.244.0.2:8080]
203.0.113.1:80/tcp External [10.244.0.2:8080 10.244.1.3:8080] local [10.244.0.2:8080]
node:30080/tcp External [10.244.0.2:8080 10.244.1.3:8080] local [10.244.0.2:8080]
";
    assert_eq!(routes_of(service(policies.clone()), &both), expected);
    let away = [slice(&[("10.244.1.3", "there", true, false)])];
    let expected = "\
10.96.1.1:80/tcp Cluster [] elsewhere
203.0.113.1:80/tcp External [10.244.1.3:8080] local []
node:30080/tcp External [10.244.1.3:8080] local []
";
    assert_eq!(routes_of(service(policies.clone()), &away), expected);
    // The one here terminates, but it is the only one here.
    let draining = [slice(&[("10.244.1.3", "there", true, false), ("10.244.0.2", "here", false, true)])];
    assert!(routes_of(service(policies), &draining).contains("External [10.244.1.3:8080] local [10.244.0.2:8080]"));
}

#[test]
fn headless_external_name_and_foreign_services_are_ignored() {
    let of = |service: Value| Service::of(&serde_json::from_value(service).unwrap());
    assert_eq!(of(service(json!({"clusterIP": "None"}))), None);
    assert_eq!(of(service(json!({"clusterIP": ""}))), None);
    assert_eq!(of(service(json!({"type": "ExternalName"}))), None);
    let mut foreign = service(json!({}));
    foreign["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "mine"});
    assert_eq!(of(foreign), None);
    let mut six = slice(&[]);
    six["addressType"] = json!("IPv6");
    assert_eq!(Slice::of(&serde_json::from_value(six).unwrap(), NODE), None);
}

#[test]
fn affinity_has_kubernetes_timeout_unless_told_otherwise() {
    let of = |more: Value| Service::of(&serde_json::from_value(service(more)).unwrap()).unwrap().affinity;
    assert_eq!(of(json!({})), None);
    assert_eq!(of(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
    let config = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}});
    assert_eq!(of(config), Some(7));
}

#[test]
fn a_claimed_address_stays_with_the_first_service_and_served_ones_are_left_out() {
    let object = service(json!({"externalIPs": ["192.0.2.7"]}));
    let service = Service::of(&serde_json::from_value(object).unwrap()).unwrap();
    let a = contribution(&Name::new("default", "a"), &service, std::iter::empty());
    let b = contribution(&Name::new("default", "b"), &service, std::iter::empty());
    let model = Model::new([&a, &b], &[]);
    assert!(model.routes.values().all(|route| route.service.starts_with("default/a:")));
    let without = Model::new([&a], &["10.96.1.1".parse().unwrap()]);
    assert!(without.cluster_ips.is_empty());
    assert_eq!(without.routes.len(), model.routes.len() - 1);
}
