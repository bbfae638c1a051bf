//! Where a setting comes from, and what of it may be shown.

use std::fmt;

use serde_json::{Value as Json, json};

use crate::shape::set;

/// What is shown in place of a secret.
const HIDDEN: &str = "(hidden)";

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is built in.
    Default,
    /// A file says so, on this line, from 1.
    File { name: String, line: u64 },
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl Origin {
    /// The same for programs: `{"from": "file", "file": "srv.yaml", "line": 3}`.
    pub(crate) fn to_json(&self) -> Json {
        let (from, name) = match self {
            Self::Default => return json!({ "from": "default" }),
            Self::File { name, line } => return json!({ "from": "file", "file": name, "line": line }),
            Self::Environment(name) => ("environment", name),
            Self::Flag(name) => ("flag", name),
        };
        let mut object = json!({ "from": from });
        set(&mut object, "name", *name);
        object
    }
}

/// A setting's value without what is secret: passwords and the like, and of an address all but where it leads. The path of a
/// hook's address is often the secret that lets one use it.
pub(super) fn shown(path: &[String], value: Json) -> Json {
    let is_secret = |name: &String| {
        let name = name.to_ascii_lowercase();
        ["secret", "password", "token", "credential"].iter().any(|word| name.contains(word))
    };
    match value {
        Json::Null => Json::Null,
        _ if path.iter().any(is_secret) => HIDDEN.into(),
        Json::String(text) => address(&text).unwrap_or(text).into(),
        other => other,
    }
}

/// Of an address with a scheme: the scheme, host and port.
fn address(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let is_whole = rest == host || rest.strip_suffix('/') == Some(host);
    Some(if is_whole { text.to_owned() } else { format!("{scheme}://{host}/… {HIDDEN}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_what_lets_one_use_an_address_are_hidden() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let shown = |at: &str, value: &str| shown(&path(at), value.into()).as_str().unwrap().to_owned();
        assert_eq!(shown("webhooks.0.secret", "whsec_abc"), HIDDEN);
        assert_eq!(shown("alerts.mail.smtp_password", "abc"), HIDDEN);
        assert_eq!(shown("webhooks.0.url", "https://hooks.example/T0/B0/abc"), "https://hooks.example/… (hidden)");
        assert_eq!(shown("alerts.smtp", "smtps://ann:pw@mail.example:465"), "smtps://mail.example:465/… (hidden)");
        assert_eq!(shown("webhooks.0.url", "https://hooks.example"), "https://hooks.example");
        assert_eq!(shown("store", "/var/lib/ledger"), "/var/lib/ledger");
    }
}
