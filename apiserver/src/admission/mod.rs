//! What is asked of every write between decoding and storing: mutating plugins first, then validating ones. One plugin
//! a file, called in the order of the list here.
//!
//! That a namespace exists and is not on its way out is asked by the verbs themselves (`verbs::create`).

mod allocation;
mod certificate;
mod default_class;
mod default_toleration_seconds;
mod device_admin_access;
pub mod dynamic;
mod limit_ranger;
mod node_restriction;
mod owner_references;
mod pod_resize;
mod pod_security;
pub mod policy;
mod priority;
mod requestor;
mod reservations;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_protection;
mod volume_claim_resize;
pub mod webhook;

pub use allocation::repair;
pub use certificate::check_signer;
pub use node_restriction::{check_eviction, check_token};
pub use reservations::Reservations;
pub use resource_quota::Charging;

use crate::http::authenticate::User;
use crate::http::error::{Status, qualified};
use crate::kind::{Names, Strategy};
use crate::server::ApiServer;
use crate::verbs::status_of;
use async_trait::async_trait;
use serde_json::{Value, json};
use slipway_store::Revision;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// One question about a write.
#[async_trait]
trait Plugin: Send + Sync {
    /// Changes the object. On an update it may be called once an attempt, so it must be repeatable.
    async fn admit(
        &self,
        _context: &AdmissionContext<'_>,
        _object: &mut Value,
        _reservations: &mut Reservations,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Only looks at what is going to be written; for a delete, at what is going to be deleted.
    async fn validate(&self, _context: &AdmissionContext<'_>, _object: &Value) -> Result<(), Status> {
        Ok(())
    }

    /// Whether objects say what it does: those before it are asked again when it changed something.
    fn is_dynamic(&self) -> bool {
        false
    }
}

/// In the order of kube-apiserver; allocation comes last, when nothing else refuses the object any more. What is used is
/// charged to quotas after all of them (see `charge`).
static PLUGINS: &[&dyn Plugin] = &[
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &pod_security::PodSecurity,
    &requestor::Requestor,
    &certificate::Certificate,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &default_class::DefaultStorageClass,
    &storage_protection::StorageObjectInUseProtection,
    &owner_references::OwnerReferencesPermissionEnforcement,
    &volume_claim_resize::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &default_class::DefaultIngressClass,
    &pod_resize::PodResizeValidator,
    &dynamic::Mutating,
    &allocation::Allocation,
    &device_admin_access::DeviceAdminAccess,
    &dynamic::Validating,
];

/// Kinds that decide what becomes of others: who has written one finds it obeyed by the next request to this server.
const RULES: [(&str, &str); 8] = [
    ("", "limitranges"),
    ("", "namespaces"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("networking.k8s.io", "ingressclasses"),
    ("node.k8s.io", "runtimeclasses"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "storageclasses"),
];

/// The newest revision at which this server has written one of `RULES`.
#[derive(Default)]
pub struct Ruled(AtomicI64);

impl Ruled {
    /// Is told of everything that was stored.
    pub fn stored(&self, names: &Names, revision: Revision) {
        if RULES.contains(&(names.group, names.plural)) {
            self.0.fetch_max(revision, Ordering::AcqRel);
        }
    }

    /// The plugins look at the cache, which may be a moment behind.
    async fn seen(&self, context: &AdmissionContext<'_>) -> Result<(), Status> {
        let revision = self.0.load(Ordering::Acquire);
        let cache = &context.server.cache;
        if cache.snapshot().revision < revision {
            let reached = cache.at_least(revision).await;
            reached.map_err(|error| status_of(error, context.strategy.names(), context.name))?;
        }
        Ok(())
    }
}

/// Runs the mutating plugins: after decoding and defaulting, before the kind's `prepare_*` hooks. What was reserved for
/// the object must be kept once it is stored, else it is given back.
pub async fn admit(context: &AdmissionContext<'_>, object: &mut Value) -> Result<Reservations, Status> {
    context.server.ruled.seen(context).await?;
    let mut reservations = Reservations::new(context.server);
    for plugin in PLUGINS {
        if let Err(status) = plugin.admit(context, object, &mut reservations).await {
            reservations.release().await;
            return Err(status);
        }
    }
    if let Err(status) = crate::authorization::rbac::escalation::check(context, object) {
        reservations.release().await;
        return Err(status);
    }
    Ok(reservations)
}

/// Runs the validating plugins: after the kind's own validation, directly before the object is stored. For a delete
/// `object` is what is going to be deleted.
pub async fn validate(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    for plugin in PLUGINS {
        plugin.validate(context, object).await?;
    }
    Ok(())
}

/// Charges what the object uses to the quotas of its namespace: after all have been asked, as the last thing before the
/// object is stored.
pub async fn charge(context: &AdmissionContext<'_>, object: &Value, reservations: &mut Reservations) -> Result<(), Status> {
    resource_quota::charge(context, object, reservations).await
}

/// Is told of every update and deletion that was stored: gives back what the old object held and the new one does not.
pub async fn written(server: &ApiServer, strategy: &dyn Strategy, old: &Value, new: Option<&Value>) {
    allocation::written(server, strategy, old, new).await;
}

impl AdmissionContext<'_> {
    /// Whether it is the object itself that is written, and it is of this kind.
    fn writes(&self, group: &str, plural: &str, operations: &[Operation]) -> bool {
        let names = self.strategy.names();
        self.subresource.is_empty() && (names.group, names.plural) == (group, plural) && operations.contains(&self.operation)
    }

    /// Whether it is a resize of a pod.
    fn resizes(&self) -> bool {
        let names = self.strategy.names();
        (names.group, names.plural, self.subresource) == ("", "pods", "resize") && self.operation == Operation::Update
    }

    /// 403 in Kubernetes' words: `pods "web" is forbidden: why`.
    pub(crate) fn forbidden(&self, object: &Value, why: &str) -> Status {
        let names = self.strategy.names();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let name = [self.name, text("generateName"), text("name")].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let mut details = json!({"name": name, "kind": names.plural});
        if !names.group.is_empty() {
            details["group"] = names.group.into();
        }
        let message = format!("{} \"{name}\" is forbidden: {why}", qualified(names.plural, names.group));
        Status::forbidden(message).with_details(details)
    }
}
