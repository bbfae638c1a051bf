//! One record's document: its events, derived and merged.
//!
//! A [`Document`] is built by applying events, in any order that has parents first, and is the same for the same set of
//! events. It holds three views of them: the causal [`Graph`], the [`Registers`] that live now, and the Automerge
//! document, which alone knows lists, texts and the past. The last is brought up to date only when it is asked:
//! appending a field edit to a record that nobody edits apart needs none.
//!
//! It knows no storage, no policy and no clock, and never takes Automerge bytes from outside.
//!
//! Invariant: whether an event is accepted depends only on its bytes and its ancestors.

mod automerge;
mod cell;
mod derive;
mod graph;
mod inspect;
mod items;
mod recent;
mod registers;
mod snapshot;
#[cfg(test)]
pub(crate) mod story;
#[cfg(test)]
mod tests;
mod trial;
mod writes;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, OnceLock};

pub use cell::{Cell, ContainerKind};
pub use graph::{Clock, Graph, Node, NodeIx, PlaceFault};
pub use inspect::{ItemEdits, ItemRepair};
pub use registers::{Live, Registers};
pub use snapshot::SnapshotFault;

use self::automerge::{Materialised, Moment};
use crate::event::{Container, Event, EventId, FlatKey, KeyRange, Op, Value};
use crate::{Error, ErrorKind};
use derive::{Derived, ObjectRef, OpRef};
use items::Items;
use registers::State;
use writes::{Past, Writes};

/// Why an event cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    /// It has no place in the graph.
    #[error(transparent)]
    Place(#[from] PlaceFault),
    /// Automerge refused a derived change: a fault of this program.
    #[error("Automerge refused a derived change: {0}")]
    Automerge(#[from] ::automerge::AutomergeError),
}

impl From<ApplyFault> for Error {
    fn from(fault: ApplyFault) -> Self {
        match fault {
            ApplyFault::Place(place) => place.into(),
            ApplyFault::Automerge(_) => {
                let message = "a derived change was refused: this is a fault of syncledger";
                let error = Self::new(ErrorKind::Consistency, message).with_source(fault);
                error.with_hint("report it with the output of `syncledger verify`")
            }
        }
    }
}

impl From<PlaceFault> for Error {
    fn from(fault: PlaceFault) -> Self {
        Self::new(ErrorKind::Validation, fault.to_string()).with_source(fault)
    }
}

/// What deriving and loading have cost, for tests that nothing grows with a record's age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Events that were derived.
    pub derived: u64,
    /// Changes that were handed to Automerge.
    pub materialised: u64,
}

/// One record's document.
#[derive(Clone, Debug, Default)]
pub struct Document {
    graph: Graph,
    now: Registers,
    writes: Writes,
    materialised: Materialised,
    pending: Vec<Pending>,
    /// Of lists and texts, as far as the last events asked for them.
    items: Items,
    trial: Option<Box<trial::Trial>>,
    work: Work,
    /// Events before which all may be forgotten: every later one has them as ancestors.
    cuts: Vec<NodeIx>,
    /// Whether anything was forgotten.
    forgetful: bool,
}

/// A derived event that the Automerge document does not hold yet, with its time in seconds.
type Pending = (NodeIx, i64, Derived);

/// How many derived events may wait for the Automerge document of a record with lists or texts; of one without, all do.
const PENDING: usize = 1_024;

/// From how many operations on an event waits for no other, where there are lists or texts: each item is an operation.
const LARGE: usize = 256;

impl State for Registers {
    fn lives(&self, key: &str) -> Cow<'_, [Live]> {
        Cow::Borrowed(self.get(key))
    }

    fn keys(&self, range: &KeyRange) -> Vec<String> {
        self.keys.range(range.clone()).map(|(key, _)| key.clone()).collect()
    }

    fn counter(&self, counter_key: &str) -> Option<i64> {
        self.counters.get(counter_key).copied()
    }

    fn items(&self, _: &ObjectRef) -> Vec<OpRef> {
        Vec::new()
    }
}

/// Registers, with the Automerge document for the items of lists and texts.
struct WithItems<'a>(&'a dyn State, Moment<'a>);

impl State for WithItems<'_> {
    fn lives(&self, key: &str) -> Cow<'_, [Live]> {
        self.0.lives(key)
    }

    fn keys(&self, range: &KeyRange) -> Vec<String> {
        self.0.keys(range)
    }

    fn counter(&self, counter_key: &str) -> Option<i64> {
        self.0.counter(counter_key)
    }

    fn items(&self, container: &ObjectRef) -> Vec<OpRef> {
        self.1.items(container)
    }
}

impl Document {
    /// The causal graph.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What lives now.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.now
    }

    /// Whether the record's Automerge document is in memory: by far the most that a document can take.
    pub(crate) fn holds_automerge(&self) -> bool {
        self.materialised.is_made()
    }

    /// About how many bytes of memory the writes of its keys take.
    pub(crate) fn bytes_of_writes(&self) -> usize {
        self.writes.bytes()
    }

    /// About how many bytes of memory the items take that are at hand for the next event.
    pub(crate) fn bytes_of_items(&self) -> usize {
        self.items.bytes()
    }

    /// What deriving has cost since the document was made or loaded.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// Checks an event against its ancestors without applying it.
    ///
    /// # Errors
    /// Why it cannot be applied; [`PlaceFault::LateFork`] is none of its own faults.
    pub fn admit(&self, id: EventId, event: &Event) -> Result<(), PlaceFault> {
        match self.graph.place(id, event) {
            Ok(_) | Err(PlaceFault::LateFork) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Applies an event; one that is known already changes nothing.
    ///
    /// # Errors
    /// Why it cannot be applied. After [`PlaceFault::LateFork`] the record must be derived again, by
    /// [`Document::derive_all`], from all its events and this one.
    pub fn apply(&mut self, id: EventId, event: &Event) -> Result<(), ApplyFault> {
        if self.graph.find(&id).is_some() {
            return Ok(());
        }
        let place = self.graph.place(id, event)?;
        self.cuts.retain(|cut| self.graph.contains(&place.past, *cut));
        let derived = self.derive(&place, event)?;
        if let Some(trial) = &mut self.trial {
            trial.before(&self.now, &derived);
        }
        let ix = self.graph.add(id, event, place, &derived);
        derive::apply_to(&mut self.now.keys, &mut self.now.counters, &self.graph, ix, &derived);
        self.writes.add(ix, &derived, &self.now);
        self.work.derived += 1;
        let is_large = derived.ops.len() >= LARGE && self.graph.has_containers();
        if self.forgetful {
            return Ok(());
        }
        self.pending.push((ix, event.at.millis.div_euclid(1_000), derived));
        if self.pending.len() >= PENDING || is_large { self.materialise_items() } else { Ok(()) }
    }

    fn derive(&mut self, place: &graph::Place, event: &Event) -> Result<Derived, ApplyFault> {
        let linear = place.parents.len() == self.graph.heads().count()
            && self.graph.heads().all(|head| place.parents.contains(&head));
        let mut items = std::mem::take(&mut self.items);
        if !linear {
            items = Items::default();
        }
        let asks = event.ops().iter().any(|op| self.asks(place, op, &items));
        if asks {
            self.materialise()?;
        }
        let past = Past { writes: &self.writes, graph: &self.graph, clock: &place.past };
        let state: &dyn State = if linear { &self.now } else { &past };
        let derived = if asks {
            let hashes = self.materialised.hashes(&place.parents);
            let at = (!linear).then_some(hashes.as_slice());
            let moment = Moment { materialised: &self.materialised, at };
            derive::derive(&self.graph, place, event, &WithItems(state, moment), &mut items)
        } else {
            derive::derive(&self.graph, place, event, state, &mut items)
        };
        if linear {
            self.items = items.kept();
        }
        Ok(derived)
    }

    /// Whether Automerge has to tell the items of what an operation works in. What its event makes is empty at first.
    fn asks(&self, place: &graph::Place, op: &Op, known: &Items) -> bool {
        let (Some(Container::Of(event, made)), Some(kind)) = (op.container(), ContainerKind::of(op)) else {
            return false;
        };
        let object = derive::object_of(&self.graph, &place.past, (event, made), kind);
        object.is_some_and(|object| !known.contains(&object))
    }

    /// Brings the Automerge document up to date.
    ///
    /// # Errors
    /// When Automerge refuses a derived change.
    pub fn materialise(&mut self) -> Result<(), ApplyFault> {
        if !self.pending.is_empty() {
            if let Some(trial) = &mut self.trial {
                trial.before_automerge(&self.materialised, &self.pending);
            }
            let pending = std::mem::take(&mut self.pending);
            self.work.materialised += pending.len() as u64;
            self.materialised.apply(&self.graph, &pending)?;
        }
        Ok(())
    }

    /// Derives a record from all its events, in any order: parents first, then by number of ancestors and id, the
    /// order in which forked writers get their actors. Events whose parents are missing are left out.
    ///
    /// # Errors
    /// When Automerge refuses a derived change.
    pub fn derive_all<'a>(events: impl IntoIterator<Item = (EventId, &'a Event)>) -> Result<Self, ApplyFault> {
        let events: Vec<(EventId, &Event)> = events.into_iter().collect();
        let mut children: BTreeMap<EventId, Vec<usize>> = BTreeMap::new();
        for (place, (_, event)) in events.iter().enumerate() {
            event.parents.iter().for_each(|parent| children.entry(*parent).or_default().push(place));
        }
        let mut document = Self::default();
        let mut ready = BinaryHeap::new();
        let roots = events.iter().enumerate().filter(|(_, (_, event))| event.parents.is_empty());
        ready.extend(roots.map(|(place, (id, _))| Reverse((0, *id, place))));
        while let Some(Reverse((_, id, place))) = ready.pop() {
            let Some((_, event)) = events.get(place) else { continue };
            if document.graph.find(&id).is_some() {
                continue;
            }
            match document.apply(id, event) {
                Err(fault @ ApplyFault::Automerge(_)) => return Err(fault),
                Ok(()) | Err(ApplyFault::Place(_)) => {}
            }
            for &child in children.get(&id).map_or(&[][..], Vec::as_slice) {
                if let Some((id, event)) = events.get(child)
                    && let Some(ancestors) = document.graph.count_ancestors(event)
                {
                    ready.push(Reverse((ancestors, *id, child)));
                }
            }
        }
        Ok(document)
    }

    /// The document as it is now.
    ///
    /// # Errors
    /// When Automerge refuses a derived change.
    pub fn view(&mut self) -> Result<View<'_>, ApplyFault> {
        self.materialise_items()?;
        let clock = self.graph.everything();
        let source = Source::Ready(&self.materialised);
        Ok(View {
            document: self,
            source,
            registers: Cow::Borrowed(&self.now),
            clock,
            heads: None,
            late: OnceLock::new(),
        })
    }

    /// The document as of a set of events.
    ///
    /// # Errors
    /// When Automerge refuses a derived change.
    pub fn view_at(&mut self, clock: Clock) -> Result<View<'_>, ApplyFault> {
        self.materialise_items()?;
        Ok(self.past(Source::Ready(&self.materialised), clock, |past| past.registers()))
    }

    /// Brings the Automerge document up to date where there are lists or texts: it alone knows their items.
    fn materialise_items(&mut self) -> Result<(), ApplyFault> {
        if self.graph.has_containers() { self.materialise() } else { Ok(()) }
    }

    /// The Automerge document with everything in it, also while events wait for it.
    fn source(&self) -> Source<'_> {
        if self.pending.is_empty() {
            return Source::Ready(&self.materialised);
        }
        let mut late = self.materialised.clone();
        match late.apply(&self.graph, &self.pending) {
            Ok(()) => Source::Late(Arc::new(late)),
            // `materialise` meets the same fault and reports it.
            Err(_) => Source::Ready(&self.materialised),
        }
    }

    /// What `read` finds as of a set of events.
    fn past<'a>(&'a self, source: Source<'a>, clock: Clock, read: impl Fn(&Past<'_>) -> Registers) -> View<'a> {
        let registers = read(&Past { writes: &self.writes, graph: &self.graph, clock: &clock });
        View {
            document: self,
            source,
            registers: Cow::Owned(registers),
            clock,
            heads: Some(OnceLock::new()),
            late: OnceLock::new(),
        }
    }

    /// The Automerge document, up to date: for comparison with other implementations, never to leave a replica.
    ///
    /// # Errors
    /// When Automerge refuses a derived change.
    pub fn automerge(&mut self) -> Result<&::automerge::Automerge, ApplyFault> {
        self.materialise()?;
        Ok(self.materialised.document())
    }
}

/// Where a view reads the past.
#[derive(Clone, Debug)]
enum Source<'a> {
    /// The document's own Automerge document.
    Ready(&'a Materialised),
    /// A copy that was brought up to date for the view.
    Late(Arc<Materialised>),
}

impl Source<'_> {
    fn get(&self) -> &Materialised {
        match self {
            Self::Ready(materialised) => materialised,
            Self::Late(materialised) => materialised,
        }
    }
}

/// A document as of a set of events.
#[derive(Clone, Debug)]
pub struct View<'a> {
    document: &'a Document,
    /// May lack events: what is read of it is read through [`View::complete`].
    source: Source<'a>,
    registers: Cow<'a, Registers>,
    clock: Clock,
    /// The hashes of the heads, once they were asked for; `None`: now.
    heads: Option<OnceLock<Vec<::automerge::ChangeHash>>>,
    /// The source with every event, once it was asked for.
    late: OnceLock<Source<'a>>,
}

impl<'a> View<'a> {
    /// The record's causal graph, which may hold more than the view's events.
    #[must_use]
    pub fn graph(&self) -> &'a Graph {
        &self.document.graph
    }

    /// What lived then.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The set of events that the view is of.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The Automerge document with every event of the record.
    fn complete(&self) -> &Source<'a> {
        match &self.source {
            Source::Ready(_) if !self.document.pending.is_empty() => self.late.get_or_init(|| self.document.source()),
            source => source,
        }
    }

    /// The same record as of another set of events.
    #[must_use]
    pub fn at(&self, clock: Clock) -> View<'a> {
        self.document.past(self.source.clone(), clock, |past| past.registers())
    }

    /// One field of the record, and what lies below it, as of another set of events.
    #[must_use]
    pub fn field_at(&self, clock: Clock, key: &FlatKey) -> View<'a> {
        self.document.past(self.source.clone(), clock, |past| past.field(key))
    }

    /// The same view with other live operations.
    #[must_use]
    pub fn with_registers(&self, registers: Registers) -> View<'a> {
        View { registers: Cow::Owned(registers), ..self.clone() }
    }

    /// What an event wrote at the keys of the record, whether it still lives or not.
    #[must_use]
    pub fn written(&self, ix: NodeIx) -> Vec<(String, Live)> {
        self.document.writes.of(ix)
    }

    /// What each event wrote at the keys of a selection, by key, whether it still lives or not.
    pub(crate) fn written_by_node(&self, selected: impl Fn(&str) -> bool) -> BTreeMap<NodeIx, Vec<(String, Live)>> {
        self.document.writes.by_node(selected)
    }

    fn moment(&self) -> Moment<'_> {
        let (materialised, graph) = (self.complete().get(), &self.document.graph);
        let hashes = || materialised.hashes(&graph.heads_of(&self.clock));
        let at = self.heads.as_ref().map(|heads| heads.get_or_init(hashes).as_slice());
        Moment { materialised, at }
    }

    fn object(&self, live: &Live) -> Option<ObjectRef> {
        let Cell::Container(kind) = live.cell else { return None };
        let op = OpRef { counter: live.counter, actor: self.document.graph.actor_of(live.node) };
        Some(ObjectRef { op, kind })
    }

    /// The items of the list that a live operation made.
    #[must_use]
    pub fn list(&self, live: &Live) -> Vec<Value> {
        self.object(live).map_or_else(Vec::new, |object| self.moment().list(&object))
    }

    /// The content of the text that a live operation made.
    #[must_use]
    pub fn text(&self, live: &Live) -> String {
        self.object(live).map_or_else(String::new, |object| self.moment().text(&object))
    }

    /// The event and operation that made the container of a live operation: the name by which edits in it call it.
    #[must_use]
    pub fn container(&self, live: &Live) -> Option<Container> {
        let node = self.document.graph.node(live.node)?;
        let make = node.makes.iter().find(|make| make.1 == live.counter)?;
        Some(Container::Of(node.id, make.0))
    }
}
