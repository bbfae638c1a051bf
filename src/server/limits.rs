//! How much a device, or an address that is no device yet, may ask for.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::Server;
use super::problem::Problem;
use crate::ErrorKind;
use crate::event::LedgerId;

/// How many requests a second a device may make, and how many at once.
const OF_DEVICE: (u32, u32) = (200, 400);
/// How many enrolments and refreshes a second an address may ask for, and how many at once: enough for an office, too few
/// to guess.
const OF_ADDRESS: (u32, u32) = (5, 50);
/// After how many requests those that asked for nothing for a while are forgotten.
const FORGET_AFTER: usize = 10_000;

/// Who asked for how much lately.
pub(super) struct Limits {
    devices: DefaultKeyedRateLimiter<(LedgerId, String)>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { devices: RateLimiter::keyed(quota(OF_DEVICE)), addresses: RateLimiter::keyed(quota(OF_ADDRESS)) }
    }
}

fn quota((each_second, at_once): (u32, u32)) -> Quota {
    let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(each_second)).allow_burst(at_least_one(at_once))
}

impl Limits {
    /// Counts a request of a device.
    ///
    /// # Errors
    /// `rate_limit`, with when to come again.
    pub(super) fn device(&self, ledger: LedgerId, device: &str) -> Result<(), Problem> {
        check(&self.devices, (ledger, device.to_owned()), "this device")
    }

    fn address(&self, address: IpAddr) -> Result<(), Problem> {
        check(&self.addresses, address, "this address")
    }
}

fn check<K: Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: K, who: &str) -> Result<(), Problem> {
    if limiter.len() > FORGET_AFTER {
        limiter.retain_recent();
    }
    limiter.check_key(&key).map(drop).map_err(|refused| {
        let wait = refused.wait_time_from(DefaultClock::default().now());
        Problem::new(ErrorKind::RateLimit, format!("{who} makes too many requests")).after(wait.as_secs() + 1)
    })
}

/// Lets an address ask for tokens only so often.
pub(super) async fn of_address(State(server): State<Server>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip());
    match address.map_or(Ok(()), |address| server.0.limits.address(address)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
