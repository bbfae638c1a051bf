//! What becomes of refused edits: they are stamped anew by themselves, where their stamps or their writer were at fault, or taken
//! back, where somebody asks for that.
//!
//! Only what the server has refused is stamped anew, with what was made on it. What it has not acknowledged may be there, its
//! answer lost: made a second time, it would count, or be written, twice. Once it is sent, it is known or refused too.

use std::collections::BTreeSet;

use tokio::task::spawn_blocking;
use tracing::warn;

use super::lifecycle::Happened;
use super::outbox::{self, Queued};
use super::{Client, is_busy};
use crate::event::EventId;
use crate::ledger::{Again, Rewritten};
use crate::{Error, ErrorKind, Result};

impl Client {
    /// Takes edits back that the server has refused: they go from the log here, with what was made on them, and their records show
    /// what they did before. Returns what went, in the order of the log. The ledger takes a new writer, and its positions change;
    /// the next session looks through the log from its beginning. Blocks.
    ///
    /// # Errors
    /// `not_found` where the server has not refused one, or the archive of the log is not there; `conflict` where another replica
    /// has made something on one; `locked` where a session of a client of this ledger is under way; `corrupt`, `storage`. But for
    /// the last, nothing has changed then.
    pub fn take_back(&self, events: &[EventId]) -> Result<Vec<Queued>> {
        let inner = &*self.0;
        let _turn = inner.turn.try_lock().map_err(|_| is_busy())?;
        let _alone = inner.notes.alone().ok_or_else(is_busy)?;
        let known = inner.notes.known();
        let named: BTreeSet<String> = events.iter().map(ToString::to_string).collect();
        if let Some(id) = named.iter().find(|id| !known.rejected.contains_key(*id)) {
            let message = format!("the server has not refused event {id}");
            return Err(Error::new(ErrorKind::NotFound, message)
                .with_hint("see `syncledger queue`; take back what the server has with `syncledger revert`"));
        }
        let held = outbox::held(&inner.ledger, named.iter())?;
        let withdraw: BTreeSet<EventId> = held.iter().filter_map(|id| id.parse().ok()).collect();
        let mut gone = Vec::new();
        if !withdraw.is_empty() {
            let done = inner.ledger.write_again(&Again { withdraw, ..Again::default() })?;
            self.follow_log(&done)?;
            gone = outbox::taken_back(done.withdrawn, &known);
        }
        // What is in no log here any more is only listed.
        inner.notes.change(|known| known.rejected.retain(|event, _| !named.contains(event)))?;
        Ok(gone)
    }

    /// Stamps anew what the server has refused for its stamp or its writer, if anything.
    pub(super) async fn stamp_again_where_due(&self) -> Result<()> {
        if self.0.notes.known().to_stamp().is_empty() {
            return Ok(());
        }
        let client = self.clone();
        let done = spawn_blocking(move || client.stamp_again()).await;
        done.map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime has ended"))?.map(drop)
    }

    /// Stamps it anew. What became of the log, where anything was.
    pub(super) fn stamp_again(&self) -> Result<Option<Rewritten>> {
        let inner = &*self.0;
        // While another client of the ledger has a session, this one does without.
        let Some(_alone) = inner.notes.alone() else { return Ok(None) };
        let known = inner.notes.known();
        inner.notes.change(super::notes::Known::begin_stamping)?;
        // What others stamped is theirs.
        let stamp_again = outbox::stamped_here(&inner.ledger, &known.to_stamp())?;
        if stamp_again.is_empty() {
            return Ok(None);
        }
        let again = Again { stamp_again, shift_ms: known.clock_offset_ms, ..Again::default() };
        match inner.ledger.write_again(&again) {
            Ok(done) => {
                self.stamped_again(&done)?;
                Ok(Some(done))
            }
            Err(fault) if matches!(fault.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                // They stay listed, and everything else goes on.
                warn!(code = fault.code(), "refused edits cannot be stamped anew: {fault}");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    fn stamped_again(&self, done: &Rewritten) -> Result<()> {
        let events = done.stamped.len() as u64;
        self.follow_log(done)?;
        self.0.statistics().stamped_again += events;
        self.0.tell(Happened::StampedAgain { events });
        Ok(())
    }

    fn follow_log(&self, done: &Rewritten) -> Result<()> {
        self.0.notes.change(|known| known.follow(done))
    }
}
