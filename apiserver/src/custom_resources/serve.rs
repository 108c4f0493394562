//! Which custom kinds are served, from what the cache holds; and their objects in the version that is asked for.

use crate::custom_resources::CustomResource;
use crate::custom_resources::strategy::Definition;
use crate::custom_resources::{definition, establish};
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Entry, Snapshot};
use serde_json::Value;
use slipway_store::Revision;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a definition that waits for its objects to go is left alone.
const PENDING_PAUSE: Duration = Duration::from_millis(300);

/// The definitions that were read, by their keys.
#[derive(Default)]
pub(crate) struct Served(parking_lot::Mutex<State>);

#[derive(Default)]
struct State {
    revision: Revision,
    definitions: BTreeMap<Arc<str>, Known>,
}

/// The revision of a definition, and the versions that it makes.
type Known = (Revision, Vec<Arc<dyn Strategy>>);

impl Served {
    /// Makes the served kinds what the snapshot says. An older snapshot than the last changes nothing.
    pub(crate) fn follow(&self, server: &ApiServer, snapshot: &Snapshot) {
        let mut state = self.0.lock();
        if snapshot.revision < state.revision {
            return;
        }
        state.revision = snapshot.revision;
        let entries: Vec<&Arc<Entry>> = stored::below(snapshot, definition::PREFIX, "").collect();
        let known = |entry: &&Arc<Entry>| state.definitions.get(&entry.key).is_some_and(|(at, _)| *at == entry.mod_revision);
        if entries.len() == state.definitions.len() && entries.iter().all(known) {
            return;
        }
        let mut definitions = BTreeMap::new();
        for entry in entries {
            let strategies = match state.definitions.get(&entry.key) {
                Some((at, strategies)) if *at == entry.mod_revision => strategies.clone(),
                _ => strategies(entry),
            };
            definitions.insert(Arc::clone(&entry.key), (entry.mod_revision, strategies));
        }
        state.definitions = definitions;
        server.registry.set_custom(state.definitions.values().flat_map(|(_, strategies)| strategies.iter().cloned()).collect());
    }
}

/// The versions that a definition serves.
fn strategies(entry: &Entry) -> Vec<Arc<dyn Strategy>> {
    let Ok(object) = serde_json::from_slice::<Value>(&entry.bytes) else { return vec![] };
    if !definition::is_condition_true(&object, "NamesAccepted") && !definition::is_condition_true(&object, "Established") {
        return vec![];
    }
    let versions = object["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let definition = Arc::new(Definition::new(object));
    let served = versions.iter().filter(|version| version["served"] == true);
    served.map(|version| Arc::new(CustomResource::new(&definition, version)) as Arc<dyn Strategy>).collect()
}

/// Follows the definitions until the server ends.
pub(crate) async fn run(server: Weak<ApiServer>, closing: CancellationToken) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let snapshot = strong.snapshot();
        strong.served.follow(&strong, &snapshot);
        let mut pending = establish::settle(&strong, &snapshot).await;
        let watched = strong.cache.watch(definition::PREFIX, snapshot.revision);
        drop(strong);
        let Ok(mut changes) = watched else { continue };
        loop {
            let pause = if pending { PENDING_PAUSE } else { Duration::from_secs(3600) };
            let item = tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(pause) => None,
                item = changes.next() => Some(item),
            };
            let Some(strong) = server.upgrade() else { return };
            match item {
                Some(Err(slipway_store::Error::Closed)) => return,
                // Cut off: begin again.
                Some(Err(_)) => break,
                Some(Ok(slipway_store::cache::Item::Progress(_))) => continue,
                Some(Ok(slipway_store::cache::Item::Change(_))) | None => {}
            }
            let snapshot = strong.snapshot();
            strong.served.follow(&strong, &snapshot);
            pending = establish::settle(&strong, &snapshot).await;
        }
    }
}

/// For what is not served as far as this server knows: another may have established it a moment ago.
pub(crate) async fn look_again(server: &ApiServer) {
    if let Ok(snapshot) = server.cache.fresh().await {
        server.served.follow(server, &snapshot);
        server.aggregator.follow(&snapshot);
    }
}

/// The storage version of a definition, whether it is served or not.
pub(crate) fn storage_strategy(object: &Value) -> Option<CustomResource> {
    let version = object["spec"]["versions"].as_array()?.iter().find(|version| version["storage"] == true)?;
    Some(CustomResource::new(&Arc::new(Definition::new(object.clone())), version))
}
