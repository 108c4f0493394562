//! Watches the metadata of the kinds that quotas count, of any group, as long as one does.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use slipway_api::meta::ObjectMeta;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Counted, Counts};
use crate::{
    cache::Sink,
    caches::Caches,
    discovery::discover_beside,
    reflect::{Collection, Form, reflect},
    resource::{Object, Resource},
};

/// A kind that is not served is looked for again at this pace.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(10);

pub struct Monitor {
    pub(super) client: Client,
    pub(super) caches: Arc<Caches>,
    pub(super) counts: Arc<Counts>,
}

impl Monitor {
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.clone().run_until_cancelled(self.follow(shutdown)).await;
    }

    async fn follow(&self, shutdown: CancellationToken) {
        let mut watches: HashMap<Counted, CancellationToken> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let wanted: BTreeSet<Counted> =
                self.caches.resource_quotas.list().iter().flat_map(|quota| Counted::of(quota)).collect();
            watches.retain(|kind, stop| {
                let keep = wanted.contains(kind);
                if !keep {
                    stop.cancel();
                    self.counts.forget(kind);
                }
                keep
            });
            let missing: Vec<Counted> = wanted.into_iter().filter(|kind| !watches.contains_key(kind)).collect();
            if missing.is_empty() {
                self.counts.woken().await;
                continue;
            }
            match discover_beside(&self.client, &[]).await {
                Ok(served) => {
                    for kind in missing {
                        let found = served.iter().find(|known| {
                            let Resource { group, plural, namespaced, .. } = &known.resource;
                            *group == kind.group
                                && *plural == kind.plural
                                && *namespaced
                                && known.can("list")
                                && known.can("watch")
                        });
                        if let Some(found) = found {
                            let stop = shutdown.child_token();
                            watches.insert(kind.clone(), stop.clone());
                            let feed = Feed { kind, caches: self.caches.clone(), counts: self.counts.clone() };
                            let path = found.resource.collection("");
                            let collection = Collection { path, field_selector: "", form: Form::Metadata };
                            let client = self.client.clone();
                            tasks.spawn(async move { reflect(client, collection, &feed, stop).await });
                        }
                    }
                }
                Err(error) => warn!(%error, "cannot discover the kinds that quotas count; trying again"),
            }
            let _ = tokio::time::timeout(DISCOVERY_PERIOD, self.counts.woken()).await;
        }
    }
}

/// Passes what one watch says to the counts.
struct Feed {
    kind: Counted,
    caches: Arc<Caches>,
    counts: Arc<Counts>,
}

fn metadata(object: &RawValue) -> Option<ObjectMeta> {
    #[derive(Deserialize)]
    struct Partial {
        metadata: ObjectMeta,
    }
    serde_json::from_str::<Partial>(object.get()).ok().map(|partial| partial.metadata)
}

impl Sink for Feed {
    fn replace(&self, objects: Vec<Box<RawValue>>, _: u64) {
        let objects: Vec<ObjectMeta> = objects.iter().filter_map(|object| metadata(object)).collect();
        let quotas: BTreeSet<String> =
            self.caches.resource_quotas.list().iter().map(|quota| quota.namespace().to_owned()).collect();
        self.counts.replace(&self.kind, objects.iter(), quotas.into_iter());
    }

    fn upsert(&self, object: &RawValue, _: u64) {
        if let Some(metadata) = metadata(object) {
            self.counts.observe(&self.kind, &metadata, true);
        }
    }

    fn remove(&self, object: &RawValue, _: u64) {
        if let Some(metadata) = metadata(object) {
            self.counts.observe(&self.kind, &metadata, false);
        }
    }

    fn reached(&self, _: u64) {}
}
