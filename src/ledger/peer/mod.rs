//! A ledger in a session with another replica: does what the session asks for.
//!
//! ```text
//! message ──► Peer::hear ──► Session ──► read the log, take events in, … ──► messages
//! ```

#[cfg(feature = "tokio")]
mod channels;
mod edge;
mod named;
mod room;
#[cfg(feature = "tokio")]
mod steps;
mod stream;
mod traffic;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::resume_unwind;
use std::sync::Arc;

use super::Ledger;
use super::backup::blobs_of;
use super::cursor::Mark;
use super::recent::{Part, Recent};
use super::replicate::Foreign;
use super::request::{AsOf, Entry, Look, Transfer};
use super::rewrite::written_again;
use super::state::RecordKey;
use crate::event::{BlobHash, LedgerId, RunId, WriterId};
use crate::replication::{
    Applied, Condition, Cursor, Filter, Hello, Input, Message, Output, Refusal, Session, Settings, ShortId, Wants,
    short,
};
use crate::segment::{self, Item};
use crate::sync::mpsc::{Receiver, Sender, channel};
use crate::sync::thread;
use crate::{Error, ErrorKind, Result};
use edge::Guard;
use named::Roots;

#[cfg(feature = "tokio")]
pub use channels::{Carrier, Channels, Growth};
pub use edge::{Edge, Writers};
pub use room::Room;
pub use traffic::Traffic;

/// How many events a batch has at most: more are no faster, and do not stay in the processor's cache.
const BATCH_EVENTS: usize = 512;
/// About how many bytes the events of a batch have at most, unless one alone has more.
const BATCH_WEIGHT: usize = 1 << 20;
/// How many positions are looked through for one batch at most.
const LOOKED_THROUGH: u64 = 16_384;
/// How many bytes of a large value are sent at once.
const BLOB_BYTES: usize = 1 << 20;
/// How many events are looked through without a thread of their own.
#[cfg(feature = "tokio")]
const AT_ONCE: usize = 512;
/// How far the other log was taken in is noted after so many events, after so many milliseconds where all that there is came, and at
/// the session's end: what came since is sent again to who did not get so far. A note waits for the disk.
const NOTED_AFTER: u64 = 65_536;
const NOTED_EVERY_MS: u64 = 10_000;
/// How many records it is remembered of that everything of them was sent.
const MOST_WHOLE: usize = 1 << 16;
/// A ledger with more events than these does not list them to answer offers.
const MOST_LISTED: u64 = 1 << 23;
/// How many of the other side's refusals are kept for who asks.
const MOST_REFUSALS: usize = 1 << 16;
/// How many characters of a refusal's code, and of its message, are kept.
const MOST_CODE_CHARS: usize = 64;
const MOST_WORD_CHARS: usize = 1_024;

/// What a session with another replica is for.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Whether this ledger's events are sent.
    pub sends: bool,
    /// Which of the other's records are wanted; `None` for nothing.
    pub wants: Option<Filter>,
    /// Whether the session goes on once both sides have what there is.
    pub follows: bool,
    /// What the other side may send and have, where it is a device and not a replica that is trusted.
    pub edge: Option<Edge>,
    /// Collections whose events are sent before those of others where more than 1,024 events wait, in this order.
    pub first: Vec<String>,
}

impl Default for SessionOptions {
    /// Both directions, everything, and done when both have it.
    fn default() -> Self {
        Self { sends: true, wants: Some(Filter::default()), follows: false, edge: None, first: Vec::new() }
    }
}

/// One side of a session: a ledger, and what it says to another replica.
pub struct Peer {
    ledger: Ledger,
    session: Session,
    wants: Option<Filter>,
    follows: bool,
    /// The writer of this ledger when the session began: with another one, its log is another.
    stamps_as: WriterId,
    /// The other replica.
    other: Option<WriterId>,
    run: RunId,
    transfer: Transfer,
    /// Up to where the other log was offered, and how many events beyond it came before their turn.
    offered: u64,
    early: u64,
    /// What is to be noted, how many events came since it was noted, and when that was.
    noted: (Option<Cursor>, u64, u64),
    /// Records under conditions of which the other side was sent everything, in this session.
    whole: BTreeSet<RecordKey>,
    /// The first halves of the ids of all events here, once an offer has to be answered.
    listed: Option<HashSet<ShortId>>,
    /// The large value that was read last.
    blob: Option<(BlobHash, Vec<u8>)>,
    outcome: Option<Result<()>>,
    guard: Option<Guard>,
    /// The other side's name for what it may send.
    scope: String,
    refusals: Vec<Refusal>,
    clock_offset_ms: Option<i64>,
    traffic: Traffic,
    /// Whether everything is sent from the beginning, whatever the other side has.
    sends_again: bool,
    /// Whether everything is asked for from the beginning, whatever is here.
    wants_again: bool,
    /// The latest events, where somebody reads them for all sessions.
    recent: Option<Recent>,
    /// Events that may be told by a part of their ids, and whether they are.
    roots: Roots,
    names_in_part: bool,
    /// Whether the other side is asked for whole ids.
    wants_whole_ids: bool,
}

impl Ledger {
    /// Begins a session with another replica of this ledger. What carries its messages is somebody else's.
    ///
    /// # Errors
    /// `cancelled` where the store is closed.
    pub fn session(&self, options: &SessionOptions) -> Result<Peer> {
        let (id, replica) = self.ids();
        let head = self.position();
        // Who has nothing yet, and wants something, becomes a replica of whatever it gets, but not of a device.
        let adopts = head == 0 && options.wants.is_some() && options.edge.is_none();
        let (sends, follows) = (options.sends, options.follows);
        let first = options.first.clone();
        let settings = Settings { replica, ledger: id, adopts, head, sends, follows, first };
        let session = Session::new(self.shared().now_ms(), settings);
        let run = self.new_run()?;
        let (other, transfer, offered, noted, whole, listed, blob, outcome) = Default::default();
        let (ledger, wants) = (self.clone(), options.wants.clone());
        let peer = Peer {
            ledger,
            session,
            stamps_as: replica,
            wants,
            follows,
            other,
            run,
            transfer,
            offered,
            early: 0,
            noted,
            whole,
            listed,
            blob,
            outcome,
            guard: options.edge.clone().map(Guard::new),
            scope: String::new(),
            refusals: Vec::new(),
            clock_offset_ms: None,
            traffic: Traffic::default(),
            sends_again: false,
            wants_again: false,
            recent: None,
            roots: Roots::default(),
            // A device refuses nothing.
            names_in_part: options.edge.is_some(),
            wants_whole_ids: false,
        };
        Ok(peer)
    }
}

impl Peer {
    /// What to say to the other side before anything was heard of it.
    pub fn begin(&mut self) -> Vec<Message> {
        self.go_on()
    }

    /// Hears the other side. Returns what to say to it.
    pub fn hear(&mut self, message: Message) -> Vec<Message> {
        self.tell(Input::Received(message))
    }

    /// This ledger's log may have grown. Returns what to say to the other side.
    pub fn grown(&mut self) -> Vec<Message> {
        self.tell(Input::Grown(self.ledger.position()))
    }

    /// This ledger's log has grown up to a position.
    #[cfg(feature = "tokio")]
    fn grown_to(&mut self, position: u64) -> Vec<Message> {
        self.tell(Input::Grown(position))
    }

    /// Time went by. Returns what to say to the other side.
    pub fn tick(&mut self) -> Vec<Message> {
        self.tell(Input::Tick)
    }

    /// Ends the session because of an error. Returns what to say to the other side.
    pub fn fail(&mut self, fault: Error) -> Vec<Message> {
        self.tell(Input::Failed(fault))
    }

    /// When [`Peer::tick`] is due at the latest, in milliseconds since 1970.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.session.due()
    }

    /// The replica at the other end, once it has said who it is.
    #[must_use]
    pub fn replica(&self) -> Option<WriterId> {
        self.other
    }

    /// What was taken in so far.
    #[must_use]
    pub fn transfer(&self) -> Transfer {
        self.transfer
    }

    /// What went over the session so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What the other side did not take in, since it was asked last: at most 65,536 events, with at most 1,024 characters about
    /// each. Always empty where the other side is held to an [`Edge`].
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// How far the other side's clock is ahead of this one, in milliseconds, once it has said who it is.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock_offset_ms
    }

    /// The execution under which the session takes events in: their [`Entry::run`], unless they have another of their own.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Up to which position of the log here the other side has said that it has everything that it wants, or has refused
    /// it; `None` where it wants nothing, or has not said yet what.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.session.acknowledged()
    }

    /// Has everything sent from the beginning of the log, what was refused before included. To be said before the session
    /// begins.
    pub fn send_all_again(&mut self) {
        self.sends_again = true;
    }

    /// Asks for everything from the beginning of the other log: what is here is offered by its id only. To be said before the session
    /// begins.
    pub fn want_all_again(&mut self) {
        self.wants_again = true;
    }

    /// Has events that are built on others name these by a part of their ids, where the other side has acknowledged them: an edit
    /// of one field takes half as many bytes. To be said before the session begins, and only where the other side has refused
    /// nothing of this log: what it has acknowledged but does not have it cannot find, which ends the session as `corrupt`.
    pub fn name_in_part(&mut self) {
        self.names_in_part = true;
    }

    /// Asks the other side to name events by whole ids: after a session that ended as `corrupt`. To be said before the session begins.
    pub fn want_whole_ids(&mut self) {
        self.wants_whole_ids = true;
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.session.is_ended()
    }

    /// How it ended; `cancelled` where it has not. To be asked once.
    ///
    /// # Errors
    /// What ended it.
    pub fn finish(&mut self) -> Result<Transfer> {
        let broken = || Error::new(ErrorKind::Cancelled, "the session broke off before its end");
        self.outcome.take().unwrap_or_else(|| Err(broken())).map(|()| self.transfer)
    }

    /// The ledger that the messages are of, for who makes bytes of them.
    #[must_use]
    pub fn ledger(&self) -> Option<LedgerId> {
        Some(self.ledger.id()).filter(|_| self.other.is_some())
    }

    /// Whether the log is the one that the session began with.
    fn is_of_its_log(&self) -> bool {
        self.ledger.ids().1 == self.stamps_as
    }

    fn tell(&mut self, input: Input) -> Vec<Message> {
        let is_in_order = self.is_of_its_log() || self.is_ended();
        let input = if is_in_order { input } else { Input::Failed(written_again()) };
        self.session.handle(self.ledger.shared().now_ms(), input);
        self.go_on()
    }

    fn go_on(&mut self) -> Vec<Message> {
        let mut said = Vec::new();
        while let Some(output) = self.session.poll() {
            let answer = match output {
                Output::Send(message) => {
                    self.traffic.said(&message);
                    said.push(message);
                    continue;
                }
                Output::Ended(outcome) => {
                    let noted = self.note(true);
                    self.outcome = Some(outcome.and(noted));
                    continue;
                }
                output => self.answer(output),
            };
            match answer {
                Ok(Some(input)) => self.session.handle(self.ledger.shared().now_ms(), input),
                Ok(None) => {}
                Err(fault) => self.session.handle(self.ledger.shared().now_ms(), Input::Failed(fault)),
            }
        }
        said
    }

    fn answer(&mut self, output: Output) -> Result<Option<Input>> {
        Ok(Some(match output {
            Output::Adopt(id) => Input::Adopted(self.ledger.match_or_adopt(id)),
            Output::Choose(hello) => Input::Chosen(self.choose(&hello)?),
            Output::Begin(wants) => self.begin_sending(&wants)?,
            Output::Read { after, filter } => {
                let (events, upto) = self.read(after, &filter)?;
                Input::Read { events, upto }
            }
            Output::Known { batch, ids } => Input::Known { batch, bits: self.lacking(&ids)? },
            Output::Apply { batch, upto, events } => {
                let outcome = self.apply(upto, events);
                Input::Applied { batch, outcome }
            }
            Output::ReadBlob { hash, offset } => Input::BlobRead { hash, offset, part: self.part(hash, offset)? },
            Output::StoreBlob { hash, bytes } => {
                let outcome = self.ledger.shared().blobs.put_many(&[&bytes]).map(drop).map_err(Error::from);
                if let Some(guard) = self.guard.as_mut().filter(|_| outcome.is_ok()) {
                    guard.has_shown(hash);
                }
                Input::BlobStored { hash, outcome }
            }
            Output::Begun { after, scope } => {
                (self.offered, self.scope) = (after, scope);
                self.transfer.add(Transfer { offered: after, duplicates: after, ..Transfer::default() });
                return Ok(None);
            }
            Output::Refused(refused) => {
                self.keep_refusals(refused);
                return Ok(None);
            }
            Output::Note(cursor) => {
                self.noted.0 = Some(cursor);
                self.note(self.noted.1 >= NOTED_AFTER)?;
                return Ok(None);
            }
            Output::Reached => {
                let since = self.ledger.shared().now_ms().saturating_sub(self.noted.2);
                self.note(since >= NOTED_EVERY_MS)?;
                return Ok(None);
            }
            Output::Send(_) | Output::Ended(_) => return Ok(None),
        }))
    }

    /// The events of a batch for who has what lies before a position, and up to where the log was looked through.
    fn read(&mut self, after: u64, filter: &Filter) -> Result<(Vec<Item>, Cursor)> {
        let edge = self.guard.as_ref().map(|guard| &guard.edge);
        let parts = self.recent.as_ref().map(|recent| recent.after(after)).unwrap_or_default();
        let known = if self.names_in_part { self.session.acknowledged().unwrap_or(0) } else { 0 };
        let mut batch = Reading::new(&self.ledger, (filter, edge), &mut self.whole, (known, &mut self.roots));
        let upto = batch.read(after, &parts)?;
        let events = batch.finish();
        if let Some(guard) = &mut self.guard {
            guard.sends(&events);
        }
        Ok((events, upto))
    }

    /// Up to where the log can be looked through in no time, and without the disk; `None` where it cannot.
    #[cfg(feature = "tokio")]
    fn soon_read(&self) -> Option<u64> {
        let parts = self.recent.as_ref()?.after(self.session.read()?);
        let (filter, edge) = (self.session.wanted_by_other()?, self.guard.as_ref().map(|guard| &guard.edge));
        let mut few = AT_ONCE;
        let is_soon = parts.iter().all(|part| {
            let is_shown = |name: &&String| edge.is_none_or(|edge| edge.shows(name));
            let shown = part.collections.iter().filter(is_shown);
            let mut wanted = shown.filter_map(|name| filter.conditions(name)).peekable();
            if wanted.peek().is_none() {
                return true;
            }
            few = few.saturating_sub(part.entries.len());
            let is_free = edge.is_none_or(|edge| edge.has_no_conditions(&part.collections));
            few > 0 && is_free && wanted.all(<[Condition]>::is_empty)
        });
        parts.last().filter(|_| is_soon).map(|last| last.upto.position)
    }

    fn keep_refusals(&mut self, refused: Vec<Refusal>) {
        // A device has nothing to refuse, and could fill memory with it.
        if self.guard.is_some() {
            return;
        }
        // What is built on what was refused is not sent so that it cannot be read.
        self.names_in_part &= refused.is_empty();
        let room = MOST_REFUSALS.saturating_sub(self.refusals.len());
        self.refusals.extend(refused.into_iter().take(room).map(|mut refusal| {
            refusal.code = refusal.code.chars().take(MOST_CODE_CHARS).collect();
            refusal.message = refusal.message.chars().take(MOST_WORD_CHARS).collect();
            refusal
        }));
    }

    /// What is wanted of another replica, from where what is here of it ends.
    fn choose(&mut self, hello: &Hello) -> Result<Option<Wants>> {
        self.other = Some(hello.replica);
        let now_ms = self.ledger.shared().now_ms();
        self.clock_offset_ms = Some(hello.now_ms.cast_signed().saturating_sub(now_ms.cast_signed()));
        let Some(filter) = self.wants.clone().filter(|_| hello.sends) else { return Ok(None) };
        let held = match self.wants_again {
            true => None,
            false => self.ledger.held_of(hello.replica, &self.cursor_name(&filter))?,
        };
        let (cursor, scope) = held.unzip();
        let mut wants = Wants::after(cursor, filter);
        wants.scope = scope.unwrap_or_default();
        wants.whole_ids = self.wants_whole_ids;
        let head = self.ledger.position();
        wants.holds_events = cursor.is_none() && head > 0 && head <= MOST_LISTED;
        if head > 0 && !self.wants_again {
            wants.digests = self.ledger.digests().1.into_iter().filter(|(name, _)| self.shows(name)).collect();
        }
        Ok(Some(wants))
    }

    /// Whether the other side may know of a collection.
    fn shows(&self, collection: &str) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.edge.shows(collection))
    }

    fn begin_sending(&mut self, wants: &Wants) -> Result<Input> {
        self.names_in_part &= !wants.whole_ids;
        let scope = self.guard.as_ref().map(|guard| guard.edge.scope()).unwrap_or_default();
        let cursor = wants.cursor.filter(|_| wants.scope == scope && !self.sends_again);
        let position = cursor.map_or(0, |cursor| {
            // A place that cannot be read says nothing: reading from the beginning meets the same fault.
            let here = self.ledger.cursor_at(cursor.position).ok().flatten();
            if here == Some(cursor) { cursor.position } else { 0 }
        });
        let (upto, ours) = self.ledger.digests();
        let same = wants.digests.iter().filter(|(name, digest)| ours.get(name) == Some(digest));
        Ok(Input::From { position, scope, alike: (upto, same.map(|(name, _)| name.clone()).collect()) })
    }

    /// A bit for each id of an event that is not here.
    fn lacking(&mut self, ids: &[ShortId]) -> Result<Vec<u8>> {
        if self.listed.is_none() {
            let mut listed = HashSet::new();
            self.ledger.log_reader().each(0, self.ledger.position(), |entry| {
                listed.insert(short(&entry.id));
                Ok(true)
            })?;
            self.listed = Some(listed);
        }
        let mut bits = vec![0_u8; ids.len().div_ceil(8)];
        for (nth, id) in ids.iter().enumerate() {
            let is_here = self.listed.as_ref().is_some_and(|listed| listed.contains(id));
            if let Some(byte) = bits.get_mut(nth / 8).filter(|_| !is_here) {
                *byte |= 1 << (nth % 8);
            }
        }
        Ok(bits)
    }

    fn apply(&mut self, upto: Cursor, events: Vec<Item>) -> Result<Applied> {
        let (came, events) = (events.len() as u64, self.sift(events)?);
        self.noted.1 += came;
        self.traffic.received(&events);
        let lacks = match &self.guard {
            Some(guard) => guard.unshown(&self.ledger, &events)?,
            None => self.ledger.lacks(&events)?,
        };
        if !lacks.is_empty() {
            return Ok(Applied::Lacks { events, blobs: lacks });
        }
        if let Some(listed) = &mut self.listed {
            listed.extend(events.iter().map(|item| short(&item.id)));
        }
        let run = Some(self.run);
        let foreign: Vec<Foreign> = events.into_iter().map(|item| Foreign::of(item, run)).collect();
        if !foreign.is_empty() {
            self.take_in(foreign)?;
        }
        if upto.position <= self.offered {
            self.early += came;
        } else if self.wants.as_ref().is_some_and(Filter::is_everything) {
            // What was not sent is known to be here, or came before its turn.
            let left_out = upto.position.saturating_sub(self.offered).saturating_sub(came);
            let known = left_out.saturating_sub(self.early);
            self.early = self.early.saturating_sub(left_out);
            self.transfer.add(Transfer { offered: known, duplicates: known, ..Transfer::default() });
        }
        self.offered = self.offered.max(upto.position);
        let refused = self.guard.as_mut().map(Guard::take_untold).unwrap_or_default();
        self.traffic.refused(&refused);
        Ok(Applied::Whole { waits: self.ledger.holds_waiting(), refused })
    }

    fn take_in(&mut self, foreign: Vec<Foreign>) -> Result<()> {
        let (id, queue) = (self.ledger.id(), self.ledger.store.queue());
        let Some(guard) = &mut self.guard else {
            self.transfer.add(queue.run(id, move |writing| writing.apply(foreign))?);
            return Ok(());
        };
        let (done, refused) = queue.run(id, move |writing| writing.apply_at_edge(foreign))?;
        refused.iter().for_each(|(event, why)| guard.refuse(*event, why));
        self.transfer.add(done);
        Ok(())
    }

    /// Leaves of what came what the other side may send.
    fn sift(&mut self, events: Vec<Item>) -> Result<Vec<Item>> {
        match &mut self.guard {
            Some(guard) => guard.sift(&self.ledger, events),
            None => Ok(events),
        }
    }

    fn part(&mut self, hash: BlobHash, offset: u64) -> Result<Option<(u64, Vec<u8>)>> {
        if self.guard.as_ref().is_some_and(|guard| !guard.may_have(hash)) {
            return Ok(None);
        }
        if self.blob.as_ref().is_none_or(|(read, _)| *read != hash) {
            let blobs = &self.ledger.shared().blobs;
            if !blobs.contains(hash)? {
                return Ok(None);
            }
            self.blob = Some((hash, blobs.get(hash)?));
        }
        let Some((_, bytes)) = &self.blob else { return Ok(None) };
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let (total, part) = (bytes.len() as u64, rest.get(..BLOB_BYTES).unwrap_or(rest).to_vec());
        if offset + part.len() as u64 == total {
            self.blob = None;
        }
        Ok(Some((total, part)))
    }

    /// Writes down how far the other log was taken in, where that is due.
    fn note(&mut self, is_due: bool) -> Result<()> {
        // Of a log that was written again it is not known whether it holds what was taken in.
        if !self.is_of_its_log() {
            return Ok(());
        }
        let (Some(cursor), Some(other), true) = (self.noted.0, self.other, is_due) else { return Ok(()) };
        self.noted = (None, 0, self.ledger.shared().now_ms());
        let Some(filter) = &self.wants else { return Ok(()) };
        self.ledger.note_held(other, &self.cursor_name(filter), cursor, &self.scope)
    }

    /// What cursors of sessions are kept by that take in what this one does.
    fn cursor_name(&self, filter: &Filter) -> String {
        filter.name() + &self.guard.as_ref().map(|guard| guard.edge.takes()).unwrap_or_default()
    }
}

impl Drop for Peer {
    /// Notes how far the other log was taken in, where the session broke off: else that is asked for again.
    fn drop(&mut self) {
        let _ = self.note(true);
    }
}

impl Ledger {
    /// The digest of what is here of each collection, up to a position.
    fn digests(&self) -> (u64, BTreeMap<String, [u8; 32]>) {
        let meta = self.shared().meta_added_up(self.id());
        let of = |(name, sum): (&String, &super::digest::LtHash)| (name.clone(), sum.digest());
        (meta.position, meta.sums.of_collections().iter().map(of).collect())
    }

    /// Large values that events name and that are not here.
    fn lacks(&self, events: &[Item]) -> Result<Vec<BlobHash>> {
        let named: BTreeSet<BlobHash> = events.iter().flat_map(|item| blobs_of(&item.event)).collect();
        let mut lacks = Vec::new();
        for hash in named {
            if !self.shared().blobs.contains(hash)? {
                lacks.push(hash);
            }
        }
        Ok(lacks)
    }
}

/// The events of a batch while they are read.
struct Reading<'a> {
    ledger: &'a Ledger,
    filter: &'a Filter,
    edge: Option<&'a Edge>,
    /// Records under conditions of which everything was sent.
    whole: &'a mut BTreeSet<RecordKey>,
    /// Up to where the other side has everything that is wanted, and what of that is named.
    known: u64,
    roots: &'a mut Roots,
    events: Vec<Item>,
    weight: usize,
}

impl<'a> Reading<'a> {
    fn new(
        ledger: &'a Ledger,
        (filter, edge): (&'a Filter, Option<&'a Edge>),
        whole: &'a mut BTreeSet<RecordKey>,
        (known, roots): (u64, &'a mut Roots),
    ) -> Self {
        if whole.len() > MOST_WHOLE {
            whole.clear();
        }
        Self { ledger, filter, edge, whole, known, roots, events: Vec::new(), weight: 0 }
    }

    /// Reads what follows a position, of the latest parts of the log where they go back so far. Returns up to where it was looked
    /// through.
    fn read(&mut self, after: u64, parts: &[Arc<Part>]) -> Result<Cursor> {
        if let Some(upto) = self.take_parts(after, parts)? {
            return Ok(upto);
        }
        let until = self.ledger.position().min(after.saturating_add(LOOKED_THROUGH));
        let room = usize::try_from(until.saturating_sub(after)).unwrap_or(BATCH_EVENTS);
        self.events.reserve(room.min(BATCH_EVENTS));
        let mut upto = None;
        self.ledger.log_reader().each(after, until, |entry| {
            upto = Some(Mark::of(&entry));
            self.take(Cow::Owned(entry))?;
            Ok(!self.is_full())
        })?;
        let nothing = || Error::new(ErrorKind::Consistency, format!("the log ends at position {after}"));
        upto.map(Mark::cursor).ok_or_else(nothing)
    }

    fn finish(self) -> Vec<Item> {
        let mut events = self.events;
        // Earlier events of a record that came to be wanted lie before those that follow the position.
        events.sort_by_key(|item| item.position);
        events.dedup_by_key(|item| item.position);
        events
    }

    fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS || self.weight >= BATCH_WEIGHT
    }

    /// Takes of the latest parts of the log what follows a position. Returns up to where that is.
    fn take_parts(&mut self, after: u64, parts: &[Arc<Part>]) -> Result<Option<Cursor>> {
        let mut upto = None;
        for part in parts {
            if part.collections.iter().any(|name| self.filter.conditions(name).is_some()) {
                for entry in part.entries.iter().filter(|entry| entry.position > after) {
                    self.take(Cow::Borrowed(entry))?;
                    if self.is_full() {
                        return Ok(Some(Mark::of(entry).cursor()));
                    }
                }
            }
            upto = Some(part.upto);
        }
        Ok(upto)
    }

    fn take(&mut self, entry: Cow<'_, Entry>) -> Result<()> {
        let collection = &entry.event.collection;
        let Some(conditions) = self.filter.conditions(collection) else { return Ok(()) };
        let demands = match self.edge {
            Some(edge) if !edge.shows(collection) => return Ok(()),
            Some(edge) => edge.reads.conditions(collection).unwrap_or_default(),
            None => &[],
        };
        if conditions.is_empty() && demands.is_empty() {
            if (1..=self.known).contains(&entry.previous) {
                self.roots.extend(&entry.event.parents);
            }
            self.push(entry.into_owned());
            return Ok(());
        }
        let key = (collection.clone(), entry.event.key.clone());
        // What it may not have any more is not sent, not even the event that made it so.
        if !demands.is_empty() && !self.meets(&key, demands, None)? {
            self.whole.remove(&key);
            return Ok(());
        }
        // One that is not wanted any more is sent up to the event that made it so.
        let was_wanted = || {
            let before = AsOf::Position(entry.position - 1);
            Ok::<_, Error>(entry.previous > 0 && self.meets(&key, conditions, Some(before))?)
        };
        if !self.meets(&key, conditions, None)? && !was_wanted()? {
            self.whole.remove(&key);
            return Ok(());
        }
        // What the other side has of it from earlier sessions is not known, and an event without those before it would wait
        // there for ever.
        if self.whole.insert(key) {
            let earlier = self.ledger.log_reader().record(entry.previous, 0)?;
            earlier.into_iter().for_each(|entry| self.push(entry));
        }
        self.push(entry.into_owned());
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        self.weight += segment::weight(&entry.event);
        let Entry { position, id, run, event, .. } = entry;
        // When it arrived here, and what came before it here, is nobody else's business.
        self.events.push(Item { position, previous: 0, received_at: 0, run, id, event });
    }

    fn meets(&self, key: &RecordKey, conditions: &[Condition], as_of: Option<AsOf>) -> Result<bool> {
        let found = self.ledger.look(&key.0, &key.1, &Look { as_of, ..Look::default() })?;
        Ok(found.is_some_and(|record| conditions.iter().all(|condition| condition.is_met(&record.value))))
    }
}

/// Takes in what another ledger of this program holds, in a session of two threads.
pub(super) fn pull(
    ours: &Ledger,
    theirs: &Ledger,
    progress: &mut dyn FnMut(Transfer) -> Result<()>,
) -> Result<Transfer> {
    let wants = Some(Filter::default());
    let mut receiver = ours.session(&SessionOptions { sends: false, wants, ..SessionOptions::default() })?;
    let mut sender = theirs.session(&SessionOptions { wants: None, ..SessionOptions::default() })?;
    let ((to_sender, from_receiver), (to_receiver, from_sender)) = (channel(), channel());
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            talk(&mut sender, &from_receiver, &to_receiver, &mut |_| Ok(()));
            sender.finish()
        });
        talk(&mut receiver, &from_sender, &to_sender, progress);
        // Who still waits for a word hears that nobody is there.
        drop(to_sender);
        let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
        let was_left = receiver.session.was_left();
        match (receiver.finish(), other) {
            // What went wrong there is told in its own words.
            (Err(_), Err(fault)) if was_left => Err(fault),
            (ours, _) => ours,
        }
    })
}

/// Talks until the session ends, or nobody answers.
fn talk(
    peer: &mut Peer,
    heard: &Receiver<Message>,
    said: &Sender<Message>,
    progress: &mut dyn FnMut(Transfer) -> Result<()>,
) {
    // Who has hung up hears no more.
    let say = |messages: Vec<Message>| messages.into_iter().for_each(|message| drop(said.send(message)));
    say(peer.begin());
    while !peer.is_ended() {
        let Ok(message) = heard.recv() else { return };
        let before = peer.transfer();
        say(peer.hear(message));
        if peer.transfer() != before
            && let Err(fault) = progress(peer.transfer())
        {
            say(peer.fail(fault));
        }
    }
}
