//! The rules of order that every engine shares: what may be appended, and what a page of frames may hold.
//!
//! Pure: engines find the bytes.

use std::collections::BTreeMap;

use super::error::JournalError;
use super::{Append, Frame};
use crate::event::LedgerId;

/// Where each ledger ends while a batch is being admitted.
pub(super) struct Ends<F> {
    head: F,
    ends: BTreeMap<LedgerId, u64>,
}

impl<F: Fn(LedgerId) -> Result<u64, JournalError>> Ends<F> {
    /// Starts from the heads that `head` tells.
    pub(super) fn new(head: F) -> Self {
        Self { head, ends: BTreeMap::new() }
    }

    /// Admits frames that continue the ledger without a gap.
    pub(super) fn admit(&mut self, append: &Append) -> Result<(), JournalError> {
        let (ledger, expected) = (append.ledger, append.expected_head);
        let found = self.ends.get(&ledger).copied().map_or_else(|| (self.head)(ledger), Ok)?;
        if found != expected {
            return Err(JournalError::WrongHead { ledger, expected, found });
        }
        let end = append.frames.iter().try_fold(found, |end, frame| continued(ledger, end, frame))?;
        self.ends.insert(ledger, end);
        Ok(())
    }
}

fn continued(ledger: LedgerId, end: u64, frame: &Frame) -> Result<u64, JournalError> {
    if end.checked_add(1) == Some(frame.first) {
        return Ok(frame.last);
    }
    let what = format!("the frame after position {end} begins at {}", frame.first);
    Err(JournalError::Invalid { ledger, what })
}

/// The frames that a reader gets at once.
pub(super) struct Page {
    ledger: LedgerId,
    /// The next position to find.
    pub(super) next: u64,
    left: Option<usize>,
    /// The frames found.
    pub(super) frames: Vec<Frame>,
}

impl Page {
    /// A page that starts after `position` and ends once `max_bytes` of payload are exceeded.
    pub(super) fn new(ledger: LedgerId, position: u64, max_bytes: usize) -> Self {
        Self { ledger, next: position.saturating_add(1), left: Some(max_bytes), frames: Vec::new() }
    }

    /// Whether another frame belongs on the page of a ledger that ends at `head`.
    pub(super) fn wants(&self, head: u64) -> bool {
        self.left.is_some() && self.next <= head
    }

    /// Adds the encoded frame that must hold the next position.
    pub(super) fn add(&mut self, encoded: &[u8]) -> Result<(), JournalError> {
        let frame = Frame::decode_expecting(self.ledger, self.next, encoded)?;
        let continues = self.frames.is_empty() || frame.first == self.next;
        if !continues || frame.first > self.next || frame.last < self.next {
            return Err(self.gap());
        }
        self.next = frame.last + 1;
        self.left = self.left.and_then(|left| left.checked_sub(frame.payload.len())).filter(|left| *left > 0);
        self.frames.push(frame);
        Ok(())
    }

    /// The error for a position before the head that no frame holds.
    pub(super) fn gap(&self) -> JournalError {
        JournalError::corrupt(self.ledger, self.next, "no frame holds this position")
    }
}
