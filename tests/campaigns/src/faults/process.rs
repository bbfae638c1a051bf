//! The program as a server and as devices: processes that are killed and started again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::machine::{Machine, Room};
use super::proxy::{Proxy, Upstream};
use crate::Result;
use crate::http::Api;

/// Within so long every command has to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The exit code where another process holds the store and does not answer.
const LOCKED: i32 = 11;

/// The program under test, and what is loaded before it.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    shim: PathBuf,
}

impl Program {
    pub fn at(path: PathBuf, shim: PathBuf) -> Self {
        Self { path, shim }
    }

    /// A place for a store and the processes on it, with a machine of their own.
    fn place(&self, dir: &Path) -> Result<Place> {
        std::fs::create_dir(dir)?;
        let machine = Machine::make(&self.shim, dir.join("machine"))?;
        Ok(Place { program: self.path.clone(), dir: dir.to_owned(), machine })
    }
}

/// Where processes work on one store.
#[derive(Clone)]
struct Place {
    program: PathBuf,
    dir: PathBuf,
    machine: Machine,
}

impl Place {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.machine.run(&mut command);
        command.current_dir(&self.dir).env_remove("SYNCLEDGER_STORE").args(arguments).stdin(Stdio::null());
        command
    }

    /// What a command prints, as one object, or one a line.
    fn json(&self, arguments: &[&str]) -> Result<Vec<Json>> {
        let command = self.command(&[arguments, &["--json"]].concat());
        let (code, out, err) = finish(command, b"")?;
        match code {
            Some(0) => Ok(lines(&out)?),
            _ => Err(format!("{arguments:?} ended with {code:?}: {err}").into()),
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// What the processes say.
    fn words(&self) -> PathBuf {
        self.dir.join("words")
    }

    fn log(&self) -> Result<File> {
        Ok(OpenOptions::new().create(true).append(true).open(self.words())?)
    }
}

/// Stops a process where it stands, or lets it go on.
fn signal(child: &Child, name: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status()?;
    if status.success() { Ok(()) } else { Err(format!("the signal {name} could not be sent").into()) }
}

fn lines(out: &str) -> Result<Vec<Json>> {
    Ok(out.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?)
}

/// Runs a command to its end: its code, what it printed, and what went wrong.
fn finish(mut command: Command, input: &[u8]) -> Result<(Option<i32>, String, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end before it has read all of it.
        let _ = stdin.write_all(input);
    }
    let (id, began) = (child.id(), Instant::now());
    let done = std::thread::spawn(move || child.wait_with_output());
    while !done.is_finished() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{command:?} (process {id}) has not ended after {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = done.join().map_err(|_| "a command could not be waited for")??;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// The server, in a directory of its own.
pub struct Server {
    place: Place,
    running: Option<Running>,
    upstream: Upstream,
    is_full: bool,
}

struct Running {
    child: Child,
    /// Who closes it ends the process with its next line.
    _stdout: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Server {
    pub fn found(program: &Program, dir: &Path) -> Result<Self> {
        let place = program.place(dir)?;
        place.json(&["init"])?;
        let mut server = Self { place, running: None, upstream: Upstream::default(), is_full: false };
        server.start()?;
        Ok(server)
    }

    pub fn upstream(&self) -> Upstream {
        self.upstream.clone()
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Json>> {
        self.place.json(arguments)
    }

    pub fn store(&self) -> PathBuf {
        self.place.store()
    }

    /// The number of its process.
    pub fn process(&self) -> Result<u32> {
        Ok(self.running.as_ref().ok_or("the server does not run")?.child.id())
    }

    /// A code for a device.
    pub fn invite(&self, name: &str, writes: &[&str]) -> Result<String> {
        let create = ["device", "create", "--name", name, "--role", "writer", "--source", "app"];
        let answer = self.json(&[&create, writes].concat())?;
        let code = answer.first().and_then(|answer| answer.get("code")?.as_str());
        Ok(code.ok_or("there is no code")?.to_owned())
    }

    /// Kills it, and starts it again after a while.
    pub fn kill(&mut self, dead: Duration) -> Result<()> {
        self.stop()?;
        std::thread::sleep(dead);
        self.start()
    }

    /// Stops it where it stands, or lets it go on.
    pub fn pause(&self, is_paused: bool) -> Result<()> {
        let name = if is_paused { "STOP" } else { "CONT" };
        self.running.as_ref().map_or(Ok(()), |running| signal(&running.child, name))
    }

    /// Leaves its disk this room only.
    pub fn fill(&mut self, room: Room) -> Result<()> {
        self.is_full = true;
        self.place.machine.set_room(room)
    }

    /// Gives its disk room, and starts it again where it says that it takes no writes. Whether that was so.
    pub fn make_room(&mut self) -> Result<bool> {
        self.place.machine.set_room(Room::Enough)?;
        let address = *self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = address.map(|address| Api::default().ask(address, "GET /readyz", None));
        let is_ready = ready.is_some_and(|answer| answer.is_ok_and(|answer| answer.is_success()));
        if !is_ready {
            self.stop()?;
        }
        self.is_full = false;
        if is_ready { Ok(false) } else { self.start().map(|()| true) }
    }

    fn stop(&mut self) -> Result<()> {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(mut running) = self.running.take() else { return Ok(()) };
        if let Some(ended) = running.child.try_wait()?.filter(|_| !self.is_full) {
            return Err(format!("the server ended by itself: {ended}; see {}", self.place.dir.display()).into());
        }
        running.child.kill()?;
        running.child.wait()?;
        Ok(())
    }

    /// Starts it. Where its disk is full it may fail.
    fn start(&mut self) -> Result<()> {
        match serve(&self.place) {
            Ok((running, address)) => {
                self.running = Some(running);
                *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                Ok(())
            }
            Err(_) if self.is_full => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

fn serve(place: &Place) -> Result<(Running, SocketAddr)> {
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(place.log()?).spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("the server prints nothing")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let Ok(said) = serde_json::from_str::<Json>(&line) else {
        let _ = child.kill();
        let ended = child.wait()?;
        return Err(format!("the server says {line:?} ({ended}); see {}", place.dir.display()).into());
    };
    let address = said.get("listening").and_then(Json::as_str).map(|url| url.trim_start_matches("http://").parse());
    let address = address.ok_or("the server does not say where it listens")??;
    Ok((Running { child, _stdout: stdout }, address))
}

/// A device: its line, and the process that follows the server over it.
pub struct Device {
    pub name: String,
    pub proxy: Proxy,
    /// Whether it may write the notes alone.
    pub is_limited: bool,
    /// What carries its sessions.
    over: &'static str,
    place: Place,
    follower: Arc<Mutex<Option<Child>>>,
    is_full: AtomicBool,
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.follower().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Device {
    pub fn enrol(program: &Program, dir: &Path, server: &Server, proxy: Proxy, number: usize) -> Result<Self> {
        let place = program.place(dir)?;
        let (name, is_limited) = (format!("device-{number}"), number == 0);
        let code = server.invite(&name, if is_limited { &["--writes", "notes"] } else { &[] })?;
        place.json(&["enrol", &proxy.url(), &code, "--id", &name, "--name", &name])?;
        place.json(&["sync"])?;
        let over = if number % 3 == 1 { "requests" } else { "either" };
        let (follower, is_full) = (Arc::default(), AtomicBool::new(false));
        let device = Self { name, proxy, is_limited, over, place, follower, is_full };
        device.keep_alive()?;
        Ok(device)
    }

    fn follower(&self) -> MutexGuard<'_, Option<Child>> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process that follows where it does not run: a command that held the store was in its way.
    pub fn keep_alive(&self) -> Result<()> {
        let mut follower = self.follower();
        if let Some(child) = follower.as_mut() {
            match child.try_wait()? {
                None => return Ok(()),
                Some(ended) if ended.code() == Some(LOCKED) || self.is_full.load(Ordering::Relaxed) => {}
                Some(ended) => {
                    return Err(format!("{} ended: {ended}; see {}", self.name, self.place.dir.display()).into());
                }
            }
        }
        let follow = ["sync", "--follow", "--retry-within", "1", "--over", self.over, "--json"];
        let mut command = self.place.command(&follow);
        *follower = Some(command.stdout(self.place.log()?).stderr(self.place.log()?).spawn()?);
        Ok(())
    }

    /// Kills the process that follows, and starts it again after a while.
    pub fn kill(&self, dead: Duration) -> Result<()> {
        if let Some(mut child) = self.follower().take() {
            child.kill()?;
            child.wait()?;
        }
        std::thread::sleep(dead);
        self.keep_alive()
    }

    /// Stops the process that follows where it stands, or lets it go on.
    pub fn pause(&self, is_paused: bool) -> Result<()> {
        let name = if is_paused { "STOP" } else { "CONT" };
        self.follower().as_ref().map_or(Ok(()), |child| signal(child, name))
    }

    /// By how many milliseconds the clock of its processes is ahead, from now on.
    pub fn set_clock(&self, ahead_ms: i64) -> Result<()> {
        self.place.machine.set_clock(ahead_ms)
    }

    /// Leaves its disk this room only.
    pub fn fill(&self, room: Room) -> Result<()> {
        self.is_full.store(true, Ordering::Relaxed);
        self.place.machine.set_room(room)
    }

    /// Gives its disk room, and starts the process that follows again: a write that failed closes the store until then.
    pub fn make_room(&self) -> Result<()> {
        self.place.machine.set_room(Room::Enough)?;
        self.kill(Duration::ZERO)?;
        self.is_full.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Copies its store, or puts the copy in its place, which loses edits.
    pub fn copy(&self, is_back: bool) -> Result<()> {
        if let Some(mut child) = self.follower().take() {
            child.kill()?;
            child.wait()?;
        }
        let (store, copy) = (self.place.store(), self.place.dir.join("copy"));
        let (from, to) = if is_back { (copy, store) } else { (store, copy) };
        let script = "rm -rf \"$2\" && cp -a \"$1\" \"$2\"";
        let status = Command::new("sh").args(["-c", script, "copy"]).args([from, to]).status()?;
        if status.success() { self.keep_alive() } else { Err("the store could not be copied".into()) }
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Json>> {
        self.place.json(arguments)
    }

    /// How often its clients have stamped edits anew.
    pub fn stamped_anew(&self) -> u64 {
        let words = std::fs::read_to_string(self.place.words()).unwrap_or_default();
        words.lines().filter(|line| line.contains("\"stamped_again\"")).count() as u64
    }

    /// Writes all or nothing. Whether that was acknowledged.
    pub fn write(&self, writes: &[Json]) -> bool {
        let text: String = writes.iter().map(|write| format!("{write}\n")).collect();
        let done = finish(self.place.command(&["batch", "-", "--json"]), text.as_bytes());
        done.is_ok_and(|(code, _, _)| code == Some(0))
    }
}
