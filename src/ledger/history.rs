//! History: what each event changed, who wrote what is shown, and what differs between two moments.

use serde_json::Value as Json;

use super::read::fill;
use super::row::Row;
use super::state::RecordKey;
use super::{AsOf, Entry, Ledger, Line, Look, Revision};
use crate::Result;
use crate::document::{ApplyFault, Document, PlaceFault, View};
use crate::event::{EventId, diff};
use crate::projection::{Policy, project};

impl Ledger {
    /// Every event of a record, oldest first, with what it changed of what its writer had seen.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn history(&self, collection: &str, key: &str) -> Result<Vec<Revision>> {
        let _reading = self.shared().reading();
        let record = (collection.to_owned(), key.to_owned());
        let policy = self.policy_of(collection, None)?;
        let last = self.shared().last_position(self.id(), &record)?;
        let entries = self.log_reader().record(last, 0)?;
        let mut revisions = self.plain_history(&entries);
        let mut walk = Walk { ledger: self, record, policy, replay: Replay::default(), now: None };
        for (index, entry) in entries.iter().enumerate() {
            let so_far = entries.get(..=index).unwrap_or_default();
            match index < revisions.len() {
                // The document is needed from the first on that is not in line or not plain.
                true if revisions.len() < entries.len() => walk.replay.apply(entry, so_far)?,
                true => break,
                false => revisions.push(walk.step(entry, so_far)?),
            }
        }
        Ok(revisions)
    }

    /// The revisions of a record's first events, as long as they are made in line and leave it plain.
    fn plain_history(&self, entries: &[Entry]) -> Vec<Revision> {
        let shown = |row: &Row| (row.last > 0 && !row.deleted).then(|| row.content.whole().into_owned().json);
        let (mut row, mut before, mut revisions) = (Row::nothing(), None, Vec::with_capacity(entries.len()));
        for entry in entries {
            if !row.is_followed_by(&entry.event) {
                break;
            }
            row.follow(entry.position, entry.id, &entry.event, 0);
            let after = shown(&row);
            let changes = diff::diff(before.as_ref(), after.as_ref());
            revisions.push(Revision { changes, entry: entry.clone(), before, after: after.clone() });
            before = after;
        }
        revisions
    }

    /// What differs in a record between two moments, by path.
    ///
    /// # Errors
    /// As [`Ledger::look`].
    pub fn diff(&self, collection: &str, key: &str, from: AsOf, to: AsOf) -> Result<Vec<diff::Change>> {
        let at = |as_of| -> Result<Option<Json>> {
            let record = self.look(collection, key, &Look { as_of: Some(as_of), policy: None })?;
            Ok(record.filter(|record| !record.deleted).map(|record| record.value))
        };
        Ok(diff::diff(at(from)?.as_ref(), at(to)?.as_ref()))
    }

    /// Who wrote what is shown of each field, by path.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub fn blame(&self, collection: &str, key: &str) -> Result<Vec<Line>> {
        let _reading = self.shared().reading();
        let record = (collection.to_owned(), key.to_owned());
        let policy = self.policy_of(collection, None)?;
        let lines = self.with_view(&record, None, |_, view| {
            let projection = project(view, &policy, &self.shared().resolvers, &self.record_id(&record));
            projection.blame.iter().map(|blame| self.line(view, blame)).collect::<Result<Vec<_>>>()
        })?;
        Ok(lines.unwrap_or_default())
    }

    fn line(&self, view: &View<'_>, blame: &crate::projection::Blame) -> Result<Line> {
        let node = blame.node.and_then(|ix| view.graph().node(ix));
        Ok(Line {
            path: blame.path.to_string(),
            value: fill(self.shared(), &blame.content)?,
            event: node.map(|node| node.id),
            source: node.map(|node| node.source.clone()),
            principal: node.and_then(|node| node.principal.clone()),
            at: node.map(|node| node.at),
        })
    }
}

/// A record's document, event by event in the order of the log.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) document: Document,
}

impl Replay {
    /// Applies the last of the record's entries so far.
    pub(super) fn apply(&mut self, entry: &Entry, so_far: &[Entry]) -> Result<()> {
        match self.document.apply(entry.id, &entry.event) {
            Ok(()) => {}
            Err(ApplyFault::Place(PlaceFault::LateFork)) => {
                self.document = Document::derive_all(so_far.iter().map(|entry| (entry.id, &entry.event)))?;
            }
            Err(fault) => return Err(fault.into()),
        }
        Ok(())
    }
}

/// A walk along a record's events that keeps its document at the event it is at.
struct Walk<'a> {
    ledger: &'a Ledger,
    record: RecordKey,
    policy: Policy,
    replay: Replay,
    /// The value as of the walk's heads, where it was made.
    now: Option<Option<Json>>,
}

impl Walk<'_> {
    fn step(&mut self, entry: &Entry, so_far: &[Entry]) -> Result<Revision> {
        let follows = self.replay.document.graph().head_ids() == entry.event.parents;
        let before = match self.now.take().filter(|_| follows) {
            Some(now) => now,
            None => self.value_at(&entry.event.parents)?,
        };
        self.replay.apply(entry, so_far)?;
        let after = self.value_at(&[entry.id])?;
        self.now = Some(after.clone()).filter(|_| self.replay.document.graph().head_ids() == [entry.id]);
        Ok(Revision { changes: diff::diff(before.as_ref(), after.as_ref()), entry: entry.clone(), before, after })
    }

    /// The record's value as of some events; `None` where it has none or is deleted.
    fn value_at(&mut self, events: &[EventId]) -> Result<Option<Json>> {
        if events.is_empty() {
            return Ok(None);
        }
        let graph = self.replay.document.graph();
        let nodes: Vec<_> = events.iter().filter_map(|id| graph.find(id)).collect();
        let now = graph.head_ids() == events;
        let clock = graph.closure(nodes);
        let view = if now { self.replay.document.view()? } else { self.replay.document.view_at(clock)? };
        let shared = self.ledger.shared();
        let record = self.ledger.record_id(&self.record);
        let projection = project(&view, &self.policy, &shared.resolvers, &record);
        if projection.deleted { Ok(None) } else { fill(shared, &projection.content).map(Some) }
    }
}
