//! Revisioned objects on Postgres: keys and bytes, no kinds and no HTTP.
//!
//! Every acknowledged write has a revision; revisions are dense and in commit order. [`Store`] is what Postgres and
//! the in-memory twin both implement and what `contract` checks of both. [`cache::Cache`] is the watch cache that the
//! API server reads from.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::sync::Arc;

pub mod cache;
pub mod contract;
pub mod etcd;
pub mod memory;
pub mod postgres;

/// The largest value that a write may carry, as large as etcd's largest request.
pub const VALUE_BYTES_MAX: usize = 1_572_864;

/// The most writes that a transaction may have: one batch holds them all in memory.
pub const TRANSACTION_WRITES_MAX: usize = 20_000;

/// What the keys begin with that do not belong to the cluster's own objects, but to the users of the etcd face and to the
/// face itself. `!` is in no API group's name, and a custom group's has a dot.
pub const FOREIGN_PREFIXES: [&str; 2] = ["/etcd/", "/etcd!"];

pub(crate) fn is_foreign(key: &str) -> bool {
    FOREIGN_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// The number of a commit. 0 is before the first write.
pub type Revision = i64;

/// A live object as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision at which this key was last created; if that was by a transaction, the transaction's last.
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// How many times the key was written since it was created, beginning at 1.
    pub version: i64,
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is expected: the write always happens (a delete of an absent key is `NotFound`).
    Any,
    /// The key must not exist, else `Exists`.
    Absent,
    /// The key must exist with this `mod_revision`, else `Conflict` or `NotFound`.
    Revision(Revision),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Bytes),
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Arc<str>,
    pub expect: Expect,
    pub change: Change,
}

impl Write {
    /// Whether this write may go ahead over a key whose `mod_revision` is `current`, 0 if there is none.
    pub(crate) fn check(&self, current: Revision) -> Result<(), Error> {
        match self.expect {
            Expect::Absent if current != 0 => Err(Error::Exists),
            Expect::Revision(_) if current == 0 => Err(Error::NotFound),
            Expect::Revision(expected) if expected != current => Err(Error::Conflict { current }),
            _ if current == 0 && self.change == Change::Delete => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_size(&self) -> Result<(), Error> {
        match &self.change {
            Change::Put(value) if value.len() > VALUE_BYTES_MAX => {
                Err(Error::TooLarge { bytes: value.len(), limit: VALUE_BYTES_MAX })
            }
            _ => Ok(()),
        }
    }
}

/// Says that no key from `start` (inclusive) to `end` (exclusive) was written after `since`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub start: Arc<str>,
    pub end: Arc<str>,
    pub since: Revision,
}

/// Writes that happen together or not at all. Who has read ranges at a revision and decided by them guards those ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub guards: Vec<Guard>,
    /// Of distinct keys, in the order of their revisions.
    pub writes: Vec<Write>,
}

impl Transaction {
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        if self.writes.len() > TRANSACTION_WRITES_MAX {
            return Err(Error::TooManyWrites { writes: self.writes.len(), limit: TRANSACTION_WRITES_MAX });
        }
        self.writes.iter().try_for_each(Write::check_size)
    }
}

/// One change, as the log has it. Changes are seen in the order of their revisions, each exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: Arc<str>,
    /// The new value; `None` if the key was deleted.
    pub value: Option<Bytes>,
    pub create_revision: Revision,
    /// The `mod_revision` that this change replaced; 0 if the key did not exist.
    pub previous_revision: Revision,
    pub version: i64,
}

/// Events that were committed by `revision`, in order; `events` may be empty (progress only).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub events: Vec<Event>,
    /// Everything up to and including this revision has now been delivered.
    pub revision: Revision,
}

/// Keys from `start` (inclusive) to `end` (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub start: String,
    pub end: String,
    /// `None`: the newest revision.
    pub at: Option<Revision>,
    /// 0: no limit.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<Record>,
    /// The revision at which the range was read.
    pub revision: Revision,
    pub more: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the key does not exist")]
    NotFound,
    #[error("the key exists already")]
    Exists,
    /// The key is at another revision than the write expected.
    #[error("the key is at revision {current}")]
    Conflict { current: Revision },
    /// The revision asked for is forgotten; `oldest` is the oldest that can still be read.
    #[error("the required revision has been compacted: the oldest is {oldest}")]
    Compacted { oldest: Revision },
    /// The revision asked for has not been written yet.
    #[error("the revision is in the future: the newest is {newest}")]
    Future { newest: Revision },
    #[error("the value has {bytes} bytes, the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the transaction has {writes} writes, the limit is {limit}")]
    TooManyWrites { writes: usize, limit: usize },
    /// A reader that is too slow was cut off, or the store lost its continuity (a failover): begin again with a list.
    #[error("the watch was cut off: {0}")]
    CutOff(&'static str),
    #[error("the store did not answer in time")]
    Timeout,
    #[error("the store is closed")]
    Closed,
    #[error("the store's database failed")]
    Backend(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// A store of revisioned objects. Implementations are linearizable: once `write` has answered, every later read and
/// every watch, of any replica, sees the write.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes if `expect` holds, and answers with the new revision once the write is durable.
    async fn write(&self, write: Write) -> Result<Revision, Error>;
    /// Makes all of the writes, with consecutive revisions and seen all at once, and answers with the last revision; or
    /// none of them, if a guard (`Conflict`) or a write's `expect` does not hold.
    async fn transact(&self, transaction: Transaction) -> Result<Revision, Error>;
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Record>, Error>;
    async fn range(&self, range: Range) -> Result<Page, Error>;
    /// How many keys there are in the range, whatever its limit.
    async fn count(&self, range: Range) -> Result<usize, Error>;
    /// The newest committed revision; a read that waits for it is consistent. Concurrent callers share one question.
    async fn revision(&self) -> Result<Revision, Error>;
    /// Every change after `after`, in order, without gap or repetition, for as long as the stream is read.
    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error>;
    /// Forgets history up to and including `revision` (live values stay).
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
    /// The oldest revision that can still be watched from or read at.
    async fn oldest(&self) -> Result<Revision, Error>;
    /// Bytes that the store takes where it is kept.
    async fn size(&self) -> Result<u64, Error>;
}
