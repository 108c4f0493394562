//! Ingress: which requests from outside go to which Service.

use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::networking::Ingress;
use slipway_api::networking::{HTTPIngressPath, IngressBackend, IngressRule, IngressSpec, IngressTLS};

/// How the class was named before there was a field.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const HOSTS_SHOWN: usize = 3;

impl Kind for Ingress {
    const NAMES: Names = Names {
        short: &["ing"],
        status: true,
        ..Names::namespaced("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress")
    };

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check(&self.spec.clone().unwrap_or_default(), &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Class", "Who carries it out."),
            Column::text("Hosts", "The hosts whose requests it is about."),
            Column::text("Address", "Where requests come in."),
            Column::text("Ports", "The ports at which requests come in."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let addresses = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
        let address = |ip: &Option<String>, hostname: &Option<String>| {
            let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
            given(ip).or_else(|| given(hostname))
        };
        let addresses: Vec<String> = addresses.filter_map(|one| address(&one.ip, &one.hostname)).collect();
        let secure = spec.tls.as_ref().is_some_and(|tls| !tls.is_empty());
        vec![
            show::name(object),
            show::or_none(spec.ingress_class_name.as_deref()),
            json!(hosts(&spec)),
            json!(addresses.join(",")),
            json!(if secure { "80, 443" } else { "80" }),
            age(object, now),
        ]
    }
}

fn hosts(spec: &IngressSpec) -> String {
    let hosts = spec.rules.iter().flatten().filter_map(|rule| rule.host.clone()).filter(|host| !host.is_empty());
    let hosts: Vec<String> = hosts.collect();
    if hosts.is_empty() { "*".into() } else { show::first(&hosts, HOSTS_SHOWN) }
}

fn check(spec: &IngressSpec, errors: &mut Vec<Invalid>) {
    let rules = spec.rules.as_deref().unwrap_or(&[]);
    match &spec.default_backend {
        Some(backend) => check_backend("spec.defaultBackend", backend, errors),
        None if rules.is_empty() => {
            let why = "either `defaultBackend` or `rules` must be specified";
            errors.push(Invalid::value("spec", &json!(rules), why));
        }
        None => {}
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(&format!("spec.rules[{index}]"), rule, errors);
    }
    for (index, tls) in spec.tls.iter().flatten().enumerate() {
        check_tls(&format!("spec.tls[{index}]"), tls, errors);
    }
    if let Some(class) = &spec.ingress_class_name {
        rules::all("spec.ingressClassName", class, name::dns1123_subdomain(class), errors);
    }
}

fn check_host(at: &str, host: &str, errors: &mut Vec<Invalid>) {
    match host.strip_prefix("*.") {
        Some(rest) if host.contains('*') && name::dns1123_subdomain(rest).is_empty() => {}
        _ if host.contains('*') => {
            let why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
                       lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', \
                       regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            errors.push(Invalid::value(at, &json!(host), why));
        }
        _ => rules::all(at, host, name::dns1123_subdomain(host), errors),
    }
}

fn check_tls(at: &str, tls: &IngressTLS, errors: &mut Vec<Invalid>) {
    for (index, host) in tls.hosts.iter().flatten().enumerate() {
        check_host(&format!("{at}.hosts[{index}]"), host, errors);
    }
    if let Some(secret) = tls.secret_name.as_deref().filter(|secret| !secret.is_empty()) {
        rules::all(&format!("{at}.secretName"), secret, name::dns1123_subdomain(secret), errors);
    }
}

fn check_rule(at: &str, rule: &IngressRule, errors: &mut Vec<Invalid>) {
    if let Some(host) = rule.host.as_deref().filter(|host| !host.is_empty()) {
        let at = format!("{at}.host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(Invalid::value(&at, &json!(host), "must be a DNS name, not an IP address"));
        } else {
            check_host(&at, host, errors);
        }
    }
    let Some(http) = &rule.http else { return };
    if http.paths.is_empty() {
        errors.push(Invalid::required(format!("{at}.http.paths"), ""));
    }
    for (index, path) in http.paths.iter().enumerate() {
        let at = format!("{at}.http.paths[{index}]");
        check_path(&at, path, errors);
        check_backend(&format!("{at}.backend"), &path.backend, errors);
    }
}

fn check_path(at: &str, path: &HTTPIngressPath, errors: &mut Vec<Invalid>) {
    let text = path.path.as_deref().unwrap_or("");
    let place = format!("{at}.path");
    let mut refuse = |why: &str| errors.push(Invalid::value(&place, &json!(text), why));
    match path.path_type.as_str() {
        "" => errors.push(Invalid::required(format!("{at}.pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                refuse("must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                refuse(&format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                refuse(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" if !text.is_empty() && !text.starts_with('/') => refuse("must be an absolute path"),
        "ImplementationSpecific" => {}
        other => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(Invalid::not_supported(format!("{at}.pathType"), &json!(other), &types));
        }
    }
}

fn check_backend(at: &str, backend: &IngressBackend, errors: &mut Vec<Invalid>) {
    let mut refuse = |why: &str| errors.push(Invalid::value(at, &json!(""), why));
    let service = match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => return refuse("cannot set both resource and service backends"),
        (None, None) => return refuse("resource or service backend is required"),
        (Some(_), None) => return,
        (None, Some(service)) => service,
    };
    match service.name.as_str() {
        "" => errors.push(Invalid::required(format!("{at}.service.name"), "")),
        text => rules::all(&format!("{at}.service.name"), text, name::dns1035_label(text), errors),
    }
    let port = service.port.clone().unwrap_or_default();
    let (text, number) = (port.name.as_deref().unwrap_or(""), port.number.unwrap_or(0));
    match (text, number) {
        ("", 0) => errors.push(Invalid::required(at, "port name or number is required")),
        ("", number) => rules::port(&format!("{at}.service.port.number"), number, errors),
        (text, 0) => rules::all(&format!("{at}.service.port.name"), text, rules::port_name(text), errors),
        _ => errors.push(Invalid::value(at, &json!(""), "cannot set both port name & port number")),
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn ingress(spec: Value) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": spec})
    }

    fn errors(spec: Value) -> Vec<String> {
        let errors = Builtin::<super::Ingress>::new().validate(&ingress(spec));
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn rule(host: &str, path: &str, type_: &str, backend: Value) -> Value {
        json!({"rules": [{"host": host, "http": {"paths": [{"path": path, "pathType": type_, "backend": backend}]}}]})
    }

    #[test]
    fn rules_say_which_requests_go_where() {
        let web = || json!({"service": {"name": "web", "port": {"number": 80}}});
        assert_eq!(errors(rule("*.example.com", "/a", "Prefix", web())), Vec::<String>::new());
        assert_eq!(errors(json!({"defaultBackend": web()})), Vec::<String>::new());
        assert_eq!(errors(json!({})), ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"]);
        let path = "spec.rules[0].http.paths[0]";
        assert_eq!(
            errors(rule("10.0.0.1", "a//b", "Exact", json!({"service": {"name": "Web"}}))),
            [
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address".to_owned(),
                format!("{path}.path: Invalid value: \"a//b\": must be an absolute path"),
                format!("{path}.path: Invalid value: \"a//b\": must not contain '//'"),
                format!("{path}.backend.service.name: Invalid value: \"Web\": {}", slipway_api::name::dns1035_label("Web")[0]),
                format!("{path}.backend: Required value: port name or number is required"),
            ]
        );
        assert_eq!(errors(rule("", "", "", web())), [format!("{path}.pathType: Required value: pathType must be specified")]);
    }

    #[test]
    fn the_row_shows_hosts_and_ports() {
        let mut it = ingress(json!({"ingressClassName": "c", "tls": [{}], "rules": [{"host": "a.io"}, {"host": "b.io"}]}));
        it["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.1.1.1"}, {"hostname": "lb.io"}]}});
        let row = Builtin::<super::Ingress>::new().row(&it, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..5], [json!("c"), json!("a.io,b.io"), json!("10.1.1.1,lb.io"), json!("80, 443")]);
        assert_eq!(
            Builtin::<super::Ingress>::new().row(&ingress(json!({})), jiff::Timestamp::UNIX_EPOCH)[1..3],
            [json!("<none>"), json!("*")]
        );
    }
}
