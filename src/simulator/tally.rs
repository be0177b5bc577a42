//! The result of a simulation: answers by status, latencies, sessions per second.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;

/// Counts and latencies of all connections.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers, by HTTP status.
    pub answers: BTreeMap<u16, u64>,
    /// Requests without an answer, by error.
    pub failures: BTreeMap<String, u64>,
    /// Sessions in the webhooks that were answered 2xx.
    pub accepted_sessions: u64,
    /// Webhooks that were not sent, because nothing answered.
    pub unsent: u64,
    /// Webhooks that repeated an earlier one.
    pub resent: u64,
    /// How often a webhook was paused.
    pub pauses: u64,
    /// Webhooks that were never sent, because they were paused.
    pub lost_webhooks: u64,
    /// The sessions in `lost_webhooks`.
    pub lost_sessions: u64,
    /// Duration of the simulation.
    pub seconds: f64,
    latencies: Vec<Duration>,
}

impl Tally {
    pub(super) fn answered(&mut self, status: StatusCode, latency: Duration, sessions: usize) {
        *self.answers.entry(status.as_u16()).or_default() += 1;
        self.latencies.push(latency);
        if status.is_success() {
            self.accepted_sessions += sessions as u64;
        }
    }

    pub(super) fn finished(mut self, took: Duration) -> Self {
        self.latencies.sort_unstable();
        self.seconds = took.as_secs_f64();
        self
    }

    /// Webhooks that were posted.
    #[must_use]
    pub fn webhooks(&self) -> u64 {
        self.answers.values().chain(self.failures.values()).sum()
    }

    /// Whether something was sent, and every request was answered 2xx.
    #[must_use]
    pub fn all_accepted(&self) -> bool {
        self.failures.is_empty()
            && !self.answers.is_empty()
            && self.answers.keys().all(|status| status / 100 == 2)
    }

    /// Accepted sessions per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        float(self.accepted_sessions) / self.seconds.max(1e-9)
    }

    /// The latency in milliseconds within which `share` per mille of the answers came; 0 without
    /// an answer.
    #[must_use]
    pub fn within(&self, share: usize) -> f64 {
        let rank = (self.latencies.len() * share).div_ceil(1000).max(1) - 1;
        let latency = self.latencies.get(rank).copied().unwrap_or_default();
        latency.as_secs_f64() * 1000.0
    }
}

/// A number as a float.
#[expect(
    clippy::cast_precision_loss,
    reason = "rates need no more than 52 bits"
)]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_that_of_a_share_of_all_answers() {
        let mut tally = Tally::default();
        for latency in (1..=100).rev().map(Duration::from_millis) {
            tally.answered(StatusCode::ACCEPTED, latency, 10);
        }
        let tally = tally.finished(Duration::from_secs(2));
        let within = [500, 900, 990, 999, 1000].map(|share| format!("{:.0}", tally.within(share)));
        assert_eq!(within, ["50", "90", "99", "100", "100"]);
        assert_eq!(format!("{:.0}", tally.per_second()), "500");
        assert_eq!(format!("{:.0}", Tally::default().within(500)), "0");
    }

    #[test]
    fn one_refusal_or_missing_answer_is_a_failure() {
        let accepted = || {
            let mut tally = Tally::default();
            tally.answered(StatusCode::ACCEPTED, Duration::ZERO, 10);
            tally
        };
        assert!(accepted().all_accepted());
        let mut refused = accepted();
        refused.answered(StatusCode::UNAUTHORIZED, Duration::ZERO, 10);
        assert!(!refused.all_accepted());
        assert_eq!(refused.accepted_sessions, 10);
        let mut failed = accepted();
        failed.failures.insert("connection refused".into(), 1);
        assert!(!failed.all_accepted());
        assert!(!Tally::default().all_accepted());
    }
}
