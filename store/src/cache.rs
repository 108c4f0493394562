//! The watch cache: every live object as JSON bytes in a persistent ordered map, and the last events in a ring.
//!
//! It knows nothing of what the bytes mean: `ingest` makes of each stored value, once, the bytes that readers are sent
//! (with the resourceVersion spliced in) and the attributes `A` that selectors ask for.

use crate::{Error, Revision, Store};
use bytes::Bytes;
use std::sync::Arc;

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
    /// Bytes that the reader side encoded of this change, one slot a form (added, modified, deleted).
    pub encoded: [std::sync::OnceLock<Bytes>; 3],
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

pub struct Cache<A> {
    _store: Arc<dyn Store>,
    _attributes: std::marker::PhantomData<A>,
}

/// A watcher's end of the cache.
pub struct Watcher<A> {
    _attributes: std::marker::PhantomData<A>,
}

impl<A: Send + Sync + 'static> Cache<A> {
    /// Reads the whole store, then follows it in a task of its own until the cache is dropped.
    pub async fn start(_store: Arc<dyn Store>, _ingest: Ingest<A>, _limits: Limits) -> Result<Arc<Self>, Error> {
        Err(Error::Closed)
    }
    /// What the cache holds now; may lag behind the store.
    pub fn snapshot(&self) -> Snapshot<A> {
        Snapshot { revision: 0, objects: imbl::OrdMap::new() }
    }
    /// Waits until the cache has reached `revision` (as after a write of one's own), a few seconds at most.
    pub async fn at_least(&self, _revision: Revision) -> Result<Snapshot<A>, Error> {
        Err(Error::Timeout)
    }
    /// A consistent read: asks the store for its revision and waits for it.
    pub async fn fresh(&self) -> Result<Snapshot<A>, Error> {
        Err(Error::Timeout)
    }
    /// Keeps a snapshot for `Limits::horizon`, for a `continue` token that names its revision.
    pub fn pin(&self, _snapshot: &Snapshot<A>) {}
    /// A pinned snapshot, or the current one if it has just this revision; else `Compacted`.
    pub fn pinned(&self, revision: Revision) -> Result<Snapshot<A>, Error> {
        Err(Error::Compacted { oldest: revision })
    }
    /// Follows the keys that begin with `prefix`, every change after `after`. `Compacted` if the ring has forgotten it.
    pub fn watch(&self, _prefix: &str, after: Revision) -> Result<Watcher<A>, Error> {
        Err(Error::Compacted { oldest: after })
    }
}

impl<A: Send + Sync + 'static> Watcher<A> {
    /// The next change or, when it has been quiet, progress. `CutOff` ends it. Cancel safe.
    pub async fn next(&mut self) -> Result<Item<A>, Error> {
        Err(Error::Closed)
    }
}

impl<A> Clone for Snapshot<A> {
    fn clone(&self) -> Self {
        Snapshot { revision: self.revision, objects: self.objects.clone() }
    }
}
