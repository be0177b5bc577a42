//! Copies events from another database under their old numbers: the header `journal-event` of a
//! dead letter stays valid, and no number is used twice.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Name, Store, disk_size};
use crate::journal::interface::{FinalState, Seq};
use crate::journal::stored;
use crate::webhook::{DeadLetterReason, Event};

impl Store {
    /// Adds pending events in order of their numbers, all of which are larger than any number
    /// before.
    pub(in crate::journal) fn import(
        &mut self,
        events: &[(Seq, Arc<Event>)],
    ) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            for (first, events) in stored::by_webhook(events) {
                store.counters.raise(Name::LastSeq, first - 1);
                store.append(&events, &mut Vec::new())?;
            }
            Ok(())
        })
    }

    /// Adds a dead letter whose only body is in the journal.
    pub(in crate::journal) fn import_exempt(
        &mut self,
        seq: Seq,
        event: &Arc<Event>,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        let reason = DeadLetterReason::TooLarge;
        self.in_transaction(|store| {
            let source = &event.envelope.source;
            let routed_status = store.routing.routed_status(event).into();
            stored::write(&store.database, seq, std::slice::from_ref(event))?;
            store.database.execute(
                "INSERT INTO outcomes (seq, outcome, attempts, kept) VALUES (?1, ?2, 0, 1)",
                (seq, FinalState::DeadLettered(reason).as_str()),
            )?;
            store.counters.raise(Name::LastSeq, seq);
            store.completion.completed(seq);
            store.write_completion(at)?;
            store
                .counters
                .add_of_source(Name::Accepted, source, &routed_status);
            store
                .counters
                .add_labelled(Name::DeadLettered, &reason.as_str().into());
            Ok(())
        })
    }

    /// Finishes the copy: records the number of lost events and the last event number that was
    /// used.
    pub(in crate::journal) fn finish_import(
        &mut self,
        lost: u64,
        last_used: Seq,
    ) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            store
                .counters
                .add(Name::LostEvents, disk_size::signed(lost));
            store.counters.raise(Name::LastSeq, last_used);
            Ok(())
        })
    }
}
