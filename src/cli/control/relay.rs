//! The caller's side: has the holder of the store run a command, and lends it what a command has.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IsTerminal as _, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::wire::{self, Heard, INPUT_BYTES, REQUEST_BYTES, Request, Said, Streams};
use super::{PATIENCE, place};
use crate::cli::args::Globals;
use crate::cli::caller::Caller;
use crate::cli::interrupt::Interrupt;
use crate::cli::stop::{Outcome, Stop};
use crate::{Error, ErrorKind};

/// How long to wait before looking whether somebody pressed Ctrl-C.
const GLANCE: Duration = Duration::from_millis(100);

/// Has the holder of the store run this command, and gives its exit code; `None` where nobody answers.
pub(crate) fn relay(caller: &Caller, globals: &Globals, arguments: &[OsString]) -> Outcome<Option<u8>> {
    let Some(stream) = reach(globals)? else { return Ok(None) };
    let bytes = request(caller, globals, arguments)?.encode();
    if bytes.len() > REQUEST_BYTES {
        let message = format!("expected arguments of at most {REQUEST_BYTES} bytes, got {}", bytes.len());
        return Err(Error::new(ErrorKind::TooLarge, message).with_hint("put a large value in a file: @FILE").into());
    }
    // A holder that refuses while we still send has said why.
    let _ = send(&stream, &bytes);
    Call {
        stream,
        stdin: File::from(io::stdin().as_fd().try_clone_to_owned()?),
        wants: false,
        interrupt: None,
        is_told: false,
    }
    .attend()
    .map(Some)
}

/// Connects to whoever holds the store and says hello.
fn reach(globals: &Globals) -> Outcome<Option<UnixStream>> {
    let Ok(mut stream) = place::connect(&globals.store) else { return Ok(None) };
    if !place::is_same_user(&stream) {
        return Ok(None);
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let Ok(hello) = wire::array(&mut stream) else { return Ok(None) };
    stream.set_read_timeout(None)?;
    match wire::check(&hello) {
        Ok(()) => Ok(Some(stream)),
        // Whatever this is, it does not hold the store for us.
        Err(fault) if fault.kind() == ErrorKind::Client => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

fn request(caller: &Caller, globals: &Globals, arguments: &[OsString]) -> Outcome<Request> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let streams = Streams {
        stdin_is_terminal: caller.stdin.is_terminal(),
        stdout_has_colours: caller.stdout.has_colours(),
        stderr_has_colours: caller.stderr.has_colours(),
        stderr_is_watched: io::stderr().is_terminal() && !is_dumb,
    };
    let dir = std::env::current_dir()?;
    Ok(Request { streams, dir, store: globals.store.clone(), arguments: arguments.to_vec() })
}

/// Sends the hello with stdout and stderr, then the request.
fn send(mut stream: &UnixStream, request: &[u8]) -> io::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let lent = [stdout.as_fd(), stderr.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&lent));
    let hello = wire::hello();
    let sent = sendmsg(stream, &[IoSlice::new(&hello)], &mut control, SendFlags::empty())?;
    stream.write_all(hello.get(sent..).unwrap_or_default())?;
    stream.write_all(&wire::with_length(request))
}

/// A command that the holder runs for us.
struct Call {
    stream: UnixStream,
    stdin: File,
    /// Whether the command waits for input.
    wants: bool,
    /// Set once the command listens for Ctrl-C: until then it ends us, and so the connection.
    interrupt: Option<Interrupt>,
    /// Whether the command knows that somebody pressed it.
    is_told: bool,
}

/// What there is to do next.
enum Ready {
    Said,
    Input,
    Nothing,
}

impl Call {
    fn attend(mut self) -> Outcome<u8> {
        loop {
            self.tell_of_interrupt();
            match self.wait()? {
                Ready::Nothing => {}
                Ready::Input => self.give_input(),
                Ready::Said => match Said::read(&mut self.stream).map_err(|_| gone())? {
                    Said::Listens => self.listen()?,
                    Said::Wants => self.wants = true,
                    Said::Ended(code) => return Ok(code),
                    Said::Refused(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Waits for a word of the holder, and for input where it is wanted.
    fn wait(&self) -> Outcome<Ready> {
        let glance = Timespec { tv_sec: 0, tv_nsec: GLANCE.subsec_nanos().into() };
        let mut watched = vec![PollFd::new(&self.stream, PollFlags::IN)];
        if self.wants {
            watched.push(PollFd::new(&self.stdin, PollFlags::IN));
        }
        match poll(&mut watched, self.interrupt.as_ref().map(|_| &glance)) {
            Err(rustix::io::Errno::INTR) => return Ok(Ready::Nothing),
            other => other.map_err(io::Error::from)?,
        };
        let mut is_ready = watched.iter().map(|watched| !watched.revents().is_empty());
        Ok(match (is_ready.next(), is_ready.next()) {
            (Some(true), _) => Ready::Said,
            (_, Some(true)) => Ready::Input,
            _ => Ready::Nothing,
        })
    }

    fn listen(&mut self) -> io::Result<()> {
        if self.interrupt.is_none() {
            self.interrupt = Some(Interrupt::listen()?);
        }
        self.tell(&Heard::Listens);
        Ok(())
    }

    fn tell_of_interrupt(&mut self) {
        if !self.is_told && self.interrupt.as_ref().is_some_and(Interrupt::is_set) {
            self.is_told = true;
            self.tell(&Heard::Cancel);
        }
    }

    fn give_input(&mut self) {
        let mut bytes = vec![0; INPUT_BYTES];
        let heard = match self.stdin.read(&mut bytes) {
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => return,
            Err(fault) => Heard::Unreadable(fault.raw_os_error().unwrap_or_default()),
            Ok(read) => {
                bytes.truncate(read);
                Heard::Input(bytes)
            }
        };
        self.wants = false;
        self.tell(&heard);
    }

    fn tell(&mut self, heard: &Heard) {
        // A holder that has gone is noticed by its silence.
        let _ = heard.write(&mut self.stream);
    }
}

fn gone() -> Stop {
    let message = "the process that holds the store went away before the command ended";
    Error::new(ErrorKind::Network, message)
        .with_hint("what the command writes may be written or not: look with `syncledger log --reverse`")
        .into()
}
