//! Threads on which the steps of sessions run.
//!
//! The thread that ended its work last gets the next: a session that moves much stays on one, whose memory is warm. A pool that
//! takes the one that has waited longest spreads a single session over all its threads, and each of them asks the system for
//! memory of its own.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// How many threads there are at most. What is more waits for those of the runtime.
const MOST: usize = 256;
/// After how long without work a thread ends.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Threads {
    /// Those that wait for work, by number, and how to give it to them.
    idle: Vec<(u64, SyncSender<Work>)>,
    running: usize,
    number: u64,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { idle: Vec::new(), running: 0, number: 0 });

fn threads() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins work that may wait for the disk. Gives what it comes to; an error where it panicked.
pub(super) fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (tell, told) = oneshot::channel();
    give(Box::new(move || drop(tell.send(work()))));
    told
}

/// Gives work to a thread.
fn give(mut work: Work) {
    let idle = threads().idle.pop();
    if let Some((_, thread)) = idle {
        match thread.send(work) {
            Ok(()) => return,
            Err(refused) => work = refused.0,
        }
    }
    let Some(running) = Running::one_more() else {
        drop(spawn_blocking(work));
        return;
    };
    let (give, take) = sync_channel(1);
    // There is room for one.
    let _ = give.send(work);
    // Where no thread can be had, the work is dropped, which who waits for it is told.
    let _ = std::thread::Builder::new().name("syncledger-step".into()).spawn(move || serve(&running, &give, &take));
}

/// Counts a thread as long as it runs, however it ends.
struct Running(u64);

impl Running {
    fn one_more() -> Option<Self> {
        let mut threads = threads();
        if threads.running >= MOST {
            return None;
        }
        threads.running += 1;
        threads.number += 1;
        Some(Self(threads.number))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        threads().running -= 1;
    }
}

fn serve(running: &Running, give: &SyncSender<Work>, take: &Receiver<Work>) {
    let mut work = take.recv().ok();
    while let Some(now) = work.take() {
        now();
        threads().idle.push((running.0, give.clone()));
        work = take.recv_timeout(IDLE).ok().or_else(|| {
            let mut threads = threads();
            let idle = threads.idle.len();
            threads.idle.retain(|(number, _)| *number != running.0);
            let is_wanted = threads.idle.len() == idle;
            drop(threads);
            // Somebody is about to give it work.
            if is_wanted { take.recv().ok() } else { None }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        begin(work).await.ok()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn work_runs_beside_other_work_and_what_panics_takes_nothing_with_it() {
        let (tell, told) = sync_channel::<()>(0);
        let waits = tokio::spawn(run(move || told.recv().is_ok()));
        assert_eq!(run(|| 2 + 2).await, Some(4));
        assert_eq!(run(|| if threads().number > 0 { panic!("on purpose") } else { 1 }).await, None);
        assert_eq!(run(|| 3).await, Some(3));
        run(move || tell.send(()).is_ok()).await;
        assert_eq!(waits.await.unwrap(), Some(true));
    }

    #[tokio::test]
    async fn one_piece_of_work_after_another_is_done_by_few_threads() {
        let mut names = BTreeSet::new();
        for _ in 0..50 {
            names.extend(run(|| format!("{:?}", thread::current().id())).await);
            // The thread says that it is idle after its answer.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(names.len() < 10, "{names:?}");
    }
}
