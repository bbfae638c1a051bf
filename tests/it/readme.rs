//! The README's commands work as they are pasted.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// The commands of a section's first block, as a script.
fn commands(section: &str) -> String {
    let text = include_str!("../../README.md");
    let (_, rest) = text.split_once(&format!("## {section}\n")).unwrap();
    let (_, rest) = rest.split_once("```console\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    block.lines().map(|line| line.strip_prefix("$ ").unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_server_and_two_devices_are_one_screen_of_commands() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = commands("A server and two devices").replace("7171", &free.to_string());
    assert!(script.lines().count() < 24 && script.matches("sync").count() > 5);
    let program = Path::new(env!("CARGO_BIN_EXE_syncledger"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut bash = Command::new("bash");
    // With job control, as at a prompt.
    bash.args(["-emu", "-o", "pipefail", "-c", &script]).current_dir(dir.path()).env("PATH", path);
    bash.env("SYNCLEDGER_LISTEN", format!("127.0.0.1:{free}")).env_remove("SYNCLEDGER_STORE");
    let done = bash.output().unwrap();
    let (said, faults) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{faults}");
    assert!(said.contains("milk, bread") && said.contains("\"done\": true"), "{said}");
    assert!(said.contains("the server has every edit"), "{said}");
}
