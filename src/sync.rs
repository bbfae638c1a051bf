//! Locks, channels and threads of what many threads meet in: the journal's heads, the queue to the writer thread, what is
//! shown to readers and who follows.
//!
//! They are the standard library's. Under `cfg(shuttle)` they are those of a scheduler, which runs one thread at a time and
//! chooses at every lock, channel and wake-up which goes on: `tests/concurrency` tries many such orders.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, mpsc};
#[cfg(not(shuttle))]
pub(crate) use std::thread;

#[cfg(shuttle)]
pub(crate) use scheduled::Condvar;
#[cfg(shuttle)]
pub(crate) use scheduled::thread;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, mpsc};

/// What the scheduler's own lacks.
#[cfg(shuttle)]
mod scheduled {
    use std::sync::LockResult;
    use std::time::Duration;

    use shuttle::sync::MutexGuard;

    /// No time passes here: who waits does so until it is woken, and one that nobody wakes is a fault that the scheduler
    /// finds. Who would wait for no time at all looks once.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait_timeout_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            timeout: Duration,
            mut waits: impl FnMut(&mut T) -> bool,
        ) -> LockResult<(MutexGuard<'a, T>, bool)> {
            if timeout.is_zero() {
                let timed_out = waits(&mut guard);
                return Ok((guard, timed_out));
            }
            let waited = self.0.wait_while(guard, waits);
            waited
                .map(|guard| (guard, false))
                .map_err(|fault| std::sync::PoisonError::new((fault.into_inner(), false)))
        }
    }

    /// Threads that also say whether they have ended.
    pub(crate) mod thread {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        pub(crate) use shuttle::thread::scope;

        pub(crate) struct JoinHandle<T> {
            thread: shuttle::thread::JoinHandle<T>,
            ended: Arc<AtomicBool>,
        }

        impl<T> JoinHandle<T> {
            pub(crate) fn is_finished(&self) -> bool {
                self.ended.load(Ordering::Relaxed)
            }

            pub(crate) fn join(self) -> std::thread::Result<T> {
                self.thread.join()
            }
        }

        struct Ends(Arc<AtomicBool>);

        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        pub(crate) struct Builder(shuttle::thread::Builder);

        impl Builder {
            pub(crate) fn new() -> Self {
                Self(shuttle::thread::Builder::new())
            }

            pub(crate) fn name(self, name: String) -> Self {
                Self(self.0.name(name))
            }

            pub(crate) fn spawn<T: Send + 'static>(
                self,
                work: impl FnOnce() -> T + Send + 'static,
            ) -> std::io::Result<JoinHandle<T>> {
                let ended = Arc::new(AtomicBool::new(false));
                let ends = Ends(ended.clone());
                let thread = self.0.spawn(move || {
                    let _ends = ends;
                    work()
                })?;
                Ok(JoinHandle { thread, ended })
            }
        }
    }
}
