//! The half of a session that sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Filter;
use super::message::{BatchNumber, Cursor, Message, Wants, short};
use super::session::Output;
use crate::event::EventId;
use crate::segment::Item;
use crate::{Error, ErrorKind, Result};

/// How many of the events that came from the other side are remembered, so as not to be sent back.
const REMEMBERED: usize = 1 << 16;
/// After so many offers of which everything was wanted, bodies are sent at once.
const VAIN_OFFERS: u32 = 4;

/// Events that came from the other side; of too many the oldest are forgotten, and sent back.
#[derive(Default)]
struct Echoes {
    ids: BTreeSet<EventId>,
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

/// What is sent to the other side, and how far that is.
pub(super) struct Sending {
    wants: Wants,
    /// Everything up to here was read.
    read: u64,
    /// The last position of the log, and where to stop where nobody follows.
    head: u64,
    is_reading: bool,
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
        let (batch, acknowledged, vain, is_reading, said_reached) = Default::default();
        let (offered, echoes, was_reached, passed) = Default::default();
        Self {
            wants,
            read: from.min(head),
            head,
            is_reading,
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
        if self.is_reading || self.is_full() {
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
        self.passed = None;
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
        if self.is_reading || self.is_full() {
            return;
        }
        if self.read < self.head {
            self.is_reading = true;
            outputs.push_back(Output::Read { after: self.read, filter: self.wants.filter.clone() });
        } else if !self.said_reached && self.offered.is_empty() {
            (self.said_reached, self.was_reached) = (true, true);
            outputs.push_back(Output::Send(Message::Reached));
        }
    }

    /// Sends what was read.
    pub(super) fn was_read(&mut self, upto: Cursor, events: Vec<Item>, outputs: &mut VecDeque<Output>) -> Result<()> {
        if !self.is_reading || upto.position <= self.read {
            return Err(misused("a read that was not asked for, or that went no further"));
        }
        self.is_reading = false;
        self.read = upto.position;
        let wanted = |item: &Item| {
            let is_alike = item.position <= self.alike.0 && self.alike.1.contains(&item.event.collection);
            !is_alike && !self.echoes.ids.contains(&item.id)
        };
        let events: Vec<Item> = events.into_iter().filter(wanted).collect();
        // Batches come in the order of their numbers: none passes an offer that is not answered yet.
        if (self.offers && !events.is_empty()) || !self.offered.is_empty() {
            self.batch += 1;
            (self.said_reached, self.passed) = (false, None);
            let ids = events.iter().map(|item| short(&item.id)).collect();
            self.offered.insert(self.batch, (upto, events));
            outputs.push_back(Output::Send(Message::Offer { batch: self.batch, ids }));
        } else if events.is_empty() && self.follows && self.was_reached {
            // Of many that follow a log, few want what comes: the others need not hear of each growth.
            self.passed = Some(upto);
            self.settle();
        } else {
            // Also where all of it is left out: the other side's cursor comes further.
            self.send(upto, events, outputs);
        }
        self.go_on(outputs);
        Ok(())
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
