//! Requests that the server makes of itself: to the addresses that its operator has set, and to no others.
//!
//! Invariant: no redirection is followed, no answer is read but for its status and `Retry-After`, and no address is shown beyond its
//! host: the rest of it may be a secret.

mod base64;
mod secret;
mod signature;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};

pub use secret::Secret;
pub(super) use signature::Signer;

use crate::retry::retry_after_ms;
use crate::{Error, ErrorKind, Result};

/// How long connecting and answering may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What makes the requests.
///
/// # Errors
/// `storage` where the system's certificates cannot be had.
pub(super) fn client() -> Result<Client> {
    let built = Client::builder()
        .timeout(PATIENCE)
        .redirect(Policy::none())
        .user_agent(concat!("syncledger/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|fault| Error::new(ErrorKind::Storage, format!("no requests can be made: {}", cause(&fault))))
}

/// Where to send to. Shown by its host alone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address(Url);

impl Address {
    /// Reads an address: https, or http to this machine or where that is allowed. `what` says whose it is.
    ///
    /// # Errors
    /// `validation`.
    pub(super) fn read(what: &str, text: &Secret, allow_http: bool) -> Result<Self> {
        let unfit =
            |why: &str| Error::new(ErrorKind::Validation, format!("expected {what} as an address with https, {why}"));
        let url = Url::parse(text.text().trim()).map_err(|fault| unfit(&format!("but {fault}")))?;
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if allow_http || is_here(url.host_str().unwrap_or_default()) => Ok(Self(url)),
            "http" => Err(unfit("got one with http, which anybody on the way reads")
                .with_hint("use https, or set `allow_http` where the network is your own")),
            _ => Err(unfit("got another scheme")),
        }
    }
}

/// Whether a host is this machine.
pub(super) fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.host_str().unwrap_or("an address without a host"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Any number, all equally likely: how long to wait depends on it. Where the system gives none the wait is the shortest.
pub(super) fn chance() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

/// Checks that a name is one that may stand in a file's name and in a record.
///
/// # Errors
/// `validation`.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    let message = format!("expected a name of {what} of 1 to 64 letters, digits, `-` and `_`, got {name:?}");
    Err(Error::new(ErrorKind::Validation, message))
}

/// Why something was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: Error,
    /// How long the other side asks to wait, in milliseconds.
    pub(super) after_ms: Option<u64>,
    /// Whether it wants nothing more, ever.
    pub(super) is_gone: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, after_ms: None, is_gone: false }
    }
}

/// Posts a body, and returns once the other side has taken it: any status of success.
///
/// # Errors
/// `network`, `timeout`, `rate_limit`, `server`, `client`, `authentication`.
pub(super) async fn post(
    client: &Client,
    address: &Address,
    headers: &[(&'static str, String)],
    body: String,
    now_ms: i64,
) -> Result<(), Refused> {
    let request = client.post(address.0.clone()).body(body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    let answer = request.send().await.map_err(|fault| unsent(address, &fault))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let asked = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let error = Error::new(kind(status.as_u16()), format!("{address} answered with {}", status.as_u16()));
    Err(Refused { error, after_ms: asked.and_then(|asked| retry_after_ms(asked, now_ms)), is_gone: status == 410 })
}

fn kind(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Authentication,
        408 | 504 => ErrorKind::Timeout,
        429 => ErrorKind::RateLimit,
        500.. => ErrorKind::Server,
        _ => ErrorKind::Client,
    }
}

fn unsent(address: &Address, fault: &reqwest::Error) -> Error {
    match fault.is_timeout() {
        true => Error::new(ErrorKind::Timeout, format!("{address} did not answer within {} s", PATIENCE.as_secs())),
        false => Error::new(ErrorKind::Network, format!("{address} could not be reached: {}", cause(fault))),
    }
}

/// What is at the bottom of a fault. What is above it names the whole address.
fn cause(fault: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(fault), |cause| cause.source());
    causes.last().map_or_else(|| "the request is no request".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_of_this_machine_or_allowed_and_shows_its_host_alone() {
        let read = |text: &str, allow_http| Address::read("the url", &text.into(), allow_http);
        for text in
            ["https://hooks.example.org/T0/secret", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x"]
        {
            assert!(read(text, false).is_ok(), "{text}");
        }
        for text in [
            "http://hooks.example.org/T0/secret",
            "http://127.0.0.1.example.org/secret",
            "ftp://localhost/secret",
            "secret",
        ] {
            let fault = read(text, false).unwrap_err();
            assert_eq!(fault.kind(), ErrorKind::Validation);
            assert!(!fault.to_string().contains("secret"), "{fault}");
        }
        assert!(read("http://10.0.0.7/x", true).is_ok());
        assert_eq!(
            format!("{:?}", read("https://user:pw@hooks.example.org/secret", false).unwrap()),
            "hooks.example.org"
        );
    }
}
