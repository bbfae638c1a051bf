//! The one public error type.
//!
//! Every layer has its own error enum beside the code that returns it; at the public surface they all become an
//! [`Error`], whose [`ErrorKind`] is one of a closed set and says what the caller can do next. The message says what
//! was expected, what came, and (in [`Error::hint`]) what to try.
//!
//! Invariant: no message holds a record's value or a secret, only names, positions, sizes and ids.

use std::fmt;

/// What went wrong, as a closed set: the code that programs test, the same on the command line and over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The other side could not be reached.
    Network,
    /// The other side did not answer in time.
    Timeout,
    /// The other side asked for fewer requests.
    RateLimit,
    /// The other side failed.
    Server,
    /// The request was refused as malformed.
    Client,
    /// The credentials were missing or wrong.
    Authentication,
    /// The caller may not do this, or the file system said so.
    Permission,
    /// The input breaks a rule of format, schema or limits.
    Validation,
    /// A value could not be mapped between two systems.
    Mapping,
    /// The record changed since the caller looked.
    Conflict,
    /// Two facts that must agree do not.
    Consistency,
    /// Calls are suspended after repeated failures.
    CircuitOpen,
    /// The caller, or the closing of the store, ended the work.
    Cancelled,
    /// There is no such thing.
    NotFound,
    /// Another process holds the store.
    Locked,
    /// Stored bytes are not what was written.
    Corrupt,
    /// Written by a newer version of the program.
    UpgradeNeeded,
    /// An event is stamped too far in the future.
    ClockAhead,
    /// An event or a peer belongs to another ledger.
    LedgerMismatch,
    /// The idempotency key was used before with another request.
    IdempotencyMismatch,
    /// A limit on size or count was exceeded.
    TooLarge,
    /// The disk failed; the store is closed to writes until it is reopened.
    Storage,
}

impl ErrorKind {
    /// The stable name of the kind, in snake case: `not_found`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::RateLimit => "rate_limit",
            Self::Server => "server",
            Self::Client => "client",
            Self::Authentication => "authentication",
            Self::Permission => "permission",
            Self::Validation => "validation",
            Self::Mapping => "mapping",
            Self::Conflict => "conflict",
            Self::Consistency => "consistency",
            Self::CircuitOpen => "circuit_open",
            Self::Cancelled => "cancelled",
            Self::NotFound => "not_found",
            Self::Locked => "locked",
            Self::Corrupt => "corrupt",
            Self::UpgradeNeeded => "upgrade_needed",
            Self::ClockAhead => "clock_ahead",
            Self::LedgerMismatch => "ledger_mismatch",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::TooLarge => "too_large",
            Self::Storage => "storage",
        }
    }

    /// The kind with this stable name.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// All kinds.
    const ALL: [Self; 22] = [
        Self::Network,
        Self::Timeout,
        Self::RateLimit,
        Self::Server,
        Self::Client,
        Self::Authentication,
        Self::Permission,
        Self::Validation,
        Self::Mapping,
        Self::Conflict,
        Self::Consistency,
        Self::CircuitOpen,
        Self::Cancelled,
        Self::NotFound,
        Self::Locked,
        Self::Corrupt,
        Self::UpgradeNeeded,
        Self::ClockAhead,
        Self::LedgerMismatch,
        Self::IdempotencyMismatch,
        Self::TooLarge,
        Self::Storage,
    ];

    /// Whether the same call can succeed later without being changed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Network | Self::Timeout | Self::RateLimit | Self::Server | Self::CircuitOpen | Self::Locked
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An error of any part of `syncledger`.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    pointers: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every public call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says what was expected and what came.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, pointers: Vec::new(), source: None }
    }

    /// Adds what the caller should try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the JSON Pointers of the places in the input that are at fault.
    #[must_use]
    pub fn with_pointers(mut self, pointers: Vec<String>) -> Self {
        self.pointers = pointers;
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of fault this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The kind's stable name: `not_found`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// Whether the same call can succeed later without being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// What was expected and what came, without the hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to try, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The JSON Pointers of the places in the input that are at fault; often none.
    #[must_use]
    pub fn pointers(&self) -> &[String] {
        &self.pointers
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}
