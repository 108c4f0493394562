//! Where an app answers.

use crate::{Objects, condition, list, name, namespace, number, text};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub label: String,
    /// What a browser can open; `None`: nothing outside the cluster reaches it (yet).
    pub url: Option<String>,
}

/// Where a Service answers. `host` is where the nodes' ports are reached.
pub fn address(service: &Value, host: &str) -> Address {
    let port = number(service, "/spec/ports/0/port");
    let link = |url: String| Address { label: url.clone(), url: Some(url) };
    match text(service, "/spec/type") {
        "NodePort" => link(format!("http://{}:{}", bracketed(host), number(service, "/spec/ports/0/nodePort"))),
        "LoadBalancer" => {
            let ingress = |what: &str| text(service, &format!("/status/loadBalancer/ingress/0/{what}"));
            let host = if ingress("hostname").is_empty() { ingress("ip") } else { ingress("hostname") };
            match host {
                "" => Address { label: "its load balancer is being made".into(), url: None },
                host => link(format!("http://{}:{port}", bracketed(host))),
            }
        }
        _ => Address { label: format!("{}.{}.svc:{port}, inside the cluster", name(service), namespace(service)), url: None },
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Where the nodes' ports are reached from outside: the host that the browser uses already if that is a node, else an address of
/// a ready node, an outer one rather than an inner one.
pub fn node_host(nodes: &Objects, browsers: &str) -> Option<String> {
    let ready = |node: &&std::sync::Arc<Value>| condition(node, "Ready").is_some_and(|(status, ..)| status == "True");
    let mut found: Option<(&str, &str)> = None;
    for address in nodes.values().filter(ready).flat_map(|node| list(node, "/status/addresses")) {
        let (kind, host) = (text(address, "/type"), text(address, "/address"));
        if host == browsers {
            return Some(host.to_owned());
        }
        let better = match (kind, found) {
            ("ExternalIP", Some((known, _))) => known != "ExternalIP",
            ("ExternalIP" | "InternalIP", None) => true,
            _ => false,
        };
        if better {
            found = Some((kind, host));
        }
    }
    found.map(|(_, host)| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_service_is_linked_where_a_browser_reaches_it() {
        let service =
            |spec: Value, status: Value| json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec, "status": status});
        let url = |service: &Value| address(service, "192.0.2.1").url;
        let inner = service(json!({"type": "ClusterIP", "ports": [{"port": 80}]}), json!({}));
        assert_eq!(address(&inner, ""), Address { label: "web.a.svc:80, inside the cluster".into(), url: None });
        let outer = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}), json!({}));
        assert_eq!(url(&outer).as_deref(), Some("http://192.0.2.1:30080"));
        let balanced = |status| service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}), status);
        assert_eq!(url(&balanced(json!({}))), None);
        let made = balanced(json!({"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}]}}));
        assert_eq!(url(&made).as_deref(), Some("http://[2001:db8::1]:80"));
    }

    #[test]
    fn the_browsers_own_host_is_taken_if_it_is_a_node() {
        let node = |name: &str, status: &str, inner: &str, outer: Option<&str>| {
            let mut addresses = vec![json!({"type": "InternalIP", "address": inner})];
            addresses.extend(outer.map(|outer| json!({"type": "ExternalIP", "address": outer})));
            let ready = json!({"type": "Ready", "status": status});
            (name.to_owned(), Arc::new(json!({"status": {"conditions": [ready], "addresses": addresses}})))
        };
        let nodes: Objects = [
            node("a", "False", "10.0.0.1", None),
            node("b", "True", "10.0.0.2", None),
            node("c", "True", "10.0.0.3", Some("192.0.2.3")),
        ]
        .into();
        let hosts = ["10.0.0.2", "10.0.0.1", "localhost"].map(|browsers| node_host(&nodes, browsers));
        assert_eq!(hosts, ["10.0.0.2", "192.0.2.3", "192.0.2.3"].map(|host| Some(host.to_owned())));
        assert_eq!(node_host(&Objects::new(), "localhost"), None);
    }
}
