//! Events come over from a damaged database, under the numbers they had: the `journal-event` of a
//! dead letter stays true, and no number is used twice.

use jiff::Timestamp;

use super::{Name, Store, stored};
use crate::journal::rows::Seq;
use crate::webhook::{Event, Reason};

impl Store {
    /// Takes over unsettled events, in order of their numbers, all larger than any before.
    pub(in crate::journal) fn carry(&mut self, events: Vec<(Seq, Event)>) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            for (seq, event) in events {
                store.skip_to(seq);
                store.append(&event)?;
            }
            Ok(())
        })
    }

    /// Takes over a dead letter whose body lies only here.
    pub(in crate::journal) fn carry_kept(
        &mut self,
        seq: Seq,
        event: &Event,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        let reason = Reason::TooLarge.as_str();
        self.in_transaction(|store| {
            let source = &event.envelope.source;
            let bytes = i64::try_from(event.body.len()).unwrap_or(i64::MAX);
            let label = store.routing.routed_status(event).into();
            stored::write(&store.database, seq, event)?;
            store.database.execute(
                "INSERT INTO settled (seq, at, outcome, attempts, bytes, kept)
                 VALUES (?1, ?2, ?3, 0, ?4, 1)",
                (seq, at.as_microsecond(), reason, bytes),
            )?;
            store.counters.add_of_source(Name::Accepted, source, &label);
            store
                .counters
                .add_labelled(Name::DeadLettered, &reason.into());
            Ok(())
        })
    }

    /// Ends the carrying over: how many were lost, and which number was the last one used.
    pub(in crate::journal) fn carried(
        &mut self,
        lost: u64,
        last_used: Seq,
    ) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            let lost = i64::try_from(lost).unwrap_or(i64::MAX);
            store.counters.add(Name::LostEvents, lost);
            store.skip_to(last_used + 1);
            Ok(())
        })
    }

    /// The next event gets this number, if it is not used already.
    fn skip_to(&mut self, seq: Seq) {
        let skipped = seq - 1 - self.counters.get(Name::LastSeq);
        if skipped > 0 {
            self.counters.add(Name::LastSeq, skipped);
        }
    }
}
