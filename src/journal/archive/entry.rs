//! An event of the journal with what has become of it.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Row;

use crate::journal::rows::{Condemned, Seq, Settlement};
use crate::journal::stored::{self, Values, columns};
use crate::webhook::routing::Route;
use crate::webhook::{Event, Reason};

use super::State;

/// What [`read`] wants, with the body and without.
macro_rules! entry_columns {
    ($body:literal) => {
        concat!(
            columns!(body: $body),
            ", octet_length(e.body), s.at, s.outcome, s.attempts, s.kept, p.attempts, p.reason, \
             p.detail, p.at, r.exchange, r.routing_key"
        )
    };
}
pub(super) const BODIES: &str = entry_columns!("e.body");
pub(super) const NO_BODIES: &str = entry_columns!("NULL");

pub(super) const TABLES: &str = "FROM events e LEFT JOIN settled s ON s.seq = e.seq
     LEFT JOIN pending p ON p.seq = e.seq LEFT JOIN routes r ON r.id = p.route";

/// An event as the journal has it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number.
    pub seq: Seq,
    /// The event; without its body if that was not asked for.
    pub event: Event,
    /// Bytes of the body.
    pub bytes: u64,
    /// What has become of it.
    pub place: Place,
}

/// Where an event stands.
#[derive(Debug, Clone)]
pub enum Place {
    /// It waits for the broker.
    Unsettled {
        /// Where it goes.
        route: Option<Arc<Route>>,
        /// How often it was published and refused.
        attempts: u32,
        /// What made it a dead letter, if it has become one.
        condemned: Option<Condemned>,
    },
    /// It is done.
    Settled {
        /// How it ended; or what stands there instead, which this release does not know.
        settlement: Result<Settlement, String>,
        /// When.
        at: Timestamp,
        /// How often it was published where it was going; its dead letter does not count.
        attempts: u32,
        /// Exempt from retention: its body lies only here.
        is_kept: bool,
    },
}

impl Entry {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match self.place {
            Place::Unsettled { .. } => State::Unsettled,
            Place::Settled {
                settlement: Ok(Settlement::Published),
                ..
            } => State::Published,
            Place::Settled {
                settlement: Ok(Settlement::DeadLettered(_)),
                ..
            } => State::DeadLettered,
            Place::Settled {
                settlement: Err(_), ..
            } => State::Damaged,
        }
    }

    /// Whether retention spares it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.place, Place::Settled { is_kept: true, .. })
    }
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Entry> {
    const PLACE: usize = stored::COLUMNS;
    let mut values = Values::of(row);
    let place = match values.text(PLACE + 2, "outcome")? {
        Some(outcome) => Place::Settled {
            settlement: Settlement::from_name(&outcome).ok_or(outcome),
            at: values.timestamp(PLACE + 1, "at")?.unwrap_or_default(),
            attempts: values.number(PLACE + 3, "attempts")?.unwrap_or_default(),
            is_kept: values.number::<i64>(PLACE + 4, "kept")?.unwrap_or_default() != 0,
        },
        None => Place::Unsettled {
            route: route(row)?,
            attempts: values.number(PLACE + 5, "attempts")?.unwrap_or_default(),
            condemned: match values.text(PLACE + 6, "reason")? {
                Some(reason) => Some(Condemned {
                    // The bridge makes a damaged event of it when its turn comes.
                    reason: Reason::from_name(&reason).unwrap_or(Reason::Damaged),
                    detail: values.text(PLACE + 7, "detail")?.unwrap_or_default(),
                    at: values.timestamp(PLACE + 8, "at")?.unwrap_or_default(),
                }),
                None => None,
            },
        },
    };
    Ok(Entry {
        seq: row.get(0)?,
        event: stored::read(row)?.event,
        bytes: row
            .get::<_, Option<i64>>(PLACE)?
            .unwrap_or_default()
            .unsigned_abs(),
        place,
    })
}

fn route(row: &Row<'_>) -> rusqlite::Result<Option<Arc<Route>>> {
    let text = |column| row.get::<_, Option<Arc<str>>>(stored::COLUMNS + column);
    Ok(match (text(9)?, text(10)?) {
        (Some(exchange), Some(routing_key)) => Some(Arc::new(Route {
            exchange,
            routing_key,
        })),
        _ => None,
    })
}
