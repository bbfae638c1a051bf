//! How the program ends when it does not simply end well: an exit code, and what to say.

use std::ffi::OsString;
use std::io::{self, Write as _};

use serde_json::{Value as Json, json};

use super::args::Color;
use super::caller::Stream;
use super::style;
use crate::shape;
use crate::{Error, ErrorKind};

/// What a command answers.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// The exit codes, which scripts test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "client"), expect(dead_code, reason = "two are of the client alone"))]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    PartlyFailed = 3,
    ConflictsOpen = 4,
    Corrupt = 5,
    NoStore = 10,
    Locked = 11,
    Authentication = 12,
    Unavailable = 13,
    Interrupted = 130,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Stop {
    exit: Exit,
    fault: Option<Box<Fault>>,
}

#[derive(Debug)]
struct Fault {
    code: &'static str,
    message: String,
    retryable: bool,
    hint: Option<String>,
    pointers: Vec<String>,
}

impl Stop {
    /// Ends without a word.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { exit, fault: None }
    }

    fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        let fault = Fault { code, message: message.into(), retryable: false, hint: None, pointers: Vec::new() };
        Self { exit, fault: Some(Box::new(fault)) }
    }

    /// The arguments make no sense together.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// Some of the work was refused; the rest is done.
    pub(crate) fn partly_failed(message: impl Into<String>) -> Self {
        Self::new(Exit::PartlyFailed, "partly_failed", message)
    }

    /// Conflicts are open, and the caller asked to be told.
    pub(crate) fn conflicts_open(count: usize) -> Self {
        let message = format!("{} open", super::table::count(count, "conflict is", "conflicts are"));
        Self::new(Exit::ConflictsOpen, "conflict", message).hint("settle them with `syncledger resolve ID`")
    }

    /// Stored bytes are not what was written.
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Exit::Corrupt, "corrupt", message)
    }

    /// There is no store in this directory.
    pub(crate) fn no_store(dir: &std::path::Path) -> Self {
        Self::new(Exit::NoStore, "not_found", format!("there is no store in {}", dir.display()))
            .hint(format!("make one with `syncledger --store {} init`, or name another with --store", dir.display()))
    }

    /// The settings are wrong: as wrong as arguments would be.
    #[cfg(feature = "server")]
    pub(crate) fn misconfigured(error: Error) -> Self {
        Self { exit: Exit::Usage, ..Self::from(error) }
    }

    /// A sync server did not do what was asked of it: one that says who we are not, or that cannot be reached, has an exit code
    /// of its own.
    #[cfg(feature = "client")]
    pub(crate) fn of_server(error: Error) -> Self {
        use ErrorKind::{Authentication, CircuitOpen, Network, RateLimit, Server, Timeout};
        let exit = match error.kind() {
            Authentication => Exit::Authentication,
            Network | Timeout | RateLimit | Server | CircuitOpen => Exit::Unavailable,
            kind => exit_of(kind),
        };
        Self::from(error).with_exit(exit)
    }

    /// Somebody pressed Ctrl-C; what was done stays done.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Exit::Interrupted, "cancelled", message)
    }

    /// The same with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Adds what to try.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(fault) = &mut self.fault {
            fault.hint = Some(hint.into());
        }
        self
    }

    /// Says on stderr what happened, and gives the exit code.
    pub(crate) fn report(&self, json: bool, stderr: &Stream) -> u8 {
        if let Some(fault) = &self.fault {
            let text = if json { format!("{}\n", fault.to_json()) } else { fault.text() };
            // A closed stderr cannot be told anything.
            let _ = stderr.writer().write_all(text.as_bytes());
        }
        self.exit as u8
    }
}

impl Fault {
    fn text(&self) -> String {
        let mut text = format!("{} {}\n", style::bad("error:"), self.message);
        // The whole document has an empty pointer.
        if self.pointers.iter().any(|pointer| !pointer.is_empty()) {
            text += &format!("   {} {}\n", style::dim("at:"), self.pointers.join(", "));
        }
        if let Some(hint) = &self.hint {
            text += &format!(" {} {hint}\n", style::good("hint:"));
        }
        text
    }

    fn to_json(&self) -> Json {
        let mut object = json!({ "code": self.code, "message": self.message, "retryable": self.retryable });
        if let Some(hint) = &self.hint {
            shape::set(&mut object, "hint", hint.as_str());
        }
        if !self.pointers.is_empty() {
            shape::set(&mut object, "pointers", self.pointers.clone());
        }
        object
    }
}

/// The exit code of an error of the ledger.
fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Corrupt => Exit::Corrupt,
        ErrorKind::Locked => Exit::Locked,
        _ => Exit::Failed,
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let fault = Fault {
            code: error.code(),
            message: error.message().to_owned(),
            retryable: error.is_retryable(),
            hint: error.hint().map(str::to_owned),
            pointers: error.pointers().to_vec(),
        };
        Self { exit: exit_of(error.kind()), fault: Some(Box::new(fault)) }
    }
}

impl From<io::Error> for Stop {
    /// A reader that closes the pipe has seen enough: that is a good end.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Ok),
            io::ErrorKind::NotFound => Self::new(Exit::Failed, "not_found", error.to_string()),
            io::ErrorKind::PermissionDenied => Self::new(Exit::Failed, "permission", error.to_string()),
            _ => Self::new(Exit::Failed, "storage", error.to_string()),
        }
    }
}

/// A file that could not be read or written, by its name.
pub(crate) fn at_file(path: &std::path::Path) -> impl Fn(io::Error) -> Stop {
    move |error| {
        let mut stop = Stop::from(error);
        if let Some(fault) = &mut stop.fault {
            fault.message = format!("{}: {}", path.display(), fault.message);
        }
        stop
    }
}

/// Says what is wrong with the arguments; help and versions go to stdout and are no fault.
pub(crate) fn refuse_arguments(fault: &clap::Error, arguments: &[OsString]) -> u8 {
    let wants_json = || arguments.iter().any(|argument| argument == "--json");
    if fault.use_stderr() && wants_json() {
        return misused(fault).report(true, &Stream::stderr(Color::Auto));
    }
    match fault.print() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Failed as u8,
        _ => u8::try_from(fault.exit_code()).unwrap_or(Exit::Usage as u8),
    }
}

/// What clap says of arguments, as an error like any other.
pub(crate) fn misused(fault: &clap::Error) -> Stop {
    let text = fault.render().to_string();
    let (message, hint) = split_usage(&text);
    Stop::usage(message).hint(hint)
}

/// The message of a clap error, and what follows it: usage and where to look.
fn split_usage(text: &str) -> (String, String) {
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let words = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    (words(message.trim_start_matches("error:")), words(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_is_split_into_message_and_hint() {
        let text = "error: unexpected argument '--x' found\n\nUsage: syncledger get\n\nFor more information, try '--help'.\n";
        let (message, hint) = split_usage(text);
        assert_eq!(message, "unexpected argument '--x' found");
        assert_eq!(hint, "Usage: syncledger get For more information, try '--help'.");
    }

    #[test]
    fn a_closed_pipe_is_a_good_end_and_other_io_is_not() {
        assert_eq!(Stop::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit, Exit::Ok);
        assert_eq!(Stop::from(io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Failed);
    }
}
