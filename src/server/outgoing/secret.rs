//! Secrets in settings: as a value, or in a file of their own.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::disk;
use crate::{Error, ErrorKind, Result};

/// How many bytes a file with a secret may have.
const MOST_BYTES: usize = 16 << 10;

/// A text that is never shown: a password, a signing secret, an address that lets in who knows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    pub(in crate::server) fn text(&self) -> &str {
        &self.0
    }

    /// The secret that settings give as a value, or name a file of. `what` says whose it is.
    ///
    /// # Errors
    /// `validation` where both are given, or the file holds no text; `not_found`, `permission` or `storage` where it cannot be read.
    pub(in crate::server) fn of(what: &str, value: Option<&Self>, file: Option<&Path>) -> Result<Option<Self>> {
        match (value, file) {
            (Some(_), Some(_)) => {
                let message = format!("expected {what} as a value or in a file, got both");
                Err(Error::new(ErrorKind::Validation, message).with_hint("leave one of them out"))
            }
            (None, Some(file)) => Self::read(what, file).map(Some),
            (value, None) => Ok(value.cloned()),
        }
    }

    fn read(what: &str, file: &Path) -> Result<Self> {
        let bytes = disk::read(file)?.ok_or_else(|| {
            let message = format!("there is no file {} with {what}", file.display());
            Error::new(ErrorKind::NotFound, message)
        })?;
        let text =
            Some(bytes).filter(|bytes| bytes.len() <= MOST_BYTES).and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(|text| Self(text.trim().to_owned())).ok_or_else(|| {
            let message = format!("expected {what} as text of at most {MOST_BYTES} bytes in {}", file.display());
            Error::new(ErrorKind::Validation, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_as_a_value_or_from_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "from a file\n").unwrap();
        let value = Secret::from("as a value");
        assert_eq!(Secret::of("it", Some(&value), None).unwrap(), Some(value.clone()));
        assert_eq!(Secret::of("it", None, Some(&file)).unwrap().unwrap().text(), "from a file");
        assert_eq!(Secret::of("it", None, None).unwrap(), None);
        assert_eq!(Secret::of("it", Some(&value), Some(&file)).unwrap_err().kind(), ErrorKind::Validation);
        let missing = dir.path().join("none");
        assert_eq!(Secret::of("it", None, Some(&missing)).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&file, [0xff; 4]).unwrap();
        assert_eq!(Secret::of("it", None, Some(&file)).unwrap_err().kind(), ErrorKind::Validation);
        assert_eq!(format!("{value:?}"), "…");
    }
}
