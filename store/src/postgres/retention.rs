//! Two horizons: the API forgets after minutes, which only moves a number; the log in SQL is kept for days, and then
//! dropped by whole partitions.

use super::writer::BATCH_WRITES_MAX;
use super::{Options, in_time, sql};
use crate::Revision;
use sqlx::{PgExecutor, PgPool, Row};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A writer that has committed nothing for so long is gone.
const WRITER_SILENCE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// For ever; any number of replicas may do it at once.
pub(super) async fn run(pool: PgPool, options: Options) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(options.retention_interval).await;
        if let Err(error) = once(&pool, &options, &mut seen).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "history could not be tended");
        }
    }
}

async fn once(pool: &PgPool, options: &Options, seen: &mut Seen) -> Result<(), sqlx::Error> {
    add_partitions(pool, options.partition_revisions).await?;
    let row = in_time(sqlx::query(sql::REVISION).fetch_one(pool)).await?;
    if let Some(revision) = seen.note(Instant::now(), row.get(0), options.horizon) {
        in_time(sqlx::query(sql::COMPACT).bind(revision).execute(pool)).await?;
    }
    // It copies what is still alive, which may take longer than a statement should.
    while sqlx::query(sql::FORGET_PARTITION).bind(options.history.as_secs_f64()).fetch_one(pool).await?.get(0) {
        tracing::info!("the oldest partition of the log was dropped");
    }
    in_time(sqlx::query(sql::FORGET_WRITERS).bind(WRITER_SILENCE_MAX.as_secs_f64()).execute(pool)).await?;
    Ok(())
}

/// Sees to it that the log has room for what is written next.
pub(super) async fn add_partitions(connection: impl PgExecutor<'_>, size: i64) -> Result<(), sqlx::Error> {
    make_room(connection, size, BATCH_WRITES_MAX).await
}

/// The same for so many writes in one go.
pub(super) async fn make_room(connection: impl PgExecutor<'_>, size: i64, writes: usize) -> Result<(), sqlx::Error> {
    let room = size.max(writes as i64);
    in_time(sqlx::query(sql::ADD_PARTITIONS).bind(size).bind(room).execute(connection)).await.map(|_| ())
}

/// Which revision was the newest, when.
#[derive(Default)]
struct Seen(VecDeque<(Instant, Revision)>);

impl Seen {
    /// Notes the newest revision, and says what may be forgotten: what was written longer ago than the horizon.
    fn note(&mut self, now: Instant, revision: Revision, horizon: Duration) -> Option<Revision> {
        self.0.push_back((now, revision));
        let mut old = None;
        while self.0.front().is_some_and(|(since, _)| now.duration_since(*since) >= horizon) {
            old = self.0.pop_front().map(|(_, revision)| revision);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_was_the_newest_a_horizon_ago() {
        let (start, horizon) = (Instant::now(), Duration::from_secs(300));
        let mut seen = Seen::default();
        let mut at = |seconds, revision| seen.note(start + Duration::from_secs(seconds), revision, horizon);
        assert_eq!(at(0, 10), None);
        assert_eq!(at(200, 20), None);
        assert_eq!(at(299, 25), None);
        assert_eq!(at(300, 30), Some(10));
        assert_eq!(at(301, 31), None);
        assert_eq!(at(600, 40), Some(30));
    }
}
