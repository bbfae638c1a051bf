//! A ledger as a whole.

use axum::Router;
use axum::routing::get;
use serde_json::Value as Json;

use super::ask::Params;
use crate::ledger::Ledger;
use crate::server::Server;
use crate::server::access::{Device, Role};
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::shape;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/digest", get(digest)).route("/v1/status", get(status))
}

/// The hash of all events; of the collections those of which the device may read all records.
async fn digest(caller: Caller, params: Params) -> Answer<axum::Json<Json>> {
    params.only(&[])?;
    let work = |ledger: &Ledger, device: &Device| {
        let mut digest = ledger.digest()?;
        digest.collections.retain(|(name, _)| device.conditions(name).is_some_and(<[_]>::is_empty));
        Ok(shape::digest(&digest))
    };
    Ok(axum::Json(caller.with(work).await?))
}

/// Counts, conflicts and sizes.
async fn status(caller: Caller, params: Params) -> Answer<axum::Json<Json>> {
    caller.require(Role::Operator)?;
    params.only(&["since"])?;
    let since = params.since("since")?;
    let work = move |ledger: &Ledger, _: &Device| {
        let (found, info) = (ledger.status()?, ledger.info());
        let mut object = shape::status(&found);
        if since.is_some() {
            let counts = ledger.conflict_counts(since)?;
            let counts: Vec<_> = counts.iter().map(shape::conflict_count).collect();
            shape::set(&mut object, "conflicts_since", counts);
        }
        shape::set(&mut object, "ledger", info.name.as_str());
        shape::set(&mut object, "id", info.id.to_string());
        shape::set(&mut object, "writer", info.writer.to_string());
        Ok(object)
    };
    Ok(axum::Json(caller.with(work).await?))
}
