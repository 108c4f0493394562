//! Watches Services and EndpointSlices, and serves their names.

use super::forward::Upstream;
use super::server::Server;
use super::zone::Zone;
use super::{Error, interface};
use crate::proxy::Cidr;
use futures::StreamExt;
use hickory_proto::rr::Name;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use parking_lot::RwLock;
use slipway_api::core::Service;
use slipway_api::discovery::EndpointSlice;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a node's DNS is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's DNS address, usually port 53 of the tenth address of the Service network.
    pub listen: SocketAddr,
    /// Adds the listen address to an interface of its own. Without it the address must be there already.
    pub make_interface: bool,
    /// `cluster.local`
    pub domain: String,
    /// The node's own resolv.conf.
    pub resolv_conf: PathBuf,
    /// Networks of Services and pods, whose addresses have names here or none.
    pub reverse: Vec<Cidr>,
}

/// Runs until `shutdown`. The interface stays, so that a restart is short: [`interface::remove`] removes it.
pub async fn run(client: kube::Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let domain = Name::from_ascii(&options.domain).map_err(|_| Error::Domain(options.domain.clone()))?;
    if options.make_interface {
        interface::ensure(options.listen.ip()).await?;
    }
    let zone = Arc::new(RwLock::new(Zone::new(domain, options.listen.ip(), options.reverse)));
    let server = Server::bind(options.listen, zone.clone(), Upstream::ResolvConf(options.resolv_conf)).await?;
    tracing::info!(address = %options.listen, domain = options.domain, "cluster DNS starts");
    let mut serving = std::pin::pin!(server.run(shutdown));
    let mut services = watch(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff().boxed();
    let mut slices = watch(Api::<EndpointSlice>::all(client), watcher::Config::default()).default_backoff().boxed();
    loop {
        tokio::select! {
            () = &mut serving => return Ok(()),
            Some(event) = services.next() => match event {
                Ok(Event::Init) => zone.write().services_relist(),
                Ok(Event::InitApply(service) | Event::Apply(service)) => zone.write().service(&service),
                Ok(Event::InitDone) => zone.write().services_relisted(),
                Ok(Event::Delete(service)) => zone.write().service_deleted(&service),
                Err(error) => tracing::warn!(%error, "cannot watch Services; names stay as they are"),
            },
            Some(event) = slices.next() => match event {
                Ok(Event::Init) => zone.write().slices_relist(),
                Ok(Event::InitApply(slice) | Event::Apply(slice)) => zone.write().slice(&slice),
                Ok(Event::InitDone) => zone.write().slices_relisted(),
                Ok(Event::Delete(slice)) => zone.write().slice_deleted(&slice),
                Err(error) => tracing::warn!(%error, "cannot watch EndpointSlices; names stay as they are"),
            },
        }
    }
}
