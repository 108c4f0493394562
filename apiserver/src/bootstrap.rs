//! What every cluster has from its first moment: namespaces, priority classes, and the `kubernetes` Service.

use crate::flow_control;
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::resources::addresses;
use crate::server::ApiServer;
use crate::verbs::object_meta::timestamp;
use crate::verbs::{Preconditions, Target, create_object, guaranteed_update};
use http::StatusCode;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
const SERVICE_PORT: u16 = 443;
/// How long one server waits for another that writes the same first objects.
const ATTEMPTS_MAX: usize = 10;
const RETRY: Duration = Duration::from_millis(100);

pub async fn run(server: &ApiServer) -> Result<(), Status> {
    for name in NAMESPACES {
        ensure(server, ("", "v1", "namespaces"), "", json!({"metadata": {"name": name}})).await?;
        // Other namespaces get theirs from a controller; here the first pods need not wait for it.
        ensure(server, ("", "v1", "serviceaccounts"), name, json!({"metadata": {"name": "default"}})).await?;
    }
    for class in priority_classes() {
        ensure(server, ("scheduling.k8s.io", "v1", "priorityclasses"), "", class).await?;
    }
    for level in flow_control::bootstrap::levels() {
        ensure(server, (FLOW_CONTROL, "v1", "prioritylevelconfigurations"), "", level).await?;
    }
    for schema in flow_control::bootstrap::schemas() {
        ensure(server, (FLOW_CONTROL, "v1", "flowschemas"), "", schema).await?;
    }
    crate::authorization::policy::run(server).await?;
    publish_authentication(server).await?;
    publish_service_range(server).await?;
    if let Some(advertise) = server.options.advertise {
        let (address, port) = (advertise.ip(), advertise.port());
        let service_ip = first_address(&server.options.service_cidr);
        ensure(server, ("", "v1", "services"), "default", service(service_ip, port)).await?;
        // No pod reaches it there, and no EndpointSlice may say so.
        if address.is_loopback() {
            tracing::warn!(%address, "the kubernetes Service has no endpoint: the advertised address is of this machine alone");
            return Ok(());
        }
        replace(server, ("", "v1", "endpoints"), endpoints(address, port)).await?;
        replace(server, ("discovery.k8s.io", "v1", "endpointslices"), endpoint_slice(address, port)).await?;
    }
    Ok(())
}

type Resource = (&'static str, &'static str, &'static str);

/// Creates the object unless it is there.
async fn ensure(server: &ApiServer, resource: Resource, namespace: &str, object: Value) -> Result<(), Status> {
    let (group, version, plural) = resource;
    let Some(strategy) = server.strategy(group, version, plural) else { return Ok(()) };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let user = User::apiserver();
    if crate::server::find(&server.snapshot(), &*strategy, namespace, &name).is_some() {
        return Ok(());
    }
    let target = Target::new(server, &*strategy, &user, namespace, &name);
    let mut attempt = 1;
    loop {
        match create_object(&target, object.clone()).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code == StatusCode::CONFLICT => return Ok(()),
            // Another server that starts now may hold the Service's address already, but not have written the Service.
            Err(status) if status.code == StatusCode::UNPROCESSABLE_ENTITY && attempt < ATTEMPTS_MAX => {
                tracing::debug!(name, status.message, "a first object is tried again");
                tokio::time::sleep(RETRY).await;
                attempt += 1;
            }
            Err(status) => return Err(status),
        }
    }
}

/// Tells extension servers by whose certificates callers and proxies are known here.
async fn publish_authentication(server: &ApiServer) -> Result<(), Status> {
    let Some(ca) = &server.options.client_ca_pem else { return Ok(()) };
    let mut data = json!({"client-ca-file": ca});
    if let Some(rule) = &server.options.request_header {
        let list = |names: &[String]| json!(names).to_string();
        data["requestheader-client-ca-file"] = rule.client_ca_pem.as_str().into();
        data["requestheader-allowed-names"] = list(&rule.allowed_names).into();
        data["requestheader-username-headers"] = list(&rule.username_headers).into();
        data["requestheader-uid-headers"] = list(&rule.uid_headers).into();
        data["requestheader-group-headers"] = list(&rule.group_headers).into();
        data["requestheader-extra-headers-prefix"] = list(&rule.extra_header_prefixes).into();
    }
    let (namespace, name) = ("kube-system", "extension-apiserver-authentication");
    ensure(server, ("", "v1", "configmaps"), namespace, json!({"metadata": {"name": name}, "data": data})).await?;
    let Some(strategy) = server.strategy("", "v1", "configmaps") else { return Ok(()) };
    let user = User::apiserver();
    let target = Target::new(server, &*strategy, &user, namespace, name);
    let anything = Preconditions::default();
    let changed = guaranteed_update(&target, &anything, |mut old| {
        old["data"] = data.clone();
        Ok(old)
    });
    changed.await.map(|_| ())
}

/// Tells of the range that Services get their addresses from. It is taken from the options and not from the object, which is
/// there to be read.
async fn publish_service_range(server: &ApiServer) -> Result<(), Status> {
    let Some(range) = addresses::canonical(&server.options.service_cidr) else { return Ok(()) };
    let resource = ("networking.k8s.io", "v1", "servicecidrs");
    ensure(server, resource, "", json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [range]}})).await?;
    let Some(strategy) = server.strategy(resource.0, resource.1, resource.2) else { return Ok(()) };
    let user = User::apiserver();
    let target = Target::new(server, &*strategy, &user, "", "kubernetes");
    let anything = Preconditions::default();
    let changed = guaranteed_update(&target, &anything, |mut old| {
        let told = old["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Ready"));
        if !told && old["spec"]["cidrs"] == json!([range]) {
            old["status"] = json!({"conditions": [{
                "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
                "lastTransitionTime": timestamp(jiff::Timestamp::now()),
            }]});
        }
        Ok(old)
    });
    changed.await.map(|_| ())
}

/// Creates the object of the `default` namespace, or makes the one that is there say the same.
async fn replace(server: &ApiServer, resource: Resource, object: Value) -> Result<(), Status> {
    ensure(server, resource, "default", object.clone()).await?;
    let (group, version, plural) = resource;
    let Some(strategy) = server.strategy(group, version, plural) else { return Ok(()) };
    let strategy: &dyn Strategy = &*strategy;
    let user = User::apiserver();
    let target = Target::new(server, strategy, &user, "default", "kubernetes");
    let anything = Preconditions::default();
    let changed = guaranteed_update(&target, &anything, |mut old| {
        for field in ["subsets", "endpoints", "ports"] {
            if let Some(value) = object.get(field) {
                old[field] = value.clone();
            }
        }
        strategy.fill_defaults(&mut old);
        Ok(old)
    });
    changed.await.map(|_| ())
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| json!({"metadata": {"name": name}, "value": value, "description": description, "globalDefault": false});
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// The first usable address of a range, as `10.96.0.1` of `10.96.0.0/16`.
pub fn first_address(cidr: &str) -> String {
    let base = cidr.split('/').next().unwrap_or_default();
    match base.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Ipv4Addr::from(u32::from(ip) + 1).to_string(),
        Ok(IpAddr::V6(ip)) => std::net::Ipv6Addr::from(u128::from(ip) + 1).to_string(),
        Err(_) => String::new(),
    }
}

fn service(ip: String, port: u16) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": port}],
        },
    })
}

fn endpoints(address: IpAddr, port: u16) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    })
}

fn endpoint_slice(address: IpAddr, port: u16) -> Value {
    json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_range() {
        assert_eq!(first_address("10.96.0.0/16"), "10.96.0.1");
        assert_eq!(first_address("fd00::/108"), "fd00::1");
    }
}
