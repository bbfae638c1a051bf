//! What a server's answers mean when they are not what was hoped for.

use serde_json::Value as Json;

use crate::retry::retry_after_ms;
use crate::{Error, ErrorKind};

/// How many characters of a server's words are kept.
const MOST_WORDS: usize = 1_024;

/// Why an attempt failed, and what that means for the next.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    /// How long the server asks to wait, in milliseconds.
    pub(super) after_ms: Option<u64>,
    /// Whether the server itself said so, in its own words: a proxy in between does not.
    pub(super) is_problem: bool,
    /// Whether the same may succeed later.
    pub(super) is_passing: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let is_passing = error.is_retryable();
        Self { error, after_ms: None, is_problem: false, is_passing }
    }
}

impl Fault {
    /// The server could not be reached.
    pub(super) fn unreachable(url: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("the server at {url} cannot be reached: {why}");
        Error::new(ErrorKind::Network, message)
            .with_hint("edits stay here and are sent later: try again once there is a network")
            .into()
    }

    /// The server took too long.
    pub(super) fn too_late(url: &str) -> Self {
        let message = format!("the server at {url} did not answer in time");
        Error::new(ErrorKind::Timeout, message).with_hint("try again").into()
    }

    /// The session ended with an error while it was open: all but a fault of our own may pass. Where events were named by parts of
    /// their ids, one side may not have found one, and the next session names them whole.
    pub(super) fn in_session(error: Error, names_in_part: bool) -> Self {
        use ErrorKind::{Authentication, Cancelled, Corrupt};
        // Rights that changed, and a server that ends, ask us to connect again.
        let asks_again = matches!(error.kind(), Authentication | Cancelled);
        let is_passing = error.is_retryable() || asks_again || (names_in_part && error.kind() == Corrupt);
        Self { is_passing, ..Self::from(error) }
    }
}

/// The parts of an answer that tell what went wrong.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// What an answer that is not good means.
    pub(super) fn fault(&self, now_ms: i64) -> Fault {
        let problem: Option<Json> = serde_json::from_slice(self.body).ok();
        let said = |name: &str| problem.as_ref()?.get(name)?.as_str().map(in_bounds);
        let code = said("code").and_then(|code| ErrorKind::from_code(&code));
        // Its disk is not ours: that may pass.
        let kind = code.filter(|kind| *kind != ErrorKind::Storage).unwrap_or_else(|| kind_of(self.status));
        let message = match said("detail") {
            Some(detail) => format!("the server answered {}: {detail}", self.status),
            None => format!("the server answered {}", self.status),
        };
        let error = match said("hint").or_else(|| hint_for(kind).map(str::to_owned)) {
            Some(hint) => Error::new(kind, message).with_hint(hint),
            None => Error::new(kind, message),
        };
        let after_ms = self.retry_after.and_then(|header| retry_after_ms(header, now_ms));
        let is_passing = error.is_retryable() || after_ms.is_some();
        Fault { error, after_ms, is_problem: code.is_some(), is_passing }
    }
}

/// The kind of error that a status stands for, where nothing else tells.
fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Authentication,
        402 | 403 | 451 => ErrorKind::Permission,
        404 | 410 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        409 | 412 => ErrorKind::Conflict,
        413 => ErrorKind::TooLarge,
        422 => ErrorKind::Validation,
        426 => ErrorKind::UpgradeNeeded,
        429 => ErrorKind::RateLimit,
        400..=499 => ErrorKind::Client,
        500..=599 => ErrorKind::Server,
        // Something that is no such server.
        _ => ErrorKind::Client,
    }
}

fn hint_for(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Authentication => Some("enrol again with a code from `syncledger device create` on the server"),
        ErrorKind::UpgradeNeeded => Some("install a newer version"),
        ErrorKind::NotFound | ErrorKind::Client => Some("is this the address of a syncledger server?"),
        _ => None,
    }
}

/// A server's words, without what could harm a terminal.
fn in_bounds(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, retry_after: Option<&str>, body: &str) -> Fault {
        Answer { status, retry_after, body: body.as_bytes() }.fault(0)
    }

    /// A server that had lost what edits are built on, as a restored one has, once ended clients for good that the next session would
    /// have served.
    #[test]
    fn what_was_not_found_by_a_part_of_its_id_is_named_whole_by_the_next_session() {
        let fault = |names_in_part| Fault::in_session(Error::new(ErrorKind::Corrupt, "not here"), names_in_part);
        assert!(fault(true).is_passing);
        assert!(!fault(false).is_passing);
    }

    #[test]
    fn a_full_disk_of_the_server_may_pass() {
        let fault = fault(500, None, r#"{"code":"storage","detail":"no space left"}"#);
        assert_eq!((fault.error.kind(), fault.is_passing), (ErrorKind::Server, true));
    }

    #[test]
    fn a_status_without_words_is_the_kind_that_it_stands_for() {
        let kinds = [
            (401, "authentication"),
            (403, "permission"),
            (404, "not_found"),
            (408, "timeout"),
            (409, "conflict"),
            (413, "too_large"),
            (418, "client"),
            (422, "validation"),
            (426, "upgrade_needed"),
            (429, "rate_limit"),
            (500, "server"),
            (503, "server"),
            (504, "timeout"),
            (301, "client"),
        ];
        for (status, code) in kinds {
            let fault = fault(status, None, "<html>");
            assert_eq!((fault.error.code(), fault.is_problem), (code, false), "{status}");
        }
    }

    #[test]
    fn what_the_server_says_itself_counts_more_than_the_status() {
        let body = r#"{"code": "clock_ahead", "detail": "it is\u001b[31m ahead", "hint": "set the clock"}"#;
        let fault = fault(409, None, body);
        assert_eq!((fault.error.code(), fault.is_problem, fault.is_passing), ("clock_ahead", true, false));
        assert_eq!(fault.error.message(), "the server answered 409: it is[31m ahead");
        assert_eq!(fault.error.hint(), Some("set the clock"));
    }

    #[test]
    fn who_asks_us_to_come_back_later_can_be_asked_again() {
        let busy = fault(429, Some("7"), r#"{"code": "rate_limit"}"#);
        assert_eq!((busy.after_ms, busy.is_passing), (Some(7_000), true));
        let closing = fault(503, Some("1"), r#"{"code": "cancelled"}"#);
        assert_eq!((closing.error.code(), closing.is_passing), ("cancelled", true));
        assert!(!fault(401, None, "").is_passing);
    }

    #[test]
    fn a_body_of_any_kind_is_no_reason_to_fail_otherwise() {
        for body in ["", "null", "[1]", "{\"code\": 7}", "{\"code\": \"nonsense\"}", "\u{0}"] {
            assert_eq!(fault(500, None, body).error.code(), "server", "{body:?}");
        }
        let long = format!("{{\"code\": \"server\", \"detail\": \"{}\"}}", "x".repeat(1 << 20));
        assert!(fault(500, None, &long).error.message().len() < 2_000);
    }
}
