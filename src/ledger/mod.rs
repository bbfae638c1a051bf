//! Ledgers: the durable log of a tenant and everything derived from it.
//!
//! ```text
//! draft → admit → journal.append (the commit point) → derive → project → rows → publish → receipt
//! ```
//!
//! One writer thread per store makes every change; readers see rows and the log, and never wait for it.
//!
//! Invariant: the log is the only truth. Rows, documents' snapshots and counts can be deleted at any time.

#[cfg(feature = "server")]
mod apart;
mod archive;
#[cfg(feature = "tokio")]
mod asynchronous;
mod audit;
mod backup;
mod cache;
#[cfg(feature = "server")]
mod changes;
mod clock;
mod collection;
mod constraints;
mod cursor;
mod digest;
mod draft;
mod draft_kinds;
mod dry_run;
mod edit;
mod flushes;
mod history;
mod log;
#[cfg(any(test, feature = "testing"))]
mod machine;
mod migrate;
mod packing;
mod peer;
mod read;
#[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "only sessions over channels follow a log"))]
mod recent;
mod repair;
mod replicate;
pub mod request;
mod revert;
mod rewrite;
mod row;
mod seal;
mod settle;
mod shared;
mod state;
mod store;
mod subscribe;
#[cfg(test)]
mod tests;
mod trying;
mod violations;
mod waiting;
mod workflow;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;
use tracing::info_span;

#[cfg(feature = "server")]
pub(crate) use apart::{Apart, What};
pub use archive::ArchiveInfo;
#[cfg(feature = "tokio")]
pub use asynchronous::AsyncLedger;
pub use backup::{BackupInfo, BackupOptions, Restored, verify_backup};
#[cfg(feature = "server")]
pub(crate) use changes::Changed;
pub use collection::Collection;
pub use dry_run::{DryReceipt, DryRun, Planned};
pub use flushes::Flushed;
#[cfg(any(test, feature = "testing"))]
pub use machine::Machine;
#[cfg(feature = "tokio")]
pub use peer::{Carrier, Channels, Growth};
pub use peer::{Edge, Peer, Room, SessionOptions, Traffic, Writers};
pub use request::*;
pub use rewrite::{Again, Rewritten};
pub use store::{Options, Store};
pub use subscribe::Subscription;
pub use workflow::{Annotation, ConflictCount, ConflictStep, Happening};

use crate::event::{EventId, LedgerId, RunId, WriterId};
use crate::{Error, ErrorKind, Result};
use replicate::Foreign;
use request::{Resolving, Reverting};
use state::RecordKey;

/// One tenant's ledger in a store. Handles are cheap to clone and may be used from any thread.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    name: String,
}

/// Writes that are made all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

impl Batch {
    /// Adds a write.
    pub fn write(&mut self, write: Write) -> &mut Self {
        self.writes.push(write);
        self
    }

    fn act(&mut self, collection: &str, key: &str, act: Act) -> &mut Self {
        self.write(Write::new(collection, key, act))
    }

    /// Makes a record this object.
    pub fn put(&mut self, collection: &str, key: &str, value: Json) -> &mut Self {
        self.act(collection, key, Act::Put(value))
    }

    /// Applies a merge patch to a record.
    pub fn patch(&mut self, collection: &str, key: &str, patch: Json) -> &mut Self {
        self.act(collection, key, Act::Patch(patch))
    }

    /// Applies edits to a record.
    pub fn edit(&mut self, collection: &str, key: &str, edits: Vec<Edit>) -> &mut Self {
        self.act(collection, key, Act::Edit(edits))
    }

    /// Deletes a record.
    pub fn delete(&mut self, collection: &str, key: &str) -> &mut Self {
        self.act(collection, key, Act::Delete)
    }

    /// Brings a record back.
    pub fn undelete(&mut self, collection: &str, key: &str) -> &mut Self {
        self.act(collection, key, Act::Undelete)
    }
}

impl Ledger {
    pub(crate) fn new(store: Store, name: String) -> Self {
        Self { store, name }
    }

    /// Opens the ledger `main` of the store in a directory; makes both where they are missing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Store::open(dir)?.ledger_or_create("main")
    }

    /// The ledger's name, id and writer.
    #[must_use]
    pub fn info(&self) -> LedgerInfo {
        let (id, writer) = self.ids();
        LedgerInfo { name: self.name.clone(), id, writer }
    }

    fn ids(&self) -> (LedgerId, WriterId) {
        self.store.opened(&self.name).unwrap_or((LedgerId([0; 16]), WriterId([0; 16])))
    }

    fn id(&self) -> LedgerId {
        self.ids().0
    }

    /// The store that the ledger is in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Typed access to a collection by serde.
    #[must_use]
    pub fn collection<T>(&self, name: impl Into<String>) -> Collection<T> {
        Collection::new(self.clone(), name.into())
    }

    /// A random id for an execution.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new_run(&self) -> Result<RunId> {
        (self.store.shared().world.random)().map(RunId)
    }

    // --- writing -------------------------------------------------------------------------------------------------

    /// Makes one change of one record. Returns once it is durable.
    ///
    /// # Errors
    /// `validation`, `not_found`, `conflict`, `too_large`, `idempotency_mismatch` without any effect; `storage` where the
    /// disk failed.
    pub fn write(&self, write: Write, context: &Context) -> Result<Receipt> {
        self.write_all(vec![write], context)
    }

    /// Makes all changes or none. Returns once they are durable.
    ///
    /// # Errors
    /// As [`Ledger::write`]; the message says which write is at fault.
    pub fn write_all(&self, writes: Vec<Write>, context: &Context) -> Result<Receipt> {
        let id = self.id();
        let span = info_span!("append", ledger = %id, collection = single_collection(&writes), writes = writes.len());
        let _entered = span.enter();
        let (context, writes) = (context.clone(), Arc::new(writes));
        // What the caller made is let go of in the caller's thread: the writer has other things to do.
        let lent = writes.clone();
        let done = self.store.queue().run(id, move |writing| writing.write_all(&lent, &context));
        drop(writes);
        done
    }

    /// Makes changes of records of the ledger's own collections too: devices, runs, errors.
    #[cfg(feature = "server")]
    pub(crate) fn write_own(&self, writes: Vec<Write>, context: &Context) -> Result<Receipt> {
        let context = context.clone();
        self.store.queue().run(self.id(), move |writing| {
            writing.own = true;
            writing.write_all(&writes, &context)
        })
    }

    /// Makes a record this object: only what differs from what is shown becomes an edit.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn put(&self, collection: &str, key: &str, value: Json, context: &Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, Act::Put(value)), context)
    }

    /// Applies a merge patch (RFC 7396) to a record.
    ///
    /// # Errors
    /// As [`Ledger::write`]; `not_found` where the record is absent or deleted.
    pub fn patch(&self, collection: &str, key: &str, patch: Json, context: &Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, Act::Patch(patch)), context)
    }

    /// Applies edits to a record, in their order.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn edit(&self, collection: &str, key: &str, edits: Vec<Edit>, context: &Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, Act::Edit(edits)), context)
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// As [`Ledger::write`]; `not_found` where the record never was.
    pub fn delete(&self, collection: &str, key: &str, context: &Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, Act::Delete), context)
    }

    /// Brings a deleted record back.
    ///
    /// # Errors
    /// As [`Ledger::delete`].
    pub fn undelete(&self, collection: &str, key: &str, context: &Context) -> Result<Receipt> {
        self.write(Write::new(collection, key, Act::Undelete), context)
    }

    /// Makes the writes that `fill` adds, all or nothing, over any number of records.
    ///
    /// # Errors
    /// As [`Ledger::write_all`].
    pub fn batch(&self, context: &Context, fill: impl FnOnce(&mut Batch)) -> Result<Receipt> {
        let mut batch = Batch::default();
        fill(&mut batch);
        self.write_all(batch.writes, context)
    }

    /// Takes in what a source delivers of a collection, record by record: what differs from the source's last delivery
    /// becomes an edit, so that what people edited stays. Two replicas that import the same version apart make the same
    /// event. Answers for each record, in order; give large imports in chunks of some hundred.
    ///
    /// # Errors
    /// `storage` where the disk failed; a record that is refused is an answer, not an error.
    pub fn import(&self, collection: &str, records: Vec<Delivery>, context: &Context) -> Result<Vec<Delivered>> {
        let id = self.id();
        let span = info_span!("append", ledger = %id, collection, records = records.len());
        let _entered = span.enter();
        let (collection, context) = (collection.to_owned(), context.clone());
        self.store.queue().run(id, move |writing| Ok(writing.import(&collection, records, &context)))
    }

    /// Sets a collection's policy.
    ///
    /// # Errors
    /// As [`Ledger::write`].
    pub fn set_policy(
        &self,
        collection: &str,
        policy: &crate::projection::Policy,
        context: &Context,
    ) -> Result<Receipt> {
        if collection.starts_with('$') {
            let message = format!("the policy of the system collection `{collection}` is fixed");
            return Err(Error::new(ErrorKind::Validation, message));
        }
        let path = crate::event::Path::root().join("policy")?;
        let edit = Edit::PutAtomic(path, policy.to_json());
        self.write(self.setting(collection, edit)?, context)
    }

    /// Settles a conflict, by one event on all heads. With a version, only if the conflict still has the candidates of
    /// that version.
    ///
    /// # Errors
    /// `not_found` where there is no such conflict or candidate, `conflict` where it has another version.
    pub fn resolve(
        &self,
        conflict: crate::event::ConflictId,
        settlement: Settlement,
        version: Option<[u8; 32]>,
        context: &Context,
    ) -> Result<Receipt> {
        if let Some(receipt) = self.answered(&Resolving(conflict, &settlement, version), context)? {
            return Ok(receipt);
        }
        let found = self.conflict(conflict)?;
        violations::check_settleable(&found)?;
        let id = self.id();
        let span = info_span!("resolve", ledger = %id, collection = found.collection, conflict = %conflict);
        let _entered = span.enter();
        let (key, context) = ((found.collection, found.key), context.clone());
        self.store.queue().run(id, move |writing| {
            let hash = request::hash(&Resolving(conflict, &settlement, version), &context);
            writing
                .once(&context, hash, |writing| writing.resolve(&key, conflict, &settlement, version, &context, hash))
        })
    }

    /// The receipt of a request with this context that was answered before.
    fn answered(&self, request: &(impl request::Request + ?Sized), context: &Context) -> Result<Option<Receipt>> {
        if context.idempotency_key.is_none() {
            return Ok(None);
        }
        let (hash, context) = (request::hash(request, context), context.clone());
        self.store.queue().run(self.id(), move |writing| writing.answered(&context, Some(hash)))
    }

    /// The receipt of a write with this context that was made before under the same idempotency key.
    ///
    /// # Errors
    /// `idempotency_mismatch` where the key was used for another request.
    #[cfg(feature = "server")]
    pub(crate) fn answer_before(&self, write: &Write, context: &Context) -> Result<Option<Receipt>> {
        self.answered(std::slice::from_ref(write), context)
    }

    /// Takes back an event, a batch or an execution: fields that nobody changed since go back to their value before,
    /// the others are listed.
    ///
    /// # Errors
    /// `not_found` where there is no such event, batch or execution.
    pub fn revert(&self, target: &Target, context: &Context) -> Result<Receipt> {
        let request = Reverting(Some(target));
        match self.answered(&request, context)? {
            Some(receipt) => Ok(receipt),
            None => self.take_back(target, request::hash(&request, context), context),
        }
    }

    /// Takes back the last change that this installation made and that is not taken back yet.
    ///
    /// # Errors
    /// `not_found` where there is none.
    pub fn undo(&self, context: &Context) -> Result<Receipt> {
        let request = Reverting(None);
        match self.answered(&request, context)? {
            Some(receipt) => Ok(receipt),
            None => self.take_back(&self.last_own()?, request::hash(&request, context), context),
        }
    }

    /// Takes back the last change that is somebody's own and not taken back yet, if `check` lets that be done.
    ///
    /// # Errors
    /// `not_found` where there is none; those of `check`.
    #[cfg(feature = "server")]
    pub(crate) fn undo_of(
        &self,
        is_own: impl Fn(&crate::event::Event) -> bool,
        check: impl FnOnce(&Target) -> Result<()>,
        context: &Context,
    ) -> Result<Receipt> {
        let request = Reverting(None);
        if let Some(receipt) = self.answered(&request, context)? {
            return Ok(receipt);
        }
        let target = self.last_of(is_own)?;
        check(&target)?;
        self.take_back(&target, request::hash(&request, context), context)
    }

    fn events_to_revert(&self, target: &Target) -> Result<BTreeMap<RecordKey, Vec<EventId>>> {
        let events = self.events_of(target)?;
        if events.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "there is no event to take back")
                .with_hint("list events, batches and runs with `syncledger log`"));
        }
        Ok(events)
    }

    fn take_back(&self, target: &Target, hash: [u8; 32], context: &Context) -> Result<Receipt> {
        let events = self.events_to_revert(target)?;
        let (id, context) = (self.id(), context.clone());
        let span = info_span!("append", ledger = %id, records = events.len());
        let _entered = span.enter();
        self.store
            .queue()
            .run(id, move |writing| writing.once(&context, hash, |writing| writing.revert(events, &context, hash)))
    }

    // --- replication ---------------------------------------------------------------------------------------------

    /// Takes in encoded events of another replica of this ledger. An event whose parents are not here waits for them.
    /// An empty ledger adopts the id `from`.
    ///
    /// # Errors
    /// `ledger_mismatch`, `validation`, `upgrade_needed` at the first event at fault; those before it are kept.
    pub fn apply(&self, from: LedgerId, events: &[Vec<u8>]) -> Result<Transfer> {
        let span = info_span!("apply", ledger = %from, events = events.len());
        let _entered = span.enter();
        let mut foreign = Vec::with_capacity(events.len());
        let mut fault = None;
        for bytes in events {
            match Foreign::decode(from, bytes, None) {
                Ok(event) => foreign.push(event),
                Err(refused) => {
                    fault = Some(refused);
                    break;
                }
            }
        }
        // What holds no event at all is no reason to become a replica of its ledger.
        if foreign.is_empty()
            && let Some(fault) = fault
        {
            return Err(fault);
        }
        self.match_or_adopt(from)?;
        let transfer = self.store.queue().run(from, move |writing| writing.apply(foreign))?;
        fault.map_or(Ok(transfer), Err)
    }

    /// Becomes a replica of a ledger, where it is none and has no event.
    ///
    /// # Errors
    /// `ledger_mismatch` where it has events of another ledger.
    pub(crate) fn match_or_adopt(&self, from: LedgerId) -> Result<()> {
        let id = self.id();
        if id == from {
            return Ok(());
        }
        if self.position() > 0 {
            let message = format!("expected events of ledger {id}, got those of {from}");
            return Err(Error::new(ErrorKind::LedgerMismatch, message)
                .with_hint("pull into an empty ledger: it becomes a replica of the one that it pulls first"));
        }
        self.store.adopt(&self.name, from)
    }

    /// Takes in what another replica of this ledger holds.
    ///
    /// # Errors
    /// As [`Ledger::apply`].
    pub fn pull(&self, other: &Self) -> Result<Transfer> {
        self.pull_with(other, &mut |_| Ok(()))
    }

    /// [`Ledger::pull`], telling `progress` of what was done so far. It may end the pull by an error: what was taken in
    /// stays.
    ///
    /// # Errors
    /// As [`Ledger::apply`]; what `progress` returns.
    pub fn pull_with(&self, other: &Self, progress: &mut dyn FnMut(Transfer) -> Result<()>) -> Result<Transfer> {
        let span = info_span!("pull", ledger = %self.id());
        let _entered = span.enter();
        peer::pull(self, other, progress)
    }
}

/// How many events a pull takes in at once.
const PULL_EVENTS: usize = 2_048;

impl Transfer {
    fn add(&mut self, other: Self) {
        self.offered += other.offered;
        self.applied += other.applied;
        self.duplicates += other.duplicates;
        self.waiting += other.waiting;
    }
}

fn single_collection(writes: &[Write]) -> &str {
    match writes {
        [first, rest @ ..] if rest.iter().all(|write| write.collection == first.collection) => &first.collection,
        _ => "",
    }
}
