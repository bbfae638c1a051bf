//! The places of devices: the cursor that each presented last.
//!
//! One small file a device, below the server's own folder. It is not flushed to the disk: a place that a power cut loses makes more
//! edits concurrent, and loses none. An event for each download would fill the log with what nobody asks for again.

use std::sync::{Mutex, PoisonError};

use super::cursor::Cursor;
use crate::Result;
use crate::event::hex;
use crate::ledger::{Ledger, Store};
use crate::server::access::{Device, Safe};

/// The places of a server's devices.
pub(super) struct Places {
    safe: Safe,
    /// One change of a place at a time.
    turn: Mutex<()>,
}

impl Places {
    /// Those of a store.
    ///
    /// # Errors
    /// `permission` or `storage` where the folder cannot be made.
    pub(super) fn open(store: &Store) -> Result<Self> {
        let safe = Safe::open(store.dir().map(|dir| dir.join("server").join("places")))?;
        Ok(Self { safe, turn: Mutex::default() })
    }

    /// How far in the log the device has said to be; 0 where it never has, or where the log is another by now.
    ///
    /// # Errors
    /// `corrupt` or `storage`.
    pub(super) fn position(&self, ledger: &Ledger, device: &Device) -> Result<u64> {
        match self.cursor(ledger, device)? {
            Some(cursor) if cursor.is_of(ledger)? => Ok(cursor.position),
            _ => Ok(0),
        }
    }

    fn cursor(&self, ledger: &Ledger, device: &Device) -> Result<Option<Cursor>> {
        let bytes = self.safe.read(&name(ledger, device))?.unwrap_or_default();
        Ok(std::str::from_utf8(&bytes).ok().and_then(Cursor::parse))
    }

    /// Remembers the cursor that a device presents.
    ///
    /// # Errors
    /// `storage`.
    pub(super) fn remember(&self, ledger: &Ledger, device: &Device, cursor: &Cursor) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.cursor(ledger, device)?.as_ref() == Some(cursor) {
            return Ok(());
        }
        self.safe.write_lightly(&name(ledger, device), cursor.to_string().as_bytes())
    }
}

/// The name of a device's place: its id may hold what a file's name may not.
fn name(ledger: &Ledger, device: &Device) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("syncledger 2026-11 classic place v1");
    hasher.update(&ledger.info().id.0).update(device.id.as_bytes());
    let hash = hasher.finalize();
    hex(hash.as_bytes().split_at(16).0)
}
