//! What went over a session: for who reports on it.

use std::collections::BTreeMap;

use crate::replication::{Message, Refusal};
use crate::segment::Item;

/// How many collections are counted by name; what is of others is counted together.
const MOST_NAMED: usize = 256;
/// The name of the others.
const OTHERS: &str = "…";
/// How many refusals are kept in full.
const MOST_KEPT: usize = 100;

/// What went over a session so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of messages, as they were carried; 0 where what carries them does not count.
    pub received_bytes: u64,
    /// As above, to the other side.
    pub sent_bytes: u64,
    /// Events by collection: received, those known here included, and sent. At most 256 collections; the rest as `…`.
    pub collections: BTreeMap<String, (u64, u64)>,
    /// How many events of the other side were refused here.
    pub refused: u64,
    /// The first hundred of them.
    pub refusals: Vec<Refusal>,
}

impl Traffic {
    /// How many events were received and sent.
    #[must_use]
    pub fn events(&self) -> (u64, u64) {
        self.collections
            .values()
            .fold((0, 0), |(in_all, out_all), (in_one, out_one)| (in_all + in_one, out_all + out_one))
    }

    fn of(&mut self, collection: &str) -> &mut (u64, u64) {
        let is_named = self.collections.contains_key(collection) || self.collections.len() < MOST_NAMED;
        self.collections.entry(if is_named { collection } else { OTHERS }.to_owned()).or_default()
    }

    pub(super) fn received(&mut self, events: &[Item]) {
        events.iter().for_each(|item| self.of(&item.event.collection).0 += 1);
    }

    pub(super) fn said(&mut self, message: &Message) {
        if let Message::Batch { events, .. } = message {
            events.iter().for_each(|item| self.of(&item.event.collection).1 += 1);
        }
    }

    pub(super) fn refused(&mut self, refusals: &[Refusal]) {
        self.refused += refusals.len() as u64;
        let room = MOST_KEPT.saturating_sub(self.refusals.len());
        self.refusals.extend(refusals.iter().take(room).cloned());
    }
}
