//! An image in a directory, opened and checked by a process of its own: it may panic or hang.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::disk::{Found, Image};
use super::record;
use crate::Result;
use crate::promise::Promises;

/// How long an image may take to be opened and checked: a hang is a fault.
const MOST_TIME: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);

/// Puts an image into a directory that is not there yet.
pub fn build(dir: &Path, image: &Image) -> Result<()> {
    std::fs::create_dir(dir)?;
    for (path, found) in image {
        let path = dir.join(path);
        match found {
            Found::Dir => std::fs::create_dir(path)?,
            Found::File(bytes) => std::fs::write(path, bytes)?,
        }
    }
    Ok(())
}

/// What is not as promised in an image, a line each. With a shim and a trace, everything that is changed is recorded.
pub fn check(dir: &Path, promises: &Promises, seed: u64, recorded: Option<(&Path, &Path)>) -> Result<Vec<String>> {
    let beside = |ending| dir.with_extension(ending);
    let (promised, told, worried) = (beside("promised"), beside("told"), beside("worried"));
    std::fs::write(&promised, promises.lines())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("check").args([dir, &promised]).args(["--seed", &seed.to_string()]);
    command.stdin(Stdio::null()).stdout(File::create(&told)?).stderr(File::create(&worried)?);
    if let Some((shim, trace)) = recorded {
        record::with_shim(&mut command, shim, dir, trace);
    }
    let ended = wait(&mut command.spawn()?)?;
    let mut found: Vec<String> = std::fs::read_to_string(&told)?.lines().map(str::to_owned).collect();
    let is_expected = ended == Some(i32::from(!found.is_empty()));
    if !is_expected {
        let how =
            ended.map_or(format!("it took more than {MOST_TIME:?}"), |code| format!("it ended with code {code}"));
        found.push(format!("wrong {how}: {}", std::fs::read_to_string(&worried)?.trim()));
    }
    [promised, told, worried].iter().try_for_each(std::fs::remove_file)?;
    Ok(found)
}

/// The exit code; `None` where it took too long, and was killed.
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
