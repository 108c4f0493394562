//! Objects of custom kinds out of the version in which they are stored, and into it.

use crate::custom_resources::strategy::{Converting, CustomResource, Shown};
use crate::custom_resources::{default, prune};
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Entry, Snapshot};
use bytes::Bytes;
use serde_json::Value;
use slipway_store::Revision;
use std::sync::Arc;

/// An entry as a reader of this kind and version gets it.
pub(crate) async fn present(server: &ApiServer, strategy: &dyn Strategy, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
    let Some(custom) = strategy.custom() else { return Ok(Arc::clone(entry)) };
    let object = match custom.present(entry)? {
        Shown::As(entry) => return Ok(entry),
        Shown::Elsewhere(object) => object,
    };
    let key = (Arc::clone(&entry.key), entry.mod_revision);
    let converting = Arc::clone(custom.converting.lock().entry(key.clone()).or_default());
    let waiting = Waiting { custom, key, converting };
    let converted = waiting.converting.get_or_init(|| async {
        let mut objects = in_version(server, custom, vec![object], &custom.names().api_version()).await?;
        Ok(custom.remember(entry, objects.pop()))
    });
    converted.await.clone()
}

/// Somebody who waits for an entry to be converted.
struct Waiting<'c> {
    custom: &'c CustomResource,
    key: (Arc<str>, Revision),
    converting: Converting,
}

impl Drop for Waiting<'_> {
    /// The last who waits takes it away: who comes later finds the form with the entry or, if there is none, asks again.
    fn drop(&mut self) {
        let mut all = self.custom.converting.lock();
        // This one, and the one in the map.
        if Arc::strong_count(&self.converting) <= 2 {
            all.remove(&self.key);
        }
    }
}

/// Many entries, in their order: what has to be converted is sent together.
pub(crate) async fn present_all(
    server: &ApiServer,
    strategy: &dyn Strategy,
    entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, Status> {
    let Some(custom) = strategy.custom() else { return Ok(entries) };
    let (mut all, mut waiting, mut objects) = (Vec::with_capacity(entries.len()), vec![], vec![]);
    for entry in entries {
        match custom.present(&entry)? {
            Shown::As(entry) => all.push(entry),
            Shown::Elsewhere(object) => {
                waiting.push(all.len());
                objects.push(object);
                all.push(entry);
            }
        }
    }
    if !objects.is_empty() {
        let converted = in_version(server, custom, objects, &custom.names().api_version()).await?;
        for (place, object) in waiting.into_iter().zip(converted) {
            all[place] = custom.remember(&all[place], Some(object));
        }
    }
    Ok(all)
}

/// What lies below a prefix as readers of this version see it, if selectors could not be held against what is stored.
pub(crate) async fn presented(
    server: &ApiServer,
    strategy: &dyn Strategy,
    prefix: &str,
    snapshot: Snapshot,
) -> Result<Snapshot, Status> {
    if !strategy.custom().is_some_and(CustomResource::is_converted) {
        return Ok(snapshot);
    }
    let entries = present_all(server, strategy, stored::below(&snapshot, prefix, "").cloned().collect()).await?;
    Ok(Snapshot {
        revision: snapshot.revision,
        objects: entries.into_iter().map(|entry| (Arc::clone(&entry.key), entry)).collect(),
    })
}

/// The bytes in which an object is stored and, if a webhook converted it, what those read as.
pub(crate) async fn to_storage(
    server: &ApiServer,
    custom: &CustomResource,
    object: &Value,
) -> Result<(Bytes, Option<Value>), Status> {
    let (wanted, own) = (custom.storage_api_version(), custom.names().api_version());
    if wanted == own {
        return Ok((stored::encode(object), None));
    }
    let storage = in_version(server, custom, vec![object.clone()], &wanted).await?.pop().unwrap_or_default();
    let bytes = stored::encode(&storage);
    if !custom.is_converted() {
        return Ok((bytes, None));
    }
    let mut read = storage;
    if let Some(schema) = custom.definition.schemas.get(custom.definition.storage_version) {
        default::fill(&mut read, schema);
    }
    Ok((bytes, in_version(server, custom, vec![read], &own).await?.pop()))
}

/// An object of one version of a custom kind in another.
pub(crate) async fn converted(server: &ApiServer, object: &Value, to: &CustomResource) -> Result<Value, Status> {
    let wanted = to.names().api_version();
    if object["apiVersion"] == wanted {
        return Ok(object.clone());
    }
    Ok(in_version(server, to, vec![object.clone()], &wanted).await?.pop().unwrap_or_default())
}

/// Objects of other versions in the wanted one, without what its schema does not know.
pub(crate) async fn in_version(
    server: &ApiServer,
    custom: &CustomResource,
    objects: Vec<Value>,
    wanted: &str,
) -> Result<Vec<Value>, Status> {
    let mut converted = match &custom.definition.webhook {
        Some(webhook) => webhook.convert(server, objects, wanted).await?,
        None => objects,
    };
    let version = wanted.rsplit_once('/').map_or(wanted, |(_, version)| version);
    for object in &mut converted {
        object["apiVersion"] = wanted.into();
        if let Some(schema) = custom.definition.schemas.get(version) {
            prune::prune(object, schema);
        }
    }
    Ok(converted)
}
