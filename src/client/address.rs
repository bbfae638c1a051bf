//! Where a server is: the base of its addresses.

use std::fmt;

use reqwest::Url;

use crate::{Error, ErrorKind, Result};

/// The address of a server: `http` or `https`, a host, perhaps a port and a path, and nothing secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address(Url);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// `validation` where it is none.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            // The address itself may hold a password.
            Error::new(ErrorKind::Validation, format!("expected the address of a server: {why}"))
                .with_hint("write it as https://host:port")
        };
        let mut url = Url::parse(text.trim()).map_err(|fault| bad(&fault.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(bad("it begins with http:// or https://, and names a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it has no user and no password: a device has tokens"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it has neither `?` nor `#`"));
        }
        let path = url.path().trim_end_matches('/').to_owned() + "/";
        url.set_path(&path);
        Ok(Self(url))
    }

    /// An address below it.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// The same for a WebSocket.
    pub(super) fn socket_at(&self, path: &str) -> String {
        self.at(path).replacen("http", "ws", 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_same_form_however_it_is_written() {
        for text in ["http://host:7171", "http://host:7171/", " HTTP://HOST:7171// "] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), "http://host:7171");
            assert_eq!(address.at("v1/sync"), "http://host:7171/v1/sync");
            assert_eq!(address.socket_at("v1/sync"), "ws://host:7171/v1/sync");
        }
        let below = Address::parse("https://host/http").unwrap();
        assert_eq!(below.socket_at("v1/sync"), "wss://host/http/v1/sync");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for text in
            ["", "host:7171", "ftp://host", "http://", "http://a:secret@host", "http://host/?secret", "file:///x"]
        {
            let fault = Address::parse(text).unwrap_err();
            assert_eq!(fault.kind(), ErrorKind::Validation, "{text}");
            assert!(!fault.to_string().contains("secret"), "{fault}");
        }
    }
}
