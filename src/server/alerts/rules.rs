//! The rules: from the figures of a ledger to what is wrong with it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::settings::AlertRules;
use crate::shape::{cut, time};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    Warning,
    Critical,
}

/// What a ledger looks like at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// In milliseconds since 1970.
    pub(super) now_ms: i64,
    pub(super) devices: Vec<DeviceFigures>,
    /// Open conflicts with a candidate of the last hour.
    pub(super) conflicts_last_hour: u64,
    /// By collection, how often its schema is broken.
    pub(super) violations: BTreeMap<String, u64>,
    /// Of the file system that the store is on; only where the ledger answers for the store.
    pub(super) storage: Option<Storage>,
    /// When the last good backup was made; only where the ledger answers for the store.
    pub(super) backup_at_ms: Option<i64>,
}

/// A device that is let in.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceFigures {
    pub(super) id: String,
    /// How many of its last syncs failed, one after another.
    pub(super) failed_in_row: u64,
    /// Why the last of them did.
    pub(super) error: Option<String>,
    /// When it was last heard of; `None` where it never was.
    pub(super) seen_ms: Option<i64>,
}

/// How full a file system is, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    pub(super) free: u64,
    pub(super) total: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) rule: &'static str,
    /// What it is wrong with: a device, a collection, the store.
    pub(super) subject: String,
    pub(super) severity: Severity,
    pub(super) summary: String,
    pub(super) error: Option<String>,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

/// What is wrong by any rule that is on.
pub(super) fn findings(rules: &AlertRules, figures: &Figures) -> Vec<Finding> {
    let mut found = Vec::new();
    for device in &figures.devices {
        found.extend(rules.failed_syncs.and_then(|most| failed_syncs(device, most)));
        found.extend(rules.device_silent.and_then(|most| device_silent(device, most.as_millis(), figures.now_ms)));
    }
    found.extend(rules.conflicts_per_hour.and_then(|most| conflict_rate(figures.conflicts_last_hour, most)));
    for (collection, count) in &figures.violations {
        found.extend(rules.violations.and_then(|most| violations(collection, *count, most)));
    }
    found.extend(rules.free_share.zip(figures.storage).and_then(|(least, storage)| storage_full(storage, least)));
    let backup = rules.backup_age.zip(figures.backup_at_ms);
    found.extend(backup.and_then(|(most, at)| backup_old(at, most.as_millis(), figures.now_ms)));
    found
}

fn failed_syncs(device: &DeviceFigures, most: u64) -> Option<Finding> {
    (device.failed_in_row >= most.max(1)).then(|| Finding {
        rule: "failed_syncs",
        subject: device.id.clone(),
        severity: Severity::Critical,
        summary: format!("the last {} syncs of the device `{}` failed", device.failed_in_row, cut(&device.id, 80)),
        error: device.error.clone(),
        remedy: "see its records of `$errors`; a device that cannot be helped may have to enrol again",
    })
}

fn device_silent(device: &DeviceFigures, most_ms: i64, now_ms: i64) -> Option<Finding> {
    let seen_ms = device.seen_ms?;
    (now_ms.saturating_sub(seen_ms) > most_ms).then(|| Finding {
        rule: "device_silent",
        subject: device.id.clone(),
        severity: Severity::Warning,
        summary: format!("the device `{}` was last seen at {}", cut(&device.id, 80), time::format(seen_ms)),
        error: None,
        remedy: "look whether it is switched on and reaches this server; revoke it with `syncledger device revoke` if it is no more",
    })
}

fn conflict_rate(count: u64, most: u64) -> Option<Finding> {
    (count >= most.max(1)).then(|| Finding {
        rule: "conflict_rate",
        subject: "conflicts".to_owned(),
        severity: Severity::Warning,
        summary: format!("{count} open conflicts have come within an hour"),
        error: None,
        remedy: "see `syncledger conflicts`; a policy may settle what people need not look at (`syncledger policy try`)",
    })
}

fn violations(collection: &str, count: u64, most: u64) -> Option<Finding> {
    (count >= most.max(1)).then(|| Finding {
        rule: "violations",
        subject: collection.to_owned(),
        severity: Severity::Warning,
        summary: format!("the schema of `{collection}` is broken {count} times"),
        error: None,
        remedy: "see `syncledger violations`; mend the records, with `--fix` where that can be done alone, or the schema",
    })
}

fn storage_full(storage: Storage, least: f64) -> Option<Finding> {
    let share = storage.free as f64 / storage.total.max(1) as f64;
    (share < least).then(|| Finding {
        rule: "storage_full",
        subject: "store".to_owned(),
        severity: Severity::Critical,
        summary: format!("{:.1} % of the store's file system is free: {} MiB", share * 100.0, storage.free >> 20),
        error: None,
        remedy: "free space, or move the store; a store that finds no space takes no more writes until it is opened again",
    })
}

fn backup_old(at_ms: i64, most_ms: i64, now_ms: i64) -> Option<Finding> {
    (now_ms.saturating_sub(at_ms) > most_ms).then(|| Finding {
        rule: "backup_old",
        subject: "store".to_owned(),
        severity: Severity::Critical,
        summary: format!("the last good backup is of {}", time::format(at_ms)),
        error: None,
        remedy: "see why the scheduled backup fails, or make one with `syncledger backup`",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::duration::Period;

    fn names(rules: &AlertRules, figures: &Figures) -> Vec<(&'static str, String)> {
        findings(rules, figures).into_iter().map(|finding| (finding.rule, finding.subject)).collect()
    }

    #[test]
    fn each_rule_raises_an_alert_from_its_figure_on_and_not_before() {
        let rules = AlertRules {
            failed_syncs: Some(3),
            conflicts_per_hour: Some(10),
            violations: Some(5),
            free_share: Some(0.1),
            device_silent: Some(Period::from_secs(60)),
            backup_age: Some(Period::from_secs(3_600)),
        };
        let device =
            |failed_in_row, seen_ms| DeviceFigures { id: "tablet".into(), failed_in_row, seen_ms, error: None };
        let now_ms = 10_000_000;
        let well = Figures {
            now_ms,
            devices: vec![device(2, Some(now_ms - 60_000)), device(0, None)],
            conflicts_last_hour: 9,
            violations: BTreeMap::from([("notes".into(), 4)]),
            storage: Some(Storage { free: 100, total: 1_000 }),
            backup_at_ms: Some(now_ms - 3_600_000),
        };
        assert_eq!(names(&rules, &well), []);
        let ill = Figures {
            now_ms: now_ms + 1,
            devices: vec![device(3, Some(now_ms - 60_000))],
            conflicts_last_hour: 10,
            violations: BTreeMap::from([("notes".into(), 5)]),
            storage: Some(Storage { free: 99, total: 1_000 }),
            ..well.clone()
        };
        let all = [
            ("failed_syncs", "tablet"),
            ("device_silent", "tablet"),
            ("conflict_rate", "conflicts"),
            ("violations", "notes"),
            ("storage_full", "store"),
            ("backup_old", "store"),
        ];
        assert_eq!(names(&rules, &ill), all.map(|(rule, subject)| (rule, subject.to_owned())));
    }

    #[test]
    fn rules_that_are_off_or_have_no_figures_find_nothing() {
        let off = AlertRules {
            failed_syncs: None,
            conflicts_per_hour: None,
            violations: None,
            free_share: None,
            device_silent: None,
            backup_age: None,
        };
        let ill = Figures {
            now_ms: i64::MAX,
            devices: vec![DeviceFigures { id: "x".into(), failed_in_row: 9, seen_ms: Some(0), error: None }],
            conflicts_last_hour: u64::MAX,
            violations: BTreeMap::from([("notes".into(), u64::MAX)]),
            storage: Some(Storage { free: 0, total: 0 }),
            backup_at_ms: Some(0),
        };
        assert_eq!(names(&off, &ill), []);
        assert_eq!(names(&AlertRules::default(), &Figures { now_ms: i64::MAX, ..Figures::default() }), []);
    }
}
