//! Applies changes of state: completes an event and promotes the next one of its session, or
//! reschedules it.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::failpoint::{self, Failpoint};
use crate::journal::disk_size;
use crate::journal::interface::{
    DeadLetterCause, FinalState, RouteId, Seq, Transition, TransitionApplied,
};
use crate::journal::stored::Part;
use crate::journal::window::Emptied;

/// The consequences of removing an event from the queue.
struct Gap {
    promoted: Option<RouteId>,
    /// The event's row of `webhooks`, if none of its other events is pending.
    closed: Option<Emptied>,
}

impl Store {
    pub(super) fn change(&mut self, change: &Transition) -> rusqlite::Result<TransitionApplied> {
        let (seq, applied) = match change {
            Transition::Complete {
                seq,
                routed_status,
                final_state,
                attempts,
            } => (
                *seq,
                self.complete(*seq, routed_status, *final_state, *attempts)?,
            ),
            Transition::Reschedule {
                seq,
                due_ms,
                attempts,
                dead_letter_cause,
            } => {
                let cause = dead_letter_cause.as_ref();
                (*seq, self.reschedule(*seq, *due_ms, *attempts, cause)?)
            }
        };
        match applied {
            Some(applied) => Ok(applied),
            None => self.acknowledge_stale_change(seq),
        }
    }

    /// Writes the row of `completed` for the current transaction.
    pub(super) fn write_completion(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        if self.completion.is_empty() {
            return Ok(());
        }
        let completion = std::mem::take(&mut self.completion);
        self.swept.last = completion.write(&self.database, self.swept.last, now)?;
        Ok(())
    }

    /// `None` if the event is no longer pending.
    fn complete(
        &mut self,
        seq: Seq,
        routed_status: &Arc<str>,
        final_state: FinalState,
        attempts: u32,
    ) -> rusqlite::Result<Option<TransitionApplied>> {
        failpoint::pass(Failpoint::JournalSettleBefore);
        let is_usual = final_state == FinalState::Published && attempts == 1;
        if !is_usual && let Some(part) = self.window.part_mut(seq) {
            part.has_outcomes = true;
        }
        let Some(gap) = self.take_out(seq)? else {
            return Ok(None);
        };
        self.completion.completed(seq);
        if !is_usual {
            self.database
                .prepare_cached(
                    "INSERT INTO outcomes (seq, outcome, attempts, kept) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((seq, final_state.as_str(), attempts, final_state.is_exempt()))?;
        }
        self.counters.add(Name::BacklogEvents, -1);
        match final_state {
            FinalState::Published => self.counters.add_labelled(Name::Published, routed_status),
            FinalState::DeadLettered(reason) => self
                .counters
                .add_labelled(Name::DeadLettered, &Arc::from(reason.as_str())),
        }
        if let Some(part) = gap.closed {
            self.counters
                .add(Name::BacklogBytes, -disk_size::signed(part.bytes));
            self.retain(&part)?;
        }
        failpoint::pass(Failpoint::JournalSettleAfter);
        let promoted = gap.promoted;
        Ok(Some(TransitionApplied::Completed { seq, promoted }))
    }

    /// `None` if the event is no longer pending.
    fn take_out(&mut self, seq: Seq) -> rusqlite::Result<Option<Gap>> {
        if let Some(left) = self.window.remove(seq) {
            let promoted = match (left.promoted, &left.event.session) {
                (None, Some(session)) => self.promote(&left.source, session)?,
                (promoted, _) => promoted,
            };
            let closed = match left.emptied {
                Some(part) if part.has_rows && self.is_any_pending(part.first, part.last)? => None,
                emptied => emptied,
            };
            return Ok(Some(Gap { promoted, closed }));
        }
        let promoted = match self.delete_pending(seq)? {
            Some((source, Some(session))) => self.promote(&source, &session)?,
            Some((_, None)) => None,
            None => return Ok(None),
        };
        let closed = self.closed_by_row(seq)?;
        Ok(Some(Gap { promoted, closed }))
    }

    /// The row of `webhooks` of an event that had a row in `pending`, if that was the last pending
    /// event of the row.
    fn closed_by_row(&mut self, seq: Seq) -> rusqlite::Result<Option<Emptied>> {
        if self.window.part_mut(seq).is_some() {
            return Ok(None);
        }
        let containing =
            "SELECT first, first + events - 1, octet_length(fields) + octet_length(bodies)
             FROM webhooks WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
        let found: Option<(Seq, Seq, i64)> = self
            .database
            .prepare_cached(containing)?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((first, last, bytes)) = found.filter(|(_, last, _)| seq <= *last) else {
            return Ok(None);
        };
        if self.is_any_pending(first, last)? {
            return Ok(None);
        }
        Ok(Some(Emptied {
            first,
            last,
            bytes: disk_size::of_part(bytes.unsigned_abs()),
            has_rows: true,
            has_outcomes: true,
        }))
    }

    /// Hands a row of `webhooks` without pending events to retention, unless it contains a body
    /// whose only copy is there; then it is kept until that body is released.
    pub(super) fn retain(&mut self, part: &Emptied) -> rusqlite::Result<()> {
        if part.has_outcomes && self.is_any_exempt(part.first, part.last)? {
            return Ok(());
        }
        let bytes = disk_size::signed(part.bytes);
        self.completion.closed(part.first, part.last, bytes);
        self.counters.add(Name::RetainedBytes, bytes);
        Ok(())
    }

    fn is_any_exempt(&self, first: Seq, last: Seq) -> rusqlite::Result<bool> {
        self.database
            .prepare_cached("SELECT 1 FROM outcomes WHERE seq BETWEEN ?1 AND ?2 AND kept = 1")?
            .exists((first, last))
    }

    /// Ends the exemption of an event from retention.
    pub(super) fn end_exemption(&mut self, seq: Seq) -> rusqlite::Result<()> {
        let is_released = self
            .database
            .prepare_cached("UPDATE outcomes SET kept = 0 WHERE seq = ?1 AND kept = 1")?
            .execute([seq])?
            > 0;
        if is_released && let Some(part) = self.closed_by_row(seq)? {
            self.retain(&part)?;
        }
        Ok(())
    }

    /// `None` if the event is no longer pending.
    fn reschedule(
        &mut self,
        seq: Seq,
        due_ms: u64,
        attempts: u32,
        dead_letter_cause: Option<&DeadLetterCause>,
    ) -> rusqlite::Result<Option<TransitionApplied>> {
        self.give_rows_from(seq)?;
        if let Some(letter) = dead_letter_cause {
            self.mark_dead_letter(seq, letter)?;
        }
        let due = match due_ms {
            0 => 0,
            _ => disk_size::signed(due_ms).saturating_add(self.window.due_base),
        };
        let route_id = self
            .database
            .prepare_cached(
                "UPDATE pending SET due = ?2, attempts = ?3 WHERE seq = ?1 RETURNING route",
            )?
            .query_row((seq, due, attempts), |row| row.get(0))
            .optional()?;
        Ok(route_id.map(|route_id| TransitionApplied::Rescheduled {
            seq,
            route_id,
            due_ms,
        }))
    }

    fn mark_dead_letter(&mut self, seq: Seq, letter: &DeadLetterCause) -> rusqlite::Result<()> {
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

    /// Acknowledges a change of an event that is no longer pending. The forwarder waits for an
    /// acknowledgement in this case, too, and must learn with which route the session continues.
    fn acknowledge_stale_change(&self, seq: Seq) -> rusqlite::Result<TransitionApplied> {
        let part = Part::containing(&self.database, seq)?;
        let event = part.map(|part| part.event_without_body(seq));
        let mut first = None;
        if let Some(event) = &event
            && let Some(session) = event.session_id()
        {
            let source = &event.envelope.source;
            first = match self.window.first_of(source, session) {
                None => self.first_pending(source, session)?,
                in_window => in_window,
            };
        }
        let promoted = first.map(|(_, route_id)| route_id);
        Ok(TransitionApplied::Completed { seq, promoted })
    }
}
