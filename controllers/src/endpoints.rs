//! Endpoints: the older form of what EndpointSlices say, for the clients that still read it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use slipway_api::core::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
    service_ports::{self, HEADLESS, Port},
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// As Kubernetes: this object is one piece, so it must not grow without end.
const ADDRESSES_MAX: usize = 1000;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        service_ports::watch(caches, queue);
        let endpoints = queue.clone();
        caches.endpoints.on_change(move |old, new| {
            if let Some(object) = new.or(old) {
                endpoints.add(object.key());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        Ok(plan(key, situation.caches))
    }
}

pub fn plan(key: &Key, caches: &Caches) -> Plan {
    let mut plan = Plan::nothing();
    let existing = caches.endpoints.get(key);
    let Some(service) = caches.services.get(key).filter(|service| !service.is_deleted()) else {
        if let Some(existing) = existing.filter(|object| object.label(MANAGED_BY) == Some(MANAGER) && !object.is_deleted()) {
            plan.push(Step::delete(&*existing, "the service is gone"));
        }
        return plan;
    };
    if service_ports::selector(&service).is_none() {
        return plan;
    }
    let mut wanted = existing.as_deref().cloned().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_ports::is_headless(&service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    wanted.metadata.labels = Some(labels);
    let (subsets, cut) = subsets(&service, &service_ports::backends(&service, caches));
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    match cut {
        true => annotations.insert(OVER_CAPACITY.into(), "truncated".into()),
        false => annotations.remove(OVER_CAPACITY),
    };
    wanted.metadata.annotations = wanted.metadata.annotations.filter(|annotations| !annotations.is_empty());
    match existing {
        Some(existing) => plan.push(Step::update(&*existing, &wanted)),
        None => {
            wanted.metadata.namespace = Some(key.namespace.clone());
            wanted.metadata.name = Some(key.name.clone());
            plan.push(Step::create(&wanted));
        }
    }
    plan
}

/// Addresses with the same ports together; also whether some had to be left out (those not ready first).
fn subsets(service: &Service, backends: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publishes = service_ports::publishes_not_ready(service);
    let mut considered: Vec<(bool, &Arc<Pod>)> =
        backends.iter().filter(|pod| publishes || !pod.is_deleted()).map(|pod| (publishes || pods::is_ready(pod), pod)).collect();
    let cut = considered.len() > ADDRESSES_MAX;
    if cut {
        considered.sort_by_key(|(ready, _)| !ready);
        considered.truncate(ADDRESSES_MAX);
    }
    let mut groups: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
    for (ready, pod) in considered {
        let ports = service_ports::ports(service, pod);
        if ports.is_empty() && !service_ports::is_headless(service) {
            continue;
        }
        let Some(address) = service_ports::addresses(pod).first().map(|ip| address(service, pod, ip)) else { continue };
        let subset = groups.entry(ports).or_default();
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let subsets = groups.into_iter().map(|(ports, mut subset)| {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
        subset.ports = (!ports.is_empty()).then(|| ports.into_iter().map(port).collect());
        subset
    });
    (subsets.collect(), cut)
}

fn address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: service_ports::hostname(service, pod),
        node_name: Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(service_ports::target_reference(pod)),
    }
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}
