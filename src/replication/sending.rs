//! The half of a session that sends.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use foldhash::fast::RandomState;

use super::Filter;
use super::message::{BatchNumber, Cursor, Message, Wants, short};
use super::session::Output;
use crate::event::EventId;
use crate::segment::Item;
use crate::{Error, ErrorKind, Result};

/// How many of the events that came from the other side are remembered, so as not to be sent back.
const REMEMBERED: usize = 1 << 16;
/// Where more events wait than these, some collections go before the others.
const MANY: u64 = 1_024;
/// After so many offers of which everything was wanted, bodies are sent at once.
const VAIN_OFFERS: u32 = 4;

/// Events that came from the other side; of too many the oldest are forgotten, and sent back.
#[derive(Default)]
struct Echoes {
    ids: HashSet<EventId, RandomState>,
    order: VecDeque<EventId>,
}

impl Echoes {
    fn add(&mut self, id: EventId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// Collections that go first where much waits.
#[derive(Default)]
struct Early {
    /// Their names, in the order in which they go, and up to where the log was read for each.
    levels: Vec<(String, u64)>,
    /// What was sent before its turn, and is to be left out then.
    sent: HashSet<EventId, RandomState>,
}

/// A part of the log that is being read.
#[derive(Clone, Copy)]
enum Turn {
    /// For the collection at this place of those that go first.
    Early(usize),
    /// In the order of the log.
    Own,
}

/// What is sent to the other side, and how far that is.
pub(super) struct Sending {
    wants: Wants,
    /// Everything up to here was read.
    read: u64,
    /// The last position of the log, and where to stop where nobody follows.
    head: u64,
    reading: Option<Turn>,
    early: Early,
    /// Up to where the other side was told that everything was sent.
    place: Cursor,
    /// The number of the last batch, and how many of them are not acknowledged.
    batch: BatchNumber,
    acknowledged: BatchNumber,
    /// Everything that is wanted up to this position is durable at the other side, or was refused.
    held: u64,
    /// Batches of which the ids were offered.
    offered: BTreeMap<BatchNumber, (Cursor, Vec<Item>)>,
    offers: bool,
    vain: u32,
    /// Up to where collections are alike on both sides, and which.
    alike: (u64, BTreeSet<String>),
    echoes: Echoes,
    /// Whether the other side was told that there is no more, and whether it ever was.
    said_reached: bool,
    was_reached: bool,
    /// Whether the log is followed, and up to where it was looked through since the other side was told of anything: of what
    /// lies between it wants nothing.
    follows: bool,
    passed: Option<Cursor>,
}

impl Sending {
    /// Sends what is wanted after a position of a log that ends at `head`.
    pub(super) fn new(wants: Wants, from: u64, head: u64, alike: (u64, BTreeSet<String>), follows: bool) -> Self {
        let offers = wants.holds_events && wants.cursor.is_none();
        let (batch, acknowledged, vain, reading, said_reached) = Default::default();
        let (offered, echoes, was_reached, passed, early) = Default::default();
        let nowhere = Cursor { position: 0, mark: [0; 32] };
        let place = wants.cursor.filter(|cursor| cursor.position == from).unwrap_or(nowhere);
        Self {
            wants,
            read: from.min(head),
            head,
            reading,
            early,
            place,
            batch,
            acknowledged,
            held: from.min(head),
            offered,
            offers,
            vain,
            alike,
            echoes,
            said_reached,
            was_reached,
            follows,
            passed,
        }
    }

    /// Sends events of these collections before those of others, where more waits than makes a batch. Not where the other side wants
    /// only some of their records: which those are changes along the log.
    pub(super) fn first(mut self, collections: &[String]) -> Self {
        let all_wanted = |name: &&String| self.wants.filter.conditions(name).is_some_and(<[_]>::is_empty);
        self.early.levels = collections.iter().filter(all_wanted).map(|name| (name.clone(), self.read)).collect();
        self
    }

    /// Up to where the log was read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.wants.filter
    }

    /// Whether the log was looked through without the other side being told.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.is_some()
    }

    /// Tells the other side how far the log was looked through.
    pub(super) fn tell_passed(&mut self, outputs: &mut VecDeque<Output>) {
        if self.reading.is_some() || self.is_full() {
            return;
        }
        if let Some(upto) = self.passed.take() {
            self.send(upto, Vec::new(), outputs);
            self.go_on(outputs);
        }
    }

    fn is_full(&self) -> bool {
        self.batch - self.acknowledged >= u64::from(self.wants.window.max(1))
    }

    fn send(&mut self, upto: Cursor, events: Vec<Item>, outputs: &mut VecDeque<Output>) {
        self.batch += 1;
        self.said_reached = false;
        (self.passed, self.place) = (None, upto);
        outputs.push_back(Output::Send(Message::Batch { batch: self.batch, upto, events }));
    }

    /// What was passed needs no answer: once nothing is under way, the other side has everything up to there.
    fn settle(&mut self) {
        if let Some(passed) = self.passed.filter(|_| self.acknowledged == self.batch) {
            self.held = self.held.max(passed.position);
        }
    }

    /// The log has grown.
    pub(super) fn grown(&mut self, head: u64, outputs: &mut VecDeque<Output>) {
        self.head = self.head.max(head);
        self.go_on(outputs);
    }

    /// Remembers what came from the other side.
    pub(super) fn came(&mut self, id: EventId) {
        self.echoes.add(id);
    }

    /// Whether everything was sent and taken in.
    pub(super) fn is_done(&self) -> bool {
        self.said_reached && self.acknowledged == self.batch
    }

    /// Up to which position of the log the other side has said that it has everything that it wants, or refuses it.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Reads on where that is due, and says so where there is no more.
    pub(super) fn go_on(&mut self, outputs: &mut VecDeque<Output>) {
        if self.reading.is_some() || self.is_full() {
            return;
        }
        if let Some((level, after, name)) = self.early_due() {
            let filter = Filter::of([name.as_str()]);
            self.reading = Some(Turn::Early(level));
            outputs.push_back(Output::Read { after, filter });
        } else if self.read < self.head {
            self.reading = Some(Turn::Own);
            outputs.push_back(Output::Read { after: self.read, filter: self.wants.filter.clone() });
        } else if !self.said_reached && self.offered.is_empty() {
            (self.said_reached, self.was_reached) = (true, true);
            outputs.push_back(Output::Send(Message::Reached));
        }
    }

    /// The collection that goes before its turn, and after which position: its place among those that do, and its name.
    fn early_due(&self) -> Option<(usize, u64, &String)> {
        let much_waits = self.head.saturating_sub(self.read) > MANY;
        if !much_waits || self.early.sent.len() >= REMEMBERED {
            return None;
        }
        let levels = self.early.levels.iter().enumerate();
        let mut due = levels.map(|(level, (name, read))| (level, (*read).max(self.read), name));
        due.find(|(_, after, _)| *after < self.head)
    }

    /// What of events the other side neither has nor sent.
    fn lacking(&self, mut events: Vec<Item>) -> Vec<Item> {
        events.retain(|item| {
            let is_alike = item.position <= self.alike.0 && self.alike.1.contains(&item.event.collection);
            !is_alike && !self.echoes.ids.contains(&item.id)
        });
        events
    }

    /// Sends what was read.
    pub(super) fn was_read(&mut self, upto: Cursor, events: Vec<Item>, outputs: &mut VecDeque<Output>) -> Result<()> {
        match self.reading.take() {
            Some(Turn::Own) if upto.position > self.read => self.was_read_in_order(upto, events, outputs),
            Some(Turn::Early(level)) => self.was_read_early(level, upto, events, outputs)?,
            _ => return Err(misused("a read that was not asked for, or that went no further")),
        }
        self.go_on(outputs);
        Ok(())
    }

    /// Sends what goes before its turn: the other side's cursor comes no further.
    fn was_read_early(
        &mut self,
        level: usize,
        upto: Cursor,
        events: Vec<Item>,
        outputs: &mut VecDeque<Output>,
    ) -> Result<()> {
        let read = self.early.levels.get_mut(level).map(|(_, read)| read);
        let read = read.filter(|read| **read < upto.position);
        *read.ok_or_else(|| misused("a read that went no further"))? = upto.position;
        let mut events = self.lacking(events);
        events.retain(|item| self.early.sent.insert(item.id));
        if !events.is_empty() {
            self.give(self.place, events, outputs);
        }
        Ok(())
    }

    /// Sends events, or offers them where the other side may have them.
    fn give(&mut self, upto: Cursor, events: Vec<Item>, outputs: &mut VecDeque<Output>) {
        // Batches come in the order of their numbers: none passes an offer that is not answered yet.
        if (!self.offers || events.is_empty()) && self.offered.is_empty() {
            return self.send(upto, events, outputs);
        }
        self.batch += 1;
        (self.said_reached, self.passed, self.place) = (false, None, upto);
        let ids = events.iter().map(|item| short(&item.id)).collect();
        self.offered.insert(self.batch, (upto, events));
        outputs.push_back(Output::Send(Message::Offer { batch: self.batch, ids }));
    }

    fn was_read_in_order(&mut self, upto: Cursor, events: Vec<Item>, outputs: &mut VecDeque<Output>) {
        self.read = upto.position;
        let mut events = self.lacking(events);
        if !self.early.sent.is_empty() {
            events.retain(|item| !self.early.sent.remove(&item.id));
        }
        if events.is_empty() && self.offered.is_empty() && self.follows && self.was_reached {
            // Of many that follow a log, few want what comes: the others need not hear of each growth.
            self.passed = Some(upto);
            self.settle();
        } else {
            // Also where all of it is left out: the other side's cursor comes further.
            self.give(upto, events, outputs);
        }
    }

    /// Sends what is wanted of an offer.
    pub(super) fn wanted(&mut self, batch: BatchNumber, bits: &[u8], outputs: &mut VecDeque<Output>) -> Result<()> {
        let Some((upto, mut events)) = self.offered.remove(&batch) else {
            return Err(broken(&format!("an offer {batch}, of which nothing is known, is answered")));
        };
        if bits.len() != events.len().div_ceil(8) {
            return Err(broken("an offer is answered for another number of events"));
        }
        let offered = events.len();
        let mut nth = 0;
        events.retain(|_| {
            nth += 1;
            bit(bits, nth - 1)
        });
        if offered > 0 {
            self.vain = if events.len() == offered { self.vain + 1 } else { 0 };
        }
        self.offers = self.vain < VAIN_OFFERS;
        outputs.push_back(Output::Send(Message::Batch { batch, upto, events }));
        self.go_on(outputs);
        Ok(())
    }

    /// A batch was taken in.
    pub(super) fn acked(
        &mut self,
        batch: BatchNumber,
        cursor: Option<Cursor>,
        outputs: &mut VecDeque<Output>,
    ) -> Result<()> {
        if batch != self.acknowledged + 1 || batch > self.batch || self.offered.contains_key(&batch) {
            return Err(broken(&format!("batch {batch} is acknowledged, after {}", self.acknowledged)));
        }
        self.acknowledged = batch;
        // It can have no more than was read for it.
        let held = cursor.map_or(0, |cursor| cursor.position.min(self.read));
        self.held = self.held.max(held);
        self.settle();
        self.go_on(outputs);
        Ok(())
    }
}

/// Whether a bit is set.
pub(super) fn bit(bits: &[u8], nth: usize) -> bool {
    bits.get(nth / 8).is_some_and(|byte| byte >> (nth % 8) & 1 == 1)
}

/// The other side broke a rule.
pub(super) fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Consistency, format!("the other replica breaks the rules of the protocol: {what}"))
        .with_hint("connect again; if it goes on, one of the two programs has a fault")
}

/// Who runs the session broke a rule.
pub(super) fn misused(what: &str) -> Error {
    Error::new(ErrorKind::Consistency, format!("the session was given {what}"))
}
