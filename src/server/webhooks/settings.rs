//! What an operator may set of change webhooks.

use std::path::PathBuf;

use serde::Deserialize;

use crate::server::duration::Period;
use crate::server::outgoing::Secret;

/// An address that changes of records are posted to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// What it is called: letters, digits, `-` and `_`. Its place in the log is kept under this name.
    pub name: String,
    /// The ledger whose changes are sent.
    pub ledger: String,
    /// The collections whose changes are sent; where none is named, all of the users'.
    pub collections: Vec<String>,
    /// The address.
    pub url: Option<Secret>,
    /// A file with the address, where it is a secret.
    pub url_file: Option<PathBuf>,
    /// What requests are signed with: `whsec_` and base64; two with a space between them while it is changed.
    pub secret: Option<Secret>,
    /// A file with that.
    pub secret_file: Option<PathBuf>,
    /// Whether the address may be one with http, to another machine than this.
    pub allow_http: bool,
    /// How many changes a request has at most. With 1 the body is the change itself, not a list.
    pub batch: usize,
    /// How long to wait, at most, after the first failure; twice as long after each that follows.
    pub first_wait: Period,
    /// How long to wait, at most, after any.
    pub most_wait: Period,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            ledger: "main".to_owned(),
            collections: Vec::new(),
            url: None,
            url_file: None,
            secret: None,
            secret_file: None,
            allow_http: false,
            batch: 100,
            first_wait: Period::from_secs(1),
            most_wait: Period::from_secs(300),
        }
    }
}
