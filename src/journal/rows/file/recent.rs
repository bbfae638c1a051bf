//! The blocks that were decoded last: rows that are read in the order of their keys lie in one block after another.
//!
//! Invariant: they have at most the bytes that were allowed.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::block::Block;

type Blocks = HashMap<u64, Arc<Block>, RandomState>;

/// Blocks of one file by their offsets. Those that nobody asked for go when as many again have come.
pub(super) struct Recent {
    most_bytes: usize,
    young: Blocks,
    young_bytes: usize,
    old: Blocks,
}

impl Recent {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, young: Blocks::default(), young_bytes: 0, old: Blocks::default() }
    }

    pub(super) fn get(&mut self, offset: u64) -> Option<Arc<Block>> {
        if let Some(block) = self.young.get(&offset) {
            return Some(block.clone());
        }
        let block = self.old.remove(&offset)?;
        self.insert(offset, block.clone());
        Some(block)
    }

    pub(super) fn insert(&mut self, offset: u64, block: Arc<Block>) {
        if self.young_bytes + block.raw_bytes() > self.most_bytes / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young_bytes + block.raw_bytes() <= self.most_bytes / 2 {
            self.young_bytes += block.raw_bytes();
            self.young.insert(offset, block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_asked_for_stay_and_others_go() {
        let mut recent = Recent::new(1_000);
        let block = |bytes| Arc::new(Block::of_raw(vec![0; bytes]));
        for offset in 0..100 {
            recent.insert(offset, block(100));
            assert!(recent.get(0).is_some(), "after {offset}");
            let held: usize = recent.young.values().chain(recent.old.values()).map(|block| block.raw_bytes()).sum();
            assert!(held <= 1_000, "{held}");
        }
        assert!(recent.get(50).is_none() && recent.get(98).is_some());
        recent.insert(100, block(501));
        assert!(recent.get(100).is_none(), "one above the half of what is allowed is not held");
    }
}
