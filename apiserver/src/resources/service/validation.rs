//! What a Service must be like, and what of it stays once it is given.

use crate::http::error::Invalid;
use crate::resources::endpoints::endpoint_ip;
use crate::resources::rules;
use serde_json::{Value, json};
use slipway_api::core::{Service, ServicePort, ServiceSpec};
use slipway_api::name;
use std::collections::BTreeSet;
use std::net::IpAddr;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS: std::ops::RangeInclusive<i32> = 1..=86_400;
/// The port of the node agent, which must not be published.
const AGENT_PORT: i32 = 10_250;
const NONE: &str = "None";

pub fn check(service: &Service) -> Vec<Invalid> {
    let mut errors = vec![];
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.as_deref().unwrap_or("");
    let headless = spec.cluster_ip.as_deref() == Some(NONE);
    let ports = spec.ports.as_deref().unwrap_or(&[]);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(Invalid::required("spec.ports", ""));
    }
    check_kind(&spec, kind, headless, &mut errors);
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        check_port(&format!("spec.ports[{index}]"), port, ports.len() > 1, &mut names, &mut errors);
    }
    rules::labels("spec.selector", spec.selector.as_ref(), &mut errors);
    check_affinity(&spec, &mut errors);
    check_addresses(&spec, &mut errors);
    rules::one_of("spec.type", spec.type_.as_deref(), &TYPES, &mut errors);
    check_node_ports(ports, kind, &mut errors);
    for (index, port) in ports.iter().enumerate() {
        if ports[..index].iter().any(|other| other.port == port.port && other.protocol == port.protocol) {
            let shown = json!({"protocol": port.protocol, "port": port.port});
            errors.push(Invalid::duplicate(format!("spec.ports[{index}]"), &shown));
        }
    }
    check_policies(&spec, kind, &mut errors);
    errors
}

fn check_kind(spec: &ServiceSpec, kind: &str, headless: bool, errors: &mut Vec<Invalid>) {
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(Invalid::value("spec.clusterIPs[0]", &json!(NONE), &why));
        }
        "ExternalName" => {
            if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())
                || spec.cluster_ip.as_ref().is_some_and(|ip| !ip.is_empty())
            {
                errors.push(Invalid::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
            }
            match spec.external_name.as_deref().unwrap_or("") {
                "" => errors.push(Invalid::required("spec.externalName", "")),
                external => {
                    let bare = external.strip_suffix('.').unwrap_or(external);
                    rules::all("spec.externalName", external, name::dns1123_subdomain(bare), errors);
                }
            }
        }
        _ => {}
    }
    if kind == "LoadBalancer" {
        for (index, port) in spec.ports.iter().flatten().enumerate().filter(|(_, port)| port.port == AGENT_PORT) {
            let why = format!("may not expose port {AGENT_PORT} externally since it is used by kubelet");
            errors.push(Invalid::value(format!("spec.ports[{index}]"), &json!(port.port), &why));
        }
    } else {
        for (field, given) in [
            ("loadBalancerSourceRanges", spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty())),
            ("allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports.is_some()),
            ("loadBalancerClass", spec.load_balancer_class.is_some()),
        ] {
            if given {
                errors.push(Invalid::forbidden(format!("spec.{field}"), "may only be used when `type` is 'LoadBalancer'"));
            }
        }
    }
}

fn check_port<'a>(at: &str, port: &'a ServicePort, named: bool, names: &mut BTreeSet<&'a str>, errors: &mut Vec<Invalid>) {
    match port.name.as_deref().unwrap_or("") {
        "" if named => errors.push(Invalid::required(format!("{at}.name"), "")),
        "" => {}
        text => {
            rules::all(&format!("{at}.name"), text, name::dns1123_label(text), errors);
            if !names.insert(text) {
                errors.push(Invalid::duplicate(format!("{at}.name"), &json!(text)));
            }
        }
    }
    rules::port(&format!("{at}.port"), port.port, errors);
    rules::one_of(&format!("{at}.protocol"), port.protocol.as_deref(), &rules::PROTOCOLS, errors);
    if let Some(target) = &port.target_port {
        rules::port_or_name(&format!("{at}.targetPort"), target, errors);
    }
    if let Some(protocol) = port.app_protocol.as_deref() {
        rules::all(&format!("{at}.appProtocol"), protocol, name::qualified_name(protocol), errors);
    }
}

fn check_affinity(spec: &ServiceSpec, errors: &mut Vec<Invalid>) {
    rules::one_of("spec.sessionAffinity", spec.session_affinity.as_deref(), &["ClientIP", "None"], errors);
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds);
    if let Some(seconds) = seconds.filter(|seconds| !AFFINITY_SECONDS.contains(seconds)) {
        let why = format!("must be greater than 0 and less than {}", AFFINITY_SECONDS.end());
        errors.push(Invalid::value("spec.sessionAffinityConfig.clientIP.timeoutSeconds", &json!(seconds), &why));
    }
}

fn check_addresses(spec: &ServiceSpec, errors: &mut Vec<Invalid>) {
    let ips = spec.cluster_ips.as_deref().unwrap_or(&[]);
    let first = spec.cluster_ip.as_deref().unwrap_or("");
    if !ips.is_empty() && ips[0] != first {
        errors.push(Invalid::value("spec.clusterIPs", &json!(ips), "first value must match `clusterIP`"));
    }
    let listed: Vec<&str> = if ips.is_empty() { vec![first] } else { ips.iter().map(String::as_str).collect() };
    for (index, ip) in listed.into_iter().enumerate().filter(|(_, ip)| !ip.is_empty() && *ip != NONE) {
        if ip.parse::<IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(Invalid::value(format!("spec.clusterIPs[{index}]"), &json!(ip), why));
        }
    }
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        rules::one_of(&format!("spec.ipFamilies[{index}]"), Some(family), &["IPv4", "IPv6"], errors);
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    rules::maybe_one_of("spec.ipFamilyPolicy", spec.ip_family_policy.as_deref(), &policies, errors);
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        errors.extend(endpoint_ip(&format!("spec.externalIPs[{index}]"), ip));
    }
    if let Some(ip) = spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty() && ip.parse::<IpAddr>().is_err()) {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(Invalid::value("spec.loadBalancerIP", &json!(ip), why));
    }
}

fn check_node_ports(ports: &[ServicePort], kind: &str, errors: &mut Vec<Invalid>) {
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = port.node_port.filter(|number| *number != 0) else { continue };
        let at = format!("spec.ports[{index}].nodePort");
        if !matches!(kind, "NodePort" | "LoadBalancer") {
            errors.push(Invalid::forbidden(at, &format!("may not be used when `type` is '{kind}'")));
        } else if ports[..index].iter().any(|other| other.node_port == Some(number) && other.protocol == port.protocol) {
            errors.push(Invalid::duplicate(at, &json!(number)));
        }
    }
}

fn check_policies(spec: &ServiceSpec, kind: &str, errors: &mut Vec<Invalid>) {
    let from_outside = matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    let policies = ["Cluster", "Local"];
    match spec.external_traffic_policy.as_deref().filter(|policy| !policy.is_empty()) {
        Some(policy) if !from_outside => {
            let why = "may only be set for externally-accessible services";
            errors.push(Invalid::value("spec.externalTrafficPolicy", &json!(policy), why));
        }
        policy => rules::maybe_one_of("spec.externalTrafficPolicy", policy, &policies, errors),
    }
    if let Some(number) = spec.health_check_node_port.filter(|number| *number != 0)
        && (kind != "LoadBalancer" || spec.external_traffic_policy.as_deref() != Some("Local"))
    {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Invalid::value("spec.healthCheckNodePort", &json!(number), why));
    }
    if kind != "ExternalName" {
        rules::one_of("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), &policies, errors);
    }
    let ways = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    rules::maybe_one_of("spec.trafficDistribution", spec.traffic_distribution.as_deref(), &ways, errors);
}

pub fn check_update(new: &Service, old: &Service) -> Vec<Invalid> {
    let mut errors = vec![];
    let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    if external(&new) || external(&old) {
        return errors;
    }
    let ip = |spec: &ServiceSpec| spec.cluster_ip.clone().unwrap_or_default();
    match (ip(&old), ip(&new)) {
        (old, _) if old.is_empty() => {}
        (old, now) if old == now => {}
        (_, now) => {
            let list = new.cluster_ips.clone().filter(|ips| !ips.is_empty()).unwrap_or_else(|| vec![now.clone()]);
            let why = if now.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" };
            errors.push(Invalid::value("spec.clusterIPs[0]", &json!(list), why));
        }
    }
    if old.type_ == new.type_ && old.load_balancer_class.is_some() && old.load_balancer_class != new.load_balancer_class {
        let why = "may not change once set";
        errors.push(Invalid::value("spec.loadBalancerClass", &json!(new.load_balancer_class), why));
    }
    errors
}

/// What was allocated for the old Service stays with a new one that doesn't speak of it.
pub fn keep_allocated(spec: &mut Value, old: &Value) {
    let kind = |spec: &Value| spec["type"].as_str().unwrap_or("ClusterIP").to_owned();
    let (new_kind, old_kind) = (kind(spec), kind(old));
    if new_kind == "ExternalName" || old_kind == "ExternalName" {
        return;
    }
    let empty = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || *value == "" || *value == json!([]));
    if empty(spec.get("clusterIP")) && empty(spec.get("clusterIPs")) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.get(field)
                && empty(spec.get(field))
            {
                spec[field] = value.clone();
            }
        }
    }
    let on_nodes = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if on_nodes(&new_kind) && on_nodes(&old_kind) {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let same = |other: &&Value| other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol");
            let had = old.get("ports").and_then(Value::as_array).into_iter().flatten().find(same);
            if let Some(number) = had.and_then(|had| had.get("nodePort")).cloned() {
                crate::resources::fill::empty(port, "nodePort", number);
            }
        }
    }
    if new_kind == "LoadBalancer"
        && old_kind == "LoadBalancer"
        && spec["externalTrafficPolicy"] == "Local"
        && let Some(number) = old.get("healthCheckNodePort").cloned()
    {
        crate::resources::fill::empty(spec, "healthCheckNodePort", number);
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn service(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
        Builtin::<super::Service>::new().fill_defaults(&mut it);
        it
    }

    fn wrong(spec: Value) -> Vec<String> {
        let errors = Builtin::<super::Service>::new().validate(&service(spec));
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn ports_and_types() {
        assert_eq!(wrong(json!({"ports": [{"port": 80, "targetPort": "http"}], "selector": {"a": "b"}})), Vec::<String>::new());
        assert_eq!(wrong(json!({"clusterIP": "None"})), Vec::<String>::new());
        assert_eq!(wrong(json!({"type": "ExternalName", "externalName": "example.com"})), Vec::<String>::new());
        assert_eq!(wrong(json!({})), ["spec.ports: Required value"]);
        assert_eq!(wrong(json!({"type": "ExternalName"})), ["spec.externalName: Required value"]);
        assert_eq!(
            wrong(
                json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}, {"port": 0, "nodePort": 30000, "targetPort": "-"}]})
            ),
            [
                "spec.ports[1].name: Duplicate value: \"a\"",
                "spec.ports[2].name: Required value",
                "spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[2].targetPort: Invalid value: \"-\": must contain at least one letter (a-z)",
                "spec.ports[2].targetPort: Invalid value: \"-\": must not begin or end with a hyphen",
                "spec.ports[2].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ]
        );
        assert_eq!(
            wrong(
                json!({"type": "Magic", "ports": [{"port": 80}], "sessionAffinity": "Always", "externalTrafficPolicy": "Local"})
            ),
            [
                "spec.sessionAffinity: Unsupported value: \"Always\": supported values: \"ClientIP\", \"None\"",
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                "spec.internalTrafficPolicy: Required value",
            ]
        );
        assert_eq!(
            wrong(json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]})),
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"]
        );
    }

    #[test]
    fn addresses_stay() {
        let strategy = Builtin::<super::Service>::new();
        let old = service(json!({"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "nodePort": 30080}]}));
        let mut silent = service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}));
        strategy.prepare_update(&mut silent, &old);
        assert_eq!(silent["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(silent["spec"]["ports"][0]["nodePort"], 30080);
        assert!(silent["spec"]["ports"][1].get("nodePort").is_none());
        assert_eq!(strategy.validate_update(&silent, &old), []);
        let mut moved = old.clone();
        moved["spec"]["clusterIP"] = json!("10.96.0.8");
        moved["spec"]["clusterIPs"] = json!(["10.96.0.8"]);
        let errors = strategy.validate_update(&moved, &old);
        assert_eq!(
            (errors[0].field.as_str(), errors[0].message.as_str()),
            ("spec.clusterIPs[0]", "Invalid value: [\"10.96.0.8\"]: may not change once set")
        );
    }
}
