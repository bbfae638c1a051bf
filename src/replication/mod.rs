//! Replication: what two replicas of a ledger say to each other until each has what it wants of the other.
//!
//! ```text
//! ledger ──Input──► Session ──Output──► ledger           the same on both sides, no I/O, no clock of its own
//!                     │  ▲
//!               Message  Message  ◄──► wire (bytes) ◄──► memory, files, sockets: somebody else's
//! ```
//!
//! Each side opens with a [`Hello`]. Whoever wants events names a [`Cursor`], a position of the *other's* log up to which
//! it has everything, and gets what follows in the order of that log, so that parents come first. Batches are numbered
//! and acknowledged; no more of them are under way than the receiver allows. Nothing has to be kept for a session to be
//! right: a cursor only saves work, and one that does not fit the log any more is not believed.
//!
//! It knows no storage, no documents and no network. `docs/protocol.md` describes the messages and their bytes.
//!
//! Invariant: a cursor never passes an event that waits for its parents, or that is not durable.
//! Invariant: whatever comes from the other side, memory is bounded by the window and the limits of messages, and the
//! worst that happens is that the session ends with an error.

mod filter;
mod message;
mod receiving;
mod sending;
mod session;
mod wire;

pub use filter::{Condition, Filter};
pub(crate) use message::short;
pub use message::{BatchNumber, Bye, Cursor, Hello, Message, Refusal, ShortId, Wants};
pub use session::{Applied, Input, Output, Session, Settings};
pub use wire::{Framing, MOST_MESSAGE_BYTES, decode, encode, join, split};

/// The version of the protocol that this program speaks, the oldest and the newest.
pub const VERSIONS: (u16, u16) = (1, 1);
