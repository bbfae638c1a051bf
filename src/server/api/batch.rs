//! Many changes of many records, all or nothing.

use axum::Router;
use axum::response::Response;
use axum::routing::post;

use super::ask::{Asked, Change};
use super::told;
use crate::ledger::{Ledger, Write};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::problem::Answer;
use crate::server::sight::Sight;
use crate::shape;
use crate::shape::batch::Lines;
use crate::{Error, ErrorKind, Result};

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/batch", post(batch))
}

async fn batch(change: Change) -> Answer<Response> {
    let types = ["application/x-ndjson", "application/jsonl", "application/json"];
    let Asked { caller, context, body, .. } = change.with_body(&[], &types)?;
    let work = move |ledger: &Ledger, device: &Device| {
        let writes = read(&body)?;
        let mut sight = Sight::new(ledger, device);
        writes.iter().try_for_each(|write| sight.check_write(&write.collection, &write.key))?;
        ledger.write_all(writes, &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::receipt(&receipt)))
}

fn read(body: &[u8]) -> Result<Vec<Write>> {
    let mut lines = Lines::default();
    for text in body.split(|byte| *byte == b'\n') {
        lines.add(text)?;
    }
    let writes = lines.writes();
    if writes.is_empty() { Err(Error::new(ErrorKind::Validation, "the batch is empty")) } else { Ok(writes) }
}
