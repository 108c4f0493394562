use super::*;
use crate::memory::Memory;
use crate::{Expect, Write};

/// As the API server does it: the revision goes into the bytes.
fn ingest() -> Ingest<usize> {
    Arc::new(|_, revision, stored| {
        let mut sent = stored[..1].to_vec();
        sent.extend(format!("[{revision}]").bytes());
        sent.extend(&stored[1..]);
        (sent.into(), stored.len())
    })
}

async fn put(store: &Memory, key: &str, value: &str) -> Revision {
    let change = crate::Change::Put(Bytes::copy_from_slice(value.as_bytes()));
    store.write(Write { key: key.into(), expect: Expect::Any, change }).await.unwrap()
}

async fn delete(store: &Memory, key: &str) -> Revision {
    store.write(Write { key: key.into(), expect: Expect::Any, change: crate::Change::Delete }).await.unwrap()
}

async fn start(limits: Limits) -> (Arc<Memory>, Arc<Cache<usize>>) {
    let store = Memory::new();
    put(&store, "/a/x", "{x}").await;
    let cache = Cache::start(store.clone(), ingest(), limits).await.unwrap();
    (store, cache)
}

async fn change(watcher: &mut Watcher<usize>) -> Arc<Change<usize>> {
    match watcher.next().await.unwrap() {
        Item::Change(change) => change,
        Item::Progress(revision) => panic!("progress to {revision}"),
    }
}

#[tokio::test]
async fn reads_what_was_there_and_what_is_written() {
    let (store, cache) = start(Limits::default()).await;
    assert_eq!(cache.snapshot().objects["/a/x"].bytes, "{[1]x}");
    let revision = put(&store, "/a/y", "{yy}").await;
    let snapshot = cache.at_least(revision).await.unwrap();
    let entry = &snapshot.objects["/a/y"];
    assert_eq!((&entry.bytes[..], entry.attributes, entry.version), (&b"{[2]yy}"[..], 4, 1));
    put(&store, "/a/z", "{z}").await;
    assert!(cache.fresh().await.unwrap().objects.contains_key("/a/z"));
    assert!(!snapshot.objects.contains_key("/a/z"), "a snapshot does not change");
}

#[tokio::test(start_paused = true)]
async fn gives_up_waiting_for_a_revision_that_does_not_come() {
    let (_store, cache) = start(Limits::default()).await;
    assert!(matches!(cache.at_least(99).await, Err(Error::Timeout)));
}

#[tokio::test]
async fn a_deletion_shows_the_last_state_at_its_own_revision() {
    let (store, cache) = start(Limits::default()).await;
    let mut watcher = cache.watch("/a/", 1).unwrap();
    delete(&store, "/a/x").await;
    let change = change(&mut watcher).await;
    assert!(change.deleted);
    assert_eq!((&change.now.bytes[..], change.now.attributes), (&b"{[2]x}"[..], 3));
    assert_eq!(change.before.as_ref().unwrap().bytes, "{[1]x}");
    assert!(cache.fresh().await.unwrap().objects.is_empty());
}

#[tokio::test]
async fn a_watcher_gets_its_prefix_only_from_the_ring_and_then_live() {
    let (store, cache) = start(Limits::default()).await;
    put(&store, "/a/y", "{1}").await;
    put(&store, "/ab/y", "{2}").await;
    cache.fresh().await.unwrap();
    let prefixes = ["", "/", "/a/", "/a/y", "/a"];
    let mut watchers: Vec<_> = prefixes.iter().map(|prefix| cache.watch(prefix, 1).unwrap()).collect();
    put(&store, "/a/y", "{3}").await;
    put(&store, "/b/y", "{4}").await;
    put(&store, "/a/y/deep", "{5}").await;
    put(&store, "/a/y", "{end}").await;
    let expected: [&[Revision]; 5] = [&[2, 3, 4, 5, 6, 7], &[2, 3, 4, 5, 6, 7], &[2, 4, 6, 7], &[2, 4, 6, 7], &[2, 3, 4, 6, 7]];
    for (watcher, expected) in watchers.iter_mut().zip(expected) {
        let mut seen = vec![];
        for _ in expected {
            seen.push(change(watcher).await.revision);
        }
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn watchers_share_one_change() {
    let (store, cache) = start(Limits::default()).await;
    let (mut one, mut two) = (cache.watch("/a/", 1).unwrap(), cache.watch("/", 1).unwrap());
    put(&store, "/a/y", "{1}").await;
    assert!(Arc::ptr_eq(&change(&mut one).await, &change(&mut two).await));
}

#[tokio::test]
async fn a_watcher_that_left_has_no_seat() {
    let (_store, cache) = start(Limits::default()).await;
    drop(cache.watch("/a/", 1).unwrap());
    drop(cache.watch("/a/exact", 1).unwrap());
    assert!(cache.shared.hub.lock().is_empty());
}

#[tokio::test]
async fn a_slow_watcher_gets_what_was_queued_and_is_cut_off() {
    let (store, cache) = start(Limits { watcher_backlog_max: 2, ..Limits::default() }).await;
    let mut slow = cache.watch("/a/", 1).unwrap();
    for _ in 0..5 {
        put(&store, "/a/y", "{}").await;
    }
    while cache.shared.delivered.load(Ordering::Acquire) < 6 {
        tokio::task::yield_now().await;
    }
    let mut after = cache.watch("/a/", 1).unwrap();
    for revision in 2..=6 {
        assert_eq!(change(&mut after).await.revision, revision);
    }
    assert_eq!((change(&mut slow).await.revision, change(&mut slow).await.revision), (2, 3));
    assert!(matches!(slow.next().await, Err(Error::CutOff(_))));
}

#[tokio::test]
async fn the_ring_forgets_what_is_too_much() {
    let (store, cache) = start(Limits { ring_events_max: 2, ..Limits::default() }).await;
    for _ in 0..4 {
        put(&store, "/a/y", "{}").await;
    }
    let mut all = cache.watch("/a/y", cache.fresh().await.unwrap().revision).unwrap();
    put(&store, "/a/y", "{}").await;
    change(&mut all).await;
    assert!(matches!(cache.watch("/a/", 3), Err(Error::Compacted { oldest: 4 })));
    assert!(cache.watch("/a/", 4).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_ring_forgets_what_is_older_than_the_horizon() {
    let (store, cache) = start(Limits::default()).await;
    let second = put(&store, "/a/y", "{}").await;
    cache.fresh().await.unwrap();
    tokio::time::sleep(Duration::from_secs(301)).await;
    let mut live = cache.watch("/a/", second).unwrap();
    put(&store, "/a/y", "{}").await;
    change(&mut live).await;
    assert!(matches!(cache.watch("/a/", 1), Err(Error::Compacted { oldest: 2 })));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watcher_is_told_the_progress_of_others() {
    let (store, cache) = start(Limits::default()).await;
    let mut watcher = cache.watch("/quiet/", 1).unwrap();
    let revision = put(&store, "/a/y", "{}").await;
    assert!(matches!(watcher.next().await.unwrap(), Item::Progress(seen) if seen == revision));
    put(&store, "/quiet/y", "{}").await;
    assert_eq!(change(&mut watcher).await.revision, revision + 1);
}

#[tokio::test]
async fn a_watch_from_the_future_begins_there() {
    let (store, cache) = start(Limits::default()).await;
    let mut watcher = cache.watch("/a/", 3).unwrap();
    for _ in 0..3 {
        put(&store, "/a/y", "{}").await;
    }
    assert_eq!(change(&mut watcher).await.revision, 4);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_snapshot_stays_as_long_as_the_horizon() {
    let (store, cache) = start(Limits::default()).await;
    let pinned = cache.snapshot();
    cache.pin(&pinned, "");
    put(&store, "/a/y", "{}").await;
    let now = cache.fresh().await.unwrap();
    let objects = |revision| cache.pinned(revision, "/a/").unwrap().0.objects.len();
    assert_eq!((objects(pinned.revision), objects(now.revision)), (1, 2));
    tokio::time::sleep(Duration::from_secs(200)).await;
    // Whoever goes on with it does not keep it from being forgotten.
    cache.pin(&pinned, "");
    assert_eq!(objects(pinned.revision), 1);
    tokio::time::sleep(Duration::from_secs(101)).await;
    assert!(matches!(cache.pinned(pinned.revision, "/a/"), Err(Error::Compacted { oldest: 2 })));
}

#[tokio::test]
async fn what_is_pinned_of_a_part_is_no_answer_for_the_rest() {
    let (store, cache) = start(Limits::default()).await;
    let part = Snapshot { revision: 1, objects: cache.snapshot().objects };
    put(&store, "/a/y", "{}").await;
    cache.fresh().await.unwrap();
    cache.pin(&part, "/a/");
    assert_eq!(cache.pinned(1, "/a/b/").unwrap().1, "/a/");
    assert!(matches!(cache.pinned(1, "/b/"), Err(Error::Compacted { .. })));
    assert!(matches!(cache.pinned(1, "/"), Err(Error::Compacted { .. })));
    // Copies are few.
    for n in 0..super::COPIES_MAX {
        cache.pin(&part, &format!("/c{n}/"));
    }
    assert!(cache.pinned(1, "/a/").is_err() && cache.pinned(1, "/c0/").is_ok());
}

#[tokio::test]
async fn watchers_end_with_the_cache() {
    let (_store, cache) = start(Limits::default()).await;
    let mut watcher = cache.watch("/a/", 1).unwrap();
    drop(cache);
    assert!(matches!(watcher.next().await, Err(Error::Closed)));
}

#[tokio::test]
async fn loads_many_pages() {
    let store = Memory::new();
    for n in 0..4_500 {
        put(&store, &format!("/a/{n}"), "{}").await;
    }
    let cache = Cache::start(store, ingest(), Limits::default()).await.unwrap();
    assert_eq!((cache.snapshot().objects.len(), cache.snapshot().revision), (4_500, 4_500));
}
