//! Endpoints: the addresses behind a service, in the form from before EndpointSlices.

use super::{fill, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::core::Endpoints;
use slipway_api::core::{EndpointAddress, EndpointPort};
use std::net::IpAddr;

const SHOWN_MAX: usize = 3;

impl Kind for Endpoints {
    const NAMES: Names = Names { short: &["ep"], ..Names::namespaced("", "v1", "Endpoints", "endpoints", "endpoints") };

    fn fill_defaults(object: &mut Value) {
        for subset in fill::items(object, "subsets") {
            for port in fill::items(subset, "ports") {
                fill::empty(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        for (index, subset) in self.subsets.iter().flatten().enumerate() {
            let at = format!("subsets[{index}]");
            let (ready, waiting) = (subset.addresses.as_deref(), subset.not_ready_addresses.as_deref());
            if ready.is_none_or(<[_]>::is_empty) && waiting.is_none_or(<[_]>::is_empty) {
                errors.push(Invalid::required(&at, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
                for (index, address) in addresses.unwrap_or(&[]).iter().enumerate() {
                    check_address(&format!("{at}.{field}[{index}]"), address, &mut errors);
                }
            }
            let ports = subset.ports.as_deref().unwrap_or(&[]);
            for (index, port) in ports.iter().enumerate() {
                check_port(&format!("{at}.ports[{index}]"), port, ports.len() > 1, &mut errors);
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("Endpoints", "The addresses that are ready."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut all = vec![];
        for subset in self.subsets.iter().flatten() {
            let addresses = subset.addresses.as_deref().unwrap_or(&[]);
            match subset.ports.as_deref().unwrap_or(&[]) {
                [] => all.extend(addresses.iter().map(|address| address.ip.clone())),
                ports => {
                    for port in ports {
                        all.extend(addresses.iter().map(|address| match address.ip.contains(':') {
                            true => format!("[{}]:{}", address.ip, port.port),
                            false => format!("{}:{}", address.ip, port.port),
                        }));
                    }
                }
            }
        }
        vec![show::name(object), show::or_none(Some(&show::first(&all, SHOWN_MAX))), age(object, now)]
    }
}

fn check_address(at: &str, address: &EndpointAddress, errors: &mut Vec<Invalid>) {
    errors.extend(endpoint_ip(&format!("{at}.ip"), &address.ip));
    if let Some(hostname) = address.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        let wrong = slipway_api::name::dns1123_label(hostname);
        errors.extend(wrong.iter().map(|why| Invalid::value(format!("{at}.hostname"), &json!(hostname), why)));
    }
    if let Some(node) = address.node_name.as_deref() {
        let wrong = slipway_api::name::dns1123_subdomain(node);
        errors.extend(wrong.iter().map(|why| Invalid::value(format!("{at}.nodeName"), &json!(node), why)));
    }
}

/// Addresses that traffic must not be sent to from a service: the node itself and link-local metadata servers.
pub fn endpoint_ip(at: &str, text: &str) -> Vec<Invalid> {
    let Ok(ip) = text.parse::<IpAddr>() else {
        return vec![Invalid::value(at, &json!(text), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")];
    };
    let mut errors = vec![];
    let mut refuse = |why: String| errors.push(Invalid::value(at, &json!(text), &why));
    if ip.is_unspecified() {
        refuse(format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if link_local_multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned());
    }
    errors
}

fn check_port(at: &str, port: &EndpointPort, named: bool, errors: &mut Vec<Invalid>) {
    match port.name.as_deref().unwrap_or("") {
        "" if named => errors.push(Invalid::required(format!("{at}.name"), "")),
        "" => {}
        name => {
            let wrong = slipway_api::name::dns1123_label(name);
            errors.extend(wrong.iter().map(|why| Invalid::value(format!("{at}.name"), &json!(name), why)));
        }
    }
    if !(1..=65535).contains(&port.port) {
        errors.push(Invalid::value(format!("{at}.port"), &json!(port.port), "must be between 1 and 65535, inclusive"));
    }
    match port.protocol.as_deref().unwrap_or("") {
        "" => errors.push(Invalid::required(format!("{at}.protocol"), "")),
        "TCP" | "UDP" | "SCTP" => {}
        other => errors.push(Invalid::not_supported(format!("{at}.protocol"), &json!(other), &["SCTP", "TCP", "UDP"])),
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn addresses_and_ports_are_checked_and_shown() {
        let strategy = Builtin::<super::Endpoints>::new();
        let mut good = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}]});
        strategy.fill_defaults(&mut good);
        assert_eq!(strategy.validate(&good), []);
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1], "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...");
        let bad = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}, "subsets": [
            {"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 0, "protocol": "ICMP"}]}, {}]});
        let fields: Vec<String> = strategy.validate(&bad).into_iter().map(|error| error.field).collect();
        assert_eq!(
            fields,
            [
                "subsets[0].addresses[0].ip",
                "subsets[0].addresses[1].ip",
                "subsets[0].ports[0].port",
                "subsets[0].ports[0].protocol",
                "subsets[1]"
            ]
        );
        assert_eq!(strategy.row(&bad, jiff::Timestamp::UNIX_EPOCH)[1], "127.0.0.1:0,x:0");
    }
}
