//! How the records of a collection should look, and how their conflicts are decided.

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value as Json, json};

use super::ask::{Asked, Body, Change, Params, Place};
use super::told;
use crate::event::json as strict;
use crate::ledger::Ledger;
use crate::projection::Policy;
use crate::server::Server;
use crate::server::access::{Device, Role};
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::server::sight::Sight;
use crate::shape;
use crate::{Error, ErrorKind, Result};

/// How many decisions of another policy are told at most.
const MOST_TRIED: usize = 10_000;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/policies/{collection}", get(policy).put(set_policy))
        .route("/v1/policies/{collection}/try", post(try_policy))
        .route("/v1/schemas/{collection}", get(schema).put(set_schema))
        .route("/v1/violations", get(violations))
}

async fn policy(caller: Caller, Place(collection): Place<String>, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        device.check_collection(&collection)?;
        Ok(ledger.policy(&collection)?.to_json())
    };
    Ok(axum::Json(caller.with(work).await?))
}

async fn set_policy(Place(collection): Place<String>, change: Change) -> Answer<Response> {
    let Asked { caller, context, body, .. } = change.with(&[])?;
    let is_admin = caller.require(Role::Admin);
    let work = move |ledger: &Ledger, device: &Device| {
        device.check_collection(&collection)?;
        is_admin?;
        ledger.set_policy(&collection, &read_policy(&body)?, &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::receipt(&receipt)))
}

/// What another policy would have decided otherwise, of the records that the device sees.
async fn try_policy(
    caller: Caller,
    Place(collection): Place<String>,
    params: Params,
    body: Body,
) -> Answer<axum::Json<Json>> {
    params.only(&["since"])?;
    let (since, body) = (params.since("since")?, body.json()?);
    let work = move |ledger: &Ledger, device: &Device| {
        device.check_collection(&collection)?;
        let policy = read_policy(&body)?;
        let mut sight = Sight::new(ledger, device);
        let mut found = Vec::new();
        let tell = &mut |tried: crate::ledger::Tried| {
            if found.len() >= MOST_TRIED {
                let message = format!("more than {MOST_TRIED} decisions would differ");
                return Err(
                    Error::new(ErrorKind::TooLarge, message).with_hint("try it from a later moment, by `since`")
                );
            }
            if sight.sees(&collection, &tried.key)? {
                found.push(shape::tried(&tried));
            }
            Ok(())
        };
        ledger.try_policy_with(&collection, &policy, since, tell)?;
        Ok(json!({ "decisions": found }))
    };
    Ok(axum::Json(caller.with(work).await?))
}

fn read_policy(body: &[u8]) -> Result<Policy> {
    Ok(Policy::from_json(&strict::parse_bytes(body)?)?)
}

async fn schema(caller: Caller, Place(collection): Place<String>, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        device.check_collection(&collection)?;
        let none = || Error::new(ErrorKind::NotFound, "the collection has no schema");
        ledger.schema(&collection)?.ok_or_else(none)
    };
    Ok(axum::Json(caller.with(work).await?))
}

/// Sets a schema; `null` removes it. In a dry run answers with what it would break.
async fn set_schema(Place(collection): Place<String>, change: Change) -> Answer<Response> {
    let Asked { caller, params, context, body } = change.with(&["dry_run"])?;
    let is_dry = params.flag("dry_run")?;
    let is_admin = caller.require(Role::Admin);
    let work = move |ledger: &Ledger, device: &Device| {
        device.check_collection(&collection)?;
        is_admin?;
        let schema = strict::parse_bytes(&body)?;
        if is_dry {
            let broken =
                if schema.is_null() { Vec::new() } else { ledger.try_schema(&collection, &schema, &context)? };
            return Ok(axum::Json(broken_of(ledger, device, &broken)?).into_response());
        }
        let receipt = match schema.is_null() {
            true => ledger.remove_schema(&collection, &context)?,
            false => ledger.set_schema(&collection, &schema, &context)?,
        };
        Ok(told(&receipt, shape::receipt(&receipt)))
    };
    Ok(caller.with(work).await?)
}

/// The constraints that records break which the device sees.
async fn violations(caller: Caller, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&["collection"])?;
    let work = move |ledger: &Ledger, device: &Device| {
        let collection = params.text("collection");
        collection.map_or(Ok(()), |name| device.check_collection(name))?;
        broken_of(ledger, device, &ledger.violations(collection)?)
    };
    Ok(axum::Json(caller.with(work).await?))
}

fn broken_of(ledger: &Ledger, device: &Device, broken: &[crate::schema::Violation]) -> Result<Json> {
    let mut sight = Sight::new(ledger, device);
    let mut found = Vec::new();
    for violation in broken {
        if sight.sees(&violation.collection, &violation.key)? {
            found.push(shape::violation(violation));
        }
    }
    Ok(json!({ "violations": found }))
}
