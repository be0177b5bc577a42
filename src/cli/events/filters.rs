//! Which events a command selects: the filters of the command line.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use deskbridge::journal::Seq;
use deskbridge::journal::archive::{EventState, Selection};
use deskbridge::webhook::routing::{Routing, UNKNOWN};
use deskbridge::webhook::search::{Phrase, Search};
use uuid::Uuid;

use crate::cli::time::{Between, Clock};

/// Filters of `list`, `export` and `replay`. An event has to match all filters that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Filters {
    /// Only events of this chat session; may be given several times
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// Only events with this status as it was sent, or unknown, invalid, malformed; may be given
    /// several times
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// Only events of this source; may be given several times
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    #[command(flatten)]
    received: Between,
    /// Only events in this state
    #[arg(long, value_name = "STATE")]
    state: Option<StateName>,
    /// Only events with these words next to each other in one text of the body
    #[arg(long, value_name = "TEXT")]
    grep: Option<Phrase>,
    /// Only events with these words in the name or identifier of the creator's company
    #[arg(long, value_name = "NAME")]
    company: Option<Phrase>,
    /// Only events with these words in the name of the creator, a user, a participant or a target
    /// user
    #[arg(long, value_name = "NAME")]
    name: Option<Phrase>,
}

const WORDS_HELP: &str = "\
--grep, --company and --name compare whole words (runs of letters and digits) in any case: `--grep 'password reset'` \
finds \"Password-Reset!\", `--grep pass` does not. The texts of a body are its string values with their escapes \
decoded, except those of members whose name ends with Id or DateTime. A malformed body is one text.";

/// The `after_help` of a command that has the filters.
pub fn after_help(text: &str) -> String {
    format!("{WORDS_HELP}\n\n{text}")
}

/// The state of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateName {
    /// Waits to be published
    #[value(alias = "unsettled")]
    Pending,
    /// Confirmed by the broker
    Published,
    /// Published to the dead-letter exchange and confirmed
    DeadLettered,
    /// Complete, but its stored outcome is damaged
    Damaged,
}

/// An id on the command line: the number of an event, or a `message_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Its number in the journal.
    Seq(Seq),
    /// All events with this `message_id`.
    Message(Uuid),
}

impl Filters {
    /// Whether `--session` is given.
    pub fn has_session(&self) -> bool {
        !self.session.is_empty()
    }

    /// Whether no filter is given.
    pub fn are_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the filters select. `routing` tells which statuses count as unknown.
    ///
    /// # Errors
    /// If a local time occurred twice or never.
    pub fn selection(&self, routing: &Routing, clock: &Clock) -> anyhow::Result<Selection> {
        let [since, until] = self.received.limits(clock)?;
        let is_unknown = self.status.iter().any(|status| status == UNKNOWN);
        Ok(Selection {
            sessions: self.session.clone(),
            statuses: self.status.clone(),
            statuses_but: is_unknown.then(|| routing.statuses().map(ToString::to_string).collect()),
            sources: self.source.clone(),
            since,
            until,
            state: self.state.map(|state| match state {
                StateName::Pending => EventState::Pending,
                StateName::Published => EventState::Published,
                StateName::DeadLettered => EventState::DeadLettered,
                StateName::Damaged => EventState::Damaged,
            }),
            search: Search {
                text: self.grep.clone(),
                company: self.company.clone(),
                name: self.name.clone(),
            },
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
    fn id_is_a_number_or_a_message_id() {
        assert_eq!("17".parse(), Ok(Id::Seq(17)));
        let id = "53d46ec3-435e-8633-874a-52aaacb9ecc7";
        assert_eq!(id.parse::<Id>().unwrap().to_string(), id);
        for wrong in ["", "0", "-3", "1.5", "53d46ec3"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
