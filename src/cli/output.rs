//! What is printed: data on stdout, words on stderr.

use std::fmt::Display;
use std::io::{BufWriter, Write};

use serde_json::Value as Json;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::caller::{Caller, Stream};
#[cfg(feature = "server")]
use super::configuration::{LogFormat, LogLevel, Logs};
use super::stop::Outcome;
use crate::event::json::canonical;

/// The program's answers.
pub(crate) struct Output {
    /// Whether the answers are for programs.
    pub(crate) json: bool,
    quiet: bool,
    stdout: BufWriter<anstream::AutoStream<Box<dyn Write + Send>>>,
    stderr: Stream,
}

impl Output {
    /// Answers to the caller.
    pub(crate) fn new(json: bool, quiet: bool, caller: &Caller) -> Self {
        Self { json, quiet, stdout: BufWriter::new(caller.stdout.writer()), stderr: caller.stderr.clone() }
    }

    /// Where words go.
    #[cfg(unix)]
    pub(crate) fn stderr(&self) -> &Stream {
        &self.stderr
    }

    /// Whether only answers and errors are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line of the answer.
    pub(crate) fn line(&mut self, text: impl Display) -> Outcome {
        Ok(writeln!(self.stdout, "{text}")?)
    }

    /// An object of the answer, on one line, with sorted keys.
    pub(crate) fn object(&mut self, object: &Json) -> Outcome {
        self.line(canonical(object))
    }

    /// The answer, as an object for programs and as text for people.
    pub(crate) fn answer(&mut self, object: &Json, text: impl FnOnce() -> String) -> Outcome {
        if self.json { self.object(object) } else { self.line(text()) }
    }

    /// The rows of a list, one a line for programs and as text for people.
    pub(crate) fn list(&mut self, rows: &[Json], text: impl FnOnce() -> String) -> Outcome {
        if self.json { rows.iter().try_for_each(|row| self.object(row)) } else { self.line(text()) }
    }

    /// Words beside the answer, for people only.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet && !self.json {
            // A closed stderr cannot be told anything.
            let _ = writeln!(self.stderr.writer(), "{text}");
        }
    }

    /// A fault that does not end the work, for people and programs alike.
    pub(crate) fn fault(&self, object: &Json, text: impl Display) {
        let mut stderr = self.stderr.writer();
        let _ = if self.json { writeln!(stderr, "{}", canonical(object)) } else { writeln!(stderr, "{text}") };
    }

    /// Hands what is printed so far to the reader.
    pub(crate) fn flush(&mut self) -> Outcome {
        Ok(self.stdout.flush()?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stdout.flush()
    }
}

/// Diagnostics: warnings, with `-v` what is done, with `-vv` how.
fn diagnostics<W>(verbose: u8, quiet: bool, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::OFF,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::INFO,
        (_, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(writer).with_ansi(false);
    // It would tell of a stderr that cannot be written on stderr, and panic.
    let subscriber = subscriber.log_internal_errors(false);
    let events = if verbose > 0 { FmtSpan::CLOSE } else { FmtSpan::NONE };
    subscriber.with_span_events(events).finish()
}

/// Sends the log of a server to stderr of this process.
#[cfg(feature = "server")]
pub(crate) fn trace_server(logs: Logs, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose, logs.level) {
        (true, ..) | (_, 0, LogLevel::Off) => LevelFilter::OFF,
        (_, 0, LogLevel::Error) => LevelFilter::ERROR,
        (_, 0, LogLevel::Warn) => LevelFilter::WARN,
        (_, 0, LogLevel::Info) | (_, 1, _) => LevelFilter::INFO,
        (_, 0, LogLevel::Debug) | (_, 2, _) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false);
    let subscriber = subscriber.log_internal_errors(false);
    // As in `trace`, somebody may have one already.
    let _ = match logs.format {
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish()),
        LogFormat::Json => {
            let json = subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing::subscriber::set_global_default(json.finish())
        }
    };
}

/// Sends the diagnostics of this process to its stderr.
pub(crate) fn trace(verbose: u8, quiet: bool) {
    // Somebody who calls this from a program of their own may have a subscriber already.
    let _ = tracing::subscriber::set_global_default(diagnostics(verbose, quiet, std::io::stderr));
}

/// Does something and sends the diagnostics of this thread, meanwhile, to another process. What other threads say, such
/// as the writer, is of the holder.
#[cfg(unix)]
pub(crate) fn traced<T>(verbose: u8, quiet: bool, stderr: &Stream, work: impl FnOnce() -> T) -> T {
    let writer = std::sync::Mutex::new(stderr.writer());
    tracing::subscriber::with_default(diagnostics(verbose, quiet, writer), work)
}
