//! Which pods stand behind a service, and on which ports: what Endpoints and EndpointSlices have in common.

use std::sync::Arc;

use slipway_api::{
    IntOrString,
    core::{ObjectReference, Pod, Service, ServicePort},
    selector::Selector,
};

use crate::{caches::Caches, pods, queue::Queue, resource::Object};

pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// A service's port as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub port: i32,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

/// Looks at a service when it, or a pod behind it, changes.
pub fn watch(caches: &Arc<Caches>, queue: &Arc<Queue>) {
    let own = queue.clone();
    caches.services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            own.add(service.key());
        }
    });
    let (of_pods, weak) = (queue.clone(), Arc::downgrade(caches));
    caches.pods.on_change(move |old, new| {
        let Some(caches) = weak.upgrade() else { return };
        let Some(pod) = new.or(old) else { return };
        for service in caches.services.in_namespace(pod.namespace()) {
            let Some(selector) = selector(&service) else { continue };
            if [old, new].into_iter().flatten().any(|pod| selector.matches(pod.metadata.labels.as_ref())) {
                of_pods.add(service.key());
            }
        }
    });
}

/// What selects the pods of the service; a service without selector has its endpoints from somebody else.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| Selector::from_labels(labels))
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The pods behind the service that have an address, by name.
pub fn backends(service: &Service, caches: &Caches) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return vec![] };
    let mut pods = caches.pods.in_namespace(service.namespace());
    pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref()) && !pods::is_terminal(pod) && !addresses(pod).is_empty());
    pods
}

pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return vec![] };
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { all }
}

/// The service's ports on this pod; a named target port that the pod doesn't have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<Port> = ports
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                port: target(port, pod)?,
                protocol: protocol(port.protocol.as_ref()).to_owned(),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(given: Option<&String>) -> &str {
    given.map_or("TCP", String::as_str)
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|container| slipway_api::pod::is_sidecar(container));
    let mut declared = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let found = declared.find(|declared| {
        declared.name.as_ref() == Some(name) && protocol(declared.protocol.as_ref()) == protocol(port.protocol.as_ref())
    });
    found.map(|declared| declared.container_port)
}

/// The name under which the cluster's DNS finds the pod behind a headless service.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == Some(service.name())).then_some(hostname)
}

pub fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
