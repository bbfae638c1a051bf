//! `revert` and `undo`: takes edits back by making new ones.

use std::collections::BTreeSet;

use clap::Args;

use crate::cli::app::App;
use crate::cli::options::WriteOptions;
use crate::cli::people;
use crate::cli::stop::{Outcome, Stop};
use crate::event::{BatchId, RunId};
use crate::ledger::{DryReceipt, Entry, Ledger, LogQuery, Receipt, Target};
use crate::shape;
use crate::{Error, ErrorKind};

/// How many events are read at a time when the log is searched.
const PAGE: usize = 512;

/// Take back an event, a batch or a run. Fields that were edited since are kept as they are and listed.
#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false, args = ["event", "run", "batch"])]
pub(crate) struct Revert {
    /// The event.
    event: Option<String>,
    /// All events of an execution, such as an import.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// All events of a batch.
    #[arg(long, value_name = "ID")]
    batch: Option<String>,
    #[command(flatten)]
    write: WriteOptions,
}

/// Take back the last batch or event that was made here.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    #[command(flatten)]
    write: WriteOptions,
}

impl Revert {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let (context, ledger) = (self.write.context(), app.ledger()?);
        let target = self.target(&ledger)?;
        if self.write.dry_run {
            return plan(app, &ledger.dry_run().revert(&target, &context)?);
        }
        print(app, &ledger.revert(&target, &context)?)
    }

    fn target(&self, ledger: &Ledger) -> Outcome<Target> {
        match (&self.event, &self.run, &self.batch) {
            (Some(event), ..) => Ok(Target::Event(ledger.find_event(event)?.id)),
            (_, Some(run), _) => find_run(ledger, run).map(Target::Run),
            (.., Some(batch)) => find_batch(ledger, batch).map(Target::Batch),
            _ => Err(Stop::usage("expected an event, --run or --batch")),
        }
    }
}

impl Undo {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let (context, ledger) = (self.write.context(), app.ledger()?);
        if self.write.dry_run {
            return plan(app, &ledger.dry_run().undo(&context)?);
        }
        print(app, &ledger.undo(&context)?)
    }
}

fn plan(app: &mut App, would: &DryReceipt) -> Outcome {
    app.out.answer(&shape::dry_receipt(would), || people::dry_receipt(would))
}

fn print(app: &mut App, receipt: &Receipt) -> Outcome {
    app.out.answer(&shape::revert(receipt), || people::revert(receipt))
}

fn find_run(ledger: &Ledger, prefix: &str) -> Outcome<RunId> {
    match prefix.parse() {
        Ok(run) => Ok(run),
        Err(_) => find(ledger, prefix, "run", |entry| entry.run.or(entry.event.run), RunId::has_prefix),
    }
}

fn find_batch(ledger: &Ledger, prefix: &str) -> Outcome<BatchId> {
    match prefix.parse() {
        Ok(batch) => Ok(batch),
        Err(_) => find(ledger, prefix, "batch", |entry| entry.event.batch.map(|batch| batch.id), BatchId::has_prefix),
    }
}

/// The one id in the log that begins so.
fn find<I: Ord + Copy>(
    ledger: &Ledger,
    prefix: &str,
    what: &str,
    id_of: impl Fn(&Entry) -> Option<I>,
    begins: impl Fn(&I, &str) -> bool,
) -> Outcome<I> {
    let mut found = BTreeSet::new();
    let mut query = LogQuery { limit: Some(PAGE), ..LogQuery::default() };
    loop {
        let page = ledger.log(&query)?;
        found.extend(page.iter().filter_map(&id_of).filter(|id| begins(id, prefix)));
        match page.last() {
            Some(last) => query.after = last.position,
            None => break,
        }
    }
    match (found.pop_first(), found.is_empty()) {
        (Some(id), true) => Ok(id),
        (Some(_), false) => {
            Err(fault(ErrorKind::Validation, format!("`{prefix}` begins the ids of several {what}s")).into())
        }
        (None, _) => Err(fault(ErrorKind::NotFound, format!("`{prefix}` begins the id of no {what}")).into()),
    }
}

fn fault(kind: ErrorKind, message: String) -> Error {
    Error::new(kind, message).with_hint("`syncledger log --json` shows the ids")
}
