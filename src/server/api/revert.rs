//! Taking changes back by making new ones.

use axum::Router;
use axum::response::Response;
use axum::routing::post;

use super::ask::{Asked, Change, Fields, invalid};
use super::told;
use crate::ledger::{Ledger, Target};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::problem::Answer;
use crate::server::sight::Sight;
use crate::shape;
use crate::{Error, ErrorKind, Result};

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/revert", post(revert)).route("/v1/undo", post(undo))
}

/// Takes an event, a batch or a run back.
async fn revert(change: Change) -> Answer<Response> {
    let Asked { caller, context, body, .. } = change.with(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        let target = target(&body)?;
        check(ledger, device, &target)?;
        ledger.revert(&target, &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::revert(&receipt)))
}

/// Takes the device's own last change back that is not taken back yet.
async fn undo(change: Change) -> Answer<Response> {
    let Asked { caller, context, body, .. } = change.with(&[])?;
    let work = move |ledger: &Ledger, device: &Device| {
        Fields::read(&body, &[])?;
        let (own, source) = (&device.writers, &device.rights.source);
        let is_own = |event: &crate::event::Event| {
            let is_here = event.principal.as_ref() == Some(&device.id) && event.source == *source;
            is_here || own.contains(&event.writer)
        };
        ledger.undo_of(is_own, |target| check(ledger, device, target), &context)
    };
    let receipt = caller.with(work).await?;
    Ok(told(&receipt, shape::revert(&receipt)))
}

fn target(body: &[u8]) -> Result<Target> {
    let mut fields = Fields::read(body, &["event", "batch", "run"])?;
    let (event, batch, run) = (fields.text("event")?, fields.text("batch")?, fields.text("run")?);
    let fault = |name: &'static str| move |_| invalid(&format!("expected the whole id of a {name}"), name);
    match (event, batch, run) {
        (Some(event), None, None) => event.parse().map(Target::Event).map_err(fault("event")),
        (None, Some(batch), None) => batch.parse().map(Target::Batch).map_err(fault("batch")),
        (None, None, Some(run)) => run.parse().map(Target::Run).map_err(fault("run")),
        _ => Err(invalid("expected one of `event`, `batch` and `run`", "")),
    }
}

/// Checks that the device may write every record that a target changed; what it sees nothing of is not there.
fn check(ledger: &Ledger, device: &Device, target: &Target) -> Result<()> {
    let (mut sight, events) = (Sight::new(ledger, device), ledger.events_of(target)?);
    let (mut seen, mut fault) = (false, None);
    for (collection, key) in events.keys() {
        let sees = sight.sees(collection, key)?;
        seen |= sees;
        if !sees || !device.may_write(collection) {
            fault.get_or_insert_with(|| {
                Error::new(ErrorKind::Permission, "the change is of records, too, that this device may not write")
            });
        }
    }
    if !seen {
        return Err(Error::new(ErrorKind::NotFound, "there is no such change that could be taken back"));
    }
    fault.map_or(Ok(()), Err)
}
