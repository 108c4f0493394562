//! Routes as iptables chains, for machines without nftables: a chain per Service and per target, as kube-proxy has them.
//!
//! Everything goes through one `iptables-restore --noflush` per load, so that chains of others are left alone. Packets
//! to drop can't be dropped in the nat table; they keep their destination there, and the filter table drops them by it.

use super::model::{Entry, Front, Model, Route, Target};
use super::{Cidr, MASQUERADE_MARK};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Every chain of ours begins with this, so that leftovers of an earlier run are known.
pub const PREFIX: &str = "SLIPWAY-";

const SERVICES: &str = "SLIPWAY-SERVICES";
const NODE_PORTS: &str = "SLIPWAY-NODEPORTS";
const MARK: &str = "SLIPWAY-MARK-MASQ";
const POSTROUTING: &str = "SLIPWAY-POSTROUTING";
const MASQUERADE: &str = "SLIPWAY-MASQ";
const REFUSE: &str = "SLIPWAY-REFUSE";
const FORWARD: &str = "SLIPWAY-FORWARD";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Filter,
    Nat,
}

impl Table {
    pub const ALL: [Table; 2] = [Table::Filter, Table::Nat];

    pub fn name(self) -> &'static str {
        match self {
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }
}

/// The jumps from the kernel's own chains to ours: table, chain, rule. To be added once, before the others.
pub fn hooks() -> Vec<(Table, &'static str, Vec<&'static str>)> {
    let new = || vec!["-m", "conntrack", "--ctstate", "NEW", "-j", REFUSE];
    vec![
        (Table::Nat, "PREROUTING", vec!["-j", SERVICES]),
        (Table::Nat, "OUTPUT", vec!["-j", SERVICES]),
        (Table::Nat, "POSTROUTING", vec!["-j", POSTROUTING]),
        (Table::Filter, "FORWARD", vec!["-j", FORWARD]),
        (Table::Filter, "FORWARD", new()),
        (Table::Filter, "INPUT", new()),
        (Table::Filter, "OUTPUT", new()),
    ]
}

type Chains = BTreeMap<(Table, String), Vec<String>>;

/// One load that makes our chains be exactly `model`. `existing` are chains of ours that an earlier run left.
pub fn full(model: &Model, pod_cidr: Cidr, existing: &BTreeSet<(Table, String)>) -> String {
    let after = chains(model, pod_cidr);
    let stale: Vec<_> = existing.iter().filter(|chain| !after.contains_key(chain)).cloned().collect();
    text(after.iter(), &stale)
}

/// One load that takes our chains from `old` to `new`; empty if there is nothing to do.
pub fn diff(old: &Model, new: &Model, pod_cidr: Cidr) -> String {
    let (before, after) = (chains(old, pod_cidr), chains(new, pod_cidr));
    let stale: Vec<_> = before.keys().filter(|chain| !after.contains_key(chain)).cloned().collect();
    let changed: Vec<_> = after.iter().filter(|(chain, rules)| before.get(chain) != Some(rules)).collect();
    if stale.is_empty() && changed.is_empty() {
        return String::new();
    }
    text(changed.into_iter(), &stale)
}

/// One load that removes our chains, once nothing jumps to them.
pub fn removal(existing: &BTreeSet<(Table, String)>) -> String {
    text(std::iter::empty(), &existing.iter().cloned().collect::<Vec<_>>())
}

fn text<'a>(chains: impl Iterator<Item = (&'a (Table, String), &'a Vec<String>)> + Clone, stale: &[(Table, String)]) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let _ = writeln!(text, "*{}", table.name());
        let mine = || chains.clone().filter(|((of, _), _)| *of == table);
        let stale = || stale.iter().filter(|(of, _)| *of == table);
        // Declaring a chain empties it: stale ones too, since one may hold jumps to another.
        for chain in mine().map(|((_, chain), _)| chain).chain(stale().map(|(_, chain)| chain)) {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for ((_, chain), rules) in mine() {
            for rule in rules {
                let _ = writeln!(text, "-A {chain} {rule}");
            }
        }
        for (_, chain) in stale() {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Our chains in what `iptables-save -t TABLE` printed.
pub fn existing(table: Table, saved: &str) -> impl Iterator<Item = (Table, String)> {
    let names = saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    names.filter(|name| name.starts_with(PREFIX)).map(move |name| (table, name.to_string()))
}

fn id(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0"));
    digest[..8].iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02X}");
        id
    })
}

fn chains(model: &Model, pod_cidr: Cidr) -> Chains {
    let mark = format!("{MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x}");
    let mut chains = Chains::new();
    let mut fixed = |table: Table, chain: &str, rules: &[String]| chains.insert((table, chain.to_string()), rules.to_vec());
    fixed(Table::Nat, MARK, &[format!("-j MARK --or-mark {MASQUERADE_MARK:#x}")]);
    let forget = format!("-j MARK --xor-mark {MASQUERADE_MARK:#x}");
    fixed(Table::Nat, MASQUERADE, &[forget, "-j MASQUERADE --random-fully".into()]);
    let postrouting = [
        format!("-m mark --mark {mark} -j {MASQUERADE}"),
        format!("-s {pod_cidr} -d {pod_cidr} -j RETURN"),
        format!("-s {pod_cidr} -d 224.0.0.0/4 -j RETURN"),
        format!("-s {pod_cidr} -j MASQUERADE --random-fully"),
    ];
    fixed(Table::Nat, POSTROUTING, &postrouting);
    let forward = [
        "-m conntrack --ctstate INVALID -j DROP".into(),
        format!("-m mark --mark {mark} -j ACCEPT"),
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into(),
    ];
    fixed(Table::Filter, FORWARD, &forward);

    let (mut services, mut node_ports, mut refuse) = (vec![], vec![], vec![]);
    for (front, route) in &model.routes {
        let (to, node) = destination(front);
        if route.is_refused() {
            refuse.push(format!("{to} -j REJECT --reject-with icmp-port-unreachable"));
            continue;
        }
        if let Some(chain) = route_chain(front, route, pod_cidr, &mut chains) {
            let own = to.trim_start_matches("-m addrtype --dst-type LOCAL ");
            if node { &mut node_ports } else { &mut services }.push(format!("{own} -j {chain}"));
        }
        let may_drop = route.elsewhere || route.local.is_some() || !route.sources.is_empty();
        if may_drop {
            refuse.push(format!("{to} -j DROP"));
        }
    }
    services.push(format!("-m addrtype --dst-type LOCAL -j {NODE_PORTS}"));
    chains.insert((Table::Nat, SERVICES.into()), services);
    chains.insert((Table::Nat, NODE_PORTS.into()), node_ports);
    chains.insert((Table::Filter, REFUSE.into()), refuse);
    chains
}

/// The match for what is sent to `front`, and whether it is a node port.
fn destination(front: &Front) -> (String, bool) {
    match front {
        Front::Address { ip, protocol, port } => (format!("-d {ip}/32 -p {0} -m {0} --dport {port}", protocol.name()), false),
        Front::Node { protocol, port } => {
            (format!("-m addrtype --dst-type LOCAL -p {0} -m {0} --dport {port}", protocol.name()), true)
        }
    }
}

/// Adds the chains of a route, and says which one its traffic goes to.
fn route_chain(front: &Front, route: &Route, pod_cidr: Cidr, chains: &mut Chains) -> Option<String> {
    if route.targets.is_empty() {
        return None;
    }
    let view = if route.entry == Entry::Cluster { "cluster" } else { "external" };
    let all = pool_chain("SVC", view, front, route, &route.targets, chains);
    let (kind, rules) = match (&route.local, route.entry) {
        (None, Entry::Cluster) => ("CIP", vec![format!("! -s {pod_cidr} -j {MARK}"), format!("-j {all}")]),
        (None, Entry::External) => ("EXT", vec![format!("-j {MARK}"), format!("-j {all}")]),
        (Some(local), _) => {
            let mut rules = vec![
                format!("-s {pod_cidr} -j {all}"),
                format!("-m addrtype --src-type LOCAL -j {MARK}"),
                format!("-m addrtype --src-type LOCAL -j {all}"),
            ];
            if !local.is_empty() {
                rules.push(format!("-j {}", pool_chain("SVL", "local", front, route, local, chains)));
            }
            ("EXT", rules)
        }
    };
    let name = format!("{PREFIX}{kind}-{}", id(&[&route.service, view]));
    chains.insert((Table::Nat, name.clone()), rules);
    if route.sources.is_empty() {
        return Some(name);
    }
    let wall = format!("{PREFIX}FWL-{}", id(&[&route.service, view]));
    let allowed = route.sources.iter().map(|range| format!("-s {range} -j {name}"));
    chains.insert((Table::Nat, wall.clone()), allowed.collect());
    Some(wall)
}

fn pool_chain(kind: &str, view: &str, front: &Front, route: &Route, targets: &[Target], chains: &mut Chains) -> String {
    let name = format!("{PREFIX}{kind}-{}", id(&[&route.service, view]));
    let protocol = front.protocol().name();
    let mut stay = vec![];
    let mut spread = vec![];
    for (index, target) in targets.iter().enumerate() {
        let to = format!("{}:{}", target.ip, target.port);
        let chain = format!("{PREFIX}SEP-{}", id(&[&route.service, protocol, &to]));
        let mut rules = vec![format!("-s {}/32 -j {MARK}", target.ip)];
        if let Some(seconds) = route.affinity {
            stay.push(format!("-m recent --name {chain} --rcheck --seconds {seconds} --reap --rsource -j {chain}"));
            rules.push(format!("-m recent --name {chain} --set --rsource"));
        }
        rules.push(format!("-p {protocol} -m {protocol} -j DNAT --to-destination {to}"));
        // The first is drawn with 1/n, the second with 1/(n-1) of the rest, and so on: all are equally likely.
        spread.push(match targets.len() - index {
            1 => format!("-j {chain}"),
            rest => format!("-m statistic --mode random --probability {:.10} -j {chain}", 1.0 / rest as f64),
        });
        chains.insert((Table::Nat, chain), rules);
    }
    stay.extend(spread);
    chains.insert((Table::Nat, name.clone()), stay);
    name
}

#[cfg(test)]
#[path = "iptables_tests.rs"]
mod tests;
