//! What was taken for a write that has not happened yet.

use super::resource_quota;
use crate::server::ApiServer;
use slipway_api::quota::Amounts;
use slipway_store::{Change, Expect, Revision, Store, Write};
use std::sync::Arc;

/// Keys that were written for an object before the object itself, and what was charged to quotas: given back unless `keep`
/// is called. Should even that fail, `repair` finds the keys, and the quotas' controller the charges.
#[must_use = "what was reserved is given back when this is dropped"]
pub struct Reservations {
    store: Arc<dyn Store>,
    taken: Vec<Taken>,
    charged: bool,
}

enum Taken {
    Key { key: Arc<str>, revision: Revision },
    Charge { quota: Arc<str>, amounts: Amounts },
}

impl Reservations {
    pub(super) fn new(server: &ApiServer) -> Self {
        Reservations { store: Arc::clone(&server.store), taken: vec![], charged: false }
    }

    pub(super) fn add(&mut self, key: Arc<str>, revision: Revision) {
        self.taken.push(Taken::Key { key, revision });
    }

    /// What was charged to the quota of that key.
    pub(super) fn add_charge(&mut self, quota: Arc<str>, amounts: Amounts) {
        self.taken.push(Taken::Charge { quota, amounts });
    }

    /// Whether the quotas have been asked: an object whose generated name was taken is not charged a second time.
    pub(super) fn is_charged(&self) -> bool {
        self.charged
    }

    pub(super) fn set_charged(&mut self) {
        self.charged = true;
    }

    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The object was stored: what was reserved is its own now.
    pub fn keep(mut self) {
        self.taken.clear();
    }

    /// The object was not stored.
    pub async fn release(mut self) {
        give_back(&*self.store, std::mem::take(&mut self.taken)).await;
    }
}

impl Drop for Reservations {
    /// For a request that was cut off half-way.
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if let (false, Ok(runtime)) = (taken.is_empty(), tokio::runtime::Handle::try_current()) {
            let store = Arc::clone(&self.store);
            runtime.spawn(async move { give_back(&*store, taken).await });
        }
    }
}

async fn give_back(store: &dyn Store, taken: Vec<Taken>) {
    for taken in taken {
        let (key, given) = match taken {
            Taken::Key { key, revision } => {
                let write = Write { key: Arc::clone(&key), expect: Expect::Revision(revision), change: Change::Delete };
                (key, store.write(write).await.map(drop))
            }
            Taken::Charge { quota, amounts } => {
                let given = resource_quota::give_back(store, &quota, &amounts).await;
                (quota, given)
            }
        };
        if let Err(error) = given {
            tracing::warn!(%key, %error, "a reservation could not be given back: the next repair will");
        }
    }
}
