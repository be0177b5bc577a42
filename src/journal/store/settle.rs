//! What becomes of events: settled, and the next of the session promoted; or deferred.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row};

use super::{Name, Store};
use crate::failpoint::{self, Place};
use crate::journal::rows::{Ack, Change, Condemned, RouteId, Seq, Settlement};
use crate::journal::weight;

/// How an event ended.
struct Ending<'c> {
    seq: Seq,
    label: &'c Arc<str>,
    settlement: Settlement,
    attempts: u32,
    at: Timestamp,
}

impl Store {
    pub(super) fn change(&mut self, change: &Change, now: Timestamp) -> rusqlite::Result<Ack> {
        let (seq, ack) = match change {
            Change::Settle {
                seq,
                label,
                settlement,
                attempts,
            } => {
                let ending = Ending {
                    seq: *seq,
                    label,
                    settlement: *settlement,
                    attempts: *attempts,
                    at: now,
                };
                (*seq, self.settle(&ending)?)
            }
            Change::Defer {
                seq,
                due_ms,
                attempts,
                condemned,
            } => {
                let ack = self.defer(*seq, *due_ms, *attempts, condemned.as_ref())?;
                (*seq, ack)
            }
        };
        match ack {
            Some(ack) => Ok(ack),
            None => self.settled_before(seq),
        }
    }

    /// `None` if the event is not pending any more.
    fn settle(&mut self, ending: &Ending<'_>) -> rusqlite::Result<Option<Ack>> {
        failpoint::pass(Place::JournalSettleBefore);
        // Two statements: RETURNING would build a table of its own, with its own pages, each time.
        let found = self
            .database
            .prepare_cached("SELECT source, session, bytes FROM pending WHERE seq = ?1")?
            .query_row([ending.seq], |row: &Row<'_>| {
                let session: Option<String> = row.get(1)?;
                Ok((row.get::<_, String>(0)?, session, row.get::<_, i64>(2)?))
            })
            .optional()?;
        let Some((source, session, bytes)) = found else {
            return Ok(None);
        };
        self.delete("DELETE FROM pending WHERE seq = ?1", ending.seq)?;
        let promoted = match session {
            Some(session) => {
                self.sessions.left(&source, &session);
                self.promote(&source, &session)?
            }
            None => None,
        };
        if self.is_retaining || ending.settlement.is_kept() {
            self.retain(ending, bytes)?;
        } else {
            self.delete("DELETE FROM events WHERE seq = ?1", ending.seq)?;
        }
        self.counters.add(Name::BacklogEvents, -1);
        self.counters
            .add(Name::BacklogBytes, -weight::of_row(bytes));
        match ending.settlement {
            Settlement::Published => self.counters.add_labelled(Name::Published, ending.label),
            Settlement::DeadLettered(reason) => self
                .counters
                .add_labelled(Name::DeadLettered, &Arc::from(reason.as_str())),
        }
        failpoint::pass(Place::JournalSettleAfter);
        let seq = ending.seq;
        Ok(Some(Ack::Settled { seq, promoted }))
    }

    fn promote(&self, source: &str, session: &str) -> rusqlite::Result<Option<RouteId>> {
        let Some((next, route_id)) = self.first_of(source, session)? else {
            return Ok(None);
        };
        self.database
            .prepare_cached("UPDATE pending SET head = 1 WHERE seq = ?1")?
            .execute([next])?;
        Ok(Some(route_id))
    }

    fn retain(&mut self, ending: &Ending<'_>, bytes: i64) -> rusqlite::Result<()> {
        let is_kept = ending.settlement.is_kept();
        self.database
            .prepare_cached(
                "INSERT INTO settled (seq, at, outcome, attempts, bytes, kept)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                ending.seq,
                ending.at.as_microsecond(),
                ending.settlement.as_str(),
                ending.attempts,
                bytes,
                is_kept,
            ))?;
        if !is_kept {
            self.counters
                .add(Name::RetainedBytes, weight::of_row(bytes));
        }
        Ok(())
    }

    /// `None` if the event is not pending any more.
    fn defer(
        &mut self,
        seq: Seq,
        due_ms: u64,
        attempts: u32,
        condemned: Option<&Condemned>,
    ) -> rusqlite::Result<Option<Ack>> {
        if let Some(letter) = condemned {
            self.condemn(seq, letter)?;
        }
        let due = i64::try_from(due_ms).unwrap_or(i64::MAX);
        let route_id = self
            .database
            .prepare_cached(
                "UPDATE pending SET due = ?2, attempts = ?3 WHERE seq = ?1 RETURNING route",
            )?
            .query_row((seq, due, attempts), |row| row.get(0))
            .optional()?;
        Ok(route_id.map(|route_id| Ack::Deferred {
            seq,
            route_id,
            due_ms,
        }))
    }

    fn condemn(&mut self, seq: Seq, letter: &Condemned) -> rusqlite::Result<()> {
        let route = self.routing.dead_letter_route(letter.reason);
        let route_id = self.route_id(&route)?;
        self.database
            .prepare_cached(
                "UPDATE pending SET route = ?2, reason = ?3, detail = ?4, at = ?5 WHERE seq = ?1",
            )?
            .execute((
                seq,
                route_id,
                letter.reason.as_str(),
                &letter.detail,
                letter.at.as_microsecond(),
            ))
            .map(drop)
    }

    /// Of an event that is not pending any more. Whoever waits for this must hear it all the
    /// same, and which route the session goes on with.
    fn settled_before(&self, seq: Seq) -> rusqlite::Result<Ack> {
        let promoted = self
            .database
            .prepare_cached(
                "SELECT p.route FROM events e
                 JOIN pending p ON p.source = e.source AND p.session = e.session
                 WHERE e.seq = ?1 ORDER BY p.seq LIMIT 1",
            )?
            .query_row([seq], |row| row.get(0))
            .optional()?;
        Ok(Ack::Settled { seq, promoted })
    }
}
