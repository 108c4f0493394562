//! What the store costs, as ratios of one run on one machine: `cargo bench -p slipway-store`.
//!
//! Group commit against a plain loop of one write a transaction, on the same Postgres, in turns. Then the watch cache:
//! what a change costs with many watchers of its prefix, and with many of other prefixes. Ends with an error if the
//! group commit is not `RATIO_MIN` times as fast with `WRITERS[1]` writers.

use bytes::Bytes;
use futures::future::join_all;
use slipway_store::cache::{Cache, Ingest, Item, Limits};
use slipway_store::memory::Memory;
use slipway_store::postgres::private::Private;
use slipway_store::postgres::{Options, Postgres};
use slipway_store::{Change, Expect, Revision, Store, Write};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: [usize; 2] = [32, 256];
const RATIO_MIN: f64 = 4.0;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 1_000;
/// Connections of the plain loop: more only wait for each other's lock.
const PLAIN_CONNECTIONS: u32 = 32;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("slipway-bench-").tempdir()?;
    let cluster = Private::start(dir.path()).await?;
    let outcome = writes(&cluster).await;
    cluster.stop().await?;
    let ratio = outcome?;
    fan_out().await?;
    anyhow::ensure!(ratio >= RATIO_MIN, "the group commit is {ratio:.1} times as fast, {RATIO_MIN} are required");
    Ok(())
}

/// Like a pod in size and in how little it compresses.
fn value(n: u64) -> Bytes {
    let head = format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"web-{n}"}},"spec":{{"nodeName":""#);
    let mut value = head.into_bytes();
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while value.len() < VALUE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend(format!("{state:016x}").bytes());
    }
    value.into()
}

fn key(n: usize) -> String {
    format!("/core/pods/default/web-{n}")
}

async fn writes(cluster: &Private) -> anyhow::Result<f64> {
    let store = Postgres::connect(&cluster.url(), Options::default()).await?;
    let server = sqlx::postgres::PgConnectOptions::from_str(&cluster.url())?;
    let pool = PgPoolOptions::new()
        .max_connections(PLAIN_CONNECTIONS)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(60))
        .connect_with(server)
        .await?;
    let created = (0..KEYS).map(|n| {
        let (key, change) = (key(n).into(), Change::Put(value(n as u64)));
        store.write(Write { key, expect: Expect::Absent, change })
    });
    for created in join_all(created).await {
        created?;
    }
    sqlx::query("VACUUM ANALYZE").execute(&pool).await?;

    println!("acknowledged compare-and-swap writes of {VALUE_BYTES} bytes, median of {ROUNDS} rounds of {ROUND:?} in turns");
    println!("{:>8} {:>16} {:>10} {:>16} {:>10} {:>7}", "writers", "one a transaction", "ms", "group commit", "ms", "ratio");
    let mut ratio = 0.0;
    for writers in WRITERS {
        let (mut plain, mut group) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            plain.push(rate(writers, |n| plain_writer(pool.clone(), n, writers)).await?);
            group.push(rate(writers, |n| group_writer(store.clone(), n, writers)).await?);
        }
        let (plain, group) = (median(plain), median(group));
        ratio = group / plain;
        let latency = |rate: f64| writers as f64 / rate * 1000.0;
        println!("{writers:>8} {plain:>14.0}/s {:>10.2} {group:>14.0}/s {:>10.2} {ratio:>6.1}x", latency(plain), latency(group));
    }
    Ok(ratio)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Writes a second of so many writers at once.
async fn rate<F>(writers: usize, writer: impl Fn(usize) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers).map(|n| tokio::spawn(writer(n))).collect();
    let mut written = 0;
    for task in tasks {
        written += task.await??;
    }
    Ok(written as f64 / start.elapsed().as_secs_f64())
}

/// Every writer has keys of its own, takes them in turn, and expects what it wrote last.
fn own_keys(n: usize, writers: usize) -> Vec<String> {
    (n..KEYS).step_by(writers).take(32).map(key).collect()
}

async fn group_writer(store: Arc<Postgres>, n: usize, writers: usize) -> anyhow::Result<u64> {
    let mut keys = vec![];
    for key in own_keys(n, writers) {
        let found = store.get(&key, None).await?.ok_or_else(|| anyhow::anyhow!("no {key}"))?;
        keys.push((found.key, found.mod_revision));
    }
    let (start, mut written) = (Instant::now(), 0);
    let count = keys.len() as u64;
    while start.elapsed() < ROUND {
        let (key, revision) = &mut keys[(written % count) as usize];
        let change = Change::Put(value(written));
        *revision = store.write(Write { key: key.clone(), expect: Expect::Revision(*revision), change }).await?;
        written += 1;
    }
    Ok(written)
}

async fn plain_writer(pool: PgPool, n: usize, writers: usize) -> anyhow::Result<u64> {
    let id = format!("{:032x}", rand::random::<u128>());
    let mut keys: Vec<(String, Revision)> = vec![];
    for key in own_keys(n, writers) {
        let row = sqlx::query("SELECT mod_rev FROM kv WHERE key = $1").bind(&key).fetch_one(&pool).await?;
        keys.push((key, row.get(0)));
    }
    let (start, mut written) = (Instant::now(), 0u64);
    let count = keys.len() as u64;
    while start.elapsed() < ROUND {
        let (key, revision) = &mut keys[(written % count) as usize];
        let write = sqlx::query("SELECT outcomes[1] FROM put_one($1::uuid, $2, $3, $4, $5)").bind(&id);
        let write = write.bind(written as i64 + 1).bind(&*key).bind(*revision).bind(&*value(written));
        let outcome: i64 = write.fetch_one(&pool).await?.get(0);
        anyhow::ensure!(outcome > 0, "{key} was not at {revision}");
        *revision = outcome;
        written += 1;
    }
    Ok(written)
}

const CHANGES: usize = 500;

async fn fan_out() -> anyhow::Result<()> {
    println!("\nthe watch cache, {CHANGES} changes written one after the other, until every watcher has them");
    println!("{:>10} {:>10} {:>14} {:>16}", "concerned", "others", "us a change", "deliveries/s");
    for (concerned, others) in [(1, 0), (1, 10_000), (100, 0), (1_000, 0), (1_000, 10_000)] {
        let elapsed = fan_out_to(concerned, others).await?;
        let deliveries = (CHANGES * concerned) as f64 / elapsed.as_secs_f64();
        let each = elapsed.as_secs_f64() / CHANGES as f64 * 1e6;
        println!("{concerned:>10} {others:>10} {each:>14.1} {deliveries:>16.0}");
    }
    Ok(())
}

async fn fan_out_to(concerned: usize, others: usize) -> anyhow::Result<Duration> {
    let store = Memory::new();
    let ingest: Ingest<()> = Arc::new(|_, _, stored| (Bytes::copy_from_slice(stored), ()));
    let cache = Cache::start(store.clone(), ingest, Limits::default()).await?;
    let mut idle = vec![];
    for n in 0..others {
        idle.push(cache.watch(&format!("/core/pods/other-{n}/"), 0)?);
    }
    let mut watchers = vec![];
    for _ in 0..concerned {
        let mut watcher = cache.watch("/core/pods/", 0)?;
        watchers.push(tokio::spawn(async move {
            let mut seen = 0;
            while seen < CHANGES {
                seen += usize::from(matches!(watcher.next().await, Ok(Item::Change(_))));
            }
        }));
    }
    let start = Instant::now();
    for n in 0..CHANGES {
        let change = Change::Put(value(n as u64));
        store.write(Write { key: key(n).into(), expect: Expect::Any, change }).await?;
    }
    for watcher in watchers {
        watcher.await?;
    }
    Ok(start.elapsed())
}
