//! The holder's side: listens at the store, and runs what callers ask for on the store that it has open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::line::{Input, Line};
use super::wire::{self, HELLO_BYTES, REQUEST_BYTES, Request, Said};
use super::{PATIENCE, place};
use crate::cli::args::Cli;
use crate::cli::caller::{Caller, Stdin, Stream};
use crate::cli::interrupt::Interrupt;
use crate::cli::{output, run, stop, table};
use crate::ledger::Store;
use crate::{Error, ErrorKind, Result};

/// How many commands run at once; others wait for a moment, and are then told that the store is locked.
const COMMANDS: usize = 16;

/// How many connections are served at once, those included that did not say yet what they want.
const CONNECTIONS: usize = 64;

/// How long who finds no room waits for it.
const QUEUED: Duration = Duration::from_secs(1);

/// How long commands have to end when the holder does.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long they have once their callers are cut off, so that none waits for input any more.
const CUT_OFF: Duration = Duration::from_secs(1);

/// How long not to accept where accepting fails: no descriptors are left, as a rule.
const PAUSE: Duration = Duration::from_millis(50);

/// What the main thread of a program has: commands run on as much as at home.
const STACK_BYTES: usize = 8 << 20;

/// The exit code of a program that panicked.
const PANICKED: u8 = 101;

/// The store is answered for as long as this lives.
#[derive(Debug)]
pub(crate) struct Control {
    dir: PathBuf,
    visits: Arc<Visits>,
    /// Wakes the thread that accepts by being closed.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Runs the commands that other processes have for this store, from now on.
    ///
    /// # Errors
    /// `validation` where the store is in memory; `permission` or `storage` where the socket cannot be made.
    pub(crate) fn listen(store: &Store) -> Result<Self> {
        let Some(dir) = store.dir() else {
            return Err(Error::new(ErrorKind::Validation, "expected a store in a directory, got one in memory"));
        };
        let listener = place::listen(dir).map_err(|fault| unmade(dir.display(), &fault))?;
        let mut control = Self { dir: dir.to_owned(), visits: Arc::default(), wake: None, thread: None };
        let (wake, woken) = UnixStream::pair().map_err(|fault| unmade(dir.display(), &fault))?;
        let host = Host { store: store.clone(), visits: control.visits.clone() };
        let accept = move || host.accept_all(&listener, &woken);
        let thread = thread::Builder::new().name("control".to_owned()).spawn(accept);
        (control.wake, control.thread) = (Some(wake), Some(thread.map_err(|fault| unmade(dir.display(), &fault))?));
        Ok(control)
    }
}

fn unmade(dir: impl std::fmt::Display, fault: &io::Error) -> Error {
    let kind = match fault.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        _ => ErrorKind::Storage,
    };
    Error::new(kind, format!("cannot listen at {dir}/control: {fault}"))
}

impl Drop for Control {
    /// Nobody new is heard; commands that run are told to end, and have some seconds.
    fn drop(&mut self) {
        // Who finds no socket needs not be refused. One that cannot be removed refuses by itself.
        let _ = place::remove(&self.dir);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked accepts nobody either.
            let _ = thread.join();
        }
        self.visits.end();
    }
}

/// The connections that are served.
#[derive(Debug, Default)]
struct Visits {
    open: Mutex<Open>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    visits: BTreeMap<u64, (Interrupt, Line)>,
    commands: usize,
    is_ending: bool,
}

/// A connection that is served, until dropped.
struct Visit {
    visits: Arc<Visits>,
    number: u64,
    interrupt: Interrupt,
    line: Line,
}

/// A command that runs, until dropped.
struct Running<'a>(&'a Visits);

impl Visits {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what others leave, for so long at most.
    fn wait<'a>(
        &self,
        open: MutexGuard<'a, Open>,
        most: Duration,
        is_full: fn(&Open) -> bool,
    ) -> MutexGuard<'a, Open> {
        self.left.wait_timeout_while(open, most, |open| is_full(open)).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes a connection in, where there is room.
    fn enter(self: &Arc<Self>, line: Line) -> Option<Visit> {
        let mut open = self.wait(self.open(), QUEUED, |open| open.visits.len() >= CONNECTIONS);
        if open.visits.len() >= CONNECTIONS {
            return None;
        }
        let (number, interrupt) = (open.next, Interrupt::default());
        open.next += 1;
        open.visits.insert(number, (interrupt.clone(), line.clone()));
        Some(Visit { visits: self.clone(), number, interrupt, line })
    }

    fn start(&self) -> Result<Running<'_>> {
        let mut open = self.wait(self.open(), QUEUED, |open| open.commands >= COMMANDS && !open.is_ending);
        let refuse = |message: &str| Err(Error::new(ErrorKind::Locked, message).with_hint("try again in a moment"));
        if open.is_ending {
            return refuse("the process that holds the store is about to close it");
        }
        if open.commands >= COMMANDS {
            return refuse(&format!("the process that holds the store runs {COMMANDS} commands already"));
        }
        open.commands += 1;
        Ok(Running(self))
    }

    /// Has all commands end; who does not in time is left alone.
    fn end(&self) {
        let mut open = self.open();
        open.is_ending = true;
        self.left.notify_all();
        open.visits.values().for_each(|(interrupt, _)| interrupt.set());
        let open = self.wait(open, FAREWELL, |open| open.commands > 0);
        open.visits.values().for_each(|(_, line)| line.close());
        drop(self.wait(open, CUT_OFF, |open| open.commands > 0));
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visits.open().visits.remove(&self.number);
        self.visits.left.notify_all();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.open().commands -= 1;
        self.0.left.notify_all();
    }
}

/// What commands are run with.
#[derive(Clone)]
struct Host {
    store: Store,
    visits: Arc<Visits>,
}

impl Host {
    fn accept_all(&self, listener: &UnixListener, woken: &UnixStream) {
        while is_next(listener, woken) {
            match listener.accept() {
                Ok((stream, _)) => self.receive(stream),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Serves a connection in a thread of its own. Who finds no room is not answered.
    fn receive(&self, stream: UnixStream) {
        let Ok(ours) = stream.try_clone() else { return };
        let Some(visit) = self.visits.enter(Line::new(ours)) else { return };
        let host = self.clone();
        // Where no thread can be had, the caller hears that the connection has ended.
        let _ = thread::Builder::new().name("visit".to_owned()).spawn(move || host.serve(&stream, &visit));
    }

    fn serve(&self, stream: &UnixStream, visit: &Visit) {
        let served = greet(stream).and_then(|()| hear(stream)).and_then(|heard| self.command(heard, visit));
        if let Err(fault) = served {
            // A caller that has gone cannot be told anything.
            let _ = visit.line.say(&Said::Refused(fault));
        }
        visit.line.close();
    }

    /// Runs a command, and listens to its caller meanwhile.
    fn command(&self, wish: Wish, visit: &Visit) -> Result<()> {
        let running = self.visits.start()?;
        let (input, answers) = visit.line.input();
        let (request, caller) = self.caller(wish, input, visit);
        let line = visit.line.clone();
        let work = move || {
            let code = survive(request, caller);
            // A caller that has gone cannot be told anything.
            let _ = line.say(&Said::Ended(code));
            line.close();
        };
        let thread = thread::Builder::new().name("command".to_owned()).stack_size(STACK_BYTES).spawn(work);
        let thread =
            thread.map_err(|fault| Error::new(ErrorKind::Locked, format!("no thread can be had: {fault}")))?;
        visit.line.attend(&answers, &visit.interrupt);
        // Who waits for input now has none to come.
        drop(answers);
        // Its panics are caught.
        let _ = thread.join();
        drop(running);
        Ok(())
    }

    /// The one that a command is run for.
    fn caller(&self, (request, stdout, stderr): Wish, input: Input, visit: &Visit) -> (Request, Caller) {
        let streams = request.streams;
        let (line, interrupt) = (visit.line.clone(), visit.interrupt.clone());
        let caller = Caller {
            stdin: Stdin::new(input, streams.stdin_is_terminal),
            stdout: Stream::lent(line.loan(stdout, false), streams.stdout_has_colours),
            stderr: Stream::lent(line.loan(stderr, streams.stderr_is_watched), streams.stderr_has_colours),
            store: Some(self.store.clone()),
            dir: Some(request.dir.clone()),
            listen: Box::new(move || line.listen().map(|()| interrupt.clone())),
        };
        (request, caller)
    }
}

/// Waits for a caller; false when the holder ends.
fn is_next(listener: &UnixListener, woken: &UnixStream) -> bool {
    let mut watched = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
    loop {
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return watched.last().is_some_and(|woken| woken.revents().is_empty()),
        }
    }
}

fn greet(mut stream: &UnixStream) -> Result<()> {
    if !place::is_same_user(stream) {
        return Err(Error::new(ErrorKind::Permission, "the store is held for another user"));
    }
    stream.set_write_timeout(Some(PATIENCE)).map_err(|fault| unheard(&fault))?;
    stream.write_all(&wire::hello()).map_err(|fault| unheard(&fault))
}

/// What a caller wants to be run, and its stdout and stderr.
type Wish = (Request, File, File);

fn hear(stream: &UnixStream) -> Result<Wish> {
    let mut patient = Patient { stream, until: now() + PATIENCE };
    let (hello, lent) = patient.hello().map_err(|fault| unheard(&fault))?;
    wire::check(&hello)?;
    let bytes = wire::part(&mut patient, REQUEST_BYTES).map_err(|fault| unheard(&fault))?;
    stream.set_read_timeout(None).map_err(|fault| unheard(&fault))?;
    let malformed = || Error::new(ErrorKind::Client, "expected a request with stdout and stderr, got something else");
    let request = Request::decode(&bytes).ok_or_else(malformed)?;
    let [stdout, stderr] = <[OwnedFd; 2]>::try_from(lent).map_err(|_| malformed())?;
    Ok((request, stdout.into(), stderr.into()))
}

fn unheard(fault: &io::Error) -> Error {
    let kind = match fault.kind() {
        io::ErrorKind::FileTooLarge => ErrorKind::TooLarge,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Network,
    };
    Error::new(kind, format!("the request was not heard to its end: {fault}"))
}

#[expect(clippy::disallowed_methods, reason = "how long a caller keeps us waiting is no part of what is done")]
fn now() -> Instant {
    Instant::now()
}

/// A stream that is read until a moment, however little comes at a time.
struct Patient<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Patient<'_> {
    fn wait(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => self.stream.set_read_timeout(Some(left)),
        }
    }

    /// The hello, and the descriptors that come with its first byte.
    fn hello(&mut self) -> io::Result<([u8; HELLO_BYTES], Vec<OwnedFd>)> {
        self.wait()?;
        let mut hello = [0; HELLO_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let heard = recvmsg(self.stream, &mut [IoSliceMut::new(&mut hello)], &mut control, CLOSED_ON_EXEC)?;
        let lent = control.drain().filter_map(rights).flatten().collect();
        let rest = hello.get_mut(heard.bytes..).unwrap_or_default();
        match heard.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => self.read_exact(rest).map(|()| (hello, lent)),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOSED_ON_EXEC: RecvFlags = RecvFlags::empty();

fn rights(message: RecvAncillaryMessage<'_>) -> Option<Vec<OwnedFd>> {
    match message {
        RecvAncillaryMessage::ScmRights(lent) => Some(lent.collect()),
        _ => None,
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        let mut stream = self.stream;
        stream.read(into)
    }
}

/// Runs a command for its caller, and gives the exit code. One that panics ends alone.
fn survive(request: Request, caller: Caller) -> u8 {
    let (json, stderr) = (request.arguments.iter().any(|argument| argument == "--json"), caller.stderr.clone());
    unless_panicking(json, &stderr, || execute(request, caller))
}

fn unless_panicking(json: bool, stderr: &Stream, work: impl FnOnce() -> u8) -> u8 {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let fault = Error::new(ErrorKind::Server, "the command failed inside the process that holds the store")
            .with_hint("that process says on its stderr where: please report it");
        stop::Stop::from(fault).report(json, stderr);
        PANICKED
    })
}

fn execute(request: Request, caller: Caller) -> u8 {
    let stderr = caller.stderr.clone();
    let mut cli = match Cli::try_parse_from(&request.arguments) {
        Ok(cli) => cli,
        Err(fault) => return stop::misused(&fault).report(false, &stderr),
    };
    if !cli.command.is_relayed() {
        return stop::Stop::usage("this command is run by the one who gives it").report(cli.globals.json, &stderr);
    }
    cli.globals.store = request.store;
    table::print_for(caller.stdout.columns());
    output::traced(cli.globals.verbose, cli.globals.quiet, &stderr, || run(cli, caller))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lent() -> (tempfile::NamedTempFile, Stream) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (ours, _) = UnixStream::pair().unwrap();
        let stream = Stream::lent(Line::new(ours).loan(file.reopen().unwrap(), false), false);
        (file, stream)
    }

    #[test]
    fn a_command_that_panics_ends_alone_and_its_caller_is_told() {
        let (file, stderr) = lent();
        assert_eq!(unless_panicking(true, &stderr, || 3), 3);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "");
        assert_eq!(unless_panicking(true, &stderr, || panic!("on purpose")), PANICKED);
        let told: serde_json::Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(told["code"], "server");
    }

    #[test]
    fn who_finds_no_room_waits_until_somebody_leaves() {
        let visits = Visits::default();
        let mut running: Vec<_> = (0..COMMANDS).map(|_| visits.start().unwrap()).collect();
        assert_eq!(visits.start().err().map(|fault| fault.kind()), Some(ErrorKind::Locked));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| visits.start().is_ok());
            thread::sleep(PAUSE);
            running.pop();
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_store_in_memory_has_no_place_to_listen_at() {
        let fault = Control::listen(&Store::in_memory(crate::ledger::Options::default()).unwrap()).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Validation);
    }

    #[test]
    fn a_store_of_this_process_is_answered_for_until_its_control_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let control = Control::listen(&store).unwrap();
        let mut caller = place::connect(dir.path()).unwrap();
        assert_eq!(wire::array(&mut caller).unwrap(), wire::hello());
        drop(control);
        assert!(place::connect(dir.path()).is_err());
        assert_eq!(caller.read(&mut [0]).unwrap_or_default(), 0, "who was connected is not kept");
    }
}
