//! Who is told: an address, an e-mail server, Slack.

use std::collections::BTreeSet;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use reqwest::Client;
use serde_json::{Value as Json, json};

use super::alert::{Alert, State};
use super::settings::{AlertSettings, MailSink, MailTls, SlackSink, WebhookSink};
use crate::event::LedgerId;
use crate::server::outgoing::{Address, Refused, Secret, Signer, check_name, is_here, post};
use crate::shape::time;
use crate::{Error, ErrorKind, Result};

/// How long an e-mail server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What somebody is to be told.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The same when it is sent again.
    pub(super) id: String,
    pub(super) ledger: LedgerId,
    pub(super) ledger_name: String,
    /// The key of the alert's record.
    pub(super) key: String,
    /// The name of who is told.
    pub(super) sink: String,
    pub(super) alert: Alert,
    /// When it was made.
    pub(super) at_ms: i64,
}

impl Message {
    /// One line that says it.
    fn title(&self) -> String {
        let Alert { summary, state, .. } = &self.alert;
        match state {
            State::Open => format!("[{}] {summary}", self.ledger_name),
            State::Resolved => format!("[{}] resolved: {summary}", self.ledger_name),
        }
    }

    /// All of it, in lines.
    fn words(&self) -> String {
        let Alert { error, remedy, link, since, resolved_at, .. } = &self.alert;
        let mut lines = vec![self.title(), format!("Since {}", time::format(since.0))];
        lines.extend(resolved_at.map(|at| format!("Until {}", time::format(at.0))));
        lines.extend(error.as_ref().map(|error| format!("Error: {error}")));
        if self.alert.state == State::Open {
            lines.push(format!("What to do: {remedy}"));
        }
        lines.push(format!("See {link}"));
        lines.join("\n")
    }

    fn to_json(&self) -> Json {
        let alert = &self.alert;
        let what = if alert.state == State::Open { "opened" } else { "resolved" };
        json!({
            "type": format!("syncledger.alert.{what}"),
            "timestamp": time::to_json(self.at_ms),
            "data": {
                "ledger": self.ledger_name,
                "ledger_id": self.ledger.to_string(),
                "alert": self.key,
                "rule": alert.rule,
                "subject": alert.subject,
                "severity": alert.severity,
                "state": alert.state,
                "summary": alert.summary,
                "error": alert.error,
                "link": alert.link,
                "remedy": alert.remedy,
                "since": alert.since,
                "last_seen": alert.last_seen,
                "count": alert.count,
                "resolved_at": alert.resolved_at,
            },
        })
    }
}

/// Somebody who is told of alerts.
pub(super) struct Sink {
    name: String,
    way: Way,
}

enum Way {
    Webhook { address: Address, signer: Signer },
    Mail { transport: AsyncSmtpTransport<Tokio1Executor>, from: Mailbox, to: Vec<Mailbox> },
    Slack { address: Address },
}

impl Sink {
    /// All that settings name.
    ///
    /// # Errors
    /// `validation` where a name is none, or is there twice, or an address, a secret or a mailbox is none; `not_found`, `permission` or
    /// `storage` where a file cannot be read.
    pub(super) fn all(settings: &AlertSettings) -> Result<Vec<Self>> {
        let webhooks = settings.webhooks.iter().map(webhook);
        let mails = settings.mails.iter().map(mail);
        let sinks: Vec<Self> =
            webhooks.chain(mails).chain(settings.slacks.iter().map(slack)).collect::<Result<_>>()?;
        let mut names = BTreeSet::new();
        match sinks.iter().find(|sink| !names.insert(&sink.name)) {
            None => Ok(sinks),
            Some(sink) => {
                let message = format!("two of those who are told of alerts are called `{}`", sink.name);
                Err(Error::new(ErrorKind::Validation, message))
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tells of an alert. Returns once the other side has taken it.
    ///
    /// # Errors
    /// As [`post`]; `validation` where a message is none to an e-mail server.
    pub(super) async fn tell(&self, client: &Client, message: &Message, now_ms: i64) -> Result<()> {
        let told = match &self.way {
            Way::Webhook { address, signer } => {
                let body = message.to_json().to_string();
                let mut headers = signer.headers(&message.id, now_ms, &body).to_vec();
                headers.push(("content-type", "application/json".to_owned()));
                post(client, address, &headers, body, now_ms).await
            }
            Way::Slack { address } => {
                let body = json!({ "text": escaped(&message.words()) }).to_string();
                let headers = [("content-type", "application/json".to_owned())];
                post(client, address, &headers, body, now_ms).await
            }
            Way::Mail { transport, from, to } => return write(transport, from, to, message).await,
        };
        told.map_err(|Refused { error, .. }| error)
    }
}

fn webhook(settings: &WebhookSink) -> Result<Sink> {
    let name = named(&settings.name)?;
    let secret =
        Secret::of(&format!("the secret of `{name}`"), settings.secret.as_ref(), settings.secret_file.as_deref())?;
    let signer = Signer::of(&format!("the secret of `{name}`"), &secret.unwrap_or_else(|| "".into()))?;
    let address = address(&name, settings.url.as_ref(), settings.url_file.as_deref(), settings.allow_http)?;
    Ok(Sink { name, way: Way::Webhook { address, signer } })
}

fn slack(settings: &SlackSink) -> Result<Sink> {
    let name = named(&settings.name)?;
    let address = address(&name, settings.url.as_ref(), settings.url_file.as_deref(), settings.allow_http)?;
    Ok(Sink { name, way: Way::Slack { address } })
}

fn address(name: &str, url: Option<&Secret>, file: Option<&std::path::Path>, allow_http: bool) -> Result<Address> {
    let what = format!("the url of `{name}`");
    let url = Secret::of(&what, url, file)?.unwrap_or_else(|| "".into());
    Address::read(&what, &url, allow_http)
}

fn mail(settings: &MailSink) -> Result<Sink> {
    let name = named(&settings.name)?;
    let what = format!("the password of `{name}`");
    let password = Secret::of(&what, settings.password.as_ref(), settings.password_file.as_deref())?;
    if settings.tls == MailTls::None && password.is_some() && !is_here(&settings.host) {
        let message = format!("{what} would be sent to {} for anybody to read", settings.host);
        return Err(Error::new(ErrorKind::Validation, message).with_hint("set `tls` to implicit or starttls"));
    }
    let (from, to) =
        (mailbox(&settings.from)?, settings.to.iter().map(|to| mailbox(to)).collect::<Result<Vec<_>>>()?);
    if to.is_empty() {
        return Err(Error::new(ErrorKind::Validation, format!("expected whom `{name}` writes to, got nobody")));
    }
    Ok(Sink { way: Way::Mail { transport: transport(settings, &name, password)?, from, to }, name })
}

fn transport(
    settings: &MailSink,
    name: &str,
    password: Option<Secret>,
) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let host = &settings.host;
    let builder = match settings.tls {
        MailTls::Implicit => AsyncSmtpTransport::<Tokio1Executor>::relay(host),
        MailTls::Starttls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host),
        MailTls::None => Ok(AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)),
    };
    let unfit =
        |fault| Error::new(ErrorKind::Validation, format!("the e-mail server of `{name}` cannot be used: {fault}"));
    let mut builder = builder.map_err(unfit)?.timeout(Some(PATIENCE));
    if let Some(port) = settings.port {
        builder = builder.port(port);
    }
    if let Some((user, password)) = settings.user.clone().zip(password) {
        builder = builder.credentials(Credentials::new(user, password.text().to_owned()));
    }
    Ok(builder.build())
}

fn named(name: &str) -> Result<String> {
    check_name("who is told of alerts", name).map(|()| name.to_owned())
}

fn mailbox(text: &str) -> Result<Mailbox> {
    text.parse().map_err(|_| {
        let message = format!("expected a mailbox, got {:?}", crate::shape::cut(text, 80));
        Error::new(ErrorKind::Validation, message)
            .with_hint("write it as `ops@example.org` or `Ledger <ops@example.org>`")
    })
}

async fn write(
    transport: &AsyncSmtpTransport<Tokio1Executor>,
    from: &Mailbox,
    to: &[Mailbox],
    message: &Message,
) -> Result<()> {
    let unmade = |fault| Error::new(ErrorKind::Validation, format!("the message is no e-mail: {fault}"));
    // A title with a line break in it would be no title.
    let subject = crate::shape::cut(&message.title(), 200);
    let builder = to.iter().fold(lettre::Message::builder().from(from.clone()), |builder, to| builder.to(to.clone()));
    let host = from.email.domain().to_owned();
    let mail = builder.message_id(Some(format!("<{}@{host}>", message.id))).subject(subject).body(message.words());
    let sent = tokio::time::timeout(PATIENCE * 2, transport.send(mail.map_err(unmade)?)).await;
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(fault)) => Err(Error::new(ErrorKind::Network, format!("the e-mail server did not take it: {fault}"))),
        Err(_) => Err(Error::new(ErrorKind::Timeout, "the e-mail server did not answer in time")),
    }
}

/// Text as Slack shows it literally.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    fn read(text: &str) -> Result<usize> {
        Sink::all(&serde_json::from_str(text).unwrap()).map(|sinks| sinks.len())
    }

    #[test]
    fn who_cannot_be_told_is_refused_at_the_start() {
        let hook = |name: &str, url: &str, secret: &str| {
            json!({ "webhooks": [{ "name": name, "url": url, "secret": secret }] }).to_string()
        };
        assert_eq!(read(&hook("ops", "https://example.org/x", SECRET)).unwrap(), 1);
        for text in [
            hook("../ops", "https://example.org/x", SECRET),
            hook("ops", "http://example.org/x", SECRET),
            hook("ops", "https://example.org/x", "guess me"),
            json!({ "slacks": [{ "name": "ops" }] }).to_string(),
            json!({ "slacks": [{ "name": "a", "url": "https://h/" }, { "name": "a", "url": "https://h/" }] })
                .to_string(),
            json!({ "mails": [{ "name": "a", "host": "h", "from": "a@example.org" }] }).to_string(),
            json!({ "mails": [{ "name": "a", "host": "h", "from": "nobody", "to": ["b@example.org"] }] }).to_string(),
            json!({ "mails": [{ "name": "a", "host": "mail.example.org", "tls": "none", "user": "u", "password": "p",
                "from": "a@example.org", "to": ["b@example.org"] }] })
            .to_string(),
        ] {
            assert_eq!(read(&text).unwrap_err().kind(), ErrorKind::Validation, "{text}");
        }
    }

    #[test]
    fn slack_shows_what_was_said_and_no_markup_of_others() {
        assert_eq!(escaped("<!channel> & <http://x|y>"), "&lt;!channel&gt; &amp; &lt;http://x|y&gt;");
    }
}
