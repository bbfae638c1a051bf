//! What the tests of the command line share: the real program in a directory of its own.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

/// A directory, in which the program runs.
pub(crate) struct Bench {
    dir: TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The program, in a directory, with nothing of this machine's configuration.
pub(crate) fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncledger"));
    command.current_dir(dir).env_remove("SYNCLEDGER_STORE").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

impl Bench {
    /// An empty directory.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A directory with a store.
    pub(crate) fn new() -> Self {
        let bench = Self::empty();
        bench.ok(["init"]);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and gives its name.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        name.to_owned()
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = program(self.dir.path());
        command.args(args);
        command
    }

    pub(crate) fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let piped = |command: &mut Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        piped(&mut self.command(args))
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(&self.command(args).output().unwrap())
    }

    /// Runs with this on stdin.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Run {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The program may end before it has read all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(&child.wait_with_output().unwrap())
    }

    /// Runs, and expects that all is well.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{run:?}");
        run.out
    }

    /// Runs with `--json`, and expects that all is well and one object.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Json {
        let mut lines = self.lines(args);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// Runs with `--json`, and expects that all is well and an object on each line.
    pub(crate) fn lines<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<Json> {
        let run = Run::of(&self.command(args).arg("--json").output().unwrap());
        assert_eq!(run.code, 0, "{run:?}");
        run.lines()
    }

    /// Runs with `--json`, and expects this exit code and code of an error.
    pub(crate) fn refused<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, exit: i32, code: &str) -> Json {
        let run = Run::of(&self.command(args).arg("--json").output().unwrap());
        let error = run.error();
        assert_eq!((run.code, error["code"].as_str()), (exit, Some(code)), "{run:?}");
        error
    }

    /// A replica of the store here, in another directory.
    pub(crate) fn replica(&self) -> Self {
        let other = Self::empty();
        other.ok(["init"]);
        other.pull(self);
        other
    }

    /// Pulls from another bench's store.
    pub(crate) fn pull(&self, other: &Self) -> Json {
        self.json(["pull", other.path("ledger").to_str().unwrap()])
    }
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        // 130 is both what the program says and what a shell makes of its being killed by Ctrl-C.
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub(crate) fn lines(&self) -> Vec<Json> {
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The last object on stderr.
    pub(crate) fn error(&self) -> Json {
        let line = self.err.lines().last().unwrap_or_else(|| panic!("no error: {self:?}"));
        serde_json::from_str(line).unwrap_or_else(|_| panic!("no object: {self:?}"))
    }
}

/// The only event of a receipt.
pub(crate) fn event(receipt: &Json) -> String {
    assert_eq!(receipt["events"].as_array().map(Vec::len), Some(1), "{receipt}");
    receipt["events"][0]["event"].as_str().unwrap().to_owned()
}

/// The values of a field of several objects.
pub(crate) fn column<'a>(rows: &'a [Json], field: &str) -> Vec<&'a Json> {
    rows.iter().map(|row| row.pointer(field).unwrap_or_else(|| panic!("{field} in {row}"))).collect()
}

/// Whether an object has at least these fields.
pub(crate) fn assert_fields(object: &Json, fields: &str) {
    for field in fields.split_whitespace() {
        assert!(object.get(field).is_some(), "`{field}` is missing in {object}");
    }
}
