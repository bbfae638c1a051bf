//! The program as a server and as devices: processes that are killed and started again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::proxy::{Proxy, Upstream};
use crate::Result;

/// Within so long every command has to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The exit code where another process holds the store and does not answer.
const LOCKED: i32 = 11;

/// The program under test.
#[derive(Clone)]
pub struct Program(PathBuf);

impl Program {
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    fn command(&self, dir: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        command.current_dir(dir).env_remove("SYNCLEDGER_STORE").args(arguments).stdin(Stdio::null());
        command
    }

    /// What a command prints, as one object, or one a line.
    fn json(&self, dir: &Path, arguments: &[&str]) -> Result<Vec<Json>> {
        let command = self.command(dir, &[arguments, &["--json"]].concat());
        let (code, out, err) = finish(command, b"")?;
        match code {
            Some(0) => Ok(lines(&out)?),
            _ => Err(format!("{arguments:?} ended with {code:?}: {err}").into()),
        }
    }
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

fn log(dir: &Path) -> Result<File> {
    Ok(OpenOptions::new().create(true).append(true).open(dir.join("words"))?)
}

/// The server, in a directory of its own.
pub struct Server {
    program: Program,
    dir: PathBuf,
    child: Child,
    /// Who closes it ends the process with its next line.
    _stdout: BufReader<ChildStdout>,
    upstream: Upstream,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn found(program: &Program, dir: &Path) -> Result<Self> {
        std::fs::create_dir(dir)?;
        program.json(dir, &["init"])?;
        let upstream = Upstream::default();
        let (child, stdout) = serve(program, dir, &upstream)?;
        Ok(Self { program: program.clone(), dir: dir.to_owned(), child, _stdout: stdout, upstream })
    }

    pub fn upstream(&self) -> Upstream {
        self.upstream.clone()
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Json>> {
        self.program.json(&self.dir, arguments)
    }

    /// Kills it, and starts it again after a while.
    pub fn kill(&mut self, dead: Duration) -> Result<()> {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(ended) = self.child.try_wait()? {
            return Err(format!("the server ended by itself: {ended}; see {}", self.dir.display()).into());
        }
        self.child.kill()?;
        self.child.wait()?;
        std::thread::sleep(dead);
        (self.child, self._stdout) = serve(&self.program, &self.dir, &self.upstream)?;
        Ok(())
    }
}

fn serve(program: &Program, dir: &Path, upstream: &Upstream) -> Result<(Child, BufReader<ChildStdout>)> {
    let mut command = program.command(dir, &["serve", "--listen", "127.0.0.1:0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(log(dir)?).spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("the server prints nothing")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let said: Json =
        serde_json::from_str(&line).map_err(|_| format!("the server says {line:?}; see {}", dir.display()))?;
    let address = said.get("listening").and_then(Json::as_str).map(|url| url.trim_start_matches("http://").parse());
    let address = address.ok_or("the server does not say where it listens")??;
    *upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    Ok((child, stdout))
}

/// A device: its line, and the process that follows the server over it.
pub struct Device {
    pub name: String,
    pub proxy: Proxy,
    /// Whether it may write the notes alone.
    pub is_limited: bool,
    /// What carries its sessions.
    over: &'static str,
    program: Program,
    dir: PathBuf,
    follower: Arc<Mutex<Option<Child>>>,
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
        std::fs::create_dir(dir)?;
        let (name, is_limited) = (format!("device-{number}"), number == 0);
        let mut create = vec!["device", "create", "--name", &name, "--role", "writer", "--source", "app"];
        if is_limited {
            create.extend(["--writes", "notes"]);
        }
        let answer = server.json(&create)?;
        let code = answer.first().and_then(|answer| answer.get("code")?.as_str()).ok_or("there is no code")?;
        program.json(dir, &["enrol", &proxy.url(), code, "--id", &name, "--name", &name])?;
        program.json(dir, &["sync"])?;
        let (program, dir, follower) = (program.clone(), dir.to_owned(), Arc::default());
        let over = if number % 3 == 1 { "requests" } else { "either" };
        let device = Self { name, proxy, is_limited, over, program, dir, follower };
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
                Some(ended) if ended.code() == Some(LOCKED) => {}
                Some(ended) => return Err(format!("{} ended: {ended}; see {}", self.name, self.dir.display()).into()),
            }
        }
        let follow = ["sync", "--follow", "--retry-within", "1", "--over", self.over, "--json"];
        let mut command = self.program.command(&self.dir, &follow);
        *follower = Some(command.stdout(log(&self.dir)?).stderr(log(&self.dir)?).spawn()?);
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

    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Json>> {
        self.program.json(&self.dir, arguments)
    }

    /// Writes all or nothing. The events, where that was acknowledged.
    pub fn write(&self, writes: &[Json]) -> Option<Vec<String>> {
        let text: String = writes.iter().map(|write| format!("{write}\n")).collect();
        let command = self.program.command(&self.dir, &["batch", "-", "--json"]);
        let (code, out, _) = finish(command, text.as_bytes()).ok()?;
        let receipt = lines(&out).ok()?.into_iter().next().filter(|_| code == Some(0))?;
        let events = receipt.get("events")?.as_array()?.iter();
        events.map(|event| event.get("event")?.as_str().map(str::to_owned)).collect()
    }
}
