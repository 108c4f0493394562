//! The same random requests to the face and to Debian's etcd have the same answers.
//!
//! The revisions are others, but in the same order: both are written as the number of the write that made them.

use super::place::{Endpoint, NEVER, folder, installed};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const STEPS: usize = 690;

/// The revision of one write, in etcd and in the face.
type Both = [i64; 2];

#[derive(Debug, Clone)]
struct Get {
    key: Vec<u8>,
    end: Option<Vec<u8>>,
    revision: Both,
    limit: i64,
    order: SortOrder,
    target: SortTarget,
    keys_only: bool,
    count_only: bool,
    min_mod: Both,
    max_create: Both,
}

#[derive(Debug, Clone)]
enum Op {
    Get(Get),
    Put { key: Vec<u8>, value: String, prev: bool },
    Delete { key: Vec<u8>, end: Option<Vec<u8>>, prev: bool },
    Txn(Box<Steps>),
}

#[derive(Debug, Clone)]
enum Asked {
    Version(i64),
    Create(Both),
    Mod(Both),
    Value(String),
    Lease(i64),
}

#[derive(Debug, Clone)]
struct Condition {
    key: Vec<u8>,
    end: Option<Vec<u8>>,
    op: CompareOp,
    asked: Asked,
}

#[derive(Debug, Clone)]
struct Steps {
    when: Vec<Condition>,
    then: Vec<Op>,
    or_else: Vec<Op>,
}

/// Makes requests up.
struct Maker {
    rng: StdRng,
    writes: Vec<Both>,
}

impl Maker {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn key(&mut self) -> Vec<u8> {
        const KEYS: [&[u8]; 8] = [b"a", b"a\0", b"a\x01", b"aa", b"b", b"\xff\xfe", b"\0", b"b/c"];
        KEYS[self.rng.random_range(0..KEYS.len())].to_vec()
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        match self.rng.random_range(0..4) {
            0 | 1 => None,
            2 => Some(vec![0]),
            _ => Some(self.key()),
        }
    }

    fn write(&mut self) -> Both {
        let newest = self.writes.len();
        self.writes[self.rng.random_range(newest.saturating_sub(30)..newest)]
    }

    fn sometimes(&mut self) -> Both {
        if self.chance(20) { self.write() } else { [0, 0] }
    }

    fn value(&mut self) -> String {
        self.rng.random_range(0..5).to_string()
    }

    fn op(&mut self, depth: usize) -> Op {
        match self.rng.random_range(0..if depth < 2 { 12 } else { 9 }) {
            0..=3 => Op::Get(Get {
                key: self.key(),
                end: self.end(),
                revision: self.sometimes(),
                limit: self.rng.random_range(0..4),
                order: [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.rng.random_range(0..3)],
                target: [SortTarget::Key, SortTarget::Key, SortTarget::Mod][self.rng.random_range(0..3)],
                keys_only: self.chance(10),
                count_only: self.chance(10),
                min_mod: self.sometimes(),
                max_create: self.sometimes(),
            }),
            4..=6 => Op::Put { key: self.key(), value: self.value(), prev: self.chance(50) },
            7 | 8 => {
                // In a transaction etcd overlooks that a delete of all keys from one on meets a put; the face does not.
                let end = self.end().map(|end| if depth > 0 && end == [0] { vec![0xff; 4] } else { end });
                Op::Delete { key: self.key(), end, prev: self.chance(50) }
            }
            _ => Op::Txn(Box::new(self.steps(depth + 1))),
        }
    }

    fn steps(&mut self, depth: usize) -> Steps {
        let ops = |maker: &mut Maker| (0..maker.rng.random_range(0..4)).map(|_| maker.op(depth)).collect();
        let when = (0..self.rng.random_range(0..3)).map(|_| self.condition()).collect();
        Steps { when, then: ops(self), or_else: ops(self) }
    }

    fn condition(&mut self) -> Condition {
        let asked = match self.rng.random_range(0..5) {
            0 => Asked::Version(self.rng.random_range(0..3)),
            1 => Asked::Create(self.write()),
            2 => Asked::Mod(self.write()),
            3 => Asked::Value(self.value()),
            _ => Asked::Lease(self.rng.random_range(0..2)),
        };
        let ops = [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual];
        Condition { key: self.key(), end: self.end(), op: ops[self.rng.random_range(0..4)], asked }
    }
}

/// Whether a transaction may delete what one before it, in the same request, puts. etcd, which refuses everything else that
/// writes a key twice, overlooks this, and tells a watch of both; the face tells what came of it.
fn deletes_what_it_puts(op: &Op) -> bool {
    let Op::Txn(steps) = op else { return false };
    [&steps.then, &steps.or_else].into_iter().any(|ops| {
        let (mut puts, mut deletes) = (vec![], vec![]);
        ops.iter().any(|op| {
            if !matches!(op, Op::Txn(_)) {
                return false;
            }
            deletes.clear();
            let before = puts.len();
            written_by(op, &mut puts, &mut deletes);
            let covers = |(key, end): &(&Vec<u8>, &Option<Vec<u8>>), put: &Vec<u8>| match end {
                None => put == *key,
                Some(end) => put >= *key && (end == &[0] || put < end),
            };
            deletes_what_it_puts(op) || puts[..before].iter().any(|put| deletes.iter().any(|delete| covers(delete, put)))
        })
    })
}

/// All that an operation may put and delete, whatever its conditions.
fn written_by<'a>(op: &'a Op, puts: &mut Vec<&'a Vec<u8>>, deletes: &mut Vec<(&'a Vec<u8>, &'a Option<Vec<u8>>)>) {
    match op {
        Op::Get(_) => {}
        Op::Put { key, .. } => puts.push(key),
        Op::Delete { key, end, .. } => deletes.push((key, end)),
        Op::Txn(steps) => steps.then.iter().chain(&steps.or_else).for_each(|op| written_by(op, puts, deletes)),
    }
}

fn get_options(get: &Get, side: usize) -> GetOptions {
    let mut options = GetOptions::new().with_limit(get.limit).with_sort(get.target, get.order);
    if let Some(end) = &get.end {
        options = options.with_range(end.clone());
    }
    if get.keys_only {
        options = options.with_keys_only();
    }
    if get.count_only {
        options = options.with_count_only();
    }
    options
        .with_revision(get.revision[side])
        .with_min_mod_revision(get.min_mod[side])
        .with_max_create_revision(get.max_create[side])
}

fn put_options(prev: bool) -> PutOptions {
    if prev { PutOptions::new().with_prev_key() } else { PutOptions::new() }
}

fn delete_options(end: &Option<Vec<u8>>, prev: bool) -> DeleteOptions {
    let options = match end {
        Some(end) => DeleteOptions::new().with_range(end.clone()),
        None => DeleteOptions::new(),
    };
    if prev { options.with_prev_key() } else { options }
}

fn txn_op(op: &Op, side: usize) -> TxnOp {
    match op {
        Op::Get(get) => TxnOp::get(get.key.clone(), Some(get_options(get, side))),
        Op::Put { key, value, prev } => TxnOp::put(key.clone(), value.clone(), Some(put_options(*prev))),
        Op::Delete { key, end, prev } => TxnOp::delete(key.clone(), Some(delete_options(end, *prev))),
        Op::Txn(steps) => TxnOp::txn(txn(steps, side)),
    }
}

fn txn(steps: &Steps, side: usize) -> Txn {
    let compare = |condition: &Condition| {
        let (key, op) = (condition.key.clone(), condition.op);
        let compare = match &condition.asked {
            Asked::Version(version) => Compare::version(key, op, *version),
            Asked::Create(revision) => Compare::create_revision(key, op, revision[side]),
            Asked::Mod(revision) => Compare::mod_revision(key, op, revision[side]),
            Asked::Value(value) => Compare::value(key, op, value.clone()),
            Asked::Lease(lease) => Compare::lease(key, op, *lease),
        };
        match &condition.end {
            Some(end) => compare.with_range(end.clone()),
            None => compare,
        }
    };
    let ops = |ops: &[Op]| ops.iter().map(|op| txn_op(op, side)).collect::<Vec<_>>();
    let when: Vec<Compare> = steps.when.iter().map(compare).collect();
    Txn::new().when(when).and_then(ops(&steps.then)).or_else(ops(&steps.or_else))
}

/// An answer with its revisions as they are, to be told apart by `{r:…}`.
#[derive(Default)]
struct Answer {
    text: String,
    /// Of the whole.
    revision: i64,
}

fn shown(kv: &KeyValue) -> String {
    let (key, value) = (kv.key().escape_ascii(), kv.value().escape_ascii());
    format!("{key}={value} v{} c<{}> m<{}> l{}; ", kv.version(), kv.create_revision(), kv.mod_revision(), kv.lease())
}

fn get_text(get: &GetResponse) -> String {
    let kvs: String = get.kvs().iter().map(shown).collect();
    format!("get {} more={} {kvs}", get.count(), get.more())
}

fn response_text(response: &TxnOpResponse) -> String {
    match response {
        TxnOpResponse::Get(get) => get_text(get),
        TxnOpResponse::Put(put) => format!("put {}", put.prev_key().map(shown).unwrap_or_default()),
        TxnOpResponse::Delete(delete) => {
            format!("delete {} {}", delete.deleted(), delete.prev_kvs().iter().map(shown).collect::<String>())
        }
        TxnOpResponse::Txn(txn) => {
            format!("txn {} [{}]", txn.succeeded(), txn.op_responses().iter().map(response_text).collect::<String>())
        }
    }
}

async fn run(client: &mut Client, op: &Op, side: usize) -> Answer {
    let answered: Result<(String, i64), Error> = async {
        Ok(match op {
            Op::Get(get) => {
                let response = client.get(get.key.clone(), Some(get_options(get, side))).await?;
                (get_text(&response), response.header().unwrap().revision())
            }
            Op::Put { key, value, prev } => {
                let response = client.put(key.clone(), value.clone(), Some(put_options(*prev))).await?;
                let text = format!("put {}", response.prev_key().map(shown).unwrap_or_default());
                (text, response.header().unwrap().revision())
            }
            Op::Delete { key, end, prev } => {
                let response = client.delete(key.clone(), Some(delete_options(end, *prev))).await?;
                let kvs: String = response.prev_kvs().iter().map(shown).collect();
                (format!("delete {} {kvs}", response.deleted()), response.header().unwrap().revision())
            }
            Op::Txn(steps) => {
                let response = client.txn(txn(steps, side)).await?;
                let texts: String = response.op_responses().iter().map(response_text).collect();
                (format!("txn {} [{texts}]", response.succeeded()), response.header().unwrap().revision())
            }
        })
    }
    .await;
    match answered {
        Ok((text, revision)) => Answer { text, revision },
        Err(Error::GRpcStatus(status)) => Answer { text: format!("{:?} {}", status.code(), status.message()), revision: 0 },
        Err(error) => panic!("{error}"),
    }
}

/// Revisions as numbers of writes; what is no write's stays as it is, with the side that it was seen on.
fn translate(text: &str, writes: &[Both], side: usize) -> String {
    let mut parts = text.split('<');
    let mut translated = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once('>').unwrap_or((part, ""));
        let write = number.parse().ok().and_then(|number: i64| writes.iter().position(|write| write[side] == number));
        match write {
            Some(write) => translated += &format!("#{write}{rest}"),
            None if number == "0" => translated += &format!("none{rest}"),
            None => translated += &format!("{number}?{side}{rest}"),
        }
    }
    translated
}

async fn compare(face: Endpoint) {
    if !installed("etcdctl", "etcd-client") || !installed("etcd", "etcd-server") {
        return;
    }
    // The same in every run; others are for who looks for more.
    let seed = std::env::var("SLIPWAY_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let etcd = Endpoint::etcd(folder()).await;
    let mut clients = [etcd.client().await, face.client().await];
    let first = Op::Put { key: b"first".to_vec(), value: "0".into(), prev: false };
    let both = [run(&mut clients[0], &first, 0).await.revision, run(&mut clients[1], &first, 1).await.revision];
    let mut maker = Maker { rng: StdRng::seed_from_u64(seed), writes: vec![both] };
    let mut written = vec![first];
    let mut compacted = 0;
    for step in 0..STEPS {
        if step % 100 == 99 {
            // Reads before this are refused by both; a write comes after it, for what is the newest to have a number.
            compacted = maker.writes.len() - 10;
            let at = maker.writes[compacted];
            for side in 0..2 {
                clients[side].compact(at[side], None).await.unwrap();
            }
        }
        let op = std::iter::repeat_with(|| maker.op(0)).find(|op| !deletes_what_it_puts(op)).unwrap();
        let answers = [run(&mut clients[0], &op, 0).await, run(&mut clients[1], &op, 1).await];
        if answers[0].revision > maker.writes[maker.writes.len() - 1][0] {
            maker.writes.push([answers[0].revision, answers[1].revision]);
            written.push(op.clone());
        }
        let [etcds, faces] = [0, 1].map(|side| translate(&answers[side].text, &maker.writes, side));
        assert_eq!(faces, etcds, "step {step} of seed {seed}: {op:?}");
    }
    assert!(maker.writes.len() > STEPS / 5, "most of it was refused");
    // One watch over all of it that is left, transactions and all, up to a last write.
    let last = Op::Put { key: b"last".to_vec(), value: "0".into(), prev: false };
    let ends = [run(&mut clients[0], &last, 0).await.revision, run(&mut clients[1], &last, 1).await.revision];
    let mut histories = vec![];
    for side in 0..2 {
        let from = maker.writes[compacted + 1][side];
        histories.push(history(&mut clients[side], from, ends[side], &maker.writes, side).await);
    }
    for ((revision, etcd), (_, face)) in histories[0].iter().zip(&histories[1]) {
        let write = maker.writes.iter().position(|write| write[0] == *revision).map(|write| &written[write]);
        assert_eq!(face, etcd, "seed {seed}: {write:?}");
    }
    assert_eq!(histories[1].len(), histories[0].len(), "seed {seed}");
}

/// What a watch tells from revision `from` up to before `last`: revisions and events.
///
/// Within a transaction etcd's order is that of its operations, the face's that of the keys: here it is that of the texts.
async fn history(client: &mut Client, from: i64, last: i64, writes: &[Both], side: usize) -> Vec<(i64, String)> {
    let options = etcd_client::WatchOptions::new().with_all_keys().with_start_revision(from).with_prev_key();
    let mut watch = client.watch("", Some(options)).await.unwrap();
    let mut history = vec![];
    loop {
        let response = tokio::time::timeout(NEVER, watch.message()).await.expect("an event comes").unwrap().unwrap();
        assert!(!response.canceled(), "{}", response.cancel_reason());
        for event in response.events() {
            let kv = event.kv().unwrap();
            if kv.mod_revision() >= last {
                history.sort();
                return history;
            }
            let before = event.prev_kv().map(shown).unwrap_or_default();
            let text = format!("{:?} {} before {before}", event.event_type(), shown(kv));
            history.push((kv.mod_revision(), translate(&text, writes, side)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_as_etcd_does_over_memory() {
    compare(Endpoint::memory().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_as_etcd_does_over_postgres() {
    use slipway_store::postgres::private::{self, Private};
    use slipway_store::postgres::{Options, Postgres};
    let dir = folder();
    let cluster = match Private::start(dir.path()).await {
        Err(private::Error::NotInstalled) => return eprintln!("SKIPPED, NOTHING WAS TESTED: {}", private::Error::NotInstalled),
        started => started.unwrap(),
    };
    let store = Postgres::connect(&cluster.url(), Options { partition_revisions: 64, ..Options::default() }).await.unwrap();
    let compared = tokio::spawn(async move { compare(Endpoint::over(store).await).await }).await;
    cluster.stop().await.unwrap();
    if let Err(failure) = compared {
        std::panic::resume_unwind(failure.into_panic());
    }
}
