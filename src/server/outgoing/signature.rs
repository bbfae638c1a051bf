//! Signatures of what is sent, as Standard Webhooks has them: HMAC-SHA256 over the id, the time and the body.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

use super::{Secret, base64};
use crate::{Error, ErrorKind, Result};

const PREFIX: &str = "whsec_";
/// How many bytes a secret has: what the standard asks for.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What signs messages: with one secret, or while it is being changed, with the old one and the new one.
pub(in crate::server) struct Signer(Vec<Key>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} secrets)", self.0.len())
    }
}

impl Signer {
    /// Signs with secrets that stand in one text, with spaces or lines between them. `what` says whose they are.
    ///
    /// # Errors
    /// `validation` where there is none, or one is not `whsec_` and base64 of 24 to 64 bytes.
    pub(in crate::server) fn of(what: &str, secrets: &Secret) -> Result<Self> {
        let keys: Option<Vec<Key>> = secrets.text().split_whitespace().map(key).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self).ok_or_else(|| {
            let (least, most) = (BYTES.start(), BYTES.end());
            let message = format!("expected {what} as `whsec_` and base64 of {least} to {most} random bytes");
            Error::new(ErrorKind::Validation, message)
                .with_hint("make one with: echo whsec_$(openssl rand -base64 32)")
        })
    }

    /// The headers of a message that was made at a time, in milliseconds since 1970.
    pub(in crate::server) fn headers(&self, id: &str, at_ms: i64, body: &str) -> [(&'static str, String); 3] {
        let seconds = at_ms.div_euclid(1_000).to_string();
        let content = format!("{id}.{seconds}.{body}");
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| format!("v1,{}", base64::encode(sign(key, content.as_bytes()).as_ref())))
            .collect();
        [("webhook-id", id.to_owned()), ("webhook-timestamp", seconds), ("webhook-signature", signatures.join(" "))]
    }
}

fn key(secret: &str) -> Option<Key> {
    let bytes = base64::decode(secret.strip_prefix(PREFIX)?)?;
    BYTES.contains(&bytes.len()).then(|| Key::new(HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A secret, and what openssl signs with it.
    const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    fn signature(secrets: &str) -> String {
        let signer = Signer::of("it", &secrets.into()).unwrap();
        let [_, (_, seconds), (_, signature)] = signer.headers("msg_1", 1_700_000_000_999, r#"{"a":1}"#);
        assert_eq!(seconds, "1700000000");
        signature
    }

    #[test]
    fn a_message_is_signed_as_another_implementation_signs_it() {
        assert_eq!(signature(SECRET), "v1,1l34d9U9bSaAVQFy2uVdg3CHHT+o7pMzi59Vrub2gOE=");
    }

    #[test]
    fn while_a_secret_is_changed_both_sign() {
        let other = format!("whsec_{}", base64::encode(&[7; 24]));
        let both = signature(&format!("{other}\n{SECRET}"));
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(&signature(SECRET)) && both.starts_with(&signature(&other)));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "whsec_!!!"] {
            let fault = Signer::of("the secret", &text.into()).unwrap_err();
            assert_eq!(fault.kind(), ErrorKind::Validation);
            assert!(text.is_empty() || !fault.message().contains(text) || text == "whsec_", "{fault}");
        }
    }
}
