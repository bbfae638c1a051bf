//! On what the numbers were taken: the machine, the disk, the compiler and the commit. No date.

use std::fs;
use std::path::Path;
use std::process::Command;

/// One sentence about this machine and this checkout.
pub fn described() -> String {
    let parts = [commit(), compiler(), processor(), memory(), kernel(), disk()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What a program prints, on one line.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn commit() -> Option<String> {
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let sources = ["../../src", "../../Cargo.toml", "../../Cargo.lock", "."];
    let changed = said("git", &[&["status", "--porcelain", "--"][..], &sources].concat())?;
    let apart = if changed.is_empty() { "" } else { " and changes on top of it" };
    Some(format!("commit `{commit}`{apart}"))
}

fn compiler() -> Option<String> {
    let version = said("rustc", &["--version"])?;
    Some(version.split(" (").next()?.to_owned())
}

fn processor() -> Option<String> {
    let cores = std::thread::available_parallelism().ok()?;
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(format!("{cores} cores ({})", line.split_once(':')?.1.trim()))
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: f64 = text.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{:.0} GiB of memory", kibibytes / f64::from(1 << 20)))
}

fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(format!("Linux {}", release.trim()))
}

/// The file system that the stores are made in: on one in memory, waits for the disk would mean nothing.
fn disk() -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let dir = fs::canonicalize(std::env::temp_dir()).ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let under = mounts.filter(|(at, _)| dir.starts_with(Path::new(at)));
    // Of those mounted at one place, the last one is seen.
    let (_, kind) = under.enumerate().max_by_key(|(nth, (at, _))| (at.len(), *nth))?.1;
    Some(format!("stores on {kind}"))
}
