//! Routes as nftables: maps only, no chain per Service, so that loading ten thousand Services takes seconds and
//! changing one of them milliseconds.
//!
//! `services` and `node-ports` map a destination to a chain that exists once per *number* of targets; that chain draws
//! an index and looks the target up in `endpoints`. Only what a map can't say has chains of its own: session affinity
//! and source ranges. [`full`] replaces the whole table, [`diff`] says only what changed; each is one transaction.

use super::model::{Entry, Front, Model, Route, Target};
use super::{Cidr, MASQUERADE_MARK};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// How many elements one statement carries: nft reads long ones slowly.
const ELEMENTS_PER_STATEMENT_MAX: usize = 1000;

const FRONT: &str = "ip daddr . meta l4proto . th dport";
const NODE_FRONT: &str = "meta l4proto . th dport";

/// Up to so many endpoints of a Service, the chain that picks one of them is always there. nft (1.0.6) can't read the
/// endpoints' maps back from the kernel (`conflicting protocols specified: ip vs. th`), and refuses a later rule that
/// looks something up in them; elements it takes at any time. A Service with more endpoints has everything loaded anew
/// when their number changes.
const ENDPOINTS_PREPARED: usize = 64;

/// Removes every trace; no error if there is none.
pub const CLEANUP: &str = "add table ip slipway\ndelete table ip slipway\n";

/// A map's or set's name, and an element's key.
type Element = (&'static str, String);

/// The table's content besides what never changes.
#[derive(Default)]
struct Content {
    chains: BTreeMap<String, Vec<String>>,
    /// Named sets with their declaration.
    sets: BTreeMap<String, String>,
}

/// One transaction that makes the table be exactly `model`, whatever was there before.
pub fn full(model: &Model, pod_cidr: Cidr) -> String {
    let mut text = format!("{CLEANUP}{}", base(pod_cidr));
    let elements = element_changes(&Model::default(), model, pod_cidr);
    text.push_str(&changes(&Content::default(), &content(model, pod_cidr), &elements));
    text
}

/// One transaction that takes the table from `old` to `new`; empty if there is nothing to do.
pub fn diff(old: &Model, new: &Model, pod_cidr: Cidr) -> String {
    changes(&content(old, pod_cidr), &content(new, pod_cidr), &element_changes(old, new, pod_cidr))
}

/// What every node has: the hooks and the empty maps.
fn base(pod_cidr: Cidr) -> String {
    let mut text = String::from("table ip slipway {\n");
    for prefix in ["", "local-", "cluster-"] {
        let _ = writeln!(text, " map {prefix}services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}");
        let _ = writeln!(text, " map {prefix}node-ports {{ type inet_proto . inet_service : verdict; }}");
    }
    for prefix in ["", "local-"] {
        let index = "numgen random mod 65536 : ip daddr . th dport";
        let _ = writeln!(text, " map {prefix}endpoints {{ typeof {FRONT} . {index}; }}");
        let _ = writeln!(text, " map {prefix}node-endpoints {{ typeof {NODE_FRONT} . {index}; }}");
    }
    let _ = write!(
        text,
        "\
 set refused {{ type ipv4_addr . inet_proto . inet_service; }}
 set refused-node-ports {{ type inet_proto . inet_service; }}
 set cluster-ips {{ type ipv4_addr; }}
 set hairpin {{ type ipv4_addr . ipv4_addr; }}
 chain mark-masquerade {{ meta mark set meta mark or {MASQUERADE_MARK:#x}; }}
 chain dispatch {{
  {FRONT} vmap @services
  fib daddr type local {NODE_FRONT} vmap @node-ports
 }}
 chain to-all {{ {FRONT} vmap @cluster-services; }}
 chain node-to-all {{ {NODE_FRONT} vmap @cluster-node-ports; }}
 chain local-policy {{
  ip saddr {pod_cidr} goto to-all
  fib saddr type local jump mark-masquerade
  fib saddr type local goto to-all
  {FRONT} vmap @local-services
  drop
 }}
 chain node-local-policy {{
  ip saddr {pod_cidr} goto node-to-all
  fib saddr type local jump mark-masquerade
  fib saddr type local goto node-to-all
  {NODE_FRONT} vmap @local-node-ports
  drop
 }}
 chain refuse {{
  {FRONT} @refused reject
  fib daddr type local {NODE_FRONT} @refused-node-ports reject
  ip daddr @cluster-ips reject
 }}
 chain prerouting {{ type nat hook prerouting priority dstnat; jump dispatch; }}
 chain output {{ type nat hook output priority -100; jump dispatch; }}
 chain postrouting {{
  type nat hook postrouting priority srcnat
  ip saddr . ip daddr @hairpin masquerade fully-random
  meta mark and {MASQUERADE_MARK:#x} != 0 jump masquerade-marked
  ip saddr {pod_cidr} ip daddr != {{ {pod_cidr}, 224.0.0.0/4 }} masquerade fully-random
 }}
 chain masquerade-marked {{
  meta mark set meta mark xor {MASQUERADE_MARK:#x}
  masquerade fully-random
 }}
 chain filter-input {{ type filter hook input priority filter; ct state new jump refuse; }}
 chain filter-forward {{
  type filter hook forward priority filter
  ct state invalid drop
  ct state new jump refuse
 }}
 chain filter-output {{ type filter hook output priority filter; ct state new jump refuse; }}
}}
"
    );
    text
}

/// Where the targets of a route stand: in the maps, or in chains of their own.
enum Pool<'a> {
    /// A map of endpoints, and how many there are.
    Map(&'static str, usize),
    Own {
        id: String,
        targets: &'a [Target],
        seconds: u32,
    },
}

impl<'a> Pool<'a> {
    fn of(front: &Front, route: &'a Route, local: bool) -> Option<Pool<'a>> {
        let targets = if local { route.local.as_ref()? } else { &route.targets };
        if targets.is_empty() {
            return None;
        }
        let map = match (front, local) {
            (Front::Address { .. }, false) => "endpoints",
            (Front::Node { .. }, false) => "node-endpoints",
            (Front::Address { .. }, true) => "local-endpoints",
            (Front::Node { .. }, true) => "local-node-endpoints",
        };
        // A cluster IP's targets differ from those of the other addresses under internalTrafficPolicy Local.
        let view = if local {
            "local"
        } else if route.entry == Entry::Cluster {
            "cluster"
        } else {
            "external"
        };
        Some(match route.affinity {
            Some(seconds) => Pool::Own { id: id(&[&route.service, view]), targets, seconds },
            None => Pool::Map(map, targets.len()),
        })
    }

    fn chain(&self) -> String {
        match self {
            Pool::Map(map, count) => format!("{map}-{count}"),
            Pool::Own { id, .. } => format!("affinity-{id}"),
        }
    }

    /// Adds the chains that pick a target.
    fn write(&self, front: &Front, content: &mut Content) {
        match self {
            Pool::Map(map, count) => {
                content.chains.entry(self.chain()).or_insert_with(|| {
                    let key = if matches!(front, Front::Node { .. }) { NODE_FRONT } else { FRONT };
                    pick(map, key, *count)
                });
            }
            Pool::Own { id, targets, seconds } => {
                let name = |target: &Target| format!("{id}-{}-{}", target.ip, target.port);
                let mut rules: Vec<String> =
                    targets.iter().map(|t| format!("ip saddr @client-{0} goto target-{0}", name(t))).collect();
                let picks = targets.iter().enumerate().map(|(index, t)| format!("{index} : goto target-{}", name(t)));
                rules.push(format!("numgen random mod {} vmap {{ {} }}", targets.len(), picks.collect::<Vec<_>>().join(", ")));
                content.chains.insert(self.chain(), rules);
                for target in *targets {
                    let name = name(target);
                    let set = format!("{{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}");
                    content.sets.insert(format!("client-{name}"), set);
                    let to = format!("meta l4proto {} dnat ip to {}:{}", front.protocol().name(), target.ip, target.port);
                    content.chains.insert(format!("target-{name}"), vec![format!("update @client-{name} {{ ip saddr }}"), to]);
                }
            }
        }
    }
}

/// The rule that takes one of `count` endpoints.
fn pick(map: &str, key: &str, count: usize) -> Vec<String> {
    vec![format!("dnat ip to {key} . numgen random mod {count} map @{map}")]
}

/// A short name that two different inputs do not share.
fn id(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0"));
    digest[..8].iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// The chain that a front's traffic goes to, together with all chains that it needs.
fn entry_chain(front: &Front, route: &Route, pod_cidr: Cidr, content: &mut Content) -> Option<String> {
    let pool = Pool::of(front, route, false);
    if let Some(pool) = &pool {
        pool.write(front, content);
    }
    if let Some(local) = Pool::of(front, route, true) {
        local.write(front, content);
    }
    let inner = match (&pool, &route.local, route.entry) {
        (None, _, _) if route.elsewhere => return Some("drop".into()),
        (None, _, _) => return None,
        (Some(_), Some(_), _) if matches!(front, Front::Node { .. }) => "node-local-policy".into(),
        (Some(_), Some(_), _) => "local-policy".into(),
        (Some(pool), None, Entry::Cluster) => {
            let (name, then) = (format!("cluster-{}", pool.chain()), format!("goto {}", pool.chain()));
            content.chains.insert(name.clone(), vec![format!("ip saddr != {pod_cidr} jump mark-masquerade"), then]);
            name
        }
        (Some(pool), None, Entry::External) => {
            let (name, then) = (format!("external-{}", pool.chain()), format!("goto {}", pool.chain()));
            content.chains.insert(name.clone(), vec!["jump mark-masquerade".into(), then]);
            name
        }
    };
    if route.sources.is_empty() {
        return Some(format!("goto {inner}"));
    }
    let ranges = route.sources.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ");
    let name = format!("sources-{}", id(&[&route.service, &inner]));
    content.chains.insert(name.clone(), vec![format!("ip saddr != {{ {ranges} }} drop"), format!("goto {inner}")]);
    Some(format!("goto {name}"))
}

/// The elements of maps and sets that one route stands for.
fn elements(front: &Front, route: &Route, pod_cidr: Cidr) -> BTreeMap<Element, String> {
    let mut result = BTreeMap::new();
    let (key, node) = match front {
        Front::Address { ip, protocol, port } => (format!("{ip} . {} . {port}", protocol.name()), false),
        Front::Node { protocol, port } => (format!("{} . {port}", protocol.name()), true),
    };
    let Some(verdict) = entry_chain(front, route, pod_cidr, &mut Content::default()) else {
        result.insert((if node { "refused-node-ports" } else { "refused" }, key), String::new());
        return result;
    };
    result.insert((if node { "node-ports" } else { "services" }, key.clone()), verdict);
    if route.local.is_some() {
        let all = Pool::of(front, route, false).map_or_else(|| "drop".into(), |pool| format!("goto {}", pool.chain()));
        result.insert((if node { "cluster-node-ports" } else { "cluster-services" }, key.clone()), all);
        // Without a local target the policy's chain ends in a drop by itself.
        if let Some(pool) = Pool::of(front, route, true) {
            let map = if node { "local-node-ports" } else { "local-services" };
            result.insert((map, key.clone()), format!("goto {}", pool.chain()));
        }
    }
    for local in [false, true] {
        if let Some(Pool::Map(map, _)) = Pool::of(front, route, local) {
            let targets = if local { route.local.as_ref() } else { Some(&route.targets) };
            for (index, target) in targets.into_iter().flat_map(|targets| targets.iter()).enumerate() {
                result.insert((map, format!("{key} . {index}")), format!("{} . {}", target.ip, target.port));
            }
        }
    }
    result
}

fn content(model: &Model, pod_cidr: Cidr) -> Content {
    let mut content = Content::default();
    for (map, key) in
        [("endpoints", FRONT), ("node-endpoints", NODE_FRONT), ("local-endpoints", FRONT), ("local-node-endpoints", NODE_FRONT)]
    {
        for count in 1..=ENDPOINTS_PREPARED {
            content.chains.insert(format!("{map}-{count}"), pick(map, key, count));
        }
    }
    let mut seen = BTreeSet::new();
    for (front, route) in &model.routes {
        // Most routes share their chains with thousands of others.
        let plain = route.affinity.is_none() && route.sources.is_empty();
        let local = route.local.as_ref().map(|local| local.len());
        let shape = (matches!(front, Front::Node { .. }), route.entry == Entry::Cluster, route.targets.len(), local);
        if !plain || seen.insert(shape) {
            entry_chain(front, route, pod_cidr, &mut content);
        }
    }
    content
}

/// Statements in the order that nft needs: what is referred to exists before, and goes after, what refers to it.
fn changes(before: &Content, after: &Content, (gone, added): &(Elements, Elements)) -> String {
    let mut text = String::new();
    for (name, declaration) in after.sets.iter().filter(|(name, _)| !before.sets.contains_key(*name)) {
        let _ = writeln!(text, "add set ip slipway {name} {declaration}");
    }
    remake_sets(before, after, &mut text);
    for name in after.chains.keys().filter(|name| !before.chains.contains_key(*name)) {
        let _ = writeln!(text, "add chain ip slipway {name}");
    }
    for (name, rules) in &after.chains {
        let old = before.chains.get(name);
        if old == Some(rules) && !uses_remade_set(rules, before, after) {
            continue;
        }
        if old.is_some() {
            let _ = writeln!(text, "flush chain ip slipway {name}");
        }
        for rule in rules {
            let _ = writeln!(text, "add rule ip slipway {name} {rule}");
        }
    }
    write_elements("delete", gone, &mut text);
    write_elements("add", added, &mut text);
    let removed: Vec<&String> = before.chains.keys().filter(|name| !after.chains.contains_key(*name)).collect();
    for verb in ["flush", "delete"] {
        for name in &removed {
            let _ = writeln!(text, "{verb} chain ip slipway {name}");
        }
    }
    for name in before.sets.keys().filter(|name| !after.sets.contains_key(*name)) {
        let _ = writeln!(text, "delete set ip slipway {name}");
    }
    text
}

fn remade<'a>(before: &'a Content, after: &'a Content) -> impl Iterator<Item = (&'a String, &'a String)> {
    after.sets.iter().filter(|(name, declaration)| before.sets.get(*name).is_some_and(|old| old != *declaration))
}

fn uses_remade_set(rules: &[String], before: &Content, after: &Content) -> bool {
    remade(before, after).any(|(name, _)| rules.iter().any(|rule| rule.contains(&format!("@{name} "))))
}

/// When an affinity's timeout changes: empties the chains that use the set, and makes the set anew.
fn remake_sets(before: &Content, after: &Content, text: &mut String) {
    if remade(before, after).next().is_none() {
        return;
    }
    for (name, _) in before.chains.iter().filter(|(_, rules)| uses_remade_set(rules, before, after)) {
        let _ = writeln!(text, "flush chain ip slipway {name}");
    }
    for (name, declaration) in remade(before, after) {
        let _ = writeln!(text, "delete set ip slipway {name}\nadd set ip slipway {name} {declaration}");
    }
}

type Elements = BTreeMap<Element, String>;

fn element_changes(old: &Model, new: &Model, pod_cidr: Cidr) -> (Elements, Elements) {
    let (mut gone, mut added) = (Elements::new(), Elements::new());
    let mut compare = |front: &Front, old: Option<&Arc<Route>>, new: Option<&Arc<Route>>| {
        let of = |route: Option<&Arc<Route>>| route.map(|route| elements(front, route, pod_cidr)).unwrap_or_default();
        let (before, after) = (of(old), of(new));
        let unlike = |other: &Elements, element: &(Element, String)| other.get(&element.0) != Some(&element.1);
        gone.extend(before.clone().into_iter().filter(|element| unlike(&after, element)));
        added.extend(after.into_iter().filter(|element| unlike(&before, element)));
    };
    for (front, route) in &new.routes {
        let before = old.routes.get(front);
        if !before.is_some_and(|before| Arc::ptr_eq(before, route) || before == route) {
            compare(front, before, Some(route));
        }
    }
    for (front, route) in old.routes.iter().filter(|(front, _)| !new.routes.contains_key(front)) {
        compare(front, Some(route), None);
    }
    let hairpin = |ip: &std::net::Ipv4Addr| (("hairpin", format!("{ip} . {ip}")), String::new());
    let cluster_ip = |ip: &std::net::Ipv4Addr| (("cluster-ips", ip.to_string()), String::new());
    gone.extend(old.hairpin.difference(&new.hairpin).map(hairpin));
    added.extend(new.hairpin.difference(&old.hairpin).map(hairpin));
    gone.extend(old.cluster_ips.difference(&new.cluster_ips).map(cluster_ip));
    added.extend(new.cluster_ips.difference(&old.cluster_ips).map(cluster_ip));
    (gone, added)
}

fn write_elements(verb: &str, elements: &Elements, text: &mut String) {
    let mut statement: (&str, Vec<String>) = ("", vec![]);
    let mut flush = |(map, list): &(&str, Vec<String>)| {
        if !list.is_empty() {
            let _ = writeln!(text, "{verb} element ip slipway {map} {{ {} }}", list.join(", "));
        }
    };
    for ((map, key), value) in elements {
        if statement.0 != *map || statement.1.len() == ELEMENTS_PER_STATEMENT_MAX {
            flush(&statement);
            statement = (map, vec![]);
        }
        // Values are not repeated on deletion: the key is enough.
        let with_value = verb == "add" && !value.is_empty();
        statement.1.push(if with_value { format!("{key} : {value}") } else { key.clone() });
    }
    flush(&statement);
}

#[cfg(test)]
#[path = "nftables_tests.rs"]
mod tests;
