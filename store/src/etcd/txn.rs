//! Transactions: compared, carried out on a view, and committed if what was read is still so.

use super::keys::{self, Span};
use super::proto::{
    Compare, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyValue, PutRequest, PutResponse, RangeRequest,
    RangeResponse, Request, RequestOp, Response, ResponseHeader, ResponseOp, TargetUnion, TxnRequest, TxnResponse,
};
use super::read::{PENDING, View, whole};
use super::{errors, leases};
use crate::{Change, Error, Expect, Revision, Store, Write};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// How long a transaction is tried anew when others change what it has read, as etcd's request timeout.
const PATIENCE: Duration = Duration::from_secs(7);

/// The branches that are taken, outermost first, in the order in which the transactions stand.
type Path = VecDeque<bool>;

/// The transaction's answer and the revision that it is of.
pub(super) async fn run(store: &dyn Store, floor: Revision, request: &TxnRequest) -> Result<(TxnResponse, Revision), Status> {
    if let Some(done) = one_key(store, request).await? {
        return Ok(done);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt(store, floor, request).await? {
            Some(done) => return Ok(done),
            None if Instant::now() > deadline => return Err(errors::timed_out()),
            None => tokio::time::sleep(pause.mul_f64(rand::random())).await,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// What most transactions are, as of kube-apiserver: a put or a delete of one key, if that is at a revision. The store
/// does that by itself. `None` if it is another, or the key is elsewhere.
async fn one_key(store: &dyn Store, request: &TxnRequest) -> Result<Option<(TxnResponse, Revision)>, Status> {
    let ([compare], [op]) = (&request.compare[..], &request.success[..]) else { return Ok(None) };
    let Some(TargetUnion::ModRevision(revision)) = compare.target_union else { return Ok(None) };
    let is_equal = compare.result == 0 && compare.target == CompareTarget::Mod as i32 && compare.range_end.is_empty();
    let (key, change, response) = match &op.request {
        Some(Request::RequestPut(put)) if !put.prev_kv && put.lease == 0 && !put.ignore_lease && !put.ignore_value => {
            let value = keys::Value { value: put.value.clone().into(), ..keys::Value::default() };
            (&put.key, Change::Put(value.encode()), Response::ResponsePut(PutResponse::default()))
        }
        Some(Request::RequestDeleteRange(delete)) if !delete.prev_kv && delete.range_end.is_empty() && revision != 0 => {
            let response = DeleteRangeResponse { deleted: 1, ..DeleteRangeResponse::default() };
            (&delete.key, Change::Delete, Response::ResponseDeleteRange(response))
        }
        _ => return Ok(None),
    };
    if !is_equal || *key != compare.key || revision < 0 {
        return Ok(None);
    }
    let expect = if revision == 0 { Expect::Absent } else { Expect::Revision(revision) };
    match store.write(Write { key: keys::stored(key).into(), expect, change }).await {
        Ok(revision) => {
            let responses = vec![ResponseOp { response: Some(response) }];
            let mut response = TxnResponse { header: None, succeeded: true, responses };
            settle(&mut response, revision);
            Ok(Some((response, revision)))
        }
        Err(Error::Exists | Error::NotFound | Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(errors::status(error)),
    }
}

/// `None` if somebody else has changed what was read.
async fn attempt(store: &dyn Store, floor: Revision, request: &TxnRequest) -> Result<Option<(TxnResponse, Revision)>, Status> {
    let mut view = View::new(store);
    let mut path = Path::new();
    compare_all(&mut view, request, &mut path).await?;
    let mut carried = Carried { store, floor, view, path };
    let mut response = carried.txn(request).await?;
    let Carried { mut view, .. } = carried;
    if !view.is_written() {
        let revision = view.revision().await.map_err(errors::status)?;
        settle(&mut response, revision);
        return Ok(Some((response, revision)));
    }
    match view.commit().await {
        Ok(revision) => {
            settle(&mut response, revision);
            Ok(Some((response, revision)))
        }
        Err(Error::Conflict { .. } | Error::Exists | Error::NotFound) => Ok(None),
        Err(error) => Err(errors::status(error)),
    }
}

/// All is compared before anything is carried out, nested transactions too.
async fn compare_all(view: &mut View<'_>, request: &TxnRequest, path: &mut Path) -> Result<(), Status> {
    let mut holds = true;
    for compare in &request.compare {
        holds = holds && compare_one(view, compare).await?;
    }
    path.push_back(holds);
    for op in taken(request, holds) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            Box::pin(compare_all(view, nested, path)).await?;
        }
    }
    Ok(())
}

fn taken(request: &TxnRequest, holds: bool) -> &[RequestOp] {
    if holds { &request.success } else { &request.failure }
}

async fn compare_one(view: &mut View<'_>, compare: &Compare) -> Result<bool, Status> {
    let span = Span::new(&compare.key, &compare.range_end);
    let found = view.find(&span, 0).await.map_err(errors::status)?.kvs;
    if found.is_empty() {
        // Nothing has no value, but 0 for each of its numbers.
        return Ok(compare.target != CompareTarget::Value as i32 && holds(compare, &KeyValue::default()));
    }
    Ok(found.iter().all(|kv| holds(compare, kv)))
}

fn holds(compare: &Compare, kv: &KeyValue) -> bool {
    let number = |kv: i64, asked: Option<i64>| kv.cmp(&asked.unwrap_or(0));
    let asked = |of: fn(&TargetUnion) -> Option<i64>| compare.target_union.as_ref().and_then(of);
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            number(kv.version, asked(|union| if let TargetUnion::Version(n) = union { Some(*n) } else { None }))
        }
        Ok(CompareTarget::Create) => {
            number(kv.create_revision, asked(|union| if let TargetUnion::CreateRevision(n) = union { Some(*n) } else { None }))
        }
        Ok(CompareTarget::Mod) => {
            number(kv.mod_revision, asked(|union| if let TargetUnion::ModRevision(n) = union { Some(*n) } else { None }))
        }
        Ok(CompareTarget::Lease) => {
            number(kv.lease, asked(|union| if let TargetUnion::Lease(n) = union { Some(*n) } else { None }))
        }
        Ok(CompareTarget::Value) => match &compare.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.as_slice().cmp(&[]),
        },
        Err(_) => Ordering::Equal,
    };
    match compare.result {
        0 => ordering.is_eq(),
        1 => ordering.is_gt(),
        2 => ordering.is_lt(),
        3 => ordering.is_ne(),
        _ => true,
    }
}

/// A transaction that is being carried out.
struct Carried<'a> {
    store: &'a dyn Store,
    floor: Revision,
    view: View<'a>,
    path: Path,
}

impl Carried<'_> {
    async fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        let succeeded = self.path.pop_front().unwrap_or(false);
        let mut responses = vec![];
        for op in taken(request, succeeded) {
            let response = match &op.request {
                Some(Request::RequestRange(request)) => Some(Response::ResponseRange(self.range(request).await?)),
                Some(Request::RequestPut(request)) => Some(Response::ResponsePut(put(&mut self.view, request).await?)),
                Some(Request::RequestDeleteRange(request)) => {
                    Some(Response::ResponseDeleteRange(delete_range(&mut self.view, request).await?))
                }
                Some(Request::RequestTxn(request)) => Some(Response::ResponseTxn(Box::pin(self.txn(request)).await?)),
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }

    async fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        if request.revision <= 0 {
            return self.view.range(request).await;
        }
        let newest = self.view.revision().await.map_err(errors::status)?;
        range_at(self.store, self.floor, newest, request).await
    }
}

/// A range that names its revision. `newest`: what is the future begins after this.
pub(super) async fn range_at(
    store: &dyn Store,
    floor: Revision,
    newest: Revision,
    request: &RangeRequest,
) -> Result<RangeResponse, Status> {
    let at = request.revision;
    if at > newest {
        return Err(errors::future_revision());
    }
    if at < floor {
        return Err(errors::compacted());
    }
    let at = if at == newest { at } else { whole(store, at).await.map_err(errors::status)? };
    View::at(store, at).range(request).await
}

pub(super) async fn put(view: &mut View<'_>, request: &PutRequest) -> Result<PutResponse, Status> {
    let key = keys::stored(&request.key);
    let before = view.one(&Span::one(&key)).await.map_err(errors::status)?;
    if (request.ignore_value || request.ignore_lease) && before.is_none() {
        return Err(errors::key_not_found());
    }
    let kept = before.clone().unwrap_or_default();
    let lease = if request.ignore_lease { kept.lease } else { request.lease };
    if lease != 0 && view.own(&leases::key(lease)).await.map_err(errors::status)?.is_none() {
        return Err(errors::lease_not_found());
    }
    let kv = KeyValue {
        key: request.key.clone(),
        create_revision: before.as_ref().map_or(PENDING, |before| before.create_revision),
        mod_revision: PENDING,
        version: kept.version + 1,
        value: if request.ignore_value { kept.value } else { request.value.clone() },
        lease,
    };
    view.put(&key, kv);
    Ok(PutResponse { header: None, prev_kv: before.filter(|_| request.prev_kv) })
}

pub(super) async fn delete_range(view: &mut View<'_>, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
    let found = view.find(&Span::new(&request.key, &request.range_end), 0).await.map_err(errors::status)?.kvs;
    found.iter().for_each(|kv| view.delete(kv));
    let deleted = found.len() as i64;
    Ok(DeleteRangeResponse { header: None, deleted, prev_kvs: if request.prev_kv { found } else { vec![] } })
}

/// Fills in the revision that the transaction got.
pub(super) fn settle(response: &mut TxnResponse, revision: Revision) {
    let header = || Some(ResponseHeader { revision, ..ResponseHeader::default() });
    for op in &mut response.responses {
        match &mut op.response {
            Some(Response::ResponseRange(range)) => {
                range.header = header();
                range.kvs.iter_mut().for_each(|kv| settle_one(kv, revision));
            }
            Some(Response::ResponsePut(put)) => {
                put.header = header();
                put.prev_kv.iter_mut().for_each(|kv| settle_one(kv, revision));
            }
            Some(Response::ResponseDeleteRange(delete)) => {
                delete.header = header();
                delete.prev_kvs.iter_mut().for_each(|kv| settle_one(kv, revision));
            }
            Some(Response::ResponseTxn(nested)) => {
                nested.header = Some(ResponseHeader::default());
                settle(nested, revision);
            }
            None => {}
        }
    }
}

fn settle_one(kv: &mut KeyValue, revision: Revision) {
    for pending in [&mut kv.create_revision, &mut kv.mod_revision] {
        if *pending == PENDING {
            *pending = revision;
        }
    }
}
