//! The writer thread: the only place that appends.
//!
//! Callers queue on a bounded channel. The thread takes what has queued up, drafts and admits each request against what
//! came before it, appends all of it in one durable commit, shows it to readers and only then answers.
//!
//! Invariant: nobody is answered, and no reader sees an event, before it is durable. After a failed commit the store is
//! poisoned: every later request fails until it is opened again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::{debug, info_span, warn};

use super::archive::Archive;
use super::flushes::Flushes;
use super::log::Log;
use super::packing;
use super::request::{Entry, Rebuilt};
use super::rewrite::{self, Again, Rewritten};
use super::seal::{self, Amount, Sealing};
use super::shared::{MARK, Shared};
use super::state::{self, State};
use crate::event::{LedgerId, WriterId};
use crate::journal::rows::Changes;
use crate::journal::{Append, LedgerEntry};
use crate::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sync::thread::{self, JoinHandle};
use crate::{Error, ErrorKind, Result};

/// How many requests may queue before callers block.
const QUEUE: usize = if cfg!(shuttle) { 2 } else { 1_024 };
/// How many requests one commit takes in at most.
const GROUP: usize = if cfg!(shuttle) { 2 } else { 512 };
/// How many events one commit takes in, about.
const GROUP_EVENTS: usize = 8_192;
/// How many times as much as one sealed file takes may wait in the journal.
const MOST_UNSEALED: u64 = 8;
/// How many records are saved in one write of rows.
const SAVED_AT_ONCE: usize = 256;
/// When derived state is written: only tests take other figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checkpoints {
    /// How many rows may wait for a checkpoint.
    pub(crate) rows: usize,
    /// How many events may follow the last checkpoint: they are replayed when the store is opened after a crash.
    pub(crate) events: u64,
    /// How many events make a snapshot of a record worth while: fewer are derived again as fast as a snapshot loads.
    pub(crate) snapshot: usize,
}

/// When work beside the writing is begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) checkpoints: Checkpoints,
    pub(crate) sealing: Sealing,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { rows: 16_384, events: 65_536, snapshot: 32 }
    }
}

/// A ledger in the hands of the writer thread.
pub(crate) struct Writing<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) state: &'a mut State,
    /// Whether nothing of the work is to stay.
    pub(crate) dry: bool,
    /// Whether the ledger itself writes: its own collections too.
    pub(crate) own: bool,
}

/// Work on one ledger in the writer thread.
trait Work: Send {
    fn run(&mut self, writing: &mut Writing<'_>);
    /// Answers the caller: with what the work came to, or with why it was not made durable.
    fn answer(self: Box<Self>, committed: Result<(), &Error>);
}

struct Job<T, F> {
    work: Option<F>,
    done: Option<Result<T>>,
    reply: SyncSender<Result<T>>,
}

impl<T: Send, F: FnOnce(&mut Writing<'_>) -> Result<T> + Send> Work for Job<T, F> {
    fn run(&mut self, writing: &mut Writing<'_>) {
        self.done = self.work.take().map(|work| work(writing));
    }

    fn answer(self: Box<Self>, committed: Result<(), &Error>) {
        let result = match (committed, self.done) {
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(Error::new(ErrorKind::NotFound, "the ledger was dropped, or took another id")
                .with_hint("take it up again from its store")),
            (Err(fault), _) => Err(again(fault)),
        };
        // A caller that has gone away has no use for the answer.
        let _ = self.reply.send(result);
    }
}

enum Message {
    Work(LedgerId, Box<dyn Work>),
    Open { ledger: LedgerId, writer: WriterId, reply: SyncSender<Result<()>> },
    Adopt { before: LedgerId, entry: LedgerEntry, reply: SyncSender<Result<()>> },
    Archive { ledger: LedgerId, archive: Archive, before: u64, reply: SyncSender<Result<u64>> },
    Drop { ledger: LedgerId, reply: SyncSender<Result<()>> },
    WriteAgain { ledger: LedgerId, again: Again, reply: SyncSender<Result<Rewritten>> },
    Rebuild { ledger: LedgerId, reply: SyncSender<Result<Rebuilt>> },
    Checkpoint(SyncSender<Result<()>>),
    Close(SyncSender<Result<()>>),
}

/// The callers' end of the queue.
#[derive(Clone)]
pub(crate) struct Queue(SyncSender<Message>, Arc<Flushes>);

fn closed() -> Error {
    Error::new(ErrorKind::Cancelled, "the store is closed").with_hint("open it again")
}

fn panicked() -> Error {
    Error::new(ErrorKind::Consistency, "the writer panicked: this is a fault of syncledger")
}

/// The same error for another caller of the same commit.
fn again(fault: &Error) -> Error {
    let error = Error::new(fault.kind(), fault.message());
    match fault.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

impl Queue {
    /// Starts the thread.
    pub(crate) fn start(
        shared: Arc<Shared>,
        cache_bytes: usize,
        check_rows: bool,
        due: Due,
    ) -> Result<(Self, JoinHandle<()>)> {
        shared.check_mark()?;
        let (send, receive) = sync_channel(QUEUE);
        let (states, flushes) = (BTreeMap::new(), shared.flushes.clone());
        let writer = Writer {
            shared,
            cache_bytes,
            check_rows,
            due,
            states,
            poisoned: None,
            since_checkpoint: 0,
            saving: None,
            unsealed: BTreeMap::new(),
            sealing: None,
            seal_again_in: 0,
        };
        let thread = thread::Builder::new().name("syncledger-writer".into()).spawn(move || writer.run(&receive));
        let thread = thread.map_err(|fault| no_thread("that writes", &fault))?;
        Ok((Self(send, flushes), thread))
    }

    /// Runs `work` in the writer thread and waits until what it staged is durable.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        ledger: LedgerId,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ask = || self.ask(|reply| Message::Work(ledger, Box::new(Job { work: Some(work), done: None, reply })));
        self.1.waiting(ask)?
    }

    /// Takes up a ledger, replaying what its derived state lacks.
    pub(crate) fn open(&self, ledger: LedgerId, writer: WriterId) -> Result<()> {
        self.ask(|reply| Message::Open { ledger, writer, reply })?
    }

    /// Gives an empty ledger the id of this entry.
    pub(crate) fn adopt(&self, before: LedgerId, entry: LedgerEntry) -> Result<()> {
        self.ask(|reply| Message::Adopt { before, entry, reply })?
    }

    /// Drops the events before a position from the log, which an archive holds. Returns where the log begins then.
    pub(crate) fn archive(&self, ledger: LedgerId, archive: Archive, before: u64) -> Result<u64> {
        self.ask(|reply| Message::Archive { ledger, archive, before, reply })?
    }

    /// Removes a ledger for good.
    pub(crate) fn drop_ledger(&self, ledger: LedgerId) -> Result<()> {
        self.ask(|reply| Message::Drop { ledger, reply })?
    }

    /// Writes a ledger's log again.
    pub(crate) fn write_again(&self, ledger: LedgerId, again: Again) -> Result<Rewritten> {
        self.ask(|reply| Message::WriteAgain { ledger, again, reply })?
    }

    /// Makes all derived state of a ledger again from its log.
    pub(crate) fn rebuild(&self, ledger: LedgerId) -> Result<Rebuilt> {
        self.ask(|reply| Message::Rebuild { ledger, reply })?
    }

    /// Writes derived state that only memory holds.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.ask(Message::Checkpoint)?
    }

    /// Ends the thread after what is queued.
    pub(crate) fn close(&self) -> Result<()> {
        self.ask(Message::Close)?
    }

    fn ask<T>(&self, message: impl FnOnce(SyncSender<T>) -> Message) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        self.0.send(message(reply)).map_err(|_| closed())?;
        answer.recv().map_err(|_| closed())
    }
}

fn no_thread(which: &str, fault: &std::io::Error) -> Error {
    Error::new(ErrorKind::Storage, format!("the thread {which} could not be started: {fault}"))
}

/// An entry of the log does not follow from those before it.
fn not_following(entry: &Entry, fault: &Error) -> Error {
    let message = format!("the event {} at position {} cannot be derived: {fault}", entry.id.short(), entry.position);
    Error::new(ErrorKind::Corrupt, message).with_hint("pull the ledger from a replica into a new store")
}

struct Writer {
    shared: Arc<Shared>,
    cache_bytes: usize,
    check_rows: bool,
    due: Due,
    states: BTreeMap<LedgerId, State>,
    poisoned: Option<Error>,
    since_checkpoint: u64,
    /// The checkpoint that is being made.
    saving: Option<JoinHandle<Result<()>>>,
    /// What was appended to each ledger since the store was opened and is not sealed.
    unsealed: BTreeMap<LedgerId, Amount>,
    /// The sealing that goes on.
    sealing: Option<(LedgerId, JoinHandle<Result<Amount>>)>,
    /// How many events are appended before sealing is tried again, after it failed.
    seal_again_in: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        let mut next = queue.recv().ok();
        while let Some(message) = next {
            if matches!(message, Message::Close(_)) {
                return self.close(message);
            }
            // Who waits for an answer that a panic swallowed is told that the store is closed.
            next = match catch_unwind(AssertUnwindSafe(|| self.take(queue, message))) {
                Ok(next) => next,
                Err(_) => {
                    self.poison(panicked());
                    None
                }
            };
            next = next.or_else(|| queue.recv().ok());
        }
        // All handles went without closing. What is durable stays so; only replaying is saved by this.
        let _ = self.finish_checkpoint();
        self.finish_sealing();
        let _ = self.checkpoint();
        let _ = self.shared.journal.close();
    }

    fn close(mut self, message: Message) {
        // Also where nothing more is written: they hold the files that are given back.
        let _ = self.finish_checkpoint();
        self.finish_sealing();
        let saved = catch_unwind(AssertUnwindSafe(|| self.checkpoint())).unwrap_or_else(|_| Err(panicked()));
        let closed = self.shared.journal.close().map_err(Error::from);
        if let Message::Close(reply) = message {
            let _ = reply.send(saved.and(closed));
        }
    }

    /// Does what a message asks. Returns the message after it, where that was taken from the queue already.
    fn take(&mut self, queue: &Receiver<Message>, message: Message) -> Option<Message> {
        match message {
            Message::Work(ledger, work) => return self.group(queue, ledger, work),
            Message::Open { ledger, writer, reply } => drop(reply.send(self.open(ledger, writer))),
            Message::Adopt { before, entry, reply } => drop(reply.send(self.adopt(before, entry))),
            Message::Archive { ledger, archive, before, reply } => {
                drop(reply.send(self.archive(ledger, archive, before)));
            }
            Message::Drop { ledger, reply } => drop(reply.send(self.drop_ledger(ledger))),
            Message::WriteAgain { ledger, again, reply } => drop(reply.send(self.write_again(ledger, &again))),
            Message::Rebuild { ledger, reply } => drop(reply.send(self.rebuild(ledger))),
            Message::Checkpoint(reply) => drop(reply.send(self.checkpoint())),
            Message::Close(reply) => drop(reply.send(Ok(()))),
        }
        None
    }

    /// Nothing but reading goes on after a failed commit: what is staged is in nobody's log.
    fn sound(&self) -> Result<()> {
        self.poisoned.as_ref().map_or(Ok(()), |fault| Err(again(fault)))
    }

    /// Takes in all work that has queued up, commits it and answers. Returns the message that ended it, if any.
    fn group(&mut self, queue: &Receiver<Message>, ledger: LedgerId, work: Box<dyn Work>) -> Option<Message> {
        let mut group = vec![self.start(ledger, work)];
        let mut next = None;
        while group.len() < GROUP && self.staged() < GROUP_EVENTS {
            match queue.try_recv() {
                Ok(Message::Work(ledger, work)) => group.push(self.start(ledger, work)),
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit(group);
        next
    }

    fn staged(&self) -> usize {
        self.states.values().map(|state| state.staged.len()).sum()
    }

    fn start(&mut self, ledger: LedgerId, mut work: Box<dyn Work>) -> Box<dyn Work> {
        if self.poisoned.is_some() {
            return work;
        }
        let Some(state) = self.states.get_mut(&ledger) else { return work };
        let mut writing = Writing { shared: &self.shared, state, dry: false, own: false };
        if catch_unwind(AssertUnwindSafe(|| work.run(&mut writing))).is_err() {
            // What was staged may be half of something: nothing of this store is written any more.
            self.poison(panicked());
        }
        work
    }

    fn poison(&mut self, fault: Error) {
        warn!(code = fault.code(), "the store is poisoned");
        self.poisoned.get_or_insert(fault.with_hint("stop, open the store again and run `syncledger verify`"));
    }

    /// Makes everything staged durable, shows it to readers and answers.
    fn commit(&mut self, group: Vec<Box<dyn Work>>) {
        if self.poisoned.is_none()
            && self.staged() > 0
            && let Err(fault) = catch_unwind(AssertUnwindSafe(|| self.append())).unwrap_or_else(|_| Err(panicked()))
        {
            self.poison(fault);
        }
        if self.poisoned.is_none() {
            self.settle();
        }
        for work in group {
            work.answer(self.poisoned.as_ref().map_or(Ok(()), Err));
        }
        if self.poisoned.is_none() {
            self.checkpoint_when_due();
            self.seal_when_due();
        }
    }

    /// After a group: all ledgers together hold no more in memory than they may, and say what they hold.
    fn settle(&mut self) {
        let held: u64 = self.states.values().map(|state| state.cached().1).sum();
        let share = match held > self.cache_bytes as u64 {
            true => self.cache_bytes / self.states.len().max(1),
            false => self.cache_bytes,
        };
        for (ledger, state) in &mut self.states {
            state.trim_to(share);
            self.shared.gauge(*ledger, state.waiting.len() as u64, state.cached());
        }
    }

    fn append(&mut self) -> Result<()> {
        let events = self.staged();
        let ledgers: Vec<String> =
            self.states.values().filter(|s| !s.staged.is_empty()).map(|s| s.id.to_string()).collect();
        let span = info_span!("flush", ledger = ledgers.join(" "), events);
        let _entered = span.enter();
        let mut batch = Vec::new();
        for state in self.states.values().filter(|state| !state.staged.is_empty()) {
            let expected_head = state.head - state.staged.len() as u64;
            let frames = packing::pack(&state.staged)?;
            let unsealed = self.unsealed.entry(state.id).or_default();
            unsealed.events += state.staged.len() as u64;
            unsealed.bytes += frames.iter().map(|frame| frame.payload.len() as u64).sum::<u64>();
            batch.push(Append { ledger: state.id, expected_head, frames });
        }
        // Rows are made before the commit: what cannot be projected must not become durable unseen.
        let mut rows = Vec::new();
        for state in self.states.values_mut().filter(|state| !state.staged.is_empty()) {
            rows.push((state.id, state.take_rows(&self.shared)?));
        }
        self.shared.flushes.timed(|| self.shared.journal.append(&batch))?;
        for (ledger, rows) in rows {
            let Some(state) = self.states.get_mut(&ledger) else { continue };
            self.shared.remember_requests(ledger, &state.staged, &state.own);
            self.shared.publish(ledger, &mut state.staged, rows);
            // The next group takes the same room, unless this one was far larger than most.
            state.staged.shrink_to(GROUP_EVENTS);
        }
        self.since_checkpoint += events as u64;
        self.seal_again_in = self.seal_again_in.saturating_sub(events as u64);
        Ok(())
    }

    /// Begins to write, in a thread of its own, the rows and counts that only memory holds, and the journal's head. Waits
    /// for the one before.
    fn begin_checkpoint(&mut self) -> Result<()> {
        // Of a poisoned store, records hold events that are in nobody's log.
        self.sound()?;
        let _ = self.finish_checkpoint();
        let mut snapshots = Changes::new();
        for state in self.states.values_mut() {
            snapshots.extend(state.snapshots(self.due.checkpoints.snapshot));
            snapshots.extend(state.take_marks());
        }
        let (shared, save) = (self.shared.clone(), self.shared.begin_save(snapshots));
        let work = move || {
            shared.save(save)?;
            Ok(shared.journal.checkpoint()?)
        };
        self.since_checkpoint = 0;
        let thread = thread::Builder::new().name("syncledger-rows".into());
        self.saving = Some(thread.spawn(work).map_err(|fault| no_thread("of checkpoints", &fault))?);
        Ok(())
    }

    /// Waits for the checkpoint that is being made, if any. What it could not write stays in memory: the next one writes
    /// it.
    fn finish_checkpoint(&mut self) -> Result<()> {
        let Some(thread) = self.saving.take() else { return Ok(()) };
        let saved = thread.join().unwrap_or_else(|_| Err(panicked()));
        // Derived state only: what could not be written is replayed when the store is opened again.
        saved.inspect_err(|fault| warn!(code = fault.code(), "the derived state could not be written"))
    }

    /// Writes the rows and counts that only memory holds, and the journal's head.
    fn checkpoint(&mut self) -> Result<()> {
        self.begin_checkpoint()?;
        self.finish_checkpoint()
    }

    /// Begins a checkpoint once enough has gathered.
    fn checkpoint_when_due(&mut self) {
        let is_due = |times: usize| {
            self.since_checkpoint > self.due.checkpoints.events * times as u64
                || self.shared.dirty_rows() > self.due.checkpoints.rows * times
        };
        let is_free = self.saving.as_ref().is_none_or(JoinHandle::is_finished);
        // While one is being made the next may wait, but not for long: memory is bounded.
        if (is_free && is_due(1)) || is_due(2) {
            let begun = self.begin_checkpoint();
            begun.unwrap_or_else(|fault| warn!(code = fault.code(), "no checkpoint could be begun"));
        }
    }

    /// Begins to seal a part of a ledger's log, in a thread of its own, once enough of it lies in the journal. Waits for the
    /// one that goes on where this process appends faster than it can seal.
    fn seal_when_due(&mut self) {
        if !self.shared.archives.can_seal() || self.seal_again_in > 0 {
            return;
        }
        let is_free = self.sealing.as_ref().is_none_or(|(_, thread)| thread.is_finished());
        let is_due = |(ledger, appended): (&LedgerId, &Amount)| {
            let events = self.shared.journal.head(*ledger).saturating_sub(self.shared.archives.last(*ledger));
            let held = Amount { events, ..*appended };
            let is_due =
                (is_free && self.due.sealing.is_due(held, 1)) || self.due.sealing.is_due(*appended, MOST_UNSEALED);
            is_due.then_some(*ledger)
        };
        let Some(ledger) = self.unsealed.iter().find_map(is_due) else { return };
        self.finish_sealing();
        let (shared, sealing) = (self.shared.clone(), self.due.sealing);
        let work = move || seal::seal(&shared, ledger, sealing);
        match thread::Builder::new().name("syncledger-seal".into()).spawn(work) {
            Ok(thread) => self.sealing = Some((ledger, thread)),
            Err(fault) => warn!(%fault, "no thread could be started that seals"),
        }
    }

    /// Waits for the sealing that goes on, if any. What it could not seal stays in the journal, and is tried again later.
    fn finish_sealing(&mut self) {
        let Some((ledger, thread)) = self.sealing.take() else { return };
        match thread.join().unwrap_or_else(|_| Err(panicked())) {
            Ok(sealed) => {
                if let Some(left) = self.unsealed.get_mut(&ledger) {
                    left.events = left.events.saturating_sub(sealed.events);
                    left.bytes = left.bytes.saturating_sub(sealed.bytes);
                }
            }
            Err(fault) => {
                warn!(code = fault.code(), "a part of the log could not be sealed: {fault}");
                self.seal_again_in = self.due.sealing.events;
            }
        }
    }

    /// Takes up a ledger. Where the derived state is damaged, all of it is made again from the logs.
    fn open(&mut self, ledger: LedgerId, writer: WriterId) -> Result<()> {
        self.sound()?;
        if self.states.contains_key(&ledger) {
            return Ok(());
        }
        match self.take_up(ledger, writer) {
            Err(fault) if fault.kind() == ErrorKind::Corrupt && self.rows_are_damaged() => {
                warn!("the derived state is damaged: it is made again from the log");
                self.start_over().inspect_err(|fault| self.poison(again(fault)))?;
                self.take_up(ledger, writer)
            }
            other => other,
        }
    }

    fn rows_are_damaged(&self) -> bool {
        let mut after: Option<Vec<u8>> = None;
        loop {
            match self.shared.rows.scan(&[], after.as_deref(), 1_024) {
                Err(_) => return true,
                Ok(page) => match page.into_iter().next_back() {
                    Some((key, _)) => after = Some(key),
                    None => return false,
                },
            }
        }
    }

    /// Clears the rows of all ledgers and derives those of the open ones again.
    fn start_over(&mut self) -> Result<()> {
        let _ = self.finish_checkpoint();
        let shared = self.shared.clone();
        shared.alone(|| {
            shared.rows.clear()?;
            let open: Vec<LedgerId> = self.states.keys().copied().collect();
            // Nothing of what is known of one is saved while another is derived.
            open.iter().for_each(|ledger| shared.forget(*ledger));
            open.into_iter().try_for_each(|ledger| self.derive_again(ledger))
        })
    }

    fn derive_again(&mut self, ledger: LedgerId) -> Result<()> {
        let _ = self.finish_checkpoint();
        self.shared.forget(ledger);
        if let Some(state) = self.states.get_mut(&ledger) {
            state.forget_all();
            state.head = 0;
        }
        let position = self.begin(ledger)?;
        if let Some(state) = self.states.get_mut(&ledger) {
            state.head = position;
        }
        self.recall(ledger)?;
        self.replay(ledger, position, self.shared.journal.head(ledger))
    }

    /// The position from which a ledger without derived state is derived: its beginning, unless its first events are
    /// where nobody can read them and what they led to was kept.
    fn begin(&self, ledger: LedgerId) -> Result<u64> {
        let archives = &self.shared.archives;
        let is_lost = self.shared.journal.first(ledger) > 1 && archives.lacks_files(ledger);
        if is_lost && archives.bring_base_back(ledger, &*self.shared.rows, MARK)? {
            warn!(ledger = %ledger, "the derived state is taken from its second copy: the archive is not there");
            self.shared.load_meta(ledger);
        }
        Ok(self.shared.meta(ledger, |meta| meta.position))
    }

    /// Gives an empty ledger another id, and takes it up under that.
    fn adopt(&mut self, before: LedgerId, entry: LedgerEntry) -> Result<()> {
        self.sound()?;
        let writer = super::store::writer_of(&entry);
        let id = entry.id;
        let _ = self.finish_checkpoint();
        self.shared.journal.put_ledger(entry)?;
        self.states.remove(&before);
        self.shared.forget(before);
        // The rows of a ledger of this id that was dropped are no rows of this one.
        self.shared.forget_rows(id)?;
        self.open(id, writer)
    }

    /// Drops what an archive holds. Before, every record is saved whole, so that none needs its first events to go on.
    fn archive(&mut self, ledger: LedgerId, archive: Archive, before: u64) -> Result<u64> {
        self.sound()?;
        self.finish_sealing();
        self.checkpoint()?;
        self.save_records(ledger)?;
        let position = self.shared.meta(ledger, |meta| meta.position);
        self.shared.archives.keep_base(ledger, position, &*self.shared.rows, MARK)?;
        self.shared.archives.record(ledger, Some(archive))?;
        let first = self.shared.journal.drop_before(ledger, before)?;
        self.shared.archives.unseal_before(ledger, before)?;
        Ok(self.shared.archives.begin(ledger, first))
    }

    /// Stores a snapshot of every record that has no present one.
    fn save_records(&mut self, ledger: LedgerId) -> Result<()> {
        let mut changes = Changes::new();
        for key in self.shared.record_keys(ledger)? {
            let last = self.shared.last_position(ledger, &key)?;
            if state::snapshot(&self.shared, ledger, &key).is_some_and(|saved| saved.last == last) {
                continue;
            }
            changes.push(state::load(&self.shared, ledger, &key, last, None)?.saved_as(ledger, &key)?);
            if changes.len() >= SAVED_AT_ONCE {
                self.shared.rows.write(std::mem::take(&mut changes), MARK)?;
            }
        }
        Ok(self.shared.rows.write(changes, MARK)?)
    }

    fn drop_ledger(&mut self, ledger: LedgerId) -> Result<()> {
        self.sound()?;
        let _ = self.finish_checkpoint();
        self.finish_sealing();
        self.shared.journal.drop_ledger(ledger)?;
        self.unsealed.remove(&ledger);
        self.shared.archives.unseal_before(ledger, u64::MAX)?;
        self.shared.archives.record(ledger, None)?;
        self.shared.archives.forget_base(ledger)?;
        self.states.remove(&ledger);
        self.shared.forget_rows(ledger)
    }

    /// Takes up a ledger: replays the events that its derived state lacks.
    fn take_up(&mut self, ledger: LedgerId, writer: WriterId) -> Result<()> {
        let head = self.shared.journal.head(ledger);
        self.shared.load_meta(ledger);
        let position = match self.shared.meta(ledger, |meta| meta.position) {
            0 => {
                // What lies there without counts is what a removal left that came to no end. Where nothing does, nothing is
                // written: the disk may be full.
                if self.shared.has_rows(ledger)? {
                    self.shared.forget_rows(ledger)?;
                }
                self.begin(ledger)?
            }
            position => position,
        };
        if position > head {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "ledger {} was derived up to position {position}, but its log ends at {head}",
                    ledger.short()
                ),
            )
            .with_hint("restore the store from a copy, or pull the ledger from a replica into a new one"));
        }
        let number = self.shared.meta(ledger, |meta| meta.last_number(writer));
        let state = State::new(ledger, writer, position, number.saturating_add(1), self.cache_bytes);
        let mut state = state.checked(self.check_rows);
        state.own = self.shared.own_writers(ledger);
        self.states.insert(ledger, state);
        self.recall(ledger)?;
        self.replay(ledger, position, head).inspect_err(|_| {
            let _ = self.finish_checkpoint();
            self.states.remove(&ledger);
            self.shared.forget(ledger);
        })
    }

    /// Takes up what constraints know of the records that the derived state holds.
    fn recall(&mut self, ledger: LedgerId) -> Result<()> {
        let shared = self.shared.clone();
        let Some(state) = self.states.get_mut(&ledger) else { return Ok(()) };
        let derived = state.take_rows(&shared)?;
        shared.publish(ledger, &mut Vec::new(), derived);
        state.trim();
        Ok(())
    }

    /// Derives the events of a part of the log.
    fn replay(&mut self, ledger: LedgerId, after: u64, until: u64) -> Result<()> {
        let shared = self.shared.clone();
        let log = Log::new(&shared, ledger);
        let mut batch = Vec::new();
        log.each(after, until, |entry| {
            let last = entry.position == until;
            let Some(state) = self.states.get_mut(&ledger) else { return Ok(false) };
            state.absorb(&shared, &entry).map_err(|fault| not_following(&entry, &fault))?;
            batch.push(entry);
            if batch.len() >= GROUP_EVENTS || last {
                let (rows, count) = (state.take_rows(&shared)?, batch.len() as u64);
                shared.remember_requests(ledger, &batch, &state.own);
                shared.publish(ledger, &mut batch, rows);
                state.trim();
                self.since_checkpoint += count;
                self.checkpoint_when_due();
            }
            Ok(true)
        })?;
        debug!(ledger = %ledger, events = until - after, "replayed");
        Ok(())
    }

    /// Writes a log again, and takes the ledger up anew. Where that fails once the old log is touched, the store is to be opened
    /// again: that brings it to its end.
    fn write_again(&mut self, ledger: LedgerId, again: &Again) -> Result<Rewritten> {
        self.sound()?;
        let _ = self.finish_checkpoint();
        self.finish_sealing();
        let shared = self.shared.clone();
        let writer = WriterId((shared.world.random)()?);
        let plan = rewrite::plan(&shared, ledger, again, writer)?;
        let written = rewrite::write(&shared, &plan)?;
        let replaced = shared.alone(|| -> Result<()> {
            self.states.remove(&ledger);
            shared.forget(ledger);
            self.unsealed.insert(ledger, rewrite::replace(&shared, written)?);
            self.open(ledger, writer)
        });
        replaced.inspect_err(|fault| self.poison(self::again(fault)))?;
        // What is not written of the derived state is derived again.
        let _ = self.checkpoint();
        self.settle();
        self.seal_when_due();
        Ok(plan.done)
    }

    fn rebuild(&mut self, ledger: LedgerId) -> Result<Rebuilt> {
        self.sound()?;
        let head = self.shared.journal.head(ledger);
        let span = info_span!("rebuild", ledger = %ledger, events = head);
        let _entered = span.enter();
        let started = std::time::Duration::from_millis(self.shared.now_ms());
        let _ = self.finish_checkpoint();
        let shared = self.shared.clone();
        // What cannot be read is not thrown away.
        Log::new(&shared, ledger).check(head)?;
        let derived = shared.alone(|| -> Result<()> {
            shared.forget_rows(ledger)?;
            self.derive_again(ledger)
        });
        derived.inspect_err(|fault| self.poison(again(fault)))?;
        self.checkpoint()?;
        let seconds = std::time::Duration::from_millis(self.shared.now_ms()).saturating_sub(started).as_secs_f64();
        Ok(Rebuilt { events: head, records: self.shared.meta(ledger, |meta| meta.totals().records), seconds })
    }
}
