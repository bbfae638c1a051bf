//! Devices and a server in one thread, from one seed: the clients, the sessions, the ledgers and the edge are the real ones; time, chance,
//! disks and lines are not. Everything goes wrong; then it is mended, and everybody has to hold the same.

mod device;
mod governing;
mod healing;
mod line;
mod watching;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use world::World;

/// How many seeds are run, unless `SYNCLEDGER_CASES` says otherwise.
const SEEDS: u64 = 500;
/// What has to have happened in all these runs together: a simulation in which nothing goes wrong shows nothing.
pub const WANTED: [&str; 31] = [
    "edits",
    "long logs",
    "cut lines",
    "given up lines",
    "stale frames",
    "crashes of devices",
    "crashes of the server",
    "unacknowledged edits",
    "restored devices",
    "changed rights",
    "revoked devices",
    "timeouts",
    "open circuits",
    "settled conflicts",
    "stamped again",
    "refused sent again",
    "refused: clock_ahead",
    "refused: permission",
    "refused: conflict",
    "refused: consistency",
    "batches",
    "full disks",
    "failed writes",
    "flipped bits",
    "policies",
    "schemas",
    "migrations",
    "backups",
    "restored servers",
    "equal digests",
    "different digests",
];

/// What happened, and how often.
pub type Happened = BTreeMap<String, u64>;

/// Runs the world of a seed. What happened in it, and a hash of all that its ledgers hold at the end.
///
/// # Panics
/// Where anything is not as promised.
pub fn simulate(seed: u64) -> (Happened, String) {
    let mut world = World::new(seed);
    world.run();
    world.heal();
    world.check();
    let trace = world.trace();
    (world.happened, trace)
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn simulate_or_tell(seed: u64) -> Happened {
    match catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
        Ok((happened, _)) => happened,
        Err(panic) => {
            eprintln!("the simulation of seed {seed} fails: run it again with SYNCLEDGER_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

fn add(all: &Mutex<Happened>, happened: Happened) {
    let mut all = all.lock().unwrap();
    happened.into_iter().for_each(|(what, times)| *all.entry(what).or_default() += times);
}

#[test]
fn devices_and_a_server_that_everything_befell_hold_the_same_once_it_is_mended() {
    let only = from_env("SYNCLEDGER_SEED");
    let seeds = only.map_or(1..=from_env("SYNCLEDGER_CASES").unwrap_or(SEEDS), |seed| seed..=seed);
    let all = Mutex::new(Happened::new());
    std::thread::scope(|scope| {
        for part in 0..2 {
            let seeds = seeds.clone().filter(move |seed| seed % 2 == part);
            scope.spawn(|| seeds.for_each(|seed| add(&all, simulate_or_tell(seed))));
        }
    });
    let all = all.into_inner().unwrap();
    println!("{all:#?}");
    let missing: Vec<_> = WANTED.iter().filter(|what| !all.contains_key(**what)).collect();
    assert!(only.is_some() || missing.is_empty(), "this never happened: {missing:?}");
}

#[test]
fn a_seed_has_one_history() {
    for seed in 1..=12 {
        assert_eq!(simulate(seed), simulate(seed), "seed {seed}");
    }
}

/// Seeds that failed once.
#[test]
fn seeds_that_failed_once_hold() {
    for seed in [] {
        simulate_or_tell(seed);
    }
}
