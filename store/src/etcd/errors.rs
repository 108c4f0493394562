//! etcd's own errors, as its clients know them by code and text.

use crate::Error;
use tonic::{Code, Status};

macro_rules! errors {
    ($($name:ident: $code:ident, $text:literal;)*) => {
        $(pub(super) fn $name() -> Status {
            Status::new(Code::$code, concat!("etcdserver: ", $text))
        })*
    };
}

errors! {
    empty_key: InvalidArgument, "key is not provided";
    key_not_found: InvalidArgument, "key not found";
    value_provided: InvalidArgument, "value is provided";
    lease_provided: InvalidArgument, "lease is provided";
    too_many_ops: InvalidArgument, "too many operations in txn request";
    duplicate_key: InvalidArgument, "duplicate key given in txn request";
    invalid_sort_option: InvalidArgument, "invalid sort option";
    request_too_large: InvalidArgument, "request is too large";
    compacted: OutOfRange, "mvcc: required revision has been compacted";
    future_revision: OutOfRange, "mvcc: required revision is a future revision";
    lease_not_found: NotFound, "requested lease not found";
    lease_exists: FailedPrecondition, "lease already exists";
    lease_ttl_too_large: OutOfRange, "too large lease TTL";
    authentication_is_not_enabled: FailedPrecondition, "authentication is not enabled";
    timed_out: Unavailable, "request timed out";
    stopped: Unavailable, "server stopped";
}

/// What the store's errors are to a client of etcd.
pub(super) fn status(error: Error) -> Status {
    match error {
        Error::Compacted { .. } => compacted(),
        Error::Future { .. } => future_revision(),
        Error::TooLarge { .. } | Error::TooManyWrites { .. } => request_too_large(),
        Error::Timeout => timed_out(),
        Error::Closed => stopped(),
        error => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the store failed a request of etcd's");
            Status::unavailable("etcdserver: the store failed")
        }
    }
}
