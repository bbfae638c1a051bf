//! What waits to be sent: the log after the position that the server has acknowledged, without what came from it; and what it
//! refused.
//!
//! Nothing is kept of it but the position: an edit is in the outbox from the moment that it is durable.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::{Failure, Known, Rejected};
use crate::Result;
use crate::event::{Event, EventId, Op};
use crate::ledger::{Entry, Ledger, LogQuery};

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueStatus {
    /// It is sent with the next session.
    Pending,
    /// A session is open that sends it.
    Processing,
    /// The server has it.
    Completed,
    /// The server does not take it.
    Failed,
}

impl QueueStatus {
    /// Its name: `pending`, `processing`, `completed`, `failed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// An edit on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The event.
    pub id: EventId,
    /// `create`, `update`, `delete` or `restore`.
    pub operation: &'static str,
    /// The record's collection; empty where the event is in no log here any more.
    pub collection: String,
    /// The record's key.
    pub key: String,
    /// How it stands.
    pub status: QueueStatus,
    /// How many attempts to send it failed, or how often it was refused again.
    pub retry_count: u32,
    /// The code of what went wrong last, and what it was.
    pub last_error: Option<(String, String)>,
    /// When it came to be here, in milliseconds since 1970.
    pub created_at: i64,
    /// When it was tried last, in milliseconds since 1970; else as `created_at`.
    pub updated_at: i64,
}

/// What an event does to its record.
pub(super) fn operation(event: &Event) -> &'static str {
    let ops = event.ops();
    match ops.last() {
        Some(Op::Delete) => "delete",
        Some(Op::Restore) => "restore",
        _ if event.parents.is_empty() => "create",
        _ => "update",
    }
}

/// How many events are looked at together.
const PAGE: usize = 4_096;

/// Shows the events of a log after a position, until `show` has seen enough.
fn each(ledger: &Ledger, after: u64, mut show: impl FnMut(Entry) -> bool) -> Result<()> {
    let mut query = LogQuery { after, limit: Some(PAGE), ..LogQuery::default() };
    loop {
        let page = ledger.log(&query)?;
        let Some(last) = page.last() else { return Ok(()) };
        query.after = last.position;
        if !page.into_iter().all(&mut show) {
            return Ok(());
        }
    }
}

/// What waits, the oldest first, at most so many.
pub(super) fn pending(ledger: &Ledger, known: &Known, status: QueueStatus, most: usize) -> Result<Vec<Queued>> {
    let mut queued = Vec::new();
    each(ledger, known.acknowledged, |entry| {
        let is_told_otherwise = known.is_of_server(entry.run) || known.rejected.contains_key(&entry.id.to_string());
        if !is_told_otherwise && queued.len() < most {
            queued.push(waiting(entry, known.failure.as_ref(), status));
        }
        queued.len() < most
    })?;
    Ok(queued)
}

/// How many events after a position and up to another are neither of the server nor refused by it.
pub(super) fn taken(ledger: &Ledger, known: &Known, after: u64, upto: u64) -> Result<u64> {
    let mut count = 0;
    each(ledger, after, |entry| {
        let is_ours = entry.position <= upto && !known.is_of_server(entry.run);
        count += u64::from(is_ours && !known.rejected.contains_key(&entry.id.to_string()));
        entry.position < upto
    })?;
    Ok(count)
}

fn waiting(entry: Entry, failure: Option<&Failure>, status: QueueStatus) -> Queued {
    // An attempt before the edit was made is none for it.
    let failure = failure.filter(|failure| failure.at_ms >= entry.received_at);
    Queued {
        id: entry.id,
        operation: operation(&entry.event),
        collection: entry.event.collection,
        key: entry.event.key,
        status,
        retry_count: failure.map_or(0, |failure| failure.times),
        last_error: failure.map(|failure| (failure.code.clone(), failure.message.clone())),
        created_at: entry.received_at,
        updated_at: failure.map_or(entry.received_at, |failure| failure.at_ms),
    }
}

/// Which of some events are after a position and up to another.
pub(super) fn between(ledger: &Ledger, after: u64, upto: u64, events: &[&String]) -> Result<BTreeSet<String>> {
    let wanted: BTreeSet<&str> = events.iter().map(|event| event.as_str()).collect();
    let mut found = BTreeSet::new();
    each(ledger, after, |entry| {
        let id = entry.id.to_string();
        if entry.position <= upto && wanted.contains(id.as_str()) {
            found.insert(id);
        }
        entry.position < upto && found.len() < wanted.len()
    })?;
    Ok(found)
}

/// Which of some events are in the log.
pub(super) fn held<'a>(ledger: &Ledger, events: impl Iterator<Item = &'a String>) -> Result<BTreeSet<String>> {
    let events: Vec<&String> = events.collect();
    match events.is_empty() {
        true => Ok(BTreeSet::new()),
        false => between(ledger, 0, u64::MAX, &events),
    }
}

/// Which of some events this installation stamped.
pub(super) fn stamped_here(ledger: &Ledger, events: &[EventId]) -> Result<BTreeSet<EventId>> {
    let own = ledger.own_writers();
    let (mut wanted, mut found): (BTreeSet<&EventId>, _) = (events.iter().collect(), BTreeSet::new());
    each(ledger, 0, |entry| {
        if wanted.remove(&entry.id) && own.contains(&entry.event.writer) {
            found.insert(entry.id);
        }
        !wanted.is_empty()
    })?;
    Ok(found)
}

/// What went, as it stood.
pub(super) fn taken_back(entries: Vec<Entry>, known: &Known) -> Vec<Queued> {
    let queued = |entry: Entry| match known.rejected.get(&entry.id.to_string()) {
        Some(rejected) => refused(entry, rejected),
        None => waiting(entry, known.failure.as_ref(), QueueStatus::Pending),
    };
    entries.into_iter().map(queued).collect()
}

/// What was refused, in the order of the log. Reads the whole log where anything was.
pub(super) fn rejected(ledger: &Ledger, known: &Known) -> Result<Vec<Queued>> {
    if known.rejected.is_empty() {
        return Ok(Vec::new());
    }
    let mut missing: BTreeMap<&String, &Rejected> = known.rejected.iter().collect();
    let mut queued = Vec::new();
    each(ledger, 0, |entry| {
        if let Some(rejected) = missing.remove(&entry.id.to_string()) {
            queued.push(refused(entry, rejected));
        }
        !missing.is_empty()
    })?;
    // What was archived is refused none the less.
    queued.extend(missing.into_iter().filter_map(|(id, rejected)| forgotten(id, rejected)));
    Ok(queued)
}

fn refused(entry: Entry, rejected: &Rejected) -> Queued {
    Queued {
        status: if rejected.again { QueueStatus::Pending } else { QueueStatus::Failed },
        retry_count: rejected.times.saturating_sub(1),
        last_error: Some((rejected.code.clone(), rejected.message.clone())),
        updated_at: rejected.at_ms,
        ..waiting(entry, None, QueueStatus::Failed)
    }
}

fn forgotten(id: &str, rejected: &Rejected) -> Option<Queued> {
    Some(Queued {
        id: id.parse().ok()?,
        operation: "update",
        collection: String::new(),
        key: String::new(),
        status: QueueStatus::Failed,
        retry_count: rejected.times.saturating_sub(1),
        last_error: Some((rejected.code.clone(), rejected.message.clone())),
        created_at: rejected.at_ms,
        updated_at: rejected.at_ms,
    })
}
