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

    fn backup_every(&self) -> Duration {
        Duration::from(self.0.settings.backup.every).max(Duration::from_secs(1))
    }

    /// When the ledger that waits longest was last backed up; `None` where the server makes no backups, or has no ledger that it
    /// knows a backup of.
    pub(super) fn last_backup_ms(&self) -> Option<i64> {
        self.backup_state()?.ledgers.into_values().filter_map(|backed| backed.last_good_ms).min()
    }

    /// How many seconds ago that was.
    pub(super) fn backup_age_s(&self) -> Option<f64> {
        let (now_ms, last) = (self.now_ms(), self.last_backup_ms()?);
        Some(Duration::from_millis(now_ms.saturating_sub(last).max(0).cast_unsigned()).as_secs_f64())
    }

    /// Makes backups as the settings say, until the server ends. [`Server::serve`] does this by itself; who serves the router otherwise
    /// lets it run beside it.
    pub async fn back_up(&self) {
        if self.0.settings.backup.dir.is_none() {
            return;
        }
        let pause = self.backup_every().min(LOOKS);
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
        let (now_ms, every) = (self.now_ms(), self.backup_every());
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
                let newest_ms = files(dir)?.last().map_or(0, |last| last.began_ms.saturating_add(1));
                let began_ms = newest_ms.max(self.now_ms());
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
fn files(dir: &Path) -> Result<Vec<Part>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut files: Vec<Part> = disk::names(dir)?.iter().filter_map(|name| Part::parse(name)).collect();
    files.sort();
    Ok(files)
}

/// Those that can be restored: of a set that lacks a file the later ones continue nothing.
fn parts(dir: &Path) -> Result<Vec<Part>> {
    let mut parts = files(dir)?;
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
    let files = files(dir)?;
    let mut sets: Vec<i64> = files.iter().map(|part| part.began_ms).collect();
    sets.dedup();
    let Some(oldest) = sets.len().checked_sub(keep).and_then(|first| sets.get(first)) else { return Ok(()) };
    let path = |part: &Part| -> PathBuf { dir.join(part.name()) };
    let old = files.iter().rev().filter(|part| part.began_ms < *oldest);
    old.map(path).try_for_each(|path| disk::remove(&path))?;
    Ok(disk::sync_dir(dir)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Store;
    use crate::ledger::{Context, Options};
    use crate::server::Settings;

    struct Bench {
        server: Server,
        ledger: Ledger,
        dir: tempfile::TempDir,
    }

    impl Bench {
        /// A server that keeps two sets of two files each.
        fn new() -> Self {
            let (dir, mut settings) = (tempfile::tempdir().unwrap(), Settings::default());
            let two = std::num::NonZeroU32::new(2).unwrap();
            (settings.backup.keep, settings.backup.files) = (two, two);
            settings.backup.dir = Some(dir.path().to_owned());
            let store = Store::in_memory(Options::default()).unwrap();
            let ledger = store.create_ledger("main").unwrap();
            Self { server: Server::with_settings(store, settings).unwrap(), ledger, dir }
        }

        fn edit(&self) {
            let nth = self.ledger.position();
            self.ledger.put("notes", &nth.to_string(), json!({ "nth": nth }), &Context::from_source("app")).unwrap();
        }

        fn back_up(&self) -> Made {
            self.server.back_up_ledger(&self.ledger, self.dir.path()).unwrap()
        }

        /// The files, by the order of their sets and their places in these.
        fn places(&self) -> Vec<(usize, u32)> {
            let parts = parts(self.dir.path()).unwrap();
            let mut sets: Vec<i64> = parts.iter().map(|part| part.began_ms).collect();
            sets.dedup();
            let place = |part: &Part| (sets.iter().position(|set| *set == part.began_ms).unwrap(), part.nth);
            parts.iter().map(place).collect()
        }

        /// The ledger as the newest set has it.
        fn restored(&self) -> Ledger {
            let parts = parts(self.dir.path()).unwrap();
            let newest = parts.last().unwrap().began_ms;
            let files: Vec<_> = parts
                .iter()
                .filter(|part| part.began_ms == newest)
                .map(|part| self.dir.path().join(part.name()))
                .collect();
            let store = Store::in_memory(Options::default()).unwrap();
            store.restore("main", &files, false).unwrap();
            store.ledger("main").unwrap()
        }
    }

    #[test]
    fn a_set_is_a_whole_file_and_those_that_continue_it_and_old_sets_go() {
        let bench = Bench::new();
        bench.edit();
        assert_eq!((bench.back_up(), bench.back_up()), (Made::Whole, Made::Unchanged));
        bench.edit();
        assert_eq!(bench.back_up(), Made::Continued);
        for (made, places) in [
            (Made::Whole, vec![(0, 0), (0, 1), (1, 0)]),
            (Made::Continued, vec![(0, 0), (0, 1), (1, 0), (1, 1)]),
            (Made::Whole, vec![(0, 0), (0, 1), (1, 0)]),
        ] {
            bench.edit();
            assert_eq!((bench.back_up(), bench.places()), (made, places));
            assert_eq!(bench.restored().digest().unwrap(), bench.ledger.digest().unwrap());
        }
    }

    #[test]
    fn an_empty_ledger_is_backed_up_too_and_what_follows_continues_it() {
        let bench = Bench::new();
        assert_eq!(bench.back_up(), Made::Whole);
        bench.edit();
        assert_eq!(bench.back_up(), Made::Continued);
        assert_eq!(bench.restored().digest().unwrap(), bench.ledger.digest().unwrap());
    }

    #[test]
    fn what_a_killed_server_left_is_removed_and_is_never_taken_for_a_backup() {
        let bench = Bench::new();
        bench.edit();
        bench.back_up();
        let unproved = bench.dir.path().join(UNPROVED);
        let unfinished = bench.dir.path().join(format!("{UNPROVED}.unfinished"));
        std::fs::write(&unproved, "half of a backup").unwrap();
        std::fs::write(&unfinished, "less of one").unwrap();
        std::fs::write(bench.dir.path().join("notes of the operator.txt"), "kept").unwrap();
        assert_eq!(bench.places(), [(0, 0)]);
        bench.edit();
        assert_eq!(bench.back_up(), Made::Continued);
        assert!(!unproved.exists() && !unfinished.exists());
        assert_eq!(disk::names(bench.dir.path()).unwrap().len(), 3, "what is not ours stays");
    }

    #[test]
    fn a_set_of_another_history_or_with_a_gap_is_not_continued_also_where_it_began_later() {
        let bench = Bench::new();
        bench.edit();
        let later = bench.server.now_ms() + 1_000_000;
        let of_another = Part { began_ms: later, nth: 0, made_ms: later, position: 1, event: "00".repeat(32) };
        std::fs::write(bench.dir.path().join(of_another.name()), "of a store that was lost").unwrap();
        assert_eq!((bench.back_up(), bench.places()), (Made::Whole, vec![(0, 0), (1, 0)]));
        assert_eq!(bench.restored().digest().unwrap(), bench.ledger.digest().unwrap());
        bench.edit();
        bench.back_up();
        let whole = parts(bench.dir.path()).unwrap().into_iter().rfind(|part| part.nth == 0).unwrap();
        disk::remove(&bench.dir.path().join(whole.name())).unwrap();
        bench.edit();
        assert_eq!(bench.back_up(), Made::Whole);
        assert_eq!(bench.restored().digest().unwrap(), bench.ledger.digest().unwrap());
    }

    #[test]
    fn a_backup_that_fails_is_told_of_and_takes_nothing_away() {
        let bench = Bench::new();
        bench.edit();
        let id = bench.ledger.info().id;
        let dir = bench.dir.path().join(id.to_string());
        bench.server.back_up_what_is_due();
        let good = bench.server.backup_state().unwrap().ledgers[&id].clone();
        assert!(good.last_good_ms.is_some() && good.fault.is_none());
        assert!(!bench.server.is_due(id, &dir), "it is not due again at once");
        // In the way of what is to be written.
        std::fs::create_dir(dir.join(UNPROVED)).unwrap();
        bench.edit();
        let made = bench.server.back_up_ledger(&bench.ledger, &dir);
        bench.server.note(id, "main", made);
        let bad = bench.server.backup_state().unwrap().ledgers[&id].clone();
        assert_eq!(bad.last_good_ms, good.last_good_ms);
        assert!(bad.fault.is_some() && parts(&dir).unwrap().len() == 1);
    }
}
