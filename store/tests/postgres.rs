//! The store on a real Postgres: a cluster of its own for each test, on a Unix socket in a temporary directory.

// Helpers of tests are tests too, which clippy does not see.
#![allow(clippy::unwrap_used)]

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use slipway_store::contract::{self, put, replay, take_events};
use slipway_store::postgres::private::{self, Private};
use slipway_store::postgres::{Options, Postgres};
use slipway_store::{Error, Expect, Range, Revision, Store};
use sqlx::{Connection, PgConnection, Row};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs the test on a cluster of its own, and ends that whatever comes.
async fn on_a_cluster<F: Future<Output = ()>>(test: impl FnOnce(Private) -> F) {
    let dir = tempfile::Builder::new().prefix("slipway-store-").tempdir().unwrap();
    let cluster = match Private::start(dir.path()).await {
        Err(private::Error::NotInstalled) => {
            eprintln!("SKIPPED, NOTHING WAS TESTED: {}", private::Error::NotInstalled);
            return;
        }
        started => started.unwrap(),
    };
    let outcome = AssertUnwindSafe(test(cluster.clone())).catch_unwind().await;
    cluster.stop().await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn sql(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
}

async fn number(url: &str, statement: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(statement).fetch_one(&mut connection).await.unwrap().get(0)
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn everything(at: Option<Revision>) -> Range {
    Range { start: "/".into(), end: "0".into(), at, limit: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    on_a_cluster(|cluster| async move {
        contract::all(&|| {
            let url = cluster.url();
            Box::pin(async move {
                let name = format!("contract_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"));
                sqlx::query(create).execute(&mut connection).await.unwrap();
                let url = format!("{url}&options=-c%20search_path%3D{name}");
                // Small partitions, so that every test goes over several.
                let options = || Options { partition_revisions: 64, ..Options::default() };
                let one: Arc<dyn Store> = Postgres::connect(&url, options()).await.unwrap();
                let other: Arc<dyn Store> = Postgres::connect(&url, options()).await.unwrap();
                (one, other)
            })
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_postgres_loses_nothing_acknowledged() {
    const WRITERS: usize = 24;
    const CRASHES: u64 = 3;
    on_a_cluster(|cluster| async move {
        let one = Postgres::connect(&cluster.url(), Options::default()).await.unwrap();
        let other = Postgres::connect(&cluster.url(), Options::default()).await.unwrap();
        let mut watch = other.watch(0).await.unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = if writer % 2 == 0 { one.clone() } else { other.clone() };
                let (written, stop) = (written.clone(), stop.clone());
                tokio::spawn(async move {
                    let (mut last, mut n, mut unknown) = (0, 0u64, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let expect = if last == 0 { Expect::Absent } else { Expect::Revision(last) };
                        // Each write builds on the one before: applied twice, the next would be refused.
                        match store.write(put(&format!("/w/{writer}"), expect, format!("{n}"))).await {
                            Ok(revision) => (last, n) = (revision, n + 1),
                            Err(Error::Timeout) => {
                                unknown += 1;
                                let record = store.get(&format!("/w/{writer}"), None).await.unwrap();
                                last = record.as_ref().map_or(0, |record| record.mod_revision);
                                n = record.map_or(0, |record| record.version as u64);
                            }
                            Err(error) => panic!("writer {writer} at {n}: {error}"),
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    (writer, last, n, unknown)
                })
            })
            .collect();
        let until = async |more: u64| {
            let goal = written.load(Ordering::Relaxed) + more;
            while written.load(Ordering::Relaxed) < goal {
                assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer failed");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        for _ in 0..CRASHES {
            until(500).await;
            kill(cluster.pid().unwrap());
            Private::start(cluster.dir()).await.unwrap();
        }
        until(500).await;
        stop.store(true, Ordering::Relaxed);
        let mut last = BTreeMap::new();
        for writer in writers {
            let (writer, revision, n, unknown) = writer.await.unwrap();
            println!("writer {writer}: {n} writes, {unknown} of unknown outcome");
            last.insert(Arc::<str>::from(format!("/w/{writer}")), (revision, n as i64));
        }
        let newest = one.revision().await.unwrap();
        let events = take_events(&mut watch, 0, newest as usize).await;
        let live = replay(&events);
        let found: BTreeMap<_, _> =
            live.iter().map(|(key, record)| (key.clone(), (record.mod_revision, record.version))).collect();
        assert_eq!(found, last, "what was acknowledged last is there, applied once");
        assert_eq!(newest, last.values().map(|(_, n)| n).sum::<i64>(), "and nothing else");
        assert_eq!(one.range(everything(None)).await.unwrap().records, live.into_values().collect::<Vec<_>>());
    })
    .await;
}

/// Stands between the store and Postgres and, `losses` times, swallows the answer to a statement that writes a key
/// under `/lost/`, and hangs up. Postgres answers after the commit.
async fn swallow_answers(cluster: &Private, dir: &std::path::Path, losses: Arc<AtomicU32>) -> String {
    let listener = tokio::net::UnixListener::bind(dir.join(".s.PGSQL.5432")).unwrap();
    let server = cluster.dir().join("socket/.s.PGSQL.5432");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::UnixStream::connect(&server).await.unwrap();
            tokio::spawn(relay(client, server, losses.clone()));
        }
    });
    cluster.url().replace(&*cluster.dir().join("socket").to_string_lossy(), &dir.to_string_lossy())
}

async fn relay(mut client: tokio::net::UnixStream, mut server: tokio::net::UnixStream, losses: Arc<AtomicU32>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(bytes @ 1..) = read else { return };
                let writes = asked[..bytes].windows(6).any(|window| window == b"/lost/");
                losing |= writes && losses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
                server.write_all(&asked[..bytes]).await.unwrap();
            }
            read = server.read(&mut answered) => {
                let Ok(bytes @ 1..) = read else { return };
                if losing {
                    return;
                }
                client.write_all(&answered[..bytes]).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_outcome_that_was_not_heard_is_found_out() {
    on_a_cluster(|cluster| async move {
        let dir = tempfile::Builder::new().prefix("slipway-store-").tempdir().unwrap();
        let losses = Arc::new(AtomicU32::new(0));
        let url = swallow_answers(&cluster, dir.path(), losses.clone()).await;
        let store = Postgres::connect(&url, Options::default()).await.unwrap();
        let mut watch = store.watch(0).await.unwrap();
        // The statements are prepared, so that the next answer to a write is the outcome.
        store.write(put("/taken", Expect::Absent, "")).await.unwrap();
        join_all((0..20).map(|n| store.write(put(&format!("/warm/{n}"), Expect::Absent, "")))).await;

        losses.store(2, Ordering::Relaxed);
        let one = store.write(put("/lost/one", Expect::Absent, "")).await.unwrap();
        assert_eq!(one, 22);
        losses.store(3, Ordering::Relaxed);
        let writes = (0..40).map(|n| match n % 4 {
            // Refused, whether heard at once or not.
            3 => put("/taken", Expect::Revision(1_000_000 + n), ""),
            _ => put(&format!("/lost/{n}"), Expect::Absent, n.to_string()),
        });
        let outcomes = join_all(writes.map(|write| store.write(write))).await;
        assert_eq!(losses.load(Ordering::Relaxed), 0, "no answer was lost");
        let mut revisions: Vec<Revision> = vec![];
        for (n, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Err(Error::Conflict { current: 1 }) if n % 4 == 3 => {}
                Ok(revision) if n % 4 != 3 => revisions.push(revision),
                other => panic!("{n}: {other:?}"),
            }
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (23..53).collect::<Vec<_>>(), "each was applied once");
        let events = take_events(&mut watch, 0, 52).await;
        assert_eq!(store.range(everything(None)).await.unwrap().records, replay(&events).into_values().collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_partitions_are_dropped_and_what_lives_stays() {
    on_a_cluster(|cluster| async move {
        let options = Options {
            partition_revisions: 50,
            horizon: Duration::from_millis(200),
            history: Duration::ZERO,
            retention_interval: Duration::from_millis(50),
            ..Options::default()
        };
        let store = Postgres::connect(&cluster.url(), options).await.unwrap();
        let mut watch = store.watch(0).await.unwrap();
        store.write(put("/a/first", Expect::Any, "of the first partition")).await.unwrap();
        for n in 0..400 {
            let write = if n % 10 == 9 {
                contract::delete(&format!("/a/{}", (n - 1) % 37), Expect::Any)
            } else {
                put(&format!("/a/{}", n % 37), Expect::Any, format!("{n}"))
            };
            store.write(write).await.unwrap();
        }
        let events = take_events(&mut watch, 0, 401).await;
        let forgotten = async || number(&cluster.url(), "SELECT to_rev FROM log_partition WHERE is_base").await;
        while forgotten().await < 350 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(store.oldest().await.unwrap() >= 350);
        assert!(matches!(store.watch(300).await, Err(Error::Compacted { .. })));
        let live: Vec<_> = replay(&events).into_values().collect();
        assert_eq!(store.range(everything(None)).await.unwrap().records, live);
        assert_eq!(store.range(everything(Some(401))).await.unwrap().records, live);
        let rows = number(&cluster.url(), "SELECT count(*) FROM log").await;
        assert!(rows < 150, "{rows} rows are left of 401");
        assert_eq!(store.write(put("/a/first", Expect::Revision(1), "again")).await.unwrap(), 402);
        store.close().await;
        assert!(matches!(store.write(put("/a/first", Expect::Any, "")).await, Err(Error::Closed)));
        assert!(matches!(store.revision().await, Err(Error::Closed)));
        assert!(matches!(store.get("/a/first", None).await, Err(Error::Closed)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_history_ends_the_watches() {
    on_a_cluster(|cluster| async move {
        let store = Postgres::connect(&cluster.url(), Options::default()).await.unwrap();
        for n in 0..5 {
            store.write(put("/a", Expect::Any, format!("{n}"))).await.unwrap();
        }
        let mut watch = store.watch(5).await.unwrap();
        // As after the restoration of a backup.
        sql(&cluster.url(), "DELETE FROM log WHERE rev > 3; UPDATE kv SET mod_rev = 3, version = 3; UPDATE revision SET rev = 3")
            .await;
        let ended = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap();
        assert!(matches!(ended, Some(Err(Error::CutOff(_)))), "{ended:?}");
        assert_eq!(store.write(put("/a", Expect::Revision(3), "other")).await.unwrap(), 4);
        let mut watch = store.watch(3).await.unwrap();
        assert_eq!(take_events(&mut watch, 3, 1).await[0].value.as_deref(), Some(&b"other"[..]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_running_cluster_is_taken_over_and_a_stopped_one_started() {
    on_a_cluster(|cluster| async move {
        let pid = cluster.pid().unwrap();
        let again = Private::start(cluster.dir()).await.unwrap();
        assert_eq!((again.pid(), again.url()), (Some(pid), cluster.url()));
        again.stop().await.unwrap();
        assert_eq!(cluster.pid(), None);
        again.stop().await.unwrap();
        // A pid file that a crash left, whose number is now somebody else's: ours.
        let stale = cluster.dir().join("data/postmaster.pid");
        std::fs::write(&stale, format!("{}\n{}\n0\n5432\n", std::process::id(), cluster.dir().join("data").display())).unwrap();
        assert_eq!(cluster.pid(), None);
        let started = Private::start(cluster.dir()).await.unwrap();
        assert!(started.pid().is_some_and(|new| new != pid));
        let fsync = "SELECT count(*) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'on'";
        assert_eq!(number(&cluster.url(), fsync).await, 2);
    })
    .await;
}
