//! After the keys were changed: stores anew, at the server's start, what lies under another key than the first.

use crate::server::ApiServer;
use crate::stored::{self, Entry};
use futures::StreamExt;
use serde_json::Value;
use slipway_store::{Change, Error, Expect, Write};
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// Few, so that what others write is not held up.
const AT_ONCE: usize = 8;

/// Ends when all is done, when the server is closed, or when the store fails: then the next start goes on.
pub(crate) async fn run(server: Weak<ApiServer>, closing: CancellationToken) {
    let Some(server) = server.upgrade() else { return };
    if !server.options.encryption.is_configured() {
        return;
    }
    let outdated: Vec<Arc<Entry>> =
        server.snapshot().objects.values().filter(|entry| entry.attributes.outdated).cloned().collect();
    if outdated.is_empty() {
        return;
    }
    tracing::info!(objects = outdated.len(), "storing objects anew under the first key of the encryption configuration");
    let store = Arc::clone(&server.store);
    drop(server);
    let writes = futures::stream::iter(outdated).map(|entry| {
        let store = Arc::clone(&store);
        async move {
            let object: Value = serde_json::from_slice(&entry.bytes).unwrap_or_default();
            let change = Change::Put(stored::encode(&object));
            let write = Write { key: Arc::clone(&entry.key), expect: Expect::Revision(entry.mod_revision), change };
            match store.write(write).await {
                // Whoever wrote it meanwhile has sealed it under the first key.
                Ok(_) | Err(Error::Conflict { .. } | Error::NotFound) => Ok(()),
                Err(error) => Err(error),
            }
        }
    });
    let mut writes = writes.buffer_unordered(AT_ONCE);
    let mut written = 0_usize;
    while let Some(Some(outcome)) = closing.run_until_cancelled(writes.next()).await {
        if let Err(error) = outcome {
            tracing::warn!(%error, written, "objects could not be stored anew; the next start goes on with it");
            return;
        }
        written += 1;
    }
    tracing::info!(written, "what is encrypted is under the first key now");
}
