//! What came of a simulation: answers by status, latencies, sessions a second.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use deskbridge::telemetry::foreign;
use hyper::StatusCode;
use serde_json::json;

/// What one connection saw.
#[derive(Debug, Default)]
pub struct Tally {
    answers: BTreeMap<u16, u64>,
    failures: BTreeMap<String, u64>,
    accepted_sessions: u64,
    latencies: Vec<Duration>,
    unsent: u64,
    resent: u64,
    pauses: u64,
    lost_webhooks: u64,
    lost_sessions: u64,
}

impl Tally {
    /// An answer came.
    pub fn answered(&mut self, status: StatusCode, latency: Duration, sessions: usize) {
        *self.answers.entry(status.as_u16()).or_default() += 1;
        self.latencies.push(latency);
        if status.is_success() {
            self.accepted_sessions += sessions as u64;
        }
    }

    /// No answer came.
    pub fn failed(&mut self, error: &anyhow::Error) {
        *self.failures.entry(format!("{error:#}")).or_default() += 1;
    }

    /// The connection gave up with so many webhooks left.
    pub fn gave_up(&mut self, unsent: u64) {
        self.unsent = self.unsent.saturating_add(unsent);
    }

    /// What is posted next was posted before.
    pub fn resent(&mut self) {
        self.resent += 1;
    }

    /// A failure paused a webhook.
    pub fn paused(&mut self) {
        self.pauses += 1;
    }

    /// A webhook of so many sessions is never sent: it is paused.
    pub fn lost(&mut self, sessions: usize) {
        self.lost_webhooks += 1;
        self.lost_sessions += sessions as u64;
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        self.accepted_sessions += other.accepted_sessions;
        self.unsent = self.unsent.saturating_add(other.unsent);
        self.resent += other.resent;
        self.pauses += other.pauses;
        self.lost_webhooks += other.lost_webhooks;
        self.lost_sessions += other.lost_sessions;
        self.latencies.extend(other.latencies);
    }
}

/// What all connections saw.
#[derive(Debug)]
pub struct Summary {
    tally: Tally,
    seconds: f64,
}

/// The shares of answers that came within a latency, of a thousand.
const SHARES: [(&str, u64); 5] = [
    ("p50", 500),
    ("p90", 900),
    ("p99", 990),
    ("p99.9", 999),
    ("max", 1000),
];

impl Summary {
    /// Adds up.
    pub fn of(tallies: Vec<Tally>, took: Duration) -> Self {
        let mut all = Tally::default();
        for tally in tallies {
            all.add(tally);
        }
        all.latencies.sort_unstable();
        Self {
            tally: all,
            seconds: took.as_secs_f64(),
        }
    }

    /// Whether something was sent and every answer was a 2xx.
    pub fn all_accepted(&self) -> bool {
        let statuses = &self.tally.answers;
        self.tally.failures.is_empty()
            && !statuses.is_empty()
            && statuses.keys().all(|status| status / 100 == 2)
    }

    /// For people.
    pub fn text(&self) -> String {
        let tally = &self.tally;
        let webhooks: u64 = tally.answers.values().chain(tally.failures.values()).sum();
        let mut text = format!(
            "{webhooks} webhooks in {:.2} s, {} sessions accepted: {:.0} sessions/s\n",
            self.seconds,
            tally.accepted_sessions,
            self.per_second(),
        );
        for (status, count) in &tally.answers {
            let _ = writeln!(text, "answer {status}: {count}");
        }
        for (failure, count) in &tally.failures {
            let _ = writeln!(text, "no answer, {}: {count}", foreign::line(failure));
        }
        if tally.unsent > 0 {
            let _ = writeln!(text, "not sent, no answers any more: {}", tally.unsent);
        }
        if tally.resent > 0 {
            let _ = writeln!(text, "sent again: {}", tally.resent);
        }
        if tally.pauses > 0 {
            let _ = writeln!(
                text,
                "paused: {} times; never sent: {} webhooks, {} sessions",
                tally.pauses, tally.lost_webhooks, tally.lost_sessions
            );
        }
        if !tally.latencies.is_empty() {
            text.push_str("latency");
            for (name, share) in SHARES {
                let _ = write!(text, "  {name} {:.1} ms", self.within(share));
            }
            text.push('\n');
        }
        text
    }

    /// For machines, in one line.
    pub fn json(&self) -> String {
        let tally = &self.tally;
        let latencies: BTreeMap<_, _> = SHARES
            .iter()
            .map(|(name, share)| (*name, self.within(*share)))
            .collect();
        let summary = json!({
            "seconds": self.seconds,
            "webhooks": tally.answers.values().chain(tally.failures.values()).sum::<u64>(),
            "sessions_accepted": tally.accepted_sessions,
            "sessions_per_second": self.per_second(),
            "answers": tally.answers,
            "failures": tally.failures,
            "not_sent": tally.unsent,
            "resent": tally.resent,
            "pauses": tally.pauses,
            "lost_in_pauses": {
                "webhooks": tally.lost_webhooks,
                "sessions": tally.lost_sessions,
            },
            "latency_ms": latencies,
        });
        format!("{summary}\n")
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 52 bits"
    )]
    fn per_second(&self) -> f64 {
        self.tally.accepted_sessions as f64 / self.seconds.max(1e-9)
    }

    /// Milliseconds within which that share of a thousand was answered.
    fn within(&self, share: u64) -> f64 {
        let count = self.tally.latencies.len() as u64;
        let rank = (count * share).div_ceil(1000).max(1) - 1;
        let latency = usize::try_from(rank)
            .ok()
            .and_then(|rank| self.tally.latencies.get(rank));
        latency.map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(milliseconds: impl Iterator<Item = u64>, status: StatusCode) -> Tally {
        let mut tally = Tally::default();
        milliseconds.for_each(|latency| tally.answered(status, Duration::from_millis(latency), 10));
        tally
    }

    #[test]
    fn latencies_are_those_of_all_connections() {
        let odd = tally((1..=100).step_by(2), StatusCode::ACCEPTED);
        let even = tally((2..=100).step_by(2), StatusCode::ACCEPTED);
        let summary = Summary::of(vec![odd, even], Duration::from_secs(2));
        let latencies = SHARES.map(|(_, share)| summary.within(share));
        assert_eq!(
            latencies.map(|latency| format!("{latency:.0}")),
            ["50", "90", "99", "100", "100"]
        );
        assert!(summary.all_accepted());
        assert!(summary.text().starts_with(
            "100 webhooks in 2.00 s, 1000 sessions accepted: 500 sessions/s\nanswer 202: 100\n"
        ));
        let json: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!(json["answers"], json!({ "202": 100 }));
    }

    #[test]
    fn one_refusal_or_one_missing_answer_is_a_no() {
        let accepted = || tally(1..=2, StatusCode::ACCEPTED);
        let summary = Summary::of(
            vec![accepted(), tally(1..=1, StatusCode::UNAUTHORIZED)],
            Duration::from_secs(1),
        );
        assert!(!summary.all_accepted());
        assert!(
            summary.text().contains("20 sessions accepted"),
            "{}",
            summary.text()
        );
        let mut failed = accepted();
        failed.failed(&anyhow::anyhow!("connection refused"));
        let summary = Summary::of(vec![failed], Duration::from_secs(1));
        assert!(!summary.all_accepted());
        assert!(
            summary.text().contains("no answer, connection refused: 1"),
            "{}",
            summary.text()
        );
        assert!(!Summary::of(vec![], Duration::ZERO).all_accepted());
    }
}
