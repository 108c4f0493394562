//! The watch cache: every live object as JSON bytes in a persistent ordered map, and the last events in a ring.
//!
//! It knows nothing of what the bytes mean: `ingest` makes of each stored value, once, the bytes that readers are sent
//! (with the resourceVersion spliced in) and the attributes `A` that selectors ask for.

use crate::{Error, Revision, Store};
use arc_swap::ArcSwap;
use bytes::Bytes;
use hub::{Hub, Ticket};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

mod follow;
mod hub;

/// An object as readers are sent it.
#[derive(Debug)]
pub struct Entry<A> {
    pub key: Arc<str>,
    /// What a reader is sent; never parsed again.
    pub bytes: Bytes,
    pub attributes: A,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: i64,
}

/// Turns `(key, revision, stored value)` into what readers are sent and what selectors ask for. Called once a change
/// (for a deletion: with the last value and the revision of the deletion).
pub type Ingest<A> = Arc<dyn Fn(&str, Revision, &[u8]) -> (Bytes, A) + Send + Sync>;

/// One change as watchers get it. Shared by all of them, so what is encoded is encoded once.
#[derive(Debug)]
pub struct Change<A> {
    pub revision: Revision,
    pub key: Arc<str>,
    /// The object now; for a deletion, the last state with the deletion's revision.
    pub now: Arc<Entry<A>>,
    /// The object before, if it existed.
    pub before: Option<Arc<Entry<A>>>,
    pub deleted: bool,
    /// Bytes that the reader side encoded of this change, one slot a form (added, modified, deleted; in two encodings).
    pub encoded: [std::sync::OnceLock<Bytes>; 6],
}

/// All objects at one revision. Cheap to clone and to keep.
#[derive(Debug)]
pub struct Snapshot<A> {
    pub revision: Revision,
    pub objects: imbl::OrdMap<Arc<str>, Arc<Entry<A>>>,
}

/// What a watcher is handed.
pub enum Item<A> {
    Change(Arc<Change<A>>),
    /// Nothing that concerns this watcher is older than this revision and still to come.
    Progress(Revision),
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Events kept in memory for watchers that come back.
    pub ring_events_max: usize,
    /// Changes that may wait for one slow watcher before it is cut off.
    pub watcher_backlog_max: usize,
    /// How long a pinned snapshot (a `continue` token) is kept, and how far back the API remembers.
    pub horizon: std::time::Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ring_events_max: 50_000, watcher_backlog_max: 10_000, horizon: std::time::Duration::from_secs(300) }
    }
}

/// How long `at_least` waits for the cache to catch up.
const CATCH_UP: Duration = Duration::from_secs(3);
/// A watcher that has seen nothing for so long is told how far the cache is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Snapshots that are kept for `continue` tokens at most; the oldest goes first.
const PINS_MAX: usize = 1_000;
/// Of those with a prefix at most: they were read from the store, and share no memory with the objects of now.
const COPIES_MAX: usize = 8;

struct Shared<A> {
    store: Arc<dyn Store>,
    ingest: Ingest<A>,
    limits: Limits,
    current: ArcSwap<Snapshot<A>>,
    /// The revision of `current`, announced after it can be read.
    reached: watch::Sender<Revision>,
    /// Every change up to this revision is in the queues of the watchers it concerns.
    delivered: AtomicI64,
    hub: Mutex<Hub<A>>,
    pins: Mutex<VecDeque<Pin<A>>>,
}

/// A snapshot that is kept.
struct Pin<A> {
    since: Instant,
    /// It has all keys that begin with it, and perhaps no others.
    prefix: String,
    snapshot: Snapshot<A>,
}

/// See the module.
pub struct Cache<A> {
    shared: Arc<Shared<A>>,
    follower: tokio::task::JoinHandle<()>,
}

/// A watcher's end of the cache.
pub struct Watcher<A> {
    /// What the ring had for it when it came; read before the queue.
    replay: VecDeque<Arc<Change<A>>>,
    queue: mpsc::Receiver<Arc<Change<A>>>,
    ticket: Arc<Ticket>,
    shared: Arc<Shared<A>>,
    /// Everything up to here was handed out or does not concern it.
    seen: Revision,
    quiet_since: Instant,
}

impl<A: Send + Sync + 'static> Cache<A> {
    /// Reads the whole store, then follows it in a task of its own until the cache is dropped.
    pub async fn start(store: Arc<dyn Store>, ingest: Ingest<A>, limits: Limits) -> Result<Arc<Self>, Error> {
        let loaded = follow::load(store.as_ref(), &ingest).await?;
        let revision = loaded.snapshot.revision;
        let shared = Arc::new(Shared {
            store,
            ingest,
            hub: Mutex::new(Hub::new(revision, &limits)),
            limits,
            current: ArcSwap::from_pointee(loaded.snapshot),
            reached: watch::Sender::new(revision),
            delivered: AtomicI64::new(revision),
            pins: Mutex::default(),
        });
        let follower = tokio::spawn(follow::run(shared.clone(), loaded.originals));
        Ok(Arc::new(Cache { shared, follower }))
    }

    /// What the cache holds now; may lag behind the store.
    pub fn snapshot(&self) -> Snapshot<A> {
        Snapshot::clone(&self.shared.current.load())
    }

    /// Waits until the cache has reached `revision` (as after a write of one's own), a few seconds at most.
    pub async fn at_least(&self, revision: Revision) -> Result<Snapshot<A>, Error> {
        let mut reached = self.shared.reached.subscribe();
        let caught_up = tokio::time::timeout(CATCH_UP, reached.wait_for(|reached| *reached >= revision)).await;
        match caught_up {
            Err(_) => Err(Error::Timeout),
            Ok(Err(_)) => Err(Error::Closed),
            Ok(Ok(_)) => Ok(self.snapshot()),
        }
    }

    /// A consistent read: asks the store for its revision and waits for it.
    pub async fn fresh(&self) -> Result<Snapshot<A>, Error> {
        self.at_least(self.shared.store.revision().await?).await
    }

    /// Keeps a snapshot for `Limits::horizon`, for a `continue` token that names its revision. It has at least all keys that
    /// begin with `prefix`. Of a revision that is past, it is not kept longer for being asked for again.
    pub fn pin(&self, snapshot: &Snapshot<A>, prefix: &str) {
        let now = Instant::now();
        let past = self.shared.current.load().revision != snapshot.revision;
        let mut pins = self.shared.live_pins(now);
        let same = |pin: &Pin<A>| pin.snapshot.revision == snapshot.revision && pin.prefix == prefix;
        if past && pins.iter().any(same) {
            return;
        }
        pins.retain(|pin| !same(pin));
        if pins.len() >= PINS_MAX {
            pins.pop_front();
        }
        let copies = pins.iter().filter(|pin| !pin.prefix.is_empty()).count();
        if !prefix.is_empty() && copies >= COPIES_MAX {
            let oldest = pins.iter().position(|pin| !pin.prefix.is_empty());
            oldest.and_then(|oldest| pins.remove(oldest));
        }
        pins.push_back(Pin { since: now, prefix: prefix.to_owned(), snapshot: snapshot.clone() });
    }

    /// A pinned snapshot that has all keys that begin with `prefix`, or the current one if it has just this revision; else
    /// `Compacted`. With it the prefix under which it was pinned.
    pub fn pinned(&self, revision: Revision, prefix: &str) -> Result<(Snapshot<A>, String), Error> {
        let current = self.shared.current.load();
        if current.revision == revision {
            return Ok((Snapshot::clone(&current), String::new()));
        }
        let pins = self.shared.live_pins(Instant::now());
        let found = pins.iter().find(|pin| pin.snapshot.revision == revision && prefix.starts_with(&pin.prefix));
        found.map(|pin| (pin.snapshot.clone(), pin.prefix.clone())).ok_or_else(|| {
            let oldest = pins.iter().map(|pin| pin.snapshot.revision).min();
            Error::Compacted { oldest: oldest.unwrap_or(current.revision) }
        })
    }

    /// Follows the keys that begin with `prefix`, every change after `after`. `Compacted` if the ring has forgotten it.
    ///
    /// `after` may be ahead of the cache, as it is when another replica has told it to a client: the watcher then gets
    /// what comes later still.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watcher<A>, Error> {
        let (replay, queue, ticket) = self.shared.hub.lock().join(prefix, after, self.shared.limits.watcher_backlog_max)?;
        Ok(Watcher { replay, queue, ticket, shared: self.shared.clone(), seen: after, quiet_since: Instant::now() })
    }
}

impl<A> Drop for Cache<A> {
    fn drop(&mut self) {
        self.follower.abort();
        self.shared.hub.lock().close();
    }
}

impl<A> Shared<A> {
    fn live_pins(&self, now: Instant) -> parking_lot::MutexGuard<'_, VecDeque<Pin<A>>> {
        let mut pins = self.pins.lock();
        while pins.front().is_some_and(|pin| now.duration_since(pin.since) > self.limits.horizon) {
            pins.pop_front();
        }
        pins
    }
}

impl<A: Send + Sync + 'static> Watcher<A> {
    /// The next change or, when it has been quiet, progress. `CutOff` ends it. Cancel safe.
    pub async fn next(&mut self) -> Result<Item<A>, Error> {
        loop {
            let change = match self.replay.pop_front() {
                Some(change) => Some(change),
                None => {
                    let quiet_until = self.quiet_since + PROGRESS_INTERVAL;
                    match tokio::time::timeout_at(quiet_until, self.queue.recv()).await {
                        Ok(Some(change)) => Some(change),
                        Ok(None) => return Err(self.ticket.why_left()),
                        Err(_) => self.look_again(),
                    }
                }
            };
            self.quiet_since = Instant::now();
            match change {
                None => return Ok(Item::Progress(self.seen)),
                // What it has seen already: `after` was ahead of the cache.
                Some(change) if change.revision <= self.seen => {}
                Some(change) => {
                    self.seen = change.revision;
                    return Ok(Item::Change(change));
                }
            }
        }
    }

    /// What has come meanwhile; if that is nothing, everything up to `delivered`, which is read first, was seen.
    fn look_again(&mut self) -> Option<Arc<Change<A>>> {
        let delivered = self.shared.delivered.load(Ordering::Acquire);
        let change = self.queue.try_recv().ok();
        if change.is_none() {
            self.seen = self.seen.max(delivered);
        }
        change
    }
}

impl<A> Drop for Watcher<A> {
    fn drop(&mut self) {
        self.shared.hub.lock().leave(&self.ticket);
    }
}

impl<A> Clone for Snapshot<A> {
    fn clone(&self) -> Self {
        Snapshot { revision: self.revision, objects: self.objects.clone() }
    }
}

#[cfg(test)]
mod tests;
