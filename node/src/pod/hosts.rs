//! `/etc/hosts`, the host name, and DNS settings of a pod.

use super::Context;
use crate::runtime::api;
use slipway_api::core::Pod;
use std::fmt::Write;

/// Resolvers read no more than this many of each.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const HOST_NAME_MAX: usize = 63;

pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let name = spec.hostname.filter(|name| !name.is_empty()).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let name = name[..name.len().min(HOST_NAME_MAX)].trim_end_matches(['-', '.']);
    name.to_owned()
}

/// `name.subdomain.namespace.svc.domain`, if the pod has a subdomain.
pub fn fqdn(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{}.{subdomain}.{namespace}.svc.{domain}", hostname(pod)))
}

/// What the kernel is told.
pub fn kernel_hostname(pod: &Pod, domain: &str) -> String {
    let wanted = pod.spec.as_ref().is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    fqdn(pod, domain).filter(|_| wanted).unwrap_or_else(|| hostname(pod))
}

pub fn hosts_file(pod: &Pod, context: &Context, ips: &[String]) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut text = if spec.host_network == Some(true) {
        let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{own}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                        fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
        let name = hostname(pod);
        for ip in ips {
            let _ = match fqdn(pod, &context.options.cluster_domain) {
                Some(whole) => writeln!(text, "{ip}\t{whole}\t{name}"),
                None => writeln!(text, "{ip}\t{name}"),
            };
        }
        text
    };
    if let Some(aliases) = spec.host_aliases.filter(|aliases| !aliases.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.unwrap_or_default().join("\t"));
        }
    }
    text
}

pub fn dns(pod: &Pod, context: &Context) -> api::DnsConfig {
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let of_host = || of_host(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let mut dns = match policy {
        "None" => api::DnsConfig::default(),
        "ClusterFirst" if !host_network => cluster_first(pod, context, of_host()),
        "ClusterFirstWithHostNet" => cluster_first(pod, context, of_host()),
        _ => of_host(),
    };
    if let Some(more) = spec.dns_config {
        merge(&mut dns.servers, more.nameservers.unwrap_or_default());
        merge(&mut dns.searches, more.searches.unwrap_or_default());
        for option in more.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            dns.options.retain(|before| before.split(':').next() != Some(&name));
            dns.options.push(option.value.map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
        }
    }
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    dns
}

fn merge(list: &mut Vec<String>, more: Vec<String>) {
    for entry in more {
        if !list.contains(&entry) {
            list.push(entry);
        }
    }
}

fn cluster_first(pod: &Pod, context: &Context, of_host: api::DnsConfig) -> api::DnsConfig {
    let domain = &context.options.cluster_domain;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    merge(&mut searches, of_host.searches);
    api::DnsConfig { servers: vec![context.options.cluster_dns.to_string()], searches, options: vec!["ndots:5".into()] }
}

fn of_host(resolv_conf: &str) -> api::DnsConfig {
    let mut dns = api::DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        let rest = |words: std::str::SplitWhitespace| words.map(str::to_owned).collect::<Vec<_>>();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = rest(words),
            Some("options") => dns.options = rest(words),
            _ => {}
        }
    }
    dns
}
