//! What is wrong with a request by itself, in the order in which etcd finds it.

use super::errors;
use super::keys::{KEY_BYTES_MAX, Span, stored};
use super::proto::{DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp, TxnRequest};
use crate::VALUE_BYTES_MAX;
use prost::Message;
use std::collections::HashSet;
use tonic::Status;

/// Operations of a transaction, as of etcd's --max-txn-ops.
const OPS_MAX: usize = 128;

pub(super) fn range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::empty_key());
    }
    if !(0..=2).contains(&request.sort_order) || !(0..=4).contains(&request.sort_target) {
        return Err(errors::invalid_sort_option());
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(errors::empty_key());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(errors::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(errors::lease_provided());
    }
    if stored(&request.key).len() > KEY_BYTES_MAX {
        return Err(errors::request_too_large());
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(errors::empty_key()) } else { Ok(()) }
}

pub(super) fn size(request: &impl Message) -> Result<(), Status> {
    if request.encoded_len() > VALUE_BYTES_MAX { Err(errors::request_too_large()) } else { Ok(()) }
}

pub(super) fn txn(request: &TxnRequest) -> Result<(), Status> {
    ops(request, OPS_MAX)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn ops(request: &TxnRequest, most: usize) -> Result<(), Status> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = most.checked_sub(count) else { return Err(errors::too_many_ops()) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(errors::empty_key());
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            // Each level costs one at least, so this ends.
            Some(Request::RequestTxn(request)) => ops(request, left)?,
            None => return Err(errors::key_not_found()),
        }
    }
    Ok(())
}

type Puts<'a> = HashSet<&'a [u8]>;

/// No key may be written twice, unless by branches of which only one is taken.
fn writes(ops: &[RequestOp]) -> Result<(Puts<'_>, Vec<Span>), Status> {
    let mut deletes: Vec<Span> = vec![];
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            deletes.push(Span::new(&request.key, &request.range_end));
        }
    }
    let is_deleted = |deletes: &[Span], key: &[u8]| {
        let key = stored(key);
        deletes.iter().any(|span| span.contains(&key))
    };
    let mut puts = Puts::new();
    for op in ops {
        let Some(Request::RequestTxn(request)) = &op.request else { continue };
        let (then_puts, then_deletes) = writes(&request.success)?;
        let (else_puts, else_deletes) = writes(&request.failure)?;
        let taken = then_puts.iter().any(|key| puts.contains(key) || is_deleted(&deletes, key));
        let taken = taken || else_puts.iter().any(|key| puts.contains(key) || is_deleted(&deletes, key));
        if taken {
            return Err(errors::duplicate_key());
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        let Some(Request::RequestPut(request)) = &op.request else { continue };
        if is_deleted(&deletes, &request.key) || !puts.insert(&request.key) {
            return Err(errors::duplicate_key());
        }
    }
    Ok((puts, deletes))
}
