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
pub(crate) use scheduled::{mpsc, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

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

    /// Channels as the standard library's, whose messages go with their receiver: the scheduler's own keep them, so that who waits for
    /// an answer to one of them would wait for ever.
    pub(crate) mod mpsc {
        use std::collections::VecDeque;
        use std::sync::PoisonError;
        pub(crate) use std::sync::mpsc::{RecvError, SendError, TryRecvError};

        use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};

        struct Channel<T> {
            state: Mutex<State<T>>,
            changed: Condvar,
        }

        struct State<T> {
            messages: VecDeque<T>,
            most: usize,
            senders: usize,
            is_received: bool,
        }

        pub(crate) struct Sender<T>(Arc<Channel<T>>);
        pub(crate) type SyncSender<T> = Sender<T>;
        pub(crate) struct Receiver<T>(Arc<Channel<T>>);

        pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
            sync_channel(usize::MAX)
        }

        pub(crate) fn sync_channel<T>(most: usize) -> (SyncSender<T>, Receiver<T>) {
            let state = State { messages: VecDeque::new(), most: most.max(1), senders: 1, is_received: true };
            let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
            (Sender(channel.clone()), Receiver(channel))
        }

        impl<T> Channel<T> {
            fn state(&self) -> MutexGuard<'_, State<T>> {
                self.state.lock().unwrap_or_else(PoisonError::into_inner)
            }

            fn wait_while(&self, waits: impl FnMut(&mut State<T>) -> bool) -> MutexGuard<'_, State<T>> {
                self.changed.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner)
            }
        }

        impl<T> Sender<T> {
            pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
                let mut state = self.0.wait_while(|state| state.is_received && state.messages.len() >= state.most);
                if !state.is_received {
                    return Err(SendError(message));
                }
                state.messages.push_back(message);
                drop(state);
                self.0.changed.notify_all();
                Ok(())
            }
        }

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                self.0.state().senders += 1;
                Self(self.0.clone())
            }
        }

        impl<T> Drop for Sender<T> {
            fn drop(&mut self) {
                self.0.state().senders -= 1;
                self.0.changed.notify_all();
            }
        }

        impl<T> Receiver<T> {
            pub(crate) fn recv(&self) -> Result<T, RecvError> {
                let mut state = self.0.wait_while(|state| state.messages.is_empty() && state.senders > 0);
                let message = state.messages.pop_front();
                drop(state);
                self.0.changed.notify_all();
                message.ok_or(RecvError)
            }

            pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
                let mut state = self.0.state();
                let ended = if state.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty };
                let message = state.messages.pop_front();
                drop(state);
                self.0.changed.notify_all();
                message.ok_or(ended)
            }
        }

        impl<T> Drop for Receiver<T> {
            fn drop(&mut self) {
                let mut state = self.0.state();
                state.is_received = false;
                let messages = std::mem::take(&mut state.messages);
                drop(state);
                self.0.changed.notify_all();
                drop(messages);
            }
        }

        impl<T> Iterator for Receiver<T> {
            type Item = T;

            fn next(&mut self) -> Option<T> {
                self.recv().ok()
            }
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
