//! Writing a log again: without events of this installation that no other replica has, or with these stamped anew.
//!
//! Events never change, and no log skips one. What has to go, or to be another event, needs a log of its own: the same
//! ledger, the other events in their order, and then those that were stamped anew, under a new writer.
//!
//! ```text
//! read the log ─► what goes, what is stamped anew, and what was made on either ─► derive the records of these, for trial
//!   ─► write the new log to a file, fsync, read it back ─► rename (from here on the new log holds)
//!   ─► drop the old log ─► append the new one ─► remove the file ─► derive
//! ```
//! Until the file has its name nothing has happened; from then on opening the store does the rest, as often as it takes.
//!
//! Invariant: an event of somebody else is in the new log exactly as it was in the old one.
//! Invariant: nothing is dropped before a proved file on the disk holds the new log.

mod places;
mod plan;
mod replace;
mod stamping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use tracing::info_span;

use super::{Entry, Ledger};
use crate::event::{EventId, WriterId};
use crate::{Error, ErrorKind, Result};
use places::Places;

pub(crate) use plan::{Plan, plan};
pub(crate) use replace::{finish_all, replace, write};

/// Which events are to go, and which are to be stamped anew. Both are events of this installation that nobody else has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Those that are taken out of the log. What was made on them goes with them.
    pub withdraw: BTreeSet<EventId>,
    /// Those that are made once more under the new writer. So is what was made on them.
    pub stamp_again: BTreeSet<EventId>,
    /// By how much the stamps were wrong of those that are stamped anew and lie in the future, in milliseconds: what has to be
    /// added to them.
    pub shift_ms: i64,
}

/// What writing a log again came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// The writer under which this installation stamps from now on.
    pub writer: WriterId,
    /// What went, in the order of the old log, as it was there.
    pub withdrawn: Vec<Entry>,
    /// What was stamped anew, and what it is now.
    pub stamped: BTreeMap<EventId, EventId>,
    /// How many events the log has now.
    pub events: u64,
    places: Places,
}

impl Rewritten {
    /// The position in the new log up to which it holds what stayed of the old one up to a position.
    #[must_use]
    pub fn position(&self, before: u64) -> u64 {
        self.places.upto(before)
    }

    /// Whether an event is in the log no more, as it was.
    #[must_use]
    pub fn is_gone(&self, event: &EventId) -> bool {
        self.stamped.contains_key(event) || self.withdrawn.iter().any(|entry| entry.id == *event)
    }
}

impl Ledger {
    /// Writes the log again, without some events of this installation, or with some of them stamped anew, and takes a new
    /// writer. Nothing is appended meanwhile, and nobody reads.
    ///
    /// Only events that no other replica has may be named: one that another has comes back from there, beside the one that was
    /// stamped anew. Positions change, sessions that are open end, and other replicas look through the log from its beginning.
    ///
    /// # Errors
    /// `validation` where nothing is named; `not_found` where an event is not in the log, or a file of its archive is not there;
    /// `conflict` where an event is not of this installation, or one of another was made on it; `corrupt`. Nothing has changed
    /// then. `storage` where the disk failed: the store is to be opened again, which brings it to an end.
    pub fn write_again(&self, again: &Again) -> Result<Rewritten> {
        let (id, again) = (self.id(), again.clone());
        let span = info_span!("write again", ledger = %id);
        let _entered = span.enter();
        if again.withdraw.is_empty() && again.stamp_again.is_empty() {
            let message = "expected at least one event to withdraw or to stamp again";
            return Err(Error::new(ErrorKind::Validation, message));
        }
        let done = self.store.queue().write_again(id, again)?;
        self.store.stamp_as(&self.name, done.writer);
        Ok(done)
    }
}

impl Ledger {
    /// By how much the clock of this machine is taken to be wrong where events of this ledger are stamped, in milliseconds.
    #[must_use]
    pub fn clock_offset_ms(&self) -> i64 {
        self.shared().clock_offset_ms(self.id())
    }

    /// Says by how much the clock of this machine is wrong, in milliseconds: events of this ledger are stamped with its time and
    /// this added to it, from now on and until the store is closed.
    pub fn set_clock_offset_ms(&self, offset_ms: i64) {
        self.shared().set_clock_offset_ms(self.id(), offset_ms);
    }
}

#[cfg(feature = "client")]
impl Ledger {
    /// The writers under which this installation has stamped, the present one first.
    pub(crate) fn own_writers(&self) -> Vec<WriterId> {
        self.shared().own_writers(self.id())
    }
}

/// What a session, or who follows the log, is told when the log was written again under it.
pub(super) fn written_again() -> Error {
    Error::new(ErrorKind::Cancelled, "the log was written again, under a new writer: its positions are others now")
        .with_hint("begin again")
}
