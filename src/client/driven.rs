//! A client whose messages somebody else carries, without a server to connect to, threads or a runtime: for simulations. What it
//! sends, notes, stamps anew and lists is what any client does. Behind the feature `testing`.

use std::sync::{Arc, PoisonError};

use tokio::sync::OwnedRwLockReadGuard;

use super::lifecycle::{Happened, Synced};
use super::notes::Notes;
use super::place::{Memory, Place};
use super::session::{Purpose, Watched};
use super::tokens::Tokens;
use super::{Client, ClientOptions, Ways, is_busy, purpose};
use crate::ledger::{Ledger, Peer, Rewritten};
use crate::replication::Message;
use crate::{Error, Result};

/// What a client keeps beside its ledger, on a disk in memory: it outlives the client.
#[derive(Debug, Default)]
pub struct Kept(Memory);

impl Kept {
    /// A copy of it as it is now.
    #[must_use]
    pub fn copy(&self) -> Self {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self(Memory::new(bytes.into()))
    }
}

/// An attempt to sync that is under way.
pub struct Driven {
    client: Client,
    peer: Peer,
    watched: Watched,
    follows: bool,
    _session: OwnedRwLockReadGuard<()>,
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driven").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of a ledger that somebody drives, with what was kept by the one before.
    ///
    /// # Errors
    /// `corrupt`, `storage`.
    pub fn driven(ledger: &Ledger, kept: &Kept, options: ClientOptions) -> Result<Self> {
        let tokens = Tokens::of_nobody(ledger)?;
        let notes = Notes::at(Place::Memory(kept.0.clone()), ledger, &tokens.url())?;
        Ok(Self::noting(ledger, notes, tokens, options))
    }

    /// Stamps anew what was refused for its stamp or its writer, as each attempt that sends does first, where one may be made now.
    /// What became of the log, where anything was.
    ///
    /// # Errors
    /// `circuit_open`; `corrupt`, `storage`.
    pub fn prepare(&self) -> Result<Option<Rewritten>> {
        self.0.circuit().check(self.0.now_ms())?;
        match self.0.notes.known().to_stamp().is_empty() {
            true => Ok(None),
            false => self.stamp_again(),
        }
    }

    /// Begins an attempt, and says its first words.
    ///
    /// # Errors
    /// As those of [`Client::sync`] that need no server.
    pub fn drive(&self, ways: Ways, collections: &[&str], follows: bool) -> Result<(Driven, Vec<Message>)> {
        let purpose = Purpose { follows, ..purpose(ways, collections) };
        let session = self.0.notes.session().ok_or_else(is_busy)?;
        self.0.tell(Happened::Started);
        let (mut peer, _) = self.begin_now(&purpose)?;
        let watched = Watched::begin(&self.0, &Arc::default())?;
        let words = peer.begin();
        let client = self.clone();
        Ok((Driven { client, peer, watched, follows, _session: session }, words))
    }
}

impl Driven {
    /// The session's end here.
    pub fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    /// Notes what a step of the session has come to. Returns what it says of its own accord then.
    pub fn note(&mut self) -> Vec<Message> {
        match self.watched.after_each(&mut self.peer, self.follows) {
            Err(fault) if !self.peer.is_ended() => self.peer.fail(fault),
            _ => Vec::new(),
        }
    }

    /// Ends the attempt: with why, where the line broke.
    ///
    /// # Errors
    /// As [`Client::sync`].
    pub fn finish(self, broken: Option<Error>) -> Result<Synced> {
        let Self { client, mut peer, watched, .. } = self;
        let outcome = match broken {
            Some(fault) => Err(fault),
            None => peer.finish(),
        };
        client.note_now(watched.conclude(Some(peer), outcome)).map_err(|fault| fault.error)
    }
}
