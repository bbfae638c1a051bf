//! Alerts: what an operator has to know without having asked.
//!
//! One task looks at the ledgers every so often. What is wrong by a rule is a record of `$alerts`, one for each rule and subject,
//! which says when it began, what to do, and who was told: so nobody is told more than once an hour, whatever is restarted.
//!
//! Invariant: looking never holds up a request, and a sink that fails holds up no other.

mod alert;
mod figures;
mod rules;
mod settings;
mod sinks;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;

pub use settings::{AlertRules, AlertSettings, MailSink, MailTls, SlackSink, WebhookSink};

use super::Server;
use super::outgoing::{self, Address};
use crate::Result;
use alert::{Alert, State};
use sinks::{Message, Sink};
use watch::Watch;

/// How often the rules are looked at, at most.
const LEAST: Duration = Duration::from_millis(10);

/// What a server knows of alerts.
#[derive(Default)]
pub(super) struct Alerts(Mutex<Known>);

#[derive(Default)]
struct Known {
    plan: Option<Arc<Plan>>,
    backup_at_ms: Option<i64>,
}

/// What is looked for, and who is told.
struct Plan {
    settings: AlertSettings,
    sinks: Vec<Sink>,
    client: Client,
}

impl Plan {
    /// Where an alert can be seen.
    fn link(&self, key: &str) -> String {
        let base = self.settings.link.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("{base}/v1/records/%24alerts/{}", escaped(key))
    }

    /// Whether an alert is open, or somebody has still to be told that it is no more.
    fn concerns(&self, alert: &Alert) -> bool {
        let waits = |sink: &Sink| alert.told.get(sink.name()).is_some_and(|told| told.state == State::Open);
        alert.state == State::Open || self.sinks.iter().any(waits)
    }

    /// Tells everybody at once, each of one thing after another. Who could not be told of one is not tried with the next.
    async fn tell(&self, messages: Vec<Message>, now_ms: i64) -> Vec<(Message, Result<()>)> {
        let each = self.sinks.iter().map(|sink| {
            let own: Vec<Message> = messages.iter().filter(|message| message.sink == sink.name()).cloned().collect();
            self.tell_one(sink, own, now_ms)
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn tell_one(&self, sink: &Sink, messages: Vec<Message>, now_ms: i64) -> Vec<(Message, Result<()>)> {
        let mut told = Vec::new();
        for message in messages {
            let outcome = sink.tell(&self.client, &message, now_ms).await;
            let has_failed = outcome.is_err();
            told.push((message, outcome));
            if has_failed {
                break;
            }
        }
        told
    }
}

/// A key as a part of an address.
fn escaped(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    key.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Alerts {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backup_at_ms(&self) -> Option<i64> {
        self.known().backup_at_ms
    }
}

impl AlertSettings {
    /// Checks settings as [`Server::with_alerts`] does.
    ///
    /// # Errors
    /// As there.
    pub fn check(&self) -> Result<()> {
        self.sinks().map(drop)
    }

    fn sinks(&self) -> Result<Vec<Sink>> {
        if let Some(link) = &self.link {
            Address::read("the link of alerts", &link.as_str().into(), true)?;
        }
        Sink::all(self)
    }
}

impl Server {
    /// The same server, which raises alerts by these rules and tells those that are named, as long as it serves, or [`Server::attend`]
    /// runs.
    ///
    /// # Errors
    /// `validation` where the settings name an address, a secret or a mailbox that is none; `not_found`, `permission` or `storage`
    /// where a file that they name cannot be read.
    pub fn with_alerts(self, settings: AlertSettings) -> Result<Self> {
        let plan = Plan { sinks: settings.sinks()?, settings, client: outgoing::client()? };
        self.0.alerts.known().plan = Some(Arc::new(plan));
        Ok(self)
    }

    /// A good backup of the store was made at a time, in milliseconds since 1970: from now on there is an alert when the last one is too
    /// old. For who makes backups otherwise than by the server's own schedule: to be called when it starts, with the time of the last
    /// good one, and after each.
    pub fn backup_made(&self, at_ms: i64) {
        let mut known = self.0.alerts.known();
        known.backup_at_ms = known.backup_at_ms.max(Some(at_ms));
    }

    /// Looks for what is wrong, and tells of it, until the server ends.
    pub(super) async fn watch(self) {
        let Some(plan) = self.0.alerts.known().plan.clone() else { return };
        let every = Duration::from(plan.settings.every).max(LEAST);
        let mut watch = Watch::default();
        loop {
            watch = match self.round(&plan, watch).await {
                Ok(watch) => watch,
                Err(fault) => {
                    tracing::warn!(code = fault.code(), "looking for what is wrong has failed itself");
                    Watch::default()
                }
            };
            tokio::select! {
                () = self.ended() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    /// One look at everything.
    async fn round(&self, plan: &Arc<Plan>, mut watch: Watch) -> Result<Watch> {
        let looking = plan.clone();
        let (watch, messages) = self
            .blocking(move |server| {
                let messages = watch.look(server, &looking);
                Ok((watch, messages))
            })
            .await?;
        if messages.is_empty() {
            return Ok(watch);
        }
        let told = tokio::select! {
            told = plan.tell(messages, self.now_ms()) => told,
            // Who was not told is told by the next process.
            () = self.ended() => return Ok(watch),
        };
        let (plan, mut watch) = (plan.clone(), watch);
        self.blocking(move |server| {
            watch.note(server, &plan, told);
            Ok(watch)
        })
        .await
    }
}
