//! The local control channel: a store is held by one process, which runs the commands of the others on it.
//!
//! ```text
//! caller ── connects to STORE/control ──► holder          each first says its hello: a magic word and its version
//!        ── request, with stdout and stderr ──►           arguments, directory, what the streams are good for
//!        ◄── wants input, listens for Ctrl-C ──           as often as the command asks
//!        ── input, listens, cancel ──►
//!        ◄── ended, with the exit code ──                 or refused: then nothing was run
//! ```
//!
//! The caller lends the two streams as file descriptors, so the command writes to its terminal, pipe or file itself.
//! Stdin stays with the caller, which reads it when the command asks: a holder that read the caller's terminal would be
//! stopped as a process in its background, and would go on taking what is typed there after the caller has gone.
//!
//! Invariant: a connection whose other end is of another user, speaks another version, sends too much or too slowly runs
//! nothing, and costs the holder one thread for some seconds. Once a caller has gone nothing is written to its streams.
//! What one side lacks of the other it never makes up: input that ends because the caller has gone is an error, not an end.

mod holder;
mod line;
mod place;
mod relay;
mod wire;

pub(crate) use holder::Control;
pub(crate) use relay::relay;

use std::time::Duration;

/// How long either side waits for what the other has to say at once: its hello, and the request.
const PATIENCE: Duration = Duration::from_secs(5);
