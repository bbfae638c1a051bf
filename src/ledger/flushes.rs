//! How long the log's appends take until they are durable, and how many changes wait for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock;

/// Upper bounds of the durations that are told apart, in microseconds.
const BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];

/// What is counted of a store's appends. Counting is a few additions for each append, which waits for the disk anyway.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    /// How many took at most as long as each bound, and longer than the one before.
    within: [AtomicU64; BOUNDS_US.len()],
    count: AtomicU64,
    total_us: AtomicU64,
    waiting: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flushed {
    /// Upper bounds in seconds, and how many appends took at most as long.
    pub within: Vec<(f64, u64)>,
    /// How many appends there were.
    pub count: u64,
    /// How long they took together.
    pub total: Duration,
    /// How many changes wait until they are durable.
    pub waiting: u64,
}

impl Flushes {
    /// Counts how long an append takes.
    pub(crate) fn timed<T>(&self, append: impl FnOnce() -> T) -> T {
        let (done, took) = clock::timed(append);
        self.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        done
    }

    fn add(&self, took_us: u64) {
        let bounds = BOUNDS_US.iter().zip(&self.within);
        if let Some((_, count)) = bounds.into_iter().find(|(bound, _)| took_us <= **bound) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// Counts a change among those that wait, as long as the work takes.
    pub(crate) fn waiting<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Waits<'a>(&'a AtomicU64);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        work()
    }

    /// What was counted so far.
    pub(crate) fn so_far(&self) -> Flushed {
        let mut sum = 0;
        let bounds = BOUNDS_US.iter().zip(&self.within);
        let within = bounds.map(|(bound, count)| {
            sum += count.load(Ordering::Relaxed);
            (Duration::from_micros(*bound).as_secs_f64(), sum)
        });
        Flushed {
            within: within.collect(),
            count: self.count.load(Ordering::Relaxed),
            total: Duration::from_micros(self.total_us.load(Ordering::Relaxed)),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_counted_up_to_each_bound_and_those_that_take_longer_in_all() {
        let flushes = Flushes::default();
        [50, 100, 101, 3_000_000].into_iter().for_each(|took| flushes.add(took));
        let so_far = flushes.so_far();
        assert_eq!((so_far.within[0], so_far.within[1]), ((0.0001, 2), (0.00025, 3)));
        assert_eq!((so_far.within.last().unwrap().1, so_far.count), (3, 4));
        assert_eq!(so_far.total, Duration::from_micros(3_000_251));
        assert_eq!(flushes.waiting(|| flushes.so_far().waiting), 1);
        assert_eq!(flushes.so_far().waiting, 0);
    }
}
