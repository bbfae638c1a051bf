//! `resolve`: settles a conflict.

use std::io::Write as _;

use clap::Args;

use super::write;
use crate::cli::app::App;
use crate::cli::caller::Caller;
use crate::cli::input;
use crate::cli::options::WriteOptions;
use crate::cli::people;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::event::{WriterId, hex};
use crate::ledger::{Ledger, RecordConflict, Settlement};
use crate::projection::{Candidate, Conflict, Content, Strategy};
use crate::shape;
use crate::{Error, ErrorKind};

/// Settle a conflict, or all open ones. On a terminal without options it shows the candidates and asks.
#[derive(Debug, Args)]
#[group(id = "settlement", multiple = false, args = ["take", "value", "base_value", "all"])]
pub(crate) struct Resolve {
    /// The conflict's id, or the beginning of it; with --all a collection.
    #[arg(value_name = "ID|COLLECTION", required_unless_present = "all")]
    id: Option<String>,
    /// Settle all open conflicts, of the collection or of all, as one batch.
    #[arg(long, requires = "strategy", conflicts_with = "version")]
    all: bool,
    /// With --all: what decides.
    #[arg(long, value_name = "STRATEGY", value_parser = Strategy::parse, requires = "all")]
    strategy: Option<Strategy>,
    /// Take a candidate: by its number from 1, its source, its event, or where it was stamped.
    #[arg(long, value_name = "N|SOURCE|EVENT|local|remote")]
    take: Option<String>,
    /// Take another value: JSON, @FILE, or -.
    #[arg(long, value_name = "JSON")]
    value: Option<String>,
    /// Take the value that the candidates were made on.
    #[arg(long)]
    base_value: bool,
    /// Fail unless the conflict has this version: that nobody's later candidate is lost.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    write: WriteOptions,
}

impl Resolve {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        if let Some(strategy) = &self.strategy {
            return self.settle_all(app, strategy);
        }
        let id = input::conflict(self.id.as_deref().unwrap_or_default())?;
        let ledger = app.ledger()?;
        let found = ledger.find_conflict(id)?;
        self.check_version(&found.conflict)?;
        let Some(settlement) = self.settlement(app, &found)? else { return Ok(()) };
        if self.write.dry_run {
            return self.plan(app, &found, settlement, &ledger);
        }
        // The version is of what was shown: a candidate that came since makes this fail instead of being lost.
        let version = Some(found.conflict.version);
        let receipt = ledger.resolve(found.conflict.id, settlement, version, &self.write.context())?;
        write::print(app, &receipt)
    }

    fn settle_all(&self, app: &mut App, strategy: &Strategy) -> Outcome {
        let (ledger, collection, context) = (app.ledger()?, self.id.as_deref(), self.write.context());
        if self.write.dry_run {
            let would = ledger.dry_run().resolve_all(collection, strategy, &context)?;
            return app.out.answer(&shape::dry_receipt(&would), || people::dry_receipt(&would));
        }
        let receipt = ledger.resolve_all(collection, strategy, &context)?;
        app.out.answer(&shape::revert(&receipt), || people::revert(&receipt))
    }

    /// Says what would be settled with what, and by which events.
    fn plan(&self, app: &mut App, found: &RecordConflict, settlement: Settlement, ledger: &Ledger) -> Outcome {
        let conflict = &found.conflict;
        let value = outcome(conflict, &settlement, ledger.info().writer);
        let planned =
            ledger.dry_run().resolve(conflict.id, settlement, Some(conflict.version), &self.write.context())?;
        let mut object = shape::planned(&planned);
        shape::set(&mut object, "conflict", conflict.id.to_string());
        shape::set(&mut object, "path", conflict.path.as_str());
        match value.clone().flatten() {
            Some(value) => shape::set(&mut object, "value", shape::content(&value)),
            None => shape::set(&mut object, "removed", true),
        }
        let place = format!("{}/{} {}", found.collection, found.key, conflict.path);
        app.out.answer(&object, || format!("{place} would be {}", people::content(value.flatten().as_ref(), 100)))
    }

    fn check_version(&self, conflict: &Conflict) -> Result<(), Error> {
        let current = hex(&conflict.version);
        match &self.version {
            Some(version) if version.is_empty() || !current.starts_with(version.as_str()) => Err(Error::new(
                ErrorKind::Conflict,
                format!("conflict {} has another version now: {current}", conflict.id),
            )
            .with_hint(format!("look at it again: `syncledger show {}`", conflict.id.short()))),
            _ => Ok(()),
        }
    }

    /// How to settle it; none where the person who was asked wants nothing.
    fn settlement(&self, app: &App, found: &RecordConflict) -> Outcome<Option<Settlement>> {
        match (&self.take, &self.value, self.base_value) {
            (Some(choice), ..) => taken(choice, &found.conflict.candidates).map(Some),
            (_, Some(value), _) => Ok(Some(Settlement::Value(input::json(&app.caller, value)?))),
            (.., true) => Ok(Some(Settlement::Base)),
            _ if app.out.json || !app.caller.stdin.is_terminal() => Err(no_choice(found)),
            _ => ask(&app.caller, found),
        }
    }
}

/// What a settlement comes to; none where no candidate fits it.
fn outcome(conflict: &Conflict, settlement: &Settlement, here: WriterId) -> Option<Option<Content>> {
    let latest = |fits: &dyn Fn(&Candidate) -> bool| {
        conflict.candidates.iter().rev().find(|candidate| fits(candidate)).map(|candidate| candidate.value.clone())
    };
    match settlement {
        Settlement::Take(index) => conflict.candidates.get(*index).map(|candidate| candidate.value.clone()),
        Settlement::TakeSource(source) => latest(&|candidate| candidate.source == *source),
        Settlement::TakeEvent(event) => latest(&|candidate| candidate.event == *event),
        Settlement::TakeLocal => latest(&|candidate| candidate.writer == here),
        Settlement::TakeRemote => latest(&|candidate| candidate.writer != here),
        Settlement::Value(value) => Some(Some(Content::of(value.clone()))),
        Settlement::Base => Some(conflict.base.clone()),
    }
}

/// Which candidate a word means. The number counts from 1, as it is printed.
fn taken(choice: &str, candidates: &[Candidate]) -> Outcome<Settlement> {
    if let Ok(number) = choice.parse::<usize>()
        && (1..=candidates.len()).contains(&number)
    {
        return Ok(Settlement::Take(number - 1));
    }
    let has_source = || candidates.iter().any(|candidate| candidate.source == choice);
    match choice {
        "local" => Ok(Settlement::TakeLocal),
        "remote" => Ok(Settlement::TakeRemote),
        _ if has_source() => Ok(Settlement::TakeSource(choice.to_owned())),
        _ => by_event(choice, candidates),
    }
}

fn by_event(prefix: &str, candidates: &[Candidate]) -> Outcome<Settlement> {
    let begins = |candidate: &&Candidate| !prefix.is_empty() && candidate.event.has_prefix(prefix);
    let mut found = candidates.iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(candidate), None) => Ok(Settlement::TakeEvent(candidate.event)),
        (Some(_), Some(_)) => Err(Stop::usage(format!("`{prefix}` begins the events of several candidates"))),
        (None, _) => {
            let message = format!("there is no candidate `{prefix}`");
            Err(Stop::usage(message).hint(format!("take {}", choices(candidates))))
        }
    }
}

/// The words that name these candidates: `1, 2, app, jira, local or remote`.
fn choices(candidates: &[Candidate]) -> String {
    let mut sources: Vec<_> = candidates.iter().map(|candidate| candidate.source.clone()).collect();
    sources.sort_unstable();
    sources.dedup();
    let numbers = (1..=candidates.len()).map(|number| number.to_string());
    let words: Vec<_> = numbers.chain(sources).collect();
    format!("{}, local, remote or the start of an event's id", words.join(", "))
}

fn no_choice(found: &RecordConflict) -> Stop {
    let message = format!("expected --take, --value or --base-value for {}", found.conflict.path);
    Stop::usage(message).hint(format!("--take {}", choices(&found.conflict.candidates)))
}

fn ask(caller: &Caller, found: &RecordConflict) -> Outcome<Option<Settlement>> {
    let mut stderr = caller.stderr.writer();
    writeln!(stderr, "{}", people::conflict_in_full(found))?;
    let count = found.conflict.candidates.len();
    write!(
        stderr,
        "{} [1-{count}, b for the base, JSON for another value, empty to leave it] ",
        style::bold("Take?")
    )?;
    stderr.flush()?;
    match caller.stdin.line()?.trim() {
        "" => Ok(None),
        "b" => Ok(Some(Settlement::Base)),
        // A number beyond the candidates is more likely a slip than a value.
        number if number.parse::<usize>().is_ok() => taken(number, &found.conflict.candidates).map(Some),
        value => Ok(Some(Settlement::Value(input::json(caller, value)?))),
    }
}
