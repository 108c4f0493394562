//! Watches the metadata of every kind that the API server serves, so that the graph is complete.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use slipway_api::meta::ObjectMeta;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Shared;
use crate::{
    cache::Sink,
    caches::Caches,
    discovery::{Discovered, discover_beside},
    reflect::{Collection, Form, reflect},
    resource::Resource,
};

/// New kinds are found, and old ones dropped, at this pace.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
const DISCOVERY_RETRY: Duration = Duration::from_secs(2);

pub struct Monitor {
    pub(super) client: Client,
    pub(super) shared: Arc<Shared>,
    pub(super) caches: Arc<Caches>,
}

impl Monitor {
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.clone().run_until_cancelled(self.follow(shutdown)).await;
    }

    async fn follow(&self, shutdown: CancellationToken) {
        let mut watches: HashMap<Resource, (CancellationToken, watch::Receiver<bool>)> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut before = vec![];
        loop {
            let pause = match discover_beside(&self.client, &before).await {
                Ok(discovered) => {
                    before.clone_from(&discovered);
                    self.adjust(discovered, &mut watches, &mut tasks, &shutdown);
                    for (_, synced) in watches.values_mut() {
                        let _ = tokio::time::timeout(DISCOVERY_PERIOD, synced.wait_for(|synced| *synced)).await;
                    }
                    self.shared.synced.store(true, Ordering::Release);
                    DISCOVERY_PERIOD
                }
                Err(error) => {
                    warn!(%error, "cannot discover the kinds; trying again");
                    DISCOVERY_RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn adjust(
        &self,
        discovered: Vec<Discovered>,
        watches: &mut HashMap<Resource, (CancellationToken, watch::Receiver<bool>)>,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let by_kind =
            |known: &Discovered| ((known.resource.api_version(), known.resource.kind.to_string()), known.resource.clone());
        *self.shared.kinds.write() = discovered.iter().filter(|known| known.can("delete")).map(by_kind).collect();
        let shared: HashSet<Resource> = self
            .caches
            .all()
            .into_iter()
            .filter(|(_, selection)| selection.is_whole())
            .map(|(cache, _)| cache.resource().clone())
            .collect();
        let wanted: HashSet<Resource> = discovered
            .into_iter()
            .filter(|known| ["list", "watch", "delete"].iter().all(|verb| known.can(verb)))
            .map(|known| known.resource)
            .filter(|resource| resource.plural != "events" && !shared.contains(resource))
            .collect();
        watches.retain(|resource, (stop, _)| {
            let keep = wanted.contains(resource);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for resource in wanted {
            if watches.contains_key(&resource) {
                continue;
            }
            debug!(plural = %resource.plural, group = %resource.group, "watches the metadata");
            let stop = shutdown.child_token();
            let feed = Feed { resource: resource.clone(), shared: self.shared.clone(), synced: watch::Sender::new(false) };
            watches.insert(resource.clone(), (stop.clone(), feed.synced.subscribe()));
            let collection = Collection { path: resource.collection(""), field_selector: "", form: Form::Metadata };
            let client = self.client.clone();
            tasks.spawn(async move { reflect(client, collection, &feed, stop).await });
        }
    }
}

/// Passes what one watch says to the graph, and keeps nothing.
struct Feed {
    resource: Resource,
    shared: Arc<Shared>,
    synced: watch::Sender<bool>,
}

#[derive(Deserialize)]
struct Partial {
    metadata: ObjectMeta,
}

fn metadata(object: &RawValue) -> Option<ObjectMeta> {
    serde_json::from_str::<Partial>(object.get()).ok().map(|partial| partial.metadata)
}

impl Sink for Feed {
    fn replace(&self, objects: Vec<Box<RawValue>>, _: u64) {
        let mut present = HashSet::new();
        for metadata in objects.iter().filter_map(|object| metadata(object)) {
            present.extend(metadata.uid.clone());
            self.shared.look_at(self.shared.graph.observe(&self.resource, None, Some(&metadata)));
        }
        self.shared.look_at(self.shared.graph.relisted(&self.resource, &present));
        self.synced.send_replace(true);
    }

    fn upsert(&self, object: &RawValue, _: u64) {
        if let Some(metadata) = metadata(object) {
            self.shared.look_at(self.shared.graph.observe(&self.resource, None, Some(&metadata)));
        }
    }

    fn remove(&self, object: &RawValue, _: u64) {
        if let Some(metadata) = metadata(object) {
            self.shared.look_at(self.shared.graph.observe(&self.resource, Some(&metadata), None));
        }
    }

    fn reached(&self, _: u64) {}
}
