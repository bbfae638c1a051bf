//! `POST /api/sync/initialize`: a device says who and where it is.

use axum::Json as Body;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde_json::{Value as Json, json};

use super::cursor::Since;
use super::rows::{Begin, Telling};
use super::{check_device, invalid};
use crate::event::json;
use crate::ledger::Ledger;
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::problem::Answer;
use crate::shape::time;
use crate::{Error, ErrorKind, Result};

/// What a device has to fetch, and whether its app is recent enough.
pub(super) async fn initialize(
    State(server): State<Server>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Body<Json>> {
    let asked = json::parse_bytes(&body?).map_err(Error::from)?;
    check_device(&caller.device, asked.get("device_id"))?;
    server.check_version(asked.get("app_version"))?;
    let since = since(asked.get("last_sync"))?;
    let answer = caller.with(move |ledger, device| server.initialize(ledger, device, &since)).await?;
    Ok(Body(answer))
}

fn since(last: Option<&Json>) -> Result<Since> {
    match last {
        None | Some(Json::Null) => Ok(Since::Start),
        Some(Json::String(text)) => Since::parse(text, "/last_sync"),
        Some(other) => Since::parse(&other.to_string(), "/last_sync"),
    }
}

impl Server {
    fn initialize(&self, ledger: &Ledger, device: &Device, since: &Since) -> Result<Json> {
        self.present(ledger, device, since)?;
        let begin = Begin::of(ledger, device, since)?;
        let telling = Telling { ledger, device, begin };
        Ok(json!({
            "server_time": time::to_json(self.now_ms()),
            "cursor": begin.cursor(ledger, device)?.to_string(),
            "pending": telling.count()?,
            "min_app_version": self.0.classic.min_app_version(),
        }))
    }

    fn check_version(&self, named: Option<&Json>) -> Result<()> {
        let version = match named {
            None | Some(Json::Null) => None,
            Some(Json::String(version)) => Some(version.as_str()),
            Some(_) => {
                return Err(invalid("/app_version", "expected an app_version that is a string, such as 2.1.0"));
            }
        };
        let Some(least) = self.0.classic.min_app_version() else { return Ok(()) };
        if version.is_some_and(|version| numbers(version) >= numbers(&least)) {
            return Ok(());
        }
        let message = format!("expected an app of version {least} or later");
        Err(Error::new(ErrorKind::UpgradeNeeded, message)
            .with_hint("update the app, then sync again: nothing is lost"))
    }
}

/// The numbers of a version, without zeros at its end.
fn numbers(version: &str) -> Vec<u64> {
    let number = |part: &str| -> u64 {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_default()
    };
    let mut numbers: Vec<u64> = version.trim().trim_start_matches(['v', 'V']).split('.').map(number).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        for (older, newer) in [("1.9", "1.10"), ("1.9.9", "2"), ("", "0.1"), ("2.0-beta", "2.0.1"), ("v1.2", "v1.3")]
        {
            assert!(numbers(older) < numbers(newer), "{older} < {newer}");
        }
        assert_eq!(numbers("2"), numbers("2.0.0"));
    }
}
