//! The causal graph of one record's events.
//!
//! Every event is a node with a *clock*: for each Automerge actor the number of its events among the node and its
//! ancestors. The events of one actor are a chain (see [`Graph::place`]), so "is an ancestor of" is one comparison and
//! the intersection of two pasts is the minimum of two clocks.
//!
//! Invariant: a node's index is greater than those of its parents; nodes are never removed, but those of a trial.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::cell::ContainerKind;
use super::derive::Derived;
use crate::event::{Event, EventId, Timestamp, WriterId, hash};

/// The index of an event in its record's graph.
pub type NodeIx = u32;

/// The index of an Automerge actor in a record's graph.
pub(crate) type ActorIx = u32;

/// A set of events that holds the ancestors of all its members: for each actor, how many of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock(SmallVec<[(ActorIx, u32); 2]>);

impl Clock {
    fn get(&self, actor: ActorIx) -> u32 {
        let found = self.0.binary_search_by_key(&actor, |entry| entry.0).ok();
        found.and_then(|place| self.0.get(place)).map_or(0, |entry| entry.1)
    }

    fn raise(&mut self, actor: ActorIx, seq: u32) {
        match self.0.binary_search_by_key(&actor, |entry| entry.0) {
            Ok(place) => {
                if let Some(entry) = self.0.get_mut(place) {
                    entry.1 = entry.1.max(seq);
                }
            }
            Err(place) => self.0.insert(place, (actor, seq)),
        }
    }

    /// How many events the set holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|entry| u64::from(entry.1)).sum()
    }

    /// Whether the set holds no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|entry| entry.1 == 0)
    }

    fn union(mut self, other: &Self) -> Self {
        for &(actor, seq) in &other.0 {
            self.raise(actor, seq);
        }
        self
    }

    fn intersection(&self, other: &Self) -> Self {
        let common = self.0.iter().map(|&(actor, seq)| (actor, seq.min(other.get(actor))));
        Self(common.filter(|entry| entry.1 > 0).collect())
    }
}

/// One event, as far as deriving and deciding need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The event.
    pub id: EventId,
    /// Its parents.
    pub parents: SmallVec<[NodeIx; 2]>,
    /// Who stamped it.
    pub writer: WriterId,
    /// The writer's thread.
    pub lane: u32,
    /// Its place in the lane.
    pub nth: u32,
    /// When it was stamped.
    pub at: Timestamp,
    /// When its source says that it happened, in milliseconds since 1970.
    pub occurred_at: Option<i64>,
    /// The system that it came from.
    pub source: String,
    /// The user or service there.
    pub principal: Option<String>,
    /// Whether it delivers its source's state.
    pub delivery: bool,
    /// Whether it changes more than the record's being deleted.
    pub update: bool,
    /// The conflict that it settles.
    pub resolves: Option<crate::event::ConflictId>,
    /// Why it was made.
    pub reason: Option<String>,
    pub(crate) actor: ActorIx,
    pub(crate) seq: u32,
    pub(crate) clock: Clock,
    /// The counter of the change's first Automerge operation.
    pub(crate) start_op: u64,
    /// The greatest operation counter of the event and its ancestors.
    pub(crate) max_op: u64,
    /// The lists and texts that it makes: the index of the event's operation, and its Automerge operation's counter.
    pub(crate) makes: Vec<(u32, u64, ContainerKind)>,
}

impl Node {
    /// The event's place in the total order: order time, stamp, id.
    #[must_use]
    pub fn order(&self) -> (i64, Timestamp, EventId) {
        (self.occurred_at.map_or(self.at.millis, |occurred| occurred.min(self.at.millis)), self.at, self.id)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Actor {
    id: [u8; 16],
    writer: WriterId,
    lane: u32,
    /// How many of its first events were forgotten; stored apart, as [`Graph::forgotten`].
    #[serde(skip)]
    forgotten: u32,
    nodes: Vec<NodeIx>,
}

impl Actor {
    /// How many events it has, forgotten ones included.
    fn len(&self) -> u32 {
        self.forgotten.saturating_add(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX))
    }

    /// Its event of a number, from 1.
    fn nth(&self, seq: u32) -> Option<NodeIx> {
        let place = seq.checked_sub(self.forgotten)?.checked_sub(1)?;
        self.nodes.get(place as usize).copied()
    }
}

/// Where an event stands: decided by its ancestors alone, but where its writer forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) parents: SmallVec<[NodeIx; 2]>,
    pub(crate) past: Clock,
    pub(crate) actor: [u8; 16],
    pub(crate) seq: u32,
    pub(crate) forked: bool,
}

/// Why an event has no place yet, or never.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceFault {
    /// Some parents are not here: the event waits.
    #[error("the event's parents are not known here: {0:?}")]
    MissingParents(Vec<EventId>),
    /// A parent is an ancestor of another.
    #[error("one of the event's parents is an ancestor of another")]
    ParentsNotHeads,
    /// The place in the lane does not follow from the ancestors.
    #[error("the event's place in its lane must be {expected} after its ancestors, got {got}")]
    WrongNth {
        /// What follows from the ancestors.
        expected: u32,
        /// What came.
        got: u32,
    },
    /// The stamp is not after a parent's.
    #[error("the event's time must be later than that of every parent")]
    NotAfterParents,
    /// A fork became known late: the record must be derived again from all its events.
    #[error("a writer's fork became known late")]
    LateFork,
}

/// The causal graph of one record's events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    nodes: Vec<Node>,
    index: BTreeMap<EventId, NodeIx>,
    actors: Vec<Actor>,
    actor_index: BTreeMap<[u8; 16], ActorIx>,
    lanes: BTreeMap<(WriterId, u32), Vec<ActorIx>>,
    heads: BTreeSet<NodeIx>,
    concurrent: bool,
    containers: bool,
    forked: BTreeSet<WriterId>,
    /// How many events were forgotten: all of them are ancestors of every event that is held. Stored apart.
    #[serde(skip)]
    forgotten: u64,
}

/// What [`Graph::rewind`] goes back to.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    nodes: usize,
    actors: usize,
    heads: BTreeSet<NodeIx>,
    concurrent: bool,
    containers: bool,
    forked: BTreeSet<WriterId>,
}

impl Mark {
    /// The index that the next event had.
    pub(super) fn next(&self) -> NodeIx {
        NodeIx::try_from(self.nodes).unwrap_or(NodeIx::MAX)
    }
}

impl Graph {
    /// The node of an event.
    #[must_use]
    pub fn find(&self, event: &EventId) -> Option<NodeIx> {
        self.index.get(event).copied()
    }

    /// The node at an index.
    #[must_use]
    pub fn node(&self, ix: NodeIx) -> Option<&Node> {
        self.nodes.get(ix as usize)
    }

    /// All nodes, parents before children.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIx, &Node)> {
        (0..).zip(self.nodes.iter())
    }

    /// How many events there are, forgotten ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len().saturating_add(usize::try_from(self.forgotten).unwrap_or(usize::MAX))
    }

    /// How many events are held.
    pub(crate) fn held(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The events that have no descendant.
    pub fn heads(&self) -> impl Iterator<Item = NodeIx> + '_ {
        self.heads.iter().copied()
    }

    /// The ids of the heads, sorted.
    #[must_use]
    pub fn head_ids(&self) -> Vec<EventId> {
        self.ids(self.heads())
    }

    /// The ids of some nodes, sorted.
    #[must_use]
    pub fn ids(&self, nodes: impl IntoIterator<Item = NodeIx>) -> Vec<EventId> {
        let mut ids: Vec<_> = nodes.into_iter().filter_map(|ix| self.node(ix)).map(|node| node.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether any two events are concurrent.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        self.concurrent
    }

    /// The writers that stamped two events of equal writer, lane and place.
    pub fn forked_writers(&self) -> impl Iterator<Item = WriterId> + '_ {
        self.forked.iter().copied()
    }

    /// The set of all events.
    #[must_use]
    pub fn everything(&self) -> Clock {
        self.closure(self.heads())
    }

    /// The set of some events and all their ancestors.
    #[must_use]
    pub fn closure(&self, nodes: impl IntoIterator<Item = NodeIx>) -> Clock {
        let clocks = nodes.into_iter().filter_map(|ix| self.node(ix)).map(|node| &node.clock);
        clocks.fold(Clock::default(), Clock::union)
    }

    /// The ancestors of an event, without itself.
    #[must_use]
    pub fn ancestors(&self, ix: NodeIx) -> Clock {
        self.node(ix).map_or_else(Clock::default, |node| self.closure(node.parents.iter().copied()))
    }

    /// What all of some events have as a strict ancestor.
    #[must_use]
    pub fn common_ancestors(&self, nodes: impl IntoIterator<Item = NodeIx>) -> Clock {
        let mut pasts = nodes.into_iter().map(|ix| self.ancestors(ix));
        let first = pasts.next().unwrap_or_default();
        pasts.fold(first, |common, past| common.intersection(&past))
    }

    /// Whether the set holds the event.
    #[must_use]
    pub fn contains(&self, clock: &Clock, ix: NodeIx) -> bool {
        self.node(ix).is_some_and(|node| clock.get(node.actor) >= node.seq)
    }

    /// Whether an event is an ancestor of another, or that itself.
    pub(crate) fn is_ancestor(&self, ancestor: NodeIx, of: NodeIx) -> bool {
        self.node(of).is_some_and(|node| self.contains(&node.clock, ancestor))
    }

    /// Whether any event makes a list or text.
    pub(crate) fn has_containers(&self) -> bool {
        self.containers
    }

    /// Whether neither event is an ancestor of the other, nor are they one.
    #[must_use]
    pub fn are_concurrent(&self, a: NodeIx, b: NodeIx) -> bool {
        !self.is_ancestor(a, b) && !self.is_ancestor(b, a)
    }

    /// The events of a set that have no descendant in it.
    #[must_use]
    pub fn heads_of(&self, clock: &Clock) -> Vec<NodeIx> {
        let last = clock.0.iter().filter_map(|&(actor, seq)| self.nth_of_actor(actor, seq));
        let last: Vec<NodeIx> = last.collect();
        self.maximal(&last)
    }

    /// Those of some events that are ancestors of no other of them, in ascending order.
    #[must_use]
    pub fn maximal(&self, nodes: &[NodeIx]) -> Vec<NodeIx> {
        let covered = |ix: NodeIx| {
            nodes.iter().any(|&other| other != ix && self.node(other).is_some_and(|o| self.contains(&o.clock, ix)))
        };
        let mut maximal: Vec<_> = nodes.iter().copied().filter(|&ix| !covered(ix)).collect();
        maximal.sort_unstable();
        maximal.dedup();
        maximal
    }

    /// The set of the events stamped no later than a time; what is stamped later than its child never is.
    #[must_use]
    pub fn until(&self, at_most: Timestamp) -> Clock {
        let mut clock = Clock::default();
        for (actor, entry) in (0..).zip(&self.actors) {
            let count = entry.nodes.partition_point(|&ix| self.node(ix).is_some_and(|node| node.at <= at_most));
            if count > 0 {
                clock.raise(actor, u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        clock
    }

    /// The greatest stamp of the writer on this record.
    #[must_use]
    pub fn last_stamp(&self, writer: WriterId) -> Option<Timestamp> {
        let actors = self.lanes.range((writer, 0)..=(writer, u32::MAX)).flat_map(|(_, actors)| actors);
        let last = actors.filter_map(|&actor| self.actors.get(actor as usize)?.nodes.last());
        last.filter_map(|&ix| self.node(ix)).map(|node| node.at).max()
    }

    /// The writer's smallest lane whose events all are in `past`, and the next place in it.
    #[must_use]
    pub fn free_lane(&self, writer: WriterId, past: &Clock) -> (u32, u32) {
        let free = |lane: &u32| {
            let actors = self.lanes.get(&(writer, *lane)).map_or(&[][..], Vec::as_slice);
            actors.iter().all(|&actor| past.get(actor) == self.actors.get(actor as usize).map_or(0, Actor::len))
        };
        let lane = (0..u32::MAX).find(free).unwrap_or(u32::MAX);
        (lane, self.last_place(writer, lane, past).saturating_add(1))
    }

    /// The greatest place in a lane among the events of `past`; 0 where it has none.
    fn last_place(&self, writer: WriterId, lane: u32, past: &Clock) -> u32 {
        if self.forgotten == 0 {
            return self.last_of_lane(writer, lane, past).map_or(0, |node| node.nth);
        }
        // Nobody forked: a lane is one actor, whose numbers are the places.
        let actors = self.lanes.get(&(writer, lane)).map_or(&[][..], Vec::as_slice);
        actors.first().map_or(0, |&actor| past.get(actor))
    }

    /// The event of the lane with the greatest place in `past`; of several (after a fork) the one with the least id.
    fn last_of_lane(&self, writer: WriterId, lane: u32, past: &Clock) -> Option<&Node> {
        let actors = self.lanes.get(&(writer, lane))?;
        let last = actors.iter().filter_map(|&actor| self.nth_of_actor(actor, past.get(actor)));
        last.filter_map(|ix| self.node(ix)).max_by_key(|node| (node.nth, std::cmp::Reverse(node.id)))
    }

    /// How far each writer came in each of its lanes; `None` where one forked.
    pub(crate) fn lanes(&self) -> Option<Vec<(WriterId, u32, u32)>> {
        // Nobody forked: a lane is one actor, whose numbers are the places.
        let last =
            |actors: &[ActorIx]| actors.iter().filter_map(|&ix| self.actors.get(ix as usize)).map(Actor::len).max();
        let lane = |(&(writer, lane), actors): (&(WriterId, u32), &Vec<ActorIx>)| Some((writer, lane, last(actors)?));
        if self.forked.is_empty() { Some(self.lanes.iter().filter_map(lane).collect()) } else { None }
    }

    fn nth_of_actor(&self, actor: ActorIx, seq: u32) -> Option<NodeIx> {
        self.actors.get(actor as usize)?.nth(seq)
    }

    /// The event whose change holds the Automerge operation `(counter, actor)`.
    pub(crate) fn node_of_op(&self, counter: u64, actor: &[u8]) -> Option<NodeIx> {
        let actor = self.actor_index.get(actor).and_then(|&actor| self.actors.get(actor as usize))?;
        let starts = |&ix: &NodeIx| self.node(ix).is_some_and(|node| node.start_op <= counter);
        let after = actor.nodes.partition_point(starts);
        actor.nodes.get(after.checked_sub(1)?).copied()
    }

    /// The Automerge actor of an event.
    pub(crate) fn actor_of(&self, ix: NodeIx) -> [u8; 16] {
        let actor = self.node(ix).and_then(|node| self.actors.get(node.actor as usize));
        actor.map_or([0; 16], |actor| actor.id)
    }

    /// The event before this one on its actor.
    pub(crate) fn previous_of_actor(&self, ix: NodeIx) -> Option<NodeIx> {
        let node = self.node(ix)?;
        self.nth_of_actor(node.actor, node.seq.checked_sub(1)?)
    }

    /// Where an event stands, after the rules that its ancestors decide.
    ///
    /// # Errors
    /// When parents are missing, a rule is broken, or its place shows that the record must be derived again.
    pub(crate) fn place(&self, id: EventId, event: &Event) -> Result<Place, PlaceFault> {
        let parents = self.parents(event)?;
        let past = self.closure(parents.iter().copied());
        self.check(event, &parents, &past)?;
        let last = self.last_of_lane(event.writer, event.lane, &past);
        let mut actor = match last.and_then(|node| self.actors.get(node.actor as usize)) {
            Some(actor) => actor.id,
            None => hash::lane_actor(event.writer, event.lane),
        };
        let mut seq = self.seq_on(actor, &past);
        let mut forked = false;
        if let Some(taken) = self.taken(actor, seq) {
            if (past.len(), id) < (self.ancestors_count(taken), taken.id) {
                return Err(PlaceFault::LateFork);
            }
            (actor, seq, forked) = (hash::fork_actor(id), 1, true);
        }
        Ok(Place { parents, past, actor, seq, forked })
    }

    /// How many ancestors an event has; `None` while a parent is missing.
    pub(crate) fn count_ancestors(&self, event: &Event) -> Option<u64> {
        let parents = self.parents(event).ok()?;
        Some(self.closure(parents).len())
    }

    fn parents(&self, event: &Event) -> Result<SmallVec<[NodeIx; 2]>, PlaceFault> {
        let missing: Vec<_> = event.parents.iter().copied().filter(|id| self.find(id).is_none()).collect();
        if missing.is_empty() {
            Ok(event.parents.iter().filter_map(|id| self.find(id)).collect())
        } else {
            Err(PlaceFault::MissingParents(missing))
        }
    }

    fn check(&self, event: &Event, parents: &[NodeIx], past: &Clock) -> Result<(), PlaceFault> {
        if parents.len() > 1 && self.maximal(parents).len() != parents.len() {
            return Err(PlaceFault::ParentsNotHeads);
        }
        let expected = self.last_place(event.writer, event.lane, past).saturating_add(1);
        if event.nth != expected {
            return Err(PlaceFault::WrongNth { expected, got: event.nth });
        }
        let follows = |ix: &NodeIx| self.node(*ix).is_none_or(|parent| event.at.may_follow(parent.at));
        if parents.iter().all(follows) { Ok(()) } else { Err(PlaceFault::NotAfterParents) }
    }

    fn seq_on(&self, actor: [u8; 16], past: &Clock) -> u32 {
        self.actor_index.get(&actor).map_or(0, |&actor| past.get(actor)) + 1
    }

    fn taken(&self, actor: [u8; 16], seq: u32) -> Option<&Node> {
        let actor = self.actor_index.get(&actor)?;
        self.node(self.nth_of_actor(*actor, seq)?)
    }

    fn ancestors_count(&self, node: &Node) -> u64 {
        node.clock.len().saturating_sub(1)
    }

    /// Adds an event at its place, with what it was derived to.
    pub(crate) fn add(&mut self, id: EventId, event: &Event, place: Place, derived: &Derived) -> NodeIx {
        let ix = NodeIx::try_from(self.nodes.len()).unwrap_or(NodeIx::MAX);
        let actor = self.actor(place.actor, event);
        self.concurrent |= place.past.len() != self.len() as u64;
        self.containers |= !derived.makes.is_empty();
        if place.forked {
            self.forked.insert(event.writer);
        }
        let mut clock = place.past;
        clock.raise(actor, place.seq);
        for parent in &place.parents {
            self.heads.remove(parent);
        }
        self.heads.insert(ix);
        if let Some(entry) = self.actors.get_mut(actor as usize) {
            entry.nodes.push(ix);
        }
        self.index.insert(id, ix);
        let (seq, parents) = (place.seq, place.parents);
        self.nodes.push(Node {
            id,
            parents,
            writer: event.writer,
            lane: event.lane,
            nth: event.nth,
            at: event.at,
            occurred_at: event.occurred_at,
            source: event.source.clone(),
            principal: event.principal.clone(),
            delivery: event.delivery,
            update: event.is_update(),
            resolves: event.resolves,
            reason: event.reason.clone(),
            actor,
            seq,
            clock,
            start_op: derived.start_op,
            max_op: derived.start_op + derived.ops.len() as u64 - 1,
            makes: derived.makes.iter().map(|make| (make.op, make.counter, make.kind)).collect(),
        });
        ix
    }

    /// The counter of the first operation of a change at this place, when no counter is born with it.
    pub(crate) fn start_op(&self, place: &Place) -> u64 {
        let ends = place.parents.iter().filter_map(|&ix| self.node(ix)).map(|node| node.max_op);
        ends.max().unwrap_or(0) + 1
    }

    fn actor(&mut self, id: [u8; 16], event: &Event) -> ActorIx {
        if let Some(&actor) = self.actor_index.get(&id) {
            return actor;
        }
        let actor = ActorIx::try_from(self.actors.len()).unwrap_or(ActorIx::MAX);
        let (writer, lane) = (event.writer, event.lane);
        self.actors.push(Actor { id, writer, lane, forgotten: 0, nodes: Vec::new() });
        self.actor_index.insert(id, actor);
        self.lanes.entry((event.writer, event.lane)).or_default().push(actor);
        actor
    }

    /// The one event that has all others as ancestors, where there is one.
    pub(super) fn only_head(&self) -> Option<NodeIx> {
        let mut heads = self.heads();
        heads.next().filter(|_| heads.next().is_none())
    }

    /// Whether events were forgotten of which this may be one, or may have one as a parent.
    pub(super) fn has_forgotten(&self, event: &Event) -> bool {
        let actors = self.lanes.get(&(event.writer, event.lane)).map_or(&[][..], Vec::as_slice);
        let last = actors.iter().filter_map(|&actor| self.actors.get(actor as usize)).map(Actor::len).max();
        self.forgotten > 0
            && (event.nth <= last.unwrap_or(0) || event.parents.iter().any(|parent| self.find(parent).is_none()))
    }

    /// How many events were forgotten, of each actor.
    pub(super) fn forgotten(&self) -> Vec<u32> {
        self.actors.iter().map(|actor| actor.forgotten).collect()
    }

    /// Takes up how many events of each actor had been forgotten when the graph was saved.
    pub(super) fn set_forgotten(&mut self, forgotten: Vec<u32>) {
        self.forgotten = forgotten.iter().map(|count| u64::from(*count)).sum();
        self.actors.iter_mut().zip(forgotten).for_each(|(actor, count)| actor.forgotten = count);
    }

    /// Forgets the events before one that has all of them as ancestors, and that all after it have as an ancestor.
    pub(super) fn forget_before(&mut self, cut: NodeIx) {
        for node in self.nodes.drain(..(cut as usize).min(self.nodes.len())) {
            self.index.remove(&node.id);
            self.forgotten += 1;
        }
        for node in &mut self.nodes {
            node.parents = node.parents.iter().filter_map(|parent| parent.checked_sub(cut)).collect();
        }
        for actor in &mut self.actors {
            let count = actor.nodes.partition_point(|&ix| ix < cut);
            actor.forgotten = actor.forgotten.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            actor.nodes = actor.nodes.iter().skip(count).map(|&ix| ix - cut).collect();
        }
        self.heads = self.heads.iter().map(|&ix| ix.saturating_sub(cut)).collect();
        self.index.values_mut().for_each(|ix| *ix = ix.saturating_sub(cut));
    }

    /// The graph as it is now, to go back to.
    pub(super) fn mark(&self) -> Mark {
        let (nodes, actors, heads, forked) =
            (self.nodes.len(), self.actors.len(), self.heads.clone(), self.forked.clone());
        Mark { nodes, actors, heads, concurrent: self.concurrent, containers: self.containers, forked }
    }

    /// Removes what was added since a mark.
    pub(super) fn rewind(&mut self, mark: Mark) {
        for node in self.nodes.drain(mark.nodes..) {
            self.index.remove(&node.id);
            self.actors.get_mut(node.actor as usize).and_then(|actor| actor.nodes.pop());
        }
        for actor in self.actors.drain(mark.actors..) {
            self.actor_index.remove(&actor.id);
            let lane = (actor.writer, actor.lane);
            let rest = self.lanes.remove(&lane).into_iter().map(|mut actors| {
                actors.pop();
                actors
            });
            self.lanes.extend(rest.filter(|actors| !actors.is_empty()).map(|actors| (lane, actors)));
        }
        (self.heads, self.forked) = (mark.heads, mark.forked);
        (self.concurrent, self.containers) = (mark.concurrent, mark.containers);
    }
}
