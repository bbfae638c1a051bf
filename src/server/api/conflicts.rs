//! Conflicts: what was edited apart and disagrees, and how it is settled.

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value as Json, json};

use super::ask::{Asked, Change, Fields, Params, Place, invalid, malformed};
use super::told;
use crate::event::hex;
use crate::ledger::{Annotation, Happening, Ledger, RecordConflict, Settlement, Which};
use crate::projection::{Candidate, Conflict};
use crate::server::Server;
use crate::server::access::{Device, Role};
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::server::sight::{Sight, no_conflict};
use crate::shape;
use crate::{Error, ErrorKind, Result};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/conflicts", get(list))
        .route("/v1/conflicts/{id}", get(show))
        .route("/v1/conflicts/{id}/resolve", post(resolve))
        .route("/v1/conflicts/{id}/reopen", post(reopen))
        .route("/v1/conflicts/{id}/annotate", post(annotate))
}

/// The conflicts of the records that the device sees.
async fn list(caller: Caller, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&["collection", "which", "strategy"])?;
    let which = match params.text("which").unwrap_or("open") {
        "open" => Which::Open,
        "auto" => Which::Auto,
        "resolved" => Which::Resolved,
        "all" => Which::All,
        other => return Err(malformed("which", other, "open, auto, resolved or all").into()),
    };
    let policy = params.strategy()?;
    let work = move |ledger: &Ledger, device: &Device| {
        let collection = params.text("collection");
        collection.map_or(Ok(()), |name| device.check_collection(name))?;
        let mut sight = Sight::new(ledger, device);
        let mut found = Vec::new();
        for conflict in ledger.conflicts(collection, which, policy.as_ref())? {
            if sight.sees_conflict(&conflict)? {
                found.push(shape::conflict(&conflict));
            }
        }
        Ok(json!({ "conflicts": found }))
    };
    Ok(axum::Json(caller.with(work).await?))
}

/// A conflict in full: what operators said of it, and how it came to stand as it does.
async fn show(caller: Caller, Place(id): Place<String>, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        let found = find(ledger, device, &id)?;
        let (annotation, mut steps) =
            (ledger.annotation(found.conflict.id)?, ledger.conflict_history(found.conflict.id)?);
        if device.rights.role >= Role::Operator {
            return Ok(shape::conflict_in_full(&found, &annotation, &steps));
        }
        steps.retain(|step| !matches!(step.what, Happening::Assigned(_) | Happening::Noted(_)));
        Ok(shape::conflict_in_full(&found, &Annotation::default(), &steps))
    };
    Ok(axum::Json(caller.with(work).await?))
}

/// Settles a conflict.
async fn resolve(Place(id): Place<String>, change: Change) -> Answer<Response> {
    let Asked { caller, context, body, .. } = change.with(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        let found = find(ledger, device, &id)?;
        check_settle(device, &found)?;
        let mut fields = Fields::read(&body, &["candidate", "value", "base", "version"])?;
        let version = version(&mut fields, &found.conflict)?;
        let settlement = settlement(&mut fields, &found.conflict)?;
        ledger.resolve(found.conflict.id, settlement, version, &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::receipt(&receipt)))
}

/// Opens a settled conflict again.
async fn reopen(Place(id): Place<String>, change: Change) -> Answer<Response> {
    let Asked { caller, context, body, .. } = change.with(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        let found = find(ledger, device, &id)?;
        check_settle(device, &found)?;
        Fields::read(&body, &[])?;
        ledger.reopen(found.conflict.id, &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::revert(&receipt)))
}

/// Says who looks after a conflict, or something about it.
async fn annotate(Place(id): Place<String>, change: Change) -> Answer<Response> {
    let Asked { caller, context, body, .. } = change.with(&[])?;
    let is_operator = caller.require(Role::Operator);
    let work = move |ledger: &Ledger, device: &Device| {
        let found = find(ledger, device, &id)?;
        is_operator?;
        let mut fields = Fields::read(&body, &["assignee", "note"])?;
        let annotation = Annotation { assignee: fields.text("assignee")?, note: fields.text("note")? };
        if annotation == Annotation::default() {
            return Err(invalid("expected `assignee` or `note`", ""));
        }
        ledger.annotate(found.conflict.id, &annotation, &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::receipt(&receipt)))
}

/// The conflict of an id. Only whole ids are looked for: the beginning of one would tell of those that may not be seen.
fn find(ledger: &Ledger, device: &Device, id: &str) -> Result<RecordConflict> {
    let absent = |_| no_conflict().with_hint("list them at /v1/conflicts");
    device.find_conflict(ledger, id.parse().map_err(absent)?)
}

/// Writers settle conflicts that they are a side of; operators those of others too.
fn check_settle(device: &Device, found: &RecordConflict) -> Result<()> {
    device.check_write(&found.collection)?;
    let is_own = |candidate: &Candidate| {
        candidate.principal.as_ref() == Some(&device.id) || device.writers.contains(&candidate.writer)
    };
    if device.rights.role >= Role::Operator || found.conflict.candidates.iter().any(is_own) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Permission, "none of the candidates is this device's: that needs the role operator"))
}

/// The version that the conflict must have: the one that is named, or the one that was found.
fn version(fields: &mut Fields, conflict: &Conflict) -> Result<Option<[u8; 32]>> {
    let current = hex(&conflict.version);
    match fields.text("version")? {
        Some(version) if version != current => {
            Err(Error::new(ErrorKind::Conflict, format!("the conflict has another version now: {current}"))
                .with_hint("look at it again: it may have another candidate"))
        }
        _ => Ok(Some(conflict.version)),
    }
}

fn settlement(fields: &mut Fields, conflict: &Conflict) -> Result<Settlement> {
    match (fields.json("candidate"), fields.json("value"), fields.json("base")) {
        (Some(choice), None, None) => taken(&choice, &conflict.candidates),
        (None, Some(value), None) => Ok(Settlement::Value(value)),
        (None, None, Some(Json::Bool(true))) => Ok(Settlement::Base),
        _ => Err(invalid("expected one of `candidate`, `value` and `\"base\": true`", "")),
    }
}

/// Which candidate is meant: by its number from 1, its source, its event, or where it was stamped.
fn taken(choice: &Json, candidates: &[Candidate]) -> Result<Settlement> {
    let unknown =
        || invalid("expected a candidate's number from 1, its source, its event, local or remote", "candidate");
    if let Some(number) = choice.as_u64() {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        return index.filter(|index| *index < candidates.len()).map(Settlement::Take).ok_or_else(unknown);
    }
    let choice = choice.as_str().ok_or_else(unknown)?;
    let by_event =
        || choice.parse().ok().filter(|event| candidates.iter().any(|candidate| candidate.event == *event));
    match choice {
        "local" => Ok(Settlement::TakeLocal),
        "remote" => Ok(Settlement::TakeRemote),
        source if candidates.iter().any(|candidate| candidate.source == source) => {
            Ok(Settlement::TakeSource(source.to_owned()))
        }
        _ => by_event().map(Settlement::TakeEvent).ok_or_else(unknown),
    }
}
