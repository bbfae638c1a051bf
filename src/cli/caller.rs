//! Who a command is run for: what this process has itself, or what another process lends to the holder of a store.
//!
//! Invariant: a command meets stdin, stdout, stderr, relative paths, colours and Ctrl-C through this alone. So the same
//! code runs here and, for somebody who is in another directory and at another terminal, in the holder.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};

use super::args::Color;
use super::interrupt::Interrupt;
use crate::ledger::Store;

/// What a command has of the one that called it.
pub(crate) struct Caller {
    pub(crate) stdin: Stdin,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    /// The store that the command is about, where it is open already.
    pub(crate) store: Option<Store>,
    /// What relative paths are relative to, where it is not the directory of this process.
    pub(crate) dir: Option<PathBuf>,
    /// How to listen for Ctrl-C.
    pub(crate) listen: Box<dyn Fn() -> io::Result<Interrupt> + Send>,
}

impl Caller {
    /// This process itself.
    pub(crate) fn here(color: Color) -> Self {
        Self {
            stdin: Stdin::new(io::stdin(), io::stdin().is_terminal()),
            stdout: Stream::stdout(color),
            stderr: Stream::stderr(color),
            store: None,
            dir: None,
            listen: Box::new(Interrupt::listen),
        }
    }

    /// Where a path leads that the caller wrote.
    pub(crate) fn path(&self, written: &FilePath) -> PathBuf {
        self.dir.as_ref().map_or_else(|| written.to_owned(), |dir| dir.join(written))
    }

    /// Listens for Ctrl-C from now on: until then it ends the caller at once.
    pub(crate) fn interrupt(&self) -> io::Result<Interrupt> {
        (self.listen)()
    }
}

/// What the caller writes. Clones read on where the others stopped.
#[derive(Clone)]
pub(crate) struct Stdin {
    reader: Arc<Mutex<BufReader<Box<dyn Read + Send>>>>,
    is_terminal: bool,
}

impl Stdin {
    pub(crate) fn new(reader: impl Read + Send + 'static, is_terminal: bool) -> Self {
        Self { reader: Arc::new(Mutex::new(BufReader::new(Box::new(reader)))), is_terminal }
    }

    /// Whether a person can be asked.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The next line; empty at the end.
    pub(crate) fn line(&self) -> io::Result<String> {
        let mut line = String::new();
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).read_line(&mut line)?;
        Ok(line)
    }
}

impl Read for Stdin {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).read(into)
    }
}

/// Where answers or words go, and whether colours may.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    end: End,
    choice: ColorChoice,
}

#[derive(Clone, Debug)]
enum End {
    Stdout,
    Stderr,
    /// Of another process.
    #[cfg(unix)]
    Lent(Arc<Loan>),
}

impl Stream {
    fn stdout(color: Color) -> Self {
        Self { end: End::Stdout, choice: color.choice(&io::stdout()) }
    }

    /// This process's stderr.
    pub(crate) fn stderr(color: Color) -> Self {
        Self { end: End::Stderr, choice: color.choice(&io::stderr()) }
    }

    /// Writes to it; without colours where they may not go there.
    pub(crate) fn writer(&self) -> AutoStream<Box<dyn Write + Send>> {
        let raw: Box<dyn Write + Send> = match &self.end {
            End::Stdout => Box::new(io::stdout()),
            End::Stderr => Box::new(io::stderr()),
            #[cfg(unix)]
            End::Lent(loan) => Box::new(Lent(Arc::clone(loan))),
        };
        AutoStream::new(raw, self.choice)
    }
}

#[cfg(unix)]
impl Stream {
    /// A stream of another process.
    pub(crate) fn lent(loan: Loan, has_colours: bool) -> Self {
        let choice = if has_colours { ColorChoice::Always } else { ColorChoice::Never };
        Self { end: End::Lent(Arc::new(loan)), choice }
    }

    /// What another process lends.
    pub(crate) fn loan(&self) -> Option<&Arc<Loan>> {
        match &self.end {
            End::Lent(loan) => Some(loan),
            End::Stdout | End::Stderr => None,
        }
    }

    /// Whether colours go there.
    pub(crate) fn has_colours(&self) -> bool {
        self.choice != ColorChoice::Never
    }

    /// How wide a terminal is that another process lends.
    pub(crate) fn columns(&self) -> Option<u16> {
        let size = rustix::termios::tcgetwinsize(&self.loan()?.file).ok()?;
        Some(size.ws_col).filter(|columns| *columns > 0)
    }

    /// Whether nobody reads it any more.
    pub(crate) fn is_unread(&self) -> bool {
        match &self.end {
            End::Stdout => is_closed(io::stdout()),
            End::Stderr => is_closed(io::stderr()),
            End::Lent(loan) => is_closed(&loan.file),
        }
    }
}

/// A stream of another process. Once that has gone nothing is written there: it would not have gone on either.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) file: std::fs::File,
    /// Whether somebody watches it on a terminal that can be painted on.
    pub(crate) is_watched: bool,
    pub(crate) has_gone: Arc<std::sync::atomic::AtomicBool>,
}

#[cfg(unix)]
impl Write for &Loan {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.has_gone.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => (&self.file).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
struct Lent(Arc<Loan>);

#[cfg(unix)]
impl Write for Lent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

#[cfg(unix)]
fn is_closed(stream: impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut watched = [PollFd::new(&stream, PollFlags::empty())];
    let is_closed = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP);
    poll(&mut watched, Some(&Timespec::default())).is_ok() && watched.iter().any(is_closed)
}
