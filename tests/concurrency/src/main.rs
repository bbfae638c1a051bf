//! Tries orders of threads on the real code: half of them by chance, half with few changes of the thread at chosen moments (PCT).
//! Each scenario fails where what it promises does not hold, or where nobody can go on.

mod hand;
mod scenarios;

use std::process::ExitCode;
use std::time::Instant;

use scenarios::{SCENARIOS, Scenario};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// How often the PCT scheduler changes the thread on purpose, at most.
const DEPTH: usize = 3;
/// How many schedules are tried where nobody says how many.
const SCHEDULES: usize = 2_000;

/// What is asked for on the command line.
struct Asked {
    schedules: usize,
    seed: u64,
    only: Option<String>,
    replay: Option<(String, String)>,
}

fn asked() -> Option<Asked> {
    let from_env = std::env::var("SYNCLEDGER_CASES").ok();
    let schedules = from_env.map_or(Some(SCHEDULES), |text| text.parse().ok())?;
    let mut asked = Asked { schedules, seed: 1, only: None, replay: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => asked.seed = words.next()?.parse().ok()?,
            "--only" => asked.only = Some(words.next()?),
            "--replay" => asked.replay = Some((words.next()?, words.next()?)),
            number => asked.schedules = number.parse().ok()?,
        }
    }
    Some(asked)
}

fn config() -> Config {
    let mut config = Config::new();
    // Documents need more room than the default.
    config.stack_size = 512 << 10;
    config.max_steps = MaxSteps::FailAfter(200_000);
    config.silence_warnings = true;
    config
}

fn run(scheduler: impl Scheduler + 'static, scenario: Scenario) -> usize {
    Runner::new(scheduler, config()).run(scenario)
}

/// Tries one scenario. Returns how many schedules there were.
fn try_out(scenario: Scenario, schedules: usize, seed: u64) -> usize {
    let by_chance = schedules / 2;
    let tried = run(RandomScheduler::new_from_seed(seed, by_chance), scenario);
    tried + run(PctScheduler::new_from_seed(seed, DEPTH, schedules - by_chance), scenario)
}

fn main() -> ExitCode {
    let Some(asked) = asked() else {
        eprintln!("usage: tests/concurrency/run [SCHEDULES] [--seed S] [--only NAME] [--replay NAME SCHEDULE]");
        return ExitCode::FAILURE;
    };
    if let Some((name, schedule)) = &asked.replay {
        let found = SCENARIOS.iter().find(|(known, _)| known == name);
        let (_, scenario) = found.expect("a scenario has this name");
        let scheduler = shuttle::scheduler::ReplayScheduler::new_from_encoded(schedule);
        run(scheduler, *scenario);
        return ExitCode::SUCCESS;
    }
    let chosen = SCENARIOS.iter().filter(|(name, _)| asked.only.as_deref().is_none_or(|only| only == *name));
    let chosen: Vec<_> = chosen.collect();
    let each = asked.schedules.div_ceil(chosen.len().max(1)).max(2);
    let (mut total, begun) = (0, Instant::now());
    for (name, scenario) in chosen {
        let started = Instant::now();
        eprintln!("{name}, seed {}", asked.seed);
        let tried = try_out(*scenario, each, asked.seed);
        total += tried;
        println!("{name}: {tried} schedules, {:.1} s", started.elapsed().as_secs_f64());
    }
    println!("{total} schedules, seed {}: nothing failed; {:.0} s", asked.seed, begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
