//! Whether all settled in time, and what everybody held then.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::history::End;
use super::process::{Device, Server};
use super::session::{REGISTER, SHARED};
use crate::Result;

/// Within so long after mending everybody has to hold the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// For so long it is looked at all.
const LOOKED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// The rejection that no session changes.
const FORBIDDEN: &str = "permission";

/// How long it took until everybody holds the same, and nothing waits, and what is wrong with that.
pub fn settle(server: &Server, devices: &[Device]) -> Result<(Duration, Option<String>)> {
    let began = Instant::now();
    while began.elapsed() < LOOKED_FOR {
        let took = began.elapsed();
        if is_settled(server, devices)? {
            let is_late = took > SETTLED_WITHIN;
            return Ok((took, is_late.then(|| format!("settled only {took:?} after all was mended"))));
        }
        std::thread::sleep(PAUSE);
        devices.iter().try_for_each(Device::keep_alive)?;
    }
    Ok((LOOKED_FOR, Some(format!("not settled {LOOKED_FOR:?} after all was mended"))))
}

fn is_settled(server: &Server, devices: &[Device]) -> Result<bool> {
    let there = notes(&server.json(&["digest"])?).cloned();
    for device in devices {
        // A command that meets a process which is just starting is told that the store is locked.
        let Ok(here) = device.json(&["digest"]) else { return Ok(false) };
        if notes(&here) != there.as_ref() || waiting(device).is_none_or(|waiting| waiting > 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn notes(digest: &[Json]) -> Option<&Json> {
    digest.first()?.get("collections")?.get("notes")
}

/// How many edits wait for the server, or to be stamped anew.
fn waiting(device: &Device) -> Option<usize> {
    let queued = device.json(&["queue"]).ok()?;
    Some(queued.iter().filter(|queued| text(queued, "last_error_code") != Some(FORBIDDEN)).count())
}

fn text<'a>(object: &'a Json, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Json::as_str)
}

/// What the server holds.
pub fn end_of_server(server: &Server) -> Result<End> {
    end_of(|arguments| server.json(arguments))
}

/// What a device holds, and which edits are refused.
pub fn end_of_device(device: &Device) -> Result<End> {
    let mut end = end_of(|arguments| device.json(arguments))?;
    for queued in device.json(&["queue"])? {
        let why = text(&queued, "last_error_code").unwrap_or("nothing: it waits");
        end.refused.insert(text(&queued, "key").unwrap_or_default().to_owned(), why.to_owned());
    }
    Ok(end)
}

fn end_of(json: impl Fn(&[&str]) -> Result<Vec<Json>>) -> Result<End> {
    let mut end = End { digest: format!("{:?}", notes(&json(&["digest"])?)), ..End::default() };
    for entry in json(&["log"])? {
        let (collection, key) = (text(&entry, "collection").unwrap_or_default(), text(&entry, "key"));
        if let Some(key) = key.filter(|key| !collection.starts_with('$') && is_added(key)) {
            *end.events.entry(key.to_owned()).or_default() += 1;
        }
    }
    for record in json(&["list", "notes"])? {
        let (key, value) = (text(&record, "key").unwrap_or_default(), record.get("value"));
        if is_added(key) {
            end.shown.push(key.to_owned());
        } else if let Some(register) = key.strip_prefix(REGISTER) {
            end.registers.insert(register.to_owned(), number(value.and_then(|value| value.get("number"))));
        } else if key == SHARED {
            let counts = value.and_then(Json::as_object).into_iter().flatten();
            end.counts.extend(counts.map(|(counter, count)| (counter.clone(), number(Some(count)))));
        }
    }
    Ok(end)
}

/// Whether a record is one of those that are added once.
fn is_added(key: &str) -> bool {
    !key.starts_with(REGISTER) && !key.starts_with(SHARED)
}

fn number(value: Option<&Json>) -> u64 {
    value.and_then(Json::as_u64).unwrap_or_default()
}
