//! What one process does until it is over: edits and reads, each of which is written into the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::history::{Recorder, What};
use super::process::Device;
use super::proxy::Upstream;
use crate::chance::Chance;
use crate::http::Api;

/// The pauses between two acts, in milliseconds.
const PAUSE_MS: (usize, usize) = (100, 500);
/// The record that all count in, and what those are called that all write.
pub const SHARED: &str = "shared";
/// What the records are called that one process alone writes.
pub const REGISTER: &str = "register-";

/// Who acts, and where.
pub enum Session<'a> {
    /// By commands, on the device's own replica.
    Device(&'a Device),
    /// By requests, on the server.
    Server(Api, Upstream),
}

impl Session<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Device(device) => &device.name,
            Self::Server(..) => "server",
        }
    }

    /// Acts until it is over.
    pub fn go_on(&self, mut chance: Chance, recorder: &Recorder, is_over: &AtomicBool) {
        let (mut number, mut seen) = (0, BTreeSet::new());
        while !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(chance.between(PAUSE_MS.0, PAUSE_MS.1) as u64));
            number += 1;
            match chance.below(8) {
                0 | 1 => self.read(recorder, &mut seen, chance.one_in(2)),
                2 if matches!(self, Self::Device(device) if device.is_limited) => self.trespass(number, recorder),
                _ => {
                    self.edit(number, &mut chance, recorder);
                    if chance.one_in(4) {
                        self.read(recorder, &mut seen, true);
                    }
                }
            }
        }
    }

    fn edit(&self, number: u64, chance: &mut Chance, recorder: &Recorder) {
        let (name, by) = (self.name(), 1 + chance.below(3) as u64);
        let (key, writes) = (format!("{name}-{number}"), writes(name, number, by, chance));
        recorder.record(
            name,
            || self.write(&writes),
            |is_acknowledged| Some(What::Edited { key, number, by, is_acknowledged: *is_acknowledged }),
        );
    }

    /// Adds a record where it may not.
    fn trespass(&self, number: u64, recorder: &Recorder) {
        let key = format!("secret-{}-{number}", self.name());
        let write = json!({ "op": "put", "collection": "secrets", "key": key, "value": {} });
        recorder.record(
            self.name(),
            || self.write(&[write]),
            |is_acknowledged| Some(What::Trespassed { key, is_acknowledged: *is_acknowledged }),
        );
    }

    fn write(&self, writes: &[Json]) -> bool {
        match self {
            Self::Device(device) => device.write(writes),
            Self::Server(api, upstream) => {
                let text: String = writes.iter().map(|write| format!("{write}\n")).collect();
                ask(api, upstream, "POST /v1/batch", Some(&text)).is_some()
            }
        }
    }

    /// Reads its own register, or all that there are. One that was seen and is gone shows nothing.
    fn read(&self, recorder: &Recorder, seen: &mut BTreeSet<String>, is_own: bool) {
        let own = format!("{REGISTER}{}", self.name());
        let Some(shown) = (if is_own { self.get(&own).map(|record| [record].into()) } else { self.list() }) else {
            return;
        };
        seen.extend(shown.keys().cloned());
        for key in seen.iter().filter(|key| !is_own || **key == own) {
            let register = key.strip_prefix(REGISTER).unwrap_or(key).to_owned();
            recorder.record(
                self.name(),
                || shown.get(key).copied(),
                |shown| Some(What::Read { register, shown: *shown }),
            );
        }
    }

    fn get(&self, key: &str) -> Option<(String, u64)> {
        let value = match self {
            Self::Device(device) => {
                device.json(&["get", "notes", key]).ok()?.into_iter().next()?.get("value")?.clone()
            }
            Self::Server(api, upstream) => ask(api, upstream, &format!("GET /v1/records/notes/{key}"), None)?,
        };
        Some((key.to_owned(), value.get("number")?.as_u64()?))
    }

    fn list(&self) -> Option<BTreeMap<String, u64>> {
        let records = match self {
            Self::Device(device) => device.json(&["list", "notes", "--prefix", REGISTER]).ok()?,
            Self::Server(api, upstream) => {
                let list = format!("GET /v1/records/notes?limit=100&prefix={REGISTER}");
                ask(api, upstream, &list, None)?.get("records")?.as_array()?.clone()
            }
        };
        let number = |record: &Json| {
            Some((record.get("key")?.as_str()?.to_owned(), record.get("value")?.get("number")?.as_u64()?))
        };
        Some(records.iter().filter_map(number).collect())
    }
}

fn ask(api: &Api, upstream: &Upstream, what: &str, body: Option<&str>) -> Option<Json> {
    let address = (*upstream.lock().unwrap_or_else(PoisonError::into_inner))?;
    let answer = api.ask(address, what, body).ok().filter(crate::http::Answer::is_success)?;
    answer.json().ok()
}

/// A record of its own, one that devices share, the count, and the register.
fn writes(name: &str, number: u64, by: u64, chance: &mut Chance) -> [Json; 4] {
    let (field, shared) = (format!("field{}", chance.below(4)), format!("{SHARED}-{}", chance.below(5)));
    let put = |key: String, value: Json| json!({ "op": "put", "collection": "notes", "key": key, "value": value });
    [
        put(format!("{name}-{number}"), json!({ "number": number })),
        put(shared, json!({ field: format!("{name} {number}") })),
        json!({ "op": "increment", "collection": "notes", "key": SHARED, "path": format!("/{name}"), "by": by }),
        put(format!("{REGISTER}{name}"), json!({ "number": number })),
    ]
}
