//! The half of a session that receives.

use std::collections::{BTreeSet, VecDeque};

use super::message::{BatchNumber, Cursor, Message, ShortId};
use super::sending::{broken, misused};
use super::session::{Applied, Output};
use crate::event::{BlobHash, limits};
use crate::segment::{Item, weight};
use crate::{Error, ErrorKind, Result};

/// About how many bytes of memory batches take at most while the one before them waits for large values: four times what those take
/// that a sender has under way.
const MOST_HELD: usize = 64 << 20;

/// A batch that came.
struct Batch {
    number: BatchNumber,
    upto: Cursor,
    events: Vec<Item>,
}

/// A large value that is on its way.
struct Fetching {
    hash: BlobHash,
    bytes: Vec<u8>,
}

/// What came from the other side, and how far that is.
pub(super) struct Receiving {
    window: u16,
    /// The number of the batch, or offer, that comes next.
    due: BatchNumber,
    /// Batches that were offered, whose bodies did not come.
    offered: VecDeque<BatchNumber>,
    pending: VecDeque<Batch>,
    is_applying: bool,
    lacking: BTreeSet<BlobHash>,
    fetching: Option<Fetching>,
    /// Up to where everything is here.
    cursor: Option<Cursor>,
    /// After which position the other side sends, and up to where it did; `None` before it has said so.
    sent: Option<u64>,
    /// Whether the other side said that there is no more.
    reached: bool,
    told: bool,
    /// The last ping after refusals, while it is not known whether the other side heard it, and up to where everything is here
    /// that may be noted once it has: who lost an answer is to be told again.
    unheard: Option<u64>,
    unnoted: Option<Cursor>,
}

impl Receiving {
    pub(super) fn new(window: u16, cursor: Option<Cursor>) -> Self {
        let (offered, pending, is_applying, lacking, fetching, reached, told) = Default::default();
        let (due, sent, unheard, unnoted) = (1, None, None, None);
        Self {
            window,
            due,
            offered,
            pending,
            is_applying,
            lacking,
            fetching,
            cursor,
            sent,
            reached,
            told,
            unheard,
            unnoted,
        }
    }

    pub(super) fn begun(&mut self, after: u64, scope: String, outputs: &mut VecDeque<Output>) -> Result<()> {
        let ours = self.cursor.map_or(0, |cursor| cursor.position);
        if self.sent.is_some() || (after != 0 && after != ours) {
            return Err(broken("it begins twice, or where nobody asked it to"));
        }
        self.sent = Some(after);
        self.cursor = self.cursor.filter(|_| after != 0);
        outputs.push_back(Output::Begun { after, scope });
        Ok(())
    }

    /// Whether everything came that there is.
    fn has_all(&self) -> bool {
        self.reached && self.pending.is_empty()
    }

    /// Whether everything came, and the other side knows what of it was refused.
    pub(super) fn is_done(&self) -> bool {
        self.has_all() && self.unheard.is_none()
    }

    /// A ping follows what was refused: its answer tells that the other side has heard it.
    pub(super) fn refused_before(&mut self, ping: u64) {
        self.unheard = Some(ping);
    }

    /// The other side heard everything up to a ping.
    pub(super) fn heard(&mut self, ping: u64, outputs: &mut VecDeque<Output>) {
        self.unheard = self.unheard.filter(|unheard| *unheard > ping);
        self.note(outputs);
    }

    fn note(&mut self, outputs: &mut VecDeque<Output>) {
        if self.unheard.is_none() {
            outputs.extend(self.unnoted.take().map(Output::Note));
        }
    }

    /// About how many bytes of memory batches take that wait, with the events of another.
    fn held(&self, more: &[Item]) -> usize {
        let waiting = self.pending.iter().flat_map(|batch| &batch.events);
        waiting.chain(more).map(|item| weight(&item.event)).sum()
    }

    /// An offer, or a batch that was not offered, has to be the next.
    fn take_number(&mut self, batch: BatchNumber) -> Result<()> {
        if batch != self.due {
            return Err(broken(&format!("expected batch {}, got {batch}", self.due)));
        }
        if self.pending.len() + self.offered.len() >= usize::from(self.window.max(1)) {
            return Err(broken("more batches are under way than were allowed"));
        }
        self.due += 1;
        (self.reached, self.told) = (false, false);
        Ok(())
    }

    pub(super) fn offer(
        &mut self,
        batch: BatchNumber,
        ids: Vec<ShortId>,
        outputs: &mut VecDeque<Output>,
    ) -> Result<()> {
        self.take_number(batch)?;
        self.offered.push_back(batch);
        outputs.push_back(Output::Known { batch, ids });
        Ok(())
    }

    pub(super) fn batch(
        &mut self,
        number: BatchNumber,
        upto: Cursor,
        events: Vec<Item>,
        outputs: &mut VecDeque<Output>,
    ) -> Result<()> {
        match self.offered.front() {
            Some(offered) if *offered == number => drop(self.offered.pop_front()),
            // Bodies come in the order of their numbers.
            Some(offered) => return Err(broken(&format!("expected batch {offered}, got {number}"))),
            None => self.take_number(number)?,
        }
        // What goes before its turn comes no further.
        if self.sent.is_none_or(|sent| sent > upto.position) {
            return Err(broken("a batch goes back, or comes before its beginning"));
        }
        if !self.pending.is_empty() && self.held(&events) > MOST_HELD {
            return Err(broken("the batches under way hold more than is taken at once"));
        }
        self.sent = Some(upto.position);
        self.pending.push_back(Batch { number, upto, events });
        self.go_on(outputs);
        Ok(())
    }

    /// Has the next batch taken in.
    fn go_on(&mut self, outputs: &mut VecDeque<Output>) {
        if let Some(batch) = self.pending.front_mut().filter(|_| !self.is_applying) {
            self.is_applying = true;
            let events = std::mem::take(&mut batch.events);
            outputs.push_back(Output::Apply { batch: batch.number, upto: batch.upto, events });
        } else if self.has_all() && !self.told {
            self.told = true;
            outputs.push_back(Output::Reached);
        }
    }

    /// A batch was taken in, or lacks large values.
    pub(super) fn applied(
        &mut self,
        batch: BatchNumber,
        applied: Applied,
        outputs: &mut VecDeque<Output>,
    ) -> Result<()> {
        let Some(front) = self.pending.front_mut().filter(|front| front.number == batch && self.is_applying) else {
            return Err(misused("the outcome of a batch that was not to be applied"));
        };
        match applied {
            Applied::Lacks { events, blobs } => {
                if blobs.is_empty() {
                    return Err(misused("a batch that lacks nothing"));
                }
                front.events = events;
                self.lacking = blobs.into_iter().collect();
                self.fetch(outputs);
            }
            Applied::Whole { waits, refused } => {
                let upto = front.upto;
                self.pending.pop_front();
                self.is_applying = false;
                if !waits {
                    (self.cursor, self.unnoted) = (Some(upto), Some(upto));
                }
                self.note(outputs);
                outputs.push_back(Output::Send(Message::Ack { batch, cursor: self.cursor, refused }));
                self.go_on(outputs);
            }
        }
        Ok(())
    }

    /// Asks for the next large value that is lacking, or has the batch taken in.
    fn fetch(&mut self, outputs: &mut VecDeque<Output>) {
        match self.lacking.first() {
            Some(hash) => {
                self.fetching = Some(Fetching { hash: *hash, bytes: Vec::new() });
                outputs.push_back(Output::Send(Message::WantBlob { hash: *hash, offset: 0 }));
            }
            None => {
                self.is_applying = false;
                self.go_on(outputs);
            }
        }
    }

    /// A part of a large value came.
    pub(super) fn blob(
        &mut self,
        hash: BlobHash,
        (total, offset): (u64, u64),
        part: &[u8],
        outputs: &mut VecDeque<Output>,
    ) -> Result<()> {
        let Some(fetching) = self.fetching.as_mut().filter(|fetching| fetching.hash == hash) else {
            return Err(broken("a large value came that was not asked for"));
        };
        let held = fetching.bytes.len() as u64;
        let fits = total <= limits::BLOB_BYTES && offset == held && held + part.len() as u64 <= total;
        if !fits || (part.is_empty() && held < total) {
            return Err(broken("a part of a large value does not follow the one before"));
        }
        fetching.bytes.extend_from_slice(part);
        let held = fetching.bytes.len() as u64;
        if held < total {
            outputs.push_back(Output::Send(Message::WantBlob { hash, offset: held }));
            return Ok(());
        }
        let bytes = self.fetching.take().map(|fetching| fetching.bytes).unwrap_or_default();
        if BlobHash::of(&bytes) != hash {
            return Err(broken("a large value has another hash than it was asked for by"));
        }
        outputs.push_back(Output::StoreBlob { hash, bytes });
        Ok(())
    }

    /// A large value was stored.
    pub(super) fn stored(&mut self, hash: BlobHash, outputs: &mut VecDeque<Output>) -> Result<()> {
        if !self.lacking.remove(&hash) {
            return Err(misused("a large value that was not to be stored"));
        }
        self.fetch(outputs);
        Ok(())
    }

    /// The other side has no more.
    pub(super) fn reached(&mut self, outputs: &mut VecDeque<Output>) -> Result<()> {
        if !self.offered.is_empty() {
            return Err(broken("it has no more, but did not send what it offered"));
        }
        self.reached = true;
        self.go_on(outputs);
        Ok(())
    }
}

/// A large value that events name is nowhere.
pub(super) fn no_blob(hash: BlobHash) -> Error {
    Error::new(ErrorKind::NotFound, format!("the other replica lacks the large value {hash}, which its events name"))
        .with_hint("pull from a replica that has it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventId};

    /// A batch of one event, whose key makes it as heavy as is wanted.
    fn batch(number: BatchNumber, bytes: usize) -> (BatchNumber, Cursor, Vec<Item>) {
        let event = Event { key: "k".repeat(bytes), ..crate::testing::event(Vec::new()) };
        let id = EventId([number as u8; 32]);
        let item = Item { position: number, previous: 0, received_at: 0, run: None, id, event };
        (number, Cursor { position: number, mark: [0; 32] }, vec![item])
    }

    #[test]
    fn a_cursor_stays_while_an_event_waits_for_its_parents_and_comes_after_all_once_none_does() {
        let (mut receiving, mut outputs) = (Receiving::new(16, None), VecDeque::new());
        receiving.begun(0, String::new(), &mut outputs).unwrap();
        let mut acknowledged = |number, waits| {
            let (number, upto, events) = batch(number, 1);
            receiving.batch(number, upto, events, &mut outputs).unwrap();
            receiving.applied(number, Applied::Whole { waits, refused: Vec::new() }, &mut outputs).unwrap();
            let said = outputs.drain(..).find_map(|output| match output {
                Output::Send(Message::Ack { cursor, .. }) => Some(cursor.map(|cursor| cursor.position)),
                _ => None,
            });
            said.expect("it is acknowledged")
        };
        assert_eq!(
            [(1, false), (2, true), (3, true), (4, false)].map(|(number, waits)| acknowledged(number, waits)),
            [Some(1), Some(1), Some(1), Some(4)]
        );
    }

    #[test]
    fn a_large_value_under_a_hash_that_is_not_its_own_ends_the_session_and_is_not_stored() {
        let (mut receiving, mut outputs) = (Receiving::new(16, None), VecDeque::new());
        receiving.begun(0, String::new(), &mut outputs).unwrap();
        let hash = BlobHash::of(b"asked for");
        let (number, upto, events) = batch(1, 1);
        receiving.batch(number, upto, events.clone(), &mut outputs).unwrap();
        receiving.applied(number, Applied::Lacks { events, blobs: vec![hash] }, &mut outputs).unwrap();
        outputs.clear();
        let fault = receiving.blob(hash, (9, 0), b"forged!!!", &mut outputs).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Consistency, "{fault}");
        assert!(outputs.is_empty());
    }

    #[test]
    fn what_waits_behind_a_large_value_that_never_comes_is_bounded() {
        let (mut receiving, mut outputs) = (Receiving::new(16, None), VecDeque::new());
        receiving.begun(0, String::new(), &mut outputs).unwrap();
        let mut hear = |(number, upto, events), outputs: &mut VecDeque<Output>| {
            receiving.batch(number, upto, events, outputs)?;
            if number == 1 {
                let Some(Output::Apply { events, .. }) = outputs.pop_back() else { panic!("it is not taken in") };
                let lacks = Applied::Lacks { events, blobs: vec![BlobHash([7; 32])] };
                receiving.applied(number, lacks, outputs)?;
            }
            Ok::<_, Error>(())
        };
        // One alone may be larger.
        hear(batch(1, MOST_HELD + 1), &mut outputs).unwrap();
        let fault = hear(batch(2, 1), &mut outputs).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::Consistency, "{fault}");

        let (mut receiving, mut outputs) = (Receiving::new(16, None), VecDeque::new());
        receiving.begun(0, String::new(), &mut outputs).unwrap();
        let quarter = MOST_HELD / 4;
        let heard: Vec<bool> = (1..6)
            .map(|number| {
                let (number, upto, events) = batch(number, quarter - 1_000);
                receiving.batch(number, upto, events, &mut outputs).is_ok()
            })
            .collect();
        // The first is being taken in, and waits no more.
        assert_eq!(heard, [true; 5]);
        let (number, upto, events) = batch(6, quarter);
        assert!(receiving.batch(number, upto, events, &mut outputs).is_err());
    }
}
