//! What a configuration file can say.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::server::{AlertSettings, BackupSettings, LimitSettings, Quotas, Settings, WebhookSettings};

/// The settings of the program, and of its server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// The directory of the store.
    pub(crate) store: PathBuf,
    /// The ledger that is made where there is none.
    pub(crate) ledger: String,
    /// Where to listen.
    #[serde(deserialize_with = "address")]
    pub(crate) listen: SocketAddr,
    pub(crate) tls: TlsFiles,
    pub(crate) logs: Logs,
    pub(crate) min_app_version: Option<String>,
    pub(crate) limits: LimitSettings,
    pub(crate) quotas: Quotas,
    pub(crate) backup: BackupSettings,
    /// These hold secrets, which are read and never written.
    #[serde(skip_serializing)]
    pub(crate) alerts: AlertSettings,
    #[serde(skip_serializing)]
    pub(crate) webhooks: Vec<WebhookSettings>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsFiles {
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// What is told on stderr, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Logs {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is told, from least to most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// And what may go wrong.
    #[default]
    Warn,
    /// And each request and session.
    Info,
    /// And how.
    Debug,
    /// And every step.
    Trace,
}

impl Default for Logs {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Warn }
    }
}

impl Default for File {
    fn default() -> Self {
        let Settings { min_app_version, limits, quotas, backup } = Settings::default();
        Self {
            store: PathBuf::from("./ledger"),
            ledger: "main".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7171)),
            tls: TlsFiles::default(),
            logs: Logs::default(),
            min_app_version,
            limits,
            quotas,
            backup,
            alerts: AlertSettings::default(),
            webhooks: Vec::new(),
        }
    }
}

impl File {
    /// Checks whom the server is to tell of what, as it does itself when it starts.
    ///
    /// # Errors
    /// `validation` where an address, a secret or a name is none; `not_found`, `permission` or `storage` where a file that holds one
    /// cannot be read.
    pub(crate) fn check(&self) -> crate::Result<()> {
        self.alerts.check().and_then(|()| WebhookSettings::check(&self.webhooks))
    }

    /// What of it is the server's.
    pub(crate) fn server(&self) -> Settings {
        let Self { min_app_version, limits, quotas, backup, .. } = self.clone();
        Settings { min_app_version, limits, quotas, backup }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |_| {
        let got = crate::shape::cut(&text, 60);
        D::Error::custom(format!("expected an address such as 127.0.0.1:7171, got `{got}`"))
    };
    text.parse().map_err(wrong)
}
