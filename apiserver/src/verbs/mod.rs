//! What can be done to an object of any kind: one verb a file, compiled once.
//!
//! Each file has the verb as HTTP asks for it (`create::create(call)`), and the same for callers within the server
//! (`create_object`, `guaranteed_update`, …), which subresources, admission and bootstrap use.

pub mod apply;
pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod list_options;
pub mod object_meta;
pub mod patch;
pub(crate) mod tracking;
pub mod update;
pub mod watch;

pub use create::create_object;
pub use delete::{DeleteOptions, Deleted, delete_object};
pub use get::get_object;
pub use update::guaranteed_update;

use crate::admission::{self, Reservations};
use crate::http::authenticate::User;
use crate::http::error::{Invalid, Status};
use crate::kind::{Names, Strategy};
use crate::patch::apply::same_but_for_times;
use crate::server::ApiServer;
use crate::stored;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::{Map, Value, json};
use slipway_store::{Change, Expect, Revision, Write};

/// How often a write is tried anew when others write the same object: enough for a hundred writers in step, few enough
/// to end.
const ATTEMPTS_MAX: usize = 200;

/// Which object, and on whose behalf. `name` is empty on create with `generateName`.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub server: &'a ApiServer,
    pub strategy: &'a dyn Strategy,
    pub user: &'a User,
    /// Empty for kinds of the cluster.
    pub namespace: &'a str,
    pub name: &'a str,
    pub dry_run: bool,
}

impl<'a> Target<'a> {
    pub fn new(server: &'a ApiServer, strategy: &'a dyn Strategy, user: &'a User, namespace: &'a str, name: &'a str) -> Self {
        Target { server, strategy, user, namespace, name, dry_run: false }
    }

    pub(crate) fn key(&self) -> String {
        stored::key(self.strategy.names(), self.namespace, self.name)
    }

    pub(crate) fn not_found(&self) -> Status {
        let names = self.strategy.names();
        Status::not_found(names.group, names.plural, self.name)
    }

    pub(crate) fn invalid(&self, errors: &[Invalid]) -> Status {
        let names = self.strategy.names();
        Status::invalid(names.group, names.kind, self.name, errors)
    }
}

/// What an object must still be for a write to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl Preconditions {
    pub fn check(&self, names: &Names, current: &Value) -> Result<(), Status> {
        let metadata = &current["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        if let Some(uid) = &self.uid
            && metadata["uid"] != uid.as_str()
        {
            let current = metadata["uid"].as_str().unwrap_or_default();
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {current}");
            return Err(Status::conflict(names.group, names.plural, name, &why));
        }
        if let Some(version) = &self.resource_version
            && metadata["resourceVersion"] != version.as_str()
        {
            return Err(Status::modified(names.group, names.plural, name));
        }
        Ok(())
    }
}

/// What is to happen to the object that was read.
pub(crate) enum Step {
    Put(Value),
    /// Put it, with what admission reserved for it.
    PutReserved(Value, Reservations),
    /// Delete it; the value is the last state, for the answer.
    Delete(Value),
}

pub(crate) struct Done {
    /// With its resourceVersion.
    pub object: Value,
    pub deleted: bool,
}

/// Decides on a step for the current object. Called once an attempt, so it must be repeatable.
pub(crate) type Decide<'f> = dyn FnMut(Value) -> BoxFuture<'f, Result<Step, Status>> + Send + 'f;

/// Reads, decides, writes if the object is still the one that was read; else again.
///
/// The first attempt reads the cache, which may lag: a refusal is therefore final only once the object was read as
/// fresh as the store has it.
pub(crate) async fn commit(target: &Target<'_>, decide: &mut Decide<'_>) -> Result<Done, Status> {
    let names = target.strategy.names();
    let status = |error| status_of(error, names, target.name);
    let key = target.key();
    let cache = &target.server.cache;
    let (mut snapshot, mut fresh) = (cache.snapshot(), false);
    for _ in 0..ATTEMPTS_MAX {
        let entry = snapshot.objects.get(key.as_str());
        // Stored under an old key: a write that changes nothing brings it under the first one.
        let mut rewrite = entry.is_some_and(|entry| entry.attributes.outdated);
        let attempt = match entry {
            None => Err(target.not_found()),
            Some(entry) => {
                stored::check_readable(entry)?;
                let shown = crate::custom_resources::present(target.server, target.strategy, entry).await?;
                let old = stored::decode(target.strategy, &shown.bytes).map_err(|error| Status::internal(&error))?;
                rewrite |= target.strategy.custom().is_some_and(|custom| custom.is_stored_otherwise(entry));
                let step = decide(old.clone()).await;
                step.map(|step| (entry.mod_revision, old, step))
            }
        };
        let outdated = match &attempt {
            Err(_) => true,
            Ok((_, old, Step::Put(new))) => !rewrite && same(old, new),
            Ok(_) => false,
        };
        if outdated && !fresh {
            let read = snapshot.objects.get(key.as_str()).map(|entry| entry.mod_revision);
            snapshot = cache.fresh().await.map_err(status)?;
            fresh = true;
            if read.is_none() || snapshot.objects.get(key.as_str()).map(|entry| entry.mod_revision) != read {
                continue;
            }
        }
        let (revision, old, step) = attempt?;
        let (change, mut object, deleted, reservations) = match step {
            Step::Put(new) if !rewrite && same(&old, &new) => return Ok(Done { object: old, deleted: false }),
            Step::Put(new) => {
                let (bytes, shown) = encode(target, &new).await?;
                (Change::Put(bytes), shown.unwrap_or(new), false, None)
            }
            Step::PutReserved(new, reserved) => match encode(target, &new).await {
                Ok((bytes, shown)) => (Change::Put(bytes), shown.unwrap_or(new), false, Some(reserved)),
                Err(status) => {
                    reserved.release().await;
                    return Err(status);
                }
            },
            Step::Delete(last) => (Change::Delete, last, true, None),
        };
        if target.dry_run {
            return Ok(Done { object, deleted });
        }
        let write = Write { key: key.as_str().into(), expect: Expect::Revision(revision), change };
        let written = target.server.store.write(write).await;
        if let Some(reservations) = reservations {
            match &written {
                Ok(_) => reservations.keep(),
                Err(_) => reservations.release().await,
            }
        }
        match written {
            Ok(revision) => {
                object["metadata"]["resourceVersion"] = json!(revision.to_string());
                target.server.ruled.stored(names, revision);
                admission::written(target.server, target.strategy, &old, (!deleted).then_some(&object)).await;
                admission::dynamic::in_force(target.server, names, revision).await.map_err(status)?;
                return Ok(Done { object, deleted });
            }
            Err(slipway_store::Error::Conflict { current }) => {
                snapshot = cache.at_least(current).await.map_err(status)?;
                fresh = false;
            }
            Err(slipway_store::Error::NotFound) => {
                snapshot = cache.fresh().await.map_err(status)?;
                fresh = true;
            }
            Err(error) => return Err(status(error)),
        }
    }
    Err(Status::modified(names.group, names.plural, target.name))
}

/// Whether two objects are the same but for their resourceVersion, and for the times at which their fields were last set:
/// those alone are nothing to be written.
fn same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    let same = |name: &String, value: &Value| {
        new.get(name).is_some_and(|other| match (name.as_str(), value.as_object(), other.as_object()) {
            ("metadata", Some(value), Some(other)) => same_metadata(value, other),
            _ => value == other,
        })
    };
    old.len() == new.len() && old.iter().all(|(name, value)| same(name, value))
}

fn same_metadata(old: &Map<String, Value>, new: &Map<String, Value>) -> bool {
    let counted = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key("resourceVersion"));
    counted(old) == counted(new)
        && old.iter().all(|(name, value)| match name.as_str() {
            "resourceVersion" => true,
            "managedFields" => new.get(name).is_some_and(|other| same_but_for_times(value, other)),
            _ => new.get(name) == Some(value),
        })
}

/// The bytes to store, in the shape of the kind that the object is stored as; and what they read as, if that may be another
/// object.
pub(crate) async fn encode(target: &Target<'_>, object: &Value) -> Result<(bytes::Bytes, Option<Value>), Status> {
    let strategy = target.strategy;
    if let Some(custom) = strategy.custom() {
        return crate::custom_resources::to_storage(target.server, custom, object).await;
    }
    if strategy.names().stored_as.is_none() {
        return Ok((stored::encode(object), None));
    }
    let mut object = object.clone();
    strategy.to_stored(&mut object);
    Ok((stored::encode(&object), None))
}

/// What the store's refusal means to a client.
pub(crate) fn status_of(error: slipway_store::Error, names: &Names, name: &str) -> Status {
    use slipway_store::Error;
    match error {
        Error::NotFound => Status::not_found(names.group, names.plural, name),
        Error::Exists => Status::already_exists(names.group, names.plural, name),
        Error::Conflict { .. } => Status::modified(names.group, names.plural, name),
        Error::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        Error::Future { newest } => too_large_version(None, newest),
        Error::TooLarge { limit, .. } | Error::TooManyWrites { limit, .. } => {
            Status::too_large(format!("Request entity too large: limit is {limit}"))
        }
        Error::CutOff(why) => Status::expired(format!("too old resource version: {why}")),
        Error::Timeout => Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", "Timeout: the store did not answer in time")
            .with_details(json!({"retryAfterSeconds": 1})),
        Error::Closed => Status::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the server is shutting down"),
        Error::Backend(_) => Status::internal(&error),
    }
}

/// For a read at a revision that has not been reached.
pub(crate) fn too_large_version(asked: Option<Revision>, newest: Revision) -> Status {
    let asked = asked.map_or_else(String::new, |asked| format!(": {asked}"));
    Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: Too large resource version{asked}, current: {newest}"))
        .with_details(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }))
}
