//! Each piece of work in a process of its own, so that its peak of memory is its own and nothing that another one left
//! behind (caches, threads, fragments) slows it down.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::options::Options;
use crate::report::Report;
use crate::work::{self, Sizes};

/// Measures one piece of work in this process and prints what it measured as JSON, for [`run`].
pub fn be(name: &str, options: &Options) -> Result<()> {
    let known = work::ALL.iter().find(|(known, _)| *known == name);
    let (_, work) = known.ok_or_else(|| format!("there is no work `{name}`"))?;
    let mut report = Report::default();
    work(&Sizes::divided_by(options.scale), &mut report)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Measures one piece of work in a process of its own.
pub fn run(name: &str, options: &Options) -> Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", name, "--scale", &options.scale.to_string()]);
    let mut child = command.stderr(Stdio::inherit()).stdout(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().ok_or("the process has no output")?;
    let reading = std::thread::spawn(move || {
        let mut read = Vec::new();
        out.read_to_end(&mut read).map(|_| read)
    });
    let ended = wait(&mut child)?;
    let read = reading.join().map_err(|_| "reading its output panicked")??;
    match ended {
        Some(status) if status.success() => Ok(serde_json::from_slice(&read)?),
        Some(status) => Err(format!("the process that measured `{name}` ended with {status}").into()),
        None => Err(format!("the process that measured `{name}` did not end within {} s", MOST.as_secs()).into()),
    }
}

/// How long one piece of work may take in one round: a peer that waits for ever must not keep the others waiting.
const MOST: Duration = Duration::from_secs(30 * 60);

/// How the process ended; `None` where it had to be ended.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    while started.elapsed() < MOST {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
