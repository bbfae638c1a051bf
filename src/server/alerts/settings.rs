//! What an operator may set of alerts.

use std::path::PathBuf;

use serde::Deserialize;

use crate::server::duration::Period;
use crate::server::outgoing::Secret;

/// When to raise alerts, and whom to tell. Rules are off where they are `null`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// How often the rules are looked at.
    pub every: Period,
    /// How often, at most, each is told of one alert that stays open.
    pub repeat: Period,
    /// Where this server is reached, for links: `https://sync.example.org`. Without it links have no host.
    pub link: Option<String>,
    /// The rules.
    pub rules: AlertRules,
    /// Addresses that messages are posted to, signed as Standard Webhooks.
    pub webhooks: Vec<WebhookSink>,
    /// E-mail servers, and who is written to.
    pub mails: Vec<MailSink>,
    /// Slack, or what takes the same.
    pub slacks: Vec<SlackSink>,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            every: Period::from_secs(60),
            repeat: Period::from_hours(1),
            link: None,
            rules: AlertRules::default(),
            webhooks: Vec::new(),
            mails: Vec::new(),
            slacks: Vec::new(),
        }
    }
}

/// The rules, each with the figure from which on it raises an alert.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertRules {
    /// So many sessions or uploads of a device failed, one after another. At most 100.
    pub failed_syncs: Option<u64>,
    /// So many open conflicts have come within an hour.
    pub conflicts_per_hour: Option<u64>,
    /// So many records of a collection break its schema.
    pub violations: Option<u64>,
    /// A smaller share of the store's file system is free: 0.1 is a tenth.
    pub free_share: Option<f64>,
    /// A device that was here before was not seen for so long.
    pub device_silent: Option<Period>,
    /// The last good backup is older. Off as long as nobody has said when there was one.
    pub backup_age: Option<Period>,
}

impl Default for AlertRules {
    fn default() -> Self {
        Self {
            failed_syncs: Some(3),
            conflicts_per_hour: Some(100),
            violations: Some(100),
            free_share: Some(0.1),
            device_silent: Some(Period::from_hours(7 * 24)),
            backup_age: Some(Period::from_hours(48)),
        }
    }
}

/// An address that messages are posted to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSink {
    /// What it is called: letters, digits, `-` and `_`.
    pub name: String,
    /// The address.
    pub url: Option<Secret>,
    /// A file with the address, where it is a secret.
    pub url_file: Option<PathBuf>,
    /// What messages are signed with: `whsec_` and base64; two with a space between them while it is changed.
    pub secret: Option<Secret>,
    /// A file with that.
    pub secret_file: Option<PathBuf>,
    /// Whether the address may be one with http, to another machine than this.
    pub allow_http: bool,
}

/// Slack, or what takes the same.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlackSink {
    /// What it is called: letters, digits, `-` and `_`.
    pub name: String,
    /// The address, which is a secret.
    pub url: Option<Secret>,
    /// A file with the address.
    pub url_file: Option<PathBuf>,
    /// Whether the address may be one with http, to another machine than this.
    pub allow_http: bool,
}

/// An e-mail server, and who is written to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailSink {
    /// What it is called: letters, digits, `-` and `_`.
    pub name: String,
    /// The server's name.
    pub host: String,
    /// Its port; without it 465 for `implicit`, 587 for `starttls`, 25 for `none`.
    pub port: Option<u16>,
    /// How the connection is kept secret.
    pub tls: MailTls,
    /// Whom to log in as.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// Who the messages are from: `Ledger <ledger@example.org>`.
    pub from: String,
    /// Who they are for.
    pub to: Vec<String>,
}

/// How a connection to an e-mail server is kept secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailTls {
    /// By TLS from the first byte.
    Implicit,
    /// By TLS once both have said hello; a server that cannot is not used.
    #[default]
    Starttls,
    /// Not at all. A password is then sent to this machine alone.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_has_its_default_null_is_off_and_what_is_unknown_is_refused() {
        let read = |text: &str| serde_json::from_str::<AlertSettings>(text);
        assert_eq!(read("{}").unwrap(), AlertSettings::default());
        let set = read(r#"{"every": "5m", "rules": {"failed_syncs": null, "device_silent": "12h"}}"#).unwrap();
        assert_eq!((set.every, set.rules.failed_syncs), (Period::from_secs(300), None));
        assert_eq!((set.rules.device_silent, set.rules.violations), (Some(Period::from_hours(12)), Some(100)));
        for text in [r#"{"evry": "5m"}"#, r#"{"rules": {"silent": "1d"}}"#, r#"{"mails": [{"hots": "x"}]}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_show_no_secret() {
        let text = r#"{"webhooks": [{"url": "https://h/SECRET", "secret": "whsec_SECRET"}], "slacks": [{"url": "https://h/SECRET"}],
            "mails": [{"password": "SECRET"}]}"#;
        let settings: AlertSettings = serde_json::from_str(text).unwrap();
        assert!(!format!("{settings:?}").contains("SECRET"));
    }
}
