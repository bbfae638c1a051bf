//! `list`: collections, or the records of one.

use clap::Args;
use serde_json::json;

use crate::cli::app::App;
use crate::cli::caller::Caller;
use crate::cli::input;
use crate::cli::options::ViewOptions;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table::{self, thousands};
use crate::ledger::{Ledger, Query, Record};
use crate::shape;

/// How many records are asked for at a time: enough to be fast, few enough to be small.
const PAGE: usize = 256;

/// List the collections, or the records of one.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The collection whose records to list.
    collection: Option<String>,
    /// Only keys that start with this.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true, requires = "collection")]
    prefix: String,
    /// Only records that show this value in this field. May be repeated.
    #[arg(long = "where", value_name = "POINTER=JSON", requires = "collection")]
    fields: Vec<String>,
    /// Only records that an event after this position changed.
    #[arg(long, value_name = "POSITION", requires = "collection")]
    changed_since: Option<u64>,
    /// Deleted records too.
    #[arg(long, requires = "collection")]
    deleted: bool,
    /// Only keys after this one, which is where the last page ended.
    #[arg(long, value_name = "KEY", requires = "collection")]
    after: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", requires = "collection")]
    limit: Option<usize>,
    #[command(flatten)]
    view: ViewOptions,
}

impl List {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        match &self.collection {
            None => collections(app, &ledger),
            Some(collection) => self.records(app, &ledger, collection),
        }
    }

    fn records(&self, app: &mut App, ledger: &Ledger, collection: &str) -> Outcome {
        let mut seen = 0;
        each_page(ledger, collection, self.query(&app.caller)?, |page| {
            seen += page.len();
            let rows: Vec<_> = page.iter().map(shape::record).collect();
            app.out.list(&rows, || people::records(page))
        })?;
        if seen == 0 {
            app.out.note(style::dim(format!("no record of {collection} matches")));
        }
        Ok(())
    }

    fn query(&self, caller: &Caller) -> Outcome<Query> {
        let fields: Outcome<_> = self.fields.iter().map(|field| input::assignment(caller, field)).collect();
        Ok(Query {
            prefix: self.prefix.clone(),
            fields: fields?,
            changed_since: self.changed_since,
            deleted: self.deleted,
            after: self.after.clone(),
            limit: self.limit,
            policy: self.view.policy(caller)?,
        })
    }
}

/// Goes through the records of a query page by page, so that memory stays small however many there are.
pub(super) fn each_page(
    ledger: &Ledger,
    collection: &str,
    mut query: Query,
    mut visit: impl FnMut(&[Record]) -> Outcome,
) -> Outcome {
    let mut left = query.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let asked = left.min(PAGE);
        query.limit = Some(asked);
        let page = ledger.list(collection, &query)?;
        let Some(last) = page.last() else { break };
        query.after = Some(last.key.clone());
        visit(&page)?;
        if page.len() < asked {
            break;
        }
        left -= page.len();
    }
    Ok(())
}

fn collections(app: &mut App, ledger: &Ledger) -> Outcome {
    let found = ledger.collections()?;
    let rows: Vec<_> = found
        .iter()
        .map(|info| json!({ "collection": info.name, "records": info.records, "events": info.events }))
        .collect();
    app.out.list(&rows, || {
        let mut table = table::table(&["collection", "records", "events"]);
        for info in &found {
            table.add_row([style::name(&info.name), thousands(info.records), thousands(info.events)]);
        }
        table::text(table)
    })
}
