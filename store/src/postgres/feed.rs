//! The newest changes in memory, in order and without a gap: from the writer directly, from others out of the log.
//!
//! A notification only makes the tail look at the log sooner; a poll stands behind it.

use super::{Backoff, event, in_time, is_transient, read, sql};
use crate::{Batch, Error, Event, Revision};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{PgPool, Row};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Changes that are kept for watches; who is further behind reads the log.
const EVENTS_MAX: usize = 8_192;
/// Bytes of values that are kept for watches.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// Changes that are read or handed on at once.
const BATCH_EVENTS_MAX: usize = 1_000;

/// A point in a history of the database. Two databases that were once the same differ in `written_us`, unless they have
/// the same history up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) revision: Revision,
    pub(super) written_us: Option<i64>,
    epoch: String,
}

impl Position {
    pub(super) async fn read(connection: impl sqlx::PgExecutor<'_>) -> Result<Position, sqlx::Error> {
        let row = sqlx::query(sql::POSITION).bind(None::<i64>).fetch_one(connection).await?;
        Ok(Position { revision: row.get(0), epoch: row.get(1), written_us: row.get(2) })
    }
}

pub(super) struct Feed {
    ring: Mutex<Ring>,
    /// What the ring reaches up to, announced after the ring has it.
    newest: watch::Sender<Newest>,
    /// Makes the tail look at the log now.
    wake: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Newest {
    revision: Revision,
    /// Changes when the history broke off, as after a failover that lost commits.
    generation: u64,
}

struct Ring {
    events: VecDeque<Event>,
    bytes: usize,
    at: Position,
    generation: u64,
}

impl Feed {
    pub(super) fn new(at: Position) -> Feed {
        let newest = watch::Sender::new(Newest { revision: at.revision, generation: 0 });
        let ring = Ring { events: VecDeque::new(), bytes: 0, at, generation: 0 };
        Feed { ring: Mutex::new(ring), newest, wake: Notify::new() }
    }

    /// Takes changes that were committed at `written_us`. What is known already is skipped; if there is a gap before
    /// them, the tail is left to fetch it.
    pub(super) fn advance(&self, events: impl IntoIterator<Item = (Event, i64)>) {
        let mut ring = self.ring.lock();
        for (event, written_us) in events {
            if event.revision > ring.at.revision + 1 {
                self.wake.notify_one();
                break;
            }
            if event.revision == ring.at.revision + 1 {
                ring.push(event, written_us);
            }
        }
        self.newest.send_replace(Newest { revision: ring.at.revision, generation: ring.generation });
    }

    /// Says that `revision` exists, so that the tail need not wait for its notification.
    pub(super) fn announce(&self, revision: Revision) {
        if revision > self.newest.borrow().revision {
            self.wake.notify_one();
        }
    }

    /// To be asked on every new connection: is this still the history that the feed knows? If it is not, every watch
    /// ends.
    pub(super) async fn verify(&self, connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
        let known = self.ring.lock().at.clone();
        let row = sqlx::query(sql::POSITION).bind(known.revision).fetch_one(&mut *connection).await?;
        let found = Position { revision: known.revision, epoch: row.get(1), written_us: row.get(2) };
        if row.get::<i64, _>(0) < known.revision || found != known {
            self.discontinue(Position::read(connection).await?);
        }
        Ok(())
    }

    fn discontinue(&self, at: Position) {
        let mut ring = self.ring.lock();
        tracing::error!(known = ring.at.revision, found = at.revision, "the database has another history: every watch ends");
        ring.events.clear();
        ring.bytes = 0;
        ring.generation += 1;
        ring.at = at;
        self.newest.send_replace(Newest { revision: ring.at.revision, generation: ring.generation });
    }

    /// The changes after `after`, if the ring still has them.
    fn after(&self, after: Revision) -> Option<Vec<Event>> {
        let ring = self.ring.lock();
        let first = ring.events.front()?.revision;
        let skip = usize::try_from(after + 1 - first).ok()?;
        Some(ring.events.iter().skip(skip).take(BATCH_EVENTS_MAX).cloned().collect())
    }
}

impl Ring {
    fn push(&mut self, event: Event, written_us: i64) {
        self.at.revision = event.revision;
        self.at.written_us = Some(written_us);
        self.bytes += bytes(&event);
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX || self.bytes > EVENT_BYTES_MAX {
            let Some(forgotten) = self.events.pop_front() else { break };
            self.bytes -= bytes(&forgotten);
        }
    }
}

fn bytes(event: &Event) -> usize {
    event.value.as_ref().map_or(0, bytes::Bytes::len)
}

/// Follows the log for ever.
pub(super) async fn tail(pool: PgPool, feed: Arc<Feed>, poll_interval: Duration) {
    let mut backoff = Backoff::new();
    let mut must_verify = false;
    loop {
        match in_time(fetch(&pool, &feed, must_verify)).await {
            Ok(more) => {
                backoff = Backoff::new();
                must_verify = false;
                if more {
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the log could not be read");
                // What is reached next may be another server.
                must_verify = true;
                backoff.wait().await;
                continue;
            }
        }
        // Either way it is time to look.
        let _ = tokio::time::timeout(poll_interval, feed.wake.notified()).await;
    }
}

/// Fetches what is new. True if there may be more at once.
async fn fetch(pool: &PgPool, feed: &Feed, must_verify: bool) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    if must_verify {
        feed.verify(&mut connection).await?;
    }
    let known = feed.ring.lock().at.clone();
    let tail = sqlx::query(sql::TAIL).bind(known.revision).bind(BATCH_EVENTS_MAX as i64);
    let rows = tail.fetch_all(&mut *connection).await?;
    let Some(first) = rows.first() else { return Ok(false) };
    let (newest, epoch): (i64, &str) = (first.get(0), first.get(2));
    let first_event: Option<i64> = first.get(3);
    let reaches_on = first_event == Some(known.revision + 1) || (first_event.is_none() && newest == known.revision);
    if epoch != known.epoch || !reaches_on {
        feed.discontinue(Position::read(&mut *connection).await?);
        return Ok(true);
    }
    let full = rows.len() == BATCH_EVENTS_MAX;
    feed.advance(rows.iter().filter_map(|row| Some((event(row, 3)?, row.get(9)))));
    Ok(full)
}

/// Wakes the tail whenever another writer has committed. Nothing depends on it but how soon a change is seen.
pub(super) async fn listen(server: PgConnectOptions, feed: Arc<Feed>, writer_id: String) {
    let mut backoff = Backoff::new();
    loop {
        let error = match listen_once(&server, &feed, &writer_id, &mut backoff).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        tracing::debug!(error = &error as &dyn std::error::Error, "the notifications stopped");
        backoff.wait().await;
    }
}

async fn listen_once(server: &PgConnectOptions, feed: &Feed, writer_id: &str, backoff: &mut Backoff) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(server.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(sql::CHANNEL).await?;
    *backoff = Backoff::new();
    while let Some(notification) = listener.try_recv().await? {
        // The writer hands its own changes on itself.
        let (revision, writer) = notification.payload().split_once(' ').unwrap_or_default();
        if let (Ok(revision), false) = (revision.parse(), writer.replace('-', "") == writer_id) {
            feed.announce(revision);
        }
    }
    Ok(())
}

struct Watch {
    feed: Arc<Feed>,
    pool: PgPool,
    newest: watch::Receiver<Newest>,
    generation: u64,
    after: Revision,
    ended: bool,
}

pub(super) fn watch(feed: Arc<Feed>, pool: PgPool, after: Revision) -> BoxStream<'static, Result<Batch, Error>> {
    let newest = feed.newest.subscribe();
    let generation = newest.borrow().generation;
    let watch = Watch { feed, pool, newest, generation, after, ended: false };
    Box::pin(futures::stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let batch = watch.next().await;
        watch.ended = batch.is_err();
        Some((batch, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Result<Batch, Error> {
        let (after, generation) = (self.after, self.generation);
        loop {
            let ready = |newest: &Newest| newest.revision > after || newest.generation != generation;
            tokio::select! {
                newest = self.newest.wait_for(ready) => {
                    if newest.map_err(|_| Error::Closed)?.generation != generation {
                        return Err(Error::CutOff("the database has another history"));
                    }
                }
                () = self.pool.close_event() => return Err(Error::Closed),
            }
            let events = match self.feed.after(after) {
                Some(events) => events,
                None => self.read_log().await?,
            };
            if let Some(last) = events.last() {
                self.after = last.revision;
                return Ok(Batch { revision: last.revision, events });
            }
        }
    }

    async fn read_log(&self) -> Result<Vec<Event>, Error> {
        loop {
            let tail = || sqlx::query(sql::TAIL).bind(self.after).bind(BATCH_EVENTS_MAX as i64).fetch_all(&self.pool);
            let rows = match read(tail).await {
                Err(Error::Backend(source)) if source.downcast_ref().is_some_and(is_transient) => continue,
                rows => rows?,
            };
            let oldest = rows.first().map_or(0, |row| row.get(1));
            if self.after < oldest {
                return Err(Error::Compacted { oldest });
            }
            return Ok(rows.iter().filter_map(|row| event(row, 3)).collect());
        }
    }
}
