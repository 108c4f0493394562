//! The audit trail: rows beside the store, written in batches and forgotten by age.
//!
//! It has connections of its own, so that it never takes one from the store, and gives rows up rather than make anybody
//! wait.

use super::{Backoff, backend, in_time, is_transient};
use crate::Error;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool, Row as _};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Rows that may wait to be written; what comes then is counted as dropped.
const QUEUE_ROWS_MAX: usize = 10_000;
const BATCH_ROWS_MAX: usize = 500;
/// How long a row waits for others, so that a quiet server doesn't commit each alone.
const GATHER: Duration = Duration::from_millis(100);
/// How long the same batch is tried while Postgres cannot be reached; rows that come meanwhile wait in the queue.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
/// Rows forgotten in one statement, so that none takes long.
const FORGET_ROWS_MAX: i64 = 10_000;
/// The largest answer of `query`.
pub const FOUND_MAX: i64 = 100_000;

const INSERT: &str = "INSERT INTO audit (received_at, audit_id, stage, username, impersonated, verb, api_group, resource,
        subresource, namespace, name, code, event)
    SELECT to_timestamp(a / 1000000.0), b, c, d, e, f, g, h, i, j, k, l, m::json
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::int[], $13::text[]) AS t (a, b, c, d, e, f, g, h, i, j, k, l, m)";

/// $1: seconds, $2: how many at most.
const FORGET: &str = "DELETE FROM audit WHERE id IN
    (SELECT id FROM audit WHERE received_at < now() - make_interval(secs => $1) ORDER BY received_at LIMIT $2)";

/// Each condition holds for everything if its parameter is NULL. The newest are found, and told in the order they came.
const FIND: &str = "SELECT event::text FROM (
        SELECT id, received_at, event FROM audit
        WHERE ($1::text IS NULL OR username = $1 OR impersonated = $1) AND ($2::text IS NULL OR verb = $2)
            AND ($3::text IS NULL OR resource = $3) AND ($4::text IS NULL OR namespace = $4) AND ($5::text IS NULL OR name = $5)
            AND ($6::float8 IS NULL OR received_at >= now() - make_interval(secs => $6)) AND ($7::text IS NULL OR audit_id = $7)
        ORDER BY received_at DESC, id DESC LIMIT $8
    ) newest ORDER BY received_at, id";

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Microseconds since 1970.
    pub received_us: i64,
    pub audit_id: String,
    pub stage: String,
    pub username: String,
    pub impersonated: String,
    pub verb: String,
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub code: i32,
    /// The event itself, as JSON.
    pub event: String,
}

/// What to look for; `None` stands for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who asked, or as whom.
    pub user: Option<String>,
    pub verb: Option<String>,
    pub resource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub since: Option<Duration>,
    pub audit_id: Option<String>,
    /// The newest so many.
    pub limit: Option<i64>,
}

/// Writes what it is offered. See the module.
pub struct Trail {
    queue: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
    tasks: parking_lot::Mutex<tokio::task::JoinSet<()>>,
}

enum Item {
    Row(Box<Row>),
    Flush(oneshot::Sender<()>),
}

impl Trail {
    /// To a database that a store was opened on already, which has made the table. Rows older than `retention` are
    /// forgotten.
    pub async fn connect(url: &str, retention: Duration) -> Result<Arc<Trail>, Error> {
        let pool = connect(url).await?;
        let (queue, items) = mpsc::channel(QUEUE_ROWS_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(write(pool.clone(), items, Arc::clone(&dropped)));
        tasks.spawn(forget(pool, retention));
        Ok(Arc::new(Trail { queue, dropped, tasks: tasks.into() }))
    }

    /// Takes the row if there is room for it.
    pub fn offer(&self, row: Row) {
        if self.queue.try_send(Item::Row(Box::new(row))).is_err()
            && self.dropped.fetch_add(1, Ordering::Relaxed).is_power_of_two()
        {
            tracing::warn!("audit events come faster than Postgres takes them: some are dropped");
        }
    }

    /// Rows that there was no room for, or that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was offered before is written or given up.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).await.is_ok() {
            // Closed meanwhile: then there is nothing to wait for.
            wait.await.ok();
        }
    }

    /// Writes what still waits, and ends.
    pub async fn close(&self) {
        self.flush().await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }
}

async fn connect(url: &str) -> Result<PgPool, Error> {
    let server = PgConnectOptions::from_str(url).map_err(backend)?.disable_statement_logging();
    let pool = PgPoolOptions::new().max_connections(2).min_connections(0).test_before_acquire(false);
    pool.connect_with(server).await.map_err(backend)
}

/// The events that match, oldest first, each as JSON.
pub async fn query(url: &str, filter: &Filter) -> Result<Vec<String>, Error> {
    let pool = connect(url).await?;
    let statement = sqlx::query(FIND)
        .bind(&filter.user)
        .bind(&filter.verb)
        .bind(&filter.resource)
        .bind(&filter.namespace)
        .bind(&filter.name)
        .bind(filter.since.map(|since| since.as_secs_f64()))
        .bind(&filter.audit_id)
        .bind(filter.limit.unwrap_or(FOUND_MAX).clamp(0, FOUND_MAX));
    let rows = statement.fetch_all(&pool).await.map_err(backend)?;
    pool.close().await;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn write(pool: PgPool, mut items: mpsc::Receiver<Item>, dropped: Arc<AtomicU64>) {
    let mut waiting = Vec::new();
    while items.recv_many(&mut waiting, BATCH_ROWS_MAX).await > 0 {
        let hurried = waiting.iter().any(|item| matches!(item, Item::Flush(_)));
        if waiting.len() < BATCH_ROWS_MAX && !hurried {
            tokio::time::sleep(GATHER).await;
            while waiting.len() < BATCH_ROWS_MAX
                && let Ok(item) = items.try_recv()
            {
                waiting.push(item);
            }
        }
        let mut rows = Vec::with_capacity(waiting.len());
        let mut flushes = Vec::new();
        for item in waiting.drain(..) {
            match item {
                Item::Row(row) => rows.push(*row),
                Item::Flush(done) => flushes.push(done),
            }
        }
        let lost = insert_patiently(&pool, &rows).await;
        dropped.fetch_add(lost, Ordering::Relaxed);
        for done in flushes {
            // Whoever does not wait any more needs no answer.
            done.send(()).ok();
        }
    }
}

/// How many could not be written.
async fn insert_patiently(pool: &PgPool, rows: &[Row]) -> u64 {
    let deadline = Instant::now() + WRITE_TIMEOUT;
    let mut backoff = Backoff::new();
    loop {
        match in_time(insert(pool, rows)).await {
            Ok(()) => return 0,
            Err(error) if is_transient(&error) && Instant::now() < deadline => backoff.wait().await,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, rows = rows.len(), "audit events could not be written");
                return rows.len() as u64;
            }
        }
    }
}

async fn insert(pool: &PgPool, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    // Postgres' texts cannot hold a NUL, which a path may well.
    let texts = |of: fn(&Row) -> &String| rows.iter().map(|row| of(row).replace('\0', "\u{fffd}")).collect::<Vec<_>>();
    sqlx::query(INSERT)
        .bind(rows.iter().map(|row| row.received_us).collect::<Vec<_>>())
        .bind(texts(|row| &row.audit_id))
        .bind(texts(|row| &row.stage))
        .bind(texts(|row| &row.username))
        .bind(texts(|row| &row.impersonated))
        .bind(texts(|row| &row.verb))
        .bind(texts(|row| &row.api_group))
        .bind(texts(|row| &row.resource))
        .bind(texts(|row| &row.subresource))
        .bind(texts(|row| &row.namespace))
        .bind(texts(|row| &row.name))
        .bind(rows.iter().map(|row| row.code).collect::<Vec<_>>())
        .bind(texts(|row| &row.event))
        .execute(pool)
        .await
        .map(|_| ())
}

async fn forget(pool: PgPool, retention: Duration) {
    loop {
        loop {
            let forgotten = sqlx::query(FORGET).bind(retention.as_secs_f64()).bind(FORGET_ROWS_MAX).execute(&pool);
            match in_time(forgotten).await {
                Ok(done) if done.rows_affected() as i64 == FORGET_ROWS_MAX => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old audit events could not be forgotten");
                    break;
                }
            }
        }
        tokio::time::sleep(RETENTION_INTERVAL).await;
    }
}
