//! Service: one address and name for the pods that a selector names.

mod validation;

use super::{fill, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, NameRule, Names, age, keep};
use serde_json::{Value, json};
pub use slipway_api::core::Service;
use slipway_api::core::ServiceSpec;

const AFFINITY_SECONDS: i32 = 3 * 60 * 60;

impl Kind for Service {
    const NAMES: Names = Names {
        short: &["svc"],
        categories: &["all"],
        status: true,
        name_rule: NameRule::Label1035,
        ..Names::namespaced("", "v1", "Service", "services", "service")
    };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::made(object, "spec") {
            fill_spec(spec);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
        if let Some(spec) = fill::inner(object, "spec") {
            validation::keep_allocated(spec, &old["spec"]);
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        validation::check(self)
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        validation::check_update(self, old)
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Type", "How the service can be reached."),
            Column::text("Cluster-IP", "The service's address inside the cluster."),
            Column::text("External-IP", "The service's addresses outside the cluster."),
            Column::text("Port(s)", "The ports, with their node ports and protocols."),
            Column::AGE,
            Column::text("Selector", "The labels of the pods behind the service.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let cluster_ip = spec.cluster_ip.as_deref().or(spec.cluster_ips.iter().flatten().next().map(String::as_str));
        vec![
            show::name(object),
            json!(spec.type_),
            show::or_none(cluster_ip),
            external_ip(self, &spec),
            ports(&spec),
            age(object, now),
            show::labels(spec.selector.as_ref()),
        ]
    }

    const SELECTABLE: &'static [&'static str] = &["spec.clusterIP", "spec.type"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        let spec = &object["spec"];
        vec![("spec.clusterIP", fill::text(spec, "clusterIP").to_owned()), ("spec.type", fill::text(spec, "type").to_owned())]
    }
}

fn fill_spec(spec: &mut Value) {
    fill::empty(spec, "type", "ClusterIP");
    fill::empty(spec, "sessionAffinity", "None");
    match fill::text(spec, "sessionAffinity") {
        "ClientIP" => {
            let config = fill::made(spec, "sessionAffinityConfig").and_then(|config| fill::made(config, "clientIP"));
            if let Some(client) = config {
                fill::missing(client, "timeoutSeconds", AFFINITY_SECONDS);
            }
        }
        _ => crate::kind::remove(spec, "sessionAffinityConfig"),
    }
    for port in fill::items(spec, "ports") {
        fill::empty(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            fill::empty(port, "targetPort", number);
        }
    }
    let kind = fill::text(spec, "type").to_owned();
    let has_external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if kind == "NodePort" || kind == "LoadBalancer" || kind == "ClusterIP" && has_external_ips {
        fill::empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        fill::missing(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill::missing(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> Value {
    let external: Vec<&str> = spec.external_ips.iter().flatten().map(String::as_str).collect();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    match spec.type_.as_deref() {
        Some("ExternalName") => json!(spec.external_name.as_deref().unwrap_or("")),
        Some("LoadBalancer") => {
            let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or(&[]);
            let mut all: Vec<&str> = ingress
                .iter()
                .filter_map(|one| one.ip.as_deref().filter(|ip| !ip.is_empty()).or(one.hostname.as_deref()))
                .collect();
            all.sort_unstable();
            all.dedup();
            all.extend(external);
            json!(if all.is_empty() { "<pending>".to_owned() } else { all.join(",") })
        }
        _ => show::or_none(Some(&external.join(","))),
    }
}

fn ports(spec: &ServiceSpec) -> Value {
    let text = |port: &slipway_api::core::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.node_port.unwrap_or(0) {
            0 => format!("{}/{protocol}", port.port),
            node_port => format!("{}:{node_port}/{protocol}", port.port),
        }
    };
    let all: Vec<String> = spec.ports.iter().flatten().map(text).collect();
    show::or_none(Some(&all.join(",")))
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn service(spec: Value) -> Value {
        let strategy = Builtin::<super::Service>::new();
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
        strategy.fill_defaults(&mut service);
        let once = service.clone();
        strategy.fill_defaults(&mut service);
        assert_eq!(once, service, "defaults are idempotent");
        service
    }

    #[test]
    fn defaults_follow_the_type() {
        assert_eq!(
            service(json!({"ports": [{"port": 80}]}))["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
        );
        let balancer = service(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}));
        assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balancer["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
    }

    #[test]
    fn columns_show_addresses_and_ports() {
        let strategy = Builtin::<super::Service>::new();
        let mut it = service(json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "selector": {"app": "web"},
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}));
        let row = strategy.row(&it, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(row[1..5], [json!("LoadBalancer"), json!("10.96.0.9"), json!("<pending>"), json!("80:30080/TCP,53/UDP")]);
        assert_eq!(row[6], "app=web");
        it["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}});
        assert_eq!(strategy.row(&it, jiff::Timestamp::UNIX_EPOCH)[3], "lb.example");
    }
}
