//! Caches bounded by bytes.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A map that forgets what was not used lately, once it weighs too much.
///
/// What is used moves to the young half; when that holds half of the limit, the old half goes and the young one becomes
/// it. So an entry stays for at least half of the limit's worth of other uses, at no cost per use.
#[derive(Debug)]
pub(crate) struct TwoGenerations<K, V> {
    young: HashMap<K, (V, usize), RandomState>,
    old: HashMap<K, (V, usize), RandomState>,
    young_weight: usize,
    old_weight: usize,
    limit: usize,
}

impl<K: Hash + Eq, V> TwoGenerations<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), young_weight: 0, old_weight: 0, limit }
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    /// The value, which counts as a use.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, (value, weight))) = self.old.remove_entry(key) {
            self.old_weight -= weight;
            self.young_weight += weight;
            self.young.insert(key, (value, weight));
        }
        self.young.get_mut(key).map(|(value, _)| value)
    }

    /// The value, without its counting as a use.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key)).map(|(value, _)| value)
    }

    /// All entries, without its counting as a use.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.young.iter_mut().chain(&mut self.old).map(|(key, (value, _))| (key, value))
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.young_weight += weight;
        self.young.insert(key, (value, weight));
    }

    /// Sets the weight of what is in the young half.
    pub(crate) fn reweigh(&mut self, key: &K, weight: usize) {
        if let Some((_, before)) = self.young.get_mut(key) {
            self.young_weight = self.young_weight - *before + weight;
            *before = weight;
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young_weight -= self.young.remove(key).map_or(0, |(_, weight)| weight);
        self.old_weight -= self.old.remove(key).map_or(0, |(_, weight)| weight);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        (self.young_weight, self.old_weight) = (0, 0);
    }

    /// Forgets the old half, once the young one holds half of the limit.
    pub(crate) fn trim(&mut self) {
        self.trim_to(self.limit);
    }

    /// The same with a lower limit.
    pub(crate) fn trim_to(&mut self, limit: usize) {
        if self.young_weight > limit.min(self.limit) / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_weight = std::mem::take(&mut self.young_weight);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(crate) fn weight(&self) -> usize {
        self.young_weight + self.old_weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_weight_is_bounded() {
        let mut cache = TwoGenerations::new(100);
        for key in 0..1_000 {
            cache.insert(key, key, 10);
            assert_eq!(cache.get_mut(&0).copied(), Some(0));
            cache.trim();
            assert!(cache.weight() <= 120, "{}", cache.weight());
        }
        assert!(!cache.contains(&500));
    }
}
