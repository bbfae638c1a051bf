//! `status`: counts and sizes.

use clap::Args;

use crate::cli::app::App;
use crate::cli::options;
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::cli::style;
use crate::cli::table::{self, bytes, count, thousands};
use crate::ledger::Status as Found;
use crate::shape;

/// Show counts, conflicts and sizes.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Count the conflicts by collection and rule too, with their ages: those that have a candidate of after this moment.
    #[arg(long, value_name = "POSITION|TIME")]
    since: Option<String>,
}

impl Status {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let ledger = app.ledger()?;
        let (found, info) = (ledger.status()?, ledger.info());
        let since = self.since.as_deref().map(options::until).transpose()?;
        let conflicts = since.map(|since| ledger.conflict_counts(Some(since))).transpose()?;
        let mut object = shape::status(&found);
        if let Some(conflicts) = &conflicts {
            shape::set(
                &mut object,
                "conflicts_since",
                conflicts.iter().map(shape::conflict_count).collect::<Vec<_>>(),
            );
        }
        shape::set(&mut object, "store", app.globals.store.display().to_string());
        shape::set(&mut object, "ledger", info.name.as_str());
        shape::set(&mut object, "id", info.id.to_string());
        shape::set(&mut object, "writer", info.writer.to_string());
        app.out.answer(&object, || match &conflicts {
            Some(conflicts) => format!("{}\n{}", text(&found, &info.name), people::conflict_counts(conflicts)),
            None => text(&found, &info.name),
        })
    }
}

fn text(found: &Found, name: &str) -> String {
    let (log, rows, blobs) = found.bytes;
    let facts = [
        ("ledger", style::name(name)),
        ("events", format!("{}, position {}", thousands(found.events), found.position)),
        ("records", thousands(found.records)),
        ("waiting", thousands(found.waiting)),
        ("forked writers", found.forked_writers.len().to_string()),
        ("on disk", format!("log {}, rows {}, blobs {}", bytes(log), bytes(rows), bytes(blobs))),
        ("in memory", format!("{}, {}", count(found.cached.0, "record", "records"), bytes(found.cached.1))),
        ("conflicts", conflicts(found)),
    ];
    let mut table = table::table(&[]);
    for (name, fact) in facts {
        table.add_row([style::dim(name), fact]);
    }
    table::text(table)
}

fn conflicts(found: &Found) -> String {
    let line = |(kind, severity, status, count): &(String, String, String, u64)| {
        format!("{} {status}, {kind}, {severity}", thousands(*count))
    };
    let lines: Vec<_> = found.conflicts.iter().map(line).collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
}
