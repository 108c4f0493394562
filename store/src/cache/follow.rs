//! The one task that writes the cache: it loads the store, then applies its changes in order.

use super::{Change, Entry, Ingest, Shared, Snapshot, hub::Row};
use crate::{Error, Event, Range, Record, Revision, Store, is_foreign};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Objects that are read at once while loading.
const LOAD_PAGE_RECORDS: usize = 2_000;
/// How long to wait before the store is asked again after it failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Deliveries after which other tasks get their turn.
const DELIVERIES_PER_TURN: usize = 1_000;

/// How to get the stored value of an object back from what readers are sent. A deletion needs it, and a second copy of
/// every value would double the memory.
pub(super) enum Original {
    /// What readers are sent is the stored value with `length` bytes put in at `at`.
    Spliced {
        at: u32,
        length: u32,
    },
    Kept(Bytes),
}

pub(super) type Originals = HashMap<Arc<str>, Original>;

pub(super) struct Loaded<A> {
    pub(super) snapshot: Snapshot<A>,
    pub(super) originals: Originals,
}

impl Original {
    fn new(stored: &Bytes, sent: &Bytes) -> Original {
        let at = stored.iter().zip(sent.iter()).take_while(|(stored, sent)| stored == sent).count();
        let rest = &stored[at..];
        match (sent.len().checked_sub(stored.len()), u32::try_from(sent.len())) {
            (Some(length), Ok(_)) if sent.ends_with(rest) => Original::Spliced { at: at as u32, length: length as u32 },
            _ => Original::Kept(stored.clone()),
        }
    }

    fn restore(&self, sent: &[u8]) -> Bytes {
        match self {
            Original::Kept(stored) => stored.clone(),
            Original::Spliced { at, length } => {
                let (at, resumes) = (*at as usize, (*at + *length) as usize);
                [&sent[..at], &sent[resumes..]].concat().into()
            }
        }
    }
}

/// Reads everything, at one revision.
pub(super) async fn load<A>(store: &dyn Store, ingest: &Ingest<A>) -> Result<Loaded<A>, Error> {
    loop {
        match load_once(store, ingest).await {
            // It took longer than the store remembers the revision of the first page.
            Err(Error::Compacted { .. }) => {}
            done => return done,
        }
    }
}

async fn load_once<A>(store: &dyn Store, ingest: &Ingest<A>) -> Result<Loaded<A>, Error> {
    let mut snapshot = Snapshot { revision: 0, objects: imbl::OrdMap::new() };
    let mut originals = Originals::new();
    let mut range = Range { start: String::new(), end: char::MAX.to_string(), at: None, limit: LOAD_PAGE_RECORDS };
    loop {
        let page = store.range(range.clone()).await?;
        range.at = Some(page.revision);
        if let Some(last) = page.records.last() {
            // The least key that is greater.
            range.start = format!("{}\u{1}", last.key);
        }
        for record in page.records.into_iter().filter(|record| !is_foreign(&record.key)) {
            let entry = enter(record, ingest, &mut originals);
            snapshot.objects.insert(entry.key.clone(), entry);
        }
        if !page.more {
            snapshot.revision = page.revision;
            return Ok(Loaded { snapshot, originals });
        }
    }
}

fn enter<A>(record: Record, ingest: &Ingest<A>, originals: &mut Originals) -> Arc<Entry<A>> {
    let Record { key, value, create_revision, mod_revision, version } = record;
    let (bytes, attributes) = ingest(&key, mod_revision, &value);
    originals.insert(key.clone(), Original::new(&value, &bytes));
    Arc::new(Entry { key, bytes, attributes, create_revision, mod_revision, version })
}

/// Follows the store for ever; the cache aborts it.
pub(super) async fn run<A: Send + Sync + 'static>(shared: Arc<Shared<A>>, mut originals: Originals) {
    loop {
        let error = match follow(&shared, &mut originals).await {
            Ok(()) => Error::Closed,
            Err(error) => error,
        };
        let discontinued = matches!(error, Error::CutOff(_) | Error::Compacted { .. } | Error::Future { .. });
        tracing::warn!(error = &error as &dyn std::error::Error, discontinued, "the watch of the store ended");
        if !discontinued {
            tokio::time::sleep(RETRY_INTERVAL).await;
            continue;
        }
        match load(shared.store.as_ref(), &shared.ingest).await {
            Ok(loaded) => {
                originals = loaded.originals;
                begin_again(&shared, loaded.snapshot);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store could not be read");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

/// Everybody is cut off and, when they list again, finds the new state.
fn begin_again<A>(shared: &Shared<A>, snapshot: Snapshot<A>) {
    let revision = snapshot.revision;
    shared.pins.lock().clear();
    shared.current.store(Arc::new(snapshot));
    shared.hub.lock().discontinue(revision);
    shared.delivered.store(revision, Ordering::Release);
    shared.reached.send_replace(revision);
}

async fn follow<A: Send + Sync>(shared: &Shared<A>, originals: &mut Originals) -> Result<(), Error> {
    let mut changes = shared.store.watch(shared.current.load().revision).await?;
    while let Some(batch) = changes.next().await {
        let batch = batch?;
        let mut snapshot = Snapshot::clone(&shared.current.load());
        let mut applied = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            if event.revision != snapshot.revision + 1 {
                tracing::error!(revision = event.revision, after = snapshot.revision, "the store's history has a hole");
                return Err(Error::CutOff("the store's history has a hole"));
            }
            snapshot.revision = event.revision;
            if is_foreign(&event.key) {
                continue;
            }
            applied.extend(apply(&mut snapshot, event, &shared.ingest, originals));
        }
        publish(shared, snapshot, applied, batch.revision).await;
    }
    Ok(())
}

/// `None` for the deletion of what did not exist, which no store reports.
fn apply<A>(snapshot: &mut Snapshot<A>, event: Event, ingest: &Ingest<A>, originals: &mut Originals) -> Option<Arc<Change<A>>> {
    let Event { revision, key, value, create_revision, version, .. } = event;
    let deleted = value.is_none();
    let (now, before) = match value {
        Some(value) => {
            let record = Record { key: key.clone(), value, create_revision, mod_revision: revision, version };
            let entry = enter(record, ingest, originals);
            let before = snapshot.objects.insert(key.clone(), entry.clone());
            (entry, before)
        }
        None => {
            let before = snapshot.objects.remove(&key)?;
            let stored = originals.remove(&key)?.restore(&before.bytes);
            let (bytes, attributes) = ingest(&key, revision, &stored);
            let entry = Entry { key: key.clone(), bytes, attributes, create_revision, mod_revision: revision, version };
            (Arc::new(entry), Some(before))
        }
    };
    Some(Arc::new(Change { revision, key, now, before, deleted, encoded: Default::default() }))
}

/// First readers can see the changes, then the watchers are told.
async fn publish<A>(shared: &Shared<A>, snapshot: Snapshot<A>, changes: Vec<Arc<Change<A>>>, through: Revision) {
    let revision = snapshot.revision.max(through);
    shared.current.store(Arc::new(Snapshot { revision, ..snapshot }));
    shared.reached.send_replace(revision);
    let now = Instant::now();
    let concerned: Vec<Vec<Row<A>>> = {
        let mut hub = shared.hub.lock();
        changes.iter().map(|change| hub.push(now, change)).collect()
    };
    let mut deliveries = 0;
    for (change, rows) in changes.iter().zip(concerned) {
        for seat in rows.iter().flat_map(|row| row.iter()) {
            if !seat.send(change) {
                shared.hub.lock().leave(seat.ticket());
            }
            deliveries += 1;
            if deliveries % DELIVERIES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    shared.delivered.store(revision, Ordering::Release);
}
