//! Backups that the server makes by itself, and proves.
//!
//! Of each ledger there are sets: a file that holds all of it, and those that continue it, until there are as many as a set may have.
//!
//! Invariant: a file has its final name only once it was read back and proved. A server that is killed leaves at most one that has
//! another name, which the next backup removes.
//! Invariant: an old set goes only after a newer one was proved, so there is always one.

mod part;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Server;
use crate::disk::{self, DiskError};
use crate::event::LedgerId;
use crate::ledger::{BackupInfo, BackupOptions, Ledger, LogQuery, verify_backup};
use crate::segment::Shape;
use crate::{Error, ErrorKind, Result};
use part::Part;

/// How often, at most, the server looks whether a backup is due, and how soon it tries again after a fault.
const LOOKS: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(300);
/// What is written and not proved yet.
const UNPROVED: &str = "unproved.unfinished";

/// How the backups of a ledger stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backed {
    /// When all of the ledger was last in a file that was proved, in milliseconds since 1970.
    pub(super) last_good_ms: Option<i64>,
    /// When it was tried last, and why that failed, if it did.
    pub(super) tried_ms: Option<i64>,
    pub(super) fault: Option<String>,
}

/// How the backups of a server stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BackupState {
    /// By ledger; those that were not looked at yet are missing.
    pub(super) ledgers: BTreeMap<LedgerId, Backed>,
}

/// What is known of the backups, shared.
#[derive(Default)]
pub(super) struct Backups(Mutex<BackupState>);

impl Backups {
    fn state(&self) -> MutexGuard<'_, BackupState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a backup came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Whole,
    Continued,
    /// The last file holds all there is.
    Unchanged,
}

impl Made {
    fn status(self) -> &'static str {
        match self {
            Self::Whole | Self::Continued => "success",
            Self::Unchanged => "unchanged",
        }
    }
}

impl Server {
    /// How the backups stand; `None` where the server makes none.
    pub(super) fn backup_state(&self) -> Option<BackupState> {
        self.0.settings.backup.dir.as_ref()?;
        Some(self.0.backups.state().clone())
    }

    /// How many seconds ago the ledger that waits longest was last backed up; `None` where the server makes no backups, or has no
    /// ledger that it knows a backup of.
    pub(super) fn backup_age_s(&self) -> Option<f64> {
        let now_ms = self.now_ms();
        let last = self.backup_state()?.ledgers.into_values().filter_map(|backed| backed.last_good_ms).min()?;
        Some(Duration::from_millis(now_ms.saturating_sub(last).max(0).cast_unsigned()).as_secs_f64())
    }

    /// Makes backups as the settings say, until the server ends. [`Server::serve`] does this by itself; who serves the router otherwise
    /// lets it run beside it.
    pub async fn back_up(&self) {
        if self.0.settings.backup.dir.is_none() {
            return;
        }
        let pause = self.0.settings.backup.every.duration().min(LOOKS);
        loop {
            let (server, (done, is_done)) = (self.clone(), oneshot::channel());
            // A thread that nobody waits for at the end: a backup may take long, and stands to be killed at any time.
            let thread = std::thread::Builder::new().name("syncledger-backup".into());
            let begun = thread.spawn(move || {
                server.back_up_what_is_due();
                drop(done);
            });
            if let Err(fault) = begun {
                tracing::warn!(%fault, "no thread could be started that makes backups");
            }
            let worked = async {
                let _: Result<(), _> = is_done.await;
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                () = worked => {}
                () = self.ended() => return,
            }
        }
    }

    fn back_up_what_is_due(&self) {
        let Some(dir) = &self.0.settings.backup.dir else { return };
        for info in self.0.store.ledgers() {
            let dir = dir.join(info.id.to_string());
            if *self.0.ending.borrow() || !self.is_due(info.id, &dir) {
                continue;
            }
            let made = self.ledger(info.id).and_then(|ledger| self.back_up_ledger(&ledger, &dir));
            self.note(info.id, &info.name, made);
        }
    }

    /// Whether a ledger is to be backed up now.
    fn is_due(&self, ledger: LedgerId, dir: &Path) -> bool {
        let (now_ms, every) = (self.now_ms(), self.0.settings.backup.every.duration());
        let mut state = self.0.backups.state();
        let backed = state.ledgers.entry(ledger).or_insert_with(|| {
            // What another process of this server made says when the last was.
            let last = parts(dir).unwrap_or_default().into_iter().map(|part| part.made_ms).max();
            Backed { last_good_ms: last, ..Backed::default() }
        });
        let is_past = |then: Option<i64>, wait: Duration| {
            then.is_none_or(|then| now_ms.saturating_sub(then).unsigned_abs() >= wait.as_millis() as u64)
        };
        is_past(backed.last_good_ms, every) && is_past(backed.tried_ms, every.min(AGAIN))
    }

    fn note(&self, ledger: LedgerId, name: &str, made: Result<Made>) {
        let now_ms = self.now_ms();
        let mut state = self.0.backups.state();
        let backed = state.ledgers.entry(ledger).or_default();
        backed.tried_ms = Some(now_ms);
        let status = match made {
            Ok(made) => {
                (backed.last_good_ms, backed.fault) = (Some(now_ms), None);
                tracing::info!(ledger = name, status = made.status(), "backup");
                made.status()
            }
            Err(fault) => {
                tracing::error!(ledger = name, status = "failed", code = fault.code(), "backup: {fault}");
                backed.fault = Some(fault.to_string());
                "failed"
            }
        };
        self.0.figures.backed_up(status);
    }

    /// Makes a backup of a ledger, proves it, and lets old sets go.
    fn back_up_ledger(&self, ledger: &Ledger, dir: &Path) -> Result<Made> {
        disk::create_private_dir(dir)?;
        disk::remove_unfinished(dir)?;
        let (known, settings) = (parts(dir)?, &self.0.settings.backup);
        let last = known.last().filter(|last| continues(ledger, last));
        let made = match last {
            Some(last) if last.position == ledger.position() => return Ok(Made::Unchanged),
            Some(last) if last.nth.saturating_add(1) < settings.files.get() => {
                let next = Part { nth: last.nth + 1, made_ms: self.now_ms(), ..last.clone() };
                write(ledger, dir, next, last.position)?;
                Made::Continued
            }
            _ => {
                // Also where the clock went back: a new set is the newest.
                let began_ms = known.last().map_or(0, |last| last.began_ms + 1).max(self.now_ms());
                let first = Part { began_ms, nth: 0, made_ms: self.now_ms(), position: 0, event: String::new() };
                write(ledger, dir, first, 0)?;
                Made::Whole
            }
        };
        if made == Made::Whole {
            let_go(dir, settings.keep.get() as usize)?;
        }
        Ok(made)
    }
}

/// The files in a directory, in order.
fn parts(dir: &Path) -> Result<Vec<Part>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut parts: Vec<Part> = disk::names(dir)?.iter().filter_map(|name| Part::parse(name)).collect();
    parts.sort();
    // Of a set that lacks a file the later ones continue nothing.
    let mut due = BTreeMap::new();
    parts.retain(|part| {
        let due = due.entry(part.began_ms).or_insert(0);
        let is_next = part.nth == *due;
        *due += u32::from(is_next);
        is_next
    });
    Ok(parts)
}

/// Whether the ledger is the one that a file was made of, up to where it ends.
fn continues(ledger: &Ledger, part: &Part) -> bool {
    part.position <= ledger.position() && event(ledger, part.position).is_ok_and(|event| event == part.event)
}

/// The event at a position; empty for none.
fn event(ledger: &Ledger, position: u64) -> Result<String> {
    let Some(before) = position.checked_sub(1) else { return Ok(String::new()) };
    let query = LogQuery { after: before, limit: Some(1), ..LogQuery::default() };
    let found = ledger.log(&query)?.pop().filter(|entry| entry.position == position);
    let missing = || Error::new(ErrorKind::Corrupt, format!("the log has no event at position {position}"));
    Ok(found.ok_or_else(missing)?.id.to_string())
}

/// Writes what comes after a position, proves it, and only then gives it its name.
fn write(ledger: &Ledger, dir: &Path, part: Part, since: u64) -> Result<()> {
    let unproved = dir.join(UNPROVED);
    let options = BackupOptions { since, shape: Shape::LARGE };
    let written = ledger.backup(&unproved, &options)?;
    prove(&written)?;
    let position = written.last_position;
    let named = dir.join(Part { position, event: event(ledger, position)?, ..part }.name());
    std::fs::rename(&unproved, &named).map_err(DiskError::of("rename", &unproved))?;
    Ok(disk::sync_dir(dir)?)
}

/// Reads a file back: it holds what was written.
fn prove(written: &BackupInfo) -> Result<()> {
    let found = verify_backup(&written.file)?;
    if found == *written {
        return Ok(());
    }
    let message = format!("{} does not hold what was written to it", written.file.display());
    Err(Error::new(ErrorKind::Corrupt, message).with_hint("look at the disk that backups are written to"))
}

/// Removes all sets but the newest. Of each the last file goes first, so that what a crash leaves can still be restored.
fn let_go(dir: &Path, keep: usize) -> Result<()> {
    let mut files: Vec<Part> = disk::names(dir)?.iter().filter_map(|name| Part::parse(name)).collect();
    files.sort();
    let mut sets: Vec<i64> = files.iter().map(|part| part.began_ms).collect();
    sets.dedup();
    let Some(oldest) = sets.len().checked_sub(keep).and_then(|first| sets.get(first)) else { return Ok(()) };
    let path = |part: &Part| -> PathBuf { dir.join(part.name()) };
    let old = files.iter().rev().filter(|part| part.began_ms < *oldest);
    old.map(path).try_for_each(|path| disk::remove(&path))?;
    Ok(disk::sync_dir(dir)?)
}
