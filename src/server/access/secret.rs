//! Secrets that are told once and only recognised afterwards.

use crate::event::hex;
use crate::{Error, ErrorKind, Result};

/// What is stored of a secret. Secrets are random and long, so a plain hash cannot be turned back.
pub(super) fn fingerprint(secret: &str) -> String {
    hex(&blake3::derive_key("syncledger 2026-11 credential v1", secret.as_bytes()))
}

/// A random secret of this many bytes, in hexadecimal digits.
pub(super) fn random(bytes: usize) -> Result<String> {
    let mut secret = vec![0; bytes];
    let none = |_| Error::new(ErrorKind::Storage, "the system gives no random bytes");
    aws_lc_rs::rand::fill(&mut secret).map_err(none)?;
    Ok(hex(&secret))
}
