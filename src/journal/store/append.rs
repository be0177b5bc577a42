//! Appends webhooks: one row each, or one row per part. Events go into the window, or get rows in
//! `pending` if their session has such rows. If the window has no room, they are read later.

use std::sync::Arc;

use super::{Name, Store};
use crate::failpoint::{self, Failpoint};
use crate::journal::handover::strip_body;
use crate::journal::interface::{QueuedEvent, Seq};
use crate::journal::window::OpenPart;
use crate::journal::{disk_size, stored};
use crate::webhook::Event;

impl Store {
    /// Appends consecutive events of one webhook.
    pub(super) fn append(
        &mut self,
        events: &[Arc<Event>],
        fresh: &mut Vec<QueuedEvent>,
    ) -> rusqlite::Result<()> {
        for part in stored::parts(events) {
            self.append_part(part, fresh)?;
        }
        Ok(())
    }

    fn append_part(
        &mut self,
        events: &[Arc<Event>],
        fresh: &mut Vec<QueuedEvent>,
    ) -> rusqlite::Result<()> {
        let first = self.counters.get(Name::LastSeq) + 1;
        let bytes = disk_size::of_part(stored::write(&self.database, first, events)?);
        let envelope = &events[0].envelope;
        let source = Arc::clone(&envelope.source);
        let part = OpenPart::new(source, envelope.received_at, bytes, events.len());
        if self.window.tail.is_none() && !self.has_room(events.len()) {
            self.window.tail = Some(first);
        }
        let is_of_tail = self.window.tail.is_some();
        if !is_of_tail {
            self.window.open(first, part);
        }
        for (seq, event) in (first..).zip(events) {
            failpoint::pass(Failpoint::JournalAppendBefore);
            let routed_status: Arc<str> = Arc::from(self.routing.routed_status(event));
            self.counters
                .add_of_source(Name::Accepted, &envelope.source, &routed_status);
            if !is_of_tail {
                fresh.push(self.enqueue(first, seq, event, routed_status)?);
            }
            failpoint::pass(Failpoint::JournalAppendAfter);
        }
        self.window.opened(first);
        let count = disk_size::signed(events.len() as u64);
        self.counters.add(Name::LastSeq, count);
        self.counters.add(Name::BacklogEvents, count);
        self.counters
            .add(Name::BacklogBytes, disk_size::signed(bytes));
        Ok(())
    }

    /// Adds the next event of a part to the window, or gives it a row in `pending`.
    fn enqueue(
        &mut self,
        first: Seq,
        seq: Seq,
        event: &Arc<Event>,
        routed_status: Arc<str>,
    ) -> rusqlite::Result<QueuedEvent> {
        let source = &event.envelope.source;
        let mut waiting = self.waiting(event, routed_status, event.body.len() as u64)?;
        waiting.is_announced = true;
        let session = &waiting.session;
        let is_behind_row = match session {
            Some(session) => self.first_pending(source, session)?.is_some(),
            None => false,
        };
        // It must not overtake an earlier event of its session that the forwarder does not know. If
        // it is handed over without its body, the forwarder learns that it must fetch from the
        // journal.
        let is_whole = !is_behind_row
            && session
                .as_ref()
                .is_none_or(|session| self.window.is_announced(source, session));
        let mut held = QueuedEvent {
            seq,
            event: Arc::clone(event),
            routed_status: Arc::clone(&waiting.routed_status),
            route: Arc::clone(&waiting.route),
            route_id: waiting.route_id,
            is_head: false,
            attempts: 0,
            dead_letter_cause: None,
            is_damaged: false,
            has_body: true,
        };
        if !is_whole {
            strip_body(&mut held);
        }
        if is_behind_row {
            self.window.push(first, None);
            self.insert_pending(seq, source, &waiting, false)?;
        } else {
            held.is_head = self.window.push(first, Some(waiting));
        }
        Ok(held)
    }
}
