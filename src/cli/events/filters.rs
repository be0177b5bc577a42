//! Which events a command is about: filters as they are typed.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use deskbridge::journal::Seq;
use deskbridge::journal::archive::{Selection, State};
use deskbridge::webhook::routing::{Routing, UNKNOWN};
use uuid::Uuid;

use crate::cli::time::{Between, Clock};

/// Filters of `list` and `replay`; all that are given must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct Filters {
    /// Only of this chat session; may be given several times
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// Only with this status as it was sent; also unknown, invalid, malformed; may be given several times
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// Only of this source; may be given several times
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    #[command(flatten)]
    received: Between,
    /// Only in this state
    #[arg(long, value_name = "STATE")]
    state: Option<StateName>,
}

/// What has become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateName {
    /// It waits for the broker
    Unsettled,
    /// The broker has confirmed it
    Published,
    /// It lies in the dead-letter exchange's queue, or did
    DeadLettered,
    /// It is settled, but how is not known: its row is damaged
    Damaged,
}

/// One event by its number, or by its `message_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Its number in the journal.
    Seq(Seq),
    /// All that carry it.
    Message(Uuid),
}

impl Filters {
    /// Whether sessions are named.
    pub fn has_session(&self) -> bool {
        !self.session.is_empty()
    }

    /// Whether nothing is left out.
    pub fn are_empty(&self) -> bool {
        self.session.is_empty()
            && self.status.is_empty()
            && self.source.is_empty()
            && self.received.is_empty()
            && self.state.is_none()
    }

    /// What they select; the configuration knows which statuses are unknown.
    ///
    /// # Errors
    /// If a local time was twice or never.
    pub fn selection(&self, routing: &Routing, clock: &Clock) -> anyhow::Result<Selection> {
        let received = self.received.period(clock)?;
        let is_unknown = self.status.iter().any(|status| status == UNKNOWN);
        Ok(Selection {
            sessions: self.session.clone(),
            statuses: self.status.clone(),
            statuses_but: is_unknown.then(|| routing.statuses().map(ToString::to_string).collect()),
            sources: self.source.clone(),
            since: received.since,
            until: received.until,
            state: self.state.map(|state| match state {
                StateName::Unsettled => State::Unsettled,
                StateName::Published => State::Published,
                StateName::DeadLettered => State::DeadLettered,
                StateName::Damaged => State::Damaged,
            }),
            ..Selection::default()
        })
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seq = text.parse().ok().filter(|seq| *seq > 0).map(Self::Seq);
        let message_id = || Uuid::try_parse(text).ok().map(Self::Message);
        seq.or_else(message_id)
            .ok_or_else(|| "expected the number of an event, such as 17, or its message_id".into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => write!(formatter, "{seq}"),
            Self::Message(id) => write!(formatter, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_number_or_a_message_id() {
        assert_eq!("17".parse(), Ok(Id::Seq(17)));
        let id = "53d46ec3-435e-8633-874a-52aaacb9ecc7";
        assert_eq!(id.parse::<Id>().unwrap().to_string(), id);
        for wrong in ["", "0", "-3", "1.5", "53d46ec3"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
