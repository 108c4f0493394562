//! What people type.

use super::place::{Endpoint, folder, installed, text};
use slipway_store::contract::{delete, put};
use slipway_store::etcd::{Face, Options};
use slipway_store::memory::Memory;
use slipway_store::{Expect, Store};
use std::time::Duration;

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// The number after `name` in what `-w fields` prints.
fn field(output: &str, name: &str) -> i64 {
    let line = output.lines().find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
    line.unwrap_or_else(|| panic!("no {name} in {output}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gets_puts_and_deletes() {
    if !installed("etcdctl", "etcd-client") {
        return;
    }
    let face = Endpoint::memory().await;
    for (key, value) in [("a", "1"), ("ab", "2"), ("b", "3"), ("ü/\u{1}", "4")] {
        assert_eq!(face.ctl(&["put", key, value]).await, "OK\n");
    }
    assert_eq!(face.ctl(&["get", "a"]).await, "a\n1\n");
    assert_eq!(face.ctl(&["get", "--prefix", "a", "--print-value-only"]).await, "1\n2\n");
    assert_eq!(face.ctl(&["get", "--from-key", "ab", "--keys-only"]).await, "ab\n\nb\n\nü/\u{1}\n\n");
    assert_eq!(face.ctl(&["get", "--prefix", "", "--limit", "2", "--order", "DESCEND", "--keys-only"]).await, "ü/\u{1}\n\nb\n\n");
    let counted = face.ctl(&["get", "--prefix", "", "-w", "fields"]).await;
    assert_eq!(field(&counted, "Count"), 4);
    let limited = face.ctl(&["get", "--prefix", "", "--limit", "3", "-w", "fields"]).await;
    assert_eq!((field(&limited, "Count"), limited.contains("\"More\" : true")), (4, true));

    let before = field(&counted, "Revision").to_string();
    assert_eq!(face.ctl(&["put", "a", "new", "--prev-kv"]).await, "OK\na\n1\n");
    assert_eq!(face.ctl(&["put", "a", "--ignore-value"]).await, "OK\n");
    let a = face.ctl(&["get", "a", "-w", "fields"]).await;
    assert_eq!(field(&a, "Version"), 3);
    assert_eq!(field(&a, "ModRevision"), field(&a, "Revision"));
    assert_eq!(face.ctl(&["get", "a", "--rev", &before]).await, "a\n1\n");
    assert_eq!(face.ctl(&["del", "--prefix", "a", "--prev-kv"]).await, "2\na\nnew\nab\n2\n");
    assert_eq!(face.ctl(&["del", "a"]).await, "0\n");
    assert_eq!(face.ctl(&["get", "--prefix", "a"]).await, "");
    assert_eq!(face.ctl(&["get", "--prefix", "a", "--rev", &before, "--print-value-only"]).await, "1\n2\n");
    assert!(face.refused(&["get", "a", "--rev", "1000000"]).await.contains("required revision is a future revision"));
    assert!(face.refused(&["put", "none", "--ignore-value"]).await.contains("key not found"));
    assert!(face.refused(&["put", "", "x"]).await.contains("key is not provided"));

    let compacted = field(&face.ctl(&["get", "b", "-w", "fields"]).await, "Revision").to_string();
    assert_eq!(face.ctl(&["compaction", &compacted]).await, format!("compacted revision {compacted}\n"));
    assert!(face.refused(&["get", "b", "--rev", &before]).await.contains("required revision has been compacted"));
    assert!(face.refused(&["compaction", &compacted]).await.contains("required revision has been compacted"));
    assert!(face.refused(&["compaction", "1000000"]).await.contains("future revision"));
    assert_eq!(face.ctl(&["get", "b", "--rev", &compacted]).await, "b\n3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions() {
    if !installed("etcdctl", "etcd-client") {
        return;
    }
    let face = Endpoint::memory().await;
    face.ctl(&["put", "user", "bob"]).await;
    let txn =
        "value(\"user\") = \"bob\"\nversion(\"none\") = \"0\"\n\nput user alice\nput other 1\nget --prefix \"\"\n\nget user\n\n";
    let done = face.ctl_with(&["txn"], txn).await;
    assert_eq!(lines(&done), ["SUCCESS", "", "OK", "", "OK", "", "other", "1", "user", "alice"]);
    let done = face.ctl_with(&["txn"], txn).await;
    assert_eq!(lines(&done), ["FAILURE", "", "user", "alice"]);
    // One revision for all of it.
    let (user, other) = (face.ctl(&["get", "user", "-w", "fields"]).await, face.ctl(&["get", "other", "-w", "fields"]).await);
    assert_eq!(field(&user, "ModRevision"), field(&other, "ModRevision"));
    assert_eq!(field(&other, "CreateRevision"), field(&other, "ModRevision"));
    let refused = face.run(&["txn"], "\nput a 1\nput a 2\n\n\n").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("duplicate key given in txn request"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_resume_and_see_what_was_before() {
    if !installed("etcdctl", "etcd-client") {
        return;
    }
    let face = Endpoint::memory().await;
    face.ctl(&["put", "w/a", "1"]).await;
    let start = field(&face.ctl(&["get", "w/a", "-w", "fields"]).await, "ModRevision").to_string();
    face.ctl(&["put", "elsewhere", "x"]).await;
    face.ctl_with(&["txn"], "\nput w/a 2\nput w/b 1\n\n\n").await;
    let mut watch = face.follow(&["watch", "--prefix", "w/", "--rev", &start, "--prev-kv"]);
    let seen = ["PUT", "w/a", "1", "PUT", "w/a", "1", "w/a", "2", "PUT", "w/b", "1"];
    assert_eq!(watch.lines(11).await, seen);
    face.ctl(&["del", "w/", "--prefix"]).await;
    assert_eq!(watch.lines(10).await, ["DELETE", "w/a", "2", "w/a", "", "DELETE", "w/b", "1", "w/b", ""]);

    let newest = face.ctl(&["get", "w/a", "-w", "fields"]).await;
    face.ctl(&["compaction", &field(&newest, "Revision").to_string()]).await;
    let gone = face.run(&["watch", "w/a", "--rev", &start], "").await;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("required revision has been compacted"), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leases_keep_and_lose_their_keys() {
    if !installed("etcdctl", "etcd-client") {
        return;
    }
    let store = Memory::new();
    let face = Endpoint::over(store.clone()).await;
    let granted = face.ctl(&["lease", "grant", "600"]).await;
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(600s)\n"));
    face.ctl(&["put", "l/a", "1", "--lease", &id]).await;
    face.ctl(&["put", "l/b", "1", "--lease", &id]).await;
    face.ctl(&["put", "l/c", "1", "--lease", &id]).await;
    face.ctl(&["put", "l/c", "2"]).await;
    let told = face.ctl(&["lease", "timetolive", &id, "--keys"]).await;
    assert!(told.contains("granted with TTL(600s)") && told.contains("attached keys([l/a l/b])"), "{told}");
    assert_eq!(face.ctl(&["lease", "list"]).await, format!("found 1 leases\n{id}\n"));
    assert_eq!(face.ctl(&["lease", "keep-alive", "--once", &id]).await, format!("lease {id} keepalived with TTL(600)\n"));

    // After a restart, at another replica.
    let face = Endpoint::over(store).await;
    let told = face.ctl(&["lease", "timetolive", &id, "--keys"]).await;
    assert!(told.contains("attached keys([l/a l/b])"), "{told}");
    assert_eq!(face.ctl(&["lease", "revoke", &id]).await, format!("lease {id} revoked\n"));
    assert_eq!(face.ctl(&["get", "--prefix", "l/"]).await, "l/c\n2\n");
    assert!(face.refused(&["put", "l/d", "1", "--lease", &id]).await.contains("requested lease not found"));
    assert_eq!(face.ctl(&["lease", "timetolive", &id]).await, format!("lease {id} already expired\n"));

    // One that nobody keeps alive, and one that somebody does.
    let grant = async || face.ctl(&["lease", "grant", "2"]).await.split(' ').nth(1).unwrap().to_owned();
    let (kept, lost) = (grant().await, grant().await);
    let mut keeper = face.follow(&["lease", "keep-alive", &kept]);
    keeper.lines(1).await;
    face.ctl(&["put", "l/kept", "1", "--lease", &kept]).await;
    // However soon it is over: its key is seen to come and to go.
    let now = field(&face.ctl(&["get", "l/lost", "-w", "fields"]).await, "Revision").to_string();
    face.run(&["put", "l/lost", "1", "--lease", &lost], "").await;
    let mut watch = face.follow(&["watch", "l/lost", "--rev", &now]);
    let told: Vec<String> = watch.lines(2).await;
    assert_eq!(told, ["PUT", "l/lost"]);
    keeper.lines(3).await;
    assert_eq!(face.ctl(&["get", "--prefix", "l/", "--keys-only"]).await, "l/c\n\nl/kept\n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_and_elections() {
    if !installed("etcdctl", "etcd-client") {
        return;
    }
    let face = Endpoint::memory().await;
    let mut first = face.follow(&["lock", "mutex"]);
    let held = first.lines(1).await;
    assert!(held[0].starts_with("mutex/"), "{held:?}");
    let mut second = face.follow(&["lock", "mutex"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(field(&face.ctl(&["get", "--prefix", "mutex/", "-w", "fields"]).await, "Count"), 2);
    // An interrupt releases it.
    let pid = nix::unistd::Pid::from_raw(first.child.id().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_ne!(second.lines(1).await, held);

    let mut leader = face.follow(&["elect", "who", "me"]);
    assert_eq!(leader.lines(2).await[1], "me");
    let mut listener = face.follow(&["elect", "--listen", "who"]);
    assert_eq!(listener.lines(2).await[1], "me");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tells_its_health_and_its_members() {
    if !installed("etcdctl", "etcd-client") {
        return;
    }
    let face = Endpoint::memory().await;
    face.ctl(&["put", "a", "1"]).await;
    assert!(face.run(&["endpoint", "health"], "").await.status.success());
    let status = face.ctl(&["endpoint", "status", "-w", "json"]).await;
    assert!(status.contains("\"version\":\"3.5.16\""), "{status}");
    assert!(face.ctl(&["member", "list"]).await.contains("started, slipway"));
    assert_eq!(face.ctl(&["alarm", "list"]).await, "");
    assert!(face.ctl(&["defrag"]).await.contains("Finished defragmenting"));
    assert!(face.ctl(&["endpoint", "hashkv"]).await.contains(&face.address));
    assert!(face.refused(&["user", "list"]).await.contains("authentication is not enabled"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_is_restored_by_etcds_own_tools() {
    if !installed("etcdctl", "etcd-client") || !installed("etcd", "etcd-server") {
        return;
    }
    let face = Endpoint::memory().await;
    let mut client = face.client().await;
    let lease = client.lease_grant(600, None).await.unwrap().id();
    // More than a page of the file and than one level of its tree.
    let ops: Vec<_> = (0..100).map(|n| etcd_client::TxnOp::put(format!("/many/{n:03}"), "x".repeat(n * 50), None)).collect();
    client.txn(etcd_client::Txn::new().and_then(ops)).await.unwrap();
    client.put("/large", "y".repeat(1_000_000), None).await.unwrap();
    client.put("/leased", "z", Some(etcd_client::PutOptions::new().with_lease(lease))).await.unwrap();
    client.delete("/many/007", None).await.unwrap();
    for n in 0..400 {
        client.put(format!("/few/{n}"), n.to_string(), None).await.unwrap();
    }
    let all = face.ctl(&["get", "--prefix", "", "-w", "json"]).await;
    let kvs = |json: &str| json[json.find("\"kvs\"").unwrap()..].to_owned();

    let dir = folder();
    let (file, data) = (dir.path().join("snapshot.db"), dir.path().join("etcd"));
    face.ctl(&["snapshot", "save", text(&file)]).await;
    let status = face.ctl(&["snapshot", "status", text(&file), "-w", "fields"]).await;
    let newest = field(&face.ctl(&["get", "/leased", "-w", "fields"]).await, "Revision");
    assert_eq!(field(&status, "Revision"), newest);
    face.ctl(&["snapshot", "restore", text(&file), "--data-dir", text(&data)]).await;
    let restored = Endpoint::etcd(dir).await;
    let found = restored.ctl(&["get", "--prefix", "", "-w", "json"]).await;
    assert!(kvs(&found) == kvs(&all), "the same keys, values, versions and revisions");
    assert!(restored.refused(&["get", "/leased", "--rev", "2"]).await.contains("compacted"));
    let id = format!("{lease:016x}");
    assert!(restored.ctl(&["lease", "timetolive", &id, "--keys"]).await.contains("attached keys([/leased])"));
    // And back, as docs/store.md says.
    let back = Endpoint::memory().await;
    let mut mirror = restored.follow(&["make-mirror", &back.address]);
    let mut copied = 0;
    while copied < 501 {
        copied = field(&back.ctl(&["get", "--prefix", "", "--limit", "1", "-w", "fields"]).await, "Count");
        assert!(mirror.child.try_wait().unwrap().is_none(), "make-mirror ended");
    }
    let values = async |endpoint: &Endpoint| endpoint.ctl(&["get", "--prefix", ""]).await;
    assert!(values(&back).await == values(&restored).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_clusters_own_keys_are_out_of_reach() {
    let store = Memory::new();
    store.write(put("/core/secrets/default/s", Expect::Absent, "secret")).await.unwrap();
    let face = Endpoint::over(store.clone()).await;
    let mut client = face.client().await;
    let everything = || etcd_client::GetOptions::new().with_all_keys();
    assert_eq!(client.get("", Some(everything())).await.unwrap().count(), 0);
    for key in ["/core/secrets/default/s", "../core/secrets/default/s", "!lease/1"] {
        assert_eq!(client.get(key, None).await.unwrap().count(), 0);
        client.put(key, "mine", None).await.unwrap();
    }
    client.delete("", Some(etcd_client::DeleteOptions::new().with_all_keys())).await.unwrap();
    assert_eq!(store.get("/core/secrets/default/s", None).await.unwrap().unwrap().value, "secret");
    store.write(delete("/core/secrets/default/s", Expect::Any)).await.unwrap();
    // What the face keeps for itself is no object of the cluster's.
    let ingest: slipway_store::cache::Ingest<()> = std::sync::Arc::new(|_, _, value| (value.to_vec().into(), ()));
    let cache = slipway_store::cache::Cache::start(store.clone(), ingest, Default::default()).await.unwrap();
    client.put("a", "1", None).await.unwrap();
    store.write(put("/core/pods/default/p", Expect::Absent, "{}")).await.unwrap();
    let seen: Vec<_> = cache.fresh().await.unwrap().objects.keys().map(|key| key.to_string()).collect();
    assert_eq!(seen, ["/core/pods/default/p"]);
    drop(Face::start(store, Options::default()).await.unwrap());
}
