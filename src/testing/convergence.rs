//! Whether replicas that hold the same events show the same under a policy, and its custom strategies with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{History, Network, Replica, Rng};
use crate::event::EventId;
use crate::projection::{Dispute, Policy, Projection, Resolvers, Strategy, Verdict};

/// How to look for a divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convergence {
    /// The seed of the first history.
    pub seed: u64,
    /// How many histories.
    pub cases: u64,
    /// How many replicas get each.
    pub replicas: usize,
}

impl Default for Convergence {
    fn default() -> Self {
        Self { seed: 1, cases: 60, replicas: 3 }
    }
}

/// What was met on the way: a check that met no dispute has shown nothing of a custom strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Histories.
    pub cases: u64,
    /// Conflicts at their ends.
    pub conflicts: u64,
    /// Different disputes that custom strategies were asked to decide.
    pub disputes: u64,
}

/// What an answer seems to depend on beside the dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Chance: it differs when it is asked twice at once.
    Chance,
    /// The clock: it differs when it is asked later.
    Clock,
    /// What it was asked before, and so the order in which events arrived.
    Order,
    /// None of its own: the replicas show different records. A fault of this crate.
    Unknown,
}

/// Two replicas that hold the same events disagree, or would.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// What it seems to come from.
    pub cause: Cause,
    /// The seed of the history.
    pub seed: u64,
    /// The custom strategy, where one is at fault.
    pub strategy: Option<String>,
    /// The dispute that it answered in two ways.
    pub dispute: Option<Dispute>,
    /// Two answers, or what two replicas show.
    pub answers: [String; 2],
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.answers;
        let (Some(name), Some(dispute)) = (&self.strategy, &self.dispute) else {
            return write!(f, "replicas of history {} show different records: {first} and {second}", self.seed);
        };
        let why = match self.cause {
            Cause::Chance => "asked twice at once, so it depends on chance",
            Cause::Clock => "asked again later, so it depends on the clock",
            _ => "asked after other disputes, so it depends on the order in which events arrive",
        };
        let (path, seed) = (&dispute.path, self.seed);
        write!(f, "custom strategy `{name}` says both {first} and {second} of {path} in history {seed}: {why}; ")?;
        f.write_str("it must be a function of the dispute alone")
    }
}

impl std::error::Error for Divergence {}

/// Checks that replicas show the same under a policy without custom strategies.
///
/// # Panics
/// Where they do not.
pub fn assert_convergent(policy: &Policy) {
    assert_convergent_with(policy, Resolvers::default);
}

/// Checks that replicas show the same under a policy, whose custom strategies `resolvers` registers: anew for each
/// replica, as each is a program of its own. What they keep in a `static` all replicas share, which hides it here.
///
/// Takes about a second. A strategy that compares a candidate's time with the clock is caught where it looks for about a
/// second, minute, hour, day, week, month or year, or at the milliseconds.
///
/// # Panics
/// Where they do not, or where a custom strategy of the policy was never asked.
pub fn assert_convergent_with(policy: &Policy, resolvers: impl Fn() -> Resolvers) {
    match Convergence::default().check(policy, resolvers) {
        Ok(met) => {
            let asked = custom_names(policy).is_empty() || met.disputes > 0;
            assert!(asked, "the policy's custom strategies were never asked: does it cover the fields of histories?");
        }
        Err(divergence) => panic!("{divergence}"),
    }
}

fn custom_names(policy: &Policy) -> Vec<String> {
    let strategies = policy.fields.values().chain([&policy.default]);
    let mut names: Vec<String> = strategies
        .filter_map(|strategy| match strategy {
            Strategy::Custom(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// How old the candidates of a history are, in milliseconds, when its replicas first ask: soon after they are older.
const AGES: [i64; 8] = [0, 1_000, 60_000, 3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000, 365 * 86_400_000];

/// How much later all disputes are decided again: all candidates of a history are made within less.
const LATER: Duration = Duration::from_millis(400);

/// What a strategy was asked, and answered.
#[derive(Clone)]
struct Asked {
    strategy: String,
    dispute: Dispute,
    answer: String,
    seed: u64,
}

type Log = Arc<Mutex<Vec<Asked>>>;

impl Convergence {
    /// Looks for a divergence.
    ///
    /// # Errors
    /// The first that is found.
    ///
    /// # Panics
    /// When a valid event is refused: a fault of this crate.
    pub fn check(&self, policy: &Policy, resolvers: impl Fn() -> Resolvers) -> Result<Met, Box<Divergence>> {
        let (mut met, mut answers) = (Met::default(), Answers::default());
        for seed in self.seed..self.seed.saturating_add(self.cases) {
            met.cases += 1;
            met.conflicts += self.case(seed, policy, &resolvers, &mut answers)?;
        }
        if !answers.0.is_empty() {
            std::thread::sleep(LATER);
            answers.again(&resolvers)?;
        }
        met.disputes = answers.0.len() as u64;
        Ok(met)
    }

    /// Delivers a history to all replicas, and compares what they show at the end. Returns how many conflicts.
    fn case(
        &self,
        seed: u64,
        policy: &Policy,
        resolvers: &impl Fn() -> Resolvers,
        answers: &mut Answers,
    ) -> Result<u64, Box<Divergence>> {
        let rng = &mut Rng::new(seed ^ 0x0de1_17e5);
        let history = History::starting_at(seed, now_ms() - AGES[(seed % AGES.len() as u64) as usize]);
        let logs: Vec<Log> = (0..self.replicas).map(|_| Log::default()).collect();
        let registries: Vec<Resolvers> = logs.iter().map(|log| recording(policy, resolvers(), seed, log)).collect();
        let mut network = Network::new(self.replicas);
        let ask = |replica: &mut Replica, to: usize, rng: &mut Rng| {
            // A ledger projects after each commit, which may hold one event or many.
            if rng.one_in(3) {
                replica.project(policy, &registries[to]);
            }
        };
        for (n, (id, event)) in history.events.iter().enumerate() {
            network.make(rng.below(self.replicas), *id, event);
            match n % 9 {
                3 => network.partition(rng),
                7 => network.heal(),
                _ => {}
            }
            for _ in 0..rng.below(4) {
                if let Some(to) = network.deliver_one(rng) {
                    ask(&mut network.replicas[to], to, rng);
                }
            }
        }
        let chance = &mut rng.clone();
        network.settle(rng, |replica, to| ask(replica, to, chance));
        let seen = |(replica, registry): (&mut Replica, &Resolvers)| shown(replica, policy, registry);
        let shown: Vec<Shown> = network.replicas.iter_mut().zip(&registries).map(seen).collect();
        logs.iter().try_for_each(|log| answers.add(log, 0, resolvers))?;
        // Once more, in the reverse order: a strategy that remembers has others to remember now.
        for asked in logs.iter().flat_map(entries).rev() {
            let place = entries(&logs[0]).len();
            answer(&registries[0], &asked.strategy, &asked.dispute);
            answers.add(&logs[0], place, resolvers)?;
        }
        match shown.iter().find(|other| **other != shown[0]) {
            Some(other) => Err(unlike(seed, &shown[0], other)),
            None => Ok(shown.first().map_or(0, |shown| shown.0.conflicts.len() as u64)),
        }
    }
}

/// What a replica shows, with events by their ids.
type Shown = (Projection, Vec<(String, Option<EventId>)>);

fn shown(replica: &mut Replica, policy: &Policy, resolvers: &Resolvers) -> Shown {
    let mut projection = replica.project(policy, resolvers);
    let graph = replica.document.graph();
    let blame = std::mem::take(&mut projection.blame).into_iter();
    let by_id =
        blame.map(|line| (line.path.to_string(), line.node.and_then(|ix| graph.node(ix)).map(|node| node.id)));
    let by_id = by_id.collect();
    (projection, by_id)
}

fn unlike(seed: u64, first: &Shown, second: &Shown) -> Box<Divergence> {
    let text = |shown: &Shown| crate::event::json::canonical(&shown.0.content.json);
    let answers = [text(first), text(second)];
    Box::new(Divergence { cause: Cause::Unknown, seed, strategy: None, dispute: None, answers })
}

/// The custom strategies of a policy, each of which also writes down what it is asked and answers.
fn recording(policy: &Policy, resolvers: Resolvers, seed: u64, log: &Log) -> Resolvers {
    let mut recording = Resolvers::default();
    for name in custom_names(policy).into_iter().filter(|name| resolvers.contains(name)) {
        let (resolvers, strategy, log) = (resolvers.clone(), name.clone(), Arc::clone(log));
        recording.register(name, move |dispute| {
            let verdict = resolvers.decide(&strategy, dispute);
            let (strategy, dispute, answer) = (strategy.clone(), dispute.clone(), format!("{verdict:?}"));
            let asked = Asked { strategy, dispute, answer, seed };
            log.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            verdict.unwrap_or(Verdict::Undecided)
        });
    }
    recording
}

fn answer(resolvers: &Resolvers, strategy: &str, dispute: &Dispute) -> String {
    format!("{:?}", resolvers.decide(strategy, dispute))
}

fn entries(log: &Log) -> Vec<Asked> {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A replica's answer, and where it stands among all that the replica was asked.
struct Answer {
    asked: Asked,
    log: Log,
    place: usize,
}

impl Answer {
    /// Whether a strategy that knows nothing yet gives this answer when it is asked all that this one was asked before.
    fn is_given_again(&self, resolvers: &impl Fn() -> Resolvers) -> bool {
        let (fresh, log, mut last) = (resolvers(), entries(&self.log), None);
        for asked in log.iter().take(self.place + 1) {
            last = Some(answer(&fresh, &asked.strategy, &asked.dispute));
        }
        last.as_ref() == Some(&self.asked.answer)
    }
}

/// The first answer to each dispute.
#[derive(Default)]
struct Answers(BTreeMap<(String, String), Answer>);

impl Answers {
    /// Compares what a replica answered, from a place of its log on, with what was answered before.
    fn add(&mut self, log: &Log, from: usize, resolvers: &impl Fn() -> Resolvers) -> Result<(), Box<Divergence>> {
        let asked = entries(log).into_iter().enumerate().skip(from);
        asked.map(|(place, asked)| Answer { asked, log: Arc::clone(log), place }).try_for_each(|answer| {
            let name = (answer.asked.strategy.clone(), format!("{:?}", answer.asked.dispute));
            match self.0.get(&name) {
                None => drop(self.0.insert(name, answer)),
                Some(first) if first.asked.answer == answer.asked.answer => {}
                Some(first) => {
                    let again = || first.is_given_again(resolvers) && answer.is_given_again(resolvers);
                    let cause = match cause_of_its_own(&first.asked, resolvers) {
                        Some(cause) => cause,
                        None if again() => Cause::Order,
                        None => Cause::Clock,
                    };
                    return Err(differing(&first.asked, &answer.asked.answer, cause));
                }
            }
            Ok(())
        })
    }

    /// Asks everything again, of strategies that know nothing yet.
    fn again(&self, resolvers: &impl Fn() -> Resolvers) -> Result<(), Box<Divergence>> {
        for Answer { asked, .. } in self.0.values() {
            let answer = answer(&resolvers(), &asked.strategy, &asked.dispute);
            if answer != asked.answer {
                // Nobody asked anything before: if it is not chance, only time has passed.
                let cause = cause_of_its_own(asked, resolvers).unwrap_or(Cause::Clock);
                return Err(differing(asked, &answer, cause));
            }
        }
        Ok(())
    }
}

fn differing(asked: &Asked, second: &str, cause: Cause) -> Box<Divergence> {
    let answers = [asked.answer.clone(), second.to_owned()];
    let (strategy, dispute) = (Some(asked.strategy.clone()), Some(asked.dispute.clone()));
    Box::new(Divergence { cause, seed: asked.seed, strategy, dispute, answers })
}

/// What makes a strategy that knows nothing yet answer in two ways, if anything does: being asked twice at once, or a
/// little later.
fn cause_of_its_own(asked: &Asked, resolvers: &impl Fn() -> Resolvers) -> Option<Cause> {
    let burst = |pause: u64| -> Vec<String> {
        std::thread::sleep(Duration::from_millis(pause));
        let fresh: Vec<Resolvers> = (0..BURST).map(|_| resolvers()).collect();
        fresh.iter().map(|fresh| answer(fresh, &asked.strategy, &asked.dispute)).collect()
    };
    let bursts = [0, 1, 1, 2, 3, 5].map(burst);
    let is_mixed = |answers: &&Vec<String>| answers.iter().any(|answer| *answer != answers[0]);
    // A clock may tick within a burst, but hardly within most of them.
    if bursts.iter().filter(is_mixed).count() > 3 {
        return Some(Cause::Chance);
    }
    bursts.iter().any(|answers| answers.last() != bursts[0].last()).then_some(Cause::Clock)
}

/// How often a strategy is asked at once.
const BURST: usize = 12;

#[expect(clippy::disallowed_methods, reason = "what depends on the clock is found by the clock")]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
