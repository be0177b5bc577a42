//! Where one connection stands between requests and answers, how long it may stay there, and how
//! much it is worth when there is no slot for a new one. The socket, the service and the ingress
//! report what happened.

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::server::Limits;
use crate::failpoint::{self, Place};

/// How long a connection is young: it has perhaps only not been heard yet.
const YOUNG: Duration = Duration::from_secs(1);

/// Bytes a young connection is taken to have passed already, so that who has just come is not
/// behind those who sent something.
const YOUNG_BYTES: u64 = 16 << 10;

/// The same for a connection that has carried an authentic request and is idle now: its sender is
/// likely to use it again just when it is closed.
const PROVEN_BYTES: u64 = 1 << 20;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of a request has arrived.
    Idle,
    /// A part of a request's head has arrived.
    Head,
    /// The head is complete; the body is not, or its signature has not been verified.
    Request,
    /// The request is known to be authentic and waits for the disk. The ingress limits this.
    Verified,
    /// The answer is on its way.
    Answer,
    /// The answer is out; what still arrives is discarded.
    Linger,
}

/// What a connection is worth; the least of all is closed first.
///
/// Those that had a second come before the young ones, and within both the one with the fewest
/// bytes per second goes first. Since young ones start with the same credit, a flood of new
/// connections displaces itself in the order it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    is_young: bool,
    bytes_per_second: u64,
    age: Reverse<Duration>,
}

/// The standing of one connection, shared by its task and the accept loop.
#[derive(Debug)]
pub(super) struct Progress {
    standing: Mutex<Standing>,
    /// Wakes the connection's task to look at its standing again.
    pub(super) poke: Notify,
}

#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent of each other"
)]
struct Standing {
    phase: Phase,
    phase_since: Instant,
    /// Bytes passed, and since when: of this request, this answer or this wait for one.
    bytes: u64,
    bytes_since: Instant,
    /// The present request is authentic.
    is_verified: bool,
    /// An earlier one was.
    is_proven: bool,
    is_answer_complete: bool,
    is_evicted: bool,
}

impl Progress {
    /// A connection just accepted.
    pub(super) fn accepted() -> Self {
        let now = Instant::now();
        let standing = Standing {
            phase: Phase::Idle,
            phase_since: now,
            bytes: 0,
            bytes_since: now,
            is_verified: false,
            is_proven: false,
            is_answer_complete: false,
            is_evicted: false,
        };
        Self {
            standing: Mutex::new(standing),
            poke: Notify::new(),
        }
    }

    /// Bytes have arrived.
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        let mut standing = self.standing();
        if standing.phase == Phase::Idle {
            standing.enter(Phase::Head);
            standing.count_anew();
        }
        standing.bytes += bytes as u64;
    }

    /// Bytes have been written.
    pub(super) fn bytes_written(&self, bytes: usize) {
        self.standing().bytes += bytes as u64;
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        let mut standing = self.standing();
        if standing.phase == Phase::Idle {
            // It came together with the one before.
            standing.count_anew();
        }
        standing.enter(Phase::Request);
    }

    /// The request is authentic and complete: from now on it is not closed to make room.
    /// `is_proof` if only somebody who knows a secret can have sent it.
    pub(super) fn request_verified(&self, is_proof: bool) {
        let mut standing = self.standing();
        standing.enter(Phase::Verified);
        standing.is_verified = true;
        standing.is_proven |= is_proof;
    }

    /// The head of the answer is about to be written.
    pub(super) fn answer_began(&self) {
        let mut standing = self.standing();
        standing.enter(Phase::Answer);
        standing.count_anew();
        standing.is_answer_complete = false;
    }

    /// The last byte of the answer is in the hands of the connection.
    pub(super) fn answer_complete(&self) {
        self.standing().is_answer_complete = true;
    }

    /// Everything handed over has been written to the socket.
    pub(super) fn flushed(&self) {
        let mut standing = self.standing();
        if standing.phase == Phase::Answer && standing.is_answer_complete {
            standing.enter(Phase::Idle);
            standing.count_anew();
            standing.is_verified = false;
            failpoint::pass(Place::HttpAnswerAfter);
        }
    }

    /// No further request is read.
    pub(super) fn linger_began(&self) {
        let mut standing = self.standing();
        standing.enter(Phase::Linger);
        standing.count_anew();
        standing.is_verified = false;
    }

    /// What it is doing.
    pub(super) fn phase(&self) -> Phase {
        self.standing().phase
    }

    /// What it is worth at this moment; `None` if it must not be closed, or is about to be.
    pub(super) fn worth(&self, now: Instant) -> Option<Worth> {
        let standing = self.standing();
        let can_go = !standing.is_evicted && !standing.is_protected(now);
        can_go.then(|| standing.worth(now))
    }

    /// Asks the connection to give its slot to another one. Whether it will: the request may have
    /// been verified in between.
    pub(super) fn evict(&self) -> bool {
        let mut standing = self.standing();
        if standing.is_evicted || standing.is_protected(Instant::now()) {
            return false;
        }
        standing.is_evicted = true;
        self.poke.notify_one();
        true
    }

    /// Whether it was asked to give its slot to another one.
    pub(super) fn is_evicted(&self) -> bool {
        self.standing().is_evicted
    }

    /// Whether it has to go now: it was asked to and its request is not authentic, or everybody is
    /// and no request is worked on.
    pub(super) fn must_go(&self, is_closing: bool) -> bool {
        let standing = self.standing();
        (is_closing && standing.phase.is_headless())
            || (standing.is_evicted && !standing.is_protected(Instant::now()))
    }

    /// When it has to be closed if nothing happens; `None`: not for its own sake.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let standing = self.standing();
        let timeout = match standing.phase {
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.header_timeout,
            Phase::Request | Phase::Verified => return None,
            Phase::Answer => limits.answer_timeout,
            Phase::Linger => limits.discard_timeout,
        };
        standing.phase_since.checked_add(timeout)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_since = Instant::now();
    }

    fn count_anew(&mut self) {
        self.bytes = 0;
        self.bytes_since = self.phase_since;
    }

    /// An authentic request keeps its connection until its answer is out, or until its sender has
    /// not read the answer for so long that it is the sender's own fault.
    fn is_protected(&self, now: Instant) -> bool {
        let is_unread =
            self.phase == Phase::Answer && now.saturating_duration_since(self.phase_since) >= YOUNG;
        self.is_verified && !is_unread
    }

    fn worth(&self, now: Instant) -> Worth {
        let age = now.saturating_duration_since(self.bytes_since);
        let is_proven = self.phase == Phase::Idle && self.is_proven;
        let is_young = is_proven || age < YOUNG;
        let credit = match (is_proven, is_young) {
            (true, _) => PROVEN_BYTES,
            (false, true) => YOUNG_BYTES,
            (false, false) => 0,
        };
        let microseconds = u64::try_from(age.as_micros()).unwrap_or(u64::MAX).max(1);
        let bytes = self.bytes.saturating_add(credit);
        Worth {
            is_young,
            bytes_per_second: bytes.saturating_mul(1_000_000) / microseconds,
            age: Reverse(age),
        }
    }
}

impl Phase {
    fn is_headless(self) -> bool {
        matches!(self, Self::Idle | Self::Head | Self::Linger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(phase: Phase, bytes: u64, age: Duration) -> Standing {
        let since = Instant::now().checked_sub(age).expect("the clock is older");
        Standing {
            phase,
            phase_since: since,
            bytes,
            bytes_since: since,
            is_verified: false,
            is_proven: false,
            is_answer_complete: false,
            is_evicted: false,
        }
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn who_makes_the_least_progress_goes_first() {
        let proven = Standing {
            is_proven: true,
            ..standing(Phase::Idle, 0, seconds(10.0))
        };
        let rising = [
            standing(Phase::Idle, 0, seconds(20.0)),
            standing(Phase::Idle, 0, seconds(10.0)),
            standing(Phase::Head, 100, seconds(10.0)),
            standing(Phase::Request, 100, seconds(5.0)),
            standing(Phase::Request, 500_000, seconds(5.0)),
            // Young ones: in the order they came.
            standing(Phase::Idle, 0, seconds(0.9)),
            standing(Phase::Head, 100, seconds(0.5)),
            proven,
            standing(Phase::Idle, 0, seconds(0.01)),
            standing(Phase::Request, 5_000_000, seconds(0.5)),
        ];
        let now = Instant::now();
        let worths: Vec<_> = rising.iter().map(|standing| standing.worth(now)).collect();
        assert!(worths.is_sorted(), "{worths:#?}");
    }

    #[test]
    fn an_authentic_request_is_protected_until_answered() {
        let progress = Progress::accepted();
        progress.bytes_arrived(100);
        progress.request_began();
        assert!(progress.worth(Instant::now()).is_some());
        progress.request_verified(true);
        assert!(progress.worth(Instant::now()).is_none());
        assert!(!progress.evict());
        progress.answer_began();
        assert!(!progress.evict(), "the answer is not out");
        progress.answer_complete();
        progress.flushed();
        assert!(progress.evict());
        assert!(progress.must_go(false));
    }

    #[test]
    fn verified_after_the_eviction_is_answered_first() {
        let progress = Progress::accepted();
        progress.bytes_arrived(100);
        progress.request_began();
        assert!(progress.evict());
        progress.request_verified(true);
        assert!(!progress.must_go(false));
        progress.answer_began();
        progress.answer_complete();
        progress.flushed();
        assert!(progress.must_go(false));
    }
}
