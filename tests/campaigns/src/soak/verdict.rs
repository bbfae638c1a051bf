//! Whether a server that has worked for long uses no more than at first.

/// What was seen of a server at one moment, and how quickly it answered since the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Since the load began.
    pub seconds: f64,
    pub resident_kib: f64,
    pub descriptors: f64,
    pub threads: f64,
    pub disk_bytes: f64,
    /// In its log.
    pub events: f64,
    /// How long an edit and a read took.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// By how much what is measured in the last third may be more than in the middle one.
const MEMORY_TIMES: f64 = 1.3;
const LATENCY_TIMES: f64 = 2.0;
const DISK_TIMES: f64 = 2.0;
/// What is as good as nothing: a latency of so many milliseconds, a slope of memory that comes to so many KiB within the time, some
/// connections more, and what a file grows by at once.
const LATENCY_MS: f64 = 10.0;
const SLACK_KIB: f64 = 16_384.0;
const SLACK_COUNT: f64 = 16.0;
const SLACK_BYTES: f64 = 8_388_608.0;
/// What the memory may grow by for each event in the log, in KiB: what is kept of it in memory (its place, and whose it is).
const KIB_OF_AN_EVENT: f64 = 0.25;
/// What the disk may grow by for each event, in bytes, beyond what a file grows by at once: so much in any case, and never more than the
/// second, for an event, its rows, and what is not packed yet.
const BYTES_OF_AN_EVENT: (f64, f64) = (512.0, 2_048.0);
/// So many samples say something.
const FEWEST: usize = 9;

/// What grew, of samples in their order.
pub fn verdict(samples: &[Sample]) -> Vec<String> {
    if samples.len() < FEWEST {
        return vec![format!("{} samples say nothing: at least {FEWEST}", samples.len())];
    }
    let third = samples.len() / 3;
    let (middle, last) =
        (samples.get(third..2 * third).unwrap_or_default(), samples.get(2 * third..).unwrap_or_default());
    let later = samples.get(third..).unwrap_or_default();
    let two = (middle, last);
    [
        climbing(later),
        times("memory", two, |sample| sample.resident_kib, (MEMORY_TIMES, 0.0)),
        times("the latency (p99)", two, |sample| sample.p99_ms, (LATENCY_TIMES, LATENCY_MS)),
        times("the latency (p50)", two, |sample| sample.p50_ms, (LATENCY_TIMES, LATENCY_MS)),
        times("the number of descriptors", two, |sample| sample.descriptors, (1.0, SLACK_COUNT)),
        times("the number of threads", two, |sample| sample.threads, (1.0, SLACK_COUNT)),
        filling(middle, last),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A straight line through the memory of the last two thirds rises by more than the events explain.
fn climbing(samples: &[Sample]) -> Option<String> {
    let by_hour = slope(samples, |sample| sample.resident_kib) * 3_600.0;
    let hours = passed(samples, |sample| sample.seconds) / 3_600.0;
    let allowed = (SLACK_KIB + KIB_OF_AN_EVENT * passed(samples, |sample| sample.events)) / hours;
    (by_hour > allowed)
        .then(|| format!("memory rises by {by_hour:.0} KiB an hour, {allowed:.0} would be for the events"))
}

/// The disk takes more for each event than before, or than an event may take.
fn filling(middle: &[Sample], last: &[Sample]) -> Option<String> {
    let per_event = |samples: &[Sample]| {
        let (bytes, events) = (passed(samples, |sample| sample.disk_bytes), passed(samples, |sample| sample.events));
        (bytes - SLACK_BYTES).max(0.0) / events.max(1.0)
    };
    let allowed = (per_event(middle) * DISK_TIMES).clamp(BYTES_OF_AN_EVENT.0, BYTES_OF_AN_EVENT.1);
    let taken = per_event(last);
    (taken > allowed).then(|| format!("the disk takes {taken:.0} bytes an event, at most {allowed:.0} are due"))
}

/// The middle of the last third is more than so many times that of the middle third, and so much more.
fn times(
    what: &str,
    (middle, last): (&[Sample], &[Sample]),
    of: fn(&Sample) -> f64,
    (most, slack): (f64, f64),
) -> Option<String> {
    let (before, after) = (median(middle, of), median(last, of));
    let is_more = after > most * before && after > before + slack;
    is_more.then(|| format!("{what} has grown from {before:.1} to {after:.1}"))
}

fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// By how much something has grown from the first sample to the last.
fn passed(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    samples.last().map_or(0.0, of) - samples.first().map_or(0.0, of)
}

/// By how much something grows a second, along the line of least squares.
fn slope(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let count = samples.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (second, value) = (mean(&|sample| sample.seconds), mean(&of));
    let shared: f64 = samples.iter().map(|sample| (sample.seconds - second) * (of(sample) - value)).sum();
    let spread: f64 = samples.iter().map(|sample| (sample.seconds - second).powi(2)).sum();
    if spread > 0.0 { shared / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes of a sound server, a sample each ten seconds, which `plant` spoils.
    fn samples(plant: impl Fn(f64, &mut Sample)) -> Vec<Sample> {
        let sample = |number: i32| {
            let (seconds, noise) = (f64::from(number) * 10.0, f64::from(number * 7_919 % 13));
            let mut sample = Sample {
                seconds,
                // A cache that fills within the first minutes.
                resident_kib: 60_000.0 + 40_000.0 * (1.0 - (-seconds / 60.0).exp()) + 100.0 * noise,
                descriptors: 40.0 + noise / 3.0,
                threads: 12.0,
                disk_bytes: 4e6 + seconds * 100.0 * 400.0,
                events: seconds * 100.0,
                p50_ms: 4.0 + noise / 10.0,
                p99_ms: 20.0 + noise,
            };
            plant(seconds, &mut sample);
            sample
        };
        (1..=60).map(sample).collect()
    }

    fn is_found(named: &str, plant: impl Fn(f64, &mut Sample)) {
        let found = verdict(&samples(plant));
        assert!(found.iter().any(|problem| problem.contains(named)), "expected `{named}`, found {found:?}");
    }

    #[test]
    fn a_server_that_uses_no_more_than_at_first_is_sound() {
        assert_eq!(verdict(&samples(|_, _| {})), Vec::<String>::new());
        assert!(verdict(&samples(|_, _| {})[..8])[0].contains("say nothing"));
    }

    #[test]
    fn a_leak_is_found() {
        // 100 KiB a second, and of what is done 1 KiB each time.
        is_found("memory rises", |seconds, sample| sample.resident_kib += 100.0 * seconds);
        is_found("memory rises", |_, sample| sample.resident_kib += sample.events);
        is_found("memory has grown", |seconds, sample| sample.resident_kib += 400.0 * seconds);
        is_found("the number of descriptors", |seconds, sample| sample.descriptors += seconds / 10.0);
        is_found("the number of threads", |seconds, sample| sample.threads += seconds / 10.0);
    }

    #[test]
    fn a_disk_that_fills_is_found() {
        is_found("the disk takes", |seconds, sample| sample.disk_bytes += 300_000.0 * seconds);
        is_found("the disk takes", |seconds, sample| sample.disk_bytes += seconds.powi(3));
    }

    #[test]
    fn growing_latency_is_found() {
        is_found("the latency (p99)", |seconds, sample| sample.p99_ms += (seconds / 100.0).powi(3));
        is_found("the latency (p50)", |seconds, sample| sample.p50_ms += (seconds / 100.0).powi(3) / 2.0);
    }
}
