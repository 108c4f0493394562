//! What a Service's spec says of addresses and ports. Pure.

use super::Pools;
use crate::http::error::Invalid;
use crate::kind::remove;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Where a node port stands in the spec.
pub(super) enum Place {
    Port(usize),
    HealthCheck,
}

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().filter(|kind| !kind.is_empty()).unwrap_or("ClusterIP")
}

/// The first cluster IP, if one is said.
pub(super) fn address(service: &Value) -> Option<String> {
    let spec = &service["spec"];
    let text = spec["clusterIP"].as_str().filter(|text| !text.is_empty());
    text.or_else(|| spec["clusterIPs"][0].as_str().filter(|text| !text.is_empty())).map(str::to_owned)
}

pub(super) fn needs_address(service: &Value) -> bool {
    kind(service) != "ExternalName" && address(service).as_deref() != Some("None")
}

fn needs_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Whether the load balancer asks each node for its health, at a port of its own.
fn needs_health_check(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn may_have_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// The keys of all that the Service holds.
pub(super) fn held(service: &Value, pools: &Pools) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    if needs_address(service)
        && let Some(address) = address(service).and_then(|text| text.parse::<Ipv4Addr>().ok())
    {
        keys.insert(pools.addresses.key(address.into()));
    }
    for (_, number) in asked_ports(service) {
        keys.insert(pools.ports.key(number));
    }
    keys
}

/// The node ports that the spec names, each with its field.
pub(super) fn asked_ports(service: &Value) -> Vec<(String, u32)> {
    if !may_have_node_ports(service) {
        return vec![];
    }
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number != 0);
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().enumerate();
    let mut asked: Vec<(String, u32)> =
        ports.filter_map(|(at, port)| Some((format!("spec.ports[{at}].nodePort"), number(&port["nodePort"])?))).collect();
    if needs_health_check(service) {
        asked.extend(number(&service["spec"]["healthCheckNodePort"]).map(|number| ("spec.healthCheckNodePort".into(), number)));
    }
    asked
}

/// The next place that needs a node port and has none.
pub(super) fn next_missing_port(service: &Value) -> Option<Place> {
    let lacks = |value: &Value| value.as_u64().unwrap_or(0) == 0;
    if needs_node_ports(service) {
        let ports = service["spec"]["ports"].as_array();
        if let Some(at) = ports.into_iter().flatten().position(|port| lacks(&port["nodePort"])) {
            return Some(Place::Port(at));
        }
    }
    (needs_health_check(service) && lacks(&service["spec"]["healthCheckNodePort"])).then_some(Place::HealthCheck)
}

/// The node port of the same port with another protocol (DNS over UDP and TCP): both get one number.
pub(super) fn shared_port(service: &Value, place: &Place) -> Option<u32> {
    let Place::Port(at) = place else { return None };
    let ports = service["spec"]["ports"].as_array()?;
    let port = &ports[*at];
    let twin = ports.iter().find(|other| {
        other["port"] == port["port"] && other["protocol"] != port["protocol"] && other["nodePort"].as_u64().unwrap_or(0) != 0
    })?;
    let number = &twin["nodePort"];
    let clash = ports.iter().any(|other| other["nodePort"] == *number && other["protocol"] == port["protocol"]);
    number.as_u64().filter(|_| !clash).and_then(|number| u32::try_from(number).ok())
}

pub(super) fn set_port(service: &mut Value, place: &Place, number: u32) {
    match place {
        Place::Port(at) => service["spec"]["ports"][*at]["nodePort"] = json!(number),
        Place::HealthCheck => service["spec"]["healthCheckNodePort"] = json!(number),
    }
}

/// Writes the address and the families that go with it.
pub(super) fn complete(service: &mut Value, address: Option<&str>) {
    if kind(service) == "ExternalName" {
        return;
    }
    let spec = &mut service["spec"];
    let address = address.unwrap_or("None");
    spec["clusterIP"] = address.into();
    if spec.get("clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = json!([address]);
    }
    if spec.get("ipFamilies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec.get("ipFamilyPolicy").and_then(Value::as_str).is_none_or(str::is_empty) {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
}

/// The cluster has IPv4 addresses only.
pub(super) fn check_families(service: &Value) -> Vec<Invalid> {
    let spec = &service["spec"];
    let mut errors = vec![];
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(Invalid::value("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
    }
    for (at, family) in spec["ipFamilies"].as_array().into_iter().flatten().enumerate() {
        if family == "IPv6" {
            errors.push(Invalid::value(format!("spec.ipFamilies[{at}]"), family, "not configured on this cluster"));
        }
    }
    errors
}

/// A client that sends a Service back without what was allocated keeps it; one that changes the type loses what the new
/// type has no use for, unless it says something else itself.
pub(super) fn carry_over(service: &mut Value, old: &Value) {
    drop_unused(service, old);
    let had_address = needs_address(old) && address(old).is_some();
    if had_address && kind(service) == "ExternalName" {
        if service["spec"]["clusterIP"] == old["spec"]["clusterIP"] {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                remove(&mut service["spec"], field);
            }
        }
    } else if kind(old) != "ExternalName" && address(service).is_none() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                service["spec"][field] = value.clone();
            }
        }
    }
    let old_ports: Vec<Value> = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let (keeps, loses) =
        (may_have_node_ports(old) && needs_node_ports(service), may_have_node_ports(old) && !may_have_node_ports(service));
    for port in service["spec"].get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        let before = old_ports.iter().find(same).and_then(|other| other.get("nodePort")).cloned();
        let now = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
        match before {
            Some(before) if keeps && now == 0 => port["nodePort"] = before,
            Some(_) if loses && old_ports.iter().any(|other| other["nodePort"].as_u64() == Some(now)) => remove(port, "nodePort"),
            _ => {}
        }
    }
    let (had, has) = (needs_health_check(old), needs_health_check(service));
    let before = old["spec"].get("healthCheckNodePort").cloned();
    let now = service["spec"].get("healthCheckNodePort").cloned();
    match before {
        Some(before) if had && has && now.as_ref().and_then(Value::as_u64).unwrap_or(0) == 0 => {
            service["spec"]["healthCheckNodePort"] = before;
        }
        Some(before) if had && !has && now.as_ref() == Some(&before) => remove(&mut service["spec"], "healthCheckNodePort"),
        _ => {}
    }
}

/// Whether traffic comes in from outside, so that there is a policy for it.
fn is_external(service: &Value) -> bool {
    let has_ips = service["spec"]["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    may_have_node_ports(service) || kind(service) == "ClusterIP" && has_ips
}

/// Fields of the old type that the new one may not have, and that the client only sent back.
fn drop_unused(service: &mut Value, old: &Value) {
    let balancer = kind(old) == "LoadBalancer" && kind(service) != "LoadBalancer";
    let external = is_external(old) && !is_external(service);
    let unused =
        [("externalTrafficPolicy", external), ("allocateLoadBalancerNodePorts", balancer), ("loadBalancerClass", balancer)];
    for (field, unused) in unused {
        if unused && service["spec"].get(field).is_some() && service["spec"].get(field) == old["spec"].get(field) {
            remove(&mut service["spec"], field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec})
    }

    #[test]
    fn a_service_that_is_sent_back_bare_keeps_what_it_had() {
        let old = service(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}));
        let mut new =
            service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}));
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.9");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(matches!(next_missing_port(&new), Some(Place::Port(1))));
    }

    #[test]
    fn a_change_of_type_drops_what_has_no_use_any_more() {
        let old = service(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}));
        let mut plain = old.clone();
        plain["spec"]["type"] = json!("ClusterIP");
        carry_over(&mut plain, &old);
        assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
        assert_eq!(plain["spec"]["clusterIP"], "10.96.0.9");
        let mut named = old.clone();
        named["spec"]["type"] = json!("ExternalName");
        carry_over(&mut named, &old);
        assert_eq!(named["spec"].get("clusterIP"), None);
        assert!(held(&named, &pools()).is_empty());
    }

    #[test]
    fn policies_go_with_the_type_that_has_them() {
        let old = service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "x"}));
        let mut plain = old.clone();
        plain["spec"]["type"] = json!("ClusterIP");
        carry_over(&mut plain, &old);
        assert_eq!(plain["spec"], json!({"type": "ClusterIP"}));
        let mut said = old.clone();
        said["spec"]["type"] = json!("ClusterIP");
        said["spec"]["externalTrafficPolicy"] = json!("Local");
        carry_over(&mut said, &old);
        assert_eq!(said["spec"]["externalTrafficPolicy"], "Local");
    }

    #[test]
    fn two_protocols_of_a_port_share_a_number() {
        let dns = service(json!({"type": "NodePort",
            "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}, {"port": 53, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]}));
        assert_eq!(shared_port(&dns, &Place::Port(1)), Some(30053));
        assert_eq!(shared_port(&dns, &Place::Port(2)), None);
    }

    #[test]
    fn what_is_held_depends_on_the_type() {
        let balancer = service(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30001, "ports": [{"port": 80, "nodePort": 30080}]}));
        let keys: Vec<String> = held(&balancer, &pools()).into_iter().collect();
        assert_eq!(keys, ["/allocations/clusterips/10.96.0.9", "/allocations/nodeports/30001", "/allocations/nodeports/30080"]);
        assert!(held(&service(json!({"clusterIP": "None"})), &pools()).is_empty());
        assert!(!needs_address(&service(json!({"clusterIPs": ["None"]}))));
    }

    fn pools() -> Pools {
        use super::super::Pool;
        Pools { addresses: Pool::addresses("10.96.0.0/16").unwrap(), ports: Pool::ports(&(30_000..=32_767)) }
    }
}
