//! The keys that sign access tokens: JSON Web Tokens (RFC 7519) by EdDSA (RFC 8037), and nothing else.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};

use super::safe::Safe;
use super::{ACCESS_SECONDS, secret, unknown_token};
use crate::event::{LedgerId, hex};
use crate::{Error, ErrorKind, Result};

/// Whom tokens are for.
const AUDIENCE: &str = "syncledger";
/// By how many seconds clocks may differ: of one server, so for its own clock being set back.
const LEEWAY_SECONDS: u64 = 5;
/// A token is longer only by mistake.
const MOST_TOKEN_BYTES: usize = 2_048;
const ISSUER: &str = "issuer";
const SIGNS: &str = "signs";
const KEY: &str = "key-";

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The device.
    sub: String,
    /// The ledger that it is a device of.
    ledger: String,
    iat: u64,
    exp: u64,
}

/// The key that signs, and all whose tokens are taken.
pub(super) struct Keys {
    issuer: String,
    kid: String,
    signs: EncodingKey,
    verify: BTreeMap<String, DecodingKey>,
}

impl Keys {
    /// The keys that are kept there; the first one is made where there is none.
    pub(super) fn open(safe: &Safe) -> Result<Self> {
        let issuer = text_or(safe, ISSUER, || secret::random(16).map(|id| format!("syncledger:{id}")))?;
        let kid = text_or(safe, SIGNS, || make(safe))?;
        let mut verify = BTreeMap::new();
        let mut signs = None;
        for name in safe.names()? {
            let Some(id) = name.strip_prefix(KEY) else { continue };
            let bytes = safe.read(&name)?.unwrap_or_default();
            let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| damaged(&name))?;
            verify.insert(id.to_owned(), DecodingKey::from_ed_der(pair.public_key().as_ref()));
            if id == kid {
                signs = Some(EncodingKey::from_ed_der(&bytes));
            }
        }
        let signs = signs.ok_or_else(|| damaged(&format!("{KEY}{kid}")))?;
        Ok(Self { issuer, kid, signs, verify })
    }

    /// A token for a device.
    pub(super) fn sign(&self, ledger: LedgerId, device: &str, now_ms: i64) -> Result<String> {
        let iat = now_ms.max(0).cast_unsigned() / 1_000;
        let (iss, aud, sub) = (self.issuer.clone(), AUDIENCE.to_owned(), device.to_owned());
        let claims = Claims { iss, aud, sub, ledger: ledger.to_string(), iat, exp: iat + ACCESS_SECONDS };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let failed = |fault| Error::new(ErrorKind::Server, "no token could be signed").with_source(fault);
        encode(&header, &claims, &self.signs).map_err(failed)
    }

    /// The ledger and the device that a token was given to.
    pub(super) fn verify(&self, token: &str) -> Result<(LedgerId, String)> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(unknown_token());
        }
        let kid = decode_header(token).ok().and_then(|header| header.kid).ok_or_else(unknown_token)?;
        let key = self.verify.get(&kid).ok_or_else(unknown_token)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS;
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let claims = decode::<Claims>(token, key, &validation).map_err(|_| unknown_token())?.claims;
        Ok((claims.ledger.parse().map_err(|_| unknown_token())?, claims.sub))
    }
}

/// Makes a key, and returns its id.
fn make(safe: &Safe) -> Result<String> {
    let failed = |_| Error::new(ErrorKind::Storage, "no key could be made");
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let kid: String = hex(&blake3::derive_key("syncledger 2026-11 key id v1", pair.public_key().as_ref()))
        .chars()
        .take(16)
        .collect();
    safe.write(&format!("{KEY}{kid}"), pair.to_pkcs8().map_err(failed)?.as_ref())?;
    Ok(kid)
}

/// The text under a name, made where there is none.
fn text_or(safe: &Safe, name: &str, make: impl FnOnce() -> Result<String>) -> Result<String> {
    match safe.read(name)? {
        Some(bytes) => String::from_utf8(bytes).map_err(|_| damaged(name)),
        None => {
            let text = make()?;
            safe.write(name, text.as_bytes())?;
            Ok(text)
        }
    }
}

fn damaged(name: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("`{name}` among the server's keys is missing, or is not what was written"))
        .with_hint("put it back from a backup; or remove all keys: devices then have to refresh their tokens")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    const LEDGER: LedgerId = LedgerId([7; 16]);

    fn keys() -> Keys {
        Keys::open(&Safe::open(None).unwrap()).unwrap()
    }

    fn now_s() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn claims(keys: &Keys) -> Json {
        let iat = now_s();
        json!({ "iss": keys.issuer, "aud": AUDIENCE, "sub": "tablet", "ledger": LEDGER.to_string(), "iat": iat, "exp": iat + 60 })
    }

    fn signed(keys: &Keys, claims: &Json) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(keys.kid.clone());
        encode(&header, claims, &keys.signs).unwrap()
    }

    #[test]
    fn a_token_says_whom_it_was_given_to() {
        let keys = keys();
        let token = keys.sign(LEDGER, "tablet", (now_s() * 1_000).cast_signed()).unwrap();
        assert_eq!(keys.verify(&token).unwrap(), (LEDGER, "tablet".to_owned()));
        assert!(keys.verify(&signed(&keys, &claims(&keys))).is_ok());
    }

    #[test]
    fn another_issuer_audience_or_time_and_a_claim_that_lacks_are_refused() {
        let keys = keys();
        let wrong = [
            ("iss", json!("syncledger:another")),
            ("aud", json!("another")),
            ("exp", json!(now_s() - 60)),
            ("exp", Json::Null),
            ("sub", Json::Null),
            ("iss", Json::Null),
            ("aud", Json::Null),
            ("ledger", json!("another")),
        ];
        for (name, value) in wrong {
            let mut claims = claims(&keys);
            match value {
                Json::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value,
            }
            assert!(keys.verify(&signed(&keys, &claims)).is_err(), "{claims}");
        }
    }

    #[test]
    fn another_key_another_algorithm_and_no_signature_are_refused() {
        let (keys, others) = (keys(), self::keys());
        let claims = claims(&keys);
        let forged = |algorithm: Algorithm, key: &EncodingKey, kid: &str| {
            let mut header = Header::new(algorithm);
            header.kid = Some(kid.to_owned());
            encode(&header, &claims, key).unwrap()
        };
        assert!(keys.verify(&forged(Algorithm::EdDSA, &others.signs, &others.kid)).is_err());
        assert!(keys.verify(&forged(Algorithm::EdDSA, &others.signs, &keys.kid)).is_err());
        // The public key as a shared secret.
        let public = EncodingKey::from_secret(keys.verify[&keys.kid].try_get_as_bytes().unwrap());
        assert!(keys.verify(&forged(Algorithm::HS256, &public, &keys.kid)).is_err());
        let token = signed(&keys, &claims);
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert!(keys.verify(&format!("{signed}.")).is_err());
        assert!(keys.verify("").is_err());
        assert!(keys.verify(&"x".repeat(MOST_TOKEN_BYTES + 1)).is_err());
    }

    #[test]
    fn keys_are_the_same_when_they_are_opened_again_and_only_ours_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Keys::open(&Safe::open(Some(dir.path().join("server"))).unwrap()).unwrap();
        let token = signed(&open(), &claims(&open()));
        assert!(open().verify(&token).is_ok());
        #[cfg(unix)]
        for file in std::fs::read_dir(dir.path().join("server")).unwrap() {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
