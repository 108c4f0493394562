//! Where the Service of a webhook answers: at one of its ready endpoints, else at its cluster IP.

use crate::server::ApiServer;
use crate::stored;
use crate::verbs::get::get_cached;
use rand::RngExt;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// `Err` says why in Kubernetes' words.
pub fn service(server: &ApiServer, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
    let snapshot = server.snapshot();
    let services = server.strategy("", "v1", "services").ok_or("there are no services")?;
    let service = get_cached(&snapshot, &*services, namespace, name).ok_or_else(|| format!("service \"{name}\" not found"))?;
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let served = ports.into_iter().find(|served| served["port"] == port);
    let served = served.ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;

    let mut endpoints = vec![];
    let mut known = false;
    if let Some(slices) = server.strategy("discovery.k8s.io", "v1", "endpointslices") {
        let prefix = stored::prefix(slices.names(), Some(namespace));
        for entry in stored::below(&snapshot, &prefix, "")
            .filter(|entry| entry.attributes.labels.get(SERVICE_NAME).is_some_and(|of| of == name))
        {
            known = true;
            if let Ok(slice) = stored::decode(&*slices, &entry.bytes) {
                endpoints.extend(ready(&slice, served["name"].as_str().unwrap_or_default()));
            }
        }
    }
    if !endpoints.is_empty() {
        return Ok(endpoints[rand::rng().random_range(0..endpoints.len())]);
    }
    let address = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    match address {
        Some(ip) if !known => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!("no endpoints available for service \"{name}\"")),
    }
}

fn ready(slice: &Value, port: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.into_iter().find(|one| one["name"].as_str().unwrap_or_default() == port);
    let Some(port) = port.and_then(|one| one["port"].as_u64()).and_then(|port| u16::try_from(port).ok()) else { return vec![] };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    addresses.filter_map(|ip| Some(SocketAddr::new(ip.as_str()?.parse().ok()?, port))).collect()
}
