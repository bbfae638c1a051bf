//! The durable heads that everybody may see, and the end of a journal's life.
//!
//! Invariant: a head is published only after the frames up to it are durable, and never goes back while its ledger
//! exists.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use super::error::JournalError;
use crate::event::LedgerId;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The published heads of one engine; waiting for more happens here.
#[derive(Default)]
pub(super) struct Heads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    heads: BTreeMap<LedgerId, u64>,
    poisoned: Option<String>,
    closed: bool,
}

impl Heads {
    pub(super) fn head(&self, ledger: LedgerId) -> Option<u64> {
        self.lock().heads.get(&ledger).copied()
    }

    /// The durable head, for a reader: closed journals and unknown ledgers are errors, poisoned ones are not.
    pub(super) fn readable(&self, ledger: LedgerId) -> Result<u64, JournalError> {
        self.lock().readable(ledger)
    }

    /// Whether the journal may still be written.
    pub(super) fn writable(&self) -> Result<(), JournalError> {
        self.lock().writable()
    }

    pub(super) fn publish(&self, heads: impl IntoIterator<Item = (LedgerId, u64)>) {
        self.lock().heads.extend(heads);
        self.changed.notify_all();
    }

    pub(super) fn forget(&self, ledger: LedgerId) {
        self.lock().heads.remove(&ledger);
        self.changed.notify_all();
    }

    /// Ends writing for good and returns the error that ended it.
    pub(super) fn poison(&self, fault: JournalError) -> JournalError {
        tracing::error!(%fault, "the journal stops: a write failed");
        self.lock().poisoned.get_or_insert_with(|| fault.to_string());
        self.changed.notify_all();
        JournalError::Poisoned { reason: fault.to_string() }
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.lock().poisoned.is_some()
    }

    /// Closes; `false` if it was closed before.
    pub(super) fn close(&self) -> bool {
        let was = std::mem::replace(&mut self.lock().closed, true);
        self.changed.notify_all();
        !was
    }

    pub(super) fn wait(&self, ledger: LedgerId, after: u64, timeout: Duration) -> Result<u64, JournalError> {
        let waits = |state: &mut State| state.waitable(ledger).is_ok_and(|head| head <= after);
        let (state, _) =
            self.changed.wait_timeout_while(self.lock(), timeout, waits).unwrap_or_else(PoisonError::into_inner);
        match state.readable(ledger)? {
            head if head > after => Ok(head),
            _ => state.waitable(ledger),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn readable(&self, ledger: LedgerId) -> Result<u64, JournalError> {
        if self.closed {
            return Err(JournalError::Closed);
        }
        self.heads.get(&ledger).copied().ok_or(JournalError::UnknownLedger { ledger })
    }

    fn writable(&self) -> Result<(), JournalError> {
        match &self.poisoned {
            _ if self.closed => Err(JournalError::Closed),
            Some(reason) => Err(JournalError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// The head, where it makes sense to wait for a greater one.
    fn waitable(&self, ledger: LedgerId) -> Result<u64, JournalError> {
        self.writable()?;
        self.readable(ledger)
    }
}
