//! What came of a replay, and how it is told.

use std::fmt::Write;

use deskbridge::journal::{Seq, TakeError};
use deskbridge::telemetry::foreign;
use serde_json::{Value, json};

/// Failures that are told one by one.
const FAILURES_TOLD_MAX: usize = 10;

/// What came of a replay.
#[derive(Debug, Default)]
pub struct Tally {
    /// Confirmed and not returned.
    pub confirmed: u64,
    /// Exempt from retention until now.
    pub released: Vec<Seq>,
    /// Events that could not be replayed, and the first of them with the reason.
    pub failures: u64,
    pub first_failures: Vec<(Seq, String)>,
    /// Left to the bridge, which has not published them yet.
    pub unsettled: u64,
    /// Left out: a consumer's queue takes only chat sessions.
    pub rejects: u64,
    /// Published, but not confirmed when it ended.
    pub unknown: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How a replay ended.
#[derive(Debug, Default)]
pub enum Ended {
    /// Every event has an outcome.
    #[default]
    Complete,
    /// Somebody did not want to wait.
    Interrupted,
    /// The broker did not come back in time.
    BrokerAway,
    /// The broker confirmed nothing for `confirm_timeout`.
    Unconfirmed,
    /// The journal cannot be read.
    Unreadable(TakeError),
}

impl Tally {
    /// Counts an event that could not be replayed.
    pub fn failed(&mut self, seq: Seq, why: String) {
        self.failures += 1;
        if self.first_failures.len() < FAILURES_TOLD_MAX {
            self.first_failures.push((seq, why));
        }
    }

    /// Whether everything that was asked for was done.
    pub fn is_done(&self) -> bool {
        matches!(self.ended, Ended::Complete) && self.failures == 0 && self.confirmed > 0
    }

    /// One object.
    pub fn json(&self) -> String {
        let failures: Vec<Value> = self
            .first_failures
            .iter()
            .map(|(seq, why)| json!({ "seq": seq, "reason": why }))
            .collect();
        let object = json!({
            "confirmed": self.confirmed,
            "failed": self.failures,
            "first_failures": failures,
            "unsettled": self.unsettled,
            "rejects": self.rejects,
            "unknown": self.unknown,
            "ended": self.ended.as_str(),
        });
        format!("{object}\n")
    }

    /// What was done.
    pub fn text(&self) -> String {
        format!("{} confirmed\n", events(self.confirmed))
    }

    /// What was not, one line each.
    pub fn complaints(&self) -> String {
        let mut text = String::new();
        if self.unsettled > 0 {
            let _ = writeln!(
                text,
                "{} left to the bridge, which has still to publish them",
                events(self.unsettled)
            );
        }
        if self.rejects > 0 {
            let _ = writeln!(
                text,
                "{} left out: not chat sessions, but invalid or malformed",
                events(self.rejects)
            );
        }
        if self.failures > 0 {
            let _ = writeln!(text, "{} not replayed:", events(self.failures));
            for (seq, why) in &self.first_failures {
                let _ = writeln!(text, "  event {seq}: {}", foreign::line(why));
            }
            if self.failures > self.first_failures.len() as u64 {
                text.push_str("  …\n");
            }
        }
        if self.unknown > 0 {
            let _ = writeln!(
                text,
                "{} published but not confirmed: they may or may not have arrived",
                events(self.unknown)
            );
        }
        if let Some(sentence) = self.ended.sentence() {
            let _ = writeln!(
                text,
                "{sentence}; what is replayed again has the same message_id"
            );
        }
        text
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

    fn sentence(&self) -> Option<String> {
        match self {
            Self::Complete => None,
            Self::Interrupted => Some("interrupted".into()),
            Self::BrokerAway => Some("the broker went away and did not come back".into()),
            Self::Unconfirmed => Some(
                "the broker confirmed nothing for `rabbitmq.confirm_timeout`: has a queue lost its majority?"
                    .into(),
            ),
            Self::Unreadable(why) => Some(format!("{why} failed: look at its disk")),
        }
    }
}

fn events(count: u64) -> String {
    match count {
        1 => "1 event".into(),
        count => format!("{count} events"),
    }
}
