//! What this process holds in memory, as the kernel tells: `VmHWM` and `VmRSS`.

use std::fs;

use serde::{Deserialize, Serialize};

/// Resident bytes as work began (what it is given to do included), and the most while it ran.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    pub before: u64,
    pub peak: u64,
}

impl Memory {
    /// Forgets earlier peaks, where the kernel lets a process do so, and notes what is held now.
    pub fn start() -> Option<Self> {
        // Where it is not allowed, the peak is that of the whole process: too much rather than too little.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let held = resident()?;
        Some(Self { before: held, peak: held })
    }

    /// The peak since the start.
    pub fn stop(self) -> Self {
        Self { peak: read("/proc/self/status", "VmHWM:").unwrap_or(self.peak), ..self }
    }
}

/// Resident bytes now; `None` on systems without `/proc`.
pub fn resident() -> Option<u64> {
    resident_of(std::process::id())
}

/// Resident bytes of a process now.
pub fn resident_of(process: u32) -> Option<u64> {
    read(&format!("/proc/{process}/status"), "VmRSS:")
}

fn read(path: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(path).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}
