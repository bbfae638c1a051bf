//! The latest events of logs that are followed, as they were appended: kept for all who follow.
//!
//! Of many devices few want what one of them writes. Each has to look through it none the less, and would read and decode the
//! same part of the log as all others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, Weak};

use super::cursor::Mark;
use super::request::Entry;
use crate::event::LedgerId;
use crate::replication::Cursor;
use crate::segment;
use crate::sync::{Mutex, MutexGuard};

/// About how many bytes of events are held of a log at most.
const MOST_BYTES: usize = 16 << 20;
/// How many parts of a log are held at most: who is further behind reads the log.
const MOST_PARTS: usize = 4_096;
/// After how long a part is let go of, in milliseconds. Who follows has looked through it by then.
const HELD_MS: u64 = 10_000;

/// A part of a log that was appended at once.
#[derive(Debug)]
pub(super) struct Part {
    /// The position before it.
    pub(super) after: u64,
    /// Where it ends.
    pub(super) upto: Cursor,
    /// The collections that it has events of.
    pub(super) collections: BTreeSet<String>,
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    came_ms: u64,
}

impl Part {
    /// The part that entries are; `None` for none, and for too much.
    fn of(entries: Vec<Entry>, came_ms: u64) -> Option<Self> {
        let (after, upto) = (entries.first()?.position - 1, Mark::of(entries.last()?).cursor());
        let (mut bytes, mut collections) = (0, BTreeSet::new());
        for Entry { event, .. } in &entries {
            bytes += segment::weight(event);
            if bytes > MOST_BYTES {
                return None;
            }
            if !collections.contains(&event.collection) {
                collections.insert(event.collection.clone());
            }
        }
        Some(Self { after, upto, collections, entries, bytes, came_ms })
    }
}

/// The parts of a log that came last, without a gap, oldest first.
#[derive(Debug, Default)]
struct Parts {
    parts: VecDeque<Arc<Part>>,
    bytes: usize,
}

impl Parts {
    fn drop_first(&mut self) {
        self.bytes -= self.parts.pop_front().map_or(0, |part| part.bytes);
    }
}

/// The latest events of one log.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Arc<Mutex<Parts>>);

impl Recent {
    fn held(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was appended. Of too much nothing is held: sessions read the log then.
    fn grow(&self, entries: Vec<Entry>, now_ms: u64) {
        let Some(after) = entries.first().map(|entry| entry.position - 1) else { return };
        let part = Part::of(entries, now_ms);
        let mut held = self.held();
        let follows = held.parts.back().is_none_or(|last| last.upto.position == after);
        if !follows || part.is_none() {
            *held = Parts::default();
        }
        held.bytes += part.as_ref().map_or(0, |part| part.bytes);
        held.parts.extend(part.map(Arc::new));
        while held.bytes > MOST_BYTES || held.parts.len() > MOST_PARTS {
            held.drop_first();
        }
    }

    /// Lets go of what came a while ago.
    pub(super) fn forget(&self, now_ms: u64) {
        let mut held = self.held();
        while held.parts.front().is_some_and(|part| now_ms.saturating_sub(part.came_ms) > HELD_MS) {
            held.drop_first();
        }
    }

    /// The parts that hold everything after a position; none where they do not go back so far, or there is nothing.
    pub(super) fn after(&self, position: u64) -> Vec<Arc<Part>> {
        let parts = &self.held().parts;
        let from = parts.partition_point(|part| part.upto.position <= position);
        let goes_back = parts.get(from).is_some_and(|part| part.after <= position);
        if goes_back { parts.iter().skip(from).cloned().collect() } else { Vec::new() }
    }
}

/// Which logs are followed: what is appended to the others is not kept.
#[derive(Default)]
pub(super) struct Followed(Mutex<BTreeMap<LedgerId, Weak<Mutex<Parts>>>>);

impl Followed {
    fn held(&self) -> MutexGuard<'_, BTreeMap<LedgerId, Weak<Mutex<Parts>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest events of a log, kept as long as anybody has this.
    pub(super) fn follow(&self, ledger: LedgerId) -> Recent {
        let mut followed = self.held();
        followed.retain(|_, parts| parts.strong_count() > 0);
        if let Some(parts) = followed.get(&ledger).and_then(Weak::upgrade) {
            return Recent(parts);
        }
        let recent = Recent::default();
        followed.insert(ledger, Arc::downgrade(&recent.0));
        recent
    }

    /// Forgets what was appended to a log: it is another, or derived anew.
    pub(super) fn forget(&self, ledger: LedgerId) {
        if let Some(parts) = self.held().get(&ledger).and_then(Weak::upgrade) {
            *Recent(parts).held() = Parts::default();
        }
    }

    /// Takes what was appended to a log, where anybody follows it; empties it else.
    pub(super) fn take(&self, ledger: LedgerId, entries: &mut Vec<Entry>, now_ms: u64) {
        let parts = self.held().get(&ledger).and_then(Weak::upgrade);
        match parts {
            Some(parts) => Recent(parts).grow(std::mem::take(entries), now_ms),
            None => entries.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::{Act, Context, Ledger, Options, Store, Write};

    fn ledger() -> Ledger {
        Store::in_memory(Options::default()).unwrap().create_ledger("main").unwrap()
    }

    fn append(ledger: &Ledger, collection: &str, text: &str) {
        let key = format!("k{}", ledger.position());
        let write = Write::new(collection, key, Act::Put(json!({ "text": text })));
        ledger.write(write, &Context::from_source("app")).unwrap();
    }

    fn positions(recent: &Recent, after: u64) -> Vec<u64> {
        recent.after(after).iter().flat_map(|part| part.entries.iter().map(|entry| entry.position)).collect()
    }

    #[test]
    fn what_is_appended_to_a_followed_log_is_kept_as_the_log_has_it() {
        let ledger = ledger();
        append(&ledger, "notes", "before");
        let recent = ledger.shared().followed.follow(ledger.id());
        assert!(positions(&recent, 0).is_empty());
        append(&ledger, "notes", "a");
        append(&ledger, "tasks", "b");
        assert!(positions(&recent, 0).is_empty(), "they do not go back so far");
        assert_eq!(
            (positions(&recent, 1), positions(&recent, 2), positions(&recent, 3)),
            (vec![2, 3], vec![3], vec![])
        );
        let parts = recent.after(1);
        let names: Vec<&String> = parts.iter().flat_map(|part| &part.collections).collect();
        assert_eq!(names, ["notes", "tasks"]);
        let read = ledger.log(&Default::default()).unwrap();
        let kept: Vec<Entry> = parts.iter().flat_map(|part| part.entries.clone()).collect();
        assert_eq!(kept, read[1..]);
        assert_eq!(Some(parts[1].upto), ledger.cursor_at(3).unwrap());
    }

    #[test]
    fn all_who_follow_share_what_is_kept_and_the_last_takes_it_with_him() {
        let ledger = ledger();
        let (one, other) =
            (ledger.shared().followed.follow(ledger.id()), ledger.shared().followed.follow(ledger.id()));
        append(&ledger, "notes", "a");
        assert_eq!(positions(&one, 0), positions(&other, 0));
        drop((one, other));
        append(&ledger, "notes", "nobody follows");
        let later = ledger.shared().followed.follow(ledger.id());
        append(&ledger, "notes", "c");
        assert_eq!((positions(&later, 0), positions(&later, 2)), (vec![], vec![3]));
    }

    #[test]
    fn only_so_much_is_kept_and_for_so_long() {
        let ledger = ledger();
        let recent = ledger.shared().followed.follow(ledger.id());
        let text = "x".repeat(16_000);
        let writes = |from: usize| {
            (from..from + 100).map(|n| Write::new("notes", format!("{n}"), Act::Put(json!({ "text": text }))))
        };
        for chunk in 0..11 {
            ledger.write_all(writes(chunk * 100).collect(), &Context::from_source("app")).unwrap();
        }
        assert_eq!((positions(&recent, 0).len(), positions(&recent, 100).len()), (0, 1_000));
        assert!(recent.held().bytes <= MOST_BYTES);
        // More at once than is kept: what was before does not join what comes.
        let entries = ledger.log(&Default::default()).unwrap();
        let mut much: Vec<Entry> = entries.iter().cycle().take(1_200).cloned().collect();
        (1_101..).zip(&mut much).for_each(|(position, entry)| entry.position = position);
        recent.grow(much, 0);
        assert_eq!((positions(&recent, 1_100), recent.held().bytes), (vec![], 0));
        append(&ledger, "notes", "again");
        assert_eq!(positions(&recent, 1_100), [1_101]);
        let now_ms = ledger.shared().now_ms();
        recent.forget(now_ms);
        assert_eq!(positions(&recent, 1_100), [1_101]);
        recent.forget(now_ms + HELD_MS + 1_000);
        assert_eq!((positions(&recent, 1_100), recent.held().bytes), (vec![], 0));
    }
}
