//! ResourceQuota: what an object uses is charged to its namespace's quotas before it is stored.
//!
//! The charge is a write of the quota's status that holds only if the quota is still the one that was looked at, so that
//! whoever comes at the same time, here or at another server, sees what was charged before. What was charged for an
//! object that was not stored is given back; what a crash leaves charged, the quota's controller finds.

mod charge;

use self::charge::{Decision, decide};
use super::{AdmissionContext, Operation, Reservations};
use crate::http::error::Status;
use crate::server::ApiServer;
use crate::stored;
use crate::verbs::status_of;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use slipway_api::core::{PersistentVolumeClaim, Pod, Service};
use slipway_api::quota::{self, Amounts, Measured};
use slipway_store::{Change, Error, Expect, Revision, Store, Write};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use tokio::sync::Mutex;

/// How often a quota that others charge meanwhile is tried: enough for as many servers and controllers as there may be.
const ATTEMPTS_MAX: usize = 64;
/// Namespaces that are charged at a time within this server.
const SHARDS: usize = 64;
/// So many quotas are remembered a shard; the cache has them all, a moment later.
const KNOWN_MAX: usize = 256;

type Known = HashMap<Arc<str>, (Revision, Bytes)>;

/// Lets those of one namespace charge one after the other, each seeing what the one before wrote: else all but one of them
/// would have to try again.
pub struct Charging {
    shards: Vec<Mutex<Known>>,
    hasher: RandomState,
}

impl Default for Charging {
    fn default() -> Self {
        Charging { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Charging {
    fn of(&self, namespace: &str) -> &Mutex<Known> {
        let hash = self.hasher.hash_one(namespace) as usize;
        &self.shards[hash % SHARDS]
    }
}

/// A quota as it was last seen.
struct Quota {
    key: Arc<str>,
    revision: Revision,
    object: Value,
}

/// An object as the plugin sees it, its pods, services and claims typed.
enum Typed {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    Other,
}

impl Typed {
    fn of(group: &str, plural: &str, object: &Value) -> Option<Typed> {
        Some(match (group, plural) {
            ("", "pods") => Typed::Pod(Box::new(Pod::deserialize(object).ok()?)),
            ("", "services") => Typed::Service(Box::new(Service::deserialize(object).ok()?)),
            ("", "persistentvolumeclaims") => Typed::Claim(Box::new(PersistentVolumeClaim::deserialize(object).ok()?)),
            _ => Typed::Other,
        })
    }

    fn measured(&self) -> Measured<'_> {
        match self {
            Typed::Pod(pod) => Measured::Pod(pod),
            Typed::Service(service) => Measured::Service(service),
            Typed::Claim(claim) => Measured::Claim(claim),
            Typed::Other => Measured::Other,
        }
    }
}

/// What one write adds to what is used.
struct Request<'a> {
    group: &'a str,
    plural: &'a str,
    object: Typed,
    delta: Amounts,
}

/// Charges what `object` uses, and notes it among the reservations. It is the last that is asked before the object is
/// stored: nobody refuses it any more.
pub(super) async fn charge(
    context: &AdmissionContext<'_>,
    object: &Value,
    reservations: &mut Reservations,
) -> Result<(), Status> {
    if !is_counted(context) || reservations.is_charged() {
        return Ok(());
    }
    let server = context.server;
    let Some(strategy) = server.strategy("", "v1", "resourcequotas") else { return Ok(()) };
    let prefix = stored::prefix(strategy.names(), Some(context.namespace));
    if stored::below(&server.snapshot(), &prefix, "").next().is_none() {
        return Ok(());
    }
    let Some(request) = request(context, object) else { return Ok(()) };
    let mut known = server.charging.of(context.namespace).lock().await;
    if known.len() > KNOWN_MAX {
        known.clear();
    }
    let refused = |why: String| context.forbidden(object, &why);
    let failed = |error| status_of(error, strategy.names(), "");
    // All are asked before the first is charged.
    let mut charges = vec![];
    for quota in quotas(server, &prefix, &known)? {
        match decide(&request, &quota.object) {
            Decision::NotConcerned => {}
            Decision::Refused(why) => return Err(refused(why)),
            Decision::Charged { .. } => charges.push(quota),
        }
    }
    if context.dry_run {
        return Ok(());
    }
    for mut quota in charges {
        for attempt in 0.. {
            let (object, amounts) = match decide(&request, &quota.object) {
                Decision::NotConcerned => break,
                Decision::Refused(why) => return Err(refused(why)),
                Decision::Charged { object, amounts } => (object, amounts),
            };
            let bytes = stored::encode(&object);
            let write = Write {
                key: Arc::clone(&quota.key),
                expect: Expect::Revision(quota.revision),
                change: Change::Put(bytes.clone()),
            };
            match server.store.write(write).await {
                Ok(revision) => {
                    known.insert(Arc::clone(&quota.key), (revision, bytes));
                    reservations.add_charge(Arc::clone(&quota.key), amounts);
                    break;
                }
                Err(Error::Conflict { .. }) if attempt < ATTEMPTS_MAX => {
                    let Some(record) = server.store.get(&quota.key, None).await.map_err(failed)? else { break };
                    quota.revision = record.mod_revision;
                    quota.object = serde_json::from_slice(&record.value).map_err(|error| Status::internal(&error))?;
                }
                Err(Error::NotFound) => break,
                Err(error) => return Err(failed(error)),
            }
        }
    }
    reservations.set_charged();
    Ok(())
}

/// Objects are counted when they are made; what of services and claims may grow, also when that changes.
fn is_counted(context: &AdmissionContext<'_>) -> bool {
    let names = context.strategy.names();
    let grows = names.group.is_empty() && ["services", "persistentvolumeclaims"].contains(&names.plural);
    let operation = match context.operation {
        Operation::Create => true,
        Operation::Update => grows || (names.plural == "pods" && context.subresource == "resize"),
        _ => false,
    };
    let whole = context.subresource.is_empty() || context.subresource == "resize";
    operation && whole && names.namespaced && !quota::is_ignored(names.plural)
}

fn request<'a>(context: &AdmissionContext<'a>, object: &Value) -> Option<Request<'a>> {
    let names = context.strategy.names();
    let (group, plural) = (names.group, names.plural);
    let now = context.server.now();
    let typed = Typed::of(group, plural, object)?;
    let mut delta = quota::usage(group, plural, typed.measured(), now);
    if let Some(old) = context.old.and_then(|old| Typed::of(group, plural, old)) {
        for (resource, amount) in quota::usage(group, plural, old.measured(), now) {
            *delta.entry(resource).or_default() -= amount;
        }
    }
    delta.retain(|_, amount| !amount.is_zero());
    let request = Request { group, plural, object: typed, delta };
    (!request.delta.is_empty()).then_some(request)
}

/// The namespace's quotas, each in its newest known state.
fn quotas(server: &ApiServer, prefix: &str, known: &Known) -> Result<Vec<Quota>, Status> {
    let snapshot = server.snapshot();
    let entries = stored::below(&snapshot, prefix, "").map(|entry| {
        let newer = known.get(&entry.key).filter(|(revision, _)| *revision > entry.mod_revision);
        let (revision, bytes) = newer.map_or((entry.mod_revision, &entry.bytes), |(revision, bytes)| (*revision, bytes));
        let object = serde_json::from_slice(bytes).map_err(|error| Status::internal(&error))?;
        Ok(Quota { key: Arc::clone(&entry.key), revision, object })
    });
    entries.collect()
}

/// Takes a charge back; a quota that is gone, or that its controller has counted anew, is left alone.
pub(super) async fn give_back(store: &dyn Store, key: &Arc<str>, amounts: &Amounts) -> Result<(), Error> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(record) = store.get(key, None).await? else { return Ok(()) };
        let Ok(mut quota) = serde_json::from_slice::<Value>(&record.value) else { return Ok(()) };
        charge::discharge(&mut quota, amounts);
        let change = Change::Put(stored::encode(&quota));
        match store.write(Write { key: Arc::clone(key), expect: Expect::Revision(record.mod_revision), change }).await {
            Err(Error::Conflict { .. }) => {}
            Ok(_) | Err(Error::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
