//! A network between replicas of one record, which delivers late, twice, out of order, or not while it is partitioned.

use super::{Replica, Rng};
use crate::event::{Event, EventId};

/// An event on its way.
#[derive(Clone, Debug)]
struct Message {
    from: usize,
    to: usize,
    id: EventId,
    event: Event,
}

/// Some replicas of one record, and what is on its way between them.
#[derive(Clone, Debug)]
pub struct Network {
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// In which part of the network each is.
    parts: Vec<usize>,
    pending: Vec<Message>,
}

impl Network {
    /// So many replicas that hold nothing.
    #[must_use]
    pub fn new(replicas: usize) -> Self {
        Self { replicas: vec![Replica::default(); replicas], parts: vec![0; replicas], pending: Vec::new() }
    }

    /// A replica makes an event: it has it at once, and the others will get it.
    pub fn make(&mut self, from: usize, id: EventId, event: &Event) {
        self.replicas[from].receive(id, event);
        let to = (0..self.replicas.len()).filter(|to| *to != from);
        self.pending.extend(to.map(|to| Message { from, to, id, event: event.clone() }));
    }

    /// Cuts the network into two parts, between which nothing is delivered.
    pub fn partition(&mut self, rng: &mut Rng) {
        self.parts.iter_mut().for_each(|part| *part = rng.below(2));
    }

    /// Joins the parts again.
    pub fn heal(&mut self) {
        self.parts.fill(0);
    }

    /// Delivers any message that can be, and says to whom; `None` where none can. One in six is delivered again later.
    pub fn deliver_one(&mut self, rng: &mut Rng) -> Option<usize> {
        let open: Vec<usize> = (0..self.pending.len()).filter(|&at| self.is_open(&self.pending[at])).collect();
        if open.is_empty() {
            return None;
        }
        let at = *rng.pick(&open);
        let message = if rng.one_in(6) { self.pending[at].clone() } else { self.pending.swap_remove(at) };
        self.replicas[message.to].receive(message.id, &message.event);
        Some(message.to)
    }

    fn is_open(&self, message: &Message) -> bool {
        self.parts[message.from] == self.parts[message.to]
    }

    /// Heals the network and delivers everything, in any order; `each` is told who got something.
    pub fn settle(&mut self, rng: &mut Rng, mut each: impl FnMut(&mut Replica, usize)) {
        self.heal();
        while let Some(to) = self.deliver_one(rng) {
            each(&mut self.replicas[to], to);
        }
    }
}

#[cfg(test)]
impl Network {
    pub(super) fn parts_are_one(&self) -> bool {
        self.parts.iter().all(|part| *part == self.parts[0])
    }
}
