//! What is left of a session, or of an upload: a record of `$runs`, and of `$errors` where something went wrong.

use serde_json::{Map, Value as Json, json};

use crate::event::RunId;
use crate::ledger::{Act, Context, Ledger, Traffic, Transfer, Write};
use crate::server::access::Device;
use crate::shape::{set, time};
use crate::{Error, ErrorKind, Result};

const RUNS: &str = "$runs";
const ERRORS: &str = "$errors";

/// A session that has ended.
pub(in crate::server) struct Report<'a> {
    /// What it was: `device`, or `upload`.
    pub(in crate::server) kind: &'static str,
    pub(in crate::server) run: RunId,
    pub(in crate::server) device: &'a Device,
    pub(in crate::server) started_ms: i64,
    pub(in crate::server) ended_ms: i64,
    pub(in crate::server) traffic: Traffic,
    pub(in crate::server) outcome: &'a Result<Transfer>,
    /// What was rejected that is no event, each as an object with `code` and `message`: the first hundred.
    pub(in crate::server) rejected: Vec<Json>,
}

impl Report<'_> {
    /// How it went: `success`, `partial` where something was refused, or `failed`.
    pub(in crate::server) fn status(&self) -> &'static str {
        match self.fault() {
            Some(_) => "failed",
            None if self.traffic.refused > 0 => "partial",
            None => "success",
        }
    }

    /// What ended it, unless that is how such sessions end: the device went away, or the server did.
    fn fault(&self) -> Option<&Error> {
        self.outcome.as_ref().err().filter(|fault| !matches!(fault.kind(), ErrorKind::Network | ErrorKind::Cancelled))
    }

    /// Whether there is anything to tell. A device that looks every minute whether there is news is none.
    fn is_worth_telling(&self) -> bool {
        self.traffic.events() != (0, 0) || self.traffic.refused > 0 || self.fault().is_some()
    }

    /// Writes the records.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(in crate::server) fn write(&self, ledger: &Ledger) -> Result<()> {
        if !self.is_worth_telling() {
            return Ok(());
        }
        let run = self.run.to_string();
        let put = |collection: &str, key: String, value: Json| Write::new(collection, key, Act::Put(value));
        let mut writes = vec![put(RUNS, run.clone(), self.run_record())];
        let errors = self.errors(&run);
        writes.extend(errors.into_iter().enumerate().map(|(nth, error)| put(ERRORS, format!("{run}.{nth}"), error)));
        ledger.write_own(writes, &Context::from_source("syncledger")).map(drop)
    }

    fn run_record(&self) -> Json {
        let counted = |(name, (received, sent)): (&String, &(u64, u64))| {
            (name.clone(), json!({ "received": received, "sent": sent }))
        };
        let collections: Map<String, Json> = self.traffic.collections.iter().map(counted).collect();
        let mut record = json!({
            "kind": self.kind,
            "device": self.device.id,
            "principal": self.device.id,
            "direction": self.direction(),
            "started_at": time::to_json(self.started_ms),
            "ended_at": time::to_json(self.ended_ms),
            "collections": collections,
            "bytes": { "received": self.traffic.received_bytes, "sent": self.traffic.sent_bytes },
            "refused": self.traffic.refused,
            "status": self.status(),
        });
        if let Some(fault) = self.fault() {
            set(&mut record, "error", json!({ "code": fault.code(), "message": fault.message() }));
        }
        record
    }

    fn direction(&self) -> &'static str {
        match self.traffic.events() {
            (0, _) => "out",
            (_, 0) => "in",
            _ => "both",
        }
    }

    /// What went wrong: each event that was refused, up to a hundred, and what ended the session.
    fn errors(&self, run: &str) -> Vec<Json> {
        let (device, at) = (&self.device.id, time::to_json(self.ended_ms));
        let refused = self.traffic.refusals.iter().map(|refusal| {
            json!({
                "run": run, "device": device, "at": at,
                "event": refusal.event.to_string(), "code": refusal.code, "message": refusal.message,
            })
        });
        let fault = self.fault().map(|fault| {
            json!({ "run": run, "device": device, "at": at, "code": fault.code(), "message": fault.message() })
        });
        let rejected = self.rejected.iter().cloned().map(|mut rejected| {
            set(&mut rejected, "run", run);
            set(&mut rejected, "device", device.as_str());
            set(&mut rejected, "at", at.clone());
            rejected
        });
        refused.chain(rejected).chain(fault).collect()
    }
}
