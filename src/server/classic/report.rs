//! What is left of an upload: a record of `$runs`, and one of `$errors` for each item that was rejected.

use serde_json::{Value as Json, json};

use crate::ledger::{Ledger, Traffic, Transfer};
use crate::server::Server;
use crate::server::access::Device;
use crate::server::caller::Caller;
use crate::server::sync::Report;
use crate::shape::{cut, set};
use crate::{Error, Result};

/// How many reports are written at once; whoever uploads more waits for one of them.
pub(super) const MOST: usize = 16;
/// How many rejected items are kept in full, and how many collections are counted by name.
const MOST_REJECTED: usize = 100;
const MOST_NAMED: usize = 256;
/// The name of the other collections.
const OTHERS: &str = "…";
/// How many characters are kept of what an item says that it is about: it may say anything.
const MOST_CHARS: usize = 128;
/// How many characters of why it was rejected, and how many pointers.
const MOST_WORDS: usize = 300;
const MOST_POINTERS: usize = 8;

/// An upload that has ended.
struct Uploaded {
    device: Device,
    bytes: u64,
    started_ms: i64,
    traffic: Traffic,
    rejected: Vec<Json>,
    outcome: Result<Transfer>,
}

impl Server {
    /// Writes down how an upload went, while its answer is on its way.
    pub(super) async fn report_upload(
        &self,
        caller: &Caller,
        bytes: u64,
        started_ms: i64,
        answers: &Result<Vec<Json>>,
    ) {
        let uploaded = Uploaded::of(&caller.device, bytes, started_ms, answers);
        // Nobody closes it.
        let Ok(turn) = self.0.classic.reports.clone().acquire_owned().await else { return };
        let (ledger, server) = (caller.ledger.clone(), self.clone());
        drop(tokio::task::spawn_blocking(move || {
            if let Err(fault) = uploaded.write(&ledger, server.now_ms()) {
                tracing::warn!(code = fault.code(), "how an upload went could not be written down");
            }
            drop(turn);
        }));
    }
}

impl Uploaded {
    fn of(device: &Device, bytes: u64, started_ms: i64, answers: &Result<Vec<Json>>) -> Self {
        let device = device.clone();
        let mut uploaded = Self {
            device,
            bytes,
            started_ms,
            traffic: Traffic::default(),
            rejected: Vec::new(),
            outcome: Ok(Transfer::default()),
        };
        match answers {
            Ok(answers) => answers.iter().for_each(|answer| uploaded.take(answer)),
            Err(fault) => uploaded.outcome = Err(Error::new(fault.kind(), fault.message())),
        }
        uploaded
    }

    /// Counts an item by what it was answered.
    fn take(&mut self, answer: &Json) {
        if answer.get("status").and_then(Json::as_str) != Some("rejected") {
            let model = answer.get("model").and_then(Json::as_str).unwrap_or(OTHERS);
            let is_named =
                self.traffic.collections.contains_key(model) || self.traffic.collections.len() < MOST_NAMED;
            self.traffic.collections.entry(if is_named { model } else { OTHERS }.to_owned()).or_default().0 += 1;
            return;
        }
        self.traffic.refused += 1;
        if self.rejected.len() < MOST_REJECTED {
            self.rejected.push(rejected(answer));
        }
    }

    fn write(self, ledger: &Ledger, ended_ms: i64) -> Result<()> {
        let Self { device, bytes, started_ms, traffic, rejected, outcome } = self;
        let (kind, run, traffic) = ("upload", ledger.new_run()?, Traffic { received_bytes: bytes, ..traffic });
        let (device, outcome) = (&device, &outcome);
        Report { kind, run, device, started_ms, ended_ms, traffic, outcome, rejected }.write(ledger)
    }
}

/// What is kept of an item that was rejected: what it was about, and why; never its data.
fn rejected(answer: &Json) -> Json {
    let named = |name: &str| match answer.get(name) {
        None | Some(Json::Null) => Json::Null,
        Some(Json::String(text)) => cut(text, MOST_CHARS).into(),
        Some(other) => cut(&other.to_string(), MOST_CHARS).into(),
    };
    let error = |name: &str| answer.pointer(&format!("/error/{name}"));
    let text = |name: &str| cut(error(name).and_then(Json::as_str).unwrap_or_default(), MOST_WORDS);
    let mut object = json!({
        "index": answer.get("index"),
        "model": named("model"),
        "object_id": named("object_id"),
        "code": text("code"),
        "message": text("message"),
    });
    // Messages and pointers name fields, which may be called anything.
    let pointers = error("pointers").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let pointers: Vec<String> = pointers.take(MOST_POINTERS).map(|pointer| cut(pointer, MOST_CHARS)).collect();
    if !pointers.is_empty() {
        set(&mut object, "pointers", pointers);
    }
    object
}
