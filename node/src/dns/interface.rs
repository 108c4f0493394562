//! The network interface that holds the address of the cluster's DNS on a node: a dummy, so that the address is there
//! whatever the node's other interfaces do, and never leaves the node. Where the kernel has no dummies, a bridge
//! without ports serves as well.

use super::Error;
use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkBridge, LinkDummy, LinkUnspec};
use std::net::IpAddr;

pub const NAME: &str = "slipway-dns";
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

/// Makes sure that the interface is there, is up, and has the address.
pub async fn ensure(address: IpAddr) -> Result<(), Error> {
    let handle = connect()?;
    let failed = |source: rtnetlink::Error| Error::Interface { name: NAME.into(), source: Box::new(source) };
    let mut added = handle.link().add(LinkDummy::new(NAME).up().build()).execute().await;
    if added.as_ref().is_err_and(|error| is(EOPNOTSUPP, error)) {
        added = handle.link().add(LinkBridge::new(NAME).up().build()).execute().await;
    }
    added.or_else(|error| unless(EEXIST, error)).map_err(failed)?;
    let Some(link) = find(&handle).await.map_err(failed)? else {
        return Err(failed(rtnetlink::Error::RequestFailed));
    };
    let index = link.header.index;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(failed)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let added = handle.address().add(index, address, bits).execute().await;
    added.or_else(|error| unless(EEXIST, error)).map_err(failed)
}

/// Removes the interface; no error if there is none.
pub async fn remove() -> Result<(), Error> {
    let handle = connect()?;
    let failed = |source: rtnetlink::Error| Error::Interface { name: NAME.into(), source: Box::new(source) };
    let Some(link) = find(&handle).await.map_err(failed)? else { return Ok(()) };
    handle.link().del(link.header.index).execute().await.map_err(failed)
}

fn connect() -> Result<Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
    // Ends by itself when the handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

async fn find(handle: &Handle) -> Result<Option<LinkMessage>, rtnetlink::Error> {
    match handle.link().get().match_name(NAME).execute().try_next().await {
        Err(error) => unless(ENODEV, error).map(|()| None),
        found => found,
    }
}

fn unless(errno: i32, error: rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    if is(errno, &error) { Ok(()) } else { Err(error) }
}

fn is(errno: i32, error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}
