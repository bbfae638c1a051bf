//! Refresh tokens: each is good once and brings the next. One that comes again has been stolen, from somebody, so that all
//! of its family end; unless it comes at once, as the answer may have got lost.
//!
//! The rotation with reuse detection is that of RFC 9700, section 4.14.

use serde::{Deserialize, Serialize};

use super::safe::Safe;
use super::secret;
use super::unknown_token;
use crate::event::LedgerId;
use crate::{Result, event};

/// How long a token that was used may come again.
const GRACE_MS: i64 = 30_000;
/// How long a family lives that nobody uses: 90 days.
const IDLE_MS: i64 = 90 * 24 * 3_600 * 1_000;
/// How many tokens may be good at once, the answers to one that came several times: the last ones.
const MOST_CURRENT: usize = 8;

/// Whom a token was given to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) ledger: LedgerId,
    pub(super) device: String,
}

/// The tokens of a device, by their fingerprints.
#[derive(Debug, Serialize, Deserialize)]
struct Family {
    owner: Owner,
    /// Tells it from families that the device had before: their tokens are nothing to this one.
    id: String,
    current: Vec<String>,
    /// Those that were used, and until when they may come again.
    used: Vec<(String, i64)>,
    idle_until_ms: i64,
}

/// The families of a server. A device has one. A token is the family's name, its id and a secret.
pub(super) struct Families(Safe);

impl Families {
    pub(super) fn new(safe: Safe) -> Self {
        Self(safe)
    }

    /// Begins the family of a device, in place of the one that it had, and returns its first token.
    pub(super) fn begin(&self, ledger: LedgerId, device: &str, now_ms: i64) -> Result<String> {
        let (name, id, secret) = (name(ledger, device), secret::random(8)?, secret::random(32)?);
        let owner = Owner { ledger, device: device.to_owned() };
        let current = vec![secret::fingerprint(&secret)];
        let (token, idle_until_ms) = (format!("{name}.{id}.{secret}"), now_ms.saturating_add(IDLE_MS));
        self.0.put(&name, &Family { owner, id, current, used: Vec::new(), idle_until_ms })?;
        Ok(token)
    }

    /// Takes a token, and returns whose it was and the next.
    pub(super) fn renew(&self, token: &str, now_ms: i64) -> Result<(Owner, String)> {
        let [name, id, secret] = token.split('.').collect::<Vec<_>>().try_into().map_err(|_| unknown_token())?;
        let found: Option<Family> = if is_name(name) { self.0.get(name)? } else { None };
        let mut family = found.filter(|family| family.id == id).ok_or_else(unknown_token)?;
        let next = secret::random(32)?;
        if !family.renew(&secret::fingerprint(secret), secret::fingerprint(&next), now_ms) {
            self.0.remove(name)?;
            tracing::warn!(
                device = family.owner.device,
                "a refresh token came again, or too late: its family has ended"
            );
            return Err(unknown_token());
        }
        self.0.put(name, &family)?;
        Ok((family.owner, format!("{name}.{id}.{next}")))
    }

    /// Ends the family of a device.
    pub(super) fn end(&self, ledger: LedgerId, device: &str) -> Result<()> {
        self.0.remove(&name(ledger, device))
    }
}

impl Family {
    /// Takes a token for the next one. False where that ends the family.
    fn renew(&mut self, presented: &str, next: String, now_ms: i64) -> bool {
        if now_ms > self.idle_until_ms {
            return false;
        }
        self.idle_until_ms = now_ms.saturating_add(IDLE_MS);
        self.used.retain(|(_, until)| now_ms <= *until);
        if self.current.iter().any(|current| current == presented) {
            let until = now_ms.saturating_add(GRACE_MS);
            self.used.extend(self.current.drain(..).map(|current| (current, until)));
            self.current.push(next);
            return true;
        }
        let is_again = self.used.iter().any(|(used, _)| used == presented);
        if is_again {
            let surplus = (self.current.len() + 1).saturating_sub(MOST_CURRENT);
            self.current.drain(..surplus);
            self.current.push(next);
        }
        is_again
    }
}

fn name(ledger: LedgerId, device: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 token family v1");
    hasher.update(&ledger.0).update(device.as_bytes());
    event::hex(hasher.finalize().as_bytes())
}

/// A family's name is a file's: it is nothing else than a hash.
fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: LedgerId = LedgerId([7; 16]);

    fn families() -> Families {
        Families::new(Safe::open(None).unwrap())
    }

    #[test]
    fn each_token_brings_the_next_and_an_old_one_ends_them_all() {
        let families = families();
        let first = families.begin(LEDGER, "tablet", 0).unwrap();
        let (owner, second) = families.renew(&first, 1_000).unwrap();
        assert_eq!(owner, Owner { ledger: LEDGER, device: "tablet".to_owned() });
        let (_, third) = families.renew(&second, 2_000).unwrap();
        assert!(families.renew(&first, 2_000 + GRACE_MS + 1).is_err());
        assert!(families.renew(&third, 2_000 + GRACE_MS + 2).is_err(), "the thief or the owner: nobody knows");
    }

    #[test]
    fn a_lost_answer_is_given_again_for_half_a_minute_and_either_answer_goes_on() {
        for used in 0..2 {
            let families = families();
            let first = families.begin(LEDGER, "tablet", 0).unwrap();
            let answers = [0, GRACE_MS].map(|at| families.renew(&first, at).unwrap().1);
            assert!(families.renew(&answers[used], GRACE_MS + 1).is_ok());
        }
    }

    #[test]
    fn nobody_who_guesses_a_secret_is_let_in_and_no_path_is_taken_for_a_name() {
        let families = families();
        let token = families.begin(LEDGER, "tablet", 0).unwrap();
        let name = token.split('.').next().unwrap();
        for wrong in [String::new(), "x".to_owned(), format!("{name}.00"), format!("../{name}.00.00")] {
            assert!(families.renew(&wrong, 1).is_err(), "{wrong}");
        }
        let again = families.begin(LEDGER, "tablet", 2).unwrap();
        assert!(families.renew(&token, 3).is_err(), "of a family that was");
        assert!(families.renew(&again, 3).is_ok());
    }

    #[test]
    fn a_family_that_nobody_uses_ends() {
        let families = families();
        let token = families.begin(LEDGER, "tablet", 0).unwrap();
        assert!(families.renew(&token, IDLE_MS + 1).is_err());
    }
}
