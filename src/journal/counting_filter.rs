//! A counting filter of the sessions that may have rows in `pending`. Most have none when an event
//! comes in, and none when it is completed; for these the database need not be queried.
//!
//! Rows are counted by a hash of their session, so the memory does not depend on the backlog. If
//! two sessions share a counter, a query may be made in vain; a session with rows is never missed.

use std::hash::{BuildHasher, RandomState};

/// 256 KiB. With the thousand sessions of a busy minute, one query in sixty is in vain.
const SLOTS: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct CountingFilter {
    hasher: RandomState,
    /// The number of rows by hash of their session. `None` while the database may contain rows that
    /// were not counted: then every session may have rows.
    counts: Option<Vec<u32>>,
    /// The changes of the current transaction, for a rollback.
    changed: Vec<(usize, i32)>,
}

impl CountingFilter {
    /// Starts to count. `pending` must be empty.
    pub(super) fn begin(&mut self) {
        self.counts = Some(vec![0; SLOTS]);
    }

    pub(super) fn is_counting(&self) -> bool {
        self.counts.is_some()
    }

    /// Whether the session may have a row in `pending`.
    pub(super) fn may_contain(&self, source: &str, session: &str) -> bool {
        let slot = self.slot(source, session);
        self.counts.as_ref().is_none_or(|counts| counts[slot] > 0)
    }

    /// Records that an event of the session got a row.
    pub(super) fn row_added(&mut self, source: &str, session: &str) {
        self.change(self.slot(source, session), 1);
    }

    /// Records that a row of the session was deleted.
    pub(super) fn row_removed(&mut self, source: &str, session: &str) {
        self.change(self.slot(source, session), -1);
    }

    /// Keeps the changes of the transaction, which is on disk.
    pub(super) fn commit(&mut self) {
        self.changed.clear();
    }

    /// Reverts the changes of a transaction that was rolled back.
    pub(super) fn roll_back(&mut self) {
        while let Some((slot, by)) = self.changed.pop() {
            self.add(slot, -by);
        }
    }

    fn change(&mut self, slot: usize, by: i32) {
        if self.is_counting() {
            self.changed.push((slot, by));
            self.add(slot, by);
        }
    }

    /// If a count overflows or falls below zero, the filter is no longer reliable. It is switched
    /// off, so that no session is missed.
    fn add(&mut self, slot: usize, by: i32) {
        let Some(counts) = &mut self.counts else {
            return;
        };
        match counts[slot].checked_add_signed(by) {
            Some(count) => counts[slot] = count,
            None => self.counts = None,
        }
    }

    fn slot(&self, source: &str, session: &str) -> usize {
        let hash = self.hasher.hash_one((source, session));
        usize::try_from(hash % SLOTS as u64).expect("a place is below their number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_may_be_pending_before_counting() {
        let mut sessions = CountingFilter::default();
        assert!(sessions.may_contain("acme", "a"));
        sessions.row_added("acme", "a");
        sessions.row_removed("acme", "a");
        assert!(sessions.may_contain("acme", "a"));
        sessions.begin();
        assert!(!sessions.may_contain("acme", "a"));
    }

    #[test]
    fn underflow_makes_every_session_pending() {
        let mut sessions = CountingFilter::default();
        sessions.begin();
        sessions.row_removed("acme", "a");
        assert!(sessions.may_contain("acme", "b"));
    }
}
