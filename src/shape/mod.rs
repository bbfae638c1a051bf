//! The JSON shapes of the answers: the contract of the command line and of the server with programs.

pub(crate) mod batch;
mod line;
pub(crate) mod time;

use std::path::Path as FilePath;

use serde_json::{Value as Json, json};

use crate::event::diff::Change;
use crate::event::{BlobForm, BlobRef, Container, Event, Op, Value, hex};
use crate::ledger::{
    Annotation, AsOf, ConflictCount, ConflictStep, Digest, DryReceipt, Entry, Happening, Ledger, LedgerInfo, Line,
    Planned, Receipt, Record, RecordConflict, Revision, Skipped, Status as Totals, Tried,
};
use crate::projection::{Candidate, Content, Status};
use crate::schema::Violation;
use crate::{ErrorKind, Result};

/// A ledger of a store.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the command line shows it"))]
pub(crate) fn ledger(store: &FilePath, info: &LedgerInfo) -> Json {
    json!({
        "store": store.display().to_string(),
        "ledger": info.name,
        "id": info.id.to_string(),
        "writer": info.writer.to_string(),
    })
}

/// The answer to a write.
pub(crate) fn receipt(receipt: &Receipt) -> Json {
    let event = |(event, position): &(_, u64)| json!({ "event": text(event), "position": position });
    let events: Vec<_> = receipt.events.iter().map(event).collect();
    let mut object = json!({ "status": receipt.outcome.name(), "events": events });
    if let Some(run) = receipt.run {
        set(&mut object, "run", text(run));
    }
    object
}

/// The answer to a revert: a receipt, and what was left as it is.
pub(crate) fn revert(answer: &Receipt) -> Json {
    let mut object = receipt(answer);
    set(&mut object, "skipped", skipped(&answer.skipped));
    object
}

/// What a revert would do.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the command line shows it"))]
pub(crate) fn dry_receipt(would: &DryReceipt) -> Json {
    let mut object = planned(&would.planned);
    set(&mut object, "skipped", skipped(&would.skipped));
    object
}

fn skipped(skipped: &[Skipped]) -> Vec<Json> {
    let left = |left: &Skipped| json!({ "collection": left.collection, "key": left.key, "path": left.path, "why": left.why });
    skipped.iter().map(left).collect()
}

/// What a write would do.
pub(crate) fn planned(planned: &[Planned]) -> Json {
    let write = |write: &Planned| json!({ "collection": write.collection, "key": write.key, "ops": ops(&write.ops) });
    let status = if planned.is_empty() { "unchanged" } else { "planned" };
    json!({ "status": status, "dry_run": true, "writes": planned.iter().map(write).collect::<Vec<_>>() })
}

/// A record.
pub(crate) fn record(record: &Record) -> Json {
    json!({
        "collection": record.collection,
        "key": record.key,
        "value": record.value,
        "deleted": record.deleted,
        "heads": texts(&record.heads),
        "conflicts": texts(&record.conflicts),
    })
}

/// An event of the log.
pub(crate) fn entry(entry: &Entry) -> Json {
    let mut object = event(&entry.event);
    set(&mut object, "position", entry.position);
    set(&mut object, "event", text(entry.id));
    set(&mut object, "received_at", time::to_json(entry.received_at));
    set(&mut object, "run", entry.run.or(entry.event.run).map(text));
    object
}

fn event(event: &Event) -> Json {
    json!({
        "collection": event.collection,
        "key": event.key,
        "writer": text(event.writer),
        "sequence": event.sequence,
        "lane": event.lane,
        "nth": event.nth,
        "parents": texts(&event.parents),
        "at": time::to_json(event.at.millis),
        "counter": event.at.counter,
        "occurred_at": event.occurred_at.map(time::to_json),
        "source": event.source,
        "principal": event.principal,
        "reason": event.reason,
        "delivery": event.delivery,
        "idempotency_key": event.idempotency.as_ref().map(|request| request.key.as_str()),
        "batch": event.batch.map(|batch| json!({ "id": text(batch.id), "index": batch.index, "count": batch.count })),
        "resolves": event.resolves.map(text),
        "reverts": event.reverts.map(text),
        "ops": ops(event.ops()),
    })
}

fn ops(ops: &[Op]) -> Json {
    ops.iter().map(op).collect::<Vec<_>>().into()
}

/// An operation, by the names that `batch` reads.
pub(crate) fn op(op: &Op) -> Json {
    let mut object = json!({ "op": op.name() });
    if let Some(path) = op.path() {
        set(&mut object, "path", path.as_str());
    }
    if let Some(at) = op.container() {
        set(&mut object, "container", container(at));
    }
    match op {
        Op::Put { value: it, .. } => set(&mut object, "value", value(it)),
        Op::PutAtomic { json, .. } => {
            set(&mut object, "value", serde_json::from_str::<Json>(json).unwrap_or_default())
        }
        Op::Increment { by, .. } => set(&mut object, "by", *by),
        Op::SetAdd { member, .. } | Op::SetRemove { member, .. } => set(&mut object, "member", value(member)),
        Op::Insert { index, value: it, .. } => {
            set(&mut object, "index", *index);
            set(&mut object, "value", value(it));
        }
        Op::RemoveAt { index, .. } => set(&mut object, "index", *index),
        Op::SpliceText { index, delete, insert, .. } => {
            set(&mut object, "index", *index);
            set(&mut object, "delete", *delete);
            set(&mut object, "insert", insert.as_str());
        }
        Op::Remove { .. }
        | Op::MakeSet { .. }
        | Op::MakeList { .. }
        | Op::MakeText { .. }
        | Op::Delete
        | Op::Restore => {}
    }
    object
}

fn container(container: Container) -> Json {
    match container {
        Container::Own(index) => json!({ "own": index }),
        Container::Of(event, index) => json!({ "of": [text(event), index] }),
    }
}

fn value(value: &Value) -> Json {
    value.to_json().unwrap_or_else(|blob| reference(&blob))
}

fn reference(blob: &BlobRef) -> Json {
    let form = match blob.form {
        BlobForm::Text => "text",
        BlobForm::Bytes => "bytes",
        BlobForm::Json => "json",
    };
    json!({ "$blob": { "hash": text(blob.hash), "bytes": blob.bytes, "form": form } })
}

/// A projected value; large ones stand by reference.
pub(crate) fn content(content: &Content) -> Json {
    let filled = content.fill(|blob| Ok::<_, std::convert::Infallible>(reference(blob)));
    filled.unwrap_or_default()
}

/// What differs in one field. Null is an ordinary value, so absence is said beside it.
pub(crate) fn change(change: &Change) -> Json {
    let mut object = json!({ "path": change.path.as_str(), "before": change.before, "after": change.after });
    if change.before.is_none() {
        set(&mut object, "added", true);
    }
    if change.after.is_none() {
        set(&mut object, "removed", true);
    }
    object
}

/// An event of a record's history; with `full` also the whole record before and after it.
pub(crate) fn revision(revision: &Revision, full: bool) -> Json {
    let (entry, event) = (&revision.entry, &revision.entry.event);
    let mut object = json!({
        "event": text(entry.id),
        "position": entry.position,
        "at": time::to_json(event.at.millis),
        "occurred_at": event.occurred_at.map(time::to_json),
        "source": event.source,
        "principal": event.principal,
        "reason": event.reason,
        "changes": revision.changes.iter().map(change).collect::<Vec<_>>(),
    });
    if full {
        set(&mut object, "before", revision.before.clone());
        set(&mut object, "after", revision.after.clone());
    }
    object
}

/// Who wrote a field.
pub(crate) fn line(line: &Line) -> Json {
    json!({
        "path": line.path,
        "value": line.value,
        "event": line.event.map(text),
        "source": line.source,
        "principal": line.principal,
        "at": line.at.map(|at| time::to_json(at.millis)),
    })
}

/// A conflict.
pub(crate) fn conflict(found: &RecordConflict) -> Json {
    let conflict = &found.conflict;
    let mut object = json!({
        "id": text(conflict.id),
        "version": hex(&conflict.version),
        "collection": found.collection,
        "key": found.key,
        "path": conflict.path,
        "kind": name(conflict.kind),
        "severity": name(conflict.severity),
        "status": conflict.status.name(),
        "base": conflict.base.as_ref().map(content),
        "candidates": conflict.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "shown": conflict.shown.as_ref().map(content),
        "taken": conflict.taken.map(|index| index + 1),
        "because": conflict.because,
    });
    for (part, flag) in [(&conflict.base, "base_absent"), (&conflict.shown, "shown_absent")] {
        if part.is_none() {
            set(&mut object, flag, true);
        }
    }
    add_status(&mut object, &conflict.status);
    object
}

/// A conflict, what was said of it, and how it came to stand as it does.
pub(crate) fn conflict_in_full(found: &RecordConflict, said: &Annotation, steps: &[ConflictStep]) -> Json {
    let mut object = conflict(found);
    set(&mut object, "assignee", said.assignee.clone());
    set(&mut object, "note", said.note.clone());
    set(&mut object, "history", steps.iter().map(conflict_step).collect::<Vec<_>>());
    object
}

/// A step in the history of a conflict.
pub(crate) fn conflict_step(step: &ConflictStep) -> Json {
    let event = &step.entry.event;
    let mut object = json!({
        "what": step.what.name(),
        "position": step.entry.position,
        "event": text(step.entry.id),
        "at": time::to_json(event.at.millis),
        "source": event.source,
        "principal": event.principal,
        "reason": event.reason,
    });
    match &step.what {
        Happening::Opened(count)
        | Happening::Grew(count)
        | Happening::Changed(count)
        | Happening::Reopened(count) => {
            set(&mut object, "candidates", *count);
        }
        Happening::Assigned(assignee) => set(&mut object, "assignee", assignee.clone()),
        Happening::Noted(note) => set(&mut object, "note", note.clone()),
        Happening::Resolved | Happening::Edited => {}
    }
    object
}

/// A count of conflicts.
pub(crate) fn conflict_count(count: &ConflictCount) -> Json {
    let [hour, day, week, month, older] = count.ages;
    json!({
        "collection": count.collection,
        "kind": name(count.kind),
        "severity": name(count.severity),
        "status": count.status,
        "rule": count.rule,
        "count": count.count,
        "oldest": time::to_json(count.oldest),
        "ages": { "hour": hour, "day": day, "week": week, "month": month, "older": older },
    })
}

/// What another policy would have decided otherwise.
pub(crate) fn tried(tried: &Tried) -> Json {
    let mut object = json!({
        "key": tried.key,
        "path": tried.path,
        "now": tried.now.value,
        "then": tried.then.value,
        "now_open": tried.now.open,
        "then_open": tried.then.open,
        "because": tried.because,
        "position": tried.position,
        "event": text(tried.event),
        "at": time::to_json(tried.at.millis),
        "until": tried.until.map(|(position, _)| position),
        "until_at": tried.until.map(|(_, at)| time::to_json(at.millis)),
    });
    for (decision, flag) in [(&tried.now, "now_absent"), (&tried.then, "then_absent")] {
        if decision.value.is_none() {
            set(&mut object, flag, true);
        }
    }
    object
}

/// A broken constraint.
pub(crate) fn violation(violation: &Violation) -> Json {
    json!({
        "collection": violation.collection,
        "key": violation.key,
        "path": violation.path,
        "constraint": violation.constraint.name(),
        "subject": violation.subject,
        "message": violation.message,
        "critical": violation.critical,
    })
}

/// The state of a ledger as one value.
pub(crate) fn digest(digest: &Digest) -> Json {
    let hash = |(name, hash): &(String, String)| (name.clone(), hash.as_str().into());
    json!({
        "digest": digest.digest,
        "events": digest.events,
        "position": digest.position,
        "collections": digest.collections.iter().map(hash).collect::<serde_json::Map<_, _>>(),
    })
}

/// Counts and sizes of a ledger.
pub(crate) fn status(found: &Totals) -> Json {
    let conflict = |(kind, severity, status, count): &(String, String, String, u64)| json!({ "kind": kind, "severity": severity, "status": status, "count": count });
    let (log, rows, blobs) = found.bytes;
    json!({
        "position": found.position,
        "events": found.events,
        "records": found.records,
        "waiting": found.waiting,
        "conflicts": found.conflicts.iter().map(conflict).collect::<Vec<_>>(),
        "forked_writers": texts(&found.forked_writers),
        "bytes": { "log": log, "rows": rows, "blobs": blobs },
        "cached": { "records": found.cached.0, "bytes": found.cached.1 },
    })
}

fn add_status(object: &mut Json, status: &Status) {
    match status {
        Status::Open => {}
        Status::Auto { rule } => set(object, "rule", rule.as_str()),
        Status::Resolved { event, principal, reason } => {
            set(object, "resolved", json!({ "event": text(event), "principal": principal, "reason": reason }));
        }
    }
}

fn candidate(candidate: &Candidate) -> Json {
    let mut object = json!({
        "event": text(candidate.event),
        "writer": text(candidate.writer),
        "source": candidate.source,
        "principal": candidate.principal,
        "occurred_at": candidate.occurred_at.map(time::to_json),
        "at": time::to_json(candidate.at.millis),
    });
    match &candidate.value {
        Some(value) => set(&mut object, "value", content(value)),
        None => set(&mut object, "removed", true),
    }
    object
}

/// The moment of a record that a text names: a position, a time, or the beginning of an event's id; `None` where it can be none of
/// them. Ids may begin with digits alone: a number beyond the log is an event, if one of the record begins so.
///
/// # Errors
/// `not_found` where no event begins so; `validation` where several do.
pub(crate) fn moment(ledger: &Ledger, (collection, key): (&str, &str), text: &str) -> Result<Option<AsOf>> {
    let event = || ledger.heads_by_prefix(collection, key, text).map(AsOf::Event);
    match time::moment(text) {
        Some(AsOf::Position(position)) if position > ledger.position() && is_prefix(text) => match event() {
            Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(Some(AsOf::Position(position))),
            found => found.map(Some),
        },
        None if is_prefix(text) => event().map(Some),
        moment => Ok(moment),
    }
}

/// Whether a text can be the beginning of an id.
pub(crate) fn is_prefix(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A text shortened to `width` characters.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let clean = text.replace(char::is_control, " ");
    if clean.chars().count() <= width {
        return clean;
    }
    let kept: String = clean.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Adds a field to an object.
pub(crate) fn set(object: &mut Json, name: &str, value: impl Into<Json>) {
    if let Json::Object(fields) = object {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The name of a kind or a severity, as it is stored: `update-update`.
pub(crate) fn name(kind: impl serde::Serialize) -> String {
    serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn text(id: impl std::fmt::Display) -> Json {
    id.to_string().into()
}

fn texts<T: std::fmt::Display>(ids: &[T]) -> Json {
    ids.iter().map(text).collect::<Vec<_>>().into()
}
