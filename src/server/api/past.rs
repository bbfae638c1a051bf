//! What happened to a record.

use axum::Router;
use axum::routing::get;
use serde_json::{Value as Json, json};

use super::ask::{Params, Place};
use crate::ledger::Ledger;
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::server::sight::absent;
use crate::shape;
use crate::{Error, ErrorKind, Result};

/// The collection and the key.
type Names = Place<(String, String)>;

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v1/records/{collection}/{key}/history", get(history))
        .route("/v1/records/{collection}/{key}/diff", get(diff))
        .route("/v1/records/{collection}/{key}/blame", get(blame))
}

/// Reads something of a record that the device sees, deleted or not.
async fn of_record(
    caller: Caller,
    Place((collection, key)): Names,
    read: impl FnOnce(&Ledger, (&str, &str)) -> Result<Json> + Send + 'static,
) -> Answer<axum::Json<Json>> {
    let work = move |ledger: &Ledger, device: &Device| {
        device.look(ledger, &collection, &key)?.ok_or_else(|| absent(&collection, &key))?;
        read(ledger, (&collection, &key))
    };
    Ok(axum::Json(caller.with(work).await?))
}

/// Who changed it, when and why, and each field before and after.
async fn history(caller: Caller, at: Names, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&["full"])?;
    let full = params.flag("full")?;
    let read = move |ledger: &Ledger, (collection, key): (&str, &str)| {
        let revisions = ledger.history(collection, key)?;
        let revisions: Vec<_> = revisions.iter().map(|revision| shape::revision(revision, full)).collect();
        Ok(json!({ "revisions": revisions }))
    };
    of_record(caller, at, read).await
}

/// What differs between two moments.
async fn diff(caller: Caller, at: Names, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&["from", "to"])?;
    let read = move |ledger: &Ledger, place: (&str, &str)| {
        let moment = |name: &str| {
            let missing = || Error::new(ErrorKind::Client, format!("expected a moment in `{name}`"));
            params.moment(name, ledger, place)?.ok_or_else(missing)
        };
        let changes = ledger.diff(place.0, place.1, moment("from")?, moment("to")?)?;
        Ok(json!({ "changes": changes.iter().map(shape::change).collect::<Vec<_>>() }))
    };
    of_record(caller, at, read).await
}

/// Who wrote each field.
async fn blame(caller: Caller, at: Names, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&[])?;
    let read = |ledger: &Ledger, (collection, key): (&str, &str)| {
        let lines = ledger.blame(collection, key)?;
        Ok(json!({ "lines": lines.iter().map(shape::line).collect::<Vec<_>>() }))
    };
    of_record(caller, at, read).await
}
