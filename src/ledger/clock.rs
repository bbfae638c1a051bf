//! The one place that reads the wall clock and the system's randomness.

use super::shared::World;
use crate::{Error, ErrorKind, Result};

/// The real time and randomness.
pub(crate) fn world() -> World {
    World { now: Box::new(now_ms), random: Box::new(random) }
}

#[expect(clippy::disallowed_methods, reason = "this is where the time that others take as an argument comes from")]
fn now_ms() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Does something, and says how long it took.
#[expect(
    clippy::disallowed_methods,
    reason = "durations are measured here alone: nothing that is kept follows from them"
)]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, std::time::Duration) {
    let started = std::time::Instant::now();
    let done = work();
    (done, started.elapsed())
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|fault| Error::new(ErrorKind::Storage, format!("the system gave no random bytes: {fault}")))?;
    Ok(bytes)
}
