//! The store that the API server writes to: what goes in is sealed. What comes out is as it is stored, and opened where
//! an object enters the cache (`stored::ingest`), which alone can tell a reader what is wrong with a single object.

use super::Encryption;
use async_trait::async_trait;
use futures::stream::BoxStream;
use slipway_store::{Batch, Change, Error, Page, Range, Record, Revision, Store, Write};
use std::sync::Arc;

pub(crate) struct Sealing {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) encryption: Arc<Encryption>,
}

#[async_trait]
impl Store for Sealing {
    async fn write(&self, mut write: Write) -> Result<Revision, Error> {
        if let Change::Put(value) = write.change {
            write.change = Change::Put(self.encryption.seal(&write.key, value));
        }
        self.store.write(write).await
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Record>, Error> {
        self.store.get(key, at).await
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.store.range(range).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.store.revision().await
    }

    async fn watch(&self, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        self.store.watch(after).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.store.compact(revision).await
    }

    async fn oldest(&self) -> Result<Revision, Error> {
        self.store.oldest().await
    }
}
