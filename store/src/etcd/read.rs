//! Reads as of one revision, with what a transaction is about to write laid over them.

use super::errors;
use super::keys::{self, Span, Value};
use super::proto::{KeyValue, RangeRequest, RangeResponse};
use crate::{Change, Error, Expect, Guard, Range, Record, Revision, Store, Transaction, Write};
use bytes::{Buf, Bytes};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// Stands for the revision that a transaction is going to get.
pub(super) const PENDING: Revision = Revision::MAX;

const SORT_NONE: i32 = 0;
const SORT_DESCEND: i32 = 2;
const SORT_KEY: i32 = 0;

/// A view of the users' keys. All of it is read at one revision, which the first read settles.
pub(super) struct View<'a> {
    store: &'a dyn Store,
    at: Option<Revision>,
    guards: Vec<Span>,
    written: BTreeMap<Arc<str>, Option<KeyValue>>,
}

/// What a range held.
pub(super) struct Found {
    pub(super) kvs: Vec<KeyValue>,
    pub(super) count: usize,
}

pub(super) fn key_value(record: &Record) -> Option<KeyValue> {
    let Value { value, lease, tail } = Value::decode(&record.value);
    Some(KeyValue {
        key: keys::original(&record.key)?,
        create_revision: record.create_revision,
        mod_revision: record.mod_revision + Revision::from(tail),
        version: record.version,
        value: value.into(),
        lease,
    })
}

/// A revision whose changes are all of a transaction or none: what is asked for, or the one before the transaction that
/// it is in the middle of.
pub(super) async fn whole(store: &dyn Store, at: Revision) -> Result<Revision, Error> {
    match transaction_before(store, at).await? {
        Some((begins, ends)) if at < ends => Ok(begins - 1),
        _ => Ok(at),
    }
}

/// First and last revision of the last transaction of several changes that began at or before `at`.
pub(super) async fn transaction_before(store: &dyn Store, at: Revision) -> Result<Option<(Revision, Revision)>, Error> {
    let record = store.get(keys::TRANSACTION, Some(at)).await?;
    Ok(record.map(|record| (record.mod_revision, record.mod_revision + changes(&record.value))))
}

/// How many changes follow this first one of a transaction.
pub(super) fn changes(value: &Bytes) -> Revision {
    value.clone().try_get_u32().map_or(0, Revision::from)
}

impl<'a> View<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        View { store, at: None, guards: vec![], written: BTreeMap::new() }
    }

    /// The revision that this is a view of.
    pub(super) async fn revision(&mut self) -> Result<Revision, Error> {
        if self.at.is_none() {
            self.at = Some(self.store.revision().await?);
        }
        self.at.ok_or(Error::Closed)
    }

    /// Whether anything was written.
    pub(super) fn is_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// What is stored in these keys now. `limit`: as of `Range`.
    async fn records(&mut self, span: &Span, limit: usize) -> Result<crate::Page, Error> {
        let range = Range { start: span.start.to_string(), end: span.end.to_string(), at: self.at, limit };
        let page = self.store.range(range).await?;
        self.at.get_or_insert(page.revision);
        self.guards.push(span.clone());
        Ok(page)
    }

    /// The one record under a key of the face's own.
    pub(super) async fn own(&mut self, key: &str) -> Result<Option<Record>, Error> {
        Ok(self.records(&Span::one(key), 0).await?.records.pop())
    }

    /// What these keys hold, with what was written by this transaction. No more than `limit` if that is not 0.
    pub(super) async fn find(&mut self, span: &Span, limit: usize) -> Result<Found, Error> {
        if span.is_empty() {
            return Ok(Found { kvs: vec![], count: 0 });
        }
        let page = self.records(span, if self.is_written() { 0 } else { limit }).await?;
        let mut kvs: Vec<KeyValue> = page.records.iter().filter_map(key_value).collect();
        if self.is_written() {
            let mut all: BTreeMap<Vec<u8>, KeyValue> = kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
            for (key, kv) in self.written.iter().filter(|(key, _)| span.contains(key)) {
                let Some(key) = keys::original(key) else { continue };
                match kv {
                    Some(kv) => all.insert(key, kv.clone()),
                    None => all.remove(&key),
                };
            }
            kvs = all.into_values().collect();
        }
        let count = match page.more {
            false => kvs.len(),
            true => {
                let (start, end) = (span.start.to_string(), span.end.to_string());
                self.store.count(Range { start, end, at: self.at, limit: 0 }).await?
            }
        };
        if limit > 0 {
            kvs.truncate(limit);
        }
        Ok(Found { kvs, count })
    }

    pub(super) async fn one(&mut self, span: &Span) -> Result<Option<KeyValue>, Error> {
        Ok(self.find(span, 0).await?.kvs.pop())
    }

    pub(super) fn put(&mut self, key: &str, kv: KeyValue) {
        self.written.insert(key.into(), Some(kv));
    }

    /// `kv` is what was found there.
    pub(super) fn delete(&mut self, kv: &KeyValue) {
        let key: Arc<str> = keys::stored(&kv.key).into();
        if kv.create_revision == PENDING {
            // It began in this very transaction.
            self.written.remove(&key);
        } else {
            self.written.insert(key, None);
        }
    }

    /// Makes what was written happen, if nothing that was read has changed; the answer is the revision of it all.
    pub(super) async fn commit(self) -> Result<Revision, Error> {
        let View { store, at, guards, written } = self;
        let since = at.unwrap_or_default();
        let guards = guards.into_iter().map(|Span { start, end }| Guard { start, end, since });
        let several = written.len() > 1;
        let mut tail = written.len() as u32;
        let mut writes = vec![];
        if several {
            let count = Bytes::copy_from_slice(&tail.to_be_bytes());
            writes.push(Write { key: keys::TRANSACTION.into(), expect: Expect::Any, change: Change::Put(count) });
        }
        for (key, kv) in written {
            tail -= 1;
            let change = match kv {
                Some(kv) => Change::Put(Value { value: kv.value.into(), lease: kv.lease, tail }.encode()),
                None => Change::Delete,
            };
            writes.push(Write { key, expect: Expect::Any, change });
        }
        store.transact(Transaction { guards: guards.collect(), writes }).await
    }

    pub(super) async fn range(&mut self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        let span = Span::new(&request.key, &request.range_end);
        let filters =
            [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
        let is_whole = request.sort_order != SORT_NONE || filters.iter().any(|filter| *filter != 0);
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let fetch = if is_whole || limit == 0 { 0 } else { limit + 1 };
        let Found { mut kvs, count } = if request.count_only {
            Found { kvs: vec![], count: self.count(&span).await.map_err(errors::status)? }
        } else {
            self.find(&span, fetch).await.map_err(errors::status)?
        };
        let [min_mod, max_mod, min_create, max_create] = filters;
        kvs.retain(|kv| {
            (max_mod == 0 || kv.mod_revision <= max_mod)
                && (min_mod == 0 || kv.mod_revision >= min_mod)
                && (max_create == 0 || kv.create_revision <= max_create)
                && (min_create == 0 || kv.create_revision >= min_create)
        });
        sort(&mut kvs, request);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse { header: None, kvs, more, count: count as i64 })
    }

    async fn count(&mut self, span: &Span) -> Result<usize, Error> {
        if span.is_empty() {
            return Ok(0);
        }
        if self.is_written() {
            return Ok(self.find(span, 0).await?.count);
        }
        let at = Some(self.revision().await?);
        self.guards.push(span.clone());
        self.store.count(Range { start: span.start.to_string(), end: span.end.to_string(), at, limit: 0 }).await
    }

    /// A view of another revision of the same store, for a range that names one.
    pub(super) fn at(store: &'a dyn Store, revision: Revision) -> Self {
        View { at: Some(revision), ..View::new(store) }
    }
}

/// By version, revision of creation, of change, or by value; in both directions what is equal stays in the order of the keys.
fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    let order = |one: &KeyValue, other: &KeyValue| match request.sort_target {
        SORT_KEY => one.key.cmp(&other.key),
        1 => one.version.cmp(&other.version),
        2 => one.create_revision.cmp(&other.create_revision),
        3 => one.mod_revision.cmp(&other.mod_revision),
        _ => one.value.cmp(&other.value),
    };
    if request.sort_order == SORT_DESCEND {
        kvs.sort_by(|one, other| order(other, one));
    } else if request.sort_target != SORT_KEY {
        kvs.sort_by(order);
    }
}
