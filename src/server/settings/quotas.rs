//! How much a ledger may hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Size;

/// The entry for ledgers that have none of their own.
const DEFAULT: &str = "default";

/// The quotas of ledgers, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quotas(pub BTreeMap<String, QuotaSettings>);

/// How much a ledger may hold before its devices can add nothing more. What is missing is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaSettings {
    /// The most events.
    pub events: Option<u64>,
    /// The most bytes of its log on the disk.
    pub bytes: Option<Size>,
    /// The most devices that are let in.
    pub devices: Option<u64>,
}

impl Quotas {
    /// The quota of a ledger: what its own entry does not say, the one named `default` does.
    #[must_use]
    pub fn of(&self, ledger: &str) -> QuotaSettings {
        let own = self.0.get(ledger).copied().unwrap_or_default();
        let others = self.0.get(DEFAULT).copied().unwrap_or_default();
        QuotaSettings {
            events: own.events.or(others.events),
            bytes: own.bytes.or(others.bytes),
            devices: own.devices.or(others.devices),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ledgers_own_quota_does_not_say_the_default_does() {
        let quota = |events, devices| QuotaSettings { events, bytes: None, devices };
        let entries = [("default", quota(Some(10), Some(2))), ("large", quota(Some(1_000), None))];
        let quotas = Quotas(entries.map(|(name, quota)| (name.to_owned(), quota)).into());
        assert_eq!(quotas.of("large"), quota(Some(1_000), Some(2)));
        assert_eq!(quotas.of("another"), quota(Some(10), Some(2)));
        assert_eq!(Quotas::default().of("another"), QuotaSettings::default());
    }
}
