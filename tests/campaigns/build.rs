//! Tells the program which commit it was built from.

use std::process::Command;

fn main() {
    let said = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = said(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let is_changed =
        said(&["diff", "--stat", "HEAD", "--", "../../src", "../it", "src"]).is_some_and(|diff| !diff.is_empty());
    println!("cargo::rustc-env=COMMIT={commit}{}", if is_changed { "+" } else { "" });
    for watched in ["../../src", "../it", "src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    if let Some(log) = said(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
