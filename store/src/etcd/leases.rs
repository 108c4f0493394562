//! Leases: each is a key of the face's own in the store, written again when it is kept alive, so that every replica sees
//! it and none needs to trust another's clock: a lease is over when it was not written for its time, as this replica saw
//! it. After a restart every lease begins anew, as etcd's do after an election.

use super::keys::{self, Value};
use super::{errors, read};
use crate::{Change, Error, Event, Expect, Range, Revision, Store, TRANSACTION_WRITES_MAX, Transaction, Write};
use bytes::{Buf, Bytes};
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// As etcd's with its usual election timeout.
const TTL_MIN: i64 = 2;
/// As etcd's.
const TTL_MAX: i64 = 9_000_000_000;
/// How often it is looked for leases that are over.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a request waits for this replica to have seen what the store has.
const CATCH_UP: Duration = Duration::from_secs(5);
const LOAD_PAGE_RECORDS: usize = 2_000;
/// A lease that was kept alive less than this part of its time ago is not written again.
const RENEWED_LATELY: f64 = 0.1;

pub(super) fn key(id: i64) -> String {
    format!("{}{id:016x}", keys::LEASES)
}

pub(super) fn id(key: &str) -> Option<i64> {
    u64::from_str_radix(key.strip_prefix(keys::LEASES)?, 16).ok().map(|id| id as i64)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) ttl: i64,
    pub(super) deadline: Instant,
    /// Of the last time it was kept alive.
    revision: Revision,
}

/// What is known of the face's keys besides their values.
#[derive(Debug, Default)]
struct State {
    leases: BTreeMap<i64, Lease>,
    /// The lease and the revision of each key that has one.
    keys: HashMap<Arc<str>, (i64, Revision)>,
    attached: HashMap<i64, BTreeSet<Arc<str>>>,
    compacted: Revision,
}

/// Follows the face's keys.
pub(super) struct Leases {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    reached: watch::Sender<Revision>,
}

impl State {
    fn apply(&mut self, key: &Arc<str>, value: Option<&Bytes>, revision: Revision, now: Instant) {
        if let Some(id) = id(key) {
            match value.and_then(|value| value.clone().try_get_i64().ok()) {
                Some(ttl) => {
                    let deadline = now + Duration::from_secs(ttl.unsigned_abs());
                    self.leases.insert(id, Lease { ttl, deadline, revision });
                }
                None => {
                    self.leases.remove(&id);
                }
            }
        } else if **key == *keys::COMPACTED {
            self.compacted = value.and_then(|value| value.clone().try_get_i64().ok()).unwrap_or_default();
        } else if key.starts_with(keys::PREFIX) {
            if let Some((lease, _)) = self.keys.remove(key)
                && let Some(attached) = self.attached.get_mut(&lease)
            {
                attached.remove(key);
                if attached.is_empty() {
                    self.attached.remove(&lease);
                }
            }
            let lease = value.map_or(0, |value| Value::decode(value).lease);
            if lease != 0 {
                self.keys.insert(key.clone(), (lease, revision));
                self.attached.entry(lease).or_default().insert(key.clone());
            }
        }
    }
}

impl Leases {
    pub(super) async fn start(store: Arc<dyn Store>) -> Result<(Arc<Leases>, tokio::task::JoinSet<()>), Error> {
        let (state, revision) = load(store.as_ref()).await?;
        let leases = Arc::new(Leases { store, state: Mutex::new(state), reached: watch::Sender::new(revision) });
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(follow(leases.clone()));
        tasks.spawn(expire(leases.clone()));
        Ok((leases, tasks))
    }

    /// Waits until all that was committed before has been seen here; answers with its revision.
    pub(super) async fn catch_up(&self) -> Result<Revision, Status> {
        let revision = self.store.revision().await.map_err(errors::status)?;
        self.reach(revision).await?;
        Ok(revision)
    }

    async fn reach(&self, revision: Revision) -> Result<(), Status> {
        let mut reached = self.reached.subscribe();
        match tokio::time::timeout(CATCH_UP, reached.wait_for(|reached| *reached >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(errors::timed_out()),
        }
    }

    /// The revision that the users have compacted up to, as far as it was seen here.
    pub(super) fn compacted(&self) -> Revision {
        self.state.lock().compacted
    }

    pub(super) fn get(&self, id: i64) -> Option<Lease> {
        self.state.lock().leases.get(&id).cloned()
    }

    pub(super) fn list(&self) -> Vec<i64> {
        self.state.lock().leases.keys().copied().collect()
    }

    pub(super) fn attached(&self, id: i64) -> Vec<Vec<u8>> {
        let state = self.state.lock();
        state.attached.get(&id).into_iter().flatten().filter_map(|key| keys::original(key)).collect()
    }

    /// The new lease's ID, its time to live and the store's revision.
    pub(super) async fn grant(&self, asked: i64, ttl: i64) -> Result<(i64, i64, Revision), Status> {
        if ttl > TTL_MAX {
            return Err(errors::lease_ttl_too_large());
        }
        let ttl = ttl.max(TTL_MIN);
        loop {
            let id = if asked != 0 { asked } else { rand::random_range(1..i64::MAX) };
            let change = Change::Put(Bytes::copy_from_slice(&ttl.to_be_bytes()));
            match self.store.write(Write { key: key(id).into(), expect: Expect::Absent, change }).await {
                Ok(revision) => return Ok((id, ttl, revision)),
                Err(Error::Exists) if asked == 0 => {}
                Err(Error::Exists) => return Err(errors::lease_exists()),
                Err(error) => return Err(errors::status(error)),
            }
        }
    }

    /// The time that the lease has from now on; 0 if there is no such lease.
    pub(super) async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        if self.get(id).is_none() {
            self.catch_up().await?;
        }
        let Some(lease) = self.get(id) else { return Ok(0) };
        let left = lease.deadline.saturating_duration_since(Instant::now()).as_secs_f64();
        let renewed = lease.ttl as f64 - left;
        if renewed < RENEWED_LATELY * lease.ttl as f64 && renewed < 1.0 {
            return Ok(lease.ttl);
        }
        let change = Change::Put(Bytes::copy_from_slice(&lease.ttl.to_be_bytes()));
        match self.store.write(Write { key: key(id).into(), expect: Expect::Revision(lease.revision), change }).await {
            // Or somebody else has just kept it alive.
            Ok(_) | Err(Error::Conflict { .. }) => Ok(lease.ttl),
            Err(Error::NotFound) => Ok(0),
            Err(error) => Err(errors::status(error)),
        }
    }

    pub(super) async fn revoke(&self, id: i64) -> Result<Revision, Status> {
        match self.remove(id, Expect::Any).await {
            Ok(revision) => Ok(revision),
            Err(Error::NotFound) => Err(errors::lease_not_found()),
            Err(error) => Err(errors::status(error)),
        }
    }

    /// First the lease, so that no key can be attached any more, then its keys.
    async fn remove(&self, id: i64, expect: Expect) -> Result<Revision, Error> {
        let revision = self.store.write(Write { key: key(id).into(), expect, change: Change::Delete }).await?;
        Ok(self.detach(id, revision).await?.unwrap_or(revision))
    }

    /// Deletes the keys that were attached at `revision`. `None` if there were none.
    async fn detach(&self, id: i64, mut revision: Revision) -> Result<Option<Revision>, Error> {
        let mut done = None;
        loop {
            self.reach(revision).await.map_err(|_| Error::Timeout)?;
            let keys: Vec<(Arc<str>, Revision)> = {
                let state = self.state.lock();
                let attached = state.attached.get(&id).into_iter().flatten();
                let all = attached.filter_map(|key| Some((key.clone(), state.keys.get(key)?.1)));
                all.take(TRANSACTION_WRITES_MAX - 1).collect()
            };
            if keys.is_empty() {
                return Ok(done);
            }
            let count = (keys.len() > 1).then(|| Bytes::copy_from_slice(&(keys.len() as u32).to_be_bytes()));
            let first =
                count.map(|count| Write { key: keys::TRANSACTION.into(), expect: Expect::Any, change: Change::Put(count) });
            let deletes =
                keys.into_iter().map(|(key, revision)| Write { key, expect: Expect::Revision(revision), change: Change::Delete });
            let writes = first.into_iter().chain(deletes).collect();
            match self.store.transact(Transaction { guards: vec![], writes }).await {
                Ok(deleted) => (done, revision) = (Some(deleted), deleted),
                // One was changed; what it is now is seen below.
                Err(Error::Conflict { .. } | Error::NotFound) => revision = self.store.revision().await?,
                Err(error) => return Err(error),
            }
        }
    }
}

async fn load(store: &dyn Store) -> Result<(State, Revision), Error> {
    let (mut state, now) = (State::default(), Instant::now());
    let (start, end) = keys::ALL;
    let mut range = Range { start: start.into(), end: end.into(), at: None, limit: LOAD_PAGE_RECORDS };
    loop {
        let page = store.range(range.clone()).await?;
        for record in &page.records {
            state.apply(&record.key, Some(&record.value), record.mod_revision, now);
        }
        match page.records.last() {
            Some(last) if page.more => (range.start, range.at) = (format!("{}\u{1}", last.key), Some(page.revision)),
            _ => return Ok((state, page.revision)),
        }
    }
}

/// For ever; the face aborts it.
async fn follow(leases: Arc<Leases>) {
    loop {
        let error = match follow_once(&leases).await {
            Ok(()) => Error::Closed,
            Err(error) => error,
        };
        tracing::debug!(error = &error as &dyn std::error::Error, "the watch of the leases ended");
        if matches!(error, Error::CutOff(_) | Error::Compacted { .. } | Error::Future { .. }) {
            match load(leases.store.as_ref()).await {
                Ok((state, revision)) => {
                    *leases.state.lock() = state;
                    leases.reached.send_replace(revision);
                    continue;
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the leases could not be read"),
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn follow_once(leases: &Leases) -> Result<(), Error> {
    let after = *leases.reached.borrow();
    let mut changes = leases.store.watch(after).await?;
    while let Some(batch) = changes.next().await {
        let batch = batch?;
        {
            let (mut state, now) = (leases.state.lock(), Instant::now());
            for Event { key, value, revision, .. } in batch.events.iter().filter(|event| crate::is_foreign(&event.key)) {
                state.apply(key, value.as_ref(), *revision, now);
            }
        }
        leases.reached.send_replace(batch.revision);
    }
    Ok(())
}

/// Revokes what is over. Every replica does; the store lets one win.
async fn expire(leases: Arc<Leases>) {
    let mut orphans: HashSet<i64> = HashSet::new();
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        let now = Instant::now();
        let is_over = leases.state.lock().leases.values().any(|lease| lease.deadline <= now);
        // Whoever has kept one alive has been seen then.
        let revision = match is_over || !orphans.is_empty() {
            true => leases.catch_up().await,
            false => Ok(0),
        };
        let Ok(revision) = revision else { continue };
        let (over, left_behind) = {
            let state = leases.state.lock();
            let over = state.leases.iter().filter(|(_, lease)| lease.deadline <= now);
            let over: Vec<(i64, Revision)> = over.map(|(id, lease)| (*id, lease.revision)).collect();
            let left_behind = state.attached.keys().filter(|id| !state.leases.contains_key(id));
            (over, left_behind.copied().collect::<HashSet<i64>>())
        };
        for (id, at) in over {
            match leases.remove(id, Expect::Revision(at)).await {
                Ok(_) | Err(Error::Conflict { .. } | Error::NotFound) => {}
                Err(error) => tracing::warn!(id, error = &error as &dyn std::error::Error, "a lease could not be ended"),
            }
        }
        // Their lease is gone, and whoever ended it did not come to its keys: for more than a moment.
        for id in orphans.intersection(&left_behind) {
            if let Err(error) = leases.detach(*id, revision).await {
                tracing::warn!(id, error = &error as &dyn std::error::Error, "a lease's keys could not be deleted");
            }
        }
        orphans = left_behind;
    }
}

/// Compacts for the users of the face: the cluster's own history is not touched.
pub(super) async fn compact(store: &dyn Store, compacted: Revision, revision: Revision) -> Result<Revision, Status> {
    let newest = store.revision().await.map_err(errors::status)?;
    if revision > newest {
        return Err(errors::future_revision());
    }
    let mut view = read::View::new(store);
    let known = view.own(keys::COMPACTED).await.map_err(errors::status)?;
    let known = known.and_then(|record| record.value.clone().try_get_i64().ok()).unwrap_or(0);
    if revision <= known.max(compacted) {
        return Err(errors::compacted());
    }
    let change = Change::Put(Bytes::copy_from_slice(&revision.to_be_bytes()));
    store.write(Write { key: keys::COMPACTED.into(), expect: Expect::Any, change }).await.map_err(errors::status)
}
