//! `doctor`: what is wrong, and what to do.

use clap::Args;
use serde_json::{Value as Json, json};

use super::policy::custom;
use super::verify;
use crate::ErrorKind;
use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::count;
use crate::ledger::{Ledger, Status};

/// From how many open conflicts on somebody should look at the policies instead of settling them one by one.
const MANY_CONFLICTS: u64 = 100;

/// Check the store and say what is wrong and what to do.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// Something that is wrong, or wants attention.
struct Finding {
    level: Level,
    what: String,
    to_do: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Notice,
    Warning,
    Corrupt,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Corrupt => "corrupt",
        }
    }
}

impl Doctor {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let findings = examine(app, &ledger)?;
        let is_ok = findings.iter().all(|finding| finding.level == Level::Notice);
        let object = json!({ "ok": is_ok, "findings": findings.iter().map(Finding::shape).collect::<Vec<_>>() });
        app.out.answer(&object, || text(&findings))?;
        match findings.iter().filter(|finding| finding.level == Level::Corrupt).count() {
            0 => Ok(()),
            found => {
                app.out.flush()?;
                Err(Stop::corrupt(count(found, "problem", "problems")))
            }
        }
    }
}

fn examine(app: &App, ledger: &Ledger) -> Outcome<Vec<Finding>> {
    let mut findings = problems(app, ledger)?;
    if !findings.is_empty() {
        // What a damaged store says of itself otherwise is not worth reading.
        return Ok(findings);
    }
    let status = ledger.status()?;
    findings.extend(forks(&status));
    findings.extend(waiting(&status));
    findings.extend(policies(ledger)?);
    findings.extend(open_conflicts(&status));
    Ok(findings)
}

fn problems(app: &App, ledger: &Ledger) -> Outcome<Vec<Finding>> {
    let to_do = "run `syncledger rebuild`; if it stays, restore a backup, or pull into a fresh store from a replica";
    let finding = |what| Finding { level: Level::Corrupt, what, to_do: to_do.to_owned() };
    Ok(verify::examine(app, ledger)?.problems.into_iter().map(finding).collect())
}

fn forks(status: &Status) -> impl Iterator<Item = Finding> {
    status.forked_writers.iter().map(|writer| Finding {
        level: Level::Warning,
        what: format!(
            "writer {writer} stamped two different events with one number: its store was copied or restored"
        ),
        to_do:
            "both histories are kept; use only one of the copies, and give the other a new writer by pulling into a \
                fresh store"
                .to_owned(),
    })
}

fn waiting(status: &Status) -> Option<Finding> {
    (status.waiting > 0).then(|| Finding {
        level: Level::Warning,
        what: format!("{} for parents that never came", count(status.waiting, "event waits", "events wait")),
        to_do: "pull from the replica where they were made, or from one that has everything".to_owned(),
    })
}

fn policies(ledger: &Ledger) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for collection in ledger.collections()? {
        match ledger.policy(&collection.name) {
            Ok(policy) => findings.extend(custom(&policy).map(|name| unregistered(&collection.name, name))),
            Err(error) if error.kind() == ErrorKind::Validation => {
                findings.push(invalid(&collection.name, error.message()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(findings)
}

fn unregistered(collection: &str, name: &str) -> Finding {
    Finding {
        level: Level::Notice,
        what: format!(
            "the policy of {collection} names the custom strategy `{name}`, which this program does not have"
        ),
        to_do: "nothing, if the service that embeds the ledger registers it; here it acts as manual".to_owned(),
    }
}

fn invalid(collection: &str, why: &str) -> Finding {
    Finding {
        level: Level::Warning,
        what: format!("the policy of {collection} is invalid, so that it acts as merge: {why}"),
        to_do: format!("set another with `syncledger policy set {collection} POLICY`"),
    }
}

fn open_conflicts(status: &Status) -> Option<Finding> {
    let open: u64 = status.conflicts.iter().filter(|(.., state, _)| state == "open").map(|(.., count)| count).sum();
    (open > 0).then(|| Finding {
        level: if open < MANY_CONFLICTS { Level::Notice } else { Level::Warning },
        what: format!("{} open", count(open, "conflict is", "conflicts are")),
        to_do: match open < MANY_CONFLICTS {
            true => "see `syncledger conflicts`, and settle them with `syncledger resolve ID`".to_owned(),
            false => "so many want a rule: try `syncledger conflicts --status all --strategy last_write_wins`, then \
                      `syncledger policy set`"
                .to_owned(),
        },
    })
}

impl Finding {
    fn shape(&self) -> Json {
        json!({ "level": self.level.name(), "what": self.what, "do": self.to_do })
    }

    fn text(&self) -> String {
        let level = match self.level {
            Level::Notice => style::dim("notice:"),
            Level::Warning => style::warn("warning:"),
            Level::Corrupt => style::bad("corrupt:"),
        };
        format!("{level} {}\n  {} {}", self.what, style::good("do:"), self.to_do)
    }
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{} nothing is wrong", style::good("ok:"));
    }
    findings.iter().map(Finding::text).collect::<Vec<_>>().join("\n")
}
