//! The program that is killed and cut off: it works on a store as a service would, and says what was acknowledged.
//!
//! The store is `DIR/store`, archives are below `DIR/archive`.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use syncledger::ErrorKind;
use syncledger::event::EventId;
use syncledger::ledger::{Act, Context, Ledger, Options, Receipt, Settlement, Store, Which, Write};

use crate::Result;
use crate::chance::Chance;
use crate::promise::{acknowledge, say};

const LEDGERS: [&str; 3] = ["main", "north", "south"];
const COLLECTIONS: [&str; 3] = ["people", "tickets", "notes"];
const KEYS: usize = 12;
/// How many threads write at once in a burst, so that they share commits.
const THREADS: usize = 3;
/// How many events a process remembers, to edit on older states.
const REMEMBERED: usize = 64;

/// How the store is opened: small thresholds belong here.
pub fn options(seed: u64) -> Options {
    let mut chance = Chance::new(seed, 0);
    let cache_bytes = if chance.one_in(3) { 256 << 10 } else { 32 << 20 };
    let check_rows = chance.one_in(4);
    // So few that files are sealed, and frames dropped, all the time.
    let seal_events = 4 + chance.below(40) as u64;
    Options { cache_bytes, check_rows, seal_events, ..Options::default() }
}

/// The store's directory.
pub fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Works on the store below `dir`: for ever, or so many operations. The end of the last is a close, or none.
pub fn run(dir: &Path, seed: u64, operations: Option<usize>) -> Result<()> {
    let mut work = Work::begin(dir, seed)?;
    let mut done = 0;
    while operations.is_none_or(|operations| done < operations) {
        if let Err(fault) = work.step() {
            say("fault", &format!("{fault:?}"));
            return Err(fault.into());
        }
        done += 1;
    }
    if work.chance.one_in(2) {
        work.store.close().inspect_err(|fault| say("fault", &format!("closing: {fault:?}")))?;
    }
    // Without a close the process ends as if it had been killed.
    std::process::exit(0);
}

/// What a call on the ledger came to.
type Called<T = ()> = syncledger::Result<T>;

struct Work {
    dir: PathBuf,
    seed: u64,
    chance: Chance,
    store: Store,
    /// Events of this process, each with its ledger, collection and key.
    known: Vec<(usize, String, String, EventId)>,
    count: u64,
}

fn open(dir: &Path, seed: u64) -> Called<Store> {
    Store::open_with(store_dir(dir), options(seed))
}

fn context() -> Context {
    Context::from_source("campaign")
}

impl Work {
    fn begin(dir: &Path, seed: u64) -> Result<Self> {
        let store = open(dir, seed).inspect_err(|fault| say("fault", &format!("opening: {fault:?}")))?;
        let (dir, chance) = (dir.to_owned(), Chance::new(seed, 1));
        let mut work = Self { dir, seed, chance, store, known: Vec::new(), count: 0 };
        work.ledger(0).inspect_err(|fault| say("fault", &format!("opening: {fault:?}")))?;
        Ok(work)
    }

    fn step(&mut self) -> Called {
        self.count += 1;
        match self.chance.below(200) {
            0..58 => self.put(),
            58..102 => self.patch(),
            102..125 => self.batch(),
            125..145 => self.patch_an_older_state(),
            145..153 => self.delete_or_bring_back(),
            153..157 => self.put_text(17_000, 60_000),
            157..167 => self.put_text(2_000, 15_000),
            167..174 => self.burst(),
            174..178 => self.store.checkpoint(),
            178..180 => self.undo(),
            180..182 => self.settle(),
            182..188 => self.archive(),
            188..193 => self.reopen(),
            193 => self.overwrite(),
            194..197 => self.make_and_drop(),
            _ => self.rebuild(),
        }
    }

    /// Takes a ledger up, and says that it is there.
    fn ledger(&mut self, which: usize) -> Called<(usize, &'static str, Ledger)> {
        let name = LEDGERS.get(which).copied().unwrap_or("main");
        let is_new = self.store.ledgers().iter().all(|ledger| ledger.name != name);
        let ledger = self.store.ledger_or_create(name)?;
        if is_new {
            say("ledger", name);
        }
        Ok((which, name, ledger))
    }

    /// Mostly the first ledger, so that one grows long.
    fn some_ledger(&mut self) -> Called<(usize, &'static str, Ledger)> {
        let which = if self.chance.one_in(4) { self.chance.below(LEDGERS.len()) } else { 0 };
        self.ledger(which)
    }

    fn some_record(&mut self) -> (String, String) {
        let collection = self.chance.pick(&COLLECTIONS).copied().unwrap_or_default();
        (collection.to_owned(), format!("k{}", self.chance.below(KEYS)))
    }

    fn some_value(&mut self) -> Json {
        let words = self.chance.below(12);
        json!({
            "n": self.count, "seed": self.seed, "open": self.chance.one_in(2),
            "text": "word ".repeat(words), "address": { "city": format!("c{}", self.chance.below(9)) },
            "tags": ["a", self.chance.below(5)],
        })
    }

    fn some_patch(&mut self) -> Json {
        match self.chance.below(4) {
            0 => json!({ "n": self.count }),
            1 => json!({ "text": format!("t{}", self.count), "address": { "street": self.chance.below(100) } }),
            2 => json!({ "address": null, "left": self.chance.below(1_000) }),
            _ => json!({ "open": self.chance.one_in(2), "owner": format!("p{}", self.chance.below(20)) }),
        }
    }

    /// Writes, acknowledges and remembers. A record that is not there is no fault.
    fn write(&mut self, writes: impl FnOnce(&mut Self) -> Vec<Write>) -> Called {
        let (which, name, ledger) = self.some_ledger()?;
        let writes = writes(self);
        let place = writes.first().map(|write| (write.collection.clone(), write.key.clone()));
        let receipt = match ledger.write_all(writes, &context()) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        acknowledge(name, &receipt);
        if let (Some((collection, key)), [(id, _)]) = (place, receipt.events.as_slice()) {
            self.remember((which, collection, key, *id));
        }
        Ok(())
    }

    fn remember(&mut self, event: (usize, String, String, EventId)) {
        if self.known.len() == REMEMBERED {
            self.known.swap_remove(self.chance.below(REMEMBERED));
        }
        self.known.push(event);
    }

    fn put(&mut self) -> Called {
        self.write(|work| {
            let (collection, key) = work.some_record();
            vec![Write::new(collection, key, Act::Put(work.some_value()))]
        })
    }

    fn patch(&mut self) -> Called {
        self.write(|work| {
            let (collection, key) = work.some_record();
            vec![Write::new(collection, key, Act::Patch(work.some_patch()))]
        })
    }

    fn batch(&mut self) -> Called {
        self.write(|work| {
            let most = if work.chance.one_in(8) { 40 } else { 6 };
            let count = work.chance.between(2, most);
            let one = |work: &mut Self| {
                let (collection, key) = work.some_record();
                Write::new(collection, key, Act::Put(work.some_value()))
            };
            (0..count).map(|_| one(work)).collect()
        })
    }

    fn patch_an_older_state(&mut self) -> Called {
        let Some((which, collection, key, id)) = self.chance.pick(&self.known).cloned() else { return Ok(()) };
        let (_, name, ledger) = self.ledger(which)?;
        let write = Write::new(collection, key, Act::Patch(self.some_patch())).on(vec![id]);
        match ledger.write(write, &context()) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map(|receipt| acknowledge(name, &receipt)),
        }
    }

    fn delete_or_bring_back(&mut self) -> Called {
        self.write(|work| {
            let (collection, key) = work.some_record();
            vec![Write::new(collection, key, if work.chance.one_in(3) { Act::Undelete } else { Act::Delete })]
        })
    }

    /// Above 16 KiB a text is a file of its own, above 4 KiB it is several parts of a frame.
    fn put_text(&mut self, least: usize, most: usize) -> Called {
        self.write(|work| {
            let (collection, key) = work.some_record();
            let text = work.some_text(least, most);
            vec![Write::new(collection, key, Act::Put(json!({ "n": work.count, "body": text })))]
        })
    }

    fn some_text(&mut self, least: usize, most: usize) -> String {
        let length = self.chance.between(least, most);
        // Text that no compression makes small.
        (0..length.div_ceil(16)).map(|_| format!("{:016x}", self.chance.next())).collect()
    }

    /// Several threads at once, whose writes share commits.
    fn burst(&mut self) -> Called {
        let (_, name, ledger) = self.some_ledger()?;
        let plans: Vec<Vec<_>> =
            (0..THREADS).map(|_| (0..4).map(|_| (self.some_record(), self.some_value())).collect()).collect();
        let write = |plan: Vec<((String, String), Json)>| -> Called {
            plan.into_iter().try_for_each(|((collection, key), value)| {
                ledger.put(&collection, &key, value, &context()).map(|receipt| acknowledge(name, &receipt))
            })
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = plans.into_iter().map(|plan| scope.spawn(|| write(plan))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn undo(&mut self) -> Called {
        let (_, name, ledger) = self.some_ledger()?;
        acknowledge_unless_missing(name, ledger.undo(&context()))
    }

    fn settle(&mut self) -> Called {
        let (_, name, ledger) = self.some_ledger()?;
        let open = ledger.conflicts(None, Which::Open, None)?;
        let Some(found) = open.first() else { return Ok(()) };
        acknowledge_unless_missing(name, ledger.resolve(found.conflict.id, Settlement::Take(0), None, &context()))
    }

    fn archive(&mut self) -> Called {
        let (_, name, ledger) = self.some_ledger()?;
        let head = ledger.position() as usize;
        let before = self.chance.between(1, head + 1) as u64;
        ledger.archive(before, self.dir.join("archive").join(name)).map(drop)
    }

    fn reopen(&mut self) -> Called {
        self.store.close()?;
        self.store = open(&self.dir, self.seed)?;
        self.ledger(0).map(drop)
    }

    /// Overwrites one record with much, again and again: rows that are mostly dead are compacted.
    fn overwrite(&mut self) -> Called {
        let (_, name, ledger) = self.some_ledger()?;
        for round in 0..60 {
            let value = json!({ "round": round, "body": self.some_text(14_000, 16_000) });
            acknowledge(name, &ledger.put("notes", "fat", value, &context())?);
            if round % 2 == 0 {
                self.store.checkpoint()?;
            }
        }
        Ok(())
    }

    /// A ledger that is there for a moment. Its name comes only once.
    fn make_and_drop(&mut self) -> Called {
        let name = format!("scratch-{:x}-{}", self.seed, self.count);
        let ledger = match self.store.create_ledger(&name) {
            // The same seed worked here before.
            Err(fault) if fault.kind() == ErrorKind::Conflict => return Ok(()),
            made => made?,
        };
        say("ledger", &name);
        for n in 0..self.chance.below(30) {
            acknowledge(&name, &ledger.put("c", &format!("k{}", n % 5), self.some_value(), &context())?);
        }
        if self.chance.one_in(2) {
            return Ok(());
        }
        drop(ledger);
        say("dropping", &name);
        self.store.drop_ledger(&name)?;
        say("dropped", &name);
        Ok(())
    }

    fn rebuild(&mut self) -> Called {
        let (_, _, ledger) = self.some_ledger()?;
        ledger.rebuild().map(drop)
    }
}

fn acknowledge_unless_missing(name: &str, called: Called<Receipt>) -> Called {
    match called {
        Err(fault) if [ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::Validation].contains(&fault.kind()) => {
            Ok(())
        }
        other => other.map(|receipt| acknowledge(name, &receipt)),
    }
}
