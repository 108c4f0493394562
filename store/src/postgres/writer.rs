//! The group commit: one task takes all writes that wait and commits them together, each with an outcome of its own.

use super::{Backoff, backend, event, feed::Feed, in_time, is_transient, retention, sql};
use crate::{Change, Error, Event, Expect, Revision, Transaction, Write};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection, Row};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Writes that may wait; further callers wait to wait.
pub(super) const QUEUE_WRITES_MAX: usize = 8_192;
/// Writes that are committed together: beyond this a batch takes longer without costing less a write.
pub(super) const BATCH_WRITES_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What `apply_batch` raises for a batch that was committed before.
const COMMITTED_BEFORE: &str = "SW001";
/// What Postgres raises if no partition has room for a row.
const CHECK_VIOLATION: &str = "23514";

pub(super) type Answer = oneshot::Sender<Result<Revision, Error>>;

pub(super) struct Pending<W = Write> {
    pub(super) work: W,
    pub(super) answer: Answer,
    pub(super) deadline: Instant,
}

/// What waits to be committed. A transaction is a batch of its own.
pub(super) enum Queued {
    One(Pending),
    Transaction(Pending<Transaction>),
}

impl<W> Pending<W> {
    fn is_over(&self, now: Instant) -> bool {
        self.answer.is_closed() || self.deadline <= now
    }
}

pub(super) struct Writer {
    id: String,
    server: PgConnectOptions,
    connection: Option<PgConnection>,
    feed: Arc<Feed>,
    partition_revisions: i64,
    /// The number of the batch under way. The database commits each number once.
    batch: i64,
}

/// What became of a batch, item by item.
struct Applied {
    /// The new revision, or the negated current one.
    outcomes: Vec<i64>,
    events: Vec<(Event, i64)>,
}

impl Writer {
    pub(super) fn new(id: String, server: PgConnectOptions, feed: Arc<Feed>, partition_revisions: i64) -> Writer {
        Writer { id, server, connection: None, feed, partition_revisions, batch: 0 }
    }

    /// Ends when nobody can write any more.
    pub(super) async fn run(mut self, mut pending: mpsc::Receiver<Queued>) {
        let mut waiting = VecDeque::new();
        let mut arrived = Vec::with_capacity(BATCH_WRITES_MAX);
        loop {
            while let Ok(one) = pending.try_recv() {
                waiting.push_back(one);
                if waiting.len() >= 2 * BATCH_WRITES_MAX {
                    break;
                }
            }
            if waiting.is_empty() {
                if pending.recv_many(&mut arrived, BATCH_WRITES_MAX).await == 0 {
                    return;
                }
                waiting.extend(arrived.drain(..));
            }
            let batch = take_batch(&mut waiting, Instant::now());
            if !batch.is_empty() {
                self.commit(batch).await;
            } else if let Some(Queued::Transaction(transaction)) = waiting.pop_front() {
                self.commit_transaction(transaction).await;
            }
        }
    }

    async fn commit(&mut self, batch: Vec<Pending>) {
        let error = match self.apply(&batch[..]).await {
            Ok(Some(applied)) => return self.answer(batch, applied),
            // Nobody waits any more.
            Ok(None) => return,
            Err(error) => error,
        };
        if batch.len() == 1 {
            tracing::error!(key = &*batch[0].work.key, error = &error as &dyn std::error::Error, "a write failed");
            return refuse(batch, error);
        }
        // One of them spoils the batch: only that one shall fail.
        for one in batch {
            let one = vec![one];
            match self.apply(&one[..]).await {
                Ok(Some(applied)) => self.answer(one, applied),
                Ok(None) => {}
                Err(error) => refuse(one, error),
            }
        }
    }

    fn answer(&self, batch: Vec<Pending>, applied: Applied) {
        self.feed.advance(applied.events);
        for (pending, outcome) in batch.into_iter().zip(applied.outcomes) {
            // Whoever has given up needs no answer.
            let _ = pending.answer.send(judge(&pending.work, outcome));
        }
    }

    async fn commit_transaction(&mut self, pending: Pending<Transaction>) {
        if pending.is_over(Instant::now()) {
            return;
        }
        let outcome = match self.apply(&pending).await {
            Ok(None) => return,
            Ok(Some(Transacted { outcome, events })) => {
                self.feed.advance(events);
                outcome
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a transaction failed");
                Err(backend(error))
            }
        };
        let _ = pending.answer.send(outcome);
    }

    /// Commits the work, over as many connections as it takes; `None` if all who waited gave up before it was known.
    async fn apply<W: Work + ?Sized>(&mut self, work: &W) -> Result<Option<W::Applied>, sqlx::Error> {
        self.batch += 1;
        let mut backoff = Backoff::new();
        loop {
            let error = match in_time(work.try_apply(self)).await {
                Ok(applied) => return Ok(Some(applied)),
                Err(error) => error,
            };
            match error.as_database_error().and_then(|error| error.code()).as_deref() {
                Some(CHECK_VIOLATION) => {
                    tracing::warn!("the log's last partition is full");
                    self.make_room(work.writes()).await;
                }
                Some(COMMITTED_BEFORE) => match in_time(work.recall(self)).await {
                    Ok(applied) => return Ok(Some(applied)),
                    Err(error) => self.hang_up(&error),
                },
                // The commit may have happened. The same number is tried again, so it happens once.
                _ if is_transient(&error) => self.hang_up(&error),
                _ => return Err(error),
            }
            if work.is_over(Instant::now()) {
                return Ok(None);
            }
            backoff.wait().await;
        }
    }

    fn hang_up(&mut self, error: &sqlx::Error) {
        tracing::warn!(error = error as &dyn std::error::Error, batch = self.batch, "the writer lost its connection");
        self.connection = None;
    }

    async fn connected(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = PgConnection::connect_with(&self.server).await?;
                sqlx::query(sql::SESSION).execute(&mut connection).await?;
                self.feed.verify(&mut connection).await?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// The changes of the batch that this writer committed without learning of it.
    async fn last_batch(&mut self) -> Result<Vec<(Event, i64)>, sqlx::Error> {
        let (id, number) = (self.id.clone(), self.batch);
        let connection = self.connected().await?;
        let rows = sqlx::query(sql::LAST_BATCH).bind(id).bind(number).fetch_all(connection).await?;
        Ok(rows.iter().filter_map(|row| Some((event(row, 0)?, row.get(6)))).collect())
    }

    async fn make_room(&mut self, writes: usize) {
        let size = self.partition_revisions;
        let added = async { retention::make_room(self.connected().await?, size, writes.max(BATCH_WRITES_MAX)).await };
        if let Err(error) = added.await {
            self.hang_up(&error);
        }
    }
}

/// What is committed in one go.
trait Work {
    type Applied;
    fn writes(&self) -> usize;
    /// Whether nobody waits for it any more.
    fn is_over(&self, now: Instant) -> bool;
    async fn try_apply(&self, writer: &mut Writer) -> Result<Self::Applied, sqlx::Error>;
    /// What became of it, if it was committed and the answer was lost.
    async fn recall(&self, writer: &mut Writer) -> Result<Self::Applied, sqlx::Error>;
}

impl Work for [Pending] {
    type Applied = Applied;

    fn writes(&self) -> usize {
        self.len()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.iter().all(|pending| pending.is_over(now))
    }

    async fn try_apply(&self, writer: &mut Writer) -> Result<Applied, sqlx::Error> {
        let (id, number) = (writer.id.clone(), writer.batch);
        let connection = writer.connected().await?;
        let row = if let [Pending { work: write, .. }] = self {
            let one = sqlx::query(sql::PUT_ONE).bind(id).bind(number).bind(&*write.key);
            one.bind(expected(write)).bind(value(write)).fetch_one(connection).await?
        } else {
            let writes = || self.iter().map(|pending| &pending.work);
            let keys: Vec<&str> = writes().map(|write| &*write.key).collect();
            let values: Vec<Option<&[u8]>> = writes().map(value).collect();
            let all = sqlx::query(sql::APPLY_BATCH).bind(id).bind(number).bind(keys);
            all.bind(writes().map(expected).collect::<Vec<i64>>()).bind(values).fetch_one(connection).await?
        };
        Ok(Applied::from_row(&row, self))
    }

    async fn recall(&self, writer: &mut Writer) -> Result<Applied, sqlx::Error> {
        let events = writer.last_batch().await?;
        let keys: Vec<&str> = self.iter().map(|pending| &*pending.work.key).collect();
        let live = sqlx::query(sql::LIVE_REVISIONS).bind(keys).fetch_all(writer.connected().await?).await?;
        // Those that are not in the log were refused, for what the keys are now at the latest.
        let mut outcomes: HashMap<&str, i64> = live.iter().map(|row| (row.get(0), -row.get::<i64, _>(1))).collect();
        outcomes.extend(events.iter().map(|(event, _)| (&*event.key, event.revision)));
        let outcome = |pending: &Pending| outcomes.get(&*pending.work.key).copied().unwrap_or(0);
        Ok(Applied { outcomes: self.iter().map(outcome).collect(), events })
    }
}

/// What became of a transaction.
struct Transacted {
    outcome: Result<Revision, Error>,
    events: Vec<(Event, i64)>,
}

impl Work for Pending<Transaction> {
    type Applied = Transacted;

    fn writes(&self) -> usize {
        self.work.writes.len()
    }

    fn is_over(&self, now: Instant) -> bool {
        Pending::is_over(self, now)
    }

    async fn try_apply(&self, writer: &mut Writer) -> Result<Transacted, sqlx::Error> {
        let Transaction { guards, writes } = &self.work;
        let (id, number) = (writer.id.clone(), writer.batch);
        let connection = writer.connected().await?;
        let row = sqlx::query(sql::APPLY_TRANSACTION)
            .bind(id)
            .bind(number)
            .bind(guards.iter().map(|guard| &*guard.start).collect::<Vec<&str>>())
            .bind(guards.iter().map(|guard| &*guard.end).collect::<Vec<&str>>())
            .bind(guards.iter().map(|guard| guard.since).collect::<Vec<i64>>())
            .bind(writes.iter().map(|write| &*write.key).collect::<Vec<&str>>())
            .bind(writes.iter().map(expected).collect::<Vec<i64>>())
            .bind(writes.iter().map(value).collect::<Vec<Option<&[u8]>>>())
            .fetch_one(connection)
            .await?;
        let (outcome, refused): (i64, i64) = (row.get(0), row.get(1));
        if refused > 0 {
            let write = usize::try_from(refused - 1).ok().and_then(|n| writes.get(n));
            let refusal = write.and_then(|write| write.check(-outcome).err());
            return Ok(Transacted { outcome: Err(refusal.unwrap_or(Error::Conflict { current: -outcome })), events: vec![] });
        }
        if outcome < 0 {
            return Ok(Transacted { outcome: Err(Error::Conflict { current: -outcome }), events: vec![] });
        }
        let (previous, created, versions): (Vec<i64>, Vec<i64>, Vec<i64>) = (row.get(2), row.get(3), row.get(4));
        let written_us: i64 = row.get(5);
        let first = outcome + 1 - writes.len() as Revision;
        let event = |n: usize, write: &Write| Event {
            revision: first + n as Revision,
            key: write.key.clone(),
            value: put_value(write),
            create_revision: created[n],
            previous_revision: previous[n],
            version: versions[n],
        };
        let events = writes.iter().enumerate().map(|(n, write)| (event(n, write), written_us)).collect();
        Ok(Transacted { outcome: Ok(outcome), events })
    }

    async fn recall(&self, writer: &mut Writer) -> Result<Transacted, sqlx::Error> {
        let events = writer.last_batch().await?;
        let last = events.last().map(|(event, _)| event.revision).ok_or(sqlx::Error::RowNotFound)?;
        Ok(Transacted { outcome: Ok(last), events })
    }
}

fn put_value(write: &Write) -> Option<bytes::Bytes> {
    match &write.change {
        Change::Put(value) => Some(value.clone()),
        Change::Delete => None,
    }
}

impl Applied {
    fn from_row(row: &PgRow, batch: &[Pending]) -> Applied {
        let outcomes: Vec<i64> = row.get(0);
        let (previous, created, versions): (Vec<i64>, Vec<i64>, Vec<i64>) = (row.get(1), row.get(2), row.get(3));
        let written_us: i64 = row.get(4);
        let committed = batch.iter().zip(&outcomes).enumerate().filter(|(_, (_, outcome))| **outcome > 0);
        let events = committed.map(|(n, (pending, revision))| {
            let value = put_value(&pending.work);
            let event = Event {
                revision: *revision,
                key: pending.work.key.clone(),
                value,
                create_revision: created[n],
                previous_revision: previous[n],
                version: versions[n],
            };
            (event, written_us)
        });
        let events = events.collect();
        Applied { outcomes, events }
    }
}

fn expected(write: &Write) -> i64 {
    match write.expect {
        Expect::Any => -1,
        Expect::Absent => 0,
        Expect::Revision(revision) => revision,
    }
}

fn value(write: &Write) -> Option<&[u8]> {
    match &write.change {
        Change::Put(value) => Some(value),
        Change::Delete => None,
    }
}

fn judge(write: &Write, outcome: i64) -> Result<Revision, Error> {
    if outcome > 0 {
        return Ok(outcome);
    }
    let current = -outcome;
    // A refusal that is recalled is judged by what the key is now, which may fit again: it was refused all the same.
    Err(write.check(current).err().unwrap_or(match write.expect {
        Expect::Absent => Error::Exists,
        _ => Error::Conflict { current },
    }))
}

fn refuse(batch: Vec<Pending>, error: sqlx::Error) {
    let error: Arc<dyn std::error::Error + Send + Sync> = match backend(error) {
        Error::Backend(source) => source,
        other => Arc::new(other),
    };
    for pending in batch {
        let _ = pending.answer.send(Err(Error::Backend(error.clone())));
    }
}

/// The next batch: the oldest writes, at most one a key so that each is judged by what the one before left behind. It is
/// empty if a transaction is next.
fn take_batch(waiting: &mut VecDeque<Queued>, now: Instant) -> Vec<Pending> {
    let (mut batch, mut later) = (Vec::new(), VecDeque::new());
    let mut keys: HashSet<Arc<str>> = HashSet::new();
    let mut bytes = 0;
    while let Some(queued) = waiting.pop_front() {
        let pending = match queued {
            Queued::One(pending) => pending,
            transaction @ Queued::Transaction(_) => {
                later.push_back(transaction);
                break;
            }
        };
        if pending.is_over(now) {
            continue;
        }
        let size = value(&pending.work).map_or(0, <[u8]>::len);
        let full = batch.len() == BATCH_WRITES_MAX || (!batch.is_empty() && bytes + size > BATCH_BYTES_MAX);
        if full {
            later.push_back(Queued::One(pending));
            break;
        }
        if keys.insert(pending.work.key.clone()) {
            bytes += size;
            batch.push(pending);
        } else {
            later.push_back(Queued::One(pending));
        }
    }
    // What was put off goes before what was not looked at.
    later.append(waiting);
    *waiting = later;
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(key: &str, bytes: usize) -> (Queued, oneshot::Receiver<Result<Revision, Error>>) {
        let write = Write { key: key.into(), expect: Expect::Any, change: Change::Put(vec![0; bytes].into()) };
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + std::time::Duration::from_secs(3600);
        (Queued::One(Pending { work: write, answer, deadline }), answered)
    }

    fn batches(writes: &[(&str, usize)]) -> Vec<Vec<String>> {
        let (mut waiting, _answers): (VecDeque<_>, Vec<_>) = writes.iter().map(|(key, bytes)| pending(key, *bytes)).unzip();
        let mut batches = vec![];
        while !waiting.is_empty() {
            let batch = take_batch(&mut waiting, Instant::now());
            assert!(!batch.is_empty());
            batches.push(batch.iter().map(|pending| pending.work.key.to_string()).collect());
        }
        batches
    }

    #[tokio::test]
    async fn a_key_is_in_a_batch_once_and_keeps_its_order() {
        assert_eq!(batches(&[("a", 1), ("b", 1), ("a", 1), ("c", 1), ("a", 1)]), [vec!["a", "b", "c"], vec!["a"], vec!["a"]]);
    }

    #[tokio::test]
    async fn a_batch_has_a_limit_of_writes_and_of_bytes() {
        let keys: Vec<String> = (0..1_100).map(|n| n.to_string()).collect();
        let small: Vec<(&str, usize)> = keys.iter().map(|key| (key.as_str(), 1)).collect();
        let sizes: Vec<usize> = batches(&small).iter().map(Vec::len).collect();
        assert_eq!(sizes, [512, 512, 76]);
        let large: Vec<(&str, usize)> = keys[..5].iter().map(|key| (key.as_str(), 3 << 20)).collect();
        let sizes: Vec<usize> = batches(&large).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_caller_that_gave_up_is_left_out() {
        let (gone, answer) = pending("a", 1);
        let (stays, _answer) = pending("b", 1);
        drop(answer);
        let mut waiting = VecDeque::from([gone, stays]);
        let batch = take_batch(&mut waiting, Instant::now());
        assert_eq!(batch.iter().map(|pending| &*pending.work.key).collect::<Vec<_>>(), ["b"]);
    }

    #[tokio::test]
    async fn a_refusal_that_is_recalled_stays_one() {
        let write = |expect| Write { key: "a".into(), expect, change: Change::Put("x".into()) };
        assert!(matches!(judge(&write(Expect::Revision(7)), -7), Err(Error::Conflict { current: 7 })));
        assert!(matches!(judge(&write(Expect::Absent), 0), Err(Error::Exists)));
        assert!(matches!(judge(&write(Expect::Revision(7)), 0), Err(Error::NotFound)));
        assert!(matches!(judge(&write(Expect::Revision(7)), 9), Ok(9)));
    }
}
