//! Routes to the pods of other nodes: each node's share of the pod network is reached through the node itself.
//!
//! This asks that nodes are neighbours on one network. Our routes carry a protocol number of their own, by which they
//! are found again; others' are never touched.

use super::Error;
use crate::proxy::Cidr;
use futures::{StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, RouteMessageBuilder};
use slipway_api::core::Node;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Free in the kernel's and iproute2's lists.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);
/// Nodes come in bursts.
const GATHER: Duration = Duration::from_millis(200);
const RESYNC_PERIOD: Duration = Duration::from_secs(300);

/// By destination: the gateway.
type Routes = BTreeMap<Cidr, Ipv4Addr>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Also when there is one through another gateway.
    Set(Cidr, Ipv4Addr),
    Remove(Cidr, Ipv4Addr),
}

/// Where the pods of a node are, and through which address.
fn of(node: &Node) -> Option<(Cidr, Ipv4Addr)> {
    let cidr = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    Some((cidr, internal.filter_map(|address| address.address.parse().ok()).next()?))
}

fn plan(wanted: &Routes, present: &Routes) -> Vec<Step> {
    let gone = present.iter().filter(|(cidr, _)| !wanted.contains_key(cidr)).map(|(cidr, via)| Step::Remove(*cidr, *via));
    let set = wanted.iter().filter(|(cidr, via)| present.get(cidr) != Some(via)).map(|(cidr, via)| Step::Set(*cidr, *via));
    gone.chain(set).collect()
}

/// Makes our routes be those to the pods of `nodes` other than `own`, in the calling thread's network namespace.
pub async fn sync<'a>(own: &str, nodes: impl Iterator<Item = &'a Node>) -> Result<(), Error> {
    let others = nodes.filter(|node| node.metadata.name.as_deref() != Some(own));
    apply(&others.filter_map(of).collect()).await
}

async fn apply(wanted: &Routes) -> Result<(), Error> {
    let handle = connect()?;
    let mut first_error = None;
    for step in plan(wanted, &present(&handle).await?) {
        // One node that is no neighbour must not keep the others from being reached.
        if let Err(error) = carry_out(&handle, &step).await {
            tracing::warn!(%error, ?step, "a route to another node's pods is missing");
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn carry_out(handle: &Handle, step: &Step) -> Result<(), Error> {
    let message = |cidr: &Cidr, via: &Ipv4Addr| {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(cidr.address(), cidr.bits());
        route.gateway(*via).protocol(PROTOCOL).build()
    };
    let (done, what) = match step {
        Step::Set(cidr, via) => {
            (handle.route().add(message(cidr, via)).replace().execute().await, format!("add a route to {cidr} via {via}"))
        }
        Step::Remove(cidr, via) => {
            (handle.route().del(message(cidr, via)).execute().await, format!("remove the route to {cidr}"))
        }
    };
    done.map_err(|source| Error::Route { what, source: Box::new(source) })
}

async fn present(handle: &Handle) -> Result<Routes, Error> {
    let failed = |source: rtnetlink::Error| Error::Route { what: "list routes".into(), source: Box::new(source) };
    let all: Vec<RouteMessage> =
        handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute().try_collect().await.map_err(failed)?;
    Ok(all.iter().filter(|route| route.header.protocol == PROTOCOL).filter_map(destination_and_gateway).collect())
}

fn destination_and_gateway(route: &RouteMessage) -> Option<(Cidr, Ipv4Addr)> {
    let (mut to, mut via) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(*ip),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some(*ip),
            _ => {}
        }
    }
    Some((Cidr::new(to?, route.header.destination_prefix_length), via?))
}

/// Removes the pods' bridge; no error if there is none.
pub(super) async fn remove_bridge() -> Result<(), Error> {
    let handle = connect()?;
    let Ok(Some(link)) = handle.link().get().match_name(super::BRIDGE).execute().try_next().await else { return Ok(()) };
    let removed = handle.link().del(link.header.index).execute().await;
    removed.map_err(|source| Error::Route { what: format!("remove {}", super::BRIDGE), source: Box::new(source) })
}

fn connect() -> Result<Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
    // Ends by itself when the handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

/// Follows the cluster's Nodes until `shutdown`. The routes stay: [`super::cleanup`] removes them.
pub async fn run(client: kube::Client, node_name: String, shutdown: CancellationToken) {
    let mut nodes = watch(Api::<Node>::all(client), watcher::Config::default()).default_backoff().boxed();
    let mut known: BTreeMap<String, (Cidr, Ipv4Addr)> = BTreeMap::new();
    let mut listing: Option<BTreeMap<String, (Cidr, Ipv4Addr)>> = None;
    let mut complete = false;
    let mut resync = tokio::time::interval_at(Instant::now() + RESYNC_PERIOD, RESYNC_PERIOD);
    let mut next: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = resync.tick() => {}
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                next = None;
                let others = known.iter().filter(|(name, _)| **name != node_name);
                // What failed has been logged, and is tried again at the next change or resync.
                let _ = apply(&others.map(|(_, route)| *route).collect()).await;
                continue;
            }
            Some(event) = nodes.next() => match event {
                Ok(Event::Init) => listing = Some(BTreeMap::new()),
                Ok(Event::InitApply(node)) => _ = note(listing.get_or_insert_default(), &node),
                Ok(Event::InitDone) => {
                    known = listing.take().unwrap_or_default();
                    complete = true;
                }
                // Most changes of a Node are of its status, and none of ours.
                Ok(Event::Apply(node)) => if !note(&mut known, &node) { continue },
                Ok(Event::Delete(node)) => drop(known.remove(node.metadata.name.as_deref().unwrap_or_default())),
                Err(error) => tracing::warn!(%error, "cannot watch Nodes; routes stay as they are"),
            },
        }
        if complete {
            next = next.or(Some(Instant::now() + GATHER));
        }
    }
}

/// Says whether anything changed.
fn note(known: &mut BTreeMap<String, (Cidr, Ipv4Addr)>, node: &Node) -> bool {
    let name = node.metadata.name.clone().unwrap_or_default();
    match of(node) {
        Some(route) => known.insert(name, route) != Some(route),
        None => known.remove(&name).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_only_what_differs() {
        let routes = |list: &[(&str, &str)]| -> Routes {
            list.iter().map(|(cidr, via)| (cidr.parse().unwrap(), via.parse().unwrap())).collect()
        };
        let wanted = routes(&[("10.244.1.0/24", "10.0.0.1"), ("10.244.2.0/24", "10.0.0.2"), ("10.244.3.0/24", "10.0.0.3")]);
        let present = routes(&[("10.244.1.0/24", "10.0.0.1"), ("10.244.2.0/24", "10.0.0.9"), ("10.244.4.0/24", "10.0.0.4")]);
        let step = |cidr: &str, via: &str| (cidr.parse::<Cidr>().unwrap(), via.parse::<Ipv4Addr>().unwrap());
        let (gone, moved, new) =
            (step("10.244.4.0/24", "10.0.0.4"), step("10.244.2.0/24", "10.0.0.2"), step("10.244.3.0/24", "10.0.0.3"));
        let expected = [Step::Remove(gone.0, gone.1), Step::Set(moved.0, moved.1), Step::Set(new.0, new.1)];
        assert_eq!(plan(&wanted, &present), expected);
        assert!(plan(&wanted, &wanted).is_empty());
    }
}
