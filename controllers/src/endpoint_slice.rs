//! EndpointSlices: the addresses behind each service that has a selector, in slices that stay small.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use async_trait::async_trait;
use slipway_api::{
    core::{Pod, Service},
    discovery::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
    service_ports::{self, HEADLESS, Port},
};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// A change of one endpoint is sent to every node as a whole slice: so slices are small, but not too many.
const ENDPOINTS_MAX: usize = 100;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        service_ports::watch(caches, queue);
        let slices = queue.clone();
        caches.endpoint_slices.on_change(move |old, new| {
            for slice in [old, new].into_iter().flatten().filter(|slice| slice.label(MANAGED_BY) == Some(MANAGER)) {
                if let Some(service) = slice.label(SERVICE_NAME) {
                    slices.add(Key::new(slice.namespace(), service));
                }
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        Ok(plan(key, situation.caches))
    }
}

pub fn plan(key: &Key, caches: &Caches) -> Plan {
    let mut plan = Plan::nothing();
    let mut existing = caches.endpoint_slices.indexed(&format!("{}/{}", key.namespace, key.name));
    existing.retain(|slice| slice.label(MANAGED_BY) == Some(MANAGER) && !slice.is_deleted());
    let service = caches.services.get(key).filter(|service| !service.is_deleted());
    let Some(service) = service.filter(|service| service_ports::selector(service).is_some()) else {
        for slice in existing {
            plan.steps.push(Step::delete(&*slice, "the service is gone"));
        }
        return plan;
    };
    let backends = service_ports::backends(&service, caches);
    for family in families(&service) {
        let (mine, rest) = existing.into_iter().partition(|slice| slice.address_type == family);
        existing = rest;
        plan.steps.extend(of_family(&service, &family, &backends, mine, caches));
    }
    for slice in existing {
        plan.steps.push(Step::delete(&*slice, "the service does not use this address family"));
    }
    plan
}

fn families(service: &Service) -> Vec<String> {
    let given = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if given.is_empty() { vec!["IPv4".to_owned()] } else { given }
}

/// The endpoints by the ports that their pods serve: a slice has one set of ports.
type Groups = BTreeMap<Vec<Port>, BTreeMap<String, Endpoint>>;

fn of_family(
    service: &Service,
    family: &str,
    backends: &[Arc<Pod>],
    existing: Vec<Arc<EndpointSlice>>,
    caches: &Caches,
) -> Vec<Step> {
    let mut groups = Groups::new();
    for pod in backends {
        if let Some(endpoint) = endpoint(service, pod, family, caches) {
            groups.entry(service_ports::ports(service, pod)).or_default().insert(pod.uid().to_owned(), endpoint);
        }
    }
    let mut by_ports: BTreeMap<Vec<Port>, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(ports_of(&slice)).or_default().push(slice);
    }
    if groups.is_empty() {
        // One empty slice stays, so that readers can tell "no endpoints" from "not seen yet".
        let first = by_ports.first_key_value().map(|(ports, _)| ports.clone()).unwrap_or_default();
        groups.insert(first, BTreeMap::new());
    }
    let mut steps = vec![];
    let mut obsolete = vec![];
    for (ports, endpoints) in groups {
        let slices = by_ports.remove(&ports).unwrap_or_default();
        of_ports(service, family, &ports, endpoints, slices, &mut steps, &mut obsolete);
    }
    obsolete.extend(by_ports.into_values().flatten());
    // Deletions last: an address must not vanish between two slices.
    steps.extend(obsolete.iter().map(|slice| Step::delete(&**slice, "no endpoints are left in it")));
    steps
}

/// Keeps endpoints in the slices where they are, fills up what has room, and opens new slices for the rest.
fn of_ports(
    service: &Service,
    family: &str,
    ports: &[Port],
    mut wanted: BTreeMap<String, Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    steps: &mut Vec<Step>,
    obsolete: &mut Vec<Arc<EndpointSlice>>,
) {
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = slices
        .into_iter()
        .map(|slice| {
            let uids = slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.clone());
            let endpoints = uids.filter_map(|uid| wanted.remove(&uid)).collect();
            (slice, endpoints)
        })
        .collect();
    let mut rest: VecDeque<Endpoint> = wanted.into_values().collect();
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut kept {
        while endpoints.len() < ENDPOINTS_MAX
            && let Some(endpoint) = rest.pop_front()
        {
            endpoints.push(endpoint);
        }
    }
    let mut left = 0;
    let all_empty = kept.iter().all(|(_, endpoints)| endpoints.is_empty());
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && !(all_empty && left == 0) {
            obsolete.push(slice);
            continue;
        }
        left += 1;
        let changed = filled(service, EndpointSlice::clone(&slice), family, ports, endpoints);
        steps.extend(Step::update(&*slice, &changed));
    }
    while !rest.is_empty() || left == 0 {
        left += 1;
        let endpoints = rest.drain(..rest.len().min(ENDPOINTS_MAX)).collect();
        let mut slice = EndpointSlice::default();
        slice.metadata.namespace = Some(service.namespace().to_owned());
        slice.metadata.generate_name = Some(format!("{}-", service.name()));
        slice.metadata.owner_references = Some(vec![service.controller_reference()]);
        steps.push(Step::create(&filled(service, slice, family, ports, endpoints)));
    }
}

fn filled(service: &Service, mut slice: EndpointSlice, family: &str, ports: &[Port], endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service_ports::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    slice.metadata.labels = Some(labels);
    slice.address_type = family.to_owned();
    slice.endpoints = Some(endpoints).filter(|endpoints| !endpoints.is_empty());
    slice.ports = (!ports.is_empty()).then(|| ports.iter().map(port_of).collect());
    slice
}

fn port_of(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let ports = slice.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<Port> = ports.collect();
    ports.sort();
    ports
}

fn endpoint(service: &Service, pod: &Pod, family: &str, caches: &Caches) -> Option<Endpoint> {
    let of_family = |address: &&str| match address.parse() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    };
    let address = service_ports::addresses(pod).into_iter().find(of_family)?.to_owned();
    let serving = pods::is_ready(pod);
    let terminating = pod.is_deleted();
    let ready = service_ports::publishes_not_ready(service) || (serving && !terminating);
    let node = pods::node(pod);
    let zone = caches.nodes.get(&Key::new("", node));
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname: service_ports::hostname(service, pod),
        node_name: Some(node.to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(service_ports::target_reference(pod)),
        zone: zone.and_then(|node| node.label("topology.kubernetes.io/zone").map(str::to_owned)),
        ..Endpoint::default()
    })
}
