//! An event of the journal with its state.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use crate::journal::completed::completed_at;
use crate::journal::interface::{DeadLetterCause, FinalState, Seq};
use crate::journal::stored::Values;
use crate::webhook::routing::{Route, Routing};
use crate::webhook::{DeadLetterReason, Event};

use super::EventState;

/// Events whose numbers differ by at most this are read with one query.
const NEAR_EVENTS: Seq = 64;

/// Final state, attempts, and whether the event is exempt from retention.
type StoredOutcome = (Result<FinalState, String>, u32, bool);
/// The outcome of an event without a row in `outcomes`.
const PUBLISHED: StoredOutcome = (Ok(FinalState::Published), 1, false);

/// An event of the journal, with its state.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The number of the event.
    pub seq: Seq,
    /// The event; with an empty body if bodies were not requested.
    pub event: Event,
    /// Length of the body in bytes, also if the body was not read.
    pub bytes: u64,
    /// Its state, with details.
    pub details: StateDetails,
}

/// The state of an event, with details.
#[derive(Debug, Clone)]
pub enum StateDetails {
    /// The event is neither published nor dead-lettered.
    Pending {
        /// Its route; `None` if the journal does not know it.
        route: Option<Arc<Route>>,
        /// How often it was published and rejected.
        attempts: u32,
        /// Why it is to be dead-lettered, if it is.
        dead_letter_cause: Option<DeadLetterCause>,
    },
    /// The event is complete.
    Completed {
        /// How it was completed, or the stored text if this release does not know that outcome.
        final_state: Result<FinalState, String>,
        /// When it was completed.
        at: Timestamp,
        /// How often it was published to its own route; its dead letter does not count.
        attempts: u32,
        /// Whether it is exempt from retention because its body exists only in the journal.
        is_exempt: bool,
    },
}

impl Entry {
    /// The state without details.
    #[must_use]
    pub fn state(&self) -> EventState {
        match &self.details {
            StateDetails::Pending { .. } => EventState::Pending,
            StateDetails::Completed { final_state, .. } => match final_state {
                Ok(FinalState::Published) => EventState::Published,
                Ok(FinalState::DeadLettered(_)) => EventState::DeadLettered,
                Err(_) => EventState::Damaged,
            },
        }
    }

    /// Whether the event is exempt from retention because its body exists only in the journal.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        matches!(
            self.details,
            StateDetails::Completed {
                is_exempt: true,
                ..
            }
        )
    }
}

/// The states of some events, except those that are pending without a row in `pending`.
#[derive(Default)]
pub(super) struct States(BTreeMap<Seq, StateDetails>);

impl States {
    /// Reads the states of events, whose numbers must be in ascending order. Events with close
    /// numbers are read with one query.
    pub(super) fn of(database: &Connection, seqs: &[Seq]) -> rusqlite::Result<Self> {
        let mut all = BTreeMap::new();
        for near in seqs.chunk_by(|one, next| next - one <= NEAR_EVENTS) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else {
                continue;
            };
            let rows = rows(database, *first, *last)?;
            let is_open = |seq: &Seq| !rows.contains_key(seq);
            let wanted = near.iter().copied().filter(is_open).collect();
            let mut outcomes = outcomes(database, *first, *last)?;
            for (seq, at) in completed_at(database, wanted)? {
                let outcome = outcomes.remove(&seq);
                let (final_state, attempts, is_exempt) = outcome.unwrap_or(PUBLISHED);
                let details = StateDetails::Completed {
                    final_state,
                    at,
                    attempts,
                    is_exempt,
                };
                all.insert(seq, details);
            }
            all.extend(rows);
        }
        Ok(Self(all))
    }

    pub(super) fn entry(&self, seq: Seq, event: Event, bytes: u64, routing: &Routing) -> Entry {
        let in_window = || StateDetails::Pending {
            route: Some(routing.route(&event)),
            attempts: 0,
            dead_letter_cause: None,
        };
        Entry {
            seq,
            bytes,
            details: self.0.get(&seq).cloned().unwrap_or_else(in_window),
            event,
        }
    }
}

/// Reads the rows of `outcomes` in a range.
fn outcomes(
    database: &Connection,
    first: Seq,
    last: Seq,
) -> rusqlite::Result<BTreeMap<Seq, StoredOutcome>> {
    database
        .prepare_cached(
            "SELECT seq, outcome, attempts, kept FROM outcomes WHERE seq BETWEEN ?1 AND ?2",
        )?
        .query_map((first, last), |row| {
            let mut values = Values::of(row);
            let name = values.needed_text(1, "outcome")?;
            let outcome = (
                FinalState::from_name(&name).ok_or(name),
                values.number(2, "attempts")?.unwrap_or_default(),
                values.number::<i64>(3, "kept")?.unwrap_or_default() != 0,
            );
            Ok((row.get(0)?, outcome))
        })?
        .collect()
}

/// Reads the rows of `pending` in a range.
fn rows(
    database: &Connection,
    first: Seq,
    last: Seq,
) -> rusqlite::Result<BTreeMap<Seq, StateDetails>> {
    database
        .prepare_cached(
            "SELECT p.seq, p.attempts, p.reason, p.detail, p.at, r.exchange, r.routing_key
             FROM pending p LEFT JOIN routes r ON r.id = p.route WHERE p.seq BETWEEN ?1 AND ?2",
        )?
        .query_map((first, last), |row| {
            let mut values = Values::of(row);
            let details = StateDetails::Pending {
                route: route(row)?,
                attempts: values.number(1, "attempts")?.unwrap_or_default(),
                dead_letter_cause: match values.text(2, "reason")? {
                    Some(reason) => Some(DeadLetterCause {
                        // The bridge dead-letters such an event as damaged when it is next in turn.
                        reason: DeadLetterReason::from_name(&reason)
                            .unwrap_or(DeadLetterReason::Damaged),
                        detail: values.text(3, "detail")?.unwrap_or_default(),
                        at: values.timestamp(4, "at")?.unwrap_or_default(),
                    }),
                    None => None,
                },
            };
            Ok((row.get(0)?, details))
        })?
        .collect()
}

fn route(row: &Row<'_>) -> rusqlite::Result<Option<Arc<Route>>> {
    let (exchange, routing_key): (Option<Arc<str>>, Option<Arc<str>>) = (row.get(5)?, row.get(6)?);
    let route = exchange.zip(routing_key);
    Ok(route.map(|(exchange, routing_key)| {
        Arc::new(Route {
            exchange,
            routing_key,
        })
    }))
}
