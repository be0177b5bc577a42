//! Log lines about rejected events: one when the rejections of a route begin, one when they end,
//! and a limited number about single events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::status::RetryingStatus;

/// If the rejections of a route begin again within this time after their end, they are not logged
/// again.
const PAUSE: Duration = Duration::from_mins(1);
/// Number of routes whose end of rejections is remembered for that.
const REMEMBERED_MAX: usize = 1_000;
/// Lines per period: this many about routes, and this many about single events.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

type RouteReason = (Arc<str>, Arc<str>, &'static str);

/// Which rejections have been logged.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    /// Routes with rejections, and whether their beginning was logged.
    going_on: HashMap<RouteReason, bool>,
    ended: HashMap<RouteReason, Instant>,
    throttle: Throttle,
}

/// Limits log lines to `LINES_MAX` per period and counts the others.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Throttle {
    /// Returns the number of lines suppressed before this one, or `None` if this one must be
    /// suppressed, too.
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
    /// Logs the rejections that have begun or ended since the last call.
    pub(super) fn log_changes(&mut self, retrying: &[RetryingStatus]) {
        let now = Instant::now();
        for one in retrying {
            let key = key(one);
            let ended = self.ended.get(&key);
            let was_recent = ended.is_some_and(|ended| now - *ended < PAUSE);
            let is_logged = self.going_on.entry(key).or_insert(false);
            if *is_logged || was_recent {
                continue;
            }
            let Some(suppressed) = self.throttle.permit(now) else {
                continue;
            };
            *is_logged = true;
            tracing::warn!(
                exchange = &*one.exchange,
                routing_key = &*one.routing_key,
                reason = one.reason,
                last_refusal = one.last_refusal,
                suppressed,
                "broker rejects events of this route; retrying"
            );
        }
        let is_over =
            |key: &RouteReason, _: &mut bool| !retrying.iter().any(|one| self::key(one) == *key);
        for (key, was_logged) in self.going_on.extract_if(is_over) {
            if was_logged {
                tracing::info!(
                    exchange = &*key.0,
                    routing_key = &*key.1,
                    reason = key.2,
                    "broker no longer rejects events of this route"
                );
                self.ended.insert(key, now);
            }
        }
        if self.ended.len() > REMEMBERED_MAX {
            self.ended.retain(|_, ended| now - *ended < PAUSE);
        }
    }
}

fn key(one: &RetryingStatus) -> RouteReason {
    (one.exchange.clone(), one.routing_key.clone(), one.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted() {
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
