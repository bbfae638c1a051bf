//! A merge as a ledger would have it: the events of the base and of the two versions made on it, in one document.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{Candidate, Conflict, Merged, Side, Version};
use crate::document::Document;
use crate::event::{
    BlobForm, BlobHash, BlobRef, Body, Event, EventId, LedgerId, Op, Part, Path, Timestamp, Value, WriterId, chain,
    diff, json, limits,
};
use crate::projection::{self, Content, DELETED, Policy, RecordId, Resolvers, project};
use crate::{Error, ErrorKind, Result};

const LEDGER: LedgerId = LedgerId([0; 16]);
const BASE: WriterId = WriterId([1; 16]);
const A: WriterId = WriterId([2; 16]);
const B: WriterId = WriterId([3; 16]);

/// The event that a write ended with, and its time.
type End = Option<(EventId, Timestamp)>;

/// Who writes, and when.
struct Pen<'a> {
    writer: WriterId,
    source: &'a str,
    principal: Option<&'a str>,
    at: i64,
}

/// The record that a merge is of.
#[derive(Default)]
pub(super) struct Record {
    document: Document,
    /// The large values that its events name.
    large: BTreeMap<BlobHash, Vec<u8>>,
}

impl Record {
    /// The record of a base and two versions, which are objects.
    pub(super) fn of(base: Option<&Json>, a: &Version, b: &Version) -> Result<Self> {
        let mut record = Self::default();
        let first = Pen { writer: BASE, source: "base", principal: None, at: a.at.min(b.at).saturating_sub(1) };
        let ops = base.map_or(Ok(Vec::new()), |base| record.put(None, base))?;
        let base_end = record.write(&first, None, [], ops)?;
        let a_end = record.version(A, base, base_end, [], a)?;
        // Of equal times the second counts as the later.
        let after = a_end.map(|(_, at)| at).filter(|_| a.at == b.at);
        record.version(B, base, base_end, after, b)?;
        Ok(record)
    }

    fn version(
        &mut self,
        writer: WriterId,
        base: Option<&Json>,
        on: End,
        after: impl IntoIterator<Item = Timestamp>,
        version: &Version,
    ) -> Result<End> {
        let ops = match (&version.value, base) {
            (Some(value), _) => self.put(base, value)?,
            (None, Some(_)) => vec![Op::Delete],
            (None, None) => Vec::new(),
        };
        let pen = Pen { writer, source: &version.source, principal: version.principal.as_deref(), at: version.at };
        self.write(&pen, on, after, ops)
    }

    /// The operations that put a whole record where `before` is shown, as a ledger drafts them.
    fn put(&mut self, before: Option<&Json>, after: &Json) -> Result<Vec<Op>> {
        let is_bare = |value: &Json| value.as_object().is_some_and(serde_json::Map::is_empty);
        if is_bare(after) && before.is_some_and(|before| !is_bare(before)) {
            return Ok(vec![Op::Put { path: Path::root(), value: Value::EmptyObject }]);
        }
        let (before, after) = (before.map_or(Ok(BTreeMap::new()), |it| self.fields(it))?, self.fields(after)?);
        let removed = diff::removed(&before, &after).into_iter().map(|path| Op::Remove { path });
        let changed = after.iter().filter(|(path, value)| before.get(path) != Some(value));
        let put = |(path, value): (&Path, &Value)| match value.clone() {
            Value::Atomic(json) => Op::PutAtomic { path: path.clone(), json },
            value => Op::Put { path: path.clone(), value },
        };
        Ok(removed.chain(changed.map(put)).collect())
    }

    /// The fields of an object, large values by reference.
    fn fields(&mut self, object: &Json) -> Result<BTreeMap<Path, Value>> {
        let object = json::normalize(object.clone())?;
        let leaves = diff::leaves(&object)?;
        leaves.into_iter().map(|(path, leaf)| Ok((path, self.inline(Value::from_json(&leaf.to_value()))?))).collect()
    }

    fn inline(&mut self, value: Value) -> Result<Value> {
        let Some((content, reference)) = value.large() else { return Ok(value) };
        if reference.bytes > limits::BLOB_BYTES {
            return Err(Error::new(ErrorKind::TooLarge, "expected a value of at most 256 MiB"));
        }
        self.large.insert(reference.hash, content.to_vec());
        Ok(Value::Blob(reference))
    }

    /// Writes operations on the end of others, after them and after some times, in as many events as they take.
    fn write(
        &mut self,
        pen: &Pen<'_>,
        on: End,
        after: impl IntoIterator<Item = Timestamp>,
        ops: Vec<Op>,
    ) -> Result<End> {
        if ops.is_empty() {
            return Ok(on);
        }
        let (mut end, mut at) = (on, Timestamp::stamp(pen.at, after.into_iter().chain(on.map(|(_, at)| at))));
        chain(ops, |Part { index, ops, .. }| {
            let event = pen.event(index, end.map(|(id, _)| id), at, ops);
            let (id, _) = event.identify(LEDGER)?;
            self.document.apply(id, &event)?;
            end = Some((id, at));
            at = at.next();
            Ok::<_, Error>(id)
        })?;
        Ok(end)
    }

    /// What the record shows under a policy.
    pub(super) fn project(mut self, policy: &Policy, resolvers: &Resolvers) -> Result<Merged> {
        let is_absent = self.document.graph().is_empty();
        let record = RecordId { ledger: LEDGER, collection: "merge".into(), key: "merge".into() };
        let projected = project(&self.document.view()?, policy, resolvers, &record);
        let conflicts = projected.conflicts.iter().map(|conflict| self.conflict(conflict)).collect::<Result<_>>()?;
        let value = (!is_absent).then(|| self.fill(&projected.content)).transpose()?;
        Ok(Merged { value, deleted: projected.deleted, conflicts })
    }

    fn conflict(&self, conflict: &projection::Conflict) -> Result<Conflict> {
        let json = |content: &Option<Content>| content.as_ref().map(|content| self.fill(content)).transpose();
        let candidate = |candidate: &projection::Candidate| {
            Ok(Candidate {
                value: json(&candidate.value)?,
                side: if candidate.writer == A { Side::A } else { Side::B },
                source: candidate.source.clone(),
                principal: candidate.principal.clone(),
                at: candidate.at.millis,
            })
        };
        Ok(Conflict {
            path: conflict.path.clone(),
            kind: conflict.kind,
            severity: conflict.severity,
            status: conflict.status.clone(),
            base: json(&conflict.base)?,
            candidates: conflict.candidates.iter().map(candidate).collect::<Result<_>>()?,
            shown: json(&conflict.shown)?,
            taken: conflict.taken,
            because: conflict.because.clone(),
        })
    }

    fn fill(&self, content: &Content) -> Result<Json> {
        content.fill(|blob| self.read(blob).ok_or_else(lost))
    }

    fn read(&self, blob: &BlobRef) -> Option<Json> {
        let bytes = self.large.get(&blob.hash)?;
        match blob.form {
            BlobForm::Text => String::from_utf8(bytes.clone()).ok().map(Json::from),
            BlobForm::Json | BlobForm::Bytes => serde_json::from_slice(bytes).ok(),
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Consistency, "a large value of the merge is missing: a fault of this program")
}

impl Pen<'_> {
    fn event(&self, index: u32, parent: Option<EventId>, at: Timestamp, ops: Vec<Op>) -> Event {
        Event {
            collection: "merge".to_owned(),
            key: "merge".to_owned(),
            writer: self.writer,
            sequence: u64::from(index) + 1,
            lane: 0,
            nth: index + 1,
            parents: parent.into_iter().collect(),
            at,
            occurred_at: None,
            source: self.source.to_owned(),
            principal: self.principal.map(str::to_owned),
            reason: None,
            run: None,
            delivery: false,
            idempotency: None,
            batch: None,
            resolves: None,
            reverts: None,
            body: Body::Ops(ops),
        }
    }
}

// --- what is no object ---------------------------------------------------------------------------------------------

/// A value as the only field of an object.
pub(super) fn boxed(value: Json) -> Json {
    json!({ "": value })
}

/// A policy for what is below that field.
pub(super) fn boxed_policy(policy: &Policy) -> Result<Policy> {
    let below =
        |(path, strategy): (&Path, &projection::Strategy)| Ok((Path::parse(&format!("/{path}"))?, strategy.clone()));
    let fields = policy.fields.iter().map(below).collect::<Result<_>>()?;
    Ok(Policy { fields, ..policy.clone() })
}

/// What the merge of boxed values says of the values.
pub(super) fn unboxed(mut merged: Merged) -> Merged {
    merged.value = merged.value.and_then(|mut value| value.get_mut("").map(Json::take));
    for conflict in merged.conflicts.iter_mut().filter(|conflict| conflict.path != DELETED) {
        conflict.path = conflict.path.strip_prefix('/').unwrap_or_default().to_owned();
    }
    merged
}
