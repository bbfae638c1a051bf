//! The settings that the environment and flags can say.

use serde_json::Value as Json;

/// A setting: its path in the file, the variable that says it, and what it is read as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) path: &'static str,
    pub(super) variable: Option<&'static str>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

const fn text(path: &'static str, variable: &'static str) -> Setting {
    Setting { path, variable: Some(variable), kind: Kind::Text }
}

const fn number(path: &'static str, variable: &'static str) -> Setting {
    Setting { path, variable: Some(variable), kind: Kind::Number }
}

/// All that are one value each. Lists are for the file.
pub(super) const SETTINGS: [Setting; 21] = [
    text("store", "SYNCLEDGER_STORE"),
    Setting { path: "ledger", variable: None, kind: Kind::Text },
    text("listen", "SYNCLEDGER_LISTEN"),
    text("tls.cert", "SYNCLEDGER_TLS_CERT"),
    text("tls.key", "SYNCLEDGER_TLS_KEY"),
    text("logs.format", "SYNCLEDGER_LOG_FORMAT"),
    text("logs.level", "SYNCLEDGER_LOG_LEVEL"),
    text("min_app_version", "SYNCLEDGER_MIN_APP_VERSION"),
    number("limits.device.per_second", "SYNCLEDGER_LIMITS_DEVICE_PER_SECOND"),
    number("limits.device.at_once", "SYNCLEDGER_LIMITS_DEVICE_AT_ONCE"),
    number("limits.ledger.per_second", "SYNCLEDGER_LIMITS_LEDGER_PER_SECOND"),
    number("limits.ledger.at_once", "SYNCLEDGER_LIMITS_LEDGER_AT_ONCE"),
    number("limits.sessions", "SYNCLEDGER_LIMITS_SESSIONS"),
    number("limits.requests", "SYNCLEDGER_LIMITS_REQUESTS"),
    number("quotas.default.events", "SYNCLEDGER_QUOTA_EVENTS"),
    text("quotas.default.bytes", "SYNCLEDGER_QUOTA_BYTES"),
    number("quotas.default.devices", "SYNCLEDGER_QUOTA_DEVICES"),
    text("backup.dir", "SYNCLEDGER_BACKUP_DIR"),
    text("backup.every", "SYNCLEDGER_BACKUP_EVERY"),
    number("backup.keep", "SYNCLEDGER_BACKUP_KEEP"),
    number("backup.files", "SYNCLEDGER_BACKUP_FILES"),
];

impl Setting {
    /// The setting of a path; one of text where there is none.
    pub(super) fn of(path: &'static str) -> Self {
        let unknown = Self { path, variable: None, kind: Kind::Text };
        SETTINGS.into_iter().find(|setting| setting.path == path).unwrap_or(unknown)
    }

    /// What a text says. What should be a number and is none is left for its type to refuse.
    pub(super) fn value(&self, text: &str) -> Json {
        match (self.kind, text.trim().parse::<u64>()) {
            (Kind::Number, Ok(number)) => number.into(),
            _ => text.into(),
        }
    }
}

/// The path of the setting whose last word this is, if there is just one.
pub(super) fn ending(word: &str) -> Option<&'static str> {
    let mut paths = SETTINGS.iter().map(|setting| setting.path);
    let mut ending = paths.by_ref().filter(|path| path.rsplit('.').next() == Some(word) && *path != word);
    let first = ending.next()?;
    ending.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::configuration::{File, flatten};

    #[test]
    fn every_setting_of_the_table_is_one_of_the_file() {
        let (mut tree, mut leaves) = (serde_json::to_value(File::default()).unwrap(), Vec::new());
        tree["quotas"] = serde_json::json!({ "default": { "events": null, "bytes": null, "devices": null } });
        flatten(&tree, &mut Vec::new(), &mut leaves);
        let known: Vec<String> = leaves.into_iter().map(|(path, _)| path.join(".")).collect();
        for setting in SETTINGS {
            assert!(known.iter().any(|path| path == setting.path), "{}", setting.path);
        }
    }

    #[test]
    fn a_word_leads_to_the_one_setting_that_ends_with_it() {
        assert_eq!(ending("cert"), Some("tls.cert"));
        assert_eq!(ending("per_second"), None);
        assert_eq!(ending("store"), None);
    }
}
