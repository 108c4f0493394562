//! The aggregation layer: groups and versions of the API that extension servers serve, each behind a Service that an APIService
//! names. Requests for them are passed on (`proxy`), once they are authenticated, let in and authorised here.
//!
//! Which groups and versions those are follows from the APIServices that the cache holds, so that every API server on one store
//! comes to the same. `register` writes the APIServices of what is served here, `availability` says in their status whether
//! extension servers answer (one API server at a time does, see `turn`), `documents` keeps what those tell of themselves, for
//! discovery and OpenAPI.

mod api_service;
mod availability;
mod documents;
pub(crate) mod openapi;
pub mod priority;
mod proxy;
mod register;
mod transport;
mod turn;

pub(crate) use api_service::{ApiService, PREFIX, Services};
pub(crate) use documents::Specs;
pub(crate) use proxy::{Proxied, document, forward, hide_token};
pub(crate) use register::start;

use crate::custom_resources::definition;
use crate::http::authenticate::User;
use crate::server::ApiServer;
use crate::stored::Snapshot;
use api_service::Known;
use arc_swap::ArcSwap;
use documents::Told;
use serde_json::Value;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use transport::Transports;

pub const GROUP: &str = "apiregistration.k8s.io";
const AVAILABLE: &str = "Available";
/// How long to wait before the cache is looked at again when it could not be watched.
const CUT_OFF: Duration = Duration::from_millis(100);

/// What is known of the APIServices and of the servers behind them.
pub(crate) struct Aggregator {
    known: parking_lot::Mutex<Known>,
    services: ArcSwap<Services>,
    told: ArcSwap<Told>,
    specs: ArcSwap<Specs>,
    transports: Transports,
    /// Told when `services` has become another.
    changed: Arc<Notify>,
}

impl Aggregator {
    /// `identity` is a certificate chain and its key in PEM, by which extension servers know this one.
    pub fn new(identity: Option<&(String, String)>) -> Result<Self, String> {
        Ok(Aggregator {
            known: Default::default(),
            services: Default::default(),
            told: Default::default(),
            specs: Default::default(),
            transports: Transports::new(identity)?,
            changed: Arc::default(),
        })
    }

    /// Makes the APIServices what the snapshot says. An older snapshot than the last changes nothing.
    pub fn follow(&self, snapshot: &Snapshot) {
        let mut known = self.known.lock();
        if let Some(services) = known.follow(snapshot) {
            self.services.store(Arc::new(services));
            self.changed.notify_one();
        }
    }

    pub fn services(&self) -> Arc<Services> {
        self.services.load_full()
    }

    /// The APIService of a group and version that an extension server serves.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        self.services.load().remote(group, version).cloned()
    }

    /// The resources of an extension server's group and version as aggregated discovery has them, and whether that is what the
    /// server told when it was last asked.
    pub fn resources(&self, service: &ApiService) -> (Vec<Value>, bool) {
        self.told.load().resources(service)
    }

    /// What is to be merged into the OpenAPI documents; the same `Arc` until it changes.
    pub fn specs(&self) -> Arc<Specs> {
        self.specs.load_full()
    }
}

/// Follows APIServices and extension servers until the server ends.
pub(crate) fn run(server: &Arc<ApiServer>, closing: &CancellationToken) {
    tokio::spawn(register::run(Arc::downgrade(server), closing.clone()));
    tokio::spawn(availability::run(Arc::downgrade(server), closing.clone()));
    tokio::spawn(documents::run(Arc::downgrade(server), closing.clone()));
}

/// Says of an APIService that this server itself is behind it.
pub(crate) fn set_local(object: &mut Value, now: jiff::Timestamp) {
    definition::set_condition(object, AVAILABLE, true, "Local", "Local APIServices are always available", now);
}

/// As whom this server asks extension servers on its own behalf.
fn aggregator_user() -> User {
    User { name: "system:kube-aggregator".into(), groups: vec![User::MASTERS.into()], ..User::default() }
}

/// Waits until something is to be looked at again; `None` when the server ends. A change is waited for where there are
/// watches, but not longer than `pause`.
async fn woken(
    weak: &Weak<ApiServer>,
    closing: &CancellationToken,
    prefixes: &[&str],
    after: slipway_store::Revision,
    pause: Duration,
) -> Option<Arc<ApiServer>> {
    use futures::StreamExt;
    use slipway_store::cache::Item;
    let mut watches = vec![];
    {
        let server = weak.upgrade()?;
        for prefix in prefixes {
            if let Ok(watch) = server.cache.watch(prefix, after) {
                watches.push(watch);
            }
        }
    }
    // Where one was cut off already, what is there now is looked at.
    let pause = if watches.len() == prefixes.len() { pause } else { CUT_OFF };
    let mut changes: futures::stream::FuturesUnordered<_> =
        watches.iter_mut().map(async |watch| while let Ok(Item::Progress(_)) = watch.next().await {}).collect();
    let changed = async {
        match changes.next().await {
            Some(()) => {}
            None => futures::future::pending().await,
        }
    };
    tokio::select! {
        () = closing.cancelled() => return None,
        () = tokio::time::sleep(pause) => {}
        () = changed => {}
    }
    weak.upgrade()
}
