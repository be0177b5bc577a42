//! Log lines about refusals: one when those of a route begin, one when they end, and a bounded
//! number about single events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::status::RetryingStatus;

/// A route whose refusals begin again so soon after their end is not told of twice.
const PAUSE: Duration = Duration::from_mins(1);
/// Routes whose end of refusals is remembered for that.
const REMEMBERED_MAX: usize = 1_000;
/// Lines about routes, and about single events, in each period.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

type Key = (Arc<str>, Arc<str>, &'static str);

/// What has been told of the refusals.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    /// Whether the beginning was told.
    going_on: HashMap<Key, bool>,
    ended: HashMap<Key, Instant>,
    throttle: Throttle,
}

/// At most so many lines in a period; the others are counted.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Throttle {
    /// How many lines were suppressed before this one; `None` if this one is too.
    pub(super) fn permit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now - began >= PERIOD) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines >= LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl RefusalLog {
    /// Tells of what has begun and what has ended since the last time.
    pub(super) fn look(&mut self, retrying: &[RetryingStatus]) {
        let now = Instant::now();
        for one in retrying {
            let key = key(one);
            let was_recent = self
                .ended
                .get(&key)
                .is_some_and(|ended| now - *ended < PAUSE);
            let is_told = self.going_on.entry(key).or_insert(false);
            if *is_told || was_recent {
                continue;
            }
            let Some(suppressed) = self.throttle.permit(now) else {
                continue;
            };
            *is_told = true;
            tracing::warn!(
                exchange = &*one.exchange,
                routing_key = &*one.routing_key,
                reason = one.reason,
                last_refusal = one.last_refusal,
                suppressed,
                "events of a route are refused; trying again"
            );
        }
        let is_over = |key: &Key| !retrying.iter().any(|one| self::key(one) == *key);
        let over: Vec<Key> = self
            .going_on
            .keys()
            .filter(|key| is_over(key))
            .cloned()
            .collect();
        for key in over {
            if self.going_on.remove(&key) == Some(true) {
                tracing::info!(
                    exchange = &*key.0,
                    routing_key = &*key.1,
                    reason = key.2,
                    "no event of the route is refused any more"
                );
                self.ended.insert(key, now);
            }
        }
        if self.ended.len() > REMEMBERED_MAX {
            self.ended.retain(|_, ended| now - *ended < PAUSE);
        }
    }
}

fn key(one: &RetryingStatus) -> Key {
    (one.exchange.clone(), one.routing_key.clone(), one.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_counted_and_not_written() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..LINES_MAX {
            assert_eq!(throttle.permit(now), Some(0));
        }
        assert_eq!(throttle.permit(now), None);
        assert_eq!(throttle.permit(now), None);
        assert_eq!(throttle.permit(now + PERIOD), Some(2));
    }
}
