//! The state of one connection: its phase between requests and answers, how long it may stay in
//! this phase, and its rank when there is no slot for a new connection. The socket, the service and
//! the ingress report what happens.

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::{ConnectionLimits, DISCARD_TIMEOUT};
use crate::failpoint::{self, Failpoint};

/// How long a connection counts as young: the server may not have read from it yet.
const YOUNG: Duration = Duration::from_secs(1);

/// Bytes that are credited to a young connection, so that a new connection does not rank below
/// those that have already sent something.
const YOUNG_BYTES: u64 = 16 << 10;

/// Bytes that are credited to an idle connection that has carried an authentic request: its sender
/// is likely to use it again at the moment when it would be closed.
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
    /// The request is verified and waits for the disk, for a time that the ingress limits.
    Verified,
    /// The answer is being written.
    Answer,
    /// The last answer is written; what still arrives is discarded.
    Linger,
}

/// The rank of a connection; the lowest one is closed first.
///
/// Connections that have had `YOUNG` (one second) rank below young ones. Within both groups, the
/// connection with the fewest bytes per second ranks lowest. Since all young connections start with
/// the same credit, a flood of new connections evicts itself, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EvictionRank {
    is_young: bool,
    bytes_per_second: u64,
    age: Reverse<Duration>,
}

/// The state of one connection, shared by its task and the accept loop.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<ConnectionState>,
    /// Wakes the connection's task so that it checks its state again.
    pub(super) wake: Notify,
}

#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent of each other"
)]
struct ConnectionState {
    phase: Phase,
    phase_since: Instant,
    /// Bytes transferred since `bytes_since` by the current request, answer or idle period.
    bytes: u64,
    bytes_since: Instant,
    /// Whether the body of the current request was read to its end.
    is_body_read: bool,
    /// Whether the current request is verified.
    is_verified: bool,
    /// Whether a request on this connection was signed with a secret.
    is_proven: bool,
    is_answer_complete: bool,
    is_evicted: bool,
}

impl Progress {
    /// The state of a connection that has just been accepted.
    pub(super) fn accepted() -> Self {
        Self {
            state: Mutex::new(ConnectionState::new(Phase::Idle, 0, Instant::now())),
            wake: Notify::new(),
        }
    }

    /// Records bytes that have arrived.
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.enter(Phase::Head);
            state.restart_count();
        }
        state.bytes += bytes as u64;
    }

    /// Records bytes that have been written.
    pub(super) fn bytes_written(&self, bytes: usize) {
        self.state().bytes += bytes as u64;
    }

    /// Records that the head of a request is complete.
    pub(super) fn request_began(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            // The request arrived together with the previous one.
            state.restart_count();
        }
        state.enter(Phase::Request);
        state.is_body_read = false;
    }

    /// Records that the body of the request was read to its end, or that it has none.
    pub(super) fn body_read(&self) {
        self.state().is_body_read = true;
    }

    /// Records that the request is complete and verified: from now on it is not evicted. `is_proof`
    /// says whether only a sender that knows a secret can have sent it.
    pub(super) fn request_verified(&self, is_proof: bool) {
        let mut state = self.state();
        state.enter(Phase::Verified);
        state.is_verified = true;
        state.is_proven |= is_proof;
    }

    /// Records that the head of the answer is about to be written.
    pub(super) fn answer_began(&self) {
        let mut state = self.state();
        state.enter(Phase::Answer);
        state.restart_count();
        state.is_answer_complete = false;
    }

    /// Records that hyper has taken the last byte of the answer.
    pub(super) fn answer_complete(&self) {
        self.state().is_answer_complete = true;
    }

    /// Records that everything hyper has taken is written to the socket.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Answer && state.is_answer_complete {
            state.enter(Phase::Idle);
            state.restart_count();
            state.is_verified = false;
            failpoint::pass(Failpoint::HttpAnswerAfter);
        }
    }

    /// Records that no further request is read; from now on input is discarded.
    pub(super) fn linger_began(&self) {
        let mut state = self.state();
        state.enter(Phase::Linger);
        state.restart_count();
        state.is_verified = false;
    }

    /// The current phase.
    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// The rank at `now`; `None` if the connection is protected or already evicted.
    pub(super) fn eviction_rank(&self, now: Instant) -> Option<EvictionRank> {
        let state = self.state();
        let can_go = !state.is_evicted && !state.is_protected(now);
        can_go.then(|| state.eviction_rank(now))
    }

    /// Tells the connection to close in favour of another one. Returns false if it is already
    /// evicted, or protected because its request has been verified in the meantime.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.state();
        if state.is_evicted || state.is_protected(Instant::now()) {
            return false;
        }
        state.is_evicted = true;
        self.wake.notify_one();
        true
    }

    /// Whether the connection cannot be used for another request after the next answer.
    pub(super) fn is_answer_last(&self) -> bool {
        let state = self.state();
        state.is_evicted || !state.is_body_read
    }

    /// Whether the connection was told to close in favour of another one.
    pub(super) fn is_evicted(&self) -> bool {
        self.state().is_evicted
    }

    /// Whether the connection must close now: because it is evicted and not protected, or because
    /// the server is closing and no complete request head has arrived.
    pub(super) fn should_close(&self, is_closing: bool) -> bool {
        let state = self.state();
        (is_closing && matches!(state.phase, Phase::Idle | Phase::Head | Phase::Linger))
            || (state.is_evicted && !state.is_protected(Instant::now()))
    }

    /// When the current phase expires; `None` if the ingress limits it instead.
    pub(super) fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let state = self.state();
        let timeout = match state.phase {
            Phase::Idle => limits.config.idle_timeout,
            Phase::Head => limits.config.header_timeout,
            Phase::Request | Phase::Verified => return None,
            Phase::Answer => limits.answer_timeout,
            Phase::Linger => DISCARD_TIMEOUT,
        };
        state.phase_since.checked_add(timeout)
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionState {
    fn new(phase: Phase, bytes: u64, since: Instant) -> Self {
        Self {
            phase,
            phase_since: since,
            bytes,
            bytes_since: since,
            is_body_read: false,
            is_verified: false,
            is_proven: false,
            is_answer_complete: false,
            is_evicted: false,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_since = Instant::now();
    }

    fn restart_count(&mut self) {
        self.bytes = 0;
        self.bytes_since = self.phase_since;
    }

    /// A verified request keeps its connection until its answer is written. If the sender has not
    /// read the answer for `YOUNG`, the connection loses this protection by the sender's own fault.
    fn is_protected(&self, now: Instant) -> bool {
        let is_unread =
            self.phase == Phase::Answer && now.saturating_duration_since(self.phase_since) >= YOUNG;
        self.is_verified && !is_unread
    }

    fn eviction_rank(&self, now: Instant) -> EvictionRank {
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
        EvictionRank {
            is_young,
            bytes_per_second: bytes.saturating_mul(1_000_000) / microseconds,
            age: Reverse(age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(phase: Phase, bytes: u64, age: Duration) -> ConnectionState {
        let since = Instant::now().checked_sub(age).expect("the clock is older");
        ConnectionState::new(phase, bytes, since)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn least_progress_is_evicted_first() {
        let proven = ConnectionState {
            is_proven: true,
            ..state(Phase::Idle, 0, seconds(10.0))
        };
        let rising = [
            state(Phase::Idle, 0, seconds(20.0)),
            state(Phase::Idle, 0, seconds(10.0)),
            state(Phase::Head, 100, seconds(10.0)),
            state(Phase::Request, 100, seconds(5.0)),
            state(Phase::Request, 500_000, seconds(5.0)),
            // Young connections: in the order of arrival.
            state(Phase::Idle, 0, seconds(0.9)),
            state(Phase::Head, 100, seconds(0.5)),
            proven,
            state(Phase::Idle, 0, seconds(0.01)),
            state(Phase::Request, 5_000_000, seconds(0.5)),
        ];
        let now = Instant::now();
        let ranks: Vec<_> = rising
            .iter()
            .map(|state| state.eviction_rank(now))
            .collect();
        assert!(ranks.is_sorted(), "{ranks:#?}");
    }

    #[test]
    fn authentic_request_is_protected_until_answered() {
        let progress = Progress::accepted();
        progress.bytes_arrived(100);
        progress.request_began();
        assert!(progress.eviction_rank(Instant::now()).is_some());
        progress.request_verified(true);
        assert!(progress.eviction_rank(Instant::now()).is_none());
        assert!(!progress.evict());
        progress.answer_began();
        assert!(!progress.evict(), "the answer is not out");
        progress.answer_complete();
        progress.flushed();
        assert!(progress.evict());
        assert!(progress.should_close(false));
    }

    #[test]
    fn request_verified_during_eviction_is_answered() {
        let progress = Progress::accepted();
        progress.bytes_arrived(100);
        progress.request_began();
        assert!(progress.evict());
        progress.request_verified(true);
        assert!(!progress.should_close(false));
        progress.answer_began();
        progress.answer_complete();
        progress.flushed();
        assert!(progress.should_close(false));
    }
}
