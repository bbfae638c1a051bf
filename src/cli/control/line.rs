//! The connection to a caller while its command runs: what the command asks of it, and what it answers.

use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::wire::{Heard, Said};
use crate::cli::caller::Loan;
use crate::cli::interrupt::Interrupt;

/// The holder's end.
#[derive(Clone, Debug)]
pub(super) struct Line {
    stream: Arc<UnixStream>,
    /// Whether the caller has gone, or the command has ended.
    has_gone: Arc<AtomicBool>,
    /// Whether Ctrl-C is for the command, or can be for nobody any more.
    listens: Arc<(Mutex<bool>, Condvar)>,
}

/// What the caller answers to a wish for input.
type Answer = io::Result<Vec<u8>>;

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: Arc::new(stream), has_gone: Arc::default(), listens: Arc::default() }
    }

    pub(super) fn say(&self, said: &Said) -> io::Result<()> {
        said.write(&mut &*self.stream)
    }

    /// Returns once Ctrl-C at the caller is for the command.
    pub(super) fn listen(&self) -> io::Result<()> {
        let (listens, changed) = &*self.listens;
        let listens = listens.lock().unwrap_or_else(PoisonError::into_inner);
        if !*listens {
            self.say(&Said::Listens)?;
            drop(changed.wait_while(listens, |listens| !*listens));
        }
        Ok(())
    }

    fn has_listened(&self) {
        let (listens, changed) = &*self.listens;
        *listens.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Ends the connection for everybody who has it.
    pub(super) fn close(&self) {
        // It may have ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// One of the caller's streams, for as long as it is there.
    pub(super) fn loan(&self, file: File, is_watched: bool) -> Loan {
        Loan { file, is_watched, has_gone: Arc::clone(&self.has_gone) }
    }

    /// The caller's input, and where its answers have to go.
    pub(super) fn input(&self) -> (Input, SyncSender<Answer>) {
        let (sender, answers) = sync_channel(1);
        (Input { line: self.clone(), answers, rest: io::Cursor::default(), is_over: false }, sender)
    }

    /// Listens to the caller until the connection ends: its answers go to `answers`, its Ctrl-C to `interrupt`. A caller
    /// that has gone is one that pressed Ctrl-C.
    pub(super) fn attend(&self, answers: &SyncSender<Answer>, interrupt: &Interrupt) {
        while let Ok(heard) = Heard::read(&mut &*self.stream) {
            let answer = match heard {
                Heard::Cancel => {
                    interrupt.set();
                    continue;
                }
                Heard::Listens => {
                    self.has_listened();
                    continue;
                }
                Heard::Input(bytes) => Ok(bytes),
                Heard::Unreadable(number) => Err(io::Error::from_raw_os_error(number)),
            };
            // Nobody asked: memory is not for who sends what it likes.
            if answers.try_send(answer).is_err() {
                break;
            }
        }
        self.has_gone.store(true, Ordering::Relaxed);
        interrupt.set();
        self.has_listened();
        self.close();
    }
}

/// The caller's stdin, read only as the command asks for it.
pub(super) struct Input {
    line: Line,
    answers: Receiver<Answer>,
    rest: io::Cursor<Vec<u8>>,
    is_over: bool,
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.is_over {
            return Ok(0);
        }
        match self.rest.read(into)? {
            0 => self.ask()?,
            read => return Ok(read),
        }
        self.is_over = self.rest.get_ref().is_empty();
        self.rest.read(into)
    }
}

impl Input {
    fn ask(&mut self) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionAborted, "the caller has gone before its input ended");
        self.line.say(&Said::Wants).map_err(|_| gone())?;
        self.rest = io::Cursor::new(self.answers.recv().map_err(|_| gone())??);
        Ok(())
    }
}
