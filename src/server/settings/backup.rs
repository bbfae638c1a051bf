//! Backups that the server makes by itself.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::server::Period;

/// When backups are made, where, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSettings {
    /// The directory; without one no backups are made.
    pub dir: Option<PathBuf>,
    /// How often each ledger is backed up; every second at most.
    pub every: Period,
    /// How many sets are kept of each ledger: the newest.
    pub keep: NonZeroU32,
    /// How many files a set has at most: one that holds the whole ledger, and those that continue it.
    pub files: NonZeroU32,
}

impl Default for BackupSettings {
    fn default() -> Self {
        let positive = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self { dir: None, every: Period::from_hours(24), keep: positive(7), files: positive(24) }
    }
}
