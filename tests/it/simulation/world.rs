//! The world of a simulation, and what befalls it.

use serde_json::{Value as Json, json};
use syncledger::client::Ways;
use syncledger::event::{EventId, Path};
use syncledger::journal::memory::Faults;
use syncledger::ledger::{Act, Context, Edit, Ledger, Machine, SessionOptions, Settlement, Which, Write, Writers};
use syncledger::replication::Filter;
use syncledger::testing::Rng;
use syncledger::{Error, ErrorKind, Result};

use super::Happened;
use super::device::{Device, Node, Rights};
use super::governing::Office;
use super::line::{DEVICE, Line, SERVER};

/// When the simulation begins, in milliseconds since 1970.
const BEGINNING_MS: i64 = 1_800_000_000_000;
pub const MINUTE_MS: i64 = 60_000;
pub const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// One seed in so many has many devices.
const CROWDED: u64 = 75;
/// One seed in so many has logs of more events than one batch holds.
const LONG: u64 = 50;
const MUCH: usize = 1_500;
/// One seed in so many has a server that starts again from a backup now and then.
const RESTORING: u64 = 4;
/// One seed in so many also has frames of one session arrive in another, which no stream of bytes does.
const HOSTILE: u64 = 5;

pub struct World {
    pub rng: Rng,
    pub now_ms: i64,
    pub server: Node,
    /// The edits of the server that were acknowledged.
    pub promised: Vec<EventId>,
    pub writers: Writers,
    pub devices: Vec<Device>,
    pub happened: Happened,
    /// What the server's people have set up, and its files.
    pub office: Office,
    /// Whether the server starts again from a backup now and then.
    pub restores: bool,
    pub seed: u64,
    steps: usize,
    machines: u64,
}

pub fn app() -> Context {
    Context::from_source("app")
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (count, steps) = match seed.is_multiple_of(CROWDED) {
            true => (50, 400),
            false => (3 + rng.below(6), 60 + rng.below(180)),
        };
        let server = Node::on(Machine::new(seed << 8, BEGINNING_MS));
        server.ledger.put("notes", "first", json!({ "text": "hello" }), &app()).unwrap();
        let (promised, writers, devices) = Default::default();
        let happened = Happened::new();
        let mut world = Self {
            rng,
            now_ms: BEGINNING_MS,
            server,
            promised,
            writers,
            devices,
            happened,
            office: Office::default(),
            restores: seed.is_multiple_of(RESTORING),
            seed,
            steps,
            machines: 0,
        };
        (0..count).for_each(|nth| world.add_device(nth));
        world
    }

    /// A machine that is nobody's yet.
    pub fn new_machine(&mut self) -> Machine {
        self.machines += 1;
        Machine::new((self.seed << 8) + self.machines, self.now_ms)
    }

    fn add_device(&mut self, nth: usize) {
        let rights = match nth {
            0 | 1 => Rights::Full,
            _ => *self.rng.pick(&[Rights::Full, Rights::Full, Rights::Own, Rights::Notes]),
        };
        let skew_ms = match self.rng.below(6) {
            0 => self.rng.below(2 * DAY_MS as usize) as i64 - DAY_MS,
            1 => self.rng.below(8 * MINUTE_MS as usize) as i64 - 4 * MINUTE_MS,
            _ => 0,
        };
        let node = Node::on(self.new_machine());
        self.devices.push(Device::new(format!("device-{nth}"), node, rights, skew_ms));
        self.set_clocks();
        // A device becomes one of this ledger before anything is edited on it.
        self.sync_whole(nth);
    }

    pub fn note(&mut self, what: &str) {
        *self.happened.entry(what.to_owned()).or_default() += 1;
    }

    pub fn set_clocks(&mut self) {
        self.server.machine.set_now_ms(self.now_ms);
        for device in &self.devices {
            device.node.machine.set_now_ms(self.now_ms + device.skew_ms);
        }
    }

    pub fn run(&mut self) {
        for _ in 0..self.steps {
            self.now_ms += match self.rng.below(40) {
                0 => self.rng.below(60 * MINUTE_MS as usize) as i64,
                _ => self.rng.below(3_000) as i64,
            };
            self.set_clocks();
            self.step();
        }
    }

    fn step(&mut self) {
        let nth = self.rng.below(self.devices.len());
        match self.rng.below(100) {
            0..33 => self.edit(nth),
            33..37 => self.edit_server(),
            37..52 => self.connect(nth),
            52..76 => self.deliver_some(),
            76..82 => self.cut(nth),
            82..84 => self.settle(nth),
            84..86 => self.crash_device(nth),
            86 => self.crash_server(),
            87..89 => self.copy_disk(nth),
            89..91 => self.restore_disk(nth),
            91..93 => self.change_rights(nth),
            93 if self.rng.one_in(4) => self.revoke(nth),
            94 => self.mend_clock(nth),
            95..97 => self.inject_stale(nth),
            97 if self.is_long() => self.edit_much(nth),
            98 => self.govern(),
            99 if self.restores => self.govern(),
            _ => self.tick(),
        }
        self.grow();
        self.watch(nth);
    }

    // What people do.

    fn edit(&mut self, nth: usize) {
        if self.rng.one_in(10) {
            return self.edit_together(nth);
        }
        let write = self.any_write(nth);
        // In the name of another source, now and then: that, and what is made on it, is refused.
        let context = if nth > 1 && self.rng.one_in(60) { Context::from_source("jira") } else { app() };
        let outcome = edit(&self.devices[nth].node.ledger, write, &context);
        self.note("edits");
        match outcome {
            Ok(events) => self.devices[nth].promised.extend(events),
            Err(fault) if is_of_disk(&fault) => self.reopen_device(nth),
            Err(_) => {}
        }
    }

    fn edit_server(&mut self) {
        let write = if self.rng.one_in(3) { self.count_up() } else { self.any_write(0) };
        match edit(&self.server.ledger, write, &app()) {
            Ok(events) => self.promised.extend(events),
            Err(fault) if is_of_disk(&fault) => self.reopen_server(),
            Err(_) => {}
        }
    }

    fn is_long(&self) -> bool {
        self.seed.is_multiple_of(LONG) && !self.seed.is_multiple_of(CROWDED)
    }

    /// Several records at once: all of it is there, or nothing.
    fn edit_together(&mut self, nth: usize) {
        let writes = (0..2 + self.rng.below(3)).map(|_| self.any_write(nth)).collect();
        match self.devices[nth].node.ledger.write_all(writes, &app()) {
            Ok(receipt) => {
                self.devices[nth].promised.extend(receipt.events.into_iter().map(|(id, _)| id));
                self.note("batches");
            }
            Err(fault) if is_of_disk(&fault) => self.reopen_device(nth),
            Err(_) => {}
        }
    }

    /// More than one batch of a session holds, on records of its own.
    fn edit_much(&mut self, nth: usize) {
        let Device { name, node, .. } = &self.devices[nth];
        let first = node.ledger.position();
        let value = |number: usize| Act::Put(json!({ "owner": name, "number": number }));
        let writes = (0..MUCH).map(|number| Write::new("notes", format!("{name}-{first}-{number}"), value(number)));
        if let Ok(receipt) = node.ledger.write_all(writes.collect(), &app()) {
            self.devices[nth].promised.extend(receipt.events.into_iter().map(|(id, _)| id));
            self.note("long logs");
        }
    }

    fn any_write(&mut self, nth: usize) -> Write {
        let collection = match (self.devices[nth].rights, self.rng.below(12)) {
            // Beyond its rights now and then.
            (_, 0) => "secret",
            (Rights::Notes, _) | (_, 1..6) => "notes",
            _ => "tasks",
        };
        let key = format!("k{}", self.rng.below(6));
        let act = self.any_act(nth);
        Write::new(collection, key, act)
    }

    fn any_act(&mut self, nth: usize) -> Act {
        let path = |text: &str| Path::parse(text).unwrap();
        let number = self.rng.below(1_000);
        match self.rng.below(12) {
            0 => Act::Delete,
            1 => Act::Edit(vec![Edit::Increment(path("/count"), 1 + number as i64 % 3)]),
            2 => Act::Edit(vec![Edit::SetAdd(path("/labels"), json!(format!("l{}", number % 5)))]),
            3 => Act::Edit(vec![Edit::SetRemove(path("/labels"), json!(format!("l{}", number % 5)))]),
            4..7 => Act::Put(self.any_value(nth, number)),
            _ => Act::Patch(self.any_value(nth, number)),
        }
    }

    fn any_value(&mut self, nth: usize, number: usize) -> Json {
        let mine = self.devices[nth].name.clone();
        let owner = if self.rng.one_in(3) { self.rng.pick(&self.devices).name.clone() } else { mine };
        let field = format!("field{}", self.rng.below(3));
        json!({ "owner": owner, field: number })
    }

    fn settle(&mut self, nth: usize) {
        let ledger = &self.devices[nth].node.ledger;
        let Some(first) = ledger.conflicts(None, Which::Open, None).unwrap().into_iter().next() else { return };
        match ledger.resolve(first.conflict.id, Settlement::Take(0), None, &app()) {
            Ok(receipt) => {
                self.devices[nth].promised.extend(receipt.events.into_iter().map(|(id, _)| id));
                self.note("settled conflicts");
            }
            Err(fault) if is_of_disk(&fault) => self.reopen_device(nth),
            Err(_) => {}
        }
    }

    // Lines.

    fn connect(&mut self, nth: usize) {
        if self.devices[nth].line.is_some() || self.devices[nth].is_revoked {
            return;
        }
        let follows = !self.rng.one_in(4);
        let narrows: &[&str] = if self.rng.one_in(6) { &["notes"] } else { &[] };
        let ways = if self.rng.one_in(12) { Ways::Push } else { Ways::Both };
        if self.rng.one_in(5) {
            self.send_refused_again(nth);
        }
        if self.rng.one_in(8) {
            self.devices[nth].client.try_now();
        }
        self.open_line(nth, ways, narrows, follows);
    }

    /// Somebody has the client try once more what was refused.
    pub fn send_refused_again(&mut self, nth: usize) {
        let count = self.devices[nth].client.retry(&[]).unwrap();
        if count > 0 {
            self.note("refused sent again");
        }
    }

    pub fn open_line(&mut self, nth: usize, ways: Ways, collections: &[&str], follows: bool) {
        match self.attempt(nth, ways, collections, follows) {
            Ok(line) => self.devices[nth].line = Some(line),
            Err(fault) if fault.kind() == ErrorKind::CircuitOpen => self.note("open circuits"),
            Err(fault) => assert!(is_of_disk(&fault), "{fault}"),
        }
    }

    fn attempt(&mut self, nth: usize, ways: Ways, collections: &[&str], follows: bool) -> Result<Line> {
        let edge = Some(self.devices[nth].edge(&self.writers));
        let wants = Some(Filter::default());
        let of_server = SessionOptions { sends: true, wants, follows: true, edge, ..SessionOptions::default() };
        self.stamp_again(nth)?;
        let device = self.devices[nth].client.drive(ways, collections, follows)?;
        Ok(Line::open(self.server.ledger.session(&of_server)?, device, follows))
    }

    fn stamp_again(&mut self, nth: usize) -> Result<()> {
        let device = &mut self.devices[nth];
        let Some(done) = device.client.prepare()? else { return Ok(()) };
        device.may_hold_parts = true;
        for event in &mut device.promised {
            *event = done.stamped.get(event).copied().unwrap_or(*event);
        }
        self.note("stamped again");
        Ok(())
    }

    /// Delivers some messages on any lines, in any order among these.
    fn deliver_some(&mut self) {
        // Often so few that something is still under way when a line is cut.
        let most = *self.rng.pick(&[3, 12, 60]);
        for _ in 0..1 + self.rng.below(most) {
            let nth = self.rng.below(self.devices.len());
            match self.rng.below(5) {
                0 => self.deliver_given_up(nth),
                1 | 2 => _ = self.deliver(nth, SERVER),
                _ => _ = self.deliver(nth, DEVICE),
            }
        }
    }

    /// Delivers the next message on a device's line. Whether there was any.
    pub fn deliver(&mut self, nth: usize, side: usize) -> bool {
        let device = &mut self.devices[nth];
        let Some(line) = &mut device.line else { return false };
        let was = line.deliver(side);
        bind(&self.writers, line, &device.name);
        if line.is_ended() {
            self.end(nth);
        }
        was
    }

    /// What a line came to that has ended on both sides.
    fn end(&mut self, nth: usize) {
        let Some(line) = self.devices[nth].line.take() else { return };
        let (of_server, of_device) = line.finish();
        for fault in of_server.err().into_iter().chain(of_device.err()) {
            self.note(&format!("ended: {}", fault.code()));
            if fault.kind() == ErrorKind::Timeout {
                self.note("timeouts");
            }
        }
    }

    fn deliver_given_up(&mut self, nth: usize) {
        let device = &mut self.devices[nth];
        for line in &mut device.given_up {
            if line.deliver(SERVER) {
                bind(&self.writers, line, &device.name);
            }
        }
        device.given_up.retain(|line| !line.under_way[SERVER].is_empty() && !line.server.is_ended());
    }

    /// Cuts a line. The server may not have noticed, and hears what is under way.
    pub fn cut(&mut self, nth: usize) {
        if let Some(line) = &mut self.devices[nth].line {
            line.give_up();
        }
        self.drop_line(nth);
    }

    fn drop_line(&mut self, nth: usize) {
        let device = &mut self.devices[nth];
        let Some(line) = device.line.take() else { return };
        device.stale = line.under_way.each_ref().map(|words| words.iter().cloned().collect());
        if self.rng.one_in(2) {
            device.given_up.push(line);
            self.note("given up lines");
        }
        self.note("cut lines");
    }

    /// What was under way on a line that was cut arrives on the next one.
    fn inject_stale(&mut self, nth: usize) {
        let device = &mut self.devices[nth];
        let Some(line) = device.line.as_mut().filter(|_| self.seed.is_multiple_of(HOSTILE)) else { return };
        let [to_server, to_device] = std::mem::take(&mut device.stale);
        to_server.iter().for_each(|bytes| line.hear(SERVER, bytes));
        to_device.iter().for_each(|bytes| line.hear(DEVICE, bytes));
        if !to_server.is_empty() || !to_device.is_empty() {
            self.note("stale frames");
        }
    }

    /// Tells both ends of lines that their logs may have grown, now and then.
    fn grow(&mut self) {
        for nth in 0..self.devices.len() {
            if self.rng.one_in(3)
                && let Some(line) = &mut self.devices[nth].line
            {
                line.grown(SERVER);
                line.grown(DEVICE);
            }
        }
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms;
        for nth in 0..self.devices.len() {
            if let Some(line) = &mut self.devices[nth].line {
                line.tick(now_ms);
                if line.is_ended() {
                    self.end(nth);
                }
            }
        }
    }

    // Faults.

    fn crash_device(&mut self, nth: usize) {
        if self.rng.one_in(2) {
            self.fail_next_write_of(nth);
            self.edit(nth);
        }
        self.reopen_device(nth);
    }

    /// The next commit is cut off between writing and acknowledging.
    fn fail_next_write_of(&mut self, nth: usize) {
        let faults = self.any_fault();
        self.devices[nth].node.machine.set_faults(faults);
        self.note("unacknowledged edits");
    }

    fn any_fault(&mut self) -> Faults {
        let keep_unacknowledged = self.rng.one_in(2);
        match self.rng.below(6) {
            0 => {
                self.note("full disks");
                Faults { disk_full: true, ..Faults::default() }
            }
            1 => {
                self.note("failed writes");
                Faults { fail_write: Some(1), ..Faults::default() }
            }
            _ => Faults { fail_flush: Some(1), keep_unacknowledged, ..Faults::default() },
        }
    }

    pub fn reopen_device(&mut self, nth: usize) {
        self.devices[nth].crash();
        if !self.devices[nth].may_hold_parts {
            self.check_batches(&self.devices[nth].node.ledger);
        }
        self.flip_a_bit(nth);
        if let Some(line) = &mut self.devices[nth].line {
            line.lose_device();
        }
        self.drop_line(nth);
        self.note("crashes of devices");
    }

    fn crash_server(&mut self) {
        if self.rng.one_in(2) {
            let faults = self.any_fault();
            self.server.machine.set_faults(faults);
            // What comes now may be written, and is not acknowledged.
            self.deliver_some();
        }
        self.reopen_server();
    }

    pub fn reopen_server(&mut self) {
        for nth in 0..self.devices.len() {
            self.cut(nth);
            self.devices[nth].given_up.clear();
        }
        self.server.crash();
        self.check_batches(&self.server.ledger);
        self.note("crashes of the server");
    }

    fn copy_disk(&mut self, nth: usize) {
        self.devices[nth].image = Some(self.devices[nth].copy_disk());
    }

    /// An older copy of the device's disk takes its place: what was not on the server is gone, as everybody who does that knows.
    fn restore_disk(&mut self, nth: usize) {
        if self.devices[nth].image.is_none() && !self.devices[nth].is_revoked {
            self.copy_disk(nth);
            (0..3).for_each(|_| self.edit(nth));
            self.sync_whole(nth);
        }
        let Some(mut disk) = self.devices[nth].image.take() else { return };
        disk.promised = self.still_promised(disk.promised);
        self.cut(nth);
        // What is under way from the old one may still arrive: let it, so that it is known what is gone.
        while !self.devices[nth].given_up.is_empty() {
            self.deliver_given_up(nth);
        }
        let on_server = self.server.events();
        let device = &mut self.devices[nth];
        let promised = device.restore(disk);
        device.promised.extend(promised.into_iter().filter(|event| on_server.contains(event)));
        self.note("restored devices");
        // As many as are gone, perhaps: other events at the same positions.
        (0..self.rng.below(12)).for_each(|_| self.edit(nth));
    }

    fn change_rights(&mut self, nth: usize) {
        if nth < 2 {
            return;
        }
        self.cut(nth);
        self.devices[nth].given_up.clear();
        self.devices[nth].rights = *self.rng.pick(&[Rights::Full, Rights::Own, Rights::Notes]);
        self.note("changed rights");
    }

    fn revoke(&mut self, nth: usize) {
        if nth < 2 {
            return;
        }
        if let Some(line) = &mut self.devices[nth].line {
            let said = line.server.fail(Error::new(ErrorKind::Authentication, "the device was revoked"));
            line.say(SERVER, said);
        }
        self.devices[nth].given_up.clear();
        self.devices[nth].is_revoked = true;
        self.note("revoked devices");
    }

    fn mend_clock(&mut self, nth: usize) {
        self.devices[nth].skew_ms = 0;
    }
}

/// Remembers under which writer the device stamps, as the server does.
fn bind(writers: &Writers, line: &Line, device: &str) {
    if let Some(writer) = line.server.replica() {
        writers.bind(writer, device);
    }
}

/// Edits a record; makes it where there is none. Returns the events that were acknowledged.
fn edit(ledger: &Ledger, write: Write, context: &Context) -> Result<Vec<EventId>> {
    let put = Write { act: Act::Put(json!({ "owner": "nobody" })), ..write.clone() };
    let receipt = match ledger.write(write, context) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => ledger.write(put, context),
        other => other,
    };
    Ok(receipt?.events.into_iter().map(|(id, _)| id).collect())
}

/// Whether the store has to be opened again.
pub fn is_of_disk(fault: &Error) -> bool {
    matches!(fault.kind(), ErrorKind::Storage | ErrorKind::Cancelled)
}
