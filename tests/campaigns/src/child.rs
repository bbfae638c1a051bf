//! This program again, as a process of its own that may panic, hang, or be made to fail.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;

/// How long a process may take: a hang is a fault.
pub const MOST_TIME: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);
/// How a process ends that told a fault, or could not do what it was asked.
pub const FAULT: i32 = 2;

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// `None` where it took too long, and was killed; −1 where it was killed by a signal.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Whether it ended as a program does that knows what it does: by itself, in time, without a panic.
    pub fn is_orderly(&self) -> bool {
        matches!(self.code, Some(0..=FAULT)) && !self.err.contains("panicked")
    }

    /// How it ended, shortly.
    pub fn told(&self) -> String {
        let how = match self.code {
            None => format!("took more than {MOST_TIME:?}"),
            Some(code) => format!("ended with code {code}"),
        };
        format!("{how}: {}", self.err.trim())
    }
}

/// A command of this program.
pub fn command(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

/// Runs a command to its end. What it says goes through files beside `beside`.
pub fn finish(command: &mut Command, beside: &Path) -> Result<Ended> {
    let (out, err) = (beside.with_extension("out"), beside.with_extension("err"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let code = wait(&mut command.spawn()?)?;
    let said = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let ended = Ended { code, out: said(&out)?, err: said(&err)? };
    [out, err].iter().try_for_each(std::fs::remove_file)?;
    Ok(ended)
}

fn wait(child: &mut Child) -> Result<Option<i32>> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(Some(ended.code().unwrap_or(-1)));
        }
        if waited > MOST_TIME {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Ended {
        let dir = tempfile::tempdir().unwrap();
        finish(Command::new("sh").args(["-c", script]), &dir.path().join("said")).unwrap()
    }

    #[test]
    fn a_process_that_panics_or_is_killed_is_not_orderly() {
        assert!(shell("exit 0").is_orderly());
        assert!(shell("echo out; exit 2").is_orderly());
        assert!(!shell("exit 101").is_orderly());
        assert!(!shell("kill -9 $$").is_orderly());
        assert!(!shell("echo thread panicked >&2").is_orderly());
        assert_eq!(shell("echo out").out, "out\n");
    }
}
