//! Leader election over the real API: one leads, another takes over, and who was held up does nothing more.

use slipway_controllers::leader::{Ended, Options, lead};
use slipway_tests::TestServer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/part";

/// Works for ever, each second, and counts it.
async fn work(done: Arc<AtomicUsize>) {
    loop {
        done.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn options(identity: &str) -> Options {
    Options { identity: identity.into(), ..Options::new("part", "host") }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_gives_its_lease_to_the_next() {
    let server = TestServer::memory().await;
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let run = |identity, stop: &CancellationToken| {
        let (client, stop, done) = (server.client(), stop.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = done.clone();
        let part = move |stop: CancellationToken| async move {
            stop.run_until_cancelled(work(counted)).await;
        };
        (done, tokio::spawn(lead(client, options(identity), stop, part)))
    };
    let (one_done, one) = run("one", &first);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (two_done, two) = run("two", &second);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(one_done.load(Ordering::SeqCst) > 100);
    assert_eq!(two_done.load(Ordering::SeqCst), 0, "only one leads, however long");
    let lease = server.get(LEASE).await.expect(200);
    assert_eq!(lease["spec"]["holderIdentity"], "one");
    assert_eq!((&lease["spec"]["leaseDurationSeconds"], &lease["spec"]["leaseTransitions"]), (&15.into(), &0.into()));
    assert_ne!(lease["spec"]["renewTime"], lease["spec"]["acquireTime"]);

    first.cancel();
    assert_eq!(one.await.unwrap(), Ended::Part(()));
    let given = Instant::now();
    while two_done.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(given.elapsed() < Duration::from_secs(6), "a lease that was given back need not run out");
    }
    assert_eq!(server.get(LEASE).await.expect(200)["spec"]["leaseTransitions"], 1);
    let (_, three) = run("three", &first);
    assert_eq!(three.await.unwrap(), Ended::Stopped);
    second.cancel();
    two.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_held_up_does_nothing_more() {
    let server = TestServer::memory().await;
    let (one_done, two_done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = CancellationToken::new();
    let part = |done: &Arc<AtomicUsize>, inner: CancellationToken| {
        let done = done.clone();
        move |stop: CancellationToken| async move {
            tokio::spawn(async move {
                stop.cancelled().await;
                inner.cancel();
            });
            work(done).await
        }
    };
    let inner = CancellationToken::new();
    let mut one = Box::pin(lead(server.client(), options("one"), CancellationToken::new(), part(&one_done, inner.clone())));
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut one).await.is_err(), "it leads");
    let before = one_done.load(Ordering::SeqCst);
    assert!(before > 50);

    // As a machine that was asleep: nobody polls it.
    let two = tokio::spawn(lead(server.client(), options("two"), started.clone(), part(&two_done, CancellationToken::new())));
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(two_done.load(Ordering::SeqCst), 0, "not before the lease is over");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(two_done.load(Ordering::SeqCst) > 0);
    assert_eq!(one.await, Ended::Lost);
    assert_eq!(one_done.load(Ordering::SeqCst), before, "it was not woken for its work");
    inner.cancelled().await;
    let lease = server.get(LEASE).await.expect(200);
    assert_eq!((&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]), (&"two".into(), &1.into()));
    two.abort();
}
