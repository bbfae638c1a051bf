//! The simulation and the comparisons of the integration tests, for as many seeds as one likes, on all cores.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;
use crate::arguments::Arguments;
use crate::histories::{History, Rng};
use crate::tally::Tally;
use crate::{naive, oracle, reference, simulation};

/// One seed in so many is simulated twice, to see that it has one history.
const TWICE: u64 = 50;
/// One history in so many is also derived by transactions on forks, which takes as long as all else.
const FORKED: u64 = 10;
/// So often one hears how far it is.
const TOLD: u64 = 5_000;

/// What a seed came to: what was counted, and how often.
type Counted = BTreeMap<String, u64>;

/// Simulates seeds. Whether all of them held.
pub fn simulate(arguments: &Arguments) -> Result<bool> {
    run("simulation", arguments, |seed| {
        let (mut happened, trace) = simulation::simulate(seed);
        if seed.is_multiple_of(TWICE) {
            assert_eq!(
                (&happened, &trace),
                (&simulation::simulate(seed).0, &simulation::simulate(seed).1),
                "another history"
            );
            happened.insert("simulated again".to_owned(), 1);
        }
        happened
    })
}

/// Compares histories in the register state, both Automerges and the naive model. Whether all were the same.
pub fn differential(arguments: &Arguments) -> Result<bool> {
    run("differential", arguments, |seed| {
        let (history, mut rng) = (History::new(seed), Rng::new(seed ^ 0xca5e));
        let mut held = naive::compare(&history, &mut rng);
        held.extend(oracle::compare(&history, &mut rng));
        let mut counted = counted(&held);
        counted.insert("events".to_owned(), history.events.len() as u64);
        if seed.is_multiple_of(FORKED) {
            reference::compare(&history, &mut rng);
            counted.insert("derived by transactions, too".to_owned(), 1);
        }
        counted
    })
}

fn counted(held: &BTreeSet<&'static str>) -> Counted {
    held.iter().map(|what| (format!("with {what}"), 1)).collect()
}

/// Runs a body for the seeds from `--from`, `--seeds` of them.
fn run(name: &'static str, arguments: &Arguments, body: impl Fn(u64) -> Counted + Sync) -> Result<bool> {
    let (from, seeds) = (arguments.number("from")?.unwrap_or(1), arguments.number("seeds")?.unwrap_or(1_000));
    let threads = arguments
        .number("at-once")?
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let (next, tally) = (AtomicU64::new(from), Mutex::new(Tally::begin(name, 0, from)));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < from + seeds)
                {
                    let outcome = catch_unwind(AssertUnwindSafe(|| body(seed)));
                    note(name, &tally, seed, outcome.ok());
                }
            });
        }
    });
    tally.into_inner().map_err(|_| "a thread failed")?.end(arguments)
}

/// A failure has been told by the panic itself.
fn note(name: &str, tally: &Mutex<Tally>, seed: u64, counted: Option<Counted>) {
    let Ok(mut tally) = tally.lock() else { return };
    tally.runs += 1;
    match counted {
        Some(counted) => counted.iter().for_each(|(what, times)| tally.count(what, *times)),
        None => tally.problem(&format!("seed {seed}: campaigns {name} --from {seed} --seeds 1")),
    }
    if tally.runs.is_multiple_of(TOLD) {
        println!("{name}: {} seeds", tally.runs);
    }
}
