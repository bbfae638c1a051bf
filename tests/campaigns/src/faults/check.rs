//! Whether a history is one of replicas that lose nothing, double nothing, show nothing stale, and end alike.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{End, Operation, What};

/// The rejection of an edit that a device may not make.
const FORBIDDEN: &str = "permission";

/// What is wrong with a history, whose operations are in the order in which they began. Those at one replica were done one
/// after another.
pub fn check(history: &[Operation]) -> Vec<String> {
    let tried = Tried::of(history);
    let mut problems = in_session(history, &tried);
    let ends: Vec<(&str, &End)> = history.iter().filter_map(ended).collect();
    for (replica, end) in &ends {
        let found =
            [added(end, &tried), registered(end, &tried), counted(end, &tried), refused(replica, end, &tried)];
        problems.extend(found.into_iter().flatten().map(|problem| format!("{replica}: {problem}")));
    }
    problems.extend(diverging(&ends));
    problems
}

fn ended(operation: &Operation) -> Option<(&str, &End)> {
    match &operation.what {
        What::Ended(end) => Some((&operation.replica, end)),
        _ => None,
    }
}

/// What was tried.
#[derive(Default)]
struct Tried<'a> {
    /// Records, and whether their edit was acknowledged.
    added: BTreeMap<&'a str, bool>,
    /// For each replica the records that it may not add, and whether their edit was acknowledged.
    forbidden: BTreeMap<(&'a str, &'a str), bool>,
    /// For each register its numbers: when each began to be written, and whether that was acknowledged.
    numbers: BTreeMap<&'a str, BTreeMap<u64, (u64, bool)>>,
    /// By how much each count was raised: acknowledged, and at all.
    counts: BTreeMap<&'a str, (u64, u64)>,
}

impl<'a> Tried<'a> {
    fn of(history: &'a [Operation]) -> Self {
        let mut tried = Self::default();
        for operation in history {
            let replica = operation.replica.as_str();
            match &operation.what {
                What::Edited { key, number, by, is_acknowledged } => {
                    tried.added.insert(key, *is_acknowledged);
                    let numbers = tried.numbers.entry(replica).or_default();
                    numbers.insert(*number, (operation.began_us, *is_acknowledged));
                    let count = tried.counts.entry(replica).or_default();
                    *count = (count.0 + if *is_acknowledged { *by } else { 0 }, count.1 + by);
                }
                What::Trespassed { key, is_acknowledged } => {
                    tried.forbidden.insert((replica, key), *is_acknowledged);
                }
                What::Read { .. } | What::Ended(_) => {}
            }
        }
        tried
    }

    /// The last number of a register that was acknowledged; 0 where none was.
    fn last(&self, register: &str) -> u64 {
        let numbers = self.numbers.get(register).into_iter().flatten();
        numbers.filter(|(_, (_, is_acknowledged))| *is_acknowledged).map(|(number, _)| *number).max().unwrap_or(0)
    }
}

/// Each replica shows what was written there, and goes back on nothing that it has shown.
fn in_session(history: &[Operation], tried: &Tried) -> Vec<String> {
    let (mut least, mut problems) = (BTreeMap::new(), Vec::new());
    for operation in history {
        let replica = operation.replica.as_str();
        match &operation.what {
            What::Edited { number, is_acknowledged: true, .. } => drop(least.insert((replica, replica), *number)),
            What::Read { register, shown } => {
                let least = least.entry((replica, register.as_str())).or_default();
                let number = shown.unwrap_or(0);
                if number < *least {
                    problems.push(format!("{replica}: stale: {register} shows {shown:?} after {least}"));
                }
                if shown.is_some() && !was_begun(tried, register, number, operation.ended_us) {
                    problems.push(format!("{replica}: {register} shows {number}, which nobody had written"));
                }
                *least = number.max(*least);
            }
            _ => {}
        }
    }
    problems
}

fn was_begun(tried: &Tried, register: &str, number: u64, by_us: u64) -> bool {
    let begun = tried.numbers.get(register).and_then(|numbers| numbers.get(&number));
    begun.is_some_and(|(began_us, _)| *began_us <= by_us)
}

/// Every record that was acknowledged is there once, and none that was not tried.
fn added(end: &End, tried: &Tried) -> Vec<String> {
    let shown: BTreeSet<&str> = end.shown.iter().map(String::as_str).collect();
    let mut problems = Vec::new();
    for (key, is_acknowledged) in &tried.added {
        match (end.events.get(*key).copied().unwrap_or(0), shown.contains(key)) {
            (0, false) if !is_acknowledged => {}
            (0, false) => problems.push(format!("lost: {key} was acknowledged")),
            (1, true) => {}
            (1, false) => problems.push(format!("lost: {key} has an event, and is not shown")),
            (0, true) => problems.push(format!("{key} is shown without an event")),
            (times, _) => problems.push(format!("doubled: {key} has {times} events")),
        }
    }
    let known = |key: &&str| tried.added.contains_key(*key) || is_forbidden(tried, key);
    let all: BTreeSet<&str> = end.events.keys().map(String::as_str).chain(shown).collect();
    problems.extend(all.into_iter().filter(|key| !known(key)).map(|key| format!("{key} is there, never tried")));
    problems
}

fn is_forbidden(tried: &Tried, key: &str) -> bool {
    tried.forbidden.keys().any(|(_, forbidden)| *forbidden == key)
}

/// Every register shows what was acknowledged last, or what was tried after that.
fn registered(end: &End, tried: &Tried) -> Vec<String> {
    let mut problems = Vec::new();
    for (register, numbers) in &tried.numbers {
        let (shown, last) = (end.registers.get(*register).copied().unwrap_or(0), tried.last(register));
        if shown < last {
            problems.push(format!("stale: {register} shows {shown} in the end, {last} was acknowledged"));
        }
        if shown > 0 && !numbers.contains_key(&shown) {
            problems.push(format!("{register} shows {shown} in the end, which nobody wrote"));
        }
    }
    problems
}

/// Every count is at least what was acknowledged, and at most what was tried.
fn counted(end: &End, tried: &Tried) -> Vec<String> {
    let wrong = |(counter, (least, most)): (&&str, &(u64, u64))| {
        let count = end.counts.get(*counter).copied().unwrap_or(0);
        let is_right = (*least..=*most).contains(&count);
        (!is_right).then(|| format!("the count of {counter} is {count}, expected {least} to {most}"))
    };
    tried.counts.iter().filter_map(wrong).collect()
}

/// What a device may not do is told there, with the reason, and is nowhere else; nothing else is refused.
fn refused(replica: &str, end: &End, tried: &Tried) -> Vec<String> {
    let mut problems = Vec::new();
    for ((by, key), is_acknowledged) in &tried.forbidden {
        match (*by == replica, end.refused.get(*key).map(String::as_str)) {
            (true, Some(FORBIDDEN)) => {}
            (true, None) if *is_acknowledged => problems.push(format!("nobody says that {key} was refused")),
            (false, None) if end.events.contains_key(*key) => {
                problems.push(format!("{key} was taken in beyond the rights of {by}"));
            }
            _ => {}
        }
    }
    let others = end.refused.iter().filter(|(key, why)| *why != FORBIDDEN || !is_forbidden(tried, key));
    problems.extend(others.map(|(key, why)| format!("an edit of {key} was refused with `{why}`")));
    problems
}

fn diverging(ends: &[(&str, &End)]) -> Vec<String> {
    let Some((first, others)) = ends.split_first() else { return vec!["nobody says how it ended".to_owned()] };
    let differing = others.iter().filter(|(_, end)| end.digest != first.1.digest);
    differing.map(|(replica, _)| format!("diverging: {replica} and {} hold different records", first.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64, replica: &str, what: What) -> Operation {
        Operation { replica: replica.to_owned(), began_us: us, ended_us: us + 5, what }
    }

    fn edited(us: u64, replica: &str, number: u64, is_acknowledged: bool) -> Operation {
        at(us, replica, What::Edited { key: format!("{replica}-{number}"), number, by: 2, is_acknowledged })
    }

    fn read(us: u64, replica: &str, register: &str, shown: Option<u64>) -> Operation {
        at(us, replica, What::Read { register: register.to_owned(), shown })
    }

    /// A device that writes three numbers, the second without an answer, and one that it may not; a server that hears of them.
    fn history() -> Vec<Operation> {
        let mut history = vec![
            edited(10, "a", 1, true),
            read(20, "a", "a", Some(1)),
            read(21, "server", "a", None),
            edited(30, "a", 2, false),
            at(40, "a", What::Trespassed { key: "secret".to_owned(), is_acknowledged: true }),
            read(41, "server", "a", Some(2)),
            edited(50, "a", 3, true),
            read(60, "a", "a", Some(3)),
            read(70, "server", "a", Some(2)),
        ];
        let end = End {
            events: (1..=3).map(|number| (format!("a-{number}"), 1)).collect(),
            shown: (1..=3).map(|number| format!("a-{number}")).collect(),
            registers: [("a".to_owned(), 3)].into(),
            counts: [("a".to_owned(), 6)].into(),
            refused: BTreeMap::new(),
            digest: "same".to_owned(),
        };
        let mut own = end.clone();
        own.events.insert("secret".to_owned(), 1);
        own.refused.insert("secret".to_owned(), "permission".to_owned());
        history.extend([at(100, "server", What::Ended(end)), at(100, "a", What::Ended(own))]);
        history
    }

    /// The end of the server, which is told before that of the device.
    fn end(history: &mut [Operation]) -> &mut End {
        history
            .iter_mut()
            .find_map(|operation| if let What::Ended(end) = &mut operation.what { Some(end) } else { None })
            .unwrap()
    }

    fn own_end(history: &mut [Operation]) -> &mut End {
        let What::Ended(end) = &mut history.last_mut().unwrap().what else { panic!() };
        end
    }

    /// That a change of the history, and of nothing else, is found, and named so.
    fn is_found(named: &str, plant: impl FnOnce(&mut Vec<Operation>)) {
        let mut history = history();
        assert_eq!(check(&history), Vec::<String>::new());
        plant(&mut history);
        let problems = check(&history);
        assert!(problems.iter().any(|problem| problem.contains(named)), "expected `{named}`, found {problems:?}");
    }

    #[test]
    fn what_was_not_acknowledged_may_be_missing() {
        let mut history = history();
        for operation in &mut history {
            if let What::Read { shown, .. } = &mut operation.what {
                *shown = shown.map(|number| if number == 2 { 1 } else { number });
            }
            if let What::Ended(end) = &mut operation.what {
                end.events.remove("a-2");
                end.shown.retain(|key| key != "a-2");
                end.counts.insert("a".to_owned(), 4);
            }
        }
        assert_eq!(check(&history), Vec::<String>::new());
    }

    #[test]
    fn a_lost_edit_is_found() {
        is_found("lost: a-1 was acknowledged", |history| {
            end(history).events.remove("a-1");
            end(history).shown.retain(|key| key != "a-1");
        });
        is_found("lost: a-3 has an event, and is not shown", |history| {
            end(history).shown.retain(|key| key != "a-3");
        });
    }

    #[test]
    fn a_doubled_edit_is_found() {
        is_found("doubled: a-1 has 2 events", |history| {
            end(history).events.insert("a-1".to_owned(), 2);
        });
        is_found("count of a is 8, expected 4 to 6", |history| {
            end(history).counts.insert("a".to_owned(), 8);
        });
        is_found("count of a is 2, expected 4 to 6", |history| {
            end(history).counts.insert("a".to_owned(), 2);
        });
    }

    #[test]
    fn what_nobody_did_is_found() {
        is_found("a-9 is there, never tried", |history| {
            end(history).events.insert("a-9".to_owned(), 1);
        });
        is_found("a shows 9, which nobody had written", |history| history.insert(8, read(61, "a", "a", Some(9))));
        is_found("a shows 3, which nobody had written", |history| {
            history.insert(4, read(31, "server", "a", Some(3)))
        });
        is_found("a shows 9 in the end, which nobody wrote", |history| {
            end(history).registers.insert("a".to_owned(), 9);
        });
    }

    #[test]
    fn a_stale_read_is_found() {
        // A device does not show what was acknowledged there.
        is_found("a: stale: a shows Some(1) after 3", |history| history.insert(8, read(61, "a", "a", Some(1))));
        // A replica goes back on what it has shown.
        is_found("server: stale: a shows Some(1) after 2", |history| {
            history.insert(6, read(42, "server", "a", Some(1)))
        });
        is_found("server: stale: a shows None after 2", |history| history.insert(6, read(42, "server", "a", None)));
        is_found("stale: a shows 2 in the end, 3 was acknowledged", |history| {
            end(history).registers.insert("a".to_owned(), 2);
        });
    }

    #[test]
    fn diverging_replicas_are_found() {
        is_found("diverging: a and server", |history| end(history).digest = "another".to_owned());
        is_found("nobody says how it ended", |history| history.truncate(9));
    }

    #[test]
    fn refusals_are_told_where_they_belong() {
        is_found("nobody says that secret was refused", |history| own_end(history).refused.clear());
        is_found("secret was taken in beyond the rights of a", |history| {
            end(history).events.insert("secret".to_owned(), 1);
        });
        is_found("an edit of a-1 was refused with `clock_ahead`", |history| {
            own_end(history).refused.insert("a-1".to_owned(), "clock_ahead".to_owned());
        });
        is_found("an edit of a-1 was refused with `permission`", |history| {
            own_end(history).refused.insert("a-1".to_owned(), "permission".to_owned());
        });
    }
}
