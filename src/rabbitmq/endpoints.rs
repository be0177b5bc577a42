//! Decides which broker to try next, and when. Each URL has its own backoff, so that a broker that
//! refuses connections does not delay attempts at one that is merely down. Pure: time is an
//! argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// Delays after a refusal. They are long, because a refusal rarely goes away by itself.
const REFUSED_DELAY_MIN: Duration = Duration::from_secs(5);
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted at least this long resets the backoff of its URL.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// The brokers, tried in turn.
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    delay_min: Duration,
    after_outage: Backoff,
    after_refusal: Backoff,
    next: usize,
}

#[derive(Clone)]
struct Endpoint {
    not_before: Instant,
    /// Failed attempts and short connections, since it was last reset.
    failures: u32,
    is_refused: bool,
}

impl Endpoint {
    /// Resets the failures when the state changes: refusals and outages have separate delays, and
    /// neither continues where the other one stopped.
    fn set_refused(&mut self, is_refused: bool) {
        if self.is_refused != is_refused {
            self.failures = 0;
        }
        self.is_refused = is_refused;
    }
}

impl Endpoints {
    /// `count` brokers, which are numbered from 0.
    pub(super) fn new(
        count: usize,
        delay_min: Duration,
        delay_max: Duration,
        now: Instant,
    ) -> Self {
        let endpoint = Endpoint {
            not_before: now,
            failures: 0,
            is_refused: false,
        };
        Self {
            all: vec![endpoint; count],
            delay_min,
            after_outage: Backoff::random(delay_min.saturating_mul(2), delay_max),
            after_refusal: Backoff::random(2 * REFUSED_DELAY_MIN, REFUSED_DELAY_MAX),
            next: 0,
        }
    }

    /// The broker to try next, and when: the one that is due first; among equals, the next in turn.
    pub(super) fn next(&self, now: Instant) -> (usize, Instant) {
        let count = self.all.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let due = |index: usize| self.all[index].not_before.max(now);
        let index = in_turn
            .min_by_key(|&index| due(index))
            .expect("there is at least one broker");
        (index, due(index))
    }

    /// Whether the last attempt at some broker was refused, with no successful connection since.
    pub(super) fn is_refused(&self) -> bool {
        self.all.iter().any(|endpoint| endpoint.is_refused)
    }

    /// Records a failed attempt. The next URL is tried first.
    pub(super) fn failed(&mut self, index: usize, is_refusal: bool, now: Instant) {
        self.next = (index + 1) % self.all.len();
        self.all[index].set_refused(is_refusal);
        self.delay(index, now);
    }

    /// Records a successful attempt. It clears the refusals of all brokers.
    pub(super) fn connected(&mut self, index: usize) {
        self.next = index;
        for endpoint in &mut self.all {
            endpoint.set_refused(false);
        }
    }

    /// Records that the connection was lost after `lasted`. The same broker is tried first.
    pub(super) fn lost(&mut self, index: usize, lasted: Duration, now: Instant) {
        if lasted >= GOOD_AFTER {
            self.all[index].failures = 0;
        }
        self.delay(index, now);
    }

    /// Jitter takes up to half of a delay; at least the minimum is left.
    fn delay(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.all[index];
        endpoint.failures = endpoint.failures.saturating_add(1);
        let (backoff, min) = if endpoint.is_refused {
            (&mut self.after_refusal, REFUSED_DELAY_MIN)
        } else {
            (&mut self.after_outage, self.delay_min)
        };
        endpoint.not_before = now + backoff.delay(endpoint.failures).max(min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(2);

    fn endpoints(count: usize, now: Instant) -> Endpoints {
        Endpoints::new(count, MIN, MAX, now)
    }

    #[test]
    fn all_brokers_are_tried_before_any_delay() {
        let now = Instant::now();
        let mut endpoints = endpoints(2, now);
        assert_eq!(endpoints.next(now), (0, now));
        endpoints.failed(0, false, now);
        assert_eq!(endpoints.next(now), (1, now));
        endpoints.failed(1, false, now);
        let (_, due) = endpoints.next(now);
        assert!(due >= now + MIN && due <= now + 2 * MIN, "{:?}", due - now);
    }

    #[test]
    fn delays_grow_to_the_maximum() {
        let mut now = Instant::now();
        let mut endpoints = endpoints(1, now);
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
    fn refusal_delays_only_its_own_broker() {
        let mut now = Instant::now();
        let mut endpoints = endpoints(2, now);
        endpoints.failed(0, true, now);
        assert!(endpoints.is_refused());
        for _ in 0..5 {
            endpoints.failed(1, false, now);
            let (index, due) = endpoints.next(now);
            assert_eq!(index, 1, "{:?}", due - now);
            now += Duration::from_millis(10);
        }
        let mut alone = self::endpoints(1, now);
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
    fn refusal_after_a_loss_waits_as_a_refusal() {
        let now = Instant::now();
        let mut endpoints = endpoints(1, now);
        endpoints.connected(0);
        endpoints.lost(0, Duration::from_secs(1), now);
        endpoints.failed(0, true, now);
        assert!(endpoints.next(now).1 - now >= REFUSED_DELAY_MIN);
        endpoints.failed(0, false, now);
        assert!(endpoints.next(now).1 - now <= 2 * MIN);
    }

    #[test]
    fn unstable_connection_is_retried_less_often() {
        let now = Instant::now();
        let mut endpoints = endpoints(1, now);
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
