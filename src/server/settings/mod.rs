//! What an operator decides about a server: how much it takes of whom, and what it does by itself.
//!
//! Each section is a file, and has defaults: a server without settings works. Sections are read from anything that `serde` reads;
//! the program reads them from YAML, the environment and flags.
//!
//! Invariant: a key that nobody knows is refused, never ignored.

mod backup;
mod limits;
mod quotas;
mod size;

use serde::{Deserialize, Serialize};

pub use backup::BackupSettings;
pub use limits::{LimitSettings, RateSettings};
pub use quotas::{QuotaSettings, Quotas};
pub use size::Size;

/// The settings of a [`Server`](super::Server).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The oldest version of an app that the classic device API lets in; `None` for any.
    pub min_app_version: Option<String>,
    /// How much devices may ask for.
    pub limits: LimitSettings,
    /// How much ledgers may hold, by their names; `default` is for all others.
    pub quotas: Quotas,
    /// Backups that the server makes by itself.
    pub backup: BackupSettings,
}
