//! How many requests are at work, or wait for it, at a time.
//!
//! Work that may wait for the disk runs on threads, of which there are only so many; what comes above that would queue without an
//! end. So who comes when too many are there is sent away, with when to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, ErrorKind, Result};

/// The jobs of a server.
pub(super) struct Jobs {
    most: usize,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    there: AtomicUsize,
    at_work: AtomicUsize,
}

/// A job, until dropped.
pub(super) struct Job {
    counts: Arc<Counts>,
    is_at_work: bool,
}

impl Jobs {
    /// At most so many at a time.
    pub(super) fn of(most: u32) -> Self {
        Self { most: most as usize, counts: Arc::default() }
    }

    /// Takes one on.
    ///
    /// # Errors
    /// `locked`, which is answered with 503 and when to come again.
    pub(super) fn take(&self) -> Result<Job> {
        let job = self.take_own();
        if self.counts.there.load(Ordering::Relaxed) > self.most {
            let message = format!("the server is at work on {} requests already", self.most);
            return Err(Error::new(ErrorKind::Locked, message).with_hint("try again in a moment"));
        }
        Ok(job)
    }

    /// Takes one on that is the server's own: there are few, and nobody else could do them.
    pub(super) fn take_own(&self) -> Job {
        self.counts.there.fetch_add(1, Ordering::Relaxed);
        Job { counts: self.counts.clone(), is_at_work: false }
    }

    /// How many wait for a thread, and how many have one.
    pub(super) fn counts(&self) -> (usize, usize) {
        let at_work = self.counts.at_work.load(Ordering::Relaxed);
        (self.counts.there.load(Ordering::Relaxed).saturating_sub(at_work), at_work)
    }
}

impl Job {
    /// Does the work, on the thread that was waited for.
    pub(super) fn run<T>(mut self, work: impl FnOnce() -> T) -> T {
        self.counts.at_work.fetch_add(1, Ordering::Relaxed);
        self.is_at_work = true;
        work()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_at_work {
            self.counts.at_work.fetch_sub(1, Ordering::Relaxed);
        }
        self.counts.there.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_jobs_and_each_that_ends_makes_room() {
        let jobs = Jobs::of(2);
        let (first, second) = (jobs.take().unwrap(), jobs.take().unwrap());
        assert_eq!(jobs.take().err().unwrap().kind(), ErrorKind::Locked);
        let own = jobs.take_own();
        assert_eq!(first.run(|| jobs.counts()), (2, 1));
        drop((second, own));
        assert_eq!(jobs.counts(), (0, 0));
        assert!(jobs.take().is_ok());
    }
}
