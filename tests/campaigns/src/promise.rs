//! What the program promised: the lines that it prints once a call has returned.
//!
//! ```text
//! ledger NAME                 the ledger is there
//! event NAME POSITION ID      the event is durable, at this position
//! dropping NAME               from here on the ledger may be gone …
//! dropped NAME                … and from here on it is
//! fault WORDS                 a call failed that should not have
//! ```
//! Invariant: a line is printed by one write, so it is said as a whole or not at all.

use std::collections::BTreeMap;
use std::io::Write;

use syncledger::event::EventId;
use syncledger::ledger::Receipt;

/// What a ledger was promised to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Held,
    Dropping,
    Dropped,
}

/// What was promised of one ledger.
#[derive(Clone, Debug, Default)]
pub struct Promised {
    pub standing: Standing,
    pub events: BTreeMap<u64, EventId>,
}

/// Everything that was promised.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    pub ledgers: BTreeMap<String, Promised>,
    /// Calls that failed, though nothing had happened to the store.
    pub faults: Vec<String>,
}

impl Promises {
    /// How many events were promised, those of dropped ledgers included.
    pub fn events(&self) -> usize {
        self.ledgers.values().map(|ledger| ledger.events.len()).sum()
    }

    /// Takes in what was printed. A last line that breaks off was not said.
    pub fn take(&mut self, printed: &str) {
        let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            if self.take_line(line).is_none() {
                self.faults.push(line.to_owned());
            }
        }
    }

    /// `None` where the line is a fault, or none that we know.
    fn take_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (what, name) = (words.next()?, words.next()?);
        let standing = match what {
            "ledger" | "event" => Standing::Held,
            "dropping" => Standing::Dropping,
            "dropped" => Standing::Dropped,
            _ => return None,
        };
        let ledger = self.ledgers.entry(name.to_owned()).or_default();
        ledger.standing = standing;
        if what == "event" {
            let (position, id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            ledger.events.insert(position, id);
        }
        Some(())
    }

    /// The lines that say all this, for another process.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for (name, ledger) in &self.ledgers {
            lines += &format!("ledger {name}\n");
            ledger.events.iter().for_each(|(position, id)| lines += &format!("event {name} {position} {id}\n"));
            match ledger.standing {
                Standing::Held => {}
                Standing::Dropping => lines += &format!("dropping {name}\n"),
                Standing::Dropped => lines += &format!("dropped {name}\n"),
            }
        }
        lines
    }
}

/// Says something of a ledger.
pub fn say(what: &str, name: &str) {
    print(&format!("{what} {name}\n"));
}

/// Says that the events of a receipt are durable.
pub fn acknowledge(name: &str, receipt: &Receipt) {
    print(&receipt.events.iter().map(|(id, position)| format!("event {name} {position} {id}\n")).collect::<String>());
}

fn print(lines: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever listens may have gone, which is the listener's affair.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}
