//! NetworkPolicy: who may talk to some pods, and to whom they may talk.

use super::{addresses, fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, bump_generation};
use serde_json::{Value, json};
use slipway_api::IntOrString;
pub use slipway_api::networking::NetworkPolicy;
use slipway_api::networking::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};

const POLICY_TYPES: [&str; 2] = ["Ingress", "Egress"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

impl Kind for NetworkPolicy {
    const NAMES: Names = Names {
        short: &["netpol"],
        ..Names::namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy")
    };

    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::made(object, "spec") else { return };
        fill::missing(spec, "podSelector", json!({}));
        for direction in ["ingress", "egress"] {
            for rule in fill::items(spec, direction) {
                for port in fill::items(rule, "ports") {
                    fill::missing(port, "protocol", "TCP");
                }
            }
        }
        if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
            let sends = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            spec["policyTypes"] = if sends { json!(POLICY_TYPES) } else { json!(["Ingress"]) };
        }
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        check(&self.spec.clone().unwrap_or_default())
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("Pod-Selector", "The pods that it is about."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let selector = self.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        vec![show::name(object), show::selector(selector), age(object, now)]
    }
}

fn check(spec: &NetworkPolicySpec) -> Vec<Invalid> {
    let mut errors = vec![];
    if let Some(selector) = &spec.pod_selector {
        rules::label_selector("spec.podSelector", selector, &mut errors);
    }
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = format!("spec.ingress[{index}]");
        ports(&at, rule.ports.as_deref(), &mut errors);
        peers(&format!("{at}.from"), rule.from.as_deref(), &mut errors);
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let at = format!("spec.egress[{index}]");
        ports(&at, rule.ports.as_deref(), &mut errors);
        peers(&format!("{at}.to"), rule.to.as_deref(), &mut errors);
    }
    let types = spec.policy_types.as_deref().unwrap_or(&[]);
    if types.len() > POLICY_TYPES.len() {
        let why = "may not specify more than two policyTypes";
        errors.push(Invalid::value("spec.policyTypes", &json!(types), why));
        return errors;
    }
    for (index, one) in types.iter().enumerate() {
        rules::maybe_one_of(&format!("spec.policyTypes[{index}]"), Some(one), &POLICY_TYPES, &mut errors);
    }
    errors
}

fn ports(at: &str, ports: Option<&[NetworkPolicyPort]>, errors: &mut Vec<Invalid>) {
    for (index, port) in ports.unwrap_or(&[]).iter().enumerate() {
        let at = format!("{at}.ports[{index}]");
        rules::maybe_one_of(&format!("{at}.protocol"), port.protocol.as_deref(), &PROTOCOLS, errors);
        let end = format!("{at}.endPort");
        if let Some(port) = &port.port {
            rules::port_or_name(&format!("{at}.port"), port, errors);
        }
        let Some(last) = port.end_port else { continue };
        match port.port {
            None => errors.push(Invalid::value(end, &json!(last), "may not be specified when `port` is not specified")),
            Some(IntOrString::String(_)) => {
                errors.push(Invalid::value(end, &json!(last), "may not be specified when `port` is non-numeric"));
            }
            Some(IntOrString::Int(first)) => {
                if last < first {
                    errors.push(Invalid::value(&end, &json!(last), "must be greater than or equal to `port`"));
                }
                rules::port(&end, last, errors);
            }
        }
    }
}

fn peers(at: &str, peers: Option<&[NetworkPolicyPeer]>, errors: &mut Vec<Invalid>) {
    for (index, peer) in peers.unwrap_or(&[]).iter().enumerate() {
        let at = format!("{at}[{index}]");
        for (field, selector) in [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)] {
            if let Some(selector) = selector {
                rules::label_selector(&format!("{at}.{field}"), selector, errors);
            }
        }
        if let Some(block) = &peer.ip_block {
            ip_block(&format!("{at}.ipBlock"), block, errors);
        }
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match (selects, peer.ip_block.is_some()) {
            (false, false) => errors.push(Invalid::required(at, "must specify a peer")),
            (true, true) => errors.push(Invalid::forbidden(at, "may not specify both ipBlock and another peer")),
            _ => {}
        }
    }
}

fn ip_block(at: &str, block: &IPBlock, errors: &mut Vec<Invalid>) {
    let place = format!("{at}.cidr");
    if block.cidr.is_empty() {
        errors.push(Invalid::required(place, ""));
        return;
    }
    addresses::lenient_cidr(&place, &block.cidr, errors);
    let Some(outer) = addresses::parse_cidr(&block.cidr) else { return };
    for (index, except) in block.except.iter().flatten().enumerate() {
        let place = format!("{at}.except[{index}]");
        addresses::lenient_cidr(&place, except, errors);
        if addresses::parse_cidr(except).is_some_and(|inner| !addresses::is_strictly_within(inner, outer)) {
            errors.push(Invalid::value(place, &json!(except), "must be a strict subset of `cidr`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Value {
        let mut it =
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec});
        Builtin::<super::NetworkPolicy>::new().fill_defaults(&mut it);
        it
    }

    fn texts(it: &Value) -> Vec<String> {
        let errors = Builtin::<super::NetworkPolicy>::new().validate(it);
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_policy_is_about_what_comes_in_and_if_it_says_so_about_what_goes_out() {
        let silent = policy(Value::Null);
        assert_eq!(silent["spec"], json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
        let both = policy(json!({"egress": [{"ports": [{"port": 53}]}]}));
        assert_eq!(both["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(both["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(policy(json!({"policyTypes": ["Egress"]}))["spec"]["policyTypes"], json!(["Egress"]));
        let row = Builtin::<super::NetworkPolicy>::new()
            .row(&policy(json!({"podSelector": {"matchLabels": {"a": "b"}}})), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1], "a=b");
    }

    #[test]
    fn ports_and_peers() {
        let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}});
        let good = policy(
            json!({"ingress": [{"from": [block, {"podSelector": {}}], "ports": [{"port": 80, "endPort": 90}, {"port": "http"}]}]}),
        );
        assert_eq!(texts(&good), Vec::<String>::new());
        let bad = policy(json!({"policyTypes": ["Sideways"], "egress": [{
            "ports": [{"port": 80, "endPort": 8}, {"port": "http", "endPort": 8}, {"endPort": 8}, {"protocol": "ICMP"}],
            "to": [{}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9", "x"]}}, {"ipBlock": {"cidr": ""}}],
        }]}));
        assert_eq!(
            texts(&bad),
            [
                "spec.egress[0].ports[0].endPort: Invalid value: 8: must be greater than or equal to `port`",
                "spec.egress[0].ports[1].endPort: Invalid value: 8: may not be specified when `port` is non-numeric",
                "spec.egress[0].ports[2].endPort: Invalid value: 8: may not be specified when `port` is not specified",
                "spec.egress[0].ports[3].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.egress[0].to[0]: Required value: must specify a peer",
                "spec.egress[0].to[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/9\": must be a strict subset of `cidr`",
                "spec.egress[0].to[1].ipBlock.except[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.egress[0].to[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.egress[0].to[2].ipBlock.cidr: Required value",
                "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\"",
            ]
        );
    }
}
