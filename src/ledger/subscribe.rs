//! Following the log.

use std::collections::VecDeque;
use std::time::Duration;

use super::rewrite::written_again;
use super::{Entry, Ledger};
use crate::event::WriterId;
use crate::{Error, ErrorKind, Result};

/// How many entries are read ahead.
const AHEAD: usize = 1_024;
/// How long one wait for more takes: only to notice that nobody follows any more.
const WAIT: Duration = Duration::from_secs(60);

/// Every event after a position, in order, without gap or duplicate: first those that are there, then those that come.
/// It reads at its own speed and never slows the writer. Ends when the store is closed; and with `conflict` when the log was
/// written again ([`Ledger::write_again`]): its positions are others then.
#[derive(Debug)]
pub struct Subscription {
    ledger: Ledger,
    /// The writer of the ledger when it began: with another one its log is another.
    writer: WriterId,
    position: u64,
    ahead: VecDeque<Entry>,
    ended: bool,
}

impl Ledger {
    /// Follows the log after a position.
    #[must_use]
    pub fn subscribe(&self, after: u64) -> Subscription {
        let writer = self.info().writer;
        Subscription { ledger: self.clone(), writer, position: after, ahead: VecDeque::new(), ended: false }
    }
}

impl Subscription {
    /// The position of the last entry that was given: where to go on another time.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; `None` when none came in time, or no more will come.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Entry>> {
        if self.ended {
            return None;
        }
        match self.advance(timeout) {
            Ok(entry) => {
                self.position = entry.as_ref().map_or(self.position, |entry| entry.position);
                entry.map(Ok)
            }
            Err(fault) => {
                self.ended = true;
                if fault.kind() == ErrorKind::Cancelled { None } else { Some(Err(fault)) }
            }
        }
    }

    /// Whether no more will come.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn advance(&mut self, timeout: Duration) -> Result<Option<Entry>> {
        if self.ledger.info().writer != self.writer {
            return Err(Error::new(ErrorKind::Conflict, written_again().message()).with_hint("begin at position 0"));
        }
        if let Some(entry) = self.ahead.pop_front() {
            return Ok(Some(entry));
        }
        let journal = &self.ledger.shared().journal;
        let head = journal.wait(self.ledger.id(), self.position, timeout)?;
        // Who is given an event finds it in what is shown.
        let head = head.min(self.ledger.shared().await_shown(self.ledger.id(), head, WAIT));
        let ahead = &mut self.ahead;
        self.ledger.log_reader().each(self.position, head, |entry| {
            ahead.push_back(entry);
            Ok(ahead.len() < AHEAD)
        })?;
        Ok(self.ahead.pop_front())
    }
}

impl Iterator for Subscription {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let next = self.next_timeout(WAIT);
            if next.is_some() {
                return next;
            }
        }
        None
    }
}
