//! The state of one connection: its phase between requests and answers, how long it may stay in
//! this phase, and how much it has transferred: its rank when there is no slot for a new connection.
//! The socket, the service and the ingress report what happens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::{ConnectionLimits, DISCARD_TIMEOUT};
use crate::failpoint::{self, Failpoint};

/// How long a sender may leave an answer unread before its connection can be evicted.
const UNREAD_MAX: Duration = Duration::from_secs(1);

/// Bytes that are credited to a connection that has carried an authentic request: its sender is
/// likely to use it again at the moment when it would be closed.
const PROVEN_BYTES: u64 = 1 << 20;

/// Size of the first read of a head: with a usual head, it ends within the body.
const HEAD_BYTES_USUAL: usize = 8 << 10;

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

/// The state of one connection, shared by its task and the accept loop.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<ConnectionState>,
    /// What the heads of all connections of the listener have beyond the usual size.
    heads: Arc<AtomicUsize>,
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
    /// Bytes transferred since the connection was accepted.
    bytes: u64,
    /// Bytes read with the head of the current request. They are in memory until it is answered.
    head_bytes: usize,
    /// Whether the body of the current request was read to its end.
    is_body_read: bool,
    /// Whether the current request is verified.
    is_verified: bool,
    is_answer_complete: bool,
    is_evicted: bool,
}

impl Progress {
    /// The state of a connection that has just been accepted. `heads` counts the bytes of all heads.
    pub(super) fn accepted(heads: &Arc<AtomicUsize>) -> Self {
        Self {
            state: Mutex::new(ConnectionState::accepted()),
            heads: Arc::clone(heads),
            wake: Notify::new(),
        }
    }

    /// Records bytes that have arrived.
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.enter(Phase::Head);
        }
        if state.phase == Phase::Head && !state.is_evicted {
            let before = state.large_head_bytes();
            state.head_bytes += bytes;
            let more = state.large_head_bytes() - before;
            self.heads.fetch_add(more, Ordering::Relaxed);
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
        if is_proof {
            state.bytes = state.bytes.max(PROVEN_BYTES);
        }
    }

    /// Records that the head of the answer is about to be written.
    pub(super) fn answer_began(&self) {
        let mut state = self.state();
        state.enter(Phase::Answer);
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
            state.is_verified = false;
            self.forget_head(&mut state);
            failpoint::pass(Failpoint::HttpAnswerAfter);
        }
    }

    /// Records that no further request is read; from now on input is discarded.
    pub(super) fn linger_began(&self) {
        let mut state = self.state();
        state.enter(Phase::Linger);
        state.is_verified = false;
    }

    /// The current phase.
    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// The rank: the number of binary digits of the bytes transferred. It never falls.
    pub(super) fn magnitude(&self) -> u32 {
        self.state().magnitude()
    }

    /// What the head of the current request has beyond the usual size.
    pub(super) fn large_head_bytes(&self) -> usize {
        self.state().large_head_bytes()
    }

    /// Tells the connection to close in favour of another one. Returns false if it is already
    /// evicted, or protected because its request has been verified in the meantime.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.state();
        if state.is_evicted || state.is_protected() {
            return false;
        }
        state.is_evicted = true;
        self.forget_head(&mut state);
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
            || (state.is_evicted && !state.is_protected())
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

    fn forget_head(&self, state: &mut ConnectionState) {
        self.heads
            .fetch_sub(state.large_head_bytes(), Ordering::Relaxed);
        state.head_bytes = 0;
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut state = *self.state();
        self.forget_head(&mut state);
    }
}

impl ConnectionState {
    fn accepted() -> Self {
        Self {
            phase: Phase::Idle,
            phase_since: Instant::now(),
            bytes: 0,
            head_bytes: 0,
            is_body_read: false,
            is_verified: false,
            is_answer_complete: false,
            is_evicted: false,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_since = Instant::now();
    }

    /// A verified request keeps its connection until its answer is written. If the sender does not
    /// read the answer in time, the connection loses this protection by the sender's own fault.
    fn is_protected(&self) -> bool {
        let is_unread = self.phase == Phase::Answer && self.phase_since.elapsed() >= UNREAD_MAX;
        self.is_verified && !is_unread
    }

    fn large_head_bytes(&self) -> usize {
        self.head_bytes.saturating_sub(HEAD_BYTES_USUAL)
    }

    fn magnitude(&self) -> u32 {
        u64::BITS - self.bytes.leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress::accepted(&Arc::default())
    }

    #[test]
    fn least_progress_is_evicted_first() {
        let rising = [0, 1, 100, 200, 500_000, 5_000_000].map(|bytes| {
            let progress = progress();
            progress.bytes_arrived(bytes);
            progress.magnitude()
        });
        assert!(rising.is_sorted_by(|less, more| less < more), "{rising:?}");
        let proven = progress();
        proven.request_verified(true);
        proven.answer_began();
        proven.answer_complete();
        proven.flushed();
        assert!((rising[4]..rising[5]).contains(&proven.magnitude()));
    }

    #[test]
    fn head_counts_until_it_is_answered_or_evicted() {
        let heads = Arc::default();
        let of_two = [(); 2].map(|()| Progress::accepted(&heads));
        for progress in &of_two {
            progress.bytes_arrived(HEAD_BYTES_USUAL);
            progress.bytes_arrived(100);
            progress.request_began();
            progress.bytes_arrived(1000);
        }
        assert_eq!(heads.load(Ordering::Relaxed), 200);
        of_two[0].answer_began();
        of_two[0].answer_complete();
        of_two[0].flushed();
        assert_eq!(heads.load(Ordering::Relaxed), 100);
        assert!(of_two[1].evict());
        assert_eq!(heads.load(Ordering::Relaxed), 0);
        of_two[0].bytes_arrived(HEAD_BYTES_USUAL + 1);
        drop(of_two);
        assert_eq!(heads.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn authentic_request_is_protected_until_answered() {
        let progress = progress();
        progress.bytes_arrived(100);
        progress.request_began();
        progress.request_verified(true);
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
        let progress = progress();
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
