//! The store that the API server writes to: what goes in is sealed. What comes out is as it is stored, and opened where
//! an object enters the cache (`stored::ingest`), which alone can tell a reader what is wrong with a single object.

use super::Encryption;
use async_trait::async_trait;
use futures::stream::BoxStream;
use slipway_store::{Batch, Change, Error, Page, Range, Record, Revision, Store, Transaction, Write};
use std::sync::Arc;

pub(crate) struct Sealing {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) encryption: Arc<Encryption>,
}

impl Sealing {
    fn sealed(&self, mut write: Write) -> Write {
        if let Change::Put(value) = write.change {
            write.change = Change::Put(self.encryption.seal(&write.key, value));
        }
        write
    }
}

#[async_trait]
impl Store for Sealing {
    async fn write(&self, write: Write) -> Result<Revision, Error> {
        self.store.write(self.sealed(write)).await
    }

    async fn transact(&self, mut transaction: Transaction) -> Result<Revision, Error> {
        transaction.writes = transaction.writes.into_iter().map(|write| self.sealed(write)).collect();
        self.store.transact(transaction).await
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Record>, Error> {
        self.store.get(key, at).await
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.store.range(range).await
    }

    async fn count(&self, range: Range) -> Result<usize, Error> {
        self.store.count(range).await
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

    async fn size(&self) -> Result<u64, Error> {
        self.store.size().await
    }
}
