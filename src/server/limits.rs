//! How much a device, all devices of a ledger, or an address that is no device yet, may ask for.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::Server;
use super::problem::Problem;
use super::settings::{LimitSettings, RateSettings};
use crate::ErrorKind;
use crate::event::LedgerId;

/// How many enrolments and refreshes a second an address may ask for, and how many at once: enough for an office, too few
/// to guess.
const OF_ADDRESS: (u32, u32) = (5, 50);
/// After how many requests those that asked for nothing for a while are forgotten.
const FORGET_AFTER: usize = 10_000;

/// What is left to who asked, and what there is of it: the header fields of the IETF's draft on rate limits.
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

type Limiter<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// Who asked for how much lately.
pub(super) struct Limits {
    devices: (RateSettings, Limiter<(LedgerId, String)>),
    ledgers: (RateSettings, Limiter<LedgerId>),
    addresses: DefaultKeyedRateLimiter<IpAddr>,
}

/// What one limit leaves to who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The limit's name.
    name: &'static str,
    rate: RateSettings,
    /// How many requests may be made at once now.
    left: u32,
}

fn quota(rate: RateSettings) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.at_once)
}

fn limited<K: Hash + Eq + Clone>(rate: RateSettings) -> (RateSettings, Limiter<K>) {
    (rate, RateLimiter::keyed(quota(rate)).with_middleware())
}

impl Limits {
    /// These limits.
    pub(super) fn of(settings: &LimitSettings) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let (per_second, at_once) = (at_least_one(OF_ADDRESS.0), at_least_one(OF_ADDRESS.1));
        Self {
            devices: limited(settings.device),
            ledgers: limited(settings.ledger),
            addresses: RateLimiter::keyed(quota(RateSettings { per_second, at_once })),
        }
    }

    /// Counts a request of a device, and says what is left to it, also where there is nothing.
    pub(super) fn count(&self, ledger: LedgerId, device: &str) -> (Vec<Standing>, Result<(), Problem>) {
        let (own, refused) = take(&self.devices, "device", (ledger, device.to_owned()));
        if refused.is_err() {
            return (vec![own], refused);
        }
        let (all, refused) = take(&self.ledgers, "ledger", ledger);
        (vec![own, all], refused)
    }

    fn address(&self, address: IpAddr) -> Result<(), Problem> {
        if self.addresses.len() > FORGET_AFTER {
            self.addresses.retain_recent();
        }
        let refused = |wait: std::time::Duration| too_many("this address makes", wait.as_secs() + 1);
        let now = || DefaultClock::default().now();
        self.addresses.check_key(&address).map(drop).map_err(|until| refused(until.wait_time_from(now())))
    }
}

fn take<K: Hash + Eq + Clone>(
    (rate, limiter): &(RateSettings, Limiter<K>),
    name: &'static str,
    key: K,
) -> (Standing, Result<(), Problem>) {
    if limiter.len() > FORGET_AFTER {
        limiter.retain_recent();
    }
    let standing = |left| Standing { name, rate: *rate, left };
    match limiter.check_key(&key) {
        Ok(state) => (standing(state.remaining_burst_capacity()), Ok(())),
        Err(until) => {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let who = if name == "ledger" { "the devices of this ledger make" } else { "this device makes" };
            (standing(0), Err(too_many(who, wait.as_secs() + 1)))
        }
    }
}

fn too_many(who: &str, seconds: u64) -> Problem {
    Problem::new(ErrorKind::RateLimit, format!("{who} too many requests")).after(seconds)
}

impl Standing {
    /// How many seconds it takes until all is left again of which so much was used.
    fn refilled_in(self, used: u32) -> u32 {
        used.div_ceil(self.rate.per_second.get())
    }
}

/// Says what is left: `"device";r=399;t=1`, and what there is: `"device";q=400;w=2`. Both count requests; times are in seconds.
pub(super) fn tell(standings: &[Standing], headers: &mut HeaderMap) {
    let most = |standing: &Standing| standing.rate.at_once.get();
    let left = standings.iter().map(|standing| {
        let Standing { name, left, .. } = standing;
        format!("\"{name}\";r={left};t={}", standing.refilled_in(most(standing).saturating_sub(*left)))
    });
    let policy = standings.iter().map(|standing| {
        let (name, most) = (standing.name, most(standing));
        format!("\"{name}\";q={most};w={}", standing.refilled_in(most))
    });
    for (header, parts) in [(LEFT, left.collect::<Vec<_>>()), (POLICY, policy.collect())] {
        if let Ok(value) = HeaderValue::from_str(&parts.join(", ")) {
            headers.insert(header, value);
        }
    }
}

/// Lets an address ask for tokens only so often.
pub(super) async fn of_address(State(server): State<Server>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip());
    match address.map_or(Ok(()), |address| server.0.limits.address(address)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
