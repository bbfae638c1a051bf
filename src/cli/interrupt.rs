//! Ctrl-C: long work ends after the chunk it is in, and says what is done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
#[cfg(unix)]
use signal_hook::consts::SIGTERM;
use signal_hook::flag;

use super::stop::Stop;
use crate::{Error, ErrorKind, Result};

/// Whether somebody wants the work to end. A second Ctrl-C ends the program at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        interrupt.heed(SIGINT)?;
        Ok(interrupt)
    }

    /// Listens for whoever ends what runs in the background, too: `kill`, or a supervisor.
    #[cfg(unix)]
    pub(crate) fn listen_for_all() -> io::Result<Self> {
        let interrupt = Self::listen()?;
        interrupt.heed(SIGTERM)?;
        Ok(interrupt)
    }

    fn heed(&self, signal: i32) -> io::Result<()> {
        // A shell says so of who was ended by a signal.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.0))?;
        flag::register(signal, Arc::clone(&self.0)).map(drop)
    }

    /// The error that ends the work of a library call, where it is time to end.
    pub(crate) fn check(&self) -> Result<()> {
        match self.is_set() {
            true => Err(Error::new(ErrorKind::Cancelled, "interrupted; what was done until then is durable")),
            false => Ok(()),
        }
    }

    /// How the program ends by an error, which may be that of [`Interrupt::check`].
    pub(crate) fn explain(&self, fault: Error, hint: &str) -> Stop {
        match fault.kind() {
            ErrorKind::Cancelled if self.is_set() => Stop::interrupted(fault.message()).hint(hint),
            _ => fault.into(),
        }
    }

    /// Makes it time to end.
    #[cfg(unix)]
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is time to end.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
