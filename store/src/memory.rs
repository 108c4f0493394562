//! The twin of the Postgres store, in memory: for tests and simulation. It keeps nothing when dropped.

use crate::{Batch, Change, Error, Event, Page, Range, Record, Revision, Store, Transaction, Write};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// How many events one batch of a watch holds at most.
const BATCH_EVENTS_MAX: usize = 1_000;

/// One state of a key; `value` is `None` where it was deleted.
#[derive(Debug, Clone)]
struct Version {
    revision: Revision,
    create_revision: Revision,
    version: i64,
    value: Option<Bytes>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    /// Every version of each key since the compaction, oldest first, and the one that was live then.
    keys: BTreeMap<Arc<str>, Vec<Version>>,
    /// Every event after `compacted`: the one of revision `r` is at `r - compacted - 1`.
    log: VecDeque<Event>,
}

/// See the module.
#[derive(Debug)]
pub struct Memory {
    /// Shared with the watches, which end when `newest` is dropped.
    state: Arc<Mutex<State>>,
    newest: watch::Sender<Revision>,
}

impl Memory {
    pub fn new() -> Arc<Memory> {
        Arc::new(Memory { state: Arc::default(), newest: watch::Sender::new(0) })
    }
}

impl State {
    fn live(&self, key: &str) -> Option<&Version> {
        self.keys.get(key)?.last().filter(|version| version.value.is_some())
    }

    /// `creates_at`: the revision that the key gets as its first, if it does not exist.
    fn write(&mut self, write: Write, creates_at: Option<Revision>) -> Result<Revision, Error> {
        let live = self.live(&write.key);
        let current = live.map_or(0, |version| version.revision);
        write.check(current)?;
        let (created, count) = live.map_or((None, 0), |version| (Some(version.create_revision), version.version));
        let revision = self.revision + 1;
        let value = match write.change {
            Change::Put(value) => Some(value),
            Change::Delete => None,
        };
        let version =
            Version { revision, create_revision: created.or(creates_at).unwrap_or(revision), version: count + 1, value };
        self.log.push_back(Event {
            revision,
            key: write.key.clone(),
            value: version.value.clone(),
            create_revision: version.create_revision,
            previous_revision: current,
            version: version.version,
        });
        self.keys.entry(write.key).or_default().push(version);
        self.revision = revision;
        Ok(revision)
    }

    fn transact(&mut self, transaction: Transaction) -> Result<Revision, Error> {
        for guard in &transaction.guards {
            let newer = self.log.iter().rev().take_while(|event| event.revision > guard.since);
            let found = newer.filter(|event| guard.start <= event.key && event.key < guard.end).last();
            if let Some(event) = found {
                return Err(Error::Conflict { current: event.revision });
            }
        }
        for write in &transaction.writes {
            write.check(self.live(&write.key).map_or(0, |version| version.revision))?;
        }
        let last = self.revision + transaction.writes.len() as Revision;
        for write in transaction.writes {
            self.write(write, Some(last))?;
        }
        Ok(last)
    }

    /// The revision to read at, if it is one that can be read.
    fn readable(&self, at: Option<Revision>) -> Result<Revision, Error> {
        match at {
            None => Ok(self.revision),
            Some(at) if at < self.compacted => Err(Error::Compacted { oldest: self.compacted }),
            Some(at) if at > self.revision => Err(Error::Future { newest: self.revision }),
            Some(at) => Ok(at),
        }
    }

    fn after(&self, after: Revision) -> Result<Vec<Event>, Error> {
        if after < self.compacted {
            return Err(Error::Compacted { oldest: self.compacted });
        }
        let skip = (after - self.compacted) as usize;
        Ok(self.log.iter().skip(skip).take(BATCH_EVENTS_MAX).cloned().collect())
    }

    fn compact(&mut self, revision: Revision) {
        let forgotten = (revision - self.compacted) as usize;
        self.log.drain(..forgotten);
        self.compacted = revision;
        self.keys.retain(|_, versions| {
            let newer = versions.partition_point(|version| version.revision <= revision);
            let live_then = newer > 0 && versions[newer - 1].value.is_some();
            versions.drain(..newer - usize::from(live_then));
            !versions.is_empty()
        });
    }
}

fn record(key: &Arc<str>, versions: &[Version], at: Revision) -> Option<Record> {
    let newer = versions.partition_point(|version| version.revision <= at);
    let version = &versions[newer.checked_sub(1)?];
    Some(Record {
        key: key.clone(),
        value: version.value.clone()?,
        create_revision: version.create_revision,
        mod_revision: version.revision,
        version: version.version,
    })
}

#[async_trait]
impl Store for Memory {
    async fn write(&self, write: Write) -> Result<Revision, Error> {
        write.check_size()?;
        let mut state = self.state.lock();
        let revision = state.write(write, None)?;
        // Under the lock, so that the revisions are announced in their order.
        self.newest.send_replace(revision);
        Ok(revision)
    }

    async fn transact(&self, transaction: Transaction) -> Result<Revision, Error> {
        transaction.check_size()?;
        let mut state = self.state.lock();
        let revision = state.transact(transaction)?;
        self.newest.send_replace(revision);
        Ok(revision)
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Record>, Error> {
        let state = self.state.lock();
        let at = state.readable(at)?;
        Ok(state.keys.get_key_value(key).and_then(|(key, versions)| record(key, versions, at)))
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let state = self.state.lock();
        let revision = state.readable(range.at)?;
        if range.start >= range.end {
            return Ok(Page { records: vec![], revision, more: false });
        }
        let bounds = (std::ops::Bound::Included(range.start.as_str()), std::ops::Bound::Excluded(range.end.as_str()));
        let mut found = state.keys.range::<str, _>(bounds).filter_map(|(key, versions)| record(key, versions, revision));
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let records: Vec<Record> = found.by_ref().take(limit).collect();
        Ok(Page { records, revision, more: found.next().is_some() })
    }

    async fn count(&self, range: Range) -> Result<usize, Error> {
        Ok(self.range(Range { limit: 0, ..range }).await?.records.len())
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.state.lock().revision)
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.state.lock().readable(Some(after))?;
        let watch = (self.state.clone(), self.newest.subscribe(), Some(after));
        Ok(Box::pin(futures::stream::unfold(watch, |(state, mut newest, after)| async move {
            let after = after?;
            if newest.wait_for(|newest| *newest > after).await.is_err() {
                return Some((Err(Error::Closed), (state, newest, None)));
            }
            let events = state.lock().after(after);
            match events {
                Err(error) => Some((Err(error), (state, newest, None))),
                Ok(events) => {
                    let revision = events.last().map_or(after, |event| event.revision);
                    Some((Ok(Batch { events, revision }), (state, newest, Some(revision))))
                }
            }
        })))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.readable(Some(revision))?;
        state.compact(revision);
        Ok(())
    }

    async fn oldest(&self) -> Result<Revision, Error> {
        Ok(self.state.lock().compacted)
    }

    async fn size(&self) -> Result<u64, Error> {
        let state = self.state.lock();
        let values = state.keys.values().flatten().filter_map(|version| version.value.as_ref());
        Ok(values.map(|value| value.len() as u64).sum())
    }
}
