//! A server and devices, each a process of the real program, over lines that delay, cut, crawl and go dead, with clocks that jump and
//! disks that are full, while the processes are killed with SIGKILL, or stand still, at random. Then all but the clocks is mended: within
//! five seconds everybody has to hold the same. What was done and seen meanwhile is a history, which has to be one in which nothing is
//! lost, doubled or stale, and every refusal is told.
#![allow(clippy::disallowed_methods, reason = "a campaign is about the time that passes")]

mod check;
mod history;
mod judge;
mod machine;
pub mod process;
pub mod proxy;
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::http::Api;
use crate::tally::Tally;
use history::{Operation, Recorder, What};
use machine::Room;
use process::{Device, Program, Server};
use proxy::{Proxy, Weather};
use session::{SHARED, Session};

/// How many runs are made at once: most of a run is waiting.
const AT_ONCE: u64 = 5;
/// The pauses between two faults, in milliseconds.
const PAUSE_MS: (usize, usize) = (200, 800);
/// How long a killed process stays dead at most, in milliseconds.
const DEAD_MS: usize = 600;
/// How long a process stands still, and how long a disk is full, in milliseconds.
const STILL_MS: (usize, usize) = (100, 3_000);
const FULL_MS: (usize, usize) = (500, 3_000);
/// The room on a disk that is getting full, in bytes: enough for some edits, or hardly for one.
const LITTLE_ROOM: usize = 300_000;
/// A clock may be wrong by so many milliseconds: what nobody notices, what a client corrects, what a server refuses, a day.
const CLOCK_MS: [usize; 4] = [2_000, 250_000, 3_600_000, 86_400_000];

/// What a run came to.
struct Verdict {
    counts: BTreeMap<&'static str, u64>,
    settled_ms: u64,
    problems: Vec<String>,
}

/// What all runs have in common.
struct Campaign {
    program: Program,
    seed: u64,
    life: Duration,
    /// Whether a device's store is replaced by an older copy, which has to be found.
    is_broken: bool,
}

/// The program that is named, or the one that was built, with what is loaded before it, which lies in a directory.
pub fn program(arguments: &Arguments, dir: &Path) -> Result<Program> {
    let program = arguments.path("program").unwrap_or_else(|| PathBuf::from("target/debug/syncledger"));
    let program = program.canonicalize().map_err(|why| format!("{}: {why}", program.display()))?;
    Ok(Program::at(program, machine::compile(dir)?))
}

/// Runs the campaign. Whether all was as promised.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let dir = TempDir::with_prefix("campaign-machine-")?;
    let runs = arguments.number("runs")?.unwrap_or(20);
    let life = Duration::from_secs(arguments.number("seconds")?.unwrap_or(20));
    let (seed, from) = (arguments.number("seed")?.unwrap_or(1), arguments.number("from")?.unwrap_or(0));
    let is_broken = arguments.switch("broken-restore");
    let campaign = Campaign { program: program(arguments, dir.path())?, seed, life, is_broken };
    let (next, tally) = (AtomicU64::new(from), Mutex::new(Tally::begin("faults", seed, from)));
    let settled_ms = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.number("at-once").ok().flatten().unwrap_or(AT_ONCE).min(runs) {
            scope.spawn(|| {
                while let Some(number) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < from + runs)
                {
                    tell(&tally, &settled_ms, (seed, number), campaign.one_run(number));
                }
            });
        }
    });
    let mut tally = tally.into_inner().map_err(|_| "a run failed")?;
    let mut settled_ms = settled_ms.into_inner().map_err(|_| "a run failed")?;
    settled_ms.sort_unstable();
    let (middle, most) = (settled_ms.get(settled_ms.len() / 2), settled_ms.last());
    println!("settled after {} ms in the middle", middle.copied().unwrap_or_default());
    tally.at_most("at most ms until settled", most.copied().unwrap_or_default());
    if tally.counted("acknowledged edits") == 0 {
        tally.problem("nothing was acknowledged");
    }
    tally.end(arguments)
}

fn tell(tally: &Mutex<Tally>, settled_ms: &Mutex<Vec<u64>>, (seed, number): (u64, u64), outcome: Result<Verdict>) {
    let (Ok(mut tally), Ok(mut settled_ms)) = (tally.lock(), settled_ms.lock()) else { return };
    tally.runs += 1;
    match outcome {
        Ok(verdict) => {
            settled_ms.push(verdict.settled_ms);
            verdict.counts.into_iter().for_each(|(what, times)| tally.count(what, times));
            verdict
                .problems
                .iter()
                .for_each(|problem| tally.problem(&format!("run {number} of seed {seed}: {problem}")));
        }
        Err(fault) => tally.problem(&format!("run {number} of seed {seed} failed: {fault}")),
    }
}

impl Campaign {
    /// One run, from a fresh server to the verdict. Where something is wrong its directory is kept, with the history.
    fn one_run(&self, number: u64) -> Result<Verdict> {
        let dir = TempDir::with_prefix("campaign-faults-")?;
        let done = self.run_in(dir.path(), number);
        if done.as_ref().map_or(true, |verdict| !verdict.problems.is_empty()) {
            println!("kept: {}", dir.keep().display());
        }
        done
    }

    fn run_in(&self, dir: &Path, number: u64) -> Result<Verdict> {
        let mut chance = Chance::new(self.seed, number);
        let (server, devices) = found(&self.program, dir, &mut chance)?;
        let code = server.invite("api", &[])?;
        let address = server.upstream().lock().map_err(|_| "the server's thread failed")?.ok_or("nobody listens")?;
        let api = Session::Server(Api::enrol(address, &code, "api")?, server.upstream());
        let sessions: Vec<Session> = devices.iter().map(Session::Device).chain([api]).collect();
        let mut scene = Scene::of(server, &devices, Chance::new(chance.next(), 2));
        let (recorder, is_over) = (Recorder::begin(), AtomicBool::new(false));
        let befell = std::thread::scope(|scope| {
            for session in &sessions {
                let (chance, recorder, is_over) = (Chance::new(chance.next(), 1), &recorder, &is_over);
                scope.spawn(move || session.go_on(chance, recorder, is_over));
            }
            let befell = scene.befall(self.life, self.is_broken);
            is_over.store(true, Ordering::Relaxed);
            befell
        });
        befell.map_err(|fault| format!("{fault}; see {}", dir.display()))?;
        scene.judge(recorder, &dir.join("history.jsonl"))
    }
}

/// A server and its devices, which are replicas already. The first may write one collection alone.
fn found(program: &Program, dir: &Path, chance: &mut Chance) -> Result<(Server, Vec<Device>)> {
    let server = Server::found(program, &dir.join("server"))?;
    server.json(&["put", "notes", SHARED, "{}"])?;
    let mut devices = Vec::new();
    for number in 0..chance.between(3, 5) {
        let proxy = Proxy::open(server.upstream(), chance.next())?;
        devices.push(Device::enrol(program, &dir.join(format!("device-{number}")), &server, proxy, number)?);
    }
    Ok((server, devices))
}

/// What goes on for a while, and is mended then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ailment {
    PausedServer,
    FullServer,
    PausedDevice(usize),
    FullDevice(usize),
}

/// Those that things befall.
struct Scene<'a> {
    server: Server,
    devices: &'a [Device],
    chance: Chance,
    ailing: Vec<(Instant, Ailment)>,
    counts: BTreeMap<&'static str, u64>,
}

impl<'a> Scene<'a> {
    fn of(server: Server, devices: &'a [Device], chance: Chance) -> Self {
        Self { server, devices, chance, ailing: Vec::new(), counts: BTreeMap::new() }
    }

    /// Lets things go wrong for a while, and mends them. Clocks stay as they are.
    fn befall(&mut self, life: Duration, is_broken: bool) -> Result<()> {
        let began = Instant::now();
        let mut copied = 0;
        while began.elapsed() < life {
            std::thread::sleep(Duration::from_millis(self.chance.between(PAUSE_MS.0, PAUSE_MS.1) as u64));
            self.mend(Some(Instant::now()))?;
            self.ail()?;
            if is_broken && copied < 2 && began.elapsed() > life * (copied + 1) / 3 {
                self.devices.get(1).map_or(Ok(()), |device| device.copy(copied == 1))?;
                copied += 1;
            }
            self.devices.iter().try_for_each(Device::keep_alive)?;
        }
        self.devices.iter().for_each(|device| device.proxy.set(Weather::Clear));
        self.mend(None)?;
        self.devices.iter().try_for_each(Device::keep_alive)
    }

    /// Lets one thing go wrong.
    fn ail(&mut self) -> Result<()> {
        let number = self.chance.below(self.devices.len());
        let Some(device) = self.devices.get(number) else { return Ok(()) };
        let dead = Duration::from_millis(self.chance.below(DEAD_MS) as u64);
        let what = match self.chance.below(20) {
            0 | 1 => {
                self.server.kill(dead)?;
                "killed servers"
            }
            2 | 3 => {
                device.kill(dead)?;
                "killed devices"
            }
            4 => self.begin(Ailment::PausedServer, STILL_MS)?,
            5 | 6 => self.begin(Ailment::PausedDevice(number), STILL_MS)?,
            7 => self.begin(Ailment::FullServer, FULL_MS)?,
            8 | 9 => self.begin(Ailment::FullDevice(number), FULL_MS)?,
            10 | 11 => {
                device.set_clock(any_clock(&mut self.chance))?;
                "jumps of clocks"
            }
            _ => {
                let weather = Weather::any(&mut self.chance);
                device.proxy.set(weather);
                weather.name()
            }
        };
        *self.counts.entry(what).or_default() += 1;
        Ok(())
    }

    /// Begins what goes on for a while.
    fn begin(&mut self, ailment: Ailment, (least, most): (usize, usize)) -> Result<&'static str> {
        if self.ailing.iter().any(|(_, ailing)| *ailing == ailment) {
            return Ok("more of the same");
        }
        let life = Duration::from_millis(self.chance.between(least, most) as u64);
        let room = match self.chance.one_in(2) {
            true => Room::None,
            false => Room::Little(self.chance.below(LITTLE_ROOM) as u32),
        };
        match ailment {
            Ailment::PausedServer => self.server.pause(true)?,
            Ailment::FullServer => self.server.fill(room)?,
            Ailment::PausedDevice(number) => self.device(number)?.pause(true)?,
            Ailment::FullDevice(number) => self.device(number)?.fill(room)?,
        }
        self.ailing.push((Instant::now() + life, ailment));
        Ok(match ailment {
            Ailment::PausedServer => "paused servers",
            Ailment::FullServer => "full disks of servers",
            Ailment::PausedDevice(_) => "paused devices",
            Ailment::FullDevice(_) => "full disks of devices",
        })
    }

    /// Ends what has gone on for its time, or all of it.
    fn mend(&mut self, now: Option<Instant>) -> Result<()> {
        let is_due = |until: Instant| now.is_none_or(|now| until <= now);
        let due: Vec<Ailment> =
            self.ailing.iter().filter(|(until, _)| is_due(*until)).map(|(_, what)| *what).collect();
        self.ailing.retain(|(until, _)| !is_due(*until));
        // Who stands still does not say whether it is ready.
        let pauses = due.iter().filter(|what| matches!(what, Ailment::PausedServer | Ailment::PausedDevice(_)));
        let full = due.iter().filter(|what| matches!(what, Ailment::FullServer | Ailment::FullDevice(_)));
        for what in pauses.chain(full) {
            match *what {
                Ailment::PausedServer => self.server.pause(false)?,
                Ailment::PausedDevice(number) => self.device(number)?.pause(false)?,
                Ailment::FullDevice(number) => self.device(number)?.make_room()?,
                Ailment::FullServer => {
                    self.server.pause(false)?;
                    let was_closed = self.server.make_room()?;
                    *self.counts.entry("servers that a full disk closed").or_default() += u64::from(was_closed);
                }
            }
        }
        Ok(())
    }

    fn device(&self, number: usize) -> Result<&'a Device> {
        Ok(self.devices.get(number).ok_or("there is no such device")?)
    }

    /// Waits until all has settled, and looks at what everybody did and holds.
    fn judge(mut self, recorder: Recorder, kept: &Path) -> Result<Verdict> {
        let (took, late) = judge::settle(&self.server, self.devices)?;
        let end = judge::end_of_server(&self.server)?;
        recorder.record("server", || (), |()| Some(What::Ended(end)));
        for device in self.devices {
            let end = judge::end_of_device(device)?;
            recorder.record(&device.name, || (), |()| Some(What::Ended(end)));
        }
        let history = recorder.end();
        let problems: Vec<String> = late.into_iter().chain(check::check(&history)).collect();
        if !problems.is_empty() {
            history::keep(&history, kept)?;
        }
        self.count(&history);
        Ok(Verdict { counts: self.counts, settled_ms: took.as_millis() as u64, problems })
    }

    fn count(&mut self, history: &[Operation]) {
        for operation in history {
            let what = match &operation.what {
                What::Edited { is_acknowledged: true, .. } | What::Trespassed { is_acknowledged: true, .. } => {
                    "acknowledged edits"
                }
                What::Edited { .. } | What::Trespassed { .. } => "edits without an answer",
                What::Read { .. } => "reads",
                What::Ended(end) => {
                    *self.counts.entry("edits refused and told").or_default() += end.refused.len() as u64;
                    continue;
                }
            };
            *self.counts.entry(what).or_default() += 1;
        }
        let sum = |of: fn(&Device) -> u64| self.devices.iter().map(of).sum::<u64>();
        let (cuts, stamped) = (sum(|device| device.proxy.cuts()), sum(Device::stamped_anew));
        self.counts.insert("cut lines", cuts);
        self.counts.insert("times stamped anew", stamped);
    }
}

/// By how many milliseconds a clock is ahead: nothing, or any of some measure, ahead or behind.
fn any_clock(chance: &mut Chance) -> i64 {
    let most = CLOCK_MS.get(chance.below(CLOCK_MS.len() + 1)).copied().unwrap_or(0);
    let wrong = chance.below(most + 1) as i64;
    if chance.one_in(2) { wrong } else { -wrong }
}
