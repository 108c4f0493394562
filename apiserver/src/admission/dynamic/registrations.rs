//! The webhooks and policies that are in force, compiled: made anew when an object of theirs has changed.

use crate::admission::policy::Policy;
use crate::admission::webhook::{Clients, Webhook};
use crate::resources::admission_registration::GROUP;
use crate::server::ApiServer;
use crate::stored::{self, Snapshot};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use slipway_store::Revision;
use std::sync::Arc;

#[derive(Default)]
pub struct Compiled {
    /// How many objects there are, and the revision of the youngest: neither stays when one is added, changed or removed.
    state: (usize, Revision),
    /// Of which snapshot they were made.
    at: Revision,
    pub mutating_webhooks: Vec<Webhook>,
    pub validating_webhooks: Vec<Webhook>,
    pub mutating_policies: Vec<Policy>,
    pub validating_policies: Vec<Policy>,
}

impl Compiled {
    pub fn mutates_nothing(&self) -> bool {
        self.mutating_webhooks.is_empty() && self.mutating_policies.is_empty()
    }

    pub fn validates_nothing(&self) -> bool {
        self.validating_webhooks.is_empty() && self.validating_policies.is_empty()
    }
}

#[derive(Default)]
pub struct Registrations {
    current: ArcSwap<Compiled>,
    /// Held while they are compiled, so that this is done once.
    compiling: Mutex<()>,
    pub clients: Clients,
}

impl Registrations {
    pub fn current(&self, server: &ApiServer) -> Arc<Compiled> {
        let snapshot = server.snapshot();
        let wanted = state(&snapshot);
        let known = self.current.load();
        if known.state == wanted {
            return Arc::clone(&known);
        }
        let _compiling = self.compiling.lock();
        let known = self.current.load();
        // Who read an older snapshot takes what another made of a younger one.
        if known.state == wanted || known.at > snapshot.revision {
            return Arc::clone(&known);
        }
        let compiled = Arc::new(compile(&snapshot, wanted));
        self.current.store(Arc::clone(&compiled));
        compiled
    }
}

fn prefix() -> String {
    format!("/{GROUP}/")
}

fn state(snapshot: &Snapshot) -> (usize, Revision) {
    static PREFIX: std::sync::LazyLock<String> = std::sync::LazyLock::new(prefix);
    stored::below(snapshot, &PREFIX, "").fold((0, 0), |(count, newest), entry| (count + 1, newest.max(entry.mod_revision)))
}

/// In the order of their names, as in Kubernetes.
fn objects(snapshot: &Snapshot, plural: &str) -> Vec<Value> {
    let prefix = format!("/{GROUP}/{plural}/");
    let entries = stored::below(snapshot, &prefix, "");
    entries.filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect()
}

fn compile(snapshot: &Snapshot, state: (usize, Revision)) -> Compiled {
    let webhooks = |plural: &str| objects(snapshot, plural).iter().flat_map(Webhook::all).collect::<Vec<_>>();
    let policies = |plural: &str, bindings: &str| {
        let bindings = objects(snapshot, bindings);
        let policies: Vec<Policy> = objects(snapshot, plural).iter().map(|policy| Policy::compile(policy, &bindings)).collect();
        policies.into_iter().filter(Policy::is_bound).collect::<Vec<_>>()
    };
    Compiled {
        state,
        at: snapshot.revision,
        mutating_webhooks: webhooks("mutatingwebhookconfigurations"),
        validating_webhooks: webhooks("validatingwebhookconfigurations"),
        mutating_policies: policies("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
        validating_policies: policies("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
    }
}
