//! The frozen table once more, in the plainest way: every event as an ordinary Automerge transaction on a fork of the
//! document as of its parents. It must give the very changes that the document derives.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, TextEncoding};
use syncledger::event::{BlobForm, Container, Event, EventId, FlatKey, Op, Path, Value};

use crate::histories::{History, Rng, changes, for_histories, held_by};

fn derived_key(context: &str, fields: &[&[u8]]) -> ActorId {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    ActorId::from(&hasher.finalize().as_bytes()[..16])
}

fn tagged(tag: u8, content: &[u8]) -> ScalarValue {
    ScalarValue::Bytes([&[tag], content].concat())
}

fn tombstone() -> ScalarValue {
    tagged(0, &[])
}

fn empty_object() -> ScalarValue {
    tagged(2, &[])
}

fn set_mark() -> ScalarValue {
    tagged(5, &[])
}

fn member_mark() -> ScalarValue {
    tagged(6, &[])
}

fn scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(value) => value.as_str().into(),
        Value::Bytes(bytes) => tagged(1, bytes),
        Value::EmptyObject => empty_object(),
        Value::Atomic(json) => tagged(3, json.as_bytes()),
        Value::Blob(blob) => {
            assert_eq!(blob.form, BlobForm::Text);
            tagged(4, &[&[0][..], &blob.bytes.to_le_bytes(), &blob.hash.0].concat())
        }
    }
}

/// `None` for a list or text.
type Seen = Option<ScalarValue>;

fn all(tx: &Transaction<'_>, key: &str) -> Vec<Seen> {
    let all = tx.get_all(ROOT, key).unwrap();
    all.into_iter().map(|(value, _)| value.into_scalar().ok()).collect()
}

fn is_live(seen: &Seen) -> bool {
    *seen != Some(tombstone())
}

fn is_field(seen: &Seen) -> bool {
    is_live(seen) && *seen != Some(member_mark())
}

fn below(tx: &Transaction<'_>, key: &str, test: fn(&Seen) -> bool) -> Vec<String> {
    let is_below = |other: &String| match key {
        "$root" => other != "$root" && (!other.starts_with('$') || other.starts_with("$$") || other == "$"),
        key => other.starts_with(&format!("{key}/")),
    };
    tx.keys(ROOT).filter(is_below).filter(|key| all(tx, key).iter().any(test)).collect()
}

fn set(tx: &mut Transaction<'_>, key: &str, value: ScalarValue) {
    if tx.get(ROOT, key).unwrap().is_some() {
        tx.delete(ROOT, key).unwrap();
    }
    tx.put(ROOT, key, value).unwrap();
}

/// What a put does around its key.
fn clear(tx: &mut Transaction<'_>, path: &Path) {
    for key in below(tx, path.to_key().as_str(), is_live) {
        set(tx, &key, tombstone());
    }
    let mut above = path.parent();
    while let Some(path) = above.filter(|path| !path.is_root()) {
        let key = path.to_key();
        if all(tx, key.as_str()).iter().any(|seen| is_live(seen) && *seen != Some(empty_object())) {
            set(tx, key.as_str(), tombstone());
        }
        above = path.parent();
    }
}

fn count(tx: &Transaction<'_>, path: &Path) -> Option<i64> {
    tx.get(ROOT, FlatKey::counter(path).as_str()).unwrap().and_then(|(value, _)| value.as_i64())
}

fn put(tx: &mut Transaction<'_>, path: &Path, value: &Value) {
    clear(tx, path);
    let value = match (value, count(tx, path)) {
        (Value::Int(value), Some(count)) => (value - count).into(),
        (value, _) => scalar(value),
    };
    set(tx, path.to_key().as_str(), value);
}

fn remove(tx: &mut Transaction<'_>, path: &Path) {
    let key = path.to_key();
    if !all(tx, key.as_str()).iter().any(is_field) && below(tx, key.as_str(), is_field).is_empty() {
        return;
    }
    for key in below(tx, key.as_str(), is_live) {
        set(tx, &key, tombstone());
    }
    set(tx, key.as_str(), tombstone());
    let parent = path.parent().unwrap().to_key();
    if below(tx, parent.as_str(), is_field).is_empty() && !all(tx, parent.as_str()).contains(&Some(empty_object())) {
        set(tx, parent.as_str(), empty_object());
    }
}

type Made = BTreeMap<(EventId, u32), (ObjId, ObjType)>;

/// One event's transaction.
struct Doing<'a, 'd> {
    tx: &'a mut Transaction<'d>,
    id: EventId,
    past: &'a BTreeSet<EventId>,
    made: &'a Made,
    new: Made,
}

/// An operation needs a counter that is not born.
struct Unborn(String);

impl Doing<'_, '_> {
    fn object(&self, container: Container, kind: ObjType) -> Option<ObjId> {
        let found = match container {
            Container::Own(op) => self.new.get(&(self.id, op)),
            Container::Of(event, op) => self.made.get(&(event, op)).filter(|_| self.past.contains(&event)),
        };
        found.filter(|(_, found)| *found == kind).map(|(id, _)| id.clone())
    }

    fn op(&mut self, index: u32, op: &Op) -> Result<(), Unborn> {
        match op {
            Op::Put { path, .. } if path.is_root() => {
                for key in below(self.tx, "$root", is_live) {
                    set(self.tx, &key, tombstone());
                }
                set(self.tx, "$root", empty_object());
            }
            Op::Put { path, value } => put(self.tx, path, value),
            Op::PutAtomic { path, json } => put(self.tx, path, &Value::Atomic(json.clone())),
            Op::Remove { path } => remove(self.tx, path),
            Op::Increment { path, by } => self.increment(path, *by)?,
            Op::MakeSet { path } => {
                clear(self.tx, path);
                set(self.tx, path.to_key().as_str(), set_mark());
            }
            Op::SetAdd { path, member } => self.member(path, member, true),
            Op::SetRemove { path, member } => self.member(path, member, false),
            Op::MakeList { path } => self.make(index, path, ObjType::List),
            Op::MakeText { path } => self.make(index, path, ObjType::Text),
            Op::Insert { container, index, value } => {
                if let Some(list) = self.object(*container, ObjType::List) {
                    let at = (*index).min(self.tx.length(&list) as u64) as usize;
                    self.tx.insert(&list, at, scalar(value)).unwrap();
                }
            }
            Op::RemoveAt { container, index } => {
                if let Some(list) = self.object(*container, ObjType::List)
                    && *index < self.tx.length(&list) as u64
                {
                    self.tx.delete(&list, *index as usize).unwrap();
                }
            }
            Op::SpliceText { container, index, delete, insert } => {
                if let Some(text) = self.object(*container, ObjType::Text) {
                    let length = self.tx.length(&text) as u64;
                    let at = (*index).min(length);
                    let delete = (*delete).min(length - at) as isize;
                    self.tx.splice_text(&text, at as usize, delete, insert).unwrap();
                }
            }
            Op::Delete => set(self.tx, "$deleted", true.into()),
            Op::Restore => set(self.tx, "$deleted", false.into()),
        }
        Ok(())
    }

    fn increment(&mut self, path: &Path, by: i64) -> Result<(), Unborn> {
        let (key, counter) = (path.to_key(), FlatKey::counter(path));
        let lives = all(self.tx, key.as_str());
        let absent = !lives.iter().any(is_live) && below(self.tx, key.as_str(), is_field).is_empty();
        if !absent && !lives.iter().any(|seen| matches!(seen, Some(ScalarValue::Int(_)))) {
            return Ok(());
        }
        if self.tx.get(ROOT, counter.as_str()).unwrap().is_none() {
            return Err(Unborn(counter.into_string()));
        }
        if absent {
            put(self.tx, path, &Value::Int(0));
        }
        self.tx.increment(ROOT, counter.as_str(), by).unwrap();
        Ok(())
    }

    fn member(&mut self, path: &Path, member: &Value, add: bool) {
        if !all(self.tx, path.to_key().as_str()).contains(&Some(set_mark())) {
            return;
        }
        let key = FlatKey::member(path, &member.canonical());
        if add {
            set(self.tx, key.as_str(), member_mark());
        } else if all(self.tx, key.as_str()).contains(&Some(member_mark())) {
            set(self.tx, key.as_str(), tombstone());
        }
    }

    fn make(&mut self, index: u32, path: &Path, kind: ObjType) {
        clear(self.tx, path);
        let key = path.to_key();
        if self.tx.get(ROOT, key.as_str()).unwrap().is_some() {
            self.tx.delete(ROOT, key.as_str()).unwrap();
        }
        let id = self.tx.put_object(ROOT, key.as_str(), kind).unwrap();
        self.new.insert((self.id, index), (id, kind));
    }
}

#[derive(Default)]
struct Reference {
    doc: Automerge,
    pasts: BTreeMap<EventId, BTreeSet<EventId>>,
    actors: BTreeMap<EventId, ActorId>,
    taken: BTreeSet<(ActorId, usize)>,
    hashes: BTreeMap<EventId, ChangeHash>,
    made: Made,
}

impl Reference {
    fn of(history: &History) -> Self {
        let doc = Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint);
        let mut reference = Self { doc, ..Self::default() };
        for (id, event) in &history.events {
            let above = event.parents.iter().flat_map(|parent| reference.pasts[parent].iter().copied());
            let past = above.chain(event.parents.iter().copied()).collect();
            reference.pasts.insert(*id, past);
        }
        let mut order: Vec<&(EventId, Event)> = history.events.iter().collect();
        order.sort_by_key(|(id, _)| (reference.pasts[id].len(), *id));
        for (id, event) in order {
            reference.add(history, *id, event);
        }
        reference
    }

    /// The actor of the last event of the lane, or one of its own where another event has that place.
    fn actor(&mut self, history: &History, id: EventId, event: &Event) -> ActorId {
        let past = &self.pasts[&id];
        let same = |(id, other): &&(EventId, Event)| {
            past.contains(id) && (other.writer, other.lane) == (event.writer, event.lane)
        };
        let last = history.events.iter().filter(same).max_by_key(|(id, e)| (e.nth, std::cmp::Reverse(*id)));
        let mut actor = match last {
            Some((last, _)) => self.actors[last].clone(),
            None => {
                let lane = event.lane.to_le_bytes();
                derived_key("syncledger 2026-11 lane actor v1", &[&event.writer.0, &lane])
            }
        };
        let count = |actor: &ActorId| past.iter().filter(|id| self.actors[*id] == *actor).count();
        if self.taken.contains(&(actor.clone(), count(&actor))) {
            actor = derived_key("syncledger 2026-11 fork actor v1", &[&id.0]);
        }
        self.taken.insert((actor.clone(), count(&actor)));
        self.actors.insert(id, actor.clone());
        actor
    }

    fn add(&mut self, history: &History, id: EventId, event: &Event) {
        let actor = self.actor(history, id, event);
        let parents: Vec<ChangeHash> = event.parents.iter().map(|parent| self.hashes[parent]).collect();
        let mut births: BTreeSet<String> = BTreeSet::new();
        loop {
            let mut fork = self.doc.fork_at(&parents).unwrap();
            for key in &births {
                fork.apply_changes([birth(key)]).unwrap();
            }
            fork.set_actor(actor.clone());
            let mut tx = fork.transaction();
            let (past, made) = (&self.pasts[&id], &self.made);
            let mut doing = Doing { tx: &mut tx, id, past, made, new: Made::new() };
            let done = (0..).zip(event.ops()).try_for_each(|(index, op)| doing.op(index, op));
            let new = doing.new;
            match done {
                Ok(()) => {
                    let time = || CommitOptions::default().with_time(event.at.millis.div_euclid(1_000));
                    let hash = tx.commit_with(time()).0;
                    self.hashes.insert(id, hash.unwrap_or_else(|| fork.empty_commit(time())));
                    self.made.extend(new);
                    return self.doc.merge(&mut fork).map(drop).unwrap();
                }
                Err(Unborn(key)) => {
                    tx.rollback();
                    assert!(births.insert(key));
                }
            }
        }
    }
}

fn birth(key: &str) -> automerge::Change {
    let mut doc = Automerge::new();
    doc.set_actor(derived_key("syncledger 2026-11 counter actor v1", &[key.as_bytes()]));
    let mut tx = doc.transaction();
    tx.put(ROOT, key, ScalarValue::counter(0)).unwrap();
    let hash = tx.commit_with(CommitOptions::default().with_time(0)).0.unwrap();
    doc.get_change_by_hash(&hash).unwrap()
}

/// Compares the changes that a replica of a history derives with those of the transactions.
///
/// # Panics
/// Where they differ.
pub fn compare(history: &History, rng: &mut Rng) -> BTreeSet<&'static str> {
    let mut replica = history.deliver(rng);
    let reference = Reference::of(history);
    let expected: BTreeSet<[u8; 32]> = reference.doc.get_changes(&[]).iter().map(|c| c.hash().0).collect();
    let derived = changes(&mut replica.document);
    if expected != derived {
        explain(&reference, &mut replica.document);
    }
    held_by(&mut replica)
}

#[test]
fn every_derived_change_is_that_of_an_ordinary_transaction_on_a_fork() {
    for_histories("reference", 1_000, compare);
}

/// Shows the first changes that differ.
fn explain(reference: &Reference, document: &mut syncledger::document::Document) {
    let (theirs, ours) = (reference.doc.get_changes(&[]), document.automerge().unwrap().get_changes(&[]));
    for change in &theirs {
        let same = |other: &&automerge::Change| (other.actor_id(), other.seq()) == (change.actor_id(), change.seq());
        match ours.iter().find(same) {
            Some(other) => assert_eq!(change.decode(), other.decode(), "expected, derived"),
            None => panic!("no such change: {:?}", change.decode()),
        }
    }
    panic!("the document holds {} changes, expected {}", ours.len(), theirs.len());
}
