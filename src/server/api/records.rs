//! One record: its value, and changes of it.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use super::ask::{self, Body, Params, Place};
use super::etag::{self, Guard};
use super::told;
use crate::event::{EventId, json};
use crate::ledger::{Act, Context, Ledger, Look, Outcome, Receipt, Record, Write};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::{Answer, Problem};
use crate::server::sight::absent;
use crate::shape;
use crate::{Error, ErrorKind, Result};

/// The collection and the key.
type Names = Place<(String, String)>;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/records/{collection}/{key}", get(read).put(put).patch(patch).delete(delete))
        .route("/v1/records/{collection}/{key}/undelete", post(undelete))
}

/// The value of a record, now or as of a moment.
async fn read(
    caller: Caller,
    Place((collection, key)): Names,
    params: Params,
    headers: HeaderMap,
) -> Answer<Response> {
    params.only(&["as_of", "strategy"])?;
    let work = move |ledger: &Ledger, device: &Device| shown(ledger, device, (&collection, &key), &params);
    let (record, tag) = caller.with(work).await?;
    let mut response = match etag::is_known(&headers, &tag)? {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => axum::Json(record.value).into_response(),
    };
    response.headers_mut().extend(etag::header(&tag));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// A record with its tag, as the parameters want it.
fn shown(
    ledger: &Ledger,
    device: &Device,
    (collection, key): (&str, &str),
    params: &Params,
) -> Result<(Record, String)> {
    // What a record shows now decides who may read any of its past.
    let now = device.look(ledger, collection, key)?.ok_or_else(|| absent(collection, key))?;
    let policy = params.strategy()?;
    let as_of = params.moment("as_of", ledger, (collection, key))?;
    let look = Look { as_of, policy: policy.clone() };
    let record = if look == Look::default() { Some(now) } else { ledger.look(collection, key, &look)? };
    let record = record.filter(|record| !record.deleted).ok_or_else(|| absent(collection, key))?;
    let policy = policy.map_or_else(|| ledger.policy(collection), Ok)?;
    let tag = etag::of_shown(&record.heads, &policy);
    Ok((record, tag))
}

/// Makes a record the object of the body.
async fn put(caller: Caller, at: Names, params: Params, headers: HeaderMap, body: Body) -> Answer<Response> {
    let body = body.json()?;
    change(caller, at, params, headers, move || Ok(Act::Put(json::parse_bytes(&body)?))).await
}

/// Changes the fields that the body names.
async fn patch(caller: Caller, at: Names, params: Params, headers: HeaderMap, body: Body) -> Answer<Response> {
    let body = body.of(&["application/merge-patch+json", "application/json"])?;
    change(caller, at, params, headers, move || Ok(Act::Patch(json::parse_bytes(&body)?))).await
}

/// Deletes a record.
async fn delete(caller: Caller, at: Names, params: Params, headers: HeaderMap) -> Answer<Response> {
    change(caller, at, params, headers, || Ok(Act::Delete)).await
}

/// Brings a deleted record back.
async fn undelete(caller: Caller, at: Names, params: Params, headers: HeaderMap) -> Answer<Response> {
    change(caller, at, params, headers, || Ok(Act::Undelete)).await
}

/// A change of a record that a device asks for.
struct Wish {
    write: Write,
    guard: Guard,
    context: Context,
}

/// What became of it.
struct Done {
    receipt: Receipt,
    /// Whether there was no such record before.
    is_new: bool,
    tag: String,
}

async fn change(
    caller: Caller,
    Place((collection, key)): Names,
    params: Params,
    headers: HeaderMap,
    act: impl FnOnce() -> Result<Act> + Send + 'static,
) -> Answer<Response> {
    params.only_of_change(&["base"])?;
    let context = ask::context(&caller, &headers, &params)?;
    let guard = Guard::of(&headers)?;
    let is_guarded = guard != Guard::None;
    let base = params.text("base").map(|tag| etag::heads("base", tag)).transpose()?;
    let work = move |ledger: &Ledger, device: &Device| {
        let mut write = Write::new(collection, key, act()?);
        write.base = base;
        Wish { write, guard, context }.grant(ledger, device)
    };
    let done = caller.with(work).await.map_err(|fault| refused(fault, is_guarded))?;
    let mut response = told(&done.receipt, shape::receipt(&done.receipt));
    response.headers_mut().extend(etag::header(&done.tag));
    if done.is_new && done.receipt.outcome == Outcome::Appended {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// That a condition of the request does not hold has a status of its own.
fn refused(fault: Error, is_guarded: bool) -> Problem {
    let is_condition = is_guarded && fault.kind() == ErrorKind::Conflict;
    let problem = Problem::from(fault);
    if is_condition { problem.with_status(StatusCode::PRECONDITION_FAILED) } else { problem }
}

impl Wish {
    fn grant(self, ledger: &Ledger, device: &Device) -> Result<Done> {
        let (collection, key) = (self.write.collection.clone(), self.write.key.clone());
        let before = device.look(ledger, &collection, &key)?;
        device.check_write(&collection)?;
        let is_new = before.as_ref().is_none_or(|record| record.deleted);
        let base = self.write.base.clone();
        let receipt = self.make(ledger, before)?;
        let heads = match (receipt.events.last(), base) {
            // Whoever made it has seen what it was made on, and it: not what came to the record besides.
            (Some((event, _)), _) => vec![*event],
            (None, Some(base)) => base,
            (None, None) => ledger.get(&collection, &key)?.map(|record| record.heads).unwrap_or_default(),
        };
        Ok(Done { receipt, is_new, tag: etag::of_shown(&heads, &ledger.policy(&collection)?) })
    }

    fn make(self, ledger: &Ledger, before: Option<Record>) -> Result<Receipt> {
        let Self { write, guard, context } = self;
        let live = before.as_ref().filter(|record| !record.deleted);
        match guard {
            Guard::None => ledger.write(write, &context),
            Guard::Exists if live.is_some() => ledger.write(write, &context),
            Guard::Exists => answered(ledger, &write, &context, "there is no such record"),
            Guard::OneOf(states) => expecting(ledger, &write, &context, states),
            Guard::Absent if live.is_some() => {
                answered(ledger, &write.expecting(Vec::new()), &context, "there is such a record already")
            }
            Guard::Absent => {
                let heads = before.map(|record| record.heads).unwrap_or_default();
                ledger.write(write.expecting(heads), &context)
            }
        }
    }
}

/// Makes a write on whichever of these states the record is in.
fn expecting(ledger: &Ledger, write: &Write, context: &Context, states: Vec<Vec<EventId>>) -> Result<Receipt> {
    let mut fault = None;
    for heads in states {
        match ledger.write(write.clone().expecting(heads), context) {
            // Of a request that was made before, another state may be the one that it was made on.
            Err(other) if [ErrorKind::Conflict, ErrorKind::IdempotencyMismatch].contains(&other.kind()) => {
                fault = Some(other);
            }
            done => return done,
        }
    }
    Err(fault.unwrap_or_else(|| Error::new(ErrorKind::Conflict, "the record has none of these ETags")))
}

/// What the request answered when it was made before; otherwise its condition does not hold.
fn answered(ledger: &Ledger, write: &Write, context: &Context, why: &str) -> Result<Receipt> {
    let before = ledger.answer_before(write, context)?;
    before
        .ok_or_else(|| Error::new(ErrorKind::Conflict, format!("{why}: the condition of the request does not hold")))
}
