//! Which events a command asks for, as conditions of SQL.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{ToSql, named_params};

use crate::journal::rows::Seq;
use crate::webhook::Reason;

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for the broker.
    Unsettled,
    /// It was confirmed.
    Published,
    /// The dead-letter exchange has confirmed it.
    DeadLettered,
    /// It is settled, but how is not known: its row is damaged.
    Damaged,
}

impl State {
    /// The name in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsettled => "unsettled",
            Self::Published => "published",
            Self::DeadLettered => "dead-lettered",
            Self::Damaged => "damaged",
        }
    }
}

/// What to look for; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Any of these session ids.
    pub sessions: Vec<String>,
    /// Any of these statuses as they were sent, or reasons of rejects.
    pub statuses: Vec<String>,
    /// Or a status that is none of these.
    pub statuses_but: Option<Vec<String>>,
    /// Any of these sources.
    pub sources: Vec<String>,
    /// Received then or later.
    pub since: Option<Timestamp>,
    /// Received before.
    pub until: Option<Timestamp>,
    /// Where it stands.
    pub state: Option<State>,
    /// Any of these.
    pub seqs: Option<BTreeSet<Seq>>,
    /// None behind this one.
    pub seq_max: Option<Seq>,
}

/// Events behind one and up to another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) after: Seq,
    pub(super) last: Seq,
}

/// Of the tables of an entry.
pub(super) const CONDITIONS: &str = "e.seq > :after AND e.seq <= :last
   AND (:seqs IS NULL OR e.seq IN (SELECT value FROM json_each(:seqs)))
   AND (:since IS NULL OR e.received_at >= :since)
   AND (:until IS NULL OR e.received_at < :until)
   AND (:sources IS NULL OR e.source IN (SELECT value FROM json_each(:sources)))
   AND (:sessions IS NULL OR e.session IN (SELECT value FROM json_each(:sessions)))
   AND (:statuses IS NULL AND :but IS NULL
        OR e.status IN (SELECT value FROM json_each(:statuses))
        OR e.reject_reason IN (SELECT value FROM json_each(:statuses))
        OR :but IS NOT NULL AND e.status NOT IN (SELECT value FROM json_each(:but)))
   AND (:state IS NULL
        OR :state = 'unsettled' AND s.seq IS NULL
        OR :state = 'published' AND s.outcome = 'published'
        OR :state = 'dead-lettered' AND s.outcome IN (SELECT value FROM json_each(:reasons))
        OR :state = 'damaged' AND s.outcome <> 'published'
           AND s.outcome NOT IN (SELECT value FROM json_each(:reasons)))";

impl Selection {
    /// Where the events can be at all.
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

    /// Runs a statement that has [`CONDITIONS`].
    pub(super) fn query<T>(
        &self,
        bounds: &Bounds,
        run: impl FnOnce(&[(&str, &dyn ToSql)]) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let micros = |at: Option<Timestamp>| at.map(Timestamp::as_microsecond);
        let list = |texts: &[String]| (!texts.is_empty()).then(|| json(texts));
        run(named_params! {
            ":after": bounds.after,
            ":last": bounds.last,
            ":seqs": self.seqs.as_ref().map(json),
            ":since": micros(self.since),
            ":until": micros(self.until),
            ":sources": list(&self.sources),
            ":sessions": list(&self.sessions),
            ":statuses": list(&self.statuses),
            ":but": self.statuses_but.as_ref().map(json),
            ":state": self.state.map(State::as_str),
            ":reasons": json(&Reason::ALL.map(Reason::as_str)),
        })
    }
}

fn json(values: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(values).expect("texts and numbers can be written as JSON")
}
