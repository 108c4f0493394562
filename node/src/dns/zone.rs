//! The names of a cluster, after Kubernetes' DNS specification 1.1.0. Pure.
//!
//! Of a Service its addresses are known, or if it is headless those of its ready endpoints, and its named ports;
//! nothing is looked up elsewhere. Names of pods by address are computed, not stored.

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use slipway_api::{core, discovery};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds that clients may remember an answer: endpoints change often.
const TTL: u32 = 5;
const SPECIFICATION: &str = "1.1.0";

/// Namespace and name.
type Key = (Box<str>, Box<str>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    /// Empty for headless ones.
    addresses: Vec<IpAddr>,
    external: Option<Name>,
    ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    name: Box<str>,
    /// `tcp`, `udp` or `sctp`.
    protocol: Box<str>,
    number: u16,
}

/// The ready endpoints of one EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    ports: Vec<Port>,
    /// The endpoint's host name, or its address written with dashes.
    endpoints: Vec<(Box<str>, IpAddr)>,
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Found {
        records: Vec<Record>,
        additional: Vec<Record>,
    },
    /// The name is that of something outside the cluster: the last record is a CNAME to it.
    Elsewhere {
        alias: Box<Record>,
        target: Name,
    },
    /// The name exists, but not with this type.
    NoData,
    NoName,
    /// None of the cluster's names.
    NotOurs,
}

/// Everything that can be asked for.
pub struct Zone {
    domain: Name,
    labels: usize,
    /// Where this server is reached: the address of the name server's own name.
    server: IpAddr,
    /// Networks of Services and pods: an address in them that has no name has none anywhere.
    reverse: Vec<crate::proxy::Cidr>,
    services: HashMap<Key, Service>,
    slices: HashMap<Key, BTreeMap<Box<str>, Slice>>,
    owners: HashMap<Key, Key>,
    relisted_services: Option<HashSet<Key>>,
    relisted_slices: Option<HashSet<Key>>,
}

impl Zone {
    pub fn new(domain: Name, server: IpAddr, reverse: Vec<crate::proxy::Cidr>) -> Zone {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Zone {
            labels: domain.iter().count(),
            domain,
            server,
            reverse,
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            relisted_services: None,
            relisted_slices: None,
        }
    }

    pub fn service(&mut self, object: &core::Service) {
        let Some(key) = key_of(&object.metadata) else { return };
        if let Some(seen) = &mut self.relisted_services {
            seen.insert(key.clone());
        }
        let spec = object.spec.clone().unwrap_or_default();
        let external = (spec.type_.as_deref() == Some("ExternalName")).then_some(spec.external_name).flatten();
        let external = external.and_then(|name| {
            let mut name = Name::from_ascii(name).ok()?;
            name.set_fqdn(true);
            Some(name)
        });
        let mut addresses: Vec<IpAddr> =
            spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        let ports = spec.ports.iter().flatten();
        let ports = ports.filter_map(|port| Port::of(port.name.as_deref(), port.protocol.as_deref(), Some(port.port)));
        self.services.insert(key, Service { addresses, external, ports: ports.collect() });
    }

    pub fn service_deleted(&mut self, object: &core::Service) {
        if let Some(key) = key_of(&object.metadata) {
            self.services.remove(&key);
        }
    }

    pub fn slice(&mut self, object: &discovery::EndpointSlice) {
        let Some(own) = key_of(&object.metadata) else { return };
        if let Some(seen) = &mut self.relisted_slices {
            seen.insert(own.clone());
        }
        self.remove_slice(&own);
        let label = object.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        let Some(service) = label else { return };
        let endpoint = |endpoint: &discovery::Endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            let ip: IpAddr = endpoint.addresses.first()?.parse().ok().filter(|_| ready)?;
            let name = endpoint.hostname.clone().unwrap_or_else(|| dashed(ip));
            Some((name.to_lowercase().into(), ip))
        };
        let ports = object.ports.iter().flatten();
        let slice = Slice {
            ports: ports.filter_map(|port| Port::of(port.name.as_deref(), port.protocol.as_deref(), port.port)).collect(),
            endpoints: object.endpoints.iter().flatten().filter_map(endpoint).collect(),
        };
        let service: Key = (own.0.clone(), service.as_str().into());
        self.slices.entry(service.clone()).or_default().insert(own.1.clone(), slice);
        self.owners.insert(own, service);
    }

    pub fn slice_deleted(&mut self, object: &discovery::EndpointSlice) {
        if let Some(key) = key_of(&object.metadata) {
            self.remove_slice(&key);
        }
    }

    fn remove_slice(&mut self, own: &Key) {
        let Some(service) = self.owners.remove(own) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&own.1);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
    }

    /// A list begins: what it does not name is gone.
    pub fn services_relist(&mut self) {
        self.relisted_services = Some(HashSet::new());
    }

    pub fn services_relisted(&mut self) {
        let seen = self.relisted_services.take().unwrap_or_default();
        self.services.retain(|key, _| seen.contains(key));
    }

    pub fn slices_relist(&mut self) {
        self.relisted_slices = Some(HashSet::new());
    }

    pub fn slices_relisted(&mut self) {
        let seen = self.relisted_slices.take().unwrap_or_default();
        let gone: Vec<Key> = self.owners.keys().filter(|key| !seen.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove_slice(key));
    }

    /// The record that says who is responsible, which negative answers carry.
    pub fn authority(&self) -> Record {
        let name = |label: &str| Name::from_ascii(label).and_then(|name| name.append_domain(&self.domain));
        let server = name("ns.dns").unwrap_or_else(|_| self.domain.clone());
        let contact = name("hostmaster").unwrap_or_else(|_| self.domain.clone());
        record(&self.domain, RData::SOA(SOA::new(server, contact, 1, 7200, 1800, 86400, TTL)))
    }

    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let lower = name.to_lowercase();
        if !self.domain.zone_of(&lower) {
            return self.reverse_answer(name, &lower, kind);
        }
        let count = lower.iter().count() - self.labels;
        let labels: Option<Vec<&str>> = lower.iter().take(count).map(|label| std::str::from_utf8(label).ok()).collect();
        let Some(labels) = labels else { return Answer::NoName };
        match labels[..] {
            [] => match kind {
                RecordType::SOA | RecordType::ANY => found(vec![self.authority()]),
                RecordType::NS => {
                    let Ok(server) = Name::from_ascii("ns.dns").and_then(|name| name.append_domain(&self.domain)) else {
                        return Answer::NoData;
                    };
                    let additional = vec![record(&server, address(self.server))];
                    Answer::Found { records: vec![record(&self.domain, RData::NS(NS(server)))], additional }
                }
                _ => Answer::NoData,
            },
            ["ns", "dns"] => of_kind(vec![record(name, address(self.server))], kind),
            ["dns-version"] => of_kind(vec![record(name, RData::TXT(TXT::new(vec![SPECIFICATION.into()])))], kind),
            ["dns"] | ["svc"] | ["pod"] | [_, "pod"] => Answer::NoData,
            [namespace, "svc"] if self.services.keys().any(|key| *key.0 == *namespace) => Answer::NoData,
            [ip, _, "pod"] => match undashed(ip) {
                Some(ip) => of_kind(vec![record(name, address(ip))], kind),
                None => Answer::NoName,
            },
            [.., service, namespace, "svc"] => match self.services.get_key_value(&(namespace.into(), service.into())) {
                Some((key, service)) => self.service_answer(name, key, service, &labels[..labels.len() - 3], kind),
                None => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    fn service_answer(&self, name: &Name, key: &Key, service: &Service, rest: &[&str], kind: RecordType) -> Answer {
        if let Some(target) = &service.external {
            let alias = record(name, RData::CNAME(CNAME(target.clone())));
            return match (rest, kind) {
                ([], RecordType::CNAME) => found(vec![alias]),
                ([], _) => Answer::Elsewhere { alias: Box::new(alias), target: target.clone() },
                _ => Answer::NoName,
            };
        }
        let headless = service.addresses.is_empty();
        let endpoints = || self.endpoints(key).flat_map(|slice| &slice.endpoints);
        if headless && endpoints().next().is_none() {
            return Answer::NoName;
        }
        match rest {
            [] if kind == RecordType::SRV => self.ports_answer(name, key, service, |_| true),
            [] if headless => of_kind(records(name, endpoints().map(|(_, ip)| *ip)), kind),
            [] => of_kind(records(name, service.addresses.iter().copied()), kind),
            [protocol] if protocol.starts_with('_') => {
                let known = self.ports(key, service).iter().any(|port| *port.protocol == protocol[1..]);
                if known { Answer::NoData } else { Answer::NoName }
            }
            [host] if headless => {
                let found = endpoints().filter(|(label, _)| **label == **host).map(|(_, ip)| *ip);
                let found = records(name, found);
                if found.is_empty() { Answer::NoName } else { of_kind(found, kind) }
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = |other: &Port| *other.name == port[1..] && *other.protocol == protocol[1..];
                if !self.ports(key, service).iter().any(&wanted) {
                    return Answer::NoName;
                }
                if kind == RecordType::SRV || kind == RecordType::ANY {
                    return self.ports_answer(name, key, service, wanted);
                }
                Answer::NoData
            }
            _ => Answer::NoName,
        }
    }

    fn endpoints(&self, key: &Key) -> impl Iterator<Item = &Slice> {
        self.slices.get(key).into_iter().flat_map(|slices| slices.values())
    }

    /// A Service's ports as its clients see them: a headless one's are those of its endpoints.
    fn ports(&self, key: &Key, service: &Service) -> Vec<Port> {
        if !service.addresses.is_empty() {
            return service.ports.clone();
        }
        self.endpoints(key).flat_map(|slice| slice.ports.iter().cloned()).collect()
    }

    fn ports_answer(&self, name: &Name, key: &Key, service: &Service, wanted: impl Fn(&Port) -> bool) -> Answer {
        let Some(base) = self.service_name(key) else { return Answer::NoData };
        let (mut targets, mut additional) = (vec![], vec![]);
        for port in service.ports.iter().filter(|port| wanted(port) && !service.addresses.is_empty()) {
            targets.push((port.number, base.clone()));
        }
        if service.addresses.is_empty() {
            for slice in self.endpoints(key) {
                for (label, ip) in &slice.endpoints {
                    let Ok(host) = base.prepend_label(&**label) else { continue };
                    targets.extend(slice.ports.iter().filter(|port| wanted(port)).map(|port| (port.number, host.clone())));
                    additional.push(record(&host, address(*ip)));
                }
            }
        } else {
            additional = records(&base, service.addresses.iter().copied());
        }
        // All are equal; the weights of one priority add up to about a hundred.
        let weight = (100 / targets.len().max(1)).max(1) as u16;
        let records: Vec<Record> =
            targets.into_iter().map(|(port, target)| record(name, RData::SRV(SRV::new(0, weight, port, target)))).collect();
        if records.is_empty() { Answer::NoData } else { Answer::Found { records, additional } }
    }

    fn service_name(&self, (namespace, name): &Key) -> Option<Name> {
        Name::from_labels([name.as_bytes(), namespace.as_bytes(), b"svc"]).ok()?.append_domain(&self.domain).ok()
    }

    fn reverse_answer(&self, name: &Name, lower: &Name, kind: RecordType) -> Answer {
        let Some(ip) = arpa(lower) else { return Answer::NotOurs };
        let mut names: Vec<Name> = vec![];
        for (key, service) in &self.services {
            if service.addresses.contains(&ip) {
                names.extend(self.service_name(key));
            } else if service.addresses.is_empty() && service.external.is_none() {
                let labels = self.endpoints(key).flat_map(|slice| &slice.endpoints).filter(|(_, other)| *other == ip);
                names.extend(labels.filter_map(|(label, _)| self.service_name(key)?.prepend_label(&**label).ok()));
            }
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            let ours = matches!(ip, IpAddr::V4(ip) if self.reverse.iter().any(|cidr| cidr.contains(ip)));
            return if ours { Answer::NoName } else { Answer::NotOurs };
        }
        of_kind(names.into_iter().map(|target| record(name, RData::PTR(PTR(target)))).collect(), kind)
    }
}

impl Port {
    fn of(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<Port> {
        Some(Port {
            name: name.unwrap_or_default().to_lowercase().into(),
            protocol: protocol.unwrap_or("TCP").to_lowercase().into(),
            number: u16::try_from(number?).ok()?,
        })
    }
}

fn key_of(metadata: &slipway_api::meta::ObjectMeta) -> Option<Key> {
    Some((metadata.namespace.as_deref()?.into(), metadata.name.as_deref()?.into()))
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn records(name: &Name, addresses: impl Iterator<Item = IpAddr>) -> Vec<Record> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    addresses.into_iter().map(|ip| record(name, address(ip))).collect()
}

fn found(records: Vec<Record>) -> Answer {
    Answer::Found { records, additional: vec![] }
}

/// The name exists: what of it has the wanted type.
fn of_kind(mut records: Vec<Record>, kind: RecordType) -> Answer {
    records.retain(|record| kind == RecordType::ANY || record.record_type() == kind);
    if records.is_empty() { Answer::NoData } else { found(records) }
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn undashed(label: &str) -> Option<IpAddr> {
    let four = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    four.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The whole address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn arpa(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name.iter().map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    match labels[..] {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse().ok().map(IpAddr::V4),
        [ref nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let digits: String = nibbles.iter().rev().copied().collect();
            u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(|bits| IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
