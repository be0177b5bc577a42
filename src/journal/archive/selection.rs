//! The conditions by which a command selects events.

use std::collections::BTreeSet;

use jiff::Timestamp;
use uuid::Uuid;

use crate::journal::interface::Seq;
use crate::webhook::search::Search;
use crate::webhook::{Content, Event};

/// The state of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventState {
    /// Neither published nor dead-lettered yet.
    Pending,
    /// The broker has confirmed it.
    Published,
    /// The broker has confirmed its dead letter.
    DeadLettered,
    /// Complete, but its outcome is unknown because its row is damaged.
    Damaged,
}

impl EventState {
    /// The name in options and output of commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Published => "published",
            Self::DeadLettered => "dead-lettered",
            Self::Damaged => "damaged",
        }
    }
}

/// Conditions for events. An event is selected if it fulfils all that are given; `statuses` and
/// `statuses_but` are one condition.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Any of these session ids.
    pub sessions: Vec<String>,
    /// Any of these statuses as they were sent, or reasons of rejects.
    pub statuses: Vec<String>,
    /// Or any status of a session except these.
    pub statuses_but: Option<Vec<String>>,
    /// Any of these sources.
    pub sources: Vec<String>,
    /// Received at this time or later.
    pub since: Option<Timestamp>,
    /// Received before this time.
    pub until: Option<Timestamp>,
    /// In this state.
    pub state: Option<EventState>,
    /// Phrases that its text contains.
    pub search: Search,
    /// With this `message_id`.
    pub message_id: Option<Uuid>,
    /// Any of these event numbers.
    pub seqs: Option<BTreeSet<Seq>>,
    /// The highest event number.
    pub seq_max: Option<Seq>,
}

/// A range of event numbers: greater than `after`, up to and including `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) after: Seq,
    pub(super) last: Seq,
}

impl Selection {
    /// The range outside of which no event can be selected.
    pub(super) fn bounds(&self) -> Bounds {
        let seqs = self.seqs.as_ref();
        let first = seqs.and_then(|seqs| seqs.first()).map_or(0, |seq| seq - 1);
        let last = seqs.and_then(|seqs| seqs.last()).copied();
        let limit = self.seq_max.unwrap_or(Seq::MAX);
        Bounds {
            after: first,
            last: last.map_or(limit, |last| last.min(limit)),
        }
    }

    /// Whether an event fulfils all conditions except those on its state and its text.
    pub(super) fn selects(&self, seq: Seq, event: &Event) -> bool {
        let is_any = |list: &[String], text: &str| list.is_empty() || is_in(list, text);
        let received_at = event.envelope.received_at;
        self.seqs.as_ref().is_none_or(|seqs| seqs.contains(&seq))
            && self.since.is_none_or(|since| received_at >= since)
            && self.until.is_none_or(|until| received_at < until)
            && self.message_id.is_none_or(|id| event.message_id == id)
            && is_any(&self.sources, &event.envelope.source)
            && is_any(&self.sessions, event.session().unwrap_or_default())
            && self.selects_status(&event.content)
    }

    /// Whether the condition on the state is fulfilled.
    pub(super) fn selects_state(&self, state: EventState) -> bool {
        self.state.is_none_or(|wanted| wanted == state)
    }

    fn selects_status(&self, content: &Content) -> bool {
        if self.statuses.is_empty() && self.statuses_but.is_none() {
            return true;
        }
        match content {
            Content::Session(fields) => {
                let but = self.statuses_but.as_ref();
                is_in(&self.statuses, &fields.status)
                    || but.is_some_and(|but| !is_in(but, &fields.status))
            }
            Content::Reject(reject) => is_in(&self.statuses, reject.reason.as_str()),
        }
    }
}

fn is_in(list: &[String], text: &str) -> bool {
    list.iter().any(|one| one == text)
}
