//! `log`: the events in the order in which this replica learned of them.

use std::time::Duration;

use clap::Args;

use crate::cli::app::App;
use crate::cli::people;
use crate::cli::stop::{Exit, Outcome, Stop};
use crate::ledger::{Entry, Ledger, LogQuery};
use crate::shape;

/// How many events are read at a time.
const PAGE: usize = 512;

/// How long to wait for an event before looking whether somebody wants the end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Show the events of the ledger's log.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Only positions after this one (with --reverse: before).
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
    after: u64,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only this collection.
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Only records with this key.
    #[arg(long, value_name = "KEY")]
    record: Option<String>,
    /// The latest first.
    #[arg(long, conflicts_with = "follow")]
    reverse: bool,
    /// Go on with events as they come, until Ctrl-C.
    #[arg(long)]
    follow: bool,
}

impl Log {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        if self.follow { self.follow(app, &ledger) } else { self.print(app, &ledger) }
    }

    fn print(&self, app: &mut App, ledger: &Ledger) -> Outcome {
        let mut query = self.query();
        let mut left = self.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let asked = left.min(PAGE);
            query.limit = Some(asked);
            let page = ledger.log(&query)?;
            let Some(last) = page.last() else { break };
            query.after = last.position;
            page.iter().try_for_each(|entry| print(app, entry))?;
            // Before position 1 there is nothing, but 0 would mean the end of the log.
            if page.len() < asked || (self.reverse && query.after <= 1) {
                break;
            }
            left -= page.len();
        }
        Ok(())
    }

    fn query(&self) -> LogQuery {
        LogQuery {
            after: self.after,
            limit: self.limit,
            collection: self.collection.clone(),
            key: self.record.clone(),
            reverse: self.reverse,
        }
    }

    fn follow(&self, app: &mut App, ledger: &Ledger) -> Outcome {
        let interrupt = app.caller.interrupt()?;
        let mut events = ledger.subscribe(self.after);
        let mut left = self.limit.unwrap_or(usize::MAX);
        while left > 0 && !interrupt.is_set() {
            let Some(entry) = events.next_timeout(PATIENCE) else {
                end_if_unread(app)?;
                continue;
            };
            let entry = entry?;
            if self.is_wanted(&entry) {
                print(app, &entry)?;
                app.out.flush()?;
                left -= 1;
            }
        }
        if interrupt.is_set() { Err(Stop::silent(Exit::Interrupted)) } else { Ok(()) }
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(&self.collection, &entry.event.collection) && is(&self.record, &entry.event.key)
    }
}

/// Ends when nobody reads any more: an idle log would learn of it only with its next event.
#[cfg(unix)]
fn end_if_unread(app: &App) -> Outcome {
    if app.caller.stdout.is_unread() { Err(Stop::silent(Exit::Ok)) } else { Ok(()) }
}

#[cfg(not(unix))]
fn end_if_unread(_: &App) -> Outcome {
    Ok(())
}

fn print(app: &mut App, entry: &Entry) -> Outcome {
    app.out.answer(&shape::entry(entry), || people::entry(entry))
}
