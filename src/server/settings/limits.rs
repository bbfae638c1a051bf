//! How much a server takes at once.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize};

/// How many requests, sessions and jobs there may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// The requests of one device.
    #[serde(deserialize_with = "of_device")]
    pub device: RateSettings,
    /// The requests of all devices of one ledger.
    #[serde(deserialize_with = "of_ledger")]
    pub ledger: RateSettings,
    /// How many sessions, and streams of events, there may be in all.
    pub sessions: NonZeroU32,
    /// How many requests may be at work, or wait for it, at a time. Above that they are answered with 503.
    pub requests: NonZeroU32,
}

/// How often somebody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RateSettings {
    /// Requests a second, over time.
    pub per_second: NonZeroU32,
    /// Requests at once, after a rest.
    pub at_once: NonZeroU32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            device: RateSettings { per_second: positive(200), at_once: positive(400) },
            ledger: RateSettings { per_second: positive(5_000), at_once: positive(10_000) },
            sessions: positive(10_000),
            requests: positive(1_024),
        }
    }
}

fn positive(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

/// A rate of which a part may be missing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stated {
    per_second: Option<NonZeroU32>,
    at_once: Option<NonZeroU32>,
}

fn of_device<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RateSettings, D::Error> {
    stated(deserializer, LimitSettings::default().device)
}

fn of_ledger<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RateSettings, D::Error> {
    stated(deserializer, LimitSettings::default().ledger)
}

fn stated<'de, D: Deserializer<'de>>(deserializer: D, otherwise: RateSettings) -> Result<RateSettings, D::Error> {
    let Stated { per_second, at_once } = Stated::deserialize(deserializer)?;
    Ok(RateSettings {
        per_second: per_second.unwrap_or(otherwise.per_second),
        at_once: at_once.unwrap_or(otherwise.at_once),
    })
}
