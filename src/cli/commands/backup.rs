//! `backup` and `restore`: a ledger in a file, and back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use crate::cli::app::App;
use crate::cli::stop::{Outcome, Stop};
use crate::cli::style;
use crate::cli::table::{count, thousands};
use crate::ledger::{BackupInfo, BackupOptions, Restored};
use crate::segment::{Codec, Shape};

/// How a backup is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Packing {
    /// With zstd.
    #[default]
    Zstd,
    /// Not at all: readable without any library, see docs/format.md.
    None,
}

/// Write the ledger's events and large values into a new file, while others go on writing.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file; it must not exist.
    file: PathBuf,
    /// Only events after this position: those that an earlier backup lacks.
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
    since: u64,
    /// How it is compressed.
    #[arg(long, value_enum, default_value_t, value_name = "CODEC")]
    codec: Packing,
}

impl Backup {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let codec = match self.codec {
            Packing::Zstd => Codec::Zstd,
            Packing::None => Codec::Plain,
        };
        let options = BackupOptions { since: self.since, shape: Shape { codec, ..Shape::LARGE } };
        let mut info = app.ledger()?.backup(app.caller.path(&self.file), &options)?;
        info.file = self.file;
        app.out.answer(&shape(&info), || format!("{} {}", style::good("wrote"), text(&info)))
    }
}

/// A backup file, as programs see it.
pub(super) fn shape(info: &BackupInfo) -> Json {
    json!({
        "file": info.file.display().to_string(),
        "ledger": info.name,
        "id": info.ledger.to_string(),
        "events": info.events,
        "blobs": info.blobs,
        "bytes": info.bytes,
        "first_position": info.first_position,
        "last_position": info.last_position,
    })
}

/// A backup file, as people see it.
pub(super) fn text(info: &BackupInfo) -> String {
    let (events, blobs) = (count(info.events, "event", "events"), count(info.blobs, "large value", "large values"));
    let range = match info.events {
        0 => format!("nothing after position {}", info.last_position),
        _ => format!("positions {} to {}", thousands(info.first_position), thousands(info.last_position)),
    };
    format!("{}: {events}, {blobs}, {range}, {} bytes", info.file.display(), thousands(info.bytes))
}

/// Make the ledger again from a backup file, or from one and those that continue it, under a new writer.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The files, in any order.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where a file is cut or damaged, restore what comes before.
    #[arg(long)]
    partial: bool,
}

impl Restore {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let store = app.store_or_create()?;
        let files: Vec<_> = self.files.iter().map(|file| app.caller.path(file)).collect();
        let done = store.restore(&app.globals.ledger, &files, self.partial)?;
        // A store that was open before stays open for others.
        if app.caller.store.is_none() {
            store.close()?;
        }
        answer(app, &done)
    }
}

/// Says what was restored; a part is a partial success.
pub(super) fn answer(app: &mut App, done: &Restored) -> Outcome {
    let object = json!({
        "ledger": done.ledger.name,
        "id": done.ledger.id.to_string(),
        "writer": done.ledger.writer.to_string(),
        "events": done.events,
        "records": done.records,
        "blobs": done.blobs,
        "missing": done.missing,
    });
    app.out.answer(&object, || {
        let (events, records) = (count(done.events, "event", "events"), count(done.records, "record", "records"));
        format!("{} {records} from {events} into `{}`", style::good("restored"), done.ledger.name)
    })?;
    match &done.missing {
        None => Ok(()),
        Some(missing) => {
            app.out.flush()?;
            Err(Stop::partly_failed(format!("only a part was restored: {missing}"))
                .hint("pull the rest from a replica, or from another copy of the file"))
        }
    }
}
