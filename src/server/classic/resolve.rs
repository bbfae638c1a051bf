//! `POST /api/sync/resolve-conflict`: a device settles a conflict.

use axum::Json as Body;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde_json::{Value as Json, json};

use super::{invalid, object};
use crate::event::{ConflictId, EventId, json};
use crate::ledger::{Context, Ledger, RecordConflict, Settlement};
use crate::projection::{Candidate, Conflict, ConflictKind, DELETED, Status};
use crate::server::Server;
use crate::server::access::{Device, Role};
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::shape::set;
use crate::{Error, ErrorKind, Result};

/// Settles a conflict with the value shown, with the device's own, or with another.
pub(super) async fn resolve(
    State(_): State<Server>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Body<Json>> {
    let asked = json::parse_bytes(&body?).map_err(Error::from)?;
    super::check_device(&caller.device, asked.get("device_id"))?;
    let asked = Asked::read(&asked)?;
    let context = caller.context().because("settled by the device");
    let answer = caller.with(move |ledger, device| settle(ledger, device, &asked, &context)).await?;
    Ok(Body(answer))
}

struct Asked {
    conflict: ConflictId,
    resolution: Resolution,
}

enum Resolution {
    Server,
    Client,
    Merge(Json),
}

impl Asked {
    fn read(asked: &Json) -> Result<Self> {
        let text = |name: &str| asked.get(name).and_then(Json::as_str);
        let conflict = text("conflict_id").and_then(|id| id.parse().ok());
        let conflict = conflict
            .ok_or_else(|| invalid("/conflict_id", "expected a conflict_id, as the answer to an upload gives it"))?;
        let resolution = match (text("resolution"), asked.get("resolved_data")) {
            (Some("server"), _) => Resolution::Server,
            (Some("client"), _) => Resolution::Client,
            (Some("merge"), Some(data)) => Resolution::Merge(data.clone()),
            (Some("merge"), None) => {
                let message =
                    "expected resolved_data: the value that the field is to have, or an object with the field";
                return Err(invalid("/resolved_data", message));
            }
            _ => return Err(invalid("/resolution", "expected a resolution: server, client or merge")),
        };
        Ok(Self { conflict, resolution })
    }
}

fn settle(ledger: &Ledger, device: &Device, asked: &Asked, context: &Context) -> Result<Json> {
    let found = find(ledger, device, asked.conflict)?;
    if !device.may_write(&found.collection) {
        let message = format!("the device may not write records of {:?}", found.collection);
        return Err(Error::new(ErrorKind::Permission, message));
    }
    if let Status::Resolved { principal, .. } = &found.conflict.status {
        return settled_before(ledger, &found, principal.as_deref(), device);
    }
    check_part(ledger, device, &found, context)?;
    check_kind(&found.conflict)?;
    let settlement = match &asked.resolution {
        Resolution::Server => shown(ledger, &found)?,
        Resolution::Client => own(ledger, &found, context)?,
        Resolution::Merge(data) => merged(ledger, &found, data)?,
    };
    ledger.resolve(found.conflict.id, settlement, Some(found.conflict.version), context)?;
    answer(ledger, &found)
}

/// The conflict of an id, settled or not, if the device may see it.
fn find(ledger: &Ledger, device: &Device, id: ConflictId) -> Result<RecordConflict> {
    device.find_conflict(ledger, id).map_err(|fault| {
        let hint = "it may have gone by an edit that has seen all candidates: download the record";
        if fault.kind() == ErrorKind::NotFound { fault.with_hint(hint) } else { fault }
    })
}

/// The answer to who settles again what is settled: its first answer may have got lost.
fn settled_before(ledger: &Ledger, found: &RecordConflict, by: Option<&str>, device: &Device) -> Result<Json> {
    if by == Some(device.id.as_str()) {
        return answer(ledger, found);
    }
    Err(Error::new(ErrorKind::Conflict, "somebody else has settled the conflict")
        .with_hint("download the record, and upload an update where it is to be otherwise"))
}

/// Checks that the device takes part in the conflict: those of others are for operators.
fn check_part(ledger: &Ledger, device: &Device, found: &RecordConflict, context: &Context) -> Result<()> {
    let is_own = |candidate: &Candidate| candidate.principal.as_deref() == Some(device.id.as_str());
    let takes_part = device.rights.role >= Role::Operator
        || found.conflict.candidates.iter().any(is_own)
        || !ledger.events_by(&found.collection, &found.key, context)?.is_empty();
    if takes_part {
        return Ok(());
    }
    let message = "the device takes no part in the conflict: those of others are settled by an operator";
    Err(Error::new(ErrorKind::Permission, message))
}

fn check_kind(conflict: &Conflict) -> Result<()> {
    if conflict.kind != ConflictKind::Constraint {
        return Ok(());
    }
    let message = format!("the record breaks a rule, which no choice among values mends: {}", conflict.because);
    Err(Error::new(ErrorKind::Validation, message)
        .with_pointers(vec![conflict.path.clone()])
        .with_hint("upload an update that keeps to it"))
}

/// The value that is shown.
fn shown(ledger: &Ledger, found: &RecordConflict) -> Result<Settlement> {
    let conflict = &found.conflict;
    if let Some(index) = conflict.taken {
        return Ok(Settlement::Take(index));
    }
    if conflict.path == DELETED {
        let deleted = ledger.get(&found.collection, &found.key)?.is_some_and(|record| record.deleted);
        return Ok(Settlement::Value(deleted.into()));
    }
    let same = |candidate: &Candidate| candidate.value == conflict.shown;
    match (conflict.candidates.iter().position(same), &conflict.shown) {
        (Some(index), _) => Ok(Settlement::Take(index)),
        (None, Some(_)) => Ok(Settlement::Value(value_shown(ledger, found)?.unwrap_or_default())),
        (None, None) => Err(invalid("/resolution", "no value is shown, and nobody has removed it")
            .with_hint("take `client`, or `merge` with a value")),
    }
}

fn value_shown(ledger: &Ledger, found: &RecordConflict) -> Result<Option<Json>> {
    let record = ledger.get(&found.collection, &found.key)?;
    Ok(record.and_then(|record| record.value.pointer(&found.conflict.path).cloned()))
}

/// The device's candidate.
fn own(ledger: &Ledger, found: &RecordConflict, context: &Context) -> Result<Settlement> {
    let events: Vec<_> = ledger.events_by(&found.collection, &found.key, context)?;
    let candidates = &found.conflict.candidates;
    let is_own = |event: EventId| events.iter().any(|own| own.id == event);
    if let Some(candidate) = candidates.iter().rev().find(|candidate| is_own(candidate.event)) {
        return Ok(Settlement::TakeEvent(candidate.event));
    }
    // Of equal values another's may be the first: what the device wrote last is there under its name.
    let path = found.conflict.path.as_str();
    let written = events.iter().rev().flat_map(|entry| entry.event.ops().iter().rev());
    let mut written = written.filter(|op| op.path().is_some_and(|at| at.as_str() == path)).map(crate::shape::op);
    let value = written.next().and_then(|op| op.get("value").cloned());
    let same = |candidate: &&Candidate| {
        value.is_some() && candidate.value.as_ref().map(|value| &value.json) == value.as_ref()
    };
    let candidate = candidates.iter().find(same).ok_or_else(|| {
        invalid("/resolution", "the device has no candidate in the conflict").with_hint("take `server`, or `merge`")
    })?;
    Ok(Settlement::TakeEvent(candidate.event))
}

/// The value that a device has made of the candidates: the field's, or an object with the field, beside which nothing differs from
/// what is shown.
fn merged(ledger: &Ledger, found: &RecordConflict, data: &Json) -> Result<Settlement> {
    let path = found.conflict.path.as_str();
    if path == DELETED {
        let deleted = matches!(data, Json::Null | Json::Bool(true));
        check_rest(ledger, found, data, "")?;
        return Ok(Settlement::Value(deleted.into()));
    }
    match data.pointer(path).filter(|_| data.is_object()) {
        Some(value) => {
            check_rest(ledger, found, data, path)?;
            Ok(Settlement::Value(value.clone()))
        }
        None => Ok(Settlement::Value(data.clone())),
    }
}

fn check_rest(ledger: &Ledger, found: &RecordConflict, data: &Json, path: &str) -> Result<()> {
    let shown = ledger.get(&found.collection, &found.key)?.map(|record| record.value).unwrap_or_default();
    let without = |mut value: Json| {
        if let Some(field) = value.pointer_mut(path).filter(|_| !path.is_empty()) {
            *field = Json::Null;
        }
        value
    };
    let (shown, data) = (without(shown), without(data.clone()));
    let fields = data.as_object().into_iter().flatten();
    let others = fields.filter(|(name, value)| shown.get(name.as_str()).unwrap_or(&Json::Null) != *value);
    let others: Vec<String> = others.map(|(name, _)| format!("/resolved_data/{name}")).collect();
    if others.is_empty() {
        return Ok(());
    }
    let message = format!("expected only the field in dispute, `{path}`, to differ from what is shown");
    Err(Error::new(ErrorKind::Validation, message)
        .with_pointers(others)
        .with_hint("settle the conflict, then upload the other fields as an update"))
}

/// The answer, with the record as it is now: the device has seen it then.
fn answer(ledger: &Ledger, found: &RecordConflict) -> Result<Json> {
    let mut answer = json!({
        "conflict_id": found.conflict.id.to_string(),
        "status": "resolved",
        "model": found.collection,
        "object_id": object::shown(&found.key),
        "path": found.conflict.path,
    });
    if let Some(record) = ledger.get(&found.collection, &found.key)? {
        set(&mut answer, "data", if record.deleted { Json::Null } else { record.value });
        set(&mut answer, "deleted", record.deleted);
    }
    Ok(answer)
}
