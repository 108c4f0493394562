//! A snapshot as etcd's own tools read it: a bbolt file of the keys at one revision, and its SHA-256.
//!
//! `etcdctl snapshot status` tells what is in it and `etcdctl snapshot restore` makes the data of an etcd out of it.

use super::bolt::{Bolt, Entry};
use super::keys::{self, Span};
use super::proto::KeyValue;
use super::{leases, read};
use crate::{Error, Range, Record, Revision, Store};
use bytes::{Buf, Bytes};
use prost::Message;
use sha2::{Digest, Sha256};

const PAGE_RECORDS: usize = 2_000;
/// etcd's buckets. Those that are empty are expected too.
const BUCKETS: [&str; 10] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"];

pub(super) struct Contents {
    revision: Revision,
    pub(super) kvs: Vec<KeyValue>,
    /// Each with its time to live.
    leases: Vec<(i64, i64)>,
}

/// etcd's leasepb.Lease.
#[derive(Clone, PartialEq, Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

async fn records(store: &dyn Store, start: &str, end: &str, at: Revision, mut take: impl FnMut(&Record)) -> Result<(), Error> {
    let mut range = Range { start: start.into(), end: end.into(), at: Some(at), limit: PAGE_RECORDS };
    loop {
        let page = store.range(range.clone()).await?;
        page.records.iter().for_each(&mut take);
        match page.records.last() {
            Some(last) if page.more => range.start = format!("{}\u{1}", last.key),
            _ => return Ok(()),
        }
    }
}

pub(super) async fn read(store: &dyn Store, at: Revision) -> Result<Contents, Error> {
    let mut contents = Contents { revision: at, kvs: vec![], leases: vec![] };
    let Span { start, end } = Span::new(&[0], &[0]);
    records(store, &start, &end, at, |record| contents.kvs.extend(read::key_value(record))).await?;
    let (start, end) = (keys::LEASES, keys::LEASES.replace('/', "0"));
    records(store, start, &end, at, |record| {
        contents.leases.extend(leases::id(&record.key).zip(record.value.clone().try_get_i64().ok()));
    })
    .await?;
    Ok(contents)
}

/// As etcd orders changes: by revision, then by their place in the transaction.
fn revision(main: Revision, sub: i64) -> Vec<u8> {
    [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat()
}

pub(super) fn file(contents: Contents) -> Result<Bytes, super::bolt::Error> {
    let Contents { revision: at, mut kvs, mut leases } = contents;
    kvs.sort_by(|a, b| (a.mod_revision, &a.key).cmp(&(b.mod_revision, &b.key)));
    leases.sort_by_key(|(id, _)| id.to_be_bytes());
    let (mut bolt, mut roots) = (Bolt::new(), vec![]);
    for bucket in BUCKETS {
        let entries = match bucket {
            "key" => {
                let (mut entries, mut last, mut sub) = (vec![], 0, 0);
                for kv in &kvs {
                    sub = if kv.mod_revision == last { sub + 1 } else { 0 };
                    last = kv.mod_revision;
                    entries.push(Entry::new(revision(last, sub), kv.encode_to_vec()));
                }
                entries
            }
            "lease" => {
                let entry =
                    |(id, ttl): &(i64, i64)| Entry::new(id.to_be_bytes().to_vec(), Lease { id: *id, ttl: *ttl }.encode_to_vec());
                leases.iter().map(entry).collect()
            }
            // What came before is not in it, which for etcd is as if it was compacted; and the revision goes on from there.
            "meta" => vec![
                Entry::new(b"consistent_index".to_vec(), 1u64.to_be_bytes().to_vec()),
                Entry::new(b"finishedCompactRev".to_vec(), revision(at, 0)),
            ],
            _ => vec![],
        };
        let root = bolt.tree(entries)?;
        roots.push(Entry::bucket(bucket, root));
    }
    let file = bolt.finish(roots)?;
    let hash = Sha256::digest(&file);
    Ok([&file[..], &hash].concat().into())
}
