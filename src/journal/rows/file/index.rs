//! The index in memory: where each row lies, by its key.
//!
//! Keys of neighbouring rows share most of their bytes, and rows most of their blocks. So rows are held in pages of some
//! dozens, laid out as in `entry`: a row takes some 10 to 20 bytes, and looking one up reads half a page.
//!
//! Invariant: pages are not empty, and lie in the map under their first keys; no two have keys in between each other's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use super::super::start;
use super::entry::{Entry, EntryReader, EntryWriter, Slot};

/// About how many rows a page has.
const PAGE_ROWS: usize = 32;
/// A page of more is split.
const SPLIT_ABOVE_ROWS: usize = 48;

type Key = Box<[u8]>;
type Page = Box<[u8]>;

/// The rows there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pages: BTreeMap<Key, Page>,
    live_bytes: u64,
    page_bytes: u64,
}

/// Pages to exchange: what makes an index another one.
#[derive(Debug)]
pub(super) struct Patch {
    /// The first keys of those that go.
    out: Vec<Key>,
    new: Vec<(Key, Page)>,
    live_bytes: u64,
    page_bytes: u64,
}

impl Index {
    pub(super) fn get(&self, key: &[u8]) -> Option<Slot> {
        let (_, page) = self.page_until(key)?;
        let mut reader = EntryReader::new(page);
        while let Some(slot) = reader.read() {
            match reader.key().cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return slot,
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }

    /// The rows whose keys start with `prefix` and are greater than `after`, by key.
    pub(super) fn range<'a>(&'a self, prefix: &'a [u8], after: Option<&'a [u8]>) -> Range<'a> {
        let start = start(prefix, after);
        let (Bound::Included(key) | Bound::Excluded(key)) = start else { return Range::default() };
        let first = self.page_until(key).map_or(key, |(first, _)| first);
        let mut pages = self.pages.range::<[u8], _>((Bound::Included(first), Bound::Unbounded));
        let page = pages.next().map(|(_, page)| EntryReader::new(page));
        Range { pages, page, start, prefix }
    }

    /// How many bytes of the file of values are live.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The most bytes of entries that a log of these rows alone needs.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// What changes where these entries, in the order of their keys, are taken in. Nobody needs to wait for that.
    pub(super) fn plan(&self, entries: &[Entry]) -> Patch {
        let (live_bytes, page_bytes) = (self.live_bytes, self.page_bytes);
        let mut patch = Patch { out: Vec::new(), new: Vec::new(), live_bytes, page_bytes };
        let mut rest = entries;
        while let Some((key, _)) = rest.first() {
            let page = self.page_for(key);
            let next = page.and_then(|(first, _)| self.page_after(first));
            let (here, others) =
                rest.split_at(rest.partition_point(|(key, _)| next.is_none_or(|next| **key < *next)));
            patch.rewrite(page, here);
            rest = others;
        }
        patch
    }

    /// The page that has the key, or would have it.
    fn page_for(&self, key: &[u8]) -> Option<(&[u8], &[u8])> {
        self.page_until(key).or_else(|| self.pages.first_key_value().map(|(first, page)| (&**first, &**page)))
    }

    /// The last page whose first key is not after this one: no other can have the key.
    fn page_until(&self, key: &[u8]) -> Option<(&[u8], &[u8])> {
        let mut until = self.pages.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        until.next_back().map(|(first, page)| (&**first, &**page))
    }

    fn page_after(&self, first: &[u8]) -> Option<&[u8]> {
        let mut after = self.pages.range::<[u8], _>((Bound::Excluded(first), Bound::Unbounded));
        after.next().map(|(first, _)| &**first)
    }

    /// Exchanges the pages, of which there are as many as were touched. Returns those that were there before: dropping
    /// them takes time too.
    pub(super) fn install(&mut self, patch: Patch) -> Vec<Page> {
        let out = patch.out.iter().filter_map(|first| self.pages.remove(first)).collect();
        self.pages.extend(patch.new);
        (self.live_bytes, self.page_bytes) = (patch.live_bytes, patch.page_bytes);
        out
    }

    /// Takes entries in, in the order of their keys.
    pub(super) fn take_in(&mut self, entries: &[Entry]) {
        let patch = self.plan(entries);
        self.install(patch);
    }
}

impl Patch {
    /// Puts new pages in the place of one, with what it had and these entries.
    fn rewrite(&mut self, page: Option<(&[u8], &[u8])>, entries: &[Entry]) {
        let (first, page) = page.unwrap_or_default();
        let rows = merge(page, entries, &mut self.live_bytes);
        self.page_bytes -= page.len() as u64;
        if !page.is_empty() {
            self.out.push(first.into());
        }
        let pages = if rows.len() <= SPLIT_ABOVE_ROWS { 1 } else { rows.len().div_ceil(PAGE_ROWS) };
        for rows in rows.chunks(rows.len().div_ceil(pages).max(1)) {
            self.add(rows);
        }
    }

    fn add(&mut self, rows: &[(Cow<'_, [u8]>, Slot)]) {
        let Some((first, _)) = rows.first() else { return };
        let (mut page, mut writer) = (Vec::new(), EntryWriter::default());
        rows.iter().for_each(|(key, slot)| writer.put(&mut page, key, Some(*slot)));
        self.page_bytes += page.len() as u64;
        self.new.push((first.as_ref().into(), page.into()));
    }
}

/// The rows of a page after these entries, in order; counts what of the values is live.
fn merge<'a>(page: &[u8], entries: &'a [Entry], live_bytes: &mut u64) -> Vec<(Cow<'a, [u8]>, Slot)> {
    let (mut rows, mut entries) = (Vec::new(), entries.iter().peekable());
    let mut put = |(key, slot): &'a Entry, rows: &mut Vec<_>| {
        *live_bytes += slot.map_or(0, Slot::share);
        rows.extend(slot.map(|slot| (Cow::Borrowed(key.as_slice()), slot)));
    };
    let (mut reader, mut dead_bytes) = (EntryReader::new(page), 0);
    while let Some(slot) = reader.read() {
        while let Some(entry) = entries.next_if(|(key, _)| key.as_slice() < reader.key()) {
            put(entry, &mut rows);
        }
        match entries.next_if(|(key, _)| key.as_slice() == reader.key()) {
            Some(entry) => {
                dead_bytes += slot.map_or(0, Slot::share);
                put(entry, &mut rows);
            }
            None => rows.extend(slot.map(|slot| (Cow::Owned(reader.key().to_vec()), slot))),
        }
    }
    entries.for_each(|entry| put(entry, &mut rows));
    *live_bytes -= dead_bytes;
    rows
}

/// Rows of an index, by key.
pub(super) struct Range<'a> {
    pages: btree_map::Range<'a, Key, Page>,
    page: Option<EntryReader<'a>>,
    start: Bound<&'a [u8]>,
    prefix: &'a [u8],
}

impl Default for Range<'_> {
    fn default() -> Self {
        Self { pages: btree_map::Range::default(), page: None, start: Bound::Unbounded, prefix: &[] }
    }
}

impl Iterator for Range<'_> {
    type Item = (Vec<u8>, Slot);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let reader = self.page.as_mut()?;
            let Some(slot) = reader.read() else {
                self.page = self.pages.next().map(|(_, page)| EntryReader::new(page));
                continue;
            };
            let key = reader.key();
            let is_before = match self.start {
                Bound::Included(start) => key < start,
                Bound::Excluded(start) => key <= start,
                Bound::Unbounded => false,
            };
            if is_before {
                continue;
            }
            // Nothing after this one is before the start.
            self.start = Bound::Unbounded;
            if !key.starts_with(self.prefix) {
                self.page = None;
                return None;
            }
            if let Some(slot) = slot {
                return Some((key.to_vec(), slot));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::Place;
    use super::*;

    type Model = BTreeMap<Vec<u8>, Slot>;

    fn slot(n: u32) -> Slot {
        Slot { block: Place { offset: u64::from(n / 10) * 1_000, stored: 1_000, raw: 4_000 }, bytes: 100 + n % 10 }
    }

    fn take_in(index: &mut Index, model: &mut Model, changes: BTreeMap<Vec<u8>, Option<u32>>) {
        let entries: Vec<Entry> = changes.into_iter().map(|(key, n)| (key, n.map(slot))).collect();
        index.take_in(&entries);
        for (key, slot) in entries {
            match slot {
                Some(slot) => model.insert(key, slot),
                None => model.remove(&key),
            };
        }
    }

    fn check(index: &Index, model: &Model) {
        assert!(index.range(b"", None).eq(model.clone()));
        assert_eq!(index.live_bytes(), model.values().map(|slot| slot.share()).sum::<u64>());
        assert_eq!(index.entry_bytes(), index.pages.values().map(|page| page.len() as u64).sum::<u64>());
        assert!(index.pages.iter().all(|(first, page)| {
            let mut reader = EntryReader::new(page);
            reader.read().is_some() && reader.key() == &**first
        }));
    }

    fn change() -> impl Strategy<Value = (Vec<u8>, Option<u32>)> {
        // Few keys of one length, many of another, and prefixes of each other.
        let key = prop_oneof![
            (0..700_u16).prop_map(|n| format!("row-{n:04}").into_bytes()),
            proptest::collection::vec(b'p'..b't', 0..4),
        ];
        (key, proptest::option::weighted(0.8, 0..500_u32))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_changes_read_like_a_map(
            steps in proptest::collection::vec(proptest::collection::btree_map(
                change().prop_map(|c| c.0), proptest::option::weighted(0.8, 0..500_u32), 0..300), 0..8),
            looked_up in proptest::collection::vec(change().prop_map(|c| c.0), 20),
        ) {
            let (mut index, mut model) = (Index::default(), Model::default());
            for changes in steps {
                take_in(&mut index, &mut model, changes);
                check(&index, &model);
            }
            for key in &looked_up {
                prop_assert_eq!(index.get(key), model.get(key).copied());
                for after in looked_up.iter().map(Some).chain([None]) {
                    let after = after.map(Vec::as_slice);
                    let expected = model.iter().filter(|(found, _)| {
                        found.starts_with(key) && after.is_none_or(|after| found.as_slice() > after)
                    });
                    prop_assert!(index.range(key, after).eq(expected.map(|(key, slot)| (key.clone(), *slot))));
                }
            }
        }
    }

    #[test]
    fn many_rows_take_few_bytes_each() {
        let key = |n: u32| format!("r0123456789abcdef0000issuesISSUE-{n:06}").into_bytes();
        let (mut index, mut model) = (Index::default(), Model::default());
        for start in (0..100_000).step_by(10_000) {
            take_in(&mut index, &mut model, (start..start + 10_000).map(|n| (key(n), Some(n))).collect());
        }
        // And as many changes, all over.
        for start in 0..10 {
            let changes = (0..10_000).map(|n| (key(n * 10 + start), Some(100_000 + 10_000 * start + n))).collect();
            take_in(&mut index, &mut model, changes);
        }
        check(&index, &model);
        let keys: usize = index.pages.keys().map(|key| key.len() + 2 * 16 + 32).sum();
        let bytes = index.entry_bytes() as usize + keys;
        assert!(bytes < 30 * model.len(), "{} bytes a row", bytes / model.len());
    }

    #[test]
    fn rows_that_come_in_falling_order_fill_pages_too() {
        let (mut index, mut model) = (Index::default(), Model::default());
        for n in (0..1_000_u32).rev() {
            take_in(&mut index, &mut model, BTreeMap::from([(n.to_be_bytes().to_vec(), Some(n))]));
        }
        check(&index, &model);
        assert!(index.pages.len() < 60, "{}", index.pages.len());
    }
}
