//! Watches Services and EndpointSlices and keeps the kernel's rules in step.

use super::watched::Watched;
use super::{Backend, Cidr, Error, Loader, health};
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use slipway_api::core::Service;
use slipway_api::discovery::EndpointSlice;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Changes come in bursts (a rolling update touches a slice per pod): one load takes them all.
const SYNC_PERIOD_MIN: Duration = Duration::from_millis(100);
/// Gives a burst's first event company before it is acted on.
const GATHER: Duration = Duration::from_millis(10);
/// Whatever somebody else did to the rules is mended at least this often.
const RESYNC_PERIOD: Duration = Duration::from_secs(600);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the proxy of a node is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    pub backend: Backend,
    /// The network of all pods: their sources are left as they are, except towards the outside.
    pub pod_cidr: Cidr,
    /// Addresses of Services that a process on this node serves itself, such as the cluster's DNS.
    pub served_here: Vec<Ipv4Addr>,
}

/// Runs until `shutdown`. The rules stay: [`super::cleanup`] removes them.
pub async fn run(client: kube::Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let mut loader = Loader::new(options.backend, options.pod_cidr).await?;
    tracing::info!(backend = ?loader.backend(), "the service proxy starts");
    let mut watched = Watched::new(&options.node_name);
    let mut checks = health::Checks::default();
    let mut services = stream::<Service>(&client);
    let mut slices = stream::<EndpointSlice>(&client);
    let mut next: Option<Instant> = None;
    let mut last = Instant::now();
    let mut everything = true;
    let mut retry = SYNC_PERIOD_MIN;
    let mut resync = tokio::time::interval_at(Instant::now() + RESYNC_PERIOD, RESYNC_PERIOD);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(event) = services.next() => on_service(&mut watched, event),
            Some(event) = slices.next() => on_slice(&mut watched, event),
            _ = resync.tick() => everything = true,
            () = tokio::time::sleep_until(next.unwrap_or(last)), if next.is_some() => {
                next = None;
                last = Instant::now();
                checks.sync(&watched.health_checks()).await;
                let model = watched.model(&options.served_here);
                match loader.sync(model, everything).await {
                    Ok(()) => (everything, retry) = (false, SYNC_PERIOD_MIN),
                    Err(error) => {
                        tracing::error!(%error, "cannot load service rules");
                        everything = true;
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                }
            }
        }
        if next.is_none() && watched.is_complete() && (everything || watched.has_changed()) {
            next = Some((Instant::now() + GATHER).max(last + retry));
        }
    }
}

type Events<K> = std::pin::Pin<Box<dyn Stream<Item = Result<Event<K>, watcher::Error>> + Send>>;

fn stream<K>(client: &kube::Client) -> Events<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watch(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff().boxed()
}

fn on_service(watched: &mut Watched, event: Result<Event<Service>, watcher::Error>) {
    match event {
        Ok(Event::Init) => watched.services_relist(),
        Ok(Event::InitApply(service) | Event::Apply(service)) => watched.service(&service),
        Ok(Event::InitDone) => watched.services_relisted(),
        Ok(Event::Delete(service)) => watched.service_deleted(&service),
        Err(error) => tracing::warn!(%error, "cannot watch Services; rules stay as they are"),
    }
}

fn on_slice(watched: &mut Watched, event: Result<Event<EndpointSlice>, watcher::Error>) {
    match event {
        Ok(Event::Init) => watched.slices_relist(),
        Ok(Event::InitApply(slice) | Event::Apply(slice)) => watched.slice(&slice),
        Ok(Event::InitDone) => watched.slices_relisted(),
        Ok(Event::Delete(slice)) => watched.slice_deleted(&slice),
        Err(error) => tracing::warn!(%error, "cannot watch EndpointSlices; rules stay as they are"),
    }
}
