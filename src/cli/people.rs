//! The same answers for people.

use serde_json::Value as Json;

use super::style;
use super::table::{self, count, short, short_or};
use crate::event::diff::Change;
use crate::event::{Event, EventId, Op};
use crate::ledger::{
    ConflictCount, ConflictStep, DryReceipt, Entry, Happening, Line, Planned, Receipt, Record, RecordConflict,
    Revision, Skipped,
};
use crate::projection::{Candidate, Content, Status};
use crate::shape;
use crate::shape::cut;
use crate::shape::time;

/// The answer to a write.
pub(crate) fn receipt(receipt: &Receipt) -> String {
    let status = style::good(receipt.outcome.name());
    let run = receipt.run.map(|run| format!("  run {}", run.short())).unwrap_or_default();
    let events: Vec<_> =
        receipt.events.iter().take(3).map(|(event, at)| format!("{} at {at}", event.short())).collect();
    match receipt.events.len() {
        0 => status,
        1..=3 => format!("{status}  {}{run}", events.join(", ")),
        many => format!("{status}  {} {}{run}", count(many, "event", "events"), span(receipt)),
    }
}

fn span(receipt: &Receipt) -> String {
    let positions = || receipt.events.iter().map(|(_, position)| *position);
    format!("at {}–{}", positions().min().unwrap_or(0), positions().max().unwrap_or(0))
}

/// The answer to a revert.
pub(crate) fn revert(answer: &Receipt) -> String {
    receipt(answer) + &skipped(&answer.skipped)
}

/// What a revert would do.
pub(crate) fn dry_receipt(would: &DryReceipt) -> String {
    planned(&would.planned) + &skipped(&would.skipped)
}

fn skipped(skipped: &[Skipped]) -> String {
    let left = |left: &Skipped| {
        let place = format!("{}/{} {}", left.collection, left.key, style::name(&left.path));
        format!("\n{} {place}: {}", style::warn("kept"), left.why)
    };
    skipped.iter().map(left).collect()
}

/// What a write would do.
pub(crate) fn planned(planned: &[Planned]) -> String {
    let write = |write: &Planned| {
        let title = style::bold(format!("{}/{}", write.collection, write.key));
        let ops = write.ops.iter().map(|op| format!("\n  {}", self::op(op, 100))).collect::<String>();
        format!("{title}{ops}\n")
    };
    let writes = match planned {
        [] => "unchanged\n".to_owned(),
        planned => planned.iter().map(write).collect(),
    };
    format!("{writes}{}", style::dim("nothing is written: this is a dry run"))
}

/// An operation on one line.
pub(crate) fn op(op: &Op, width: usize) -> String {
    let shape = shape::op(op);
    let part = |name: &str| shape.get(name).map(|value| short(value, width));
    let place = op.path().map_or_else(|| part("container").unwrap_or_default(), |path| style::name(path.as_str()));
    let rest = ["index", "delete", "insert", "value", "member", "by"].iter().filter_map(|name| part(name));
    let words = [op.name().to_owned(), place].into_iter().chain(rest).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Records in a table, with as much of their values as fits.
pub(crate) fn records(records: &[Record]) -> String {
    let mut table = table::table(&["key", "conflicts", "value"]);
    for record in records {
        let conflicts = if record.conflicts.is_empty() { String::new() } else { record.conflicts.len().to_string() };
        let deleted = if record.deleted { style::bad("deleted ") } else { String::new() };
        table.add_row([style::name(&record.key), conflicts, deleted + &short(&record.value, 100)]);
    }
    table::text(table)
}

/// Who edited, from where: `User 1 (jira)`.
pub(crate) fn who(event: &Event) -> String {
    who_of(&event.source, event.principal.as_deref())
}

fn who_of(source: &str, principal: Option<&str>) -> String {
    principal.map_or_else(|| source.to_owned(), |principal| format!("{principal} ({source})"))
}

/// The time that matters to people: when it happened, or else when it was stamped.
fn when(event: &Event) -> String {
    time::people(event.occurred_at.unwrap_or(event.at.millis))
}

/// An event of the log on one line.
pub(crate) fn entry(entry: &Entry) -> String {
    let event = &entry.event;
    let head = format!("{:>6}  {}  {}  {}", entry.position, when(event), style::dim(entry.id.short()), who(event));
    let ops: Vec<_> = event.ops().iter().take(3).map(|op| self::op(op, 30)).collect();
    let more = event.ops().len().saturating_sub(3);
    let more = if more > 0 { style::dim(format!(", {more} more")) } else { String::new() };
    format!("{head}  {}  {}{more}", style::bold(format!("{}/{}", event.collection, event.key)), ops.join(", "))
}

/// An event in full.
pub(crate) fn entry_in_full(entry: &Entry) -> String {
    let event = &entry.event;
    let mut table = table::table(&[]);
    let facts = [
        ("event", Some(entry.id.to_string())),
        ("position", Some(entry.position.to_string())),
        ("record", Some(format!("{}/{}", event.collection, event.key))),
        ("by", Some(who(event))),
        ("because", event.reason.clone()),
        ("happened", event.occurred_at.map(time::format)),
        ("stamped", Some(format!("{} +{}", time::format(event.at.millis), event.at.counter))),
        ("received", Some(time::format(entry.received_at))),
        (
            "writer",
            Some(format!("{} sequence {} lane {} nth {}", event.writer, event.sequence, event.lane, event.nth)),
        ),
        ("parents", Some(ids(&event.parents))),
        ("run", entry.run.or(event.run).map(|run| run.to_string())),
        ("batch", event.batch.map(|batch| format!("{} ({} of {})", batch.id, batch.index + 1, batch.count))),
        ("resolves", event.resolves.map(|id| id.to_string())),
        ("reverts", event.reverts.map(|id| id.to_string())),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            table.add_row([style::dim(name), fact]);
        }
    }
    let ops = event.ops().iter().map(|op| format!("\n  {}", self::op(op, 200)));
    format!("{}\n{}{}", table::text(table), style::dim("ops"), ops.collect::<String>())
}

fn ids(events: &[EventId]) -> String {
    let ids: Vec<_> = events.iter().map(EventId::short).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

/// Before → after of one field.
pub(crate) fn change(change: &Change, width: usize) -> String {
    let before = short_or(change.before.as_ref(), "absent", width);
    let after = change.after.as_ref().map_or_else(|| style::dim("removed"), |value| style::good(short(value, width)));
    let path = if change.path.is_root() { "(the record)" } else { change.path.as_str() };
    format!("{}  {before} {} {after}", style::name(path), style::dim("→"))
}

/// An event of a history: who and when, and below it what changed.
pub(crate) fn revision(revision: &Revision, most: usize) -> String {
    let (entry, event) = (&revision.entry, &revision.entry.event);
    let reason = event.reason.as_ref().map(|reason| format!("  “{}”", cut(reason, 60))).unwrap_or_default();
    let head = format!(
        "{} {}  {}{reason}  {}",
        style::dim(format!("{:>6}", entry.position)),
        style::bold(when(event)),
        who(event),
        style::dim(entry.id.short())
    );
    let mut lines = vec![head];
    lines.extend(revision.changes.iter().take(most).map(|change| format!("         {}", self::change(change, 60))));
    match revision.changes.len() {
        0 if event.resolves.is_some() => lines.push(settles(event)),
        0 => lines.push(style::dim("         nothing that it saw")),
        count if count > most => lines.push(style::dim(format!("         and {} more fields", count - most))),
        _ => {}
    }
    lines.join("\n")
}

/// A settlement that changes nothing its writer was shown still says what holds from then on.
fn settles(event: &Event) -> String {
    let ops: Vec<_> = event.ops().iter().map(|op| self::op(op, 60)).collect();
    format!("         {} {}", style::good("settles a conflict:"), ops.join(", "))
}

/// What differs between two moments.
pub(crate) fn changes(changes: &[Change]) -> String {
    let mut table = table::table(&["path", "before", "after"]);
    for change in changes {
        let side = |value: &Option<Json>, absent| short_or(value.as_ref(), absent, 60);
        let path = style::name(change.path.as_str());
        table.add_row([path, side(&change.before, "absent"), side(&change.after, "removed")]);
    }
    table::text(table)
}

/// Who wrote each field, with the events that did.
pub(crate) fn blame(lines: &[(Line, Option<Entry>)]) -> String {
    let mut table = table::table(&["path", "value", "by", "when", "event"]);
    for (line, entry) in lines {
        table.add_row([
            style::name(&line.path),
            short(&line.value, 40),
            line.source.as_ref().map(|source| who_of(source, line.principal.as_deref())).unwrap_or_default(),
            entry.as_ref().map(|entry| when(&entry.event)).unwrap_or_default(),
            style::dim(line.event.map(|event| event.short()).unwrap_or_default()),
        ]);
    }
    table::text(table)
}

/// Conflicts in a table.
pub(crate) fn conflicts(found: &[RecordConflict]) -> String {
    let mut table = table::table(&["conflict", "record", "path", "status", "candidates", "shown"]);
    for found in found {
        let conflict = &found.conflict;
        let candidates: Vec<_> = conflict.candidates.iter().map(|candidate| self::candidate(candidate, 24)).collect();
        table.add_row([
            style::dim(conflict.id.short()),
            format!("{}/{}", found.collection, found.key),
            style::name(&conflict.path),
            status(&conflict.status),
            candidates.join(" · "),
            content(conflict.shown.as_ref(), 24),
        ]);
    }
    table::text(table)
}

/// The status of a conflict in its colour.
pub(crate) fn status(status: &Status) -> String {
    match status {
        Status::Open => style::warn("open"),
        Status::Auto { rule } => format!("auto: {rule}"),
        Status::Resolved { .. } => style::good("resolved"),
    }
}

fn candidate(candidate: &Candidate, width: usize) -> String {
    format!("{} {}", style::dim(&candidate.source), value_of(candidate, width))
}

fn value_of(candidate: &Candidate, width: usize) -> String {
    candidate.value.as_ref().map_or_else(|| style::dim("removed"), |value| content(Some(value), width))
}

/// A projected value on one line.
pub(crate) fn content(content: Option<&Content>, width: usize) -> String {
    content.map_or_else(|| style::dim("absent"), |content| short(&shape::content(content), width))
}

/// A conflict in full: what each side says, and why one of it is shown.
pub(crate) fn conflict_in_full(found: &RecordConflict) -> String {
    let conflict = &found.conflict;
    let title = style::bold(format!("{}/{} {}", found.collection, found.key, conflict.path));
    let kind =
        format!("{}, {}, {}", shape::name(conflict.kind), shape::name(conflict.severity), status(&conflict.status));
    let mut lines = vec![
        format!("{title}  {kind}"),
        style::dim(format!("conflict {}", conflict.id)),
        format!("  base  {}", content(conflict.base.as_ref(), 100)),
    ];
    lines.extend(conflict.candidates.iter().enumerate().map(|(index, candidate)| numbered(index, candidate)));
    lines.push(format!(
        "  shown {}  {}",
        style::good(content(conflict.shown.as_ref(), 100)),
        style::dim(&conflict.because)
    ));
    if let Status::Resolved { event, principal, reason } = &conflict.status {
        let who = principal.as_deref().unwrap_or("somebody");
        let why = reason.as_ref().map(|reason| format!(": “{reason}”")).unwrap_or_default();
        lines.push(format!("  settled by {who} in {}{why}", event.short()));
    }
    lines.join("\n")
}

/// Counts of conflicts in a table.
pub(crate) fn conflict_counts(counts: &[ConflictCount]) -> String {
    if counts.is_empty() {
        return "no conflicts since".to_owned();
    }
    let titles =
        ["collection", "status", "kind", "severity", "count", "oldest", "hour", "day", "week", "month", "older"];
    let mut table = table::table(&titles);
    for count in counts {
        let status = count.rule.as_ref().map_or_else(|| count.status.to_owned(), |rule| format!("auto: {rule}"));
        let names = [count.collection.clone(), status, shape::name(count.kind), shape::name(count.severity)];
        let figures = [table::thousands(count.count), time::people(count.oldest)];
        table.add_row(names.into_iter().chain(figures).chain(count.ages.map(table::thousands)));
    }
    table::text(table)
}

/// A step in the history of a conflict, on one line.
pub(crate) fn conflict_step(step: &ConflictStep) -> String {
    let event = &step.entry.event;
    let what = match &step.what {
        Happening::Opened(count)
        | Happening::Grew(count)
        | Happening::Changed(count)
        | Happening::Reopened(count) => {
            format!("{}, {}", step.what.name(), table::count(*count, "candidate", "candidates"))
        }
        Happening::Assigned(Some(assignee)) => format!("assigned to {assignee}"),
        Happening::Assigned(None) => "assigned to nobody".to_owned(),
        Happening::Noted(Some(note)) => format!("“{note}”"),
        Happening::Noted(None) => "note taken back".to_owned(),
        Happening::Resolved | Happening::Edited => step.what.name().to_owned(),
    };
    let why = event.reason.as_ref().map(|reason| format!(": “{reason}”")).unwrap_or_default();
    format!("  {}  {}  {what}{why}", style::dim(when(event)), style::name(who(event)))
}

fn numbered(index: usize, candidate: &Candidate) -> String {
    let value = value_of(candidate, 100);
    let when = time::people(candidate.occurred_at.unwrap_or(candidate.at.millis));
    let who = who_of(&candidate.source, candidate.principal.as_deref());
    format!("  {:>4}  {value}  {}  {when}  {}", index + 1, style::name(who), style::dim(candidate.event.short()))
}
