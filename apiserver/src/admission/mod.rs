//! What is asked of every write between decoding and storing: mutating plugins first, then validating ones. One plugin
//! a file, called in the order of the lists here.

use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::server::ApiServer;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A subresource that opens a connection (exec, proxy, …).
    Connect,
}

/// One write, as the plugins see it.
pub struct AdmissionContext<'a> {
    pub server: &'a ApiServer,
    pub user: &'a User,
    pub strategy: &'a dyn Strategy,
    pub operation: Operation,
    /// Empty for kinds of the cluster.
    pub namespace: &'a str,
    /// Empty on create with `generateName`.
    pub name: &'a str,
    /// As `status`; empty if the object itself is written.
    pub subresource: &'a str,
    /// What is there now; `None` on create.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

/// Runs the mutating plugins: after decoding and defaulting, before the kind's `prepare_*` hooks. On an update it may
/// run several times for one request (once an attempt), so plugins must be repeatable.
pub async fn admit(_context: &AdmissionContext<'_>, _object: &mut Value) -> Result<(), Status> {
    Ok(())
}

/// Runs the validating plugins: after the kind's own validation, directly before the object is stored. For a delete
/// `object` is what is going to be deleted.
pub async fn validate(_context: &AdmissionContext<'_>, _object: &Value) -> Result<(), Status> {
    Ok(())
}
