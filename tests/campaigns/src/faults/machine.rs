//! What a process takes for its machine: a clock that may be wrong, and a disk that may be full (`machine.c`).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::Result;
use crate::shim;

const SHIM: &str = include_str!("machine.c");
/// Where the two numbers lie in the file.
const CLOCK_AT: u64 = 0;
const ROOM_AT: u64 = 8;

/// How much room a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// So many bytes. What is written in place of others needs none.
    Little(u32),
    /// None, not even in place of others.
    None,
}

/// Compiles what is loaded before the C library.
pub fn compile(dir: &Path) -> Result<PathBuf> {
    shim::compile(dir, "machine", SHIM)
}

/// The machine of all processes on one store.
#[derive(Clone)]
pub struct Machine {
    shim: PathBuf,
    path: PathBuf,
    file: Arc<File>,
}

impl Machine {
    /// With a right clock and enough room.
    pub fn make(shim: &Path, path: PathBuf) -> Result<Self> {
        let file = Arc::new(File::options().read(true).write(true).create_new(true).open(&path)?);
        let machine = Self { shim: shim.to_owned(), path, file };
        machine.set_clock(0)?;
        machine.set_room(Room::Enough)?;
        Ok(machine)
    }

    /// Has a command run on it.
    pub fn run(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.shim).env("CAMPAIGN_MACHINE", &self.path);
    }

    /// By how many milliseconds the clock is ahead, from now on.
    pub fn set_clock(&self, ahead_ms: i64) -> Result<()> {
        Ok(self.file.write_all_at(&ahead_ms.to_ne_bytes(), CLOCK_AT)?)
    }

    pub fn set_room(&self, room: Room) -> Result<()> {
        let bytes = match room {
            Room::Enough => -1,
            Room::Little(bytes) => i64::from(bytes),
            Room::None => -2,
        };
        Ok(self.file.write_all_at(&bytes.to_ne_bytes(), ROOM_AT)?)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Output;

    use super::*;

    fn on(machine: &Machine, script: &str) -> Output {
        let mut command = Command::new("sh");
        machine.run(&mut command);
        command.args(["-c", script]).output().unwrap()
    }

    #[test]
    fn clocks_are_wrong_and_disks_are_full_as_said() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::make(&compile(dir.path()).unwrap(), dir.path().join("machine")).unwrap();
        let seconds = || String::from_utf8(on(&machine, "date +%s").stdout).unwrap().trim().parse::<i64>().unwrap();
        let right = seconds();
        for ahead_s in [86_400, -86_400] {
            machine.set_clock(ahead_s * 1_000 + 1).unwrap();
            assert!((ahead_s..ahead_s + 60).contains(&(seconds() - right)));
        }
        std::fs::write(dir.path().join("bytes"), "12345678").unwrap();
        let copy =
            |name: &str| on(&machine, &format!("cd {} && cp bytes {name}", dir.path().display())).status.success();
        let length = |name: &str| dir.path().join(name).metadata().unwrap().len();
        machine.set_room(Room::Little(12)).unwrap();
        assert!(copy("first"));
        // The second finds room for half of it.
        assert!(!copy("second"));
        assert_eq!((length("first"), length("second")), (8, 4));
        machine.set_room(Room::None).unwrap();
        assert!(!copy("second"));
        machine.set_room(Room::Enough).unwrap();
        assert!(copy("second"));
        assert_eq!(length("second"), 8);
    }
}
