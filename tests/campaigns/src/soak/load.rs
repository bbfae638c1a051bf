//! What devices and clients of the API do all the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::server::Latencies;
use crate::Result;
use crate::chance::Chance;
use crate::faults::process::{Device, Server};
use crate::http::{Answer, Api};

/// The pauses of devices, of clients, and between two that come and go.
const DEVICE: Duration = Duration::from_millis(1_000);
const CLIENT: Duration = Duration::from_millis(60);
const VISIT: Duration = Duration::from_millis(4_000);
const PROBE: Duration = Duration::from_millis(50);
/// How many records each of them writes: the same ones again and again.
const RECORDS: usize = 400;
/// How long streams are listened to, in milliseconds.
const LISTENS_MS: (usize, usize) = (200, 2_000);

/// Who is under load, and what was done.
pub struct Load<'a> {
    pub server: &'a Server,
    pub address: SocketAddr,
    pub is_over: &'a AtomicBool,
    pub counts: &'a Mutex<BTreeMap<String, u64>>,
}

impl Load<'_> {
    /// Lets a client of the API in.
    pub fn enrol(&self, name: &str) -> Result<Api> {
        let code = self.server.invite(name, &[])?;
        Api::enrol(self.address, &code, name)
    }

    /// Acts until it is over, with pauses.
    fn go_on(&self, pause: Duration, mut act: impl FnMut(u64) -> Result<&'static str>) {
        let mut number = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(pause);
            number += 1;
            match act(number) {
                Ok(what) => self.count(what),
                Err(fault) => {
                    self.count("failures");
                    eprintln!("soak: {fault}");
                }
            }
        }
    }

    fn count(&self, what: &str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what.to_owned()).or_default() += 1;
    }

    /// Edits on a device, which syncs all the time.
    pub fn edit(&self, device: &Device, mut chance: Chance) {
        self.go_on(DEVICE, |number| {
            let key = format!("{}-{}", device.name, chance.below(RECORDS));
            let put = json!({ "op": "put", "collection": "notes", "key": key, "value": { "number": number } });
            let count = json!({
                "op": "increment", "collection": "notes", "key": device.name, "path": "/count", "by": 1,
            });
            match device.write(&[put, count]) {
                true => Ok("batches of devices"),
                false => Ok("batches of devices without an answer"),
            }
        });
    }

    /// Reads, edits, deletes, listens, and makes conflicts and settles them, as a client of the API.
    pub fn ask(&self, number: usize, api: &Api, mut chance: Chance) {
        self.go_on(CLIENT, |edit| {
            let key = format!("client-{number}-{}", chance.below(RECORDS));
            let record = format!("/v1/records/notes/{key}");
            let value =
                json!({ "number": edit, "text": "a text of some length ".repeat(chance.below(8)) }).to_string();
            match chance.below(40) {
                0..12 => self.put(api, &record, &value).map(|_| "edits"),
                12..15 => self.batch(api, number, edit),
                15..20 => self.get(api, &record).map(|_| "reads"),
                20..23 => self.get(api, "/v1/records/notes?limit=50").map(|_| "lists"),
                23..26 => self.get(api, &format!("{record}/history")).map(|_| "histories"),
                26..28 => self
                    .get(api, &format!("/v1/events?limit=100&after={}", chance.below(10_000)))
                    .map(|_| "pages of events"),
                28 => {
                    let life = Duration::from_millis(chance.between(LISTENS_MS.0, LISTENS_MS.1) as u64);
                    api.listen(self.address, "GET /v1/events/stream", life).map(|_| "streams")
                }
                29..31 => self.delete(api, &record, chance.one_in(2)),
                31..34 => self.disagree(api, &record),
                34..38 => self.settle(api),
                _ => self.get(api, "/v1/digest").map(|_| "digests"),
            }
        });
    }

    fn put(&self, api: &Api, record: &str, value: &str) -> Result<Answer> {
        expect(api.ask(self.address, &format!("PUT {record}"), Some(value))?, &[200, 201])
    }

    fn get(&self, api: &Api, what: &str) -> Result<Answer> {
        expect(api.ask(self.address, &format!("GET {what}"), None)?, &[200, 404])
    }

    fn batch(&self, api: &Api, client: usize, edit: u64) -> Result<&'static str> {
        let put = |number: u64| {
            let key = format!("batch-{client}-{}", number % RECORDS as u64);
            format!("{}\n", json!({ "op": "put", "collection": "notes", "key": key, "value": { "number": edit } }))
        };
        let lines: String = (edit..edit + 10).map(put).collect();
        expect(api.ask(self.address, "POST /v1/batch", Some(&lines))?, &[200, 201]).map(|_| "batches")
    }

    fn delete(&self, api: &Api, record: &str, comes_back: bool) -> Result<&'static str> {
        expect(api.ask(self.address, &format!("DELETE {record}"), None)?, &[200, 404])?;
        if comes_back {
            expect(api.ask(self.address, &format!("POST {record}/undelete"), None)?, &[200, 201, 404])?;
        }
        Ok("deletions")
    }

    /// Two edits of one state.
    fn disagree(&self, api: &Api, record: &str) -> Result<&'static str> {
        let first = self.put(api, record, &json!({ "state": "new" }).to_string())?;
        let base = first.etag.ok_or("an edit has no tag")?.replace('"', "%22");
        for state in ["done", "blocked"] {
            self.put(api, &format!("{record}?base={base}"), &json!({ "state": state }).to_string())?;
        }
        Ok("conflicts made")
    }

    fn settle(&self, api: &Api) -> Result<&'static str> {
        let open = self.get(api, "/v1/conflicts?collection=notes&which=open")?.json()?;
        let first = open.get("conflicts").and_then(|open| open.get(0)?.get("id")?.as_str());
        let Some(id) = first else { return Ok("times nothing to settle") };
        let settle = format!("POST /v1/conflicts/{id}/resolve");
        let answer = api.ask(self.address, &settle, Some(&json!({ "candidate": 1 }).to_string()))?;
        // Another may be quicker, or the record was written since; of others' conflicts only operators may decide.
        let status = expect(answer, &[200, 201, 403, 404, 409])?.status;
        Ok(if status < 300 { "conflicts settled" } else { "times another was quicker" })
    }

    /// Lets devices in, which work for a moment and are revoked.
    pub fn come_and_go(&self, mut chance: Chance) {
        self.go_on(VISIT, |number| {
            let id = format!("visitor-{number}");
            let api = self.enrol(&id)?;
            self.put(&api, "/v1/records/notes/visitors", &json!({ "last": number }).to_string())?;
            api.listen(
                self.address,
                "GET /v1/events/stream?after=0",
                Duration::from_millis(chance.below(500) as u64),
            )?;
            self.server.json(&["device", "revoke", &id])?;
            expect(api.ask(self.address, "GET /v1/digest", None)?, &[401, 403])
                .map(|_| "devices enrolled and revoked")
        });
    }

    /// Writes a record and reads it, and tells how long that took.
    pub fn probe(&self, api: &Api, latencies: &Latencies) {
        self.go_on(PROBE, |number| {
            let record = format!("/v1/records/notes/probe-{}", number % RECORDS as u64);
            let began = Instant::now();
            self.put(api, &record, &json!({ "number": number }).to_string())?;
            let shown = self.get(api, &record)?.json()?;
            latencies.add(began.elapsed());
            match shown.get("number").and_then(Json::as_u64) == Some(number) {
                true => Ok("probes"),
                false => Err(format!("{record} shows {shown} after {number} was written").into()),
            }
        });
    }
}

/// An answer of one of these statuses.
fn expect(answer: Answer, statuses: &[u16]) -> Result<Answer> {
    match statuses.contains(&answer.status) {
        true => Ok(answer),
        false => Err(format!("expected one of {statuses:?}, got {}: {}", answer.status, answer.body).into()),
    }
}
