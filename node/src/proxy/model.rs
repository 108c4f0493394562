//! What a node has to do for each address of each Service: pure, and with IPv4 addresses only.
//!
//! Services and EndpointSlices are first cut down to the few fields that matter here ([`Service`], [`Slice`]), so that
//! a node of a large cluster holds little; [`routes`] then says where each of a Service's addresses leads.

use super::Cidr;
use slipway_api::{core, discovery};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// kube-proxy's: three hours.
const AFFINITY_DEFAULT_SECONDS: u32 = 10_800;
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn of(name: Option<&str>) -> Option<Protocol> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Name {
    pub fn new(namespace: &str, name: &str) -> Name {
        Name { namespace: namespace.into(), name: name.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
    /// 0 when there is none.
    pub node_port: u16,
}

/// The fields of a Service that a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub cluster_ip: Ipv4Addr,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    pub source_ranges: Arc<[Cidr]>,
    pub ports: Vec<ServicePort>,
    /// Seconds that a client stays with its endpoint.
    pub affinity: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    /// 0 when there is none.
    pub health_check_port: u16,
}

impl Service {
    /// `None` for Services that no node has to do anything for: headless ones, ExternalName, those of another proxy.
    pub fn of(service: &core::Service) -> Option<Service> {
        if service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL)) {
            return None;
        }
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let cluster_ip = cluster_ips.filter_map(|ip| ip.parse().ok()).next()?;
        let port = |port: &core::ServicePort| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default().into(),
                protocol: Protocol::of(port.protocol.as_deref())?,
                port: u16::try_from(port.port).ok()?,
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
            })
        };
        let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref()).flatten();
        // `Proxy`: the balancer speaks to node ports and wants its address left alone.
        let captured = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let ranges = spec.load_balancer_source_ranges.iter().flatten().filter_map(|range| range.parse().ok());
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let timeout = || spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds?.try_into().ok();
        Some(Service {
            cluster_ip,
            external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            load_balancer_ips: captured.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect(),
            source_ranges: Cidr::merged(ranges).into(),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            affinity: (spec.session_affinity.as_deref() == Some("ClientIP"))
                .then(|| timeout().unwrap_or(AFFINITY_DEFAULT_SECONDS)),
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
            health_check_port: spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub ready: bool,
    /// Serves although it is being terminated: used when nothing is ready.
    pub draining: bool,
    pub on_this_node: bool,
}

/// The fields of an EndpointSlice that a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub ports: Vec<(Box<str>, Protocol, u16)>,
    pub endpoints: Vec<Endpoint>,
}

impl Slice {
    /// The Service it belongs to, and what of it matters on `node`.
    pub fn of(slice: &discovery::EndpointSlice, node: &str) -> Option<(Name, Slice)> {
        let labels = slice.metadata.labels.as_ref()?;
        if slice.address_type != "IPv4" || labels.contains_key(HEADLESS_LABEL) || labels.contains_key(PROXY_NAME_LABEL) {
            return None;
        }
        let name = Name::new(slice.metadata.namespace.as_deref()?, labels.get(SERVICE_NAME_LABEL)?);
        let port = |port: &discovery::EndpointPort| {
            let number = u16::try_from(port.port?).ok()?;
            Some((port.name.clone().unwrap_or_default().into(), Protocol::of(port.protocol.as_deref())?, number))
        };
        let endpoint = |endpoint: &discovery::Endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            Some(Endpoint {
                // All addresses of an endpoint are alike by definition; consumers use the first.
                ip: endpoint.addresses.first()?.parse().ok()?,
                ready,
                draining: serving && terminating,
                on_this_node: endpoint.node_name.as_deref() == Some(node),
            })
        };
        let endpoints =
            slice.endpoints.iter().flatten().filter_map(endpoint).filter(|endpoint| endpoint.ready || endpoint.draining);
        Some((name, Slice { ports: slice.ports.iter().flatten().filter_map(port).collect(), endpoints: endpoints.collect() }))
    }
}

/// An address that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Front {
    Address {
        ip: Ipv4Addr,
        protocol: Protocol,
        port: u16,
    },
    /// Every address of the node.
    Node {
        protocol: Protocol,
        port: u16,
    },
}

impl Front {
    pub fn protocol(&self) -> Protocol {
        match self {
            Front::Address { protocol, .. } | Front::Node { protocol, .. } => *protocol,
        }
    }
}

/// Where traffic is sent to: an endpoint's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub ip: Ipv4Addr,
    pub port: u16,
}

/// Where clients are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A cluster IP: sources that are no pods are masqueraded, so that answers find their way back through this node.
    Cluster,
    /// Node port, external IP, load balancer: every source is masqueraded, unless the traffic stays on the node.
    External,
}

/// What is done with traffic to a [`Front`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `namespace/name:port`
    pub service: Arc<str>,
    pub entry: Entry,
    /// Sorted, without duplicates.
    pub targets: Arc<[Target]>,
    /// With externalTrafficPolicy Local: the targets for clients outside; pods and this node itself use `targets`.
    pub local: Option<Arc<[Target]>>,
    /// Without targets here: there are some elsewhere, which internalTrafficPolicy Local forbids to use.
    pub elsewhere: bool,
    pub affinity: Option<u32>,
    /// When not empty: only these may connect.
    pub sources: Arc<[Cidr]>,
}

impl Route {
    /// Nobody serves this Service at all: connections are refused at once.
    pub fn is_refused(&self) -> bool {
        self.targets.is_empty() && !self.elsewhere
    }
}

/// Everything that a node has to do, as one comparable value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub routes: BTreeMap<Front, Arc<Route>>,
    /// Endpoints on this node: what they send to themselves through a Service needs masquerading.
    pub hairpin: BTreeSet<Ipv4Addr>,
    /// What is sent to other ports of these is refused.
    pub cluster_ips: BTreeSet<Ipv4Addr>,
}

/// What one Service adds to the [`Model`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    pub routes: Vec<(Front, Arc<Route>)>,
    pub hairpin: BTreeSet<Ipv4Addr>,
    pub cluster_ip: Option<Ipv4Addr>,
    /// Port of the health check for load balancers, and how many endpoints are here.
    pub health_check: Option<(u16, usize)>,
}

impl Model {
    /// Where two Services claim an address, the first by name has it. Addresses in `served_here` belong to a process
    /// on the node (the cluster's DNS) and are left to it.
    pub fn new<'a>(contributions: impl IntoIterator<Item = &'a Contribution>, served_here: &[Ipv4Addr]) -> Model {
        let mut model = Model::default();
        for contribution in contributions {
            for (front, route) in &contribution.routes {
                if !matches!(front, Front::Address { ip, .. } if served_here.contains(ip)) {
                    model.routes.entry(*front).or_insert_with(|| route.clone());
                }
            }
            model.hairpin.extend(&contribution.hairpin);
            model.cluster_ips.extend(contribution.cluster_ip.filter(|ip| !served_here.contains(ip)));
        }
        model
    }
}

/// The endpoints of one port: ready ones, and if there are none, those that still serve while they terminate.
struct Chosen {
    everywhere: Arc<[Target]>,
    here: Arc<[Target]>,
}

fn choose<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a Slice>) -> Chosen {
    let mut found: BTreeMap<Target, (bool, bool)> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|(name, protocol, _)| **name == *port.name && *protocol == port.protocol);
        for (_, _, number) in ports {
            for endpoint in &slice.endpoints {
                let seen = found.entry(Target { ip: endpoint.ip, port: *number }).or_insert((false, false));
                // While slices are rearranged an endpoint is in two of them for a moment.
                seen.0 |= endpoint.ready;
                seen.1 |= endpoint.on_this_node;
            }
        }
    }
    let pick = |here_only: bool| -> Arc<[Target]> {
        let eligible = || found.iter().filter(move |(_, (_, here))| *here || !here_only);
        let any_ready = eligible().any(|(_, (ready, _))| *ready);
        eligible().filter(|(_, (ready, _))| *ready || !any_ready).map(|(target, _)| *target).collect()
    };
    Chosen { everywhere: pick(false), here: pick(true) }
}

/// What `service` asks of this node.
pub fn contribution<'a>(name: &Name, service: &Service, slices: impl Iterator<Item = &'a Slice> + Clone) -> Contribution {
    let mut result = Contribution { cluster_ip: Some(service.cluster_ip), ..Contribution::default() };
    let mut endpoints_here = BTreeSet::new();
    for port in &service.ports {
        let chosen = choose(port, slices.clone());
        endpoints_here.extend(chosen.here.iter().map(|target| target.ip));
        result.routes.extend(port_routes(name, service, port, &chosen));
    }
    result.hairpin = endpoints_here.clone();
    result.health_check =
        (service.external_local && service.health_check_port != 0).then_some((service.health_check_port, endpoints_here.len()));
    result
}

fn port_routes(name: &Name, service: &Service, port: &ServicePort, chosen: &Chosen) -> Vec<(Front, Arc<Route>)> {
    let address = |ip: &Ipv4Addr| Front::Address { ip: *ip, protocol: port.protocol, port: port.port };
    let inside = if service.internal_local { &chosen.here } else { &chosen.everywhere };
    let cluster = Route {
        service: format!("{}/{}:{}", name.namespace, name.name, port.name).into(),
        entry: Entry::Cluster,
        targets: inside.clone(),
        local: None,
        elsewhere: inside.is_empty() && !chosen.everywhere.is_empty(),
        affinity: service.affinity,
        sources: [].into(),
    };
    let external = Route {
        entry: Entry::External,
        targets: chosen.everywhere.clone(),
        local: service.external_local.then(|| chosen.here.clone()),
        elsewhere: false,
        ..cluster.clone()
    };
    let balanced = Arc::new(Route { sources: service.source_ranges.clone(), ..external.clone() });
    let external = Arc::new(external);

    let mut routes = vec![(address(&service.cluster_ip), Arc::new(cluster))];
    routes.extend(service.external_ips.iter().map(|ip| (address(ip), external.clone())));
    routes.extend(service.load_balancer_ips.iter().map(|ip| (address(ip), balanced.clone())));
    if port.node_port != 0 {
        routes.push((Front::Node { protocol: port.protocol, port: port.node_port }, external));
    }
    routes
}

/// Whether UDP connections may now lead to where nobody listens: the kernel remembers them as long as they are used.
pub fn udp_changed(old: &Model, new: &Model) -> bool {
    let udp = |model: &'_ Model| -> Vec<(Front, Arc<Route>)> {
        let routes = model.routes.iter().filter(|(front, _)| front.protocol() == Protocol::Udp);
        routes.map(|(front, route)| (*front, route.clone())).collect()
    };
    let (before, now) = (udp(old), udp(new));
    before.len() != now.len()
        || before
            .iter()
            .zip(&now)
            .any(|((front, route), (other_front, other))| front != other_front || !Arc::ptr_eq(route, other) && route != other)
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
