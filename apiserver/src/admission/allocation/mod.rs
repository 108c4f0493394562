//! Allocation: every Service's cluster IP and node ports are its own.
//!
//! Each number that is held is a key of its own in the store, created with "must be absent": two servers that choose the
//! same number at the same time cannot both get it. The key is written before the Service and taken away after it; what
//! a crash leaves in between, `repair` puts right.

mod pool;
mod repair;
mod spec;

pub use repair::repair;

use self::pool::Pool;
use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::{Invalid, Status};
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Snapshot};
use crate::verbs::status_of;
use async_trait::async_trait;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slipway_store::{Change, Error, Expect, Revision, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// How often another number is tried when others take the one that seemed free.
const ATTEMPTS_MAX: usize = 64;
/// A write of a Service takes no longer than this from its reservation to its end: what is older and belongs to no
/// Service was left by a crash.
const ABANDONED_AFTER_SECONDS: i64 = 60;

pub(super) struct Allocation;

/// What is stored for a number that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    namespace: String,
    name: String,
    /// When it was taken, in seconds since 1970.
    at: i64,
}

struct Pools {
    addresses: Pool,
    ports: Pool,
}

impl Pools {
    fn of(server: &ApiServer) -> Result<Pools, String> {
        let addresses = Pool::addresses(&server.options.service_cidr)?;
        Ok(Pools { addresses, ports: Pool::ports(&server.options.node_port_range) })
    }
}

#[async_trait]
impl Plugin for Allocation {
    async fn admit(
        &self,
        context: &AdmissionContext<'_>,
        object: &mut Value,
        reservations: &mut Reservations,
    ) -> Result<(), Status> {
        if !context.writes("", "services", &[Operation::Create, Operation::Update]) || !object["spec"].is_object() {
            return Ok(());
        }
        if let Some(old) = context.old {
            spec::carry_over(object, old);
        }
        let errors = spec::check_families(object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !errors.is_empty() {
            return Err(Status::invalid("", "Service", &name, &errors));
        }
        let pools = Pools::of(context.server).map_err(|why| internal(&why))?;
        let held = context.old.map(|old| spec::held(old, &pools)).unwrap_or_default();
        let mut taking = Taking { context, name, held, snapshot: context.server.snapshot(), reservations };
        taking.address(object, &pools.addresses).await?;
        taking.ports(object, &pools.ports).await
    }
}

/// Gives back what the Service held and holds no more.
pub(super) async fn written(server: &ApiServer, strategy: &dyn Strategy, old: &Value, new: Option<&Value>) {
    let names = strategy.names();
    if (names.group, names.plural) != ("", "services") {
        return;
    }
    let Ok(pools) = Pools::of(server) else { return };
    let mut freed = spec::held(old, &pools);
    for key in new.map(|new| spec::held(new, &pools)).unwrap_or_default() {
        freed.remove(&key);
    }
    for key in freed {
        if let Err(error) = free(server, &key, old).await {
            tracing::warn!(%key, %error, "what a Service held could not be given back: the next repair will");
        }
    }
}

async fn free(server: &ApiServer, key: &str, service: &Value) -> Result<(), Error> {
    let Some(record) = server.store.get(key, None).await? else { return Ok(()) };
    let of_service = serde_json::from_slice::<Held>(&record.value).is_ok_and(|held| held.is_of(service));
    if !of_service {
        return Ok(());
    }
    let write = Write { key: key.into(), expect: Expect::Revision(record.mod_revision), change: Change::Delete };
    match server.store.write(write).await {
        Err(Error::NotFound | Error::Conflict { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Held {
    fn is_of(&self, service: &Value) -> bool {
        let metadata = &service["metadata"];
        metadata["namespace"] == self.namespace.as_str() && metadata["name"] == self.name.as_str()
    }

    /// Whether the write that took it cannot be under way any more. If then no Service holds the key, nobody does.
    fn is_old(&self, server: &ApiServer) -> bool {
        server.now().as_second() - self.at > ABANDONED_AFTER_SECONDS
    }
}

/// Taking numbers for one Service.
struct Taking<'a, 'c> {
    context: &'a AdmissionContext<'c>,
    /// Empty if it is to be generated.
    name: String,
    /// The keys that the Service holds already.
    held: BTreeSet<String>,
    snapshot: Snapshot,
    reservations: &'a mut Reservations,
}

impl Taking<'_, '_> {
    async fn address(&mut self, object: &mut Value, pool: &Pool) -> Result<(), Status> {
        if !spec::needs_address(object) {
            spec::complete(object, None);
            return Ok(());
        }
        let address = match spec::address(object) {
            // What is no address at all is for the kind's validation to say.
            Some(text) => match text.parse::<std::net::Ipv4Addr>() {
                Err(_) => return Ok(()),
                Ok(address) => {
                    self.exact(pool, u32::from(address)).await?.map_err(|taken| {
                        let why = match taken {
                            Refused::Taken => "provided IP is already allocated".to_owned(),
                            Refused::OutOfRange => {
                                let range = pool.range();
                                format!(
                                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
                                )
                            }
                        };
                        let why = format!("failed to allocate IP {address}: {why}");
                        self.invalid(Invalid::value("spec.clusterIPs", &json!([text]), &why))
                    })?;
                    address
                }
            },
            None => match self.any(pool, &BTreeSet::new()).await? {
                Some(number) => std::net::Ipv4Addr::from(number),
                None => return Err(internal("failed to allocate a serviceIP: range is full")),
            },
        };
        spec::complete(object, Some(&address.to_string()));
        Ok(())
    }

    async fn ports(&mut self, object: &mut Value, pool: &Pool) -> Result<(), Status> {
        let mut own = BTreeSet::new();
        for (field, number) in spec::asked_ports(object) {
            if !own.insert(number) {
                // A second protocol at the same number; the same one is for the kind's validation to refuse.
                continue;
            }
            if let Err(refused) = self.exact(pool, number).await? {
                let why = match refused {
                    Refused::Taken => "provided port is already allocated".to_owned(),
                    Refused::OutOfRange => {
                        format!("provided port is not in the valid range. The range of valid ports is {}", pool.range())
                    }
                };
                return Err(self.invalid(Invalid::value(field, &json!(number), &why)));
            }
        }
        while let Some(place) = spec::next_missing_port(object) {
            let number = match spec::shared_port(object, &place) {
                Some(number) => number,
                None => {
                    let number = self.any(pool, &own).await?;
                    number.ok_or_else(|| internal("failed to allocate a nodePort: range is full"))?
                }
            };
            own.insert(number);
            spec::set_port(object, &place, number);
        }
        Ok(())
    }

    /// Takes one number that was asked for.
    async fn exact(&mut self, pool: &Pool, number: u32) -> Result<Result<(), Refused>, Status> {
        let key = pool.key(number);
        if self.held.contains(&key) {
            return Ok(Ok(()));
        }
        if !pool.contains(number) {
            return Ok(Err(Refused::OutOfRange));
        }
        if self.take(&key, Expect::Absent).await? {
            return Ok(Ok(()));
        }
        let server = self.context.server;
        let record = server.store.get(&key, None).await.map_err(|error| self.failed(error))?;
        let Some(record) = record else {
            return Ok(if self.take(&key, Expect::Absent).await? { Ok(()) } else { Err(Refused::Taken) });
        };
        let fresh = server.cache.fresh().await.map_err(|error| self.failed(error))?;
        let pools = Pools::of(server).map_err(|why| internal(&why))?;
        let old = serde_json::from_slice::<Held>(&record.value).is_ok_and(|held| held.is_old(server));
        let abandoned = old && !in_use(server, &fresh, &pools).contains_key(&key);
        let taken = abandoned && self.take(&key, Expect::Revision(record.mod_revision)).await?;
        Ok(if taken { Ok(()) } else { Err(Refused::Taken) })
    }

    /// Takes any number that is free, but for those in `but`.
    async fn any(&mut self, pool: &Pool, but: &BTreeSet<u32>) -> Result<Option<u32>, Status> {
        let candidates = pool.candidates(rand::random());
        let mut attempts = 0;
        for number in candidates {
            let key = pool.key(number);
            if but.contains(&number) || self.snapshot.objects.contains_key(key.as_str()) {
                continue;
            }
            if self.take(&key, Expect::Absent).await? {
                return Ok(Some(number));
            }
            attempts += 1;
            if attempts == ATTEMPTS_MAX {
                break;
            }
        }
        Ok(None)
    }

    /// Writes the key; a dry run only looks. False if somebody else has it.
    async fn take(&mut self, key: &str, expect: Expect) -> Result<bool, Status> {
        if self.context.dry_run {
            return Ok(expect != Expect::Absent || !self.snapshot.objects.contains_key(key));
        }
        let held = Held {
            namespace: self.context.namespace.to_owned(),
            name: self.name.clone(),
            at: self.context.server.now().as_second(),
        };
        match put(self.context.server, key, &held, expect).await {
            Ok(revision) => {
                self.reservations.add(key.into(), revision);
                Ok(true)
            }
            Err(Error::Exists | Error::Conflict { .. } | Error::NotFound) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: Error) -> Status {
        status_of(error, self.context.strategy.names(), &self.name)
    }

    fn invalid(&self, error: Invalid) -> Status {
        Status::invalid("", "Service", &self.name, &[error])
    }
}

enum Refused {
    Taken,
    OutOfRange,
}

async fn put(server: &ApiServer, key: &str, held: &Held, expect: Expect) -> Result<Revision, Error> {
    let value = serde_json::to_vec(held).expect("three plain fields can always be written as JSON");
    server.store.write(Write { key: Arc::from(key), expect, change: Change::Put(value.into()) }).await
}

fn internal(why: &str) -> Status {
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("Internal error occurred: {why}"))
}

/// The stored records of a pool, from the cache.
fn records<'a>(snapshot: &'a Snapshot, pool: &Pool) -> impl Iterator<Item = &'a Arc<stored::Entry>> {
    let (start, end) = (pool.prefix(), stored::prefix_end(pool.prefix()));
    let range = (Bound::Included(start), Bound::Excluded(end.as_str()));
    snapshot.objects.range::<_, str>(range).map(|(_, entry)| entry)
}

/// All keys that Services hold, each with its Service's metadata.
fn in_use(server: &ApiServer, snapshot: &Snapshot, pools: &Pools) -> BTreeMap<String, Value> {
    let mut used = BTreeMap::new();
    let Some(strategy) = server.strategy("", "v1", "services") else { return used };
    let prefix = stored::prefix(strategy.names(), None);
    let end = stored::prefix_end(&prefix);
    let range = (Bound::Included(prefix.as_str()), Bound::Excluded(end.as_str()));
    for (_, entry) in snapshot.objects.range::<_, str>(range) {
        let Ok(service) = stored::decode(&*strategy, &entry.bytes) else { continue };
        for key in spec::held(&service, pools) {
            if let Some(other) = used.insert(key.clone(), service["metadata"].clone()) {
                tracing::error!(%key, one = %other["name"], another = %service["metadata"]["name"], "two Services hold the same");
            }
        }
    }
    used
}
