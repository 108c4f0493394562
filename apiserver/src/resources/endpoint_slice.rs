//! EndpointSlice: some of the addresses behind a service, and which of them are ready.

use super::{endpoints::endpoint_ip, fill, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::discovery::EndpointSlice;
use slipway_api::discovery::{Endpoint, EndpointPort};
use std::collections::BTreeSet;
use std::net::IpAddr;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const SHOWN_MAX: usize = 3;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

impl Kind for EndpointSlice {
    const NAMES: Names = Names::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice");

    fn fill_defaults(object: &mut Value) {
        for port in fill::items(object, "ports") {
            fill::missing(port, "name", "");
            fill::missing(port, "protocol", "TCP");
        }
    }

    /// It has a generation though it has no status.
    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        match self.address_type.as_str() {
            "" => errors.push(Invalid::required("addressType", "")),
            known if ADDRESS_TYPES.contains(&known) => {}
            other => errors.push(Invalid::not_supported("addressType", &json!(other), &ADDRESS_TYPES)),
        }
        let endpoints = self.endpoints.as_deref().unwrap_or(&[]);
        if endpoints.len() > ENDPOINTS_MAX {
            errors.push(Invalid::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
            return errors;
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            check_endpoint(&format!("endpoints[{index}]"), endpoint, &self.address_type, &mut errors);
        }
        check_ports(self.ports.as_deref().unwrap_or(&[]), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        if self.address_type == old.address_type {
            return vec![];
        }
        vec![Invalid::value("addressType", &json!(self.address_type), "field is immutable")]
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("AddressType", "Whether the addresses are IPv4, IPv6 or names."),
            Column::text("Ports", "The ports of all the addresses."),
            Column::text("Endpoints", "The addresses."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let port = |port: &EndpointPort| port.port.map_or("*".to_owned(), |number| number.to_string());
        let ports: Vec<String> = self.ports.iter().flatten().map(port).collect();
        let addresses: Vec<String> = self.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone()).collect();
        let list =
            |items: &[String]| json!(if items.is_empty() { show::UNSET.to_owned() } else { show::first(items, SHOWN_MAX) });
        vec![show::name(object), json!(self.address_type), list(&ports), list(&addresses), age(object, now)]
    }
}

fn check_endpoint(at: &str, endpoint: &Endpoint, address_type: &str, errors: &mut Vec<Invalid>) {
    let addresses = &endpoint.addresses;
    if addresses.is_empty() {
        errors.push(Invalid::required(format!("{at}.addresses"), "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(Invalid::too_many(format!("{at}.addresses"), addresses.len(), ADDRESSES_MAX));
    }
    for (index, address) in addresses.iter().enumerate() {
        let at = format!("{at}.addresses[{index}]");
        let parsed = address.parse::<IpAddr>();
        match address_type {
            "IPv4" if !matches!(parsed, Ok(IpAddr::V4(_))) => {
                errors.push(Invalid::value(at, &json!(address), "must be an IPv4 address"));
            }
            "IPv6" if !matches!(parsed, Ok(IpAddr::V6(_))) => {
                errors.push(Invalid::value(at, &json!(address), "must be an IPv6 address"));
            }
            "IPv4" | "IPv6" => errors.extend(endpoint_ip(&at, address)),
            "FQDN" => {
                let wrong = slipway_api::name::dns1123_subdomain(address);
                errors.extend(wrong.iter().map(|why| Invalid::value(&at, &json!(address), why)));
            }
            _ => {}
        }
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        let wrong = slipway_api::name::dns1123_subdomain(node);
        errors.extend(wrong.iter().map(|why| Invalid::value(format!("{at}.nodeName"), &json!(node), why)));
    }
    if let Some(hostname) = endpoint.hostname.as_deref() {
        let wrong = slipway_api::name::dns1123_label(hostname);
        errors.extend(wrong.iter().map(|why| Invalid::value(format!("{at}.hostname"), &json!(hostname), why)));
    }
}

fn check_ports(ports: &[EndpointPort], errors: &mut Vec<Invalid>) {
    if ports.len() > PORTS_MAX {
        errors.push(Invalid::too_many("ports", ports.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = format!("ports[{index}]");
        let name = port.name.as_deref().unwrap_or("");
        if !name.is_empty() {
            let wrong = slipway_api::name::dns1123_label(name);
            errors.extend(wrong.iter().map(|why| Invalid::value(format!("{at}.name"), &json!(name), why)));
        }
        if !seen.insert(name) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(name)));
        }
        if let Some(number) = port.port.filter(|number| !(1..=65535).contains(number)) {
            errors.push(Invalid::value(format!("{at}.port"), &json!(number), "must be between 1 and 65535, inclusive"));
        }
        match port.protocol.as_deref() {
            None => errors.push(Invalid::required(format!("{at}.protocol"), "")),
            Some("TCP" | "UDP" | "SCTP") => {}
            Some(other) => {
                errors.push(Invalid::not_supported(format!("{at}.protocol"), &json!(other), &["SCTP", "TCP", "UDP"]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn slices_are_of_one_address_type() {
        let strategy = Builtin::<super::EndpointSlice>::new();
        let slice = |address_type: &str, address: &str| {
            let mut slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"},
                "addressType": address_type, "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]});
            strategy.fill_defaults(&mut slice);
            slice
        };
        assert_eq!(strategy.validate(&slice("IPv4", "10.0.0.1")), []);
        assert_eq!(strategy.validate(&slice("IPv6", "fd00::1")), []);
        let text = |errors: Vec<crate::http::error::Invalid>| format!("{}: {}", errors[0].field, errors[0].message);
        assert_eq!(
            text(strategy.validate(&slice("IPv4", "fd00::1"))),
            "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address"
        );
        assert_eq!(
            text(strategy.validate(&slice("IPX", "1"))),
            "addressType: Unsupported value: \"IPX\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""
        );
        assert_eq!(
            text(strategy.validate_update(&slice("IPv4", "10.0.0.1"), &slice("IPv6", "fd00::1"))),
            "addressType: Invalid value: \"IPv4\": field is immutable"
        );
        let row = strategy.row(&slice("IPv4", "10.0.0.1"), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!("IPv4"), json!("80"), json!("10.0.0.1")]);
    }
}
