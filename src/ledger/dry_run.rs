//! Changes tried without being made: they are done in the writer thread like any other, and forgotten instead of
//! appended.

use super::request::{self, Delivered, Entry, Resolving, Reverting, Skipped};
use super::workflow::{Annotation, Reopening, ResolvingAll};
use super::writer::Writing;
use super::{Context, Delivery, Ledger, Settlement, Target, Write};
use crate::Result;
use crate::event::{ConflictId, Op};
use crate::projection::Strategy;

/// An event that a change would append.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The record's collection.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// What the event would do.
    pub ops: Vec<Op>,
}

impl Planned {
    pub(crate) fn of(entry: &Entry) -> Self {
        let event = &entry.event;
        Self { collection: event.collection.clone(), key: event.key.clone(), ops: event.ops().to_vec() }
    }
}

/// What taking changes back, or settling conflicts, would come to.
#[derive(Clone, Debug, PartialEq)]
pub struct DryReceipt {
    /// The events that it would append.
    pub planned: Vec<Planned>,
    /// What would be left as it is, and why.
    pub skipped: Vec<Skipped>,
}

/// A ledger whose methods say what they would do, and do nothing: see [`Ledger::dry_run`].
#[derive(Clone, Copy, Debug)]
pub struct DryRun<'a>(&'a Ledger);

impl Ledger {
    /// The same methods without their effect: no event, no large value, no receipt stays.
    #[must_use]
    pub fn dry_run(&self) -> DryRun<'_> {
        DryRun(self)
    }
}

impl DryRun<'_> {
    /// What [`Ledger::write_all`] would append; nothing where nothing changes.
    ///
    /// # Errors
    /// As [`Ledger::write_all`].
    pub fn write_all(&self, writes: Vec<Write>, context: &Context) -> Result<Vec<Planned>> {
        let context = context.clone();
        self.run(move |writing| writing.write_all(&writes, &context)).map(|(_, planned)| planned)
    }

    /// What [`Ledger::import`] would answer. The positions in it are those that the events would get now. Each call is
    /// on its own: a record that two calls deliver is new to both.
    ///
    /// # Errors
    /// As [`Ledger::import`].
    pub fn import(&self, collection: &str, records: Vec<Delivery>, context: &Context) -> Result<Vec<Delivered>> {
        let (collection, context) = (collection.to_owned(), context.clone());
        self.run(move |writing| Ok(writing.import(&collection, records, &context))).map(|(delivered, _)| delivered)
    }

    /// What [`Ledger::resolve`] would append.
    ///
    /// # Errors
    /// As [`Ledger::resolve`].
    pub fn resolve(
        &self,
        conflict: ConflictId,
        settlement: Settlement,
        version: Option<[u8; 32]>,
        context: &Context,
    ) -> Result<Vec<Planned>> {
        let found = self.0.conflict(conflict)?;
        let (key, context) = ((found.collection, found.key), context.clone());
        let work = move |writing: &mut Writing<'_>| {
            let hash = request::hash(&Resolving(conflict, &settlement, version), &context);
            writing.resolve(&key, conflict, &settlement, version, &context, hash)
        };
        self.run(work).map(|(_, planned)| planned)
    }

    /// What [`Ledger::resolve_all`] would append and leave.
    ///
    /// # Errors
    /// As [`Ledger::resolve_all`].
    pub fn resolve_all(
        &self,
        collection: Option<&str>,
        strategy: &Strategy,
        context: &Context,
    ) -> Result<DryReceipt> {
        let (records, policy) = self.0.to_settle(collection, strategy)?;
        let (hash, context) = (request::hash(&ResolvingAll(collection, strategy), context), context.clone());
        let (receipt, planned) = self.run(move |writing| writing.resolve_all(&records, &policy, &context, hash))?;
        Ok(DryReceipt { planned, skipped: receipt.skipped })
    }

    /// What [`Ledger::annotate`] would append.
    ///
    /// # Errors
    /// As [`Ledger::annotate`].
    pub fn annotate(&self, conflict: ConflictId, annotation: &Annotation, context: &Context) -> Result<Vec<Planned>> {
        self.write_all(vec![self.0.annotating(conflict, annotation)?], context)
    }

    /// What [`Ledger::reopen`] would append and leave.
    ///
    /// # Errors
    /// As [`Ledger::reopen`].
    pub fn reopen(&self, conflict: ConflictId, context: &Context) -> Result<DryReceipt> {
        let (events, write) = self.0.reopening(conflict)?;
        let (hash, context) = (request::hash(&Reopening(conflict), context), context.clone());
        let (receipt, planned) = self.run(move |writing| writing.revert_and(events, &[write], &context, hash))?;
        Ok(DryReceipt { planned, skipped: receipt.skipped })
    }

    /// What [`Ledger::revert`] would append and leave.
    ///
    /// # Errors
    /// As [`Ledger::revert`].
    pub fn revert(&self, target: &Target, context: &Context) -> Result<DryReceipt> {
        let events = self.0.events_to_revert(target)?;
        let (hash, context) = (request::hash(&Reverting(Some(target)), context), context.clone());
        let (receipt, planned) = self.run(move |writing| writing.revert(events, &context, hash))?;
        Ok(DryReceipt { planned, skipped: receipt.skipped })
    }

    /// What [`Ledger::undo`] would append and leave.
    ///
    /// # Errors
    /// As [`Ledger::undo`].
    pub fn undo(&self, context: &Context) -> Result<DryReceipt> {
        self.revert(&self.0.last_own()?, context)
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T> + Send + 'static,
    ) -> Result<(T, Vec<Planned>)> {
        self.0.store.queue().run(self.0.id(), move |writing| writing.dry_run(work))
    }
}
