//! Where the figures come from: devices, runs, conflicts, violations, the disk.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::rules::{DeviceFigures, Storage};
use crate::Result;
use crate::ledger::{AsOf, Ledger, LogQuery, Query};
use crate::server::Server;
use crate::server::access::{Device, State};
use crate::shape::time;

const RUNS: &str = "$runs";
const HOUR_MS: i64 = 3_600_000;
/// How many runs are read at once.
const PAGE: usize = 1_000;
/// Of how many runs of a device is remembered how they ended.
pub(super) const MOST_RUNS: usize = 100;

/// How the last runs of each device ended, kept step by step: the runs of a year are not read each minute.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// How far the log was read; `None` before the first time.
    position: Option<u64>,
    devices: BTreeMap<String, Runs>,
}

/// By when they ended, and their key: why they failed, if they did.
type Runs = BTreeMap<(i64, String), Option<String>>;

impl Outcomes {
    /// Takes up the runs that have ended since.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn follow(&mut self, ledger: &Ledger) -> Result<()> {
        let head = ledger.position();
        match self.position {
            None => self.read_all(ledger)?,
            Some(after) if after < head => {
                let query = LogQuery { after, collection: Some(RUNS.to_owned()), ..LogQuery::default() };
                for entry in ledger.log(&query)? {
                    let record = ledger.get(RUNS, &entry.event.key)?;
                    record.into_iter().for_each(|record| self.take(record.key, &record.value));
                }
            }
            Some(_) => {}
        }
        self.position = Some(head);
        Ok(())
    }

    fn read_all(&mut self, ledger: &Ledger) -> Result<()> {
        let mut after = None;
        loop {
            let page = ledger.list(RUNS, &Query { after, limit: Some(PAGE), ..Query::default() })?;
            after = page.last().map(|record| record.key.clone());
            if after.is_none() {
                return Ok(());
            }
            page.into_iter().for_each(|record| self.take(record.key, &record.value));
        }
    }

    fn take(&mut self, key: String, run: &Json) {
        let ended = run.get("ended_at").and_then(|at| time::from_json(at).ok());
        let (Some(device), Some(ended)) = (run.get("device").and_then(Json::as_str), ended) else { return };
        let has_failed = run.get("status").and_then(Json::as_str) == Some("failed");
        let message = run.pointer("/error/message").and_then(Json::as_str).unwrap_or_default();
        let runs = self.devices.entry(device.to_owned()).or_default();
        runs.insert((ended, key), has_failed.then(|| message.to_owned()));
        if runs.len() > MOST_RUNS {
            runs.pop_first();
        }
    }

    /// How many of a device's last runs failed in a row, why the last of all did, and when that ended.
    fn of(&self, device: &str) -> (u64, Option<String>, Option<i64>) {
        let Some(runs) = self.devices.get(device) else { return (0, None, None) };
        let failed = runs.values().rev().take_while(|failed| failed.is_some()).count();
        let last = runs.last_key_value();
        (failed as u64, last.and_then(|(_, failed)| failed.clone()), last.map(|((ended, _), _)| *ended))
    }
}

/// The devices of a ledger that are let in.
///
/// # Errors
/// `corrupt` or `storage`.
pub(super) fn devices(server: &Server, ledger: &Ledger, outcomes: &Outcomes) -> Result<Vec<DeviceFigures>> {
    let id = ledger.info().id;
    let (now_ms, seen) = (server.now_ms(), server.0.seen.of(id)?);
    let figures = |device: Device| {
        let (failed_in_row, error, ended) = outcomes.of(&device.id);
        let is_here = server.0.seats.has(id, &device.id).then_some(now_ms);
        // Once it is gone, it was here until now.
        is_here.into_iter().for_each(|now_ms| server.0.seen.saw(id, &device.id, now_ms));
        let seen_ms = seen.get(&device.id).copied().max(ended).max(is_here);
        DeviceFigures { id: device.id, failed_in_row, error, seen_ms }
    };
    let active = Device::list(ledger)?.into_iter().filter(|device| device.state == State::Active);
    Ok(active.map(figures).collect())
}

/// The open conflicts that have a candidate of the last hour.
///
/// # Errors
/// `corrupt` or `storage`.
pub(super) fn conflicts_last_hour(ledger: &Ledger, now_ms: i64) -> Result<u64> {
    let counts = ledger.conflict_counts(Some(AsOf::Time(now_ms - HOUR_MS)))?;
    Ok(counts.iter().filter(|count| count.status == "open").map(|count| count.count).sum())
}

/// How often the schema of each collection is broken.
///
/// # Errors
/// None today.
pub(super) fn violations(ledger: &Ledger) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for violation in ledger.violations(None)? {
        *counts.entry(violation.collection).or_default() += 1;
    }
    Ok(counts)
}

/// How full the file system of a directory is; `None` where it does not say.
#[cfg(unix)]
pub(super) fn storage(dir: &Path) -> Option<Storage> {
    let of = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(of.f_frsize);
    Some(Storage { free: bytes(of.f_bavail), total: bytes(of.f_blocks) }).filter(|storage| storage.total > 0)
}

/// How full the file system of a directory is: unknown here.
#[cfg(not(unix))]
pub(super) fn storage(_dir: &Path) -> Option<Storage> {
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(ended: i64, status: &str) -> Json {
        json!({ "device": "tablet", "ended_at": ended, "status": status, "error": { "message": format!("at {ended}") } })
    }

    #[test]
    fn failures_are_counted_back_from_the_last_run_whatever_order_they_are_read_in() {
        let mut outcomes = Outcomes::default();
        for (key, ended, status) in
            [("c", 30, "failed"), ("a", 10, "failed"), ("b", 20, "success"), ("d", 40, "failed")]
        {
            outcomes.take(key.into(), &run(ended, status));
        }
        assert_eq!(outcomes.of("tablet"), (2, Some("at 40".into()), Some(40)));
        outcomes.take("e".into(), &run(50, "partial"));
        assert_eq!(outcomes.of("tablet"), (0, None, Some(50)));
        outcomes.take("f".into(), &json!({ "device": 7, "ended_at": "never" }));
        assert_eq!(outcomes.of("phone"), (0, None, None));
    }

    #[test]
    fn only_the_last_runs_of_a_device_are_remembered() {
        let mut outcomes = Outcomes::default();
        (0..1_000).for_each(|n| outcomes.take(n.to_string(), &run(n, "failed")));
        assert_eq!((outcomes.of("tablet").0, outcomes.devices["tablet"].len()), (MOST_RUNS as u64, MOST_RUNS));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_system_says_how_full_it_is() {
        let storage = storage(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(storage.free <= storage.total && storage.total > 1 << 20);
    }
}
