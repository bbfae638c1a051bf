//! `demo`: what the ledger is for, on real Jira issues, in a few seconds.
//!
//! Two replicas edit the same issues apart; their edits merge, some are disputed, one dispute is settled, everything can
//! be audited, and the log alone gives it all back. Every number is counted from what the ledger answers, and every claim
//! is checked: where one does not hold, the demonstration fails and says so.

mod apart;
mod check;
mod field;
mod issue;
mod jira;
mod replay;
#[cfg_attr(not(all(feature = "client", feature = "server")), path = "unserved.rs")]
mod served;
mod stage;
mod story;

use std::fs;
use std::path::{Path as FilePath, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::app::App;
use super::interrupt::Interrupt;
use super::stop::{Outcome, Stop, at_file};
use crate::{Error, ErrorKind};
use issue::Issue;
use stage::Stage;
use story::Story;

/// The issues that the program carries with it.
const EMBEDDED: &str = include_str!("../../../tests/fixtures/jira-issues.jsonl");

/// The collection that the issues are kept in.
const COLLECTION: &str = "issues";

/// Watch real Jira issues being edited apart on two replicas, merged, disputed, settled, audited and rebuilt.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Other issues: one a line, as Jira's REST API returns them with expand=changelog.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where to put the stores, which stay there: a fresh directory. A temporary one where this is missing.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The replicas are devices of a sync server, over real connections, and one of them goes offline.
    #[arg(long)]
    server: bool,
}

impl Demo {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let issues = self.issues()?;
        let dir = self.directory()?;
        let interrupt = Interrupt::listen()?;
        let mut story = Story::new(app, interrupt);
        let stage = Stage::build(&dir, self.server)?;
        story.title(&issues, self.data.as_deref(), &stage)?;
        let figures = play(&mut story, &issues, &stage)?;
        story.close(&dir, &issues)?;
        if app.out.json { app.out.object(&figures) } else { Ok(()) }
    }

    fn issues(&self) -> Outcome<Vec<Issue>> {
        let text = match &self.data {
            Some(file) => fs::read_to_string(file).map_err(at_file(file))?,
            None => EMBEDDED.to_owned(),
        };
        let raw = jira::read(&text)?;
        let issues: Result<Vec<_>, Error> = raw.iter().map(Issue::of).collect();
        let issues = issues?;
        if issues.is_empty() { Err(Stop::usage("there is no issue in the data")) } else { Ok(issues) }
    }

    fn directory(&self) -> Outcome<PathBuf> {
        match &self.dir {
            Some(dir) => fresh(dir).map(|()| dir.clone()),
            None => temporary(),
        }
    }
}

/// Makes a directory, which must be empty where it exists.
fn fresh(dir: &FilePath) -> Outcome {
    fs::create_dir_all(dir).map_err(at_file(dir))?;
    match dir.read_dir().map_err(at_file(dir))?.next() {
        None => Ok(()),
        Some(_) => Err(Stop::usage(format!("{} is not empty", dir.display())).hint("name a fresh directory")),
    }
}

fn temporary() -> Outcome<PathBuf> {
    let parent = std::env::temp_dir();
    for number in 1..10_000 {
        let dir = parent.join(format!("syncledger-demo-{number}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(fault) if fault.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(fault) => return Err(at_file(&parent)(fault)),
        }
    }
    Err(Stop::usage(format!("{} is full of demonstrations", parent.display())).hint("delete some, or name --dir"))
}

/// The whole story; the numbers of it as one object.
fn play(story: &mut Story<'_>, issues: &[Issue], stage: &Stage) -> Outcome<Json> {
    let imported = story.import(stage, issues)?;
    let replayed = story.replay(stage, issues)?;
    let edited = story.edit_apart(stage, issues)?;
    let decided = story.decide(stage)?;
    let settled = story.settle(stage)?;
    story.audit(stage, &settled.key)?;
    let rebuilt = story.rebuild(stage)?;
    Ok(json!({
        "server": stage.served.as_ref().map(|served| served.url()),
        "directory": stage.dir.display().to_string(),
        "issues": issues.len(),
        "imported": imported,
        "replayed": replayed,
        "merged": edited,
        "conflicts": decided,
        "settled": settled.figures,
        "rebuilt": rebuilt,
    }))
}

/// A claim of the demonstration that does not hold.
fn broken(claim: impl Into<String>) -> Stop {
    Error::new(ErrorKind::Consistency, claim).with_hint("this is a fault of syncledger: please report it").into()
}
