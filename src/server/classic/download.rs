//! `GET /api/sync/download`: what changed since a cursor.

use axum::Json as Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::cursor::Since;
use super::rows::{Begin, Page, Telling};
use crate::ledger::Ledger;
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::shape::set;
use crate::{Error, ErrorKind, Result};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    since: String,
}

/// The rows of records that changed, each once and as it is now.
pub(super) async fn download(
    State(server): State<Server>,
    caller: Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answer<Body<Json>> {
    let Query(asked) = asked.map_err(|fault| Error::new(ErrorKind::Client, fault.body_text()))?;
    let since = Since::parse(&asked.since, "/since")?;
    let answer = caller.with(move |ledger, device| server.download(ledger, device, &since)).await?;
    Ok(Body(answer))
}

impl Server {
    fn download(&self, ledger: &Ledger, device: &Device, since: &Since) -> Result<Json> {
        self.present(ledger, device, since)?;
        let begin = Begin::of(ledger, device, since)?;
        let Page { rows, cursor, more } = Telling { ledger, device, begin }.page()?;
        let mut answer = json!({ "rows": rows, "cursor": cursor.to_string(), "more": more });
        if begin.restarted {
            set(&mut answer, "restarted", true);
        }
        Ok(answer)
    }

    /// Remembers what a device says to have seen. A time, or nothing, says nothing of it.
    pub(super) fn present(&self, ledger: &Ledger, device: &Device, since: &Since) -> Result<()> {
        match since {
            Since::Cursor(cursor) if cursor.is_of(ledger)? => self.0.classic.places.remember(ledger, device, cursor),
            _ => Ok(()),
        }
    }
}
