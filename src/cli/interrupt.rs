//! Ctrl-C: long work ends after the chunk it is in, and says what is done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
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
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&interrupt.0))?;
        flag::register(SIGINT, Arc::clone(&interrupt.0))?;
        Ok(interrupt)
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

    /// Whether it is time to end.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
