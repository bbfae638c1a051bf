//! The same ledger for asynchronous programs.
//!
//! Every call runs on the runtime's threads for blocking work: the ledger waits for the disk, and must not do that on a
//! worker.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::{
    Context, Delivered, Delivery, Entry, Ledger, Look, Query, Receipt, Record, RecordConflict, Settlement, Transfer,
    Which, Write,
};
use crate::event::{ConflictId, LedgerId};
use crate::{Error, ErrorKind, Result};

/// An asynchronous handle of a ledger. Needs a tokio runtime around every call.
#[derive(Clone, Debug)]
pub struct AsyncLedger(Ledger);

impl From<Ledger> for AsyncLedger {
    fn from(ledger: Ledger) -> Self {
        Self(ledger)
    }
}

/// A call that was cancelled with the runtime, or panicked.
fn ended(fault: &tokio::task::JoinError) -> Error {
    let what = if fault.is_cancelled() { "was cancelled with its runtime" } else { "panicked" };
    Error::new(ErrorKind::Cancelled, format!("the call {what}"))
        .with_hint("a write that was queued may be durable: ask for it, or repeat it with an idempotency key")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|fault| ended(&fault))?
}

impl AsyncLedger {
    /// Opens the ledger `main` of the store in a directory; makes both where they are missing.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        blocking(move || Ledger::open(dir)).await.map(Self)
    }

    /// The blocking handle.
    #[must_use]
    pub fn blocking(&self) -> &Ledger {
        &self.0
    }

    /// Runs anything on the blocking handle.
    ///
    /// # Errors
    /// Those of `work`; `cancelled` where the runtime ended before it.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ledger = self.0.clone();
        blocking(move || work(&ledger)).await
    }

    /// As [`Ledger::write`].
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub async fn write(&self, write: Write, context: Context) -> Result<Receipt> {
        self.with(move |ledger| ledger.write(write, &context)).await
    }

    /// As [`Ledger::write_all`].
    ///
    /// # Errors
    /// As [`Ledger::write_all`].
    pub async fn write_all(&self, writes: Vec<Write>, context: Context) -> Result<Receipt> {
        self.with(move |ledger| ledger.write_all(writes, &context)).await
    }

    /// As [`Ledger::put`].
    ///
    /// # Errors
    /// As [`Ledger::put`].
    pub async fn put(&self, collection: &str, key: &str, value: Json, context: Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, super::Act::Put(value)), context).await
    }

    /// As [`Ledger::patch`].
    ///
    /// # Errors
    /// As [`Ledger::patch`].
    pub async fn patch(&self, collection: &str, key: &str, patch: Json, context: Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, super::Act::Patch(patch)), context).await
    }

    /// As [`Ledger::import`].
    ///
    /// # Errors
    /// As [`Ledger::import`].
    pub async fn import(&self, collection: &str, records: Vec<Delivery>, context: Context) -> Result<Vec<Delivered>> {
        let collection = collection.to_owned();
        self.with(move |ledger| ledger.import(&collection, records, &context)).await
    }

    /// As [`Ledger::look`].
    ///
    /// # Errors
    /// As [`Ledger::look`].
    pub async fn look(&self, collection: &str, key: &str, look: Look) -> Result<Option<Record>> {
        let (collection, key) = (collection.to_owned(), key.to_owned());
        self.with(move |ledger| ledger.look(&collection, &key, &look)).await
    }

    /// As [`Ledger::get`].
    ///
    /// # Errors
    /// As [`Ledger::get`].
    pub async fn get(&self, collection: &str, key: &str) -> Result<Option<Record>> {
        self.look(collection, key, Look::default()).await
    }

    /// As [`Ledger::list`].
    ///
    /// # Errors
    /// As [`Ledger::list`].
    pub async fn list(&self, collection: &str, query: Query) -> Result<Vec<Record>> {
        let collection = collection.to_owned();
        self.with(move |ledger| ledger.list(&collection, &query)).await
    }

    /// As [`Ledger::conflicts`], under the collections' own policies.
    ///
    /// # Errors
    /// As [`Ledger::conflicts`].
    pub async fn conflicts(&self, collection: Option<String>, which: Which) -> Result<Vec<RecordConflict>> {
        self.with(move |ledger| ledger.conflicts(collection.as_deref(), which, None)).await
    }

    /// As [`Ledger::resolve`].
    ///
    /// # Errors
    /// As [`Ledger::resolve`].
    pub async fn resolve(
        &self,
        conflict: ConflictId,
        settlement: Settlement,
        version: Option<[u8; 32]>,
        context: Context,
    ) -> Result<Receipt> {
        self.with(move |ledger| ledger.resolve(conflict, settlement, version, &context)).await
    }

    /// As [`Ledger::apply`].
    ///
    /// # Errors
    /// As [`Ledger::apply`].
    pub async fn apply(&self, from: LedgerId, events: Vec<Vec<u8>>) -> Result<Transfer> {
        self.with(move |ledger| ledger.apply(from, &events)).await
    }

    /// Every event after a position, first those that are there, then those that come, through a channel that holds
    /// `ahead` of them. Ends when the receiver is dropped or the store is closed.
    #[must_use]
    pub fn subscribe(&self, after: u64, ahead: usize) -> tokio::sync::mpsc::Receiver<Result<Entry>> {
        let (send, receive) = tokio::sync::mpsc::channel(ahead.max(1));
        let mut subscription = self.0.subscribe(after);
        tokio::task::spawn_blocking(move || {
            while !send.is_closed() && !subscription.is_ended() {
                let next = subscription.next_timeout(std::time::Duration::from_millis(200));
                if next.is_some_and(|entry| send.blocking_send(entry).is_err()) {
                    return;
                }
            }
        });
        receive
    }
}
