//! The index of a ledger's constraints: what records have to agree on with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decimal::Decimal;
use super::facts::{Facts, Reference, Stamp, Unique};
use super::model::{Schema, SumOf};
use super::violation::{Constraint, Violation};
use crate::event::Path;

/// A record's collection and key.
type Key = (String, String);

/// The violations that records had before they were touched.
pub type Before = BTreeMap<Key, Vec<Violation>>;

/// What the schemas of a ledger demand of each collection.
#[derive(Debug, Default)]
pub struct Demands {
    schemas: BTreeMap<String, Arc<Schema>>,
    /// By collection, the sums that its records add to: whose, which field, how.
    sums: BTreeMap<String, Vec<(String, Path, SumOf)>>,
    /// The collections of which something is demanded, and what that is told from others by.
    hashes: BTreeMap<String, u64>,
}

impl Demands {
    /// The demands of these schemas, by collection.
    #[must_use]
    pub fn new(schemas: BTreeMap<String, Arc<Schema>>) -> Self {
        let (mut sums, mut named) = (BTreeMap::<_, Vec<_>>::new(), BTreeSet::new());
        for (collection, schema) in &schemas {
            for (path, field) in schema.fields() {
                named.extend(field.references.clone());
                if let Some(sum) = &field.sum {
                    sums.entry(sum.collection.clone()).or_default().push((
                        collection.clone(),
                        path.clone(),
                        sum.clone(),
                    ));
                }
            }
        }
        let all: BTreeSet<String> = schemas.keys().chain(sums.keys()).chain(&named).cloned().collect();
        let hash = |collection: &String| {
            let schema: Option<u64> = schemas.get(collection).map(|schema| schema.hash());
            let text = format!("{schema:?} {:?} {}", sums.get(collection), named.contains(collection));
            blake3::hash(text.as_bytes()).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let hashes = all.iter().map(|collection| (collection.clone(), hash(collection))).collect();
        Self { schemas, sums, hashes }
    }

    /// Whether nothing is demanded of any collection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    /// The collections of which something is demanded.
    pub fn collections(&self) -> impl Iterator<Item = &String> {
        self.hashes.keys()
    }

    /// The schema of a collection.
    #[must_use]
    pub fn schema(&self, collection: &str) -> Option<&Arc<Schema>> {
        self.schemas.get(collection)
    }

    /// The sums that the records of a collection add to: of which collection, which field, how.
    pub(crate) fn sums_over(&self, collection: &str) -> impl Iterator<Item = (&str, &Path, &SumOf)> {
        let sums = self.sums.get(collection).into_iter().flatten();
        sums.map(|(owner, path, sum)| (owner.as_str(), path, sum))
    }

    /// What the demands of a collection are told from others by; `None` where there are none.
    #[must_use]
    pub fn hash(&self, collection: &str) -> Option<u64> {
        self.hashes.get(collection).copied()
    }
}

/// What adds up to a sum.
#[derive(Clone, Debug, Default, PartialEq)]
struct Total {
    sum: Decimal,
    terms: u64,
}

/// What is known of all records of which something is demanded.
///
/// Invariant: it is a function of the facts that it holds, not of the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Index {
    demands: Arc<Demands>,
    facts: BTreeMap<Key, Arc<Facts>>,
    /// By collection, unique field and value: who shows it, the holder first.
    holders: BTreeMap<(String, Path, String), BTreeSet<(Stamp, String)>>,
    /// By record, who names it.
    referrers: BTreeMap<Key, BTreeSet<Key>>,
    /// By record and field, what adds up to it.
    totals: BTreeMap<(String, String, Path), Total>,
    broken: BTreeSet<Key>,
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        let state = |index: &Self| {
            (
                index.facts.clone(),
                index.holders.clone(),
                index.referrers.clone(),
                index.totals.clone(),
                index.broken.clone(),
            )
        };
        state(self) == state(other)
    }
}

impl Index {
    /// An index of no record yet.
    #[must_use]
    pub fn new(demands: Arc<Demands>) -> Self {
        Self { demands, ..Self::default() }
    }

    /// What is demanded.
    #[must_use]
    pub fn demands(&self) -> &Arc<Demands> {
        &self.demands
    }

    /// Takes other demands: from now on the facts that come are of these.
    pub fn demand(&mut self, demands: Arc<Demands>) {
        self.demands = demands;
    }

    /// The records that it knows of a collection.
    pub fn keys(&self, collection: &str) -> impl Iterator<Item = &Key> {
        let first = (collection.to_owned(), String::new());
        self.facts.range(first..).map(|(key, _)| key).take_while(move |key| key.0 == collection)
    }

    /// What it knows of a record.
    #[must_use]
    pub fn facts(&self, key: &Key) -> Option<&Arc<Facts>> {
        self.facts.get(key)
    }

    /// Whether it knows no record, and nothing is demanded of any.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.facts.is_empty() && self.demands.is_empty()
    }

    /// Takes in what is known of a record now. `before` keeps, of each record whose violations may differ by this, those
    /// that it had when it was first touched.
    pub fn update(&mut self, key: &Key, facts: Option<Arc<Facts>>, before: Option<&mut Before>) {
        let old = self.facts.get(key).cloned();
        if old == facts {
            return;
        }
        let affected = self.affected(key, old.as_deref(), facts.as_deref());
        if let Some(before) = before {
            for key in &affected {
                before.entry(key.clone()).or_insert_with(|| self.violations(key));
            }
        }
        old.iter().for_each(|old| self.remove(key, old));
        match facts {
            Some(facts) => {
                self.add(key, &facts);
                self.facts.insert(key.clone(), facts);
            }
            None => drop(self.facts.remove(key)),
        }
        for key in affected {
            let is_broken = self.is_broken(&key);
            if is_broken {
                self.broken.insert(key)
            } else {
                self.broken.remove(&key)
            };
        }
    }

    /// The records whose violations may differ when what is known of one changes.
    fn affected(&self, key: &Key, old: Option<&Facts>, new: Option<&Facts>) -> BTreeSet<Key> {
        let mut affected = BTreeSet::from([key.clone()]);
        let both = || old.into_iter().chain(new);
        // Only the first two of those who show a value can become, or cease to be, its holder.
        for unique in both().flat_map(|facts| &facts.unique) {
            let shown = self.holders.get(&self.value(key, unique)).into_iter().flatten();
            affected.extend(shown.take(2).map(|(_, other)| (key.0.clone(), other.clone())));
        }
        if old.is_some_and(|facts| facts.alive) != new.is_some_and(|facts| facts.alive) {
            affected.extend(self.referrers.get(key).into_iter().flatten().cloned());
        }
        let terms = both().flat_map(|facts| &facts.terms);
        affected.extend(terms.map(|term| (term.collection.clone(), term.target.clone())));
        affected
    }

    fn value(&self, key: &Key, unique: &Unique) -> (String, Path, String) {
        (key.0.clone(), unique.path.clone(), unique.value.clone())
    }

    fn add(&mut self, key: &Key, facts: &Facts) {
        for unique in &facts.unique {
            let value = self.value(key, unique);
            self.holders.entry(value).or_default().insert((unique.stamp, key.1.clone()));
        }
        for reference in &facts.references {
            self.referrers.entry(target(reference)).or_default().insert(key.clone());
        }
        for term in &facts.terms {
            let at = (term.collection.clone(), term.target.clone(), term.path.clone());
            let total = self.totals.entry(at).or_default();
            total.sum.add(&term.value);
            total.terms += 1;
        }
    }

    fn remove(&mut self, key: &Key, facts: &Facts) {
        for unique in &facts.unique {
            let value = self.value(key, unique);
            drop_member(&mut self.holders, &value, &(unique.stamp, key.1.clone()));
        }
        for reference in &facts.references {
            drop_member(&mut self.referrers, &target(reference), key);
        }
        for term in &facts.terms {
            let at = (term.collection.clone(), term.target.clone(), term.path.clone());
            let Some(total) = self.totals.get_mut(&at) else { continue };
            total.sum.subtract(&term.value);
            total.terms = total.terms.saturating_sub(1);
            if total.terms == 0 {
                self.totals.remove(&at);
            }
        }
    }

    /// The records that break a constraint.
    pub fn broken(&self) -> impl Iterator<Item = &Key> {
        self.broken.iter()
    }

    /// Whether a record breaks any constraint.
    fn is_broken(&self, key: &Key) -> bool {
        !self.violations(key).is_empty()
    }

    /// What a record breaks, by path.
    #[must_use]
    pub fn violations(&self, key: &Key) -> Vec<Violation> {
        let Some(facts) = self.facts.get(key) else { return Vec::new() };
        let mut found = facts.broken.clone();
        let schema = self.demands.schema(&key.0);
        let violation = |path: &Path, at: &str, constraint, subject: &str, message: String| Violation {
            collection: key.0.clone(),
            key: key.1.clone(),
            path: at.to_owned(),
            constraint,
            subject: subject.to_owned(),
            message,
            critical: schema.is_some_and(|schema| schema.is_critical(path)),
        };
        for unique in &facts.unique {
            if let Some(holder) = self.holder(&key.0, &unique.path, &unique.value).filter(|holder| **holder != key.1)
            {
                let message = format!("expected a value of its own: `{}/{holder}` holds this one", key.0);
                found.push(violation(&unique.path, unique.path.as_str(), Constraint::Unique, &unique.value, message));
            }
        }
        for reference in facts.references.iter().filter(|reference| !self.is_alive(&target(reference))) {
            let message =
                format!("expected the key of a record of `{}`: this one is absent or deleted", reference.collection);
            found.push(violation(&reference.path, &reference.at, Constraint::Reference, &reference.target, message));
        }
        for amount in &facts.amounts {
            let total = self.total(key, &amount.path);
            if !amount.value.as_ref().is_some_and(|value| value.equals(&total)) {
                let message = self.sum_message(key, &amount.path);
                found.push(violation(&amount.path, amount.path.as_str(), Constraint::Sum, "", message));
            }
        }
        found.sort_by(|a, b| (&a.path, a.constraint, &a.subject).cmp(&(&b.path, b.constraint, &b.subject)));
        found
    }

    fn sum_message(&self, key: &Key, path: &Path) -> String {
        let sum = self.demands.schema(&key.0).and_then(|schema| schema.field(path)?.sum.as_ref());
        sum.map_or_else(String::new, |sum| {
            format!("expected the sum of `{}` of the `{}` that name it in `{}`", sum.field, sum.collection, sum.via)
        })
    }

    /// The sum that a field should be.
    #[must_use]
    pub fn total(&self, key: &Key, path: &Path) -> Decimal {
        let at = (key.0.clone(), key.1.clone(), path.clone());
        self.totals.get(&at).map(|total| total.sum.clone()).unwrap_or_default()
    }

    /// The key of the record that holds a value of a unique field.
    #[must_use]
    pub fn holder(&self, collection: &str, path: &Path, value: &str) -> Option<&String> {
        self.showing(collection, path, value).next().map(|(_, key)| key)
    }

    /// The records that show a value of a unique field, the holder first.
    pub fn showing(&self, collection: &str, path: &Path, value: &str) -> impl Iterator<Item = &(Stamp, String)> {
        self.holders.get(&(collection.to_owned(), path.clone(), value.to_owned())).into_iter().flatten()
    }

    /// The values of unique fields that several records show: collection, field, value.
    pub fn shared_values(&self) -> impl Iterator<Item = &(String, Path, String)> {
        self.holders.iter().filter(|(_, shown)| shown.len() > 1).map(|(value, _)| value)
    }

    /// The values of unique fields of a record.
    pub fn unique_values(&self, key: &Key) -> impl Iterator<Item = &Unique> {
        self.facts.get(key).into_iter().flat_map(|facts| &facts.unique)
    }

    fn is_alive(&self, key: &Key) -> bool {
        self.facts.get(key).is_some_and(|facts| facts.alive)
    }
}

fn target(reference: &Reference) -> Key {
    (reference.collection.clone(), reference.target.clone())
}

fn drop_member<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, at: &K, member: &V) {
    let Some(set) = sets.get_mut(at) else { return };
    set.remove(member);
    if set.is_empty() {
        sets.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Timestamp};
    use crate::schema::Shown;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn demands() -> Arc<Demands> {
        let schema = |json: Json| Arc::new(Schema::from_json(&json).unwrap());
        let people = schema(json!({ "properties": {
            "mail": { "x-unique": true },
            "boss": { "x-references": "people" },
            "sum": { "x-sum": { "collection": "lines", "field": "/n", "via": "/of" } },
        } }));
        Arc::new(Demands::new(BTreeMap::from([("people".to_owned(), people)])))
    }

    fn facts(demands: &Demands, key: &Key, json: Option<&Json>, at: i64) -> Option<Arc<Facts>> {
        let stamp = |_: &Path| Stamp { at: Timestamp { millis: at, counter: 0 }, event: EventId([0; 32]) };
        demands.facts(&Shown { collection: &key.0, key: &key.1, json, unread: &[], stamp: &stamp })
    }

    fn key(collection: &str, key: &str) -> Key {
        (collection.to_owned(), key.to_owned())
    }

    struct Bench(Arc<Demands>, Index);

    impl Bench {
        fn new() -> Self {
            let demands = demands();
            Self(demands.clone(), Index::new(demands))
        }

        fn set(&mut self, collection: &str, name: &str, json: Option<Json>, at: i64) {
            let key = key(collection, name);
            let facts = facts(&self.0, &key, json.as_ref(), at);
            self.1.update(&key, facts, None);
        }

        fn broken(&self) -> Vec<(String, Constraint)> {
            let of = |key: &Key| self.1.violations(key).into_iter().map(|found| (found.key, found.constraint));
            self.1.broken().flat_map(of).collect()
        }
    }

    #[test]
    fn the_earliest_holds_a_unique_value_until_it_shows_another() {
        let mut bench = Bench::new();
        bench.set("people", "a", Some(json!({ "mail": "x" })), 2);
        bench.set("people", "b", Some(json!({ "mail": "x" })), 1);
        bench.set("people", "c", Some(json!({ "mail": "x" })), 3);
        let broken =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Constraint::Unique)).collect::<Vec<_>>();
        assert_eq!(bench.broken(), broken(&["a", "c"]));
        bench.set("people", "b", Some(json!({ "mail": "y" })), 4);
        assert_eq!(bench.broken(), broken(&["c"]));
        bench.set("people", "a", None, 4);
        assert_eq!(bench.broken(), []);
    }

    #[test]
    fn a_reference_is_broken_while_its_target_is_absent_or_deleted() {
        let mut bench = Bench::new();
        bench.set("people", "a", Some(json!({ "boss": "b" })), 1);
        assert_eq!(bench.broken(), [("a".to_owned(), Constraint::Reference)]);
        bench.set("people", "b", Some(json!({})), 1);
        assert_eq!(bench.broken(), []);
        bench.set("people", "b", None, 1);
        assert_eq!(bench.broken(), [("a".to_owned(), Constraint::Reference)]);
    }

    #[test]
    fn a_sum_follows_what_refers_to_it() {
        let mut bench = Bench::new();
        bench.set("people", "a", Some(json!({ "sum": 0.3 })), 1);
        bench.set("lines", "1", Some(json!({ "of": "a", "n": 0.1 })), 1);
        assert_eq!(bench.broken(), [("a".to_owned(), Constraint::Sum)]);
        bench.set("lines", "2", Some(json!({ "of": "a", "n": 0.2 })), 1);
        assert_eq!(bench.broken(), []);
        bench.set("lines", "1", Some(json!({ "of": "nobody", "n": 0.1 })), 1);
        assert_eq!(bench.1.total(&key("people", "a"), &Path::parse("/sum").unwrap()).to_json(), Some(json!(0.2)));
        assert_eq!(bench.broken(), [("a".to_owned(), Constraint::Sum)]);
    }

    fn a_record() -> impl Strategy<Value = (bool, u8, Option<Json>, i64)> {
        let name = || proptest::option::of(0..3_u8);
        let person = (name(), name(), 0..4_u8).prop_map(|(mail, boss, sum)| {
            json!({ "mail": mail, "boss": boss.map(|boss| boss.to_string()), "sum": f64::from(sum) / 10.0 })
        });
        let line = (0..3_u8, 0..4_u8).prop_map(|(of, n)| json!({ "of": of.to_string(), "n": f64::from(n) / 10.0 }));
        let json = prop_oneof![person.prop_map(|json| (true, json)), line.prop_map(|json| (false, json))];
        (json, 0..3_u8, 0..5_u8, 0..4_i64)
            .prop_map(|((person, json), key, gone, at)| (person, key, Some(json).filter(|_| gone > 0), at))
    }

    proptest! {
        #[test]
        fn an_index_kept_up_step_by_step_is_the_one_made_at_once(
            records in proptest::collection::vec(a_record(), 0..24),
        ) {
            let mut bench = Bench::new();
            let mut last = BTreeMap::new();
            for (person, name, json, at) in records {
                let collection = if person { "people" } else { "lines" };
                bench.set(collection, &name.to_string(), json.clone(), at);
                last.insert((collection, name), (json, at));
                let all: Vec<Key> = bench.1.facts.keys().filter(|key| !bench.1.violations(key).is_empty()).cloned().collect();
                prop_assert_eq!(&all, &bench.1.broken().cloned().collect::<Vec<_>>());
            }
            let mut at_once = Bench::new();
            for ((collection, name), (json, at)) in last.into_iter().rev() {
                at_once.set(collection, &name.to_string(), json, at);
            }
            prop_assert!(bench.1 == at_once.1);
        }

        #[test]
        fn what_an_update_may_break_was_looked_at_before(
            records in proptest::collection::vec(a_record(), 1..16),
        ) {
            let mut bench = Bench::new();
            for (person, name, json, at) in records {
                let key = key(if person { "people" } else { "lines" }, &name.to_string());
                let was: BTreeMap<Key, _> = bench.1.facts.keys().map(|key| (key.clone(), bench.1.violations(key))).collect();
                let (facts, mut before) = (facts(&bench.0, &key, json.as_ref(), at), BTreeMap::new());
                bench.1.update(&key, facts, Some(&mut before));
                for other in bench.1.facts.keys() {
                    let identities = |found: &[Violation]| {
                        found.iter().map(|found| (found.path.clone(), found.constraint)).collect::<Vec<_>>()
                    };
                    let was = was.get(other).map(Vec::as_slice).unwrap_or_default();
                    if identities(&bench.1.violations(other)) != identities(was) {
                        prop_assert!(before.contains_key(other), "{other:?}");
                    }
                }
            }
        }
    }
}
