//! The identities that events are made of: ledgers, writers, events, batches, runs and conflicts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, got {got} characters")]
pub struct ParseIdError {
    /// How many hexadecimal digits the id has.
    pub expected: usize,
    /// How many characters came.
    pub got: usize,
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let fault = || ParseIdError { expected: N * 2, got: text.chars().count() };
    if text.len() != N * 2 || !text.is_ascii() {
        return Err(fault());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| fault())?;
        // `from_str_radix` takes a sign, which is no hexadecimal digit.
        if pair.starts_with('+') {
            return Err(fault());
        }
        *byte = u8::from_str_radix(pair, 16).map_err(|_| fault())?;
    }
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// How many bytes the id has.
            pub const BYTES: usize = $bytes;

            /// The id's bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Whether the id's hexadecimal form starts with `prefix` (lower case).
            #[must_use]
            pub fn has_prefix(&self, prefix: &str) -> bool {
                self.to_string().starts_with(prefix)
            }

            /// The first ten hexadecimal digits: enough for a person to tell ids apart.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id!(
    /// A ledger: one tenant's log and everything derived from it. Random.
    LedgerId,
    16
);
id!(
    /// An installation that stamps events into one ledger. Random, but for the writers of first imports, which are
    /// hashes of what they import.
    WriterId,
    16
);
id!(
    /// An event: the blake3 hash of its ledger's id and its bytes.
    EventId,
    32
);
id!(
    /// A batch of events that were written all or nothing. Random, but for chains of a first import.
    BatchId,
    16
);
id!(
    /// One execution of an import, a pull or a connector. Random.
    RunId,
    16
);
id!(
    /// A conflict: the hash of ledger, collection, key and JSON Pointer, stable while candidates come and go.
    ConflictId,
    32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = WriterId([0xa5; 16]);
        assert_eq!(id.to_string().parse::<WriterId>(), Ok(id));
    }

    #[test]
    fn a_sign_a_short_text_and_a_wide_character_are_refused() {
        for text in ["+a".repeat(16), "a5".into(), "é".repeat(16)] {
            let got = text.chars().count();
            assert_eq!(text.parse::<WriterId>(), Err(ParseIdError { expected: 32, got }), "{text}");
        }
    }
}
