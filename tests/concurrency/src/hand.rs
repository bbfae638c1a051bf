//! A ledger in memory in the hands of several threads, and what each of them looks at.

use std::sync::Arc;

use serde_json::json;
use syncledger::event::LedgerId;
use syncledger::journal::memory::Faults;
use syncledger::ledger::{Context, Entry, LogQuery, Machine, Options, Query, Subscription};
use syncledger::{Error, ErrorKind, Ledger, Result, Store};

/// The time of the machine, in milliseconds since 1970.
const NOW_MS: i64 = 1_780_000_000_000;

/// A thread's hold of a ledger and of the disk that it is on.
#[derive(Clone)]
pub struct Hand {
    pub machine: Arc<Machine>,
    pub ledger: Ledger,
    pub id: LedgerId,
}

/// How the stores here are opened: what is shown is compared with the documents by other tests.
pub fn options() -> Options {
    Options { check_rows: false, cache_bytes: 1 << 20, ..Options::default() }
}

/// A store on a machine of its own.
pub fn store(seed: u64) -> (Arc<Machine>, Store) {
    let machine = Arc::new(Machine::new(seed, NOW_MS));
    let store = machine.open(options()).expect("it opens");
    (machine, store)
}

impl Hand {
    /// An empty ledger.
    pub fn new() -> Self {
        let (machine, store) = store(1);
        Self::make(&machine, &store, "main")
    }

    pub fn make(machine: &Arc<Machine>, store: &Store, name: &str) -> Self {
        let ledger = store.create_ledger(name).expect("it is made");
        let id = ledger.info().id;
        Self { machine: machine.clone(), ledger, id }
    }

    /// Up to where the disk holds the ledger, whatever befalls it now.
    pub fn durable(&self) -> u64 {
        self.machine.durable(self.id)
    }

    /// Writes a record, and looks for it: what is acknowledged is durable, and shown.
    pub fn put(&self, key: &str, number: u64) -> Result<u64> {
        let receipt = self.ledger.put("notes", key, json!({ "n": number }), &Context::from_source("app"))?;
        let position = receipt.events.first().expect("it changes something").1;
        assert!(self.durable() >= position, "acknowledged before it is durable: {position}");
        self.finds(key, number);
        Ok(position)
    }

    /// Fails unless a record shows at least this number.
    pub fn finds(&self, key: &str, number: u64) {
        let record = self.ledger.get("notes", key).expect("it can be read").expect("it was acknowledged");
        assert!(record.value["n"].as_u64() >= Some(number), "{key} shows {} after {number}", record.value);
    }

    /// Looks at everything that anybody may see: no more than what is durable, and without a gap.
    pub fn look_around(&self) -> Result<u64> {
        let head = self.ledger.position();
        assert!(self.durable() >= head, "a head that is not durable: {head}");
        let log = self.ledger.log(&LogQuery::default())?;
        assert!(log.len() as u64 >= head, "the log lacks what its head says");
        assert!(self.durable() >= log.len() as u64, "events in the log that are not durable");
        let listed = self.ledger.list("notes", &Query::default())?;
        assert!(self.durable() >= listed.len() as u64, "records are shown whose events are not durable");
        in_order(&log);
        Ok(head)
    }

    pub fn follow(&self) -> Follower {
        Follower { entries: self.ledger.subscribe(0), hand: self.clone(), seen: Vec::new(), is_held: true }
    }

    /// Of a ledger that is being dropped: what was read of it may be gone by now.
    pub fn follow_to_its_end(&self) -> Follower {
        Follower { is_held: false, ..self.follow() }
    }

    /// The ledger as it is found after a power cut at this moment.
    pub fn after_a_crash(&self) -> Self {
        let machine = Arc::new(self.machine.crash());
        let ledger = machine.open(options()).and_then(|store| store.ledger("main")).expect("it opens again");
        Self { machine, ledger, id: self.id }
    }

    pub fn fail(&self, faults: Faults) {
        self.machine.set_faults(faults);
    }

    pub fn close(&self) -> Result<()> {
        self.ledger.store().close()
    }
}

/// Who is given each event as it comes.
pub struct Follower {
    entries: Subscription,
    hand: Hand,
    seen: Vec<Entry>,
    /// Whether the ledger has to be there.
    is_held: bool,
}

impl Follower {
    /// Waits for the next event. It is durable, and its record shows it.
    pub fn next(&mut self) -> Option<Result<()>> {
        let entry = self.entries.next()?;
        Some(entry.map(|entry| self.take(entry)))
    }

    /// Looks for the next event without waiting.
    pub fn poll(&mut self) -> Option<Result<()>> {
        let entry = self.entries.next_timeout(std::time::Duration::ZERO)?;
        Some(entry.map(|entry| self.take(entry)))
    }

    fn take(&mut self, entry: Entry) {
        if self.is_held {
            assert!(self.hand.durable() >= entry.position, "given before it is durable: {}", entry.position);
            let record = self.hand.ledger.get(&entry.event.collection, &entry.event.key).expect("it can be read");
            assert!(record.is_some(), "who is given an event does not find its record");
        }
        self.seen.push(entry);
    }

    /// Follows until so many came, each once and in order.
    pub fn until(mut self, count: usize) -> Vec<Entry> {
        while self.seen.len() < count {
            self.next().expect("more will come").expect("nothing fails");
        }
        self.all()
    }

    /// Follows until no more will come. Returns why, where that is a fault.
    pub fn to_the_end(mut self) -> (Vec<Entry>, Option<Error>) {
        loop {
            match self.next() {
                None => return (self.all(), None),
                Some(Err(fault)) => return (self.all(), Some(fault)),
                Some(Ok(())) => {}
            }
        }
    }

    pub fn count(&self) -> usize {
        self.seen.len()
    }

    pub fn is_ended(&self) -> bool {
        self.entries.is_ended()
    }

    pub fn all(self) -> Vec<Entry> {
        in_order(&self.seen);
        self.seen
    }
}

/// Fails unless these are the first events of a log, each once.
pub fn in_order(entries: &[Entry]) {
    let positions: Vec<u64> = entries.iter().map(|entry| entry.position).collect();
    assert!(positions.iter().copied().eq(1..=entries.len() as u64), "not in order: {positions:?}");
}

/// Fails unless a call was refused because the store is closed.
pub fn is_closed(fault: &Error) {
    assert_eq!(fault.kind(), ErrorKind::Cancelled, "{fault}");
}
