//! Two API servers on one Postgres, each killed and started again under load, and Postgres too: a checker of what was
//! acknowledged, read and watched finds nothing lost, repeated, out of order or stale.

use futures::StreamExt;
use http::Request;
use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_store::postgres::private::Private;
use slipway_store::postgres::{Options, Postgres};
use slipway_tests::{Answer, TestServer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 8;
/// Acknowledged writes of each.
const WRITES: usize = 60;
const WATCHERS: usize = 6;
const KILLS: usize = 8;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// A request that takes longer has no answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// One API server, until it is killed.
struct Replica {
    server: TestServer,
    store: Arc<Postgres>,
    killed: CancellationToken,
}

impl Replica {
    async fn start(url: &str) -> Arc<Replica> {
        loop {
            // Postgres may be away.
            if let Ok(store) = Postgres::connect(url, Options::default()).await {
                let started = slipway_apiserver::ApiServer::start(store.clone(), Default::default()).await;
                if let Ok(api) = started {
                    return Arc::new(Replica { server: TestServer::of(api), store, killed: CancellationToken::new() });
                }
                store.close().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `None`: killed, or no answer; what became of it is unknown.
    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let call = tokio::time::timeout(TIMEOUT, self.server.call(method, path, body));
        let answer = self.killed.run_until_cancelled(call).await?.ok()?;
        (answer.code < 500 && answer.code != 429).then_some(answer)
    }
}

struct Replicas([RwLock<Arc<Replica>>; 2]);

impl Replicas {
    fn get(&self, n: usize) -> Arc<Replica> {
        self.0[n % 2].read().clone()
    }

    /// Asks one after the other until there is an answer.
    async fn read(&self, mut n: usize, path: &str) -> Answer {
        loop {
            if let Some(answer) = self.get(n).call("GET", path, None).await {
                return answer;
            }
            n += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn kill(&self, n: usize, url: &str) {
        let old = self.get(n);
        old.killed.cancel();
        old.store.close().await;
        let new = Replica::start(url).await;
        *self.0[n % 2].write() = new;
    }
}

fn revision(object: &Value) -> i64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// What an object is: its number and its revision, `None` while it does not exist.
type State = Option<(i64, i64)>;

fn state(answer: &Answer) -> State {
    match answer.code {
        404 => None,
        200 | 201 => Some((answer.body["data"]["n"].as_str().unwrap().parse().unwrap(), revision(&answer.body))),
        code => panic!("{code}: {}", answer.body),
    }
}

/// Writes one object, each write building on the one before, and reads it at the other server. Answers with what was
/// acknowledged: revision and number.
async fn write(replicas: Arc<Replicas>, writer: usize, mut rng: StdRng) -> (Vec<(i64, i64)>, usize) {
    let (name, path) = (format!("w{writer}"), format!("{PATH}/w{writer}"));
    let object =
        |n: i64| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": n.to_string()}});
    let (mut acknowledged, mut unknown) = (vec![], 0);
    let (mut known, mut n): (State, i64) = (None, 0);
    while acknowledged.len() < WRITES {
        let at: usize = rng.random_range(0..2);
        n += 1;
        let (method, target, body) = match known {
            None => ("POST", PATH.to_owned(), Some(object(n))),
            Some(_) if rng.random_range(0..12) == 0 => ("DELETE", path.clone(), None),
            Some((_, revision)) => {
                let mut body = object(n);
                body["metadata"]["resourceVersion"] = revision.to_string().into();
                ("PUT", path.clone(), Some(body))
            }
        };
        let answer = replicas.get(at).call(method, &target, body.as_ref()).await;
        let Some(answer) = answer else {
            // It has happened or it has not, and nothing else has. It may happen yet while its server is being killed.
            unknown += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let found = settled(&replicas, at + 1, &path, known, n).await;
            let expected =
                found == known || found.is_some_and(|(number, _)| number == n) || (method == "DELETE" && found.is_none());
            assert!(expected, "writer {writer} had {known:?}, tried {method} {n}, found {found:?}");
            known = found;
            continue;
        };
        assert!(matches!(answer.code, 200 | 201), "writer {writer} had {known:?}: {method} {}", answer.body);
        known = if method == "DELETE" { None } else { state(&answer) };
        if let Some((number, revision)) = known {
            assert_eq!(number, n);
            acknowledged.push((revision, number));
            let newer = replicas.read(at + 1, &format!("{path}?resourceVersion={revision}")).await;
            assert_eq!(state(&newer), known, "not older than a revision");
        }
        assert_eq!(state(&replicas.read(at + 1, &path).await), known, "a read without a revision is fresh at the other server");
        let list = replicas.read(at + 1, PATH).await.expect(200);
        let listed = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == *name);
        assert_eq!(listed.map(revision), known.map(|(_, revision)| revision), "and so is a list");
        assert!(known.is_none_or(|(_, revision_)| revision(&list) >= revision_));
    }
    (acknowledged, unknown)
}

/// What the object is once a write that nobody waits for any more cannot come through.
async fn settled(replicas: &Replicas, n: usize, path: &str, known: State, tried: i64) -> State {
    for _ in 0..20 {
        let found = state(&replicas.read(n, path).await);
        if found != known || found.is_some_and(|(number, _)| number == tried) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    known
}

/// One event: its revision, what happened and to whom.
type Seen = (i64, String);

/// Follows from `after` until `last` has been seen, going to the other server whenever a watch ends. Answers with the
/// pieces between which it had to list anew.
async fn watch(replicas: Arc<Replicas>, mut n: usize, mut after: i64, last: Arc<RwLock<Option<i64>>>) -> Vec<Vec<Seen>> {
    let mut pieces = vec![vec![]];
    let mut expired = 0;
    while last.read().is_none_or(|last| after < last) {
        n += 1;
        let replica = replicas.get(n);
        let path = format!("{PATH}?watch=true&allowWatchBookmarks=true&resourceVersion={after}&timeoutSeconds=20");
        let request = Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        let opened = replica.killed.run_until_cancelled(replica.server.send(Some(User::admin()), request)).await;
        let Some(response) = opened.filter(|response| response.status().is_success()) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut body = response.into_body().into_data_stream();
        let mut buffer = vec![];
        // The server's death ends it, and so does the end of what there is to see.
        'lines: while last.read().is_none_or(|last| after < last) {
            let next = replica.killed.run_until_cancelled(tokio::time::timeout(TIMEOUT, body.next())).await;
            let Some(Ok(Some(Ok(chunk)))) = next else { break };
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let kind = event["type"].as_str().unwrap();
                if kind == "ERROR" {
                    if event["object"]["code"] == 410 {
                        expired += 1;
                    }
                    break 'lines;
                }
                expired = 0;
                let object = &event["object"];
                let revision = revision(object);
                if kind == "BOOKMARK" {
                    assert!(revision >= after, "a bookmark that goes back");
                } else {
                    assert!(revision > after, "{kind} {revision} after {after}: repeated or out of order");
                    let what = format!("{kind} {} {}", object["metadata"]["name"], object["data"]["n"]);
                    pieces.last_mut().unwrap().push((revision, what));
                }
                after = revision;
            }
        }
        if expired >= 2 {
            // Both were started since: as any client, it lists anew.
            after = revision(&replicas.read(n, PATH).await.expect(200));
            pieces.push(vec![]);
            expired = 0;
        }
    }
    pieces
}

/// Every watcher's pieces are what all have seen together, between their ends.
fn check(watchers: Vec<Vec<Vec<Seen>>>, acknowledged: &BTreeMap<i64, String>) {
    let mut history: BTreeMap<i64, String> = BTreeMap::new();
    for (revision, what) in watchers.iter().flatten().flatten() {
        let known = history.entry(*revision).or_insert_with(|| what.clone());
        assert_eq!(known, what, "two watchers saw something else at {revision}");
    }
    for piece in watchers.iter().flatten().filter(|piece| !piece.is_empty()) {
        let (from, to) = (piece[0].0, piece[piece.len() - 1].0);
        let all: Vec<Seen> = history.range(from..=to).map(|(revision, what)| (*revision, what.clone())).collect();
        assert_eq!(*piece, all, "an event was lost between {from} and {to}");
    }
    let gaps: usize = watchers.iter().map(|pieces| pieces.len() - 1).sum();
    // When both servers were started anew, all watchers may have listed anew across a write. It was read back by its writer.
    let followed = |revision: &i64| {
        let mut pieces = watchers.iter().flatten().filter(|piece| !piece.is_empty());
        gaps < watchers.len() || pieces.any(|piece| (piece[0].0..=piece[piece.len() - 1].0).contains(revision))
    };
    for (revision, what) in acknowledged {
        match history.get(revision) {
            Some(seen) => assert!(seen.ends_with(what), "{revision} is {seen} and was acknowledged as {what}"),
            None => assert!(!followed(revision), "{what} was acknowledged at {revision} and never seen"),
        }
    }
    println!("{} events, {} acknowledged writes, {gaps} lists anew", history.len(), acknowledged.len());
}

async fn kill_everything(replicas: &Replicas, cluster: &Private, rng: &mut StdRng, busy: &AtomicBool) -> [usize; 2] {
    let mut killed = [0, 0];
    while busy.load(Ordering::Relaxed) || killed.iter().sum::<usize>() < KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..500))).await;
        let mut n = rng.random_range(0..5);
        if n == 4 {
            let pid = nix::unistd::Pid::from_raw(cluster.pid().unwrap() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            Private::start(cluster.dir()).await.unwrap();
            killed[1] += 1;
        } else {
            n %= 2;
            replicas.kill(n, &cluster.url()).await;
            killed[0] += 1;
        }
    }
    killed
}

async fn run(cluster: Private) {
    let seed = match std::env::var("SLIPWAY_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    };
    println!("SLIPWAY_SEED={seed}");
    let url = cluster.url();
    let replicas = Arc::new(Replicas([RwLock::new(Replica::start(&url).await), RwLock::new(Replica::start(&url).await)]));
    let start = revision(&replicas.read(0, PATH).await.expect(200));
    let last = Arc::new(RwLock::new(None));
    let watchers: Vec<_> = (0..WATCHERS).map(|n| tokio::spawn(watch(replicas.clone(), n, start, last.clone()))).collect();
    let rng = move |n: usize| StdRng::seed_from_u64(seed ^ (n as u64) << 32);
    let writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(write(replicas.clone(), n, rng(n)))).collect();
    let busy = Arc::new(AtomicBool::new(true));
    let killer = {
        let (replicas, cluster, busy) = (replicas.clone(), cluster.clone(), busy.clone());
        tokio::spawn(async move { kill_everything(&replicas, &cluster, &mut rng(1_000), &busy).await })
    };
    let (mut acknowledged, unknown) = (BTreeMap::new(), AtomicUsize::new(0));
    for (n, writer) in writers.into_iter().enumerate() {
        let (writes, of_unknown_outcome) = writer.await.unwrap();
        unknown.fetch_add(of_unknown_outcome, Ordering::Relaxed);
        for (revision, number) in writes {
            let what = format!(r#""w{n}" "{number}""#);
            assert!(acknowledged.insert(revision, what).is_none(), "revision {revision} was given twice");
        }
    }
    busy.store(false, Ordering::Relaxed);
    let killed = killer.await.unwrap();
    println!("API servers killed {} times, Postgres {}; {unknown:?} writes of unknown outcome", killed[0], killed[1]);
    let end = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "end"}, "data": {"n": "0"}});
    let end = replicas.get(0).call("POST", PATH, Some(&end)).await.expect("all is quiet").expect(201);
    *last.write() = Some(revision(&end));
    let mut seen = vec![];
    for watcher in watchers {
        seen.push(watcher.await.unwrap());
    }
    check(seen, &acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_repeated_or_stale_when_servers_and_postgres_are_killed() {
    let dir = tempfile::Builder::new().prefix("slipway-consistency-").tempdir().unwrap();
    let cluster = Private::start(dir.path()).await.expect("Postgres starts");
    let outcome = tokio::spawn(run(cluster.clone())).await;
    cluster.stop().await.unwrap();
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

/// Two servers give out addresses and ports at the same time: never one of them twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_address_or_port_is_given_out_by_both() {
    let cluster = slipway_tests::postgres::Cluster::shared().await;
    let url = cluster.database().await;
    // Both at once: what is made at the start is made once.
    let (one, other) = tokio::join!(Replica::start(&url), Replica::start(&url));
    let creators = (0..40).map(|n| {
        let replica = if n % 2 == 0 { one.clone() } else { other.clone() };
        tokio::spawn(async move {
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{n}")},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            replica.server.post("/api/v1/namespaces/default/services", service).await.expect(201)["spec"].take()
        })
    });
    let (mut addresses, mut ports) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for created in futures::future::join_all(creators).await {
        let spec = created.unwrap();
        assert!(addresses.insert(spec["clusterIP"].to_string()), "{spec}");
        assert!(ports.insert(spec["ports"][0]["nodePort"].to_string()), "{spec}");
    }
}
