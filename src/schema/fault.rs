//! Why JSON is not a schema.

use crate::{Error, ErrorKind};

/// Why JSON is not a schema, or a text not an expression. Pointers are into the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaFault {
    /// A part has the wrong form.
    #[error("at {pointer:?} of the schema: expected {expected}")]
    Malformed {
        /// Where.
        pointer: String,
        /// What was expected.
        expected: String,
    },
    /// Two parts cannot both hold.
    #[error("at {pointer:?} of the schema: {why}")]
    Contradictory {
        /// Where.
        pointer: String,
        /// What contradicts what.
        why: String,
    },
    /// A reference leads out of the schema.
    #[error(
        "at {pointer:?} of the schema: expected a reference inside the schema, such as #/$defs/name, got {target:?}"
    )]
    Remote {
        /// Where.
        pointer: String,
        /// What it names.
        target: String,
    },
    /// A reference leads back to where it stands.
    #[error("at {pointer:?} of the schema: the reference leads back to a part that it is in")]
    Recursive {
        /// Where.
        pointer: String,
    },
    /// A limit is exceeded.
    #[error("expected a schema with at most {most} {what}, got {got}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
        /// How many there are, at least.
        got: usize,
    },
    /// It is no JSON Schema.
    #[error("at {pointer:?} of the schema: no valid JSON Schema: {message}")]
    Invalid {
        /// Where.
        pointer: String,
        /// What JSON Schema says of it.
        message: String,
    },
    /// A text is no expression.
    #[error("at {pointer:?}: no valid expression: {message}")]
    Expression {
        /// Where.
        pointer: String,
        /// Why.
        message: String,
    },
}

impl SchemaFault {
    /// A part of the wrong form.
    pub(crate) fn malformed(pointer: &str, expected: impl Into<String>) -> Self {
        Self::Malformed { pointer: pointer.to_owned(), expected: expected.into() }
    }

    /// Parts that cannot both hold.
    pub(crate) fn contradictory(pointer: &str, why: impl Into<String>) -> Self {
        Self::Contradictory { pointer: pointer.to_owned(), why: why.into() }
    }

    fn pointer(&self) -> Option<&String> {
        match self {
            Self::Malformed { pointer, .. }
            | Self::Contradictory { pointer, .. }
            | Self::Remote { pointer, .. }
            | Self::Recursive { pointer }
            | Self::Invalid { pointer, .. }
            | Self::Expression { pointer, .. } => Some(pointer),
            Self::TooLarge { .. } => None,
        }
    }
}

impl From<SchemaFault> for Error {
    fn from(fault: SchemaFault) -> Self {
        let (kind, hint) = match fault {
            SchemaFault::TooLarge { .. } => (ErrorKind::TooLarge, "keep schemas small: one collection each"),
            SchemaFault::Remote { .. } => (ErrorKind::Validation, "nothing is fetched: copy it below $defs"),
            SchemaFault::Recursive { .. } => (ErrorKind::Validation, "give deeply nested data no schema of its own"),
            SchemaFault::Expression { .. } => (ErrorKind::Validation, "an expression is one of minijinja"),
            _ => (ErrorKind::Validation, "docs/schemas.md lists the forms"),
        };
        let pointers = fault.pointer().cloned().into_iter().collect();
        Self::new(kind, fault.to_string()).with_hint(hint).with_pointers(pointers).with_source(fault)
    }
}
