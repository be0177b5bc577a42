//! Which sessions may have something unsettled. Most have nothing when an event comes in and nothing
//! left when it is settled: those need not be looked for in the database.
//!
//! Counts by hash, so that its size does not depend on the backlog: a session that shares its place
//! with another is looked for in vain, one that waits is never passed over.

use std::hash::{BuildHasher, RandomState};

/// 256 KiB. With the thousand sessions of a busy minute one look in sixty is in vain.
const PLACES: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Sessions {
    hasher: RandomState,
    /// Unsettled events by their session's place. `None` while the database may have some that were
    /// not counted: then every session may have.
    counts: Option<Vec<u32>>,
    /// What the transaction under way has changed.
    changed: Vec<(usize, Step)>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Came,
    Left,
}

impl Sessions {
    /// Of a database that may have unsettled events.
    pub(super) fn unknown() -> Self {
        Self {
            hasher: RandomState::new(),
            counts: None,
            changed: Vec::new(),
        }
    }

    /// Counts from now on, when the database has nothing unsettled.
    pub(super) fn begin(&mut self) {
        self.counts = Some(vec![0; PLACES]);
    }

    pub(super) fn is_counting(&self) -> bool {
        self.counts.is_some()
    }

    /// Whether the session may have an unsettled event.
    pub(super) fn may_wait(&self, source: &str, session: &str) -> bool {
        let place = self.place(source, session);
        self.counts.as_ref().is_none_or(|counts| counts[place] > 0)
    }

    /// An event of the session is unsettled from now on.
    pub(super) fn came(&mut self, source: &str, session: &str) {
        self.change(self.place(source, session), Step::Came);
    }

    /// An event of the session is settled.
    pub(super) fn left(&mut self, source: &str, session: &str) {
        self.change(self.place(source, session), Step::Left);
    }

    /// The transaction is on the disk.
    pub(super) fn commit(&mut self) {
        self.changed.clear();
    }

    /// The transaction was not to be.
    pub(super) fn roll_back(&mut self) {
        while let Some((place, step)) = self.changed.pop() {
            let back = match step {
                Step::Came => Step::Left,
                Step::Left => Step::Came,
            };
            self.step(place, back);
        }
    }

    fn change(&mut self, place: usize, step: Step) {
        if self.is_counting() {
            self.changed.push((place, step));
            self.step(place, step);
        }
    }

    /// A count that cannot be is no reason to pass anybody over: nothing is known then.
    fn step(&mut self, place: usize, step: Step) {
        let Some(counts) = &mut self.counts else {
            return;
        };
        let count = match step {
            Step::Came => counts[place].checked_add(1),
            Step::Left => counts[place].checked_sub(1),
        };
        match count {
            Some(count) => counts[place] = count,
            None => self.counts = None,
        }
    }

    fn place(&self, source: &str, session: &str) -> usize {
        let hash = self.hasher.hash_one((source, session));
        usize::try_from(hash % PLACES as u64).expect("a place is below their number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> Sessions {
        let mut sessions = Sessions::unknown();
        sessions.begin();
        sessions
    }

    #[test]
    fn everybody_may_wait_until_it_is_known_that_nobody_does() {
        let mut sessions = Sessions::unknown();
        assert!(sessions.may_wait("acme", "a"));
        sessions.came("acme", "a");
        sessions.left("acme", "a");
        assert!(sessions.may_wait("acme", "a"));
        sessions.begin();
        assert!(!sessions.may_wait("acme", "a"));
    }

    #[test]
    fn a_session_waits_until_its_last_event_has_left() {
        let mut sessions = counting();
        sessions.came("acme", "a");
        sessions.came("acme", "a");
        sessions.left("acme", "a");
        assert!(sessions.may_wait("acme", "a"));
        sessions.left("acme", "a");
        assert!(!sessions.may_wait("acme", "a"));
    }

    #[test]
    fn a_transaction_that_was_not_to_be_has_changed_nothing() {
        let mut sessions = counting();
        sessions.came("acme", "a");
        sessions.commit();
        sessions.left("acme", "a");
        sessions.came("acme", "b");
        sessions.roll_back();
        assert!(sessions.may_wait("acme", "a"));
        assert!(!sessions.may_wait("acme", "b"));
    }

    #[test]
    fn what_cannot_be_makes_everybody_wait() {
        let mut sessions = counting();
        sessions.left("acme", "a");
        assert!(sessions.may_wait("acme", "b"));
    }

    /// The hash of a pair is not that of its letters.
    #[test]
    fn source_and_session_do_not_run_into_each_other() {
        let mut sessions = counting();
        sessions.came("ac", "me");
        assert!(sessions.may_wait("ac", "me"));
        assert!(!sessions.may_wait("acm", "e"));
    }
}
