//! Edits of those who looked a while ago: each is made on what its author knew, so that all that came since is concurrent with it.
//!
//! What an author knew of a record is what the ledger held up to a position, and what the author did to it since.
//!
//! Invariant: an edit that is refused leaves no trace, and does not keep the others from being made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::log::Log;
use super::request::{Act, Context, Entry, Outcome, Receipt, Write};
use super::state::RecordKey;
use super::writer::Writing;
use super::{Ledger, Which};
use crate::event::EventId;
use crate::projection::Conflict;
use crate::{Error, ErrorKind, Result};

/// What an edit does to its record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// Makes the record; sets the fields where its author knew of it, and makes it anew where it was deleted.
    Create(Json),
    /// Sets these fields of a record that there is.
    Update(Json),
    /// Deletes a record that there is.
    Delete,
}

/// One edit of one record.
#[derive(Clone, Debug)]
pub(crate) struct Apart {
    pub(crate) collection: String,
    pub(crate) key: String,
    pub(crate) what: What,
    /// Who edits: principal and source make the author, and the idempotency key is the edit's own name, the same when it is
    /// repeated. Names hold no dot.
    pub(crate) context: Context,
}

impl Apart {
    fn key(&self) -> RecordKey {
        (self.collection.clone(), self.key.clone())
    }

    fn name(&self) -> &str {
        self.context.idempotency_key.as_deref().unwrap_or_default()
    }
}

impl Ledger {
    /// Makes edits one after another, each for itself, of authors who last looked at a position. Returns once all are durable.
    ///
    /// An edit is a duplicate where its author made it before, and named no other edit of the record since; so are several, where
    /// they were the author's last ones in the same order.
    ///
    /// # Errors
    /// `storage` where the disk failed; an edit that is refused is an answer, not an error.
    pub(crate) fn write_apart(&self, edits: Vec<Apart>, seen: u64) -> Result<Vec<Result<Receipt>>> {
        self.store.queue().run(self.id(), move |writing| Ok(writing.write_apart(&edits, seen)))
    }

    /// The conflicts of a record that wait for somebody.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(crate) fn open_conflicts(&self, collection: &str, key: &str) -> Result<Vec<Conflict>> {
        let _reading = self.shared().reading();
        self.conflicts_of(&(collection.to_owned(), key.to_owned()), Which::Open, None)
    }

    /// The events of a record that an author made, oldest first.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(crate) fn events_by(&self, collection: &str, key: &str, context: &Context) -> Result<Vec<Entry>> {
        let _reading = self.shared().reading();
        let last = self.shared().last_position(self.id(), &(collection.to_owned(), key.to_owned()))?;
        let mut entries = self.log_reader().record(last, 0)?;
        entries.retain(|entry| is_by(entry, context));
        Ok(entries)
    }
}

/// Whether an event was made by the author of another edit.
fn is_by(entry: &Entry, author: &Context) -> bool {
    entry.event.principal == author.principal && entry.event.source == author.source
}

/// The name of the edit that an event was made by: an edit that is made again has a place behind its name.
fn name_of(entry: &Entry) -> Option<&str> {
    let name = entry.event.idempotency.as_ref()?.key.as_str();
    Some(name.split_once('.').map_or(name, |(name, _)| name))
}

/// How many of the first of some names are the last of others, in the same order.
fn overlap(last: &[String], names: &[&str]) -> usize {
    let most = last.len().min(names.len());
    let fits = |count: &usize| last.iter().rev().take(*count).rev().eq(names.iter().take(*count));
    (1..=most).rev().find(fits).unwrap_or(0)
}

impl Writing<'_> {
    fn write_apart(&mut self, edits: &[Apart], seen: u64) -> Vec<Result<Receipt>> {
        let repeated = match self.repeated(edits) {
            Ok(repeated) => repeated,
            Err(fault) => return edits.iter().map(|_| Err(again(&fault))).collect(),
        };
        let done = edits.iter().enumerate().map(|(index, edit)| match repeated.contains(&index) {
            true => Ok(duplicate()),
            false => self.make_apart(edit, seen),
        });
        done.collect()
    }

    /// Which edits are the last that their author made of a record, in their order.
    fn repeated(&self, edits: &[Apart]) -> Result<BTreeSet<usize>> {
        let mut of_records: BTreeMap<RecordKey, Vec<usize>> = BTreeMap::new();
        for (index, edit) in edits.iter().enumerate() {
            of_records.entry(edit.key()).or_default().push(index);
        }
        let mut repeated = BTreeSet::new();
        for (key, indexes) in of_records {
            let of_record = indexes.iter().filter_map(|&index| Some((index, edits.get(index)?))).collect();
            repeated.extend(self.repeated_of(&key, of_record)?);
        }
        Ok(repeated)
    }

    /// Which edits of a record are its author's last. Those that were refused then are none of them.
    fn repeated_of(&self, key: &RecordKey, edits: Vec<(usize, &Apart)>) -> Result<Vec<usize>> {
        let mut known = Vec::new();
        for (index, edit) in edits {
            if self.is_known(edit)? {
                known.push((index, edit));
            }
        }
        let Some((_, first)) = known.first() else { return Ok(Vec::new()) };
        let last = self.last_names(key, &first.context, known.len())?;
        let names: Vec<&str> = known.iter().map(|(_, edit)| edit.name()).collect();
        Ok(known.iter().take(overlap(&last, &names)).map(|(index, _)| *index).collect())
    }

    /// Whether an edit of this name was made here.
    fn is_known(&self, edit: &Apart) -> Result<bool> {
        let is_it = |entry: &Entry| name_of(entry) == Some(edit.name()) && is_by(entry, &edit.context);
        if self.state.staged.iter().any(is_it) {
            return Ok(true);
        }
        Ok(self.shared.request(self.state.id, &edit.context.source, edit.name())?.is_some())
    }

    /// The names of the last edits that an author made of a record, oldest first, at most so many.
    fn last_names(&self, key: &RecordKey, author: &Context, most: usize) -> Result<Vec<String>> {
        let (mut names, mut last) = (Vec::new(), None);
        self.back(key, 0, |entry| {
            if let Some(name) = name_of(entry).filter(|_| is_by(entry, author)) {
                // An edit of several events is one.
                let whole = entry.event.idempotency.as_ref().map(|request| request.key.clone());
                if whole != last {
                    names.push(name.to_owned());
                }
                last = whole;
            }
            names.len() < most
        })?;
        names.reverse();
        Ok(names)
    }

    /// Gives the events of a record after a position to `each`, the latest first, until that says false.
    fn back(&self, key: &RecordKey, after: u64, mut each: impl FnMut(&Entry) -> bool) -> Result<()> {
        let is_of = |entry: &&Entry| entry.event.collection == key.0 && entry.event.key == key.1;
        for entry in self.state.staged.iter().rev().filter(is_of) {
            if entry.position <= after || !each(entry) {
                return Ok(());
            }
        }
        let log = Log::new(self.shared, self.state.id);
        let mut position = self.shared.last_position(self.state.id, key)?;
        while position > after {
            let missing = || Error::new(ErrorKind::Corrupt, format!("there is no event at position {position}"));
            let entry = log.at(position)?.ok_or_else(missing)?;
            if !each(&entry) {
                return Ok(());
            }
            position = entry.previous;
        }
        Ok(())
    }

    fn make_apart(&mut self, edit: &Apart, seen: u64) -> Result<Receipt> {
        let key = edit.key();
        let Some(context) = self.named(&key, edit)? else { return Ok(duplicate()) };
        if self.state.heads(self.shared, &key)?.is_empty() {
            return match &edit.what {
                What::Create(value) => self.make(edit, Act::Put(value.clone()), None, &context),
                What::Update(_) | What::Delete => Err(never_was(edit)),
            };
        }
        let base = self.known_to(&key, seen, &context)?;
        let is_unknown = base.as_ref().is_some_and(Vec::is_empty);
        match &edit.what {
            What::Create(value) if is_unknown => self.make(edit, Act::Put(value.clone()), base, &context),
            What::Create(value) => match self.make(edit, Act::Fields(value.clone()), base.clone(), &context) {
                // It was deleted, and its author knew.
                Err(fault) if fault.kind() == ErrorKind::NotFound => {
                    self.make(edit, Act::Put(value.clone()), base, &context)
                }
                made => made,
            },
            What::Update(fields) => self.make(edit, Act::Fields(fields.clone()), base, &context),
            What::Delete if is_unknown => {
                let first = self.first_of(&key)?;
                self.make(edit, Act::Edit(vec![super::Edit::Delete]), Some(first), &context)
            }
            What::Delete => self.make(edit, Act::Edit(vec![super::Edit::Delete]), base, &context),
        }
    }

    /// The events that made a record: who deletes it knows of it, if of nothing else.
    fn first_of(&self, key: &RecordKey) -> Result<Vec<EventId>> {
        let mut first = Vec::new();
        self.back(key, 0, |entry| {
            first.extend(Some(entry.id).filter(|_| entry.event.parents.is_empty()));
            true
        })?;
        Ok(first)
    }

    /// The context of an edit under a name that is its own; `None` where it is its author's last of the record.
    fn named(&self, key: &RecordKey, edit: &Apart) -> Result<Option<Context>> {
        if !self.is_known(edit)? {
            return Ok(Some(edit.context.clone()));
        }
        let mut last = None;
        self.back(key, 0, |entry| {
            last =
                name_of(entry).filter(|_| is_by(entry, &edit.context)).map(|name| (name.to_owned(), entry.position));
            last.is_none()
        })?;
        Ok(match last {
            Some((name, _)) if name == edit.name() => None,
            last => {
                let place = last.map_or(0, |(_, position)| position);
                let name = format!("{}.{place}", edit.name());
                Some(Context { idempotency_key: Some(name), ..edit.context.clone() })
            }
        })
    }

    /// The events of a record by which its author knew it; `None` where that is all.
    fn known_to(&mut self, key: &RecordKey, seen: u64, author: &Context) -> Result<Option<Vec<EventId>>> {
        let (mut own, mut others, mut before, mut latest) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), None);
        let heads = self.state.heads(self.shared, key)?;
        self.back(key, seen, |entry| {
            latest.get_or_insert((entry.id, is_by(entry, author)));
            let after = if is_by(entry, author) { &mut own } else { &mut others };
            after.insert(entry.id);
            before.extend(entry.event.parents.iter().copied());
            // Who made the only head knew all.
            !matches!(latest, Some((id, true)) if heads == [id])
        })?;
        if others.is_empty() {
            return Ok(None);
        }
        let is_before = |id: &EventId| !others.contains(id) && !own.contains(id);
        let known = heads.into_iter().chain(before).filter(is_before);
        let known: BTreeSet<EventId> = known.chain(own.iter().copied()).collect();
        Ok(Some(known.into_iter().collect()))
    }

    fn make(&mut self, edit: &Apart, act: Act, base: Option<Vec<EventId>>, context: &Context) -> Result<Receipt> {
        let write = Write { base, ..Write::new(&edit.collection, &edit.key, act) };
        let request = blake3::derive_key("syncledger 2026-11 edit made apart v1", edit.name().as_bytes());
        let (plans, blobs) = self.plan_all(&[write], context)?;
        self.store_blobs(&blobs)?;
        self.commit(plans, context.idempotency_key.as_ref().map(|_| request))
    }
}

fn duplicate() -> Receipt {
    Receipt { outcome: Outcome::Duplicate, ..Receipt::unchanged() }
}

fn never_was(edit: &Apart) -> Error {
    let message = format!("there is no record {}/{}", edit.collection, edit.key);
    Error::new(ErrorKind::NotFound, message).with_hint("create it first")
}

/// The same fault for another edit.
fn again(fault: &Error) -> Error {
    let error = Error::new(fault.kind(), fault.message());
    match fault.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
