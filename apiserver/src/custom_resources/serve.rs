//! Which custom kinds are served, from what the cache holds; and their objects in the version that is asked for.

use crate::custom_resources::CustomResource;
use crate::custom_resources::strategy::Definition;
use crate::custom_resources::{definition, establish};
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::registry::intern;
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
    let storage = versions.iter().find(|version| version["storage"] == true);
    let definition = Arc::new(Definition {
        storage_version: intern(storage.and_then(|version| version["name"].as_str()).unwrap_or_default()),
        list_kind: intern(object["status"]["acceptedNames"]["listKind"].as_str().unwrap_or_default()),
        terminating: definition::is_condition_true(&object, "Terminating"),
        object,
    });
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

/// An entry as a reader of this kind and version gets it.
pub(crate) async fn present(server: &ApiServer, strategy: &dyn Strategy, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
    match strategy.custom() {
        None => Ok(Arc::clone(entry)),
        Some(_) => present_all(server, strategy, vec![Arc::clone(entry)]).await.map(|mut entries| entries.remove(0)),
    }
}

/// Many entries, in their order.
pub(crate) async fn present_all(
    _server: &ApiServer,
    strategy: &dyn Strategy,
    entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, Status> {
    let Some(custom) = strategy.custom() else { return Ok(entries) };
    entries.iter().map(|entry| custom.present(entry)).collect()
}

/// An object in the version in which it is stored.
pub(crate) async fn to_storage(_server: &ApiServer, strategy: &dyn Strategy, object: &Value) -> Result<Value, Status> {
    let mut object = object.clone();
    if let Some(custom) = strategy.custom() {
        object["apiVersion"] = custom.storage_api_version().into();
    }
    Ok(object)
}
