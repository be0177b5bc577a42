//! The result of a replay.

use super::feed::{Obstacle, ReplayedEvent};
use crate::journal::{JournalError, Seq};
use crate::rabbitmq::Outcome;
use serde::Serialize;
use serde_json::json;

/// How many failures are kept one by one.
const FAILURES_SHOWN_MAX: usize = 10;

/// The result of a replay.
#[derive(Debug, Default, Serialize)]
pub struct ReplayCounts {
    /// Events that were confirmed and not returned.
    pub confirmed: u64,
    /// Confirmed events that were exempt from retention.
    #[serde(skip)]
    pub released: Vec<Seq>,
    /// Events that could not be replayed; the first 10 of them with the reason.
    #[serde(rename = "failed")]
    pub failures: u64,
    pub first_failures: Vec<Failure>,
    /// Pending events, which are left to the bridge.
    pub pending: u64,
    /// Invalid and malformed events, which `--to-queue` leaves out.
    pub rejects: u64,
    /// Events published without a known outcome when the replay ended.
    pub unknown: u64,
    /// How it ended.
    #[serde(skip)]
    pub ended: Ended,
}

/// An event that could not be replayed, and why.
#[derive(Debug, Serialize)]
pub struct Failure {
    pub seq: Seq,
    pub reason: String,
}

/// How a replay ended.
#[derive(Debug, Default)]
pub enum Ended {
    /// Every event has an outcome.
    #[default]
    Complete,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The connection was lost and did not come back in time.
    BrokerAway,
    /// The broker confirmed nothing for `confirm_timeout`.
    Unconfirmed,
    /// The journal cannot be read.
    Unreadable(JournalError),
}

/// The broker confirmed nothing for `confirm_timeout`, in words.
pub const UNCONFIRMED: &str =
    "the broker confirmed nothing for `rabbitmq.confirm_timeout`: has a queue lost its majority?";

impl ReplayCounts {
    /// Counts an event that was published.
    pub fn record(&mut self, event: ReplayedEvent, outcome: Outcome) {
        let why = match outcome {
            Outcome::Delivered => {
                self.confirmed += 1;
                self.released.extend(event.is_exempt.then_some(event.seq));
                return;
            }
            Outcome::Returned(text) => format!("returned: {text}"),
            Outcome::Nacked => "refused by a queue".into(),
            Outcome::ChannelClosed { reason, .. } => reason,
            Outcome::Unknown => "the connection was lost".into(),
        };
        self.failed(event.seq, why);
    }

    /// Counts an event that is not published.
    pub fn skipped(&mut self, seq: Seq, obstacle: Obstacle) {
        match obstacle {
            Obstacle::Pending => self.pending += 1,
            Obstacle::Reject => self.rejects += 1,
            Obstacle::Unfit(why) => self.failed(seq, why),
        }
    }

    fn failed(&mut self, seq: Seq, reason: String) {
        self.failures += 1;
        if self.first_failures.len() < FAILURES_SHOWN_MAX {
            self.first_failures.push(Failure { seq, reason });
        }
    }

    /// Whether every selected event that is not pending was confirmed, and there was at least one.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.ended, Ended::Complete) && self.failures == 0 && self.confirmed > 0
    }

    /// The result as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut object = json!(self);
        object["ended"] = self.ended.as_str().into();
        format!("{object}\n")
    }
}

impl Ended {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
            Self::BrokerAway => "broker away",
            Self::Unconfirmed => "not confirmed",
            Self::Unreadable(_) => "journal unreadable",
        }
    }
}
