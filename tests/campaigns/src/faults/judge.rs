//! Whether all settled in time, and nothing was lost, doubled or refused in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::process::{Device, Server};
use super::{Edits, SHARED};
use crate::Result;

/// Within so long after mending everybody has to hold the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// For so long it is looked at all.
const LOOKED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// What a run came to.
pub struct Verdict {
    pub acknowledged: usize,
    pub refused: usize,
    pub settled_ms: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub problems: Vec<String>,
}

pub fn judge(
    server: &Mutex<Server>,
    devices: &[Device],
    edits: &[Edits],
    faults: BTreeMap<&'static str, u64>,
) -> Result<Verdict> {
    let server = server.lock().map_err(|_| "the server's thread failed")?;
    let mut problems = Vec::new();
    let settled = settle(&server, devices)?;
    match settled {
        Some(took) if took <= SETTLED_WITHIN => {}
        Some(took) => problems.push(format!("settled only {took:?} after the lines were mended")),
        None => problems.push(format!("not settled {LOOKED_FOR:?} after the lines were mended")),
    }
    let log = server.json(&["log"])?;
    let ids: Vec<&str> = log.iter().filter_map(|entry| entry.get("event")?.as_str()).collect();
    let known: BTreeSet<&str> = ids.iter().copied().collect();
    if known.len() != ids.len() {
        problems.push(format!("doubled: {} entries of the log, {} events", ids.len(), known.len()));
    }
    let counts = server.json(&["get", "notes", SHARED])?;
    for (device, edits) in devices.iter().zip(edits) {
        problems.extend(lost(device, edits, &known)?);
        problems.extend(miscounted(device, edits, counts.first()));
    }
    Ok(Verdict {
        acknowledged: edits.iter().map(|edits| edits.acknowledged.len()).sum(),
        refused: edits.iter().map(|edits| edits.forbidden.len()).sum(),
        settled_ms: settled.unwrap_or(LOOKED_FOR).as_millis().try_into().unwrap_or(u64::MAX),
        faults,
        problems,
    })
}

/// How long it took until everybody holds the same, and nothing waits; `None` where that does not come.
fn settle(server: &Server, devices: &[Device]) -> Result<Option<Duration>> {
    let began = Instant::now();
    while began.elapsed() < LOOKED_FOR {
        let looked = began.elapsed();
        if is_settled(server, devices)? {
            return Ok(Some(looked));
        }
        std::thread::sleep(PAUSE);
        devices.iter().try_for_each(Device::keep_alive)?;
    }
    Ok(None)
}

fn is_settled(server: &Server, devices: &[Device]) -> Result<bool> {
    let there = notes(server.json(&["digest"])?);
    for device in devices {
        // A command that meets a process which is just starting is told that the store is locked.
        let Ok(here) = device.json(&["digest"]) else { return Ok(false) };
        if notes(here) != there || waiting(device).is_none_or(|waiting| waiting > 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn notes(digest: Vec<Json>) -> Option<Json> {
    digest.first()?.get("collections")?.get("notes").cloned()
}

/// How many edits wait for the server.
fn waiting(device: &Device) -> Option<usize> {
    let queued = device.json(&["queue"]).ok()?;
    Some(queued.iter().filter(|queued| queued.get("status").and_then(Json::as_str) != Some("failed")).count())
}

/// Acknowledged edits that are neither on the server nor told to be refused.
fn lost(device: &Device, edits: &Edits, known: &BTreeSet<&str>) -> Result<Vec<String>> {
    let queued = device.json(&["queue"])?;
    let told: BTreeSet<&str> = queued.iter().filter_map(|queued| queued.get("id")?.as_str()).collect();
    let reasons = queued.iter().filter_map(|queued| queued.get("last_error_code")?.as_str());
    let mut problems: Vec<String> = reasons
        .filter(|code| *code != "permission")
        .map(|code| format!("{}: an edit was refused with `{code}`", device.name))
        .collect();
    for event in &edits.acknowledged {
        let is_forbidden = edits.forbidden.contains(event);
        let (is_there, is_told) = (known.contains(event.as_str()), told.contains(event.as_str()));
        let short = event.get(..12).unwrap_or(event);
        match (is_forbidden, is_there, is_told) {
            (false, true, false) | (true, false, true) => {}
            (false, false, _) => problems.push(format!("{}: the acknowledged event {short} is lost", device.name)),
            (true, false, false) => problems.push(format!("{}: nobody says that {short} was refused", device.name)),
            (true, true, _) => problems.push(format!("{}: {short} was taken in beyond the rights", device.name)),
            (false, true, true) => {
                problems.push(format!("{}: {short} is there, and still in the queue", device.name))
            }
        }
    }
    Ok(problems)
}

/// A count that is less than what was acknowledged, or more than what was tried.
fn miscounted(device: &Device, edits: &Edits, counts: Option<&Json>) -> Option<String> {
    let count = counts.and_then(|record| record.get("value")?.get(&device.name)?.as_u64()).unwrap_or(0);
    let (least, most) = edits.counted;
    let is_right = (least..=most).contains(&count);
    (!is_right).then(|| format!("{}: the count is {count}, expected {least} to {most}", device.name))
}
