//! The store on Postgres: a narrow live table and a partitioned log, one counter that every commit locks, and a writer
//! that commits all waiting writes together. `docs/store.md` tells why it is correct.

use crate::{Batch, Error, Event, Page, Range, Record, Revision, Store, Transaction, Write};
use async_trait::async_trait;
use bytes::Bytes;
use feed::Feed;
use futures::stream::BoxStream;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, PgPool, Row};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub mod audit;
mod feed;
pub mod private;
mod retention;
mod sql;
mod writer;

/// How long a read is tried again while Postgres cannot be reached.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one statement may take before its connection is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Callers that may wait for the newest revision.
const QUESTIONS_MAX: usize = 10_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Connections for reads; the writer and the listener have one each besides.
    pub pool_connections_max: u32,
    /// How far back the API can read and watch.
    pub horizon: Duration,
    /// How long the log is kept in SQL beyond that, for looking back and for audit.
    pub history: Duration,
    /// Revisions in one partition of the log: what is forgotten at once.
    pub partition_revisions: i64,
    /// How often the log is looked at if no notification came.
    pub poll_interval: Duration,
    /// How often history is looked at for what can be forgotten.
    pub retention_interval: Duration,
    /// How long a caller waits for its write; what became of the write is then unknown to it.
    pub write_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            pool_connections_max: 4,
            horizon: Duration::from_secs(300),
            history: Duration::from_secs(3 * 24 * 3600),
            partition_revisions: 1_000_000,
            poll_interval: Duration::from_millis(200),
            retention_interval: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// See the module. Any number of them, in any number of processes, can share a database.
pub struct Postgres {
    pool: PgPool,
    feed: Arc<Feed>,
    writes: mpsc::Sender<writer::Queued>,
    questions: mpsc::Sender<oneshot::Sender<Result<Revision, Error>>>,
    write_timeout: Duration,
    tasks: parking_lot::Mutex<tokio::task::JoinSet<()>>,
}

impl Postgres {
    /// Connects, brings the schema up to date, and starts to follow the log.
    pub async fn connect(url: &str, options: Options) -> Result<Arc<Postgres>, Error> {
        let server = PgConnectOptions::from_str(url).map_err(backend)?.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_connections_max)
            .acquire_timeout(READ_TIMEOUT)
            // A statement that meets a dead connection is tried again, which is cheaper than asking first.
            .test_before_acquire(false)
            .connect_with(server.clone())
            .await
            .map_err(backend)?;
        sqlx::migrate!("../migrations").run(&pool).await.map_err(backend)?;
        retention::add_partitions(&pool, options.partition_revisions).await.map_err(backend)?;

        let writer_id = format!("{:032x}", rand::random::<u128>());
        let feed = Arc::new(Feed::new(feed::Position::read(&pool).await.map_err(backend)?));
        let (writes, pending) = mpsc::channel(writer::QUEUE_WRITES_MAX);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let mut tasks = tokio::task::JoinSet::new();
        let writer = writer::Writer::new(writer_id.clone(), server.clone(), feed.clone(), options.partition_revisions);
        tasks.spawn(writer.run(pending));
        tasks.spawn(feed::listen(server, feed.clone(), writer_id));
        tasks.spawn(feed::tail(pool.clone(), feed.clone(), options.poll_interval));
        tasks.spawn(answer_revisions(pool.clone(), feed.clone(), asked));
        let write_timeout = options.write_timeout;
        tasks.spawn(retention::run(pool.clone(), options));
        Ok(Arc::new(Postgres { pool, feed, writes, questions, write_timeout, tasks: tasks.into() }))
    }

    /// Stops what runs in the background and closes the connections; whoever still waits gets `Closed`.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        self.pool.close().await;
    }
}

impl Postgres {
    async fn queue(&self, queued: impl FnOnce(writer::Answer, Instant) -> writer::Queued) -> Result<Revision, Error> {
        let deadline = Instant::now() + self.write_timeout;
        let (answer, answered) = oneshot::channel();
        match tokio::time::timeout_at(deadline, self.writes.send(queued(answer, deadline))).await {
            Err(_) => return Err(Error::Timeout),
            Ok(Err(_)) => return Err(Error::Closed),
            Ok(Ok(())) => {}
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Err(_) => Err(Error::Timeout),
            Ok(Err(_)) => Err(Error::Closed),
            Ok(Ok(outcome)) => outcome,
        }
    }
}

pub(crate) fn backend(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Backend(Arc::new(error))
}

/// Whether the same statement may succeed on another connection, later.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        // 08 connection, 53 resources, 57P shutting down or starting, 25006 no longer the primary, 40 serialisation,
        // 55P03 a lock was not had in time, 58 the system
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "53", "57P", "25006", "40", "55P03", "58"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the statement took too long")]
struct TookTooLong;

/// What a statement answers, or a transient error if that takes too long.
async fn in_time<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, statement).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, TookTooLong))),
    }
}

struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Backoff(BACKOFF_FIRST)
    }
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }
}

/// Reads again while Postgres is away, for `READ_TIMEOUT`.
async fn read<T, F: Future<Output = Result<T, sqlx::Error>>>(statement: impl Fn() -> F) -> Result<T, Error> {
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut backoff = Backoff::new();
    loop {
        match in_time(statement()).await {
            Ok(rows) => return Ok(rows),
            Err(error) if is_transient(&error) && Instant::now() < deadline => backoff.wait().await,
            Err(sqlx::Error::PoolClosed) => return Err(Error::Closed),
            Err(error) => return Err(backend(error)),
        }
    }
}

/// Asks for the revision once for all who wait. Ends when nobody can ask any more.
async fn answer_revisions(pool: PgPool, feed: Arc<Feed>, mut asked: mpsc::Receiver<oneshot::Sender<Result<Revision, Error>>>) {
    let mut askers = Vec::new();
    while asked.recv_many(&mut askers, QUESTIONS_MAX).await > 0 {
        let answer = read(|| sqlx::query(sql::REVISION).fetch_one(&pool)).await.map(|row| row.get::<i64, _>(0));
        if let Ok(revision) = answer {
            feed.announce(revision);
        }
        for asker in askers.drain(..) {
            let answer = match &answer {
                Ok(revision) => Ok(*revision),
                Err(Error::Backend(source)) => Err(Error::Backend(source.clone())),
                Err(_) => Err(Error::Closed),
            };
            // Whoever does not wait any more needs no answer.
            let _ = asker.send(answer);
        }
    }
}

fn check_readable(row: &PgRow, at: Option<Revision>) -> Result<Revision, Error> {
    let (newest, oldest): (i64, i64) = (row.get(0), row.get(1));
    match at {
        None => Ok(newest),
        Some(at) if at < oldest => Err(Error::Compacted { oldest }),
        Some(at) if at > newest => Err(Error::Future { newest }),
        Some(at) => Ok(at),
    }
}

/// The record in columns 2 to 6, which are NULL if there is none.
fn record(row: &PgRow) -> Option<Record> {
    Some(Record {
        key: row.get::<Option<&str>, _>(2)?.into(),
        value: Bytes::from(row.get::<Vec<u8>, _>(3)),
        create_revision: row.get(4),
        mod_revision: row.get(5),
        version: row.get(6),
    })
}

/// The change in the six columns from `column` on: rev, key, prev_rev, create_rev, version, value.
fn event(row: &PgRow, column: usize) -> Option<Event> {
    Some(Event {
        revision: row.get::<Option<i64>, _>(column)?,
        key: row.get::<&str, _>(column + 1).into(),
        previous_revision: row.get(column + 2),
        create_revision: row.get(column + 3),
        version: row.get(column + 4),
        value: row.get::<Option<Vec<u8>>, _>(column + 5).map(Bytes::from),
    })
}

#[async_trait]
impl Store for Postgres {
    async fn write(&self, write: Write) -> Result<Revision, Error> {
        write.check_size()?;
        self.queue(|answer, deadline| writer::Queued::One(writer::Pending { work: write, answer, deadline })).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Revision, Error> {
        transaction.check_size()?;
        if transaction.writes.is_empty() {
            return self.revision().await;
        }
        self.queue(|answer, deadline| writer::Queued::Transaction(writer::Pending { work: transaction, answer, deadline })).await
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Record>, Error> {
        let row = match at {
            None => read(|| sqlx::query(sql::GET).bind(key).fetch_one(&self.pool)).await?,
            Some(at) => read(|| sqlx::query(sql::GET_AT).bind(key).bind(at).fetch_one(&self.pool)).await?,
        };
        check_readable(&row, at)?;
        Ok(record(&row))
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let Range { start, end, at, limit } = &range;
        // One more than asked for tells whether there are more.
        let ask = (*limit > 0).then_some(*limit as i64 + 1);
        let rows = match at {
            None => read(|| sqlx::query(sql::RANGE).bind(start).bind(end).bind(ask).fetch_all(&self.pool)).await?,
            Some(at) => {
                read(|| sqlx::query(sql::RANGE_AT).bind(start).bind(end).bind(ask).bind(at).fetch_all(&self.pool)).await?
            }
        };
        let revision = rows.first().map_or(Err(Error::Closed), |row| check_readable(row, *at))?;
        let mut records: Vec<Record> = rows.iter().filter_map(record).collect();
        let more = *limit > 0 && records.len() > *limit;
        if more {
            records.truncate(*limit);
        }
        Ok(Page { records, revision, more })
    }

    async fn count(&self, range: Range) -> Result<usize, Error> {
        let Range { start, end, at, .. } = &range;
        let row = match at {
            None => read(|| sqlx::query(sql::COUNT).bind(start).bind(end).fetch_one(&self.pool)).await?,
            Some(at) => read(|| sqlx::query(sql::COUNT_AT).bind(start).bind(end).bind(at).fetch_one(&self.pool)).await?,
        };
        check_readable(&row, *at)?;
        Ok(row.get::<i64, _>(2) as usize)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let (asker, answer) = oneshot::channel();
        self.questions.send(asker).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        let row = read(|| sqlx::query(sql::REVISION).fetch_one(&self.pool)).await?;
        check_readable(&row, Some(after))?;
        Ok(feed::watch(self.feed.clone(), self.pool.clone(), after))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let row = read(|| async {
            sqlx::query(sql::COMPACT).bind(revision).execute(&self.pool).await?;
            sqlx::query(sql::REVISION).fetch_one(&self.pool).await
        });
        check_readable(&row.await?, Some(revision)).map(|_| ())
    }

    async fn oldest(&self) -> Result<Revision, Error> {
        Ok(read(|| sqlx::query(sql::REVISION).fetch_one(&self.pool)).await?.get(1))
    }

    async fn size(&self) -> Result<u64, Error> {
        Ok(read(|| sqlx::query(sql::SIZE).fetch_one(&self.pool)).await?.get::<i64, _>(0) as u64)
    }
}
