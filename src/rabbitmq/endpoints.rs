//! Which broker to try next, and when: every URL has a schedule of its own, so that one that
//! refuses us does not slow down another that is only away. Pure: time is an argument.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::url::BrokerUrl;

/// A refusal does not go away by itself: asked again seldom.
const REFUSED_DELAY_MIN: Duration = Duration::from_secs(5);
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted as long was a good one: the next delay is the shortest again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// The brokers, tried in turn.
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    delays: ExponentialBuilder,
    delay_max: Duration,
    next: usize,
}

struct Endpoint {
    url: BrokerUrl,
    not_before: Instant,
    backoff: Option<ExponentialBackoff>,
    is_refused: bool,
}

impl Endpoint {
    /// A refusal has delays of its own: neither schedule goes on where the other one was.
    fn set_refused(&mut self, is_refused: bool) {
        if self.is_refused != is_refused {
            self.backoff = None;
        }
        self.is_refused = is_refused;
    }
}

impl Endpoints {
    pub(super) fn new(
        urls: &[BrokerUrl],
        delay_min: Duration,
        delay_max: Duration,
        now: Instant,
    ) -> Self {
        let endpoint = |url: &BrokerUrl| Endpoint {
            url: url.clone(),
            not_before: now,
            backoff: None,
            is_refused: false,
        };
        Self {
            all: urls.iter().map(endpoint).collect(),
            delays: delays(delay_min, delay_max),
            delay_max: delay_max.max(delay_min),
            next: 0,
        }
    }

    /// The one to try next, and when: the first in turn of those that are due soonest.
    pub(super) fn next(&self, now: Instant) -> (usize, Instant) {
        let count = self.all.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let due = |index: usize| self.all[index].not_before.max(now);
        let index = in_turn
            .min_by_key(|&index| due(index))
            .expect("there is at least one broker");
        (index, due(index))
    }

    pub(super) fn url(&self, index: usize) -> &BrokerUrl {
        &self.all[index].url
    }

    /// Whether a broker has refused us and none has done better since.
    pub(super) fn is_refused(&self) -> bool {
        self.all.iter().any(|endpoint| endpoint.is_refused)
    }

    /// The attempt failed: it is some other one's turn.
    pub(super) fn failed(&mut self, index: usize, is_refusal: bool, now: Instant) {
        self.next = (index + 1) % self.all.len();
        self.all[index].set_refused(is_refusal);
        if is_refusal {
            self.delay(
                index,
                delays(REFUSED_DELAY_MIN, REFUSED_DELAY_MAX),
                REFUSED_DELAY_MAX,
                now,
            );
        } else {
            self.delay(index, self.delays, self.delay_max, now);
        }
    }

    /// Connected.
    pub(super) fn connected(&mut self, index: usize) {
        self.next = index;
        for endpoint in &mut self.all {
            endpoint.set_refused(false);
        }
    }

    /// The connection was lost after `lasted`; the same broker goes first again.
    pub(super) fn lost(&mut self, index: usize, lasted: Duration, now: Instant) {
        if lasted >= GOOD_AFTER {
            self.all[index].backoff = None;
        }
        self.delay(index, self.delays, self.delay_max, now);
    }

    fn delay(&mut self, index: usize, delays: ExponentialBuilder, max: Duration, now: Instant) {
        let endpoint = &mut self.all[index];
        let backoff = endpoint.backoff.get_or_insert_with(|| delays.build());
        endpoint.not_before = now + backoff.next().unwrap_or(max).min(max);
    }
}

/// Jitter adds up to as much again: the growth ends at half, so that the longest delays differ too.
fn delays(min: Duration, max: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(min)
        .with_max_delay((max / 2).max(min))
        .without_max_times()
        .with_jitter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(2);

    fn endpoints(hosts: &[&str], now: Instant) -> Endpoints {
        let urls: Vec<_> = hosts
            .iter()
            .map(|host| BrokerUrl::parse(&format!("amqp://{host}")).unwrap())
            .collect();
        Endpoints::new(&urls, MIN, MAX, now)
    }

    #[test]
    fn all_brokers_are_tried_in_turn_before_any_delay() {
        let now = Instant::now();
        let mut endpoints = endpoints(&["a", "b"], now);
        assert_eq!(endpoints.next(now), (0, now));
        endpoints.failed(0, false, now);
        assert_eq!(endpoints.next(now), (1, now));
        endpoints.failed(1, false, now);
        let (_, due) = endpoints.next(now);
        assert!(due >= now + MIN && due <= now + 2 * MIN, "{:?}", due - now);
    }

    #[test]
    fn delays_grow_to_the_longest_and_never_beyond() {
        let mut now = Instant::now();
        let mut endpoints = endpoints(&["a"], now);
        for _ in 0..20 {
            endpoints.failed(0, false, now);
            let (_, due) = endpoints.next(now);
            assert!(due - now <= MAX);
            now = due;
        }
        endpoints.failed(0, false, now);
        assert!(endpoints.next(now).1 - now >= MAX / 2);
    }

    #[test]
    fn a_refusal_waits_five_to_thirty_seconds_without_holding_up_the_others() {
        let mut now = Instant::now();
        let mut endpoints = endpoints(&["a", "b"], now);
        endpoints.failed(0, true, now);
        assert!(endpoints.is_refused());
        for _ in 0..5 {
            endpoints.failed(1, false, now);
            let (index, due) = endpoints.next(now);
            assert_eq!(index, 1, "{:?}", due - now);
            now += Duration::from_millis(10);
        }
        let mut alone = self::endpoints(&["a"], now);
        for _ in 0..10 {
            alone.failed(0, true, now);
            let delay = alone.next(now).1 - now;
            assert!(
                delay >= REFUSED_DELAY_MIN && delay <= REFUSED_DELAY_MAX,
                "{delay:?}"
            );
        }
    }

    #[test]
    fn a_refusal_after_a_loss_waits_as_long_and_an_absence_after_a_refusal_does_not() {
        let now = Instant::now();
        let mut endpoints = endpoints(&["a"], now);
        endpoints.connected(0);
        endpoints.lost(0, Duration::from_secs(1), now);
        endpoints.failed(0, true, now);
        assert!(endpoints.next(now).1 - now >= REFUSED_DELAY_MIN);
        endpoints.failed(0, false, now);
        assert!(endpoints.next(now).1 - now <= 2 * MIN);
    }

    #[test]
    fn a_connection_that_flaps_is_tried_less_and_less_and_a_good_one_soon() {
        let now = Instant::now();
        let mut endpoints = endpoints(&["a"], now);
        for _ in 0..6 {
            endpoints.connected(0);
            endpoints.lost(0, Duration::from_millis(100), now);
        }
        assert!(endpoints.next(now).1 - now >= MAX / 2);
        endpoints.connected(0);
        endpoints.lost(0, Duration::from_mins(1), now);
        assert!(endpoints.next(now).1 - now <= 2 * MIN);
    }
}
