//! What every store must do, as tests to be run against each of them. They panic on what is wrong.

// These are tests, though they are compiled into the library so that every implementation can run them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::{
    Batch, Change, Error, Event, Expect, Guard, Page, Range, Record, Revision, Store, TRANSACTION_WRITES_MAX, Transaction,
    VALUE_BYTES_MAX, Write,
};
use futures::future::{BoxFuture, join_all};
use futures::{Stream, StreamExt};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How long anything may take before it counts as never.
const NEVER: Duration = Duration::from_secs(60);

/// Two replicas of a new, empty store.
pub type Replicas = (Arc<dyn Store>, Arc<dyn Store>);
/// Makes a new, empty store each time.
pub type Factory<'a> = &'a (dyn Fn() -> BoxFuture<'static, Replicas> + Sync);

/// All of the contract, one after the other.
pub async fn all(factory: Factory<'_>) {
    writes_compare_and_swap(factory).await;
    refuses_what_is_too_large(factory).await;
    reads_a_range_with_a_limit_and_at_a_revision(factory).await;
    one_of_many_racing_writers_wins(factory).await;
    revisions_are_dense_and_in_order_over_two_replicas(factory).await;
    a_watch_resumes_where_it_ended(factory).await;
    a_read_sees_every_acknowledged_write_of_the_other_replica(factory).await;
    compaction_forgets_history_and_keeps_what_lives(factory).await;
    a_watch_from_what_is_not_there_is_refused(factory).await;
    a_transaction_happens_as_a_whole(factory).await;
    a_transaction_of_racing_writers_reads_and_writes_at_once(factory).await;
}

pub fn put(key: &str, expect: Expect, value: impl Into<String>) -> Write {
    Write { key: key.into(), expect, change: Change::Put(value.into().into()) }
}

pub fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.into(), expect, change: Change::Delete }
}

fn range(start: &str, end: &str, at: Option<Revision>, limit: usize) -> Range {
    Range { start: start.into(), end: end.into(), at, limit }
}

fn keys(page: &Page) -> Vec<&str> {
    page.records.iter().map(|record| &*record.key).collect()
}

/// The next `count` events, which must be dense from `after` on.
pub async fn take_events<S: Stream<Item = Result<Batch, Error>> + Unpin>(
    watch: &mut S,
    after: Revision,
    count: usize,
) -> Vec<Event> {
    let mut events: Vec<Event> = vec![];
    while events.len() < count {
        let batch = tokio::time::timeout(NEVER, watch.next()).await.expect("the watch is silent");
        let batch = batch.expect("the watch ended").expect("the watch failed");
        for event in batch.events {
            assert_eq!(event.revision, after + events.len() as Revision + 1, "a gap or a repetition");
            events.push(event);
        }
        assert_eq!(batch.revision, after + events.len() as Revision, "the batch says how far it reaches");
    }
    events
}

/// What is alive after these events.
pub fn replay(events: &[Event]) -> BTreeMap<Arc<str>, Record> {
    let mut live: BTreeMap<Arc<str>, Record> = BTreeMap::new();
    for event in events {
        let before = live.remove(&event.key);
        assert_eq!(before.as_ref().map_or(0, |before| before.mod_revision), event.previous_revision, "{event:?}");
        assert_eq!(before.as_ref().map_or(0, |before| before.version) + 1, event.version, "{event:?}");
        match &before {
            Some(before) => assert_eq!(before.create_revision, event.create_revision, "{event:?}"),
            // Later if a transaction created it.
            None => assert!(event.revision <= event.create_revision, "{event:?}"),
        }
        let create_revision = event.create_revision;
        if let Some(value) = event.value.clone() {
            let (key, mod_revision, version) = (event.key.clone(), event.revision, event.version);
            live.insert(event.key.clone(), Record { key, value, create_revision, mod_revision, version });
        }
    }
    live
}

async fn writes_compare_and_swap(factory: Factory<'_>) {
    let (store, other) = factory().await;
    assert_eq!(store.revision().await.unwrap(), 0);
    assert_eq!(store.get("/a", None).await.unwrap(), None);
    assert!(matches!(store.write(put("/a", Expect::Revision(1), "no")).await, Err(Error::NotFound)));
    assert!(matches!(store.write(delete("/a", Expect::Any)).await, Err(Error::NotFound)));
    assert_eq!(store.write(put("/a", Expect::Absent, "one")).await.unwrap(), 1);
    assert!(matches!(other.write(put("/a", Expect::Absent, "no")).await, Err(Error::Exists)));
    assert_eq!(other.write(put("/a", Expect::Revision(1), "two")).await.unwrap(), 2);
    assert!(matches!(store.write(put("/a", Expect::Revision(1), "no")).await, Err(Error::Conflict { current: 2 })));
    assert!(matches!(store.write(delete("/a", Expect::Revision(1))).await, Err(Error::Conflict { current: 2 })));
    assert_eq!(store.write(put("/a", Expect::Any, "three")).await.unwrap(), 3);
    let record = other.get("/a", None).await.unwrap().unwrap();
    assert_eq!((&record.value[..], record.create_revision, record.mod_revision, record.version), (&b"three"[..], 1, 3, 3));
    assert_eq!(store.write(delete("/a", Expect::Revision(3))).await.unwrap(), 4);
    assert_eq!(other.get("/a", None).await.unwrap(), None);
    assert_eq!(store.write(put("/a", Expect::Any, "")).await.unwrap(), 5);
    let record = store.get("/a", None).await.unwrap().unwrap();
    assert_eq!((&record.value[..], record.create_revision, record.version), (&b""[..], 5, 1), "empty is not deleted");
    assert_eq!(other.revision().await.unwrap(), 5, "refused writes take no revision");
}

async fn refuses_what_is_too_large(factory: Factory<'_>) {
    let (store, _) = factory().await;
    let largest = "x".repeat(VALUE_BYTES_MAX);
    assert_eq!(store.write(put("/a", Expect::Any, largest.clone())).await.unwrap(), 1);
    assert_eq!(store.get("/a", None).await.unwrap().unwrap().value.len(), VALUE_BYTES_MAX);
    let refused = store.write(put("/a", Expect::Any, largest + "x")).await;
    assert!(matches!(refused, Err(Error::TooLarge { limit: VALUE_BYTES_MAX, .. })));
}

async fn reads_a_range_with_a_limit_and_at_a_revision(factory: Factory<'_>) {
    let (store, other) = factory().await;
    // 'ä' and '~' tell whether keys are ordered by their bytes.
    for key in ["/a/1", "/a/2", "/a/B", "/a/b", "/a/~", "/a/ä", "/b/1"] {
        store.write(put(key, Expect::Absent, key)).await.unwrap();
    }
    let all = other.range(range("/a/", "/a0", None, 0)).await.unwrap();
    assert_eq!((keys(&all), all.revision, all.more), (vec!["/a/1", "/a/2", "/a/B", "/a/b", "/a/~", "/a/ä"], 7, false));
    store.write(delete("/a/1", Expect::Any)).await.unwrap();
    store.write(put("/a/2", Expect::Any, "new")).await.unwrap();
    store.write(put("/a/3", Expect::Any, "new")).await.unwrap();
    let page = other.range(range("/a/", "/a0", None, 2)).await.unwrap();
    assert_eq!((keys(&page), page.revision, page.more), (vec!["/a/2", "/a/3"], 10, true));
    let then = other.range(range("/a/", "/a0", Some(7), 0)).await.unwrap();
    assert_eq!((then.records, then.revision), (all.records, 7));
    let page = store.range(range("/a/2", "/a0", Some(8), 2)).await.unwrap();
    assert_eq!((keys(&page), page.more), (vec!["/a/2", "/a/B"], true));
    assert_eq!(page.records[0].value, "/a/2", "the value of then");
    let exact = store.range(range("/a/b", "/a0", Some(9), 3)).await.unwrap();
    assert_eq!((exact.records.len(), exact.more), (3, false));
    assert_eq!(store.get("/a/1", Some(7)).await.unwrap().unwrap().value, "/a/1");
    assert_eq!(store.get("/a/1", Some(8)).await.unwrap(), None);
    assert_eq!(store.get("/a/3", Some(9)).await.unwrap(), None);
    assert_eq!(store.range(range("/c", "/d", None, 5)).await.unwrap(), Page { records: vec![], revision: 10, more: false });
    assert_eq!(store.range(range("/b", "/a", None, 0)).await.unwrap().records, []);
    assert!(matches!(store.range(range("/a", "/b", Some(11), 0)).await, Err(Error::Future { newest: 10 })));
}

async fn one_of_many_racing_writers_wins(factory: Factory<'_>) {
    let (one, other) = factory().await;
    let mut expect = Expect::Absent;
    for round in 1..=20 {
        let writers = (0..16).map(|n| {
            let store = if n % 2 == 0 { &one } else { &other };
            store.write(put("/contended", expect, format!("{n}")))
        });
        let outcomes = join_all(writers).await;
        let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(winners, [&round], "{outcomes:?}");
        let refused = |outcome: &Result<_, _>| match outcome {
            Ok(_) | Err(Error::Exists) => true,
            Err(Error::Conflict { current }) => *current == round,
            Err(_) => false,
        };
        assert!(outcomes.iter().all(refused), "{outcomes:?}");
        expect = Expect::Revision(round);
    }
}

async fn revisions_are_dense_and_in_order_over_two_replicas(factory: Factory<'_>) {
    const WRITERS: usize = 32;
    const WRITES: usize = 40;
    let (one, other) = factory().await;
    let mut watches = vec![one.watch(0).await.unwrap(), other.watch(0).await.unwrap()];
    let writers = (0..WRITERS).map(|writer| {
        let store = if writer % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move {
            let mut acknowledged: Vec<(Revision, String)> = vec![];
            for n in 0..WRITES {
                // Some keys of its own, some that all fight for.
                let key = if n % 4 == 0 { format!("/shared/{}", n % 3) } else { format!("/own/{writer}/{}", n % 5) };
                let change = if n % 7 == 6 { delete(&key, Expect::Any) } else { put(&key, Expect::Any, format!("{writer} {n}")) };
                match store.write(change).await {
                    Ok(revision) => acknowledged.push((revision, key)),
                    Err(Error::NotFound) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(acknowledged.is_sorted_by(|a, b| a.0 < b.0), "a writer's later write is later");
            acknowledged
        })
    });
    let mut acknowledged: HashMap<Revision, String> = HashMap::new();
    for writer in join_all(writers).await {
        for (revision, key) in writer.unwrap() {
            assert!(acknowledged.insert(revision, key).is_none(), "revision {revision} was given twice");
        }
    }
    let newest = one.revision().await.unwrap();
    assert_eq!(newest as usize, acknowledged.len(), "there is a revision that nobody was given");
    let mut seen = vec![];
    for watch in &mut watches {
        seen.push(take_events(watch, 0, acknowledged.len()).await);
    }
    assert_eq!(seen[0], seen[1], "both replicas see one history");
    assert!(seen[0].iter().all(|event| *event.key == *acknowledged[&event.revision]));
    let live: Vec<Record> = replay(&seen[0]).into_values().collect();
    assert_eq!(other.range(range("/", "0", None, 0)).await.unwrap().records, live, "the history leads to the state");
    for at in [1, newest / 3, newest / 2] {
        let then: Vec<Record> = replay(&seen[0][..at as usize]).into_values().collect();
        assert_eq!(one.range(range("/", "0", Some(at), 0)).await.unwrap().records, then, "and to every state before");
    }
}

async fn a_watch_resumes_where_it_ended(factory: Factory<'_>) {
    let (one, other) = factory().await;
    let mut all = one.watch(0).await.unwrap();
    for n in 0..50 {
        one.write(put(&format!("/a/{}", n % 7), Expect::Any, format!("{n}"))).await.unwrap();
    }
    let mut events = take_events(&mut all, 0, 50).await;
    drop(all);
    for n in 50..60 {
        one.write(delete(&format!("/a/{}", n % 7), Expect::Any)).await.ok();
    }
    let newest = other.revision().await.unwrap();
    // On the other replica, and from the middle.
    for after in [0, 23, 49, 50, newest - 1] {
        let mut watch = other.watch(after).await.unwrap();
        let count = (newest - after) as usize;
        let resumed = take_events(&mut watch, after, count).await;
        if after == 0 {
            events = resumed;
        } else {
            assert_eq!(resumed, events[after as usize..]);
        }
    }
    let mut watch = other.watch(newest).await.unwrap();
    one.write(put("/a/next", Expect::Any, "")).await.unwrap();
    assert_eq!(&*take_events(&mut watch, newest, 1).await[0].key, "/a/next");
}

async fn a_read_sees_every_acknowledged_write_of_the_other_replica(factory: Factory<'_>) {
    let (one, other) = factory().await;
    for n in 1..=50 {
        let revision = one.write(put("/a", Expect::Any, format!("{n}"))).await.unwrap();
        let (newest, record) = tokio::join!(other.revision(), other.get("/a", None));
        assert_eq!((newest.unwrap(), record.unwrap().unwrap().mod_revision), (revision, revision));
    }
}

async fn compaction_forgets_history_and_keeps_what_lives(factory: Factory<'_>) {
    let (store, other) = factory().await;
    store.write(put("/a/stays", Expect::Any, "old")).await.unwrap();
    for n in 0..10 {
        store.write(put("/a/changes", Expect::Any, format!("{n}"))).await.unwrap();
    }
    store.write(put("/a/goes", Expect::Any, "x")).await.unwrap();
    store.write(delete("/a/goes", Expect::Any)).await.unwrap();
    store.write(put("/a/changes", Expect::Any, "last")).await.unwrap();
    assert_eq!(store.oldest().await.unwrap(), 0);
    assert!(matches!(store.compact(15).await, Err(Error::Future { newest: 14 })));
    let mut ahead = other.watch(13).await.unwrap();
    let at_13 = store.range(range("/", "0", Some(13), 0)).await.unwrap();
    store.compact(13).await.unwrap();
    assert_eq!(other.oldest().await.unwrap(), 13);
    assert!(matches!(store.compact(12).await, Err(Error::Compacted { oldest: 13 })));
    store.compact(13).await.unwrap();
    assert!(matches!(other.watch(12).await, Err(Error::Compacted { oldest: 13 })));
    assert!(matches!(other.get("/a/stays", Some(12)).await, Err(Error::Compacted { oldest: 13 })));
    assert!(matches!(store.range(range("/", "0", Some(3), 0)).await, Err(Error::Compacted { oldest: 13 })));
    assert_eq!(store.range(range("/", "0", Some(13), 0)).await.unwrap(), at_13);
    assert_eq!(store.get("/a/changes", Some(13)).await.unwrap().unwrap().value, "9");
    let live = other.range(range("/", "0", None, 0)).await.unwrap();
    assert_eq!(keys(&live), ["/a/changes", "/a/stays"]);
    assert_eq!(live.records[1].value, "old");
    assert_eq!(take_events(&mut ahead, 13, 1).await[0].previous_revision, 11);
    assert_eq!(store.write(put("/a/stays", Expect::Revision(1), "new")).await.unwrap(), 15);
}

async fn a_watch_from_what_is_not_there_is_refused(factory: Factory<'_>) {
    let (store, _) = factory().await;
    store.write(put("/a", Expect::Any, "")).await.unwrap();
    assert!(matches!(store.watch(2).await, Err(Error::Future { newest: 1 })));
    assert!(store.watch(1).await.is_ok());
}

fn guard(start: &str, end: &str, since: Revision) -> Guard {
    Guard { start: start.into(), end: end.into(), since }
}

async fn a_transaction_happens_as_a_whole(factory: Factory<'_>) {
    let (store, other) = factory().await;
    store.write(put("/a", Expect::Absent, "1")).await.unwrap();
    store.write(put("/b", Expect::Absent, "1")).await.unwrap();
    let mut watch = other.watch(0).await.unwrap();
    let writes = vec![
        put("/a", Expect::Revision(1), "2"),
        put("/c", Expect::Absent, "2"),
        delete("/b", Expect::Any),
        put("/d", Expect::Any, "2"),
    ];
    let transaction = Transaction { guards: vec![guard("/a", "/z", 2), guard("/x", "/y", 0)], writes };
    assert_eq!(store.transact(transaction.clone()).await.unwrap(), 6, "its last revision");
    assert!(matches!(other.transact(transaction).await, Err(Error::Conflict { .. })), "the guard has seen the first");

    let events = take_events(&mut watch, 0, 6).await;
    let found: Vec<_> = events[2..].iter().map(|event| (&*event.key, event.value.is_some(), event.create_revision)).collect();
    assert_eq!(found, [("/a", true, 1), ("/c", true, 6), ("/b", false, 2), ("/d", true, 6)]);
    let live: Vec<Record> = replay(&events).into_values().collect();
    assert_eq!(other.range(range("/", "0", None, 0)).await.unwrap().records, live);
    assert_eq!(other.count(range("/", "0", None, 1)).await.unwrap(), 3);
    assert_eq!(other.count(range("/", "0", Some(2), 0)).await.unwrap(), 2);
    assert_eq!(
        other.count(range("/", "0", Some(5), 0)).await.unwrap(),
        2,
        "only a transaction's last state is one that was seen"
    );

    let refused = |writes| Transaction { guards: vec![], writes };
    let one_is_wrong = refused(vec![put("/a", Expect::Any, "3"), put("/c", Expect::Absent, "3")]);
    assert!(matches!(store.transact(one_is_wrong).await, Err(Error::Exists)));
    let one_is_missing = refused(vec![put("/a", Expect::Any, "3"), delete("/none", Expect::Any)]);
    assert!(matches!(store.transact(one_is_missing).await, Err(Error::NotFound)));
    let one_has_moved = refused(vec![put("/e", Expect::Any, "3"), put("/a", Expect::Revision(1), "3")]);
    assert!(matches!(store.transact(one_has_moved).await, Err(Error::Conflict { current: 3 })));
    assert_eq!(other.revision().await.unwrap(), 6, "nothing of them was written");
    assert_eq!(store.transact(Transaction::default()).await.unwrap(), 6);

    // More than a batch and than a partition has.
    let many = (0..700).map(|n| put(&format!("/many/{n}"), Expect::Absent, "")).collect();
    assert_eq!(store.transact(refused(many)).await.unwrap(), 706);
    assert_eq!(store.write(put("/many/0", Expect::Revision(7), "x")).await.unwrap(), 707);
    let many = (0..=TRANSACTION_WRITES_MAX).map(|n| put(&format!("/{n}"), Expect::Any, "")).collect();
    assert!(matches!(store.transact(refused(many)).await, Err(Error::TooManyWrites { .. })));
}

/// Each takes from one of two accounts what is there and gives it to the other: the sum stays.
async fn a_transaction_of_racing_writers_reads_and_writes_at_once(factory: Factory<'_>) {
    let (one, other) = factory().await;
    for account in ["/account/a", "/account/b"] {
        one.write(put(account, Expect::Absent, "100")).await.unwrap();
    }
    let movers = (0..8).map(|mover| {
        let store = if mover % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move {
            let mut done = 0;
            while done < 10 {
                let page = store.range(range("/account/", "/account0", None, 0)).await.unwrap();
                let amounts: Vec<i64> =
                    page.records.iter().map(|record| std::str::from_utf8(&record.value).unwrap().parse().unwrap()).collect();
                assert_eq!(amounts.iter().sum::<i64>(), 200, "half of a transaction was seen");
                let writes = vec![
                    put("/account/a", Expect::Any, (amounts[0] - mover).to_string()),
                    put("/account/b", Expect::Any, (amounts[1] + mover).to_string()),
                ];
                let guards = vec![guard("/account/", "/account0", page.revision)];
                match store.transact(Transaction { guards, writes }).await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    join_all(movers).await.into_iter().for_each(|mover| mover.unwrap());
    let page = one.range(range("/account/", "/account0", None, 0)).await.unwrap();
    let amounts: Vec<_> = page.records.iter().map(|record| record.value.clone()).collect();
    let moved: i64 = (0..8).sum::<i64>() * 10;
    assert_eq!(amounts, [(100 - moved).to_string(), (100 + moved).to_string()]);
    assert_eq!(one.revision().await.unwrap(), 2 + 2 * 80);
}
