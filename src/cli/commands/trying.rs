//! `policy try`: what another policy would have decided otherwise.

use std::collections::BTreeSet;

use clap::Args;

use crate::cli::app::App;
use crate::cli::options;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{count, short_or};
use crate::ledger::{Decision, Ledger, Tried};
use crate::projection::Policy;
use crate::shape;

/// Show what another policy would have decided otherwise, field by field and moment by moment. Changes nothing.
#[derive(Debug, Args)]
pub(crate) struct Try {
    /// The collection.
    collection: String,
    /// The policy: JSON, @FILE, -, or a short form such as last_write_wins or source_wins:jira,app.
    policy: String,
    /// Only what held after this position or time.
    #[arg(long, value_name = "POSITION|TIME")]
    since: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Total {
    decisions: u64,
    standing: u64,
    /// The last record: they come by key.
    records: u64,
    last: Option<String>,
}

impl Try {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let policy = options::policy(&app.caller, &self.policy)?;
        let since = self.since.as_deref().map(options::until).transpose()?;
        let ledger = app.ledger()?;
        for name in super::policy::custom(&policy).collect::<BTreeSet<_>>() {
            app.out.note(style::warn(format!("custom strategy `{name}` is not registered here: it acts as manual")));
        }
        self.must_exist(&ledger)?;
        let total = self.print(app, &ledger, &policy, since)?;
        app.out.note(total.summary());
        Ok(())
    }

    /// Somebody who misspells a collection is not told that nothing would differ.
    fn must_exist(&self, ledger: &Ledger) -> Outcome {
        if ledger.collections()?.iter().any(|info| info.name == self.collection) {
            return Ok(());
        }
        let message = format!("there is no record of {}", self.collection);
        Err(Stop::from(crate::Error::new(crate::ErrorKind::NotFound, message)).hint("see `syncledger list`"))
    }

    fn print(
        &self,
        app: &mut App,
        ledger: &Ledger,
        policy: &Policy,
        since: Option<crate::ledger::AsOf>,
    ) -> Outcome<Total> {
        let (mut total, mut stop) = (Total::default(), None);
        let done = ledger.try_policy_with(&self.collection, policy, since, &mut |tried| {
            let printed = app.out.list(&[shape::tried(&tried)], || text(&tried, total.is_new(&tried)));
            total.add(&tried);
            printed.map_err(|ended| {
                stop = Some(ended);
                crate::Error::new(crate::ErrorKind::Cancelled, "the reader has gone")
            })
        });
        match stop {
            Some(stop) => Err(stop),
            None => Ok(done.map(|()| total)?),
        }
    }
}

impl Total {
    fn is_new(&self, tried: &Tried) -> bool {
        self.last.as_ref() != Some(&tried.key)
    }

    fn add(&mut self, tried: &Tried) {
        self.decisions += 1;
        self.standing += u64::from(tried.until.is_none());
        self.records += u64::from(self.is_new(tried));
        self.last = Some(tried.key.clone());
    }

    fn summary(&self) -> String {
        if self.decisions == 0 {
            return "nothing would be decided otherwise".to_owned();
        }
        format!(
            "{} of {} would differ, {} of them now",
            count(self.decisions, "decision", "decisions"),
            count(self.records, "record", "records"),
            self.standing
        )
    }
}

fn text(tried: &Tried, is_new: bool) -> String {
    let until = tried.until.map_or_else(|| "to now".to_owned(), |(position, _)| format!("to {position}"));
    let title = if is_new { format!("{}\n", style::bold(&tried.key)) } else { String::new() };
    format!(
        "{title}  {}  {} instead of {}  {}\n    {}",
        style::name(&tried.path),
        said(&tried.then),
        said(&tried.now),
        style::dim(format!("from {} {until}", tried.position)),
        style::dim(&tried.because)
    )
}

fn said(decision: &Decision) -> String {
    let open = if decision.open { style::warn(" (open)") } else { String::new() };
    format!("{}{open}", short_or(decision.value.as_ref(), "absent", WIDTH))
}

/// How many characters of a value are shown.
const WIDTH: usize = 40;
