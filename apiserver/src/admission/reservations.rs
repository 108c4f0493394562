//! What was taken for a write that has not happened yet.

use crate::server::ApiServer;
use slipway_store::{Change, Expect, Revision, Store, Write};
use std::sync::Arc;

/// Keys that were written for an object before the object itself: given back unless `keep` is called. Should even that
/// fail, `repair` finds them.
#[must_use = "what was reserved is given back when this is dropped"]
pub struct Reservations {
    store: Arc<dyn Store>,
    taken: Vec<(Arc<str>, Revision)>,
}

impl Reservations {
    pub(super) fn new(server: &ApiServer) -> Self {
        Reservations { store: Arc::clone(&server.store), taken: vec![] }
    }

    pub(super) fn add(&mut self, key: Arc<str>, revision: Revision) {
        self.taken.push((key, revision));
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

async fn give_back(store: &dyn Store, taken: Vec<(Arc<str>, Revision)>) {
    for (key, revision) in taken {
        let write = Write { key: Arc::clone(&key), expect: Expect::Revision(revision), change: Change::Delete };
        if let Err(error) = store.write(write).await {
            tracing::warn!(%key, %error, "a reservation could not be given back: the next repair will");
        }
    }
}
