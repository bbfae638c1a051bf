//! Events whose parents are not here yet. They are held in memory, bounded, and nobody's cursor passes them.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, EventId, RunId};
use crate::{Error, ErrorKind, Result};

/// How many events may wait, and how many bytes they may take: what a peer sends out of order.
const EVENTS: usize = 65_536;
const BYTES: usize = 64 << 20;

/// About what holding an event takes beside its bytes.
const OVERHEAD: usize = 512;

/// An event that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) event: Event,
    pub(crate) run: Option<RunId>,
    bytes: usize,
    missing: BTreeSet<EventId>,
}

/// The events that wait in one ledger.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    events: BTreeMap<EventId, Waiter>,
    by_parent: BTreeMap<EventId, Vec<EventId>>,
    bytes: usize,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn contains(&self, id: &EventId) -> bool {
        self.events.contains_key(id)
    }

    /// Holds an event until its missing parents come.
    ///
    /// # Errors
    /// `too_large` where too many wait already: the sender must send the parents first.
    pub(crate) fn hold(
        &mut self,
        id: EventId,
        event: Event,
        run: Option<RunId>,
        missing: Vec<EventId>,
    ) -> Result<()> {
        let bytes = event.encode()?.len() + OVERHEAD;
        if self.events.len() >= EVENTS || self.bytes + bytes > BYTES {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{} events wait for their parents already", self.len()),
            )
            .with_hint("send the events that they were made on first"));
        }
        for parent in &missing {
            self.by_parent.entry(*parent).or_default().push(id);
        }
        self.bytes += bytes;
        self.events.insert(id, Waiter { event, run, bytes, missing: missing.into_iter().collect() });
        Ok(())
    }

    /// The events that waited for this one alone, and wait no more.
    pub(crate) fn arrived(&mut self, parent: &EventId) -> Vec<(EventId, Waiter)> {
        let mut free = Vec::new();
        for id in self.by_parent.remove(parent).unwrap_or_default() {
            let Some(waiter) = self.events.get_mut(&id) else { continue };
            waiter.missing.remove(parent);
            if waiter.missing.is_empty()
                && let Some(waiter) = self.events.remove(&id)
            {
                self.bytes -= waiter.bytes;
                free.push((id, waiter));
            }
        }
        free
    }

    /// Forgets what waits for an event that will never come, and what waits for that.
    pub(crate) fn give_up(&mut self, parent: EventId) {
        let mut gone = vec![parent];
        while let Some(parent) = gone.pop() {
            for id in self.by_parent.remove(&parent).unwrap_or_default() {
                if let Some(waiter) = self.events.remove(&id) {
                    self.bytes -= waiter.bytes;
                    gone.push(id);
                }
            }
        }
    }
}
