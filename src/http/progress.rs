//! Where one connection stands between requests and answers, and how long it may stay there.
//! Knows no bytes: the socket and the service tell it what happened.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::server::Limits;
use crate::failpoint::{self, Place};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of a request has arrived.
    Idle,
    /// A part of a request's head has arrived.
    Head,
    /// The head is complete, the answer is not; whoever answers limits this.
    Request,
    /// The answer is on its way.
    Answer,
    /// The answer is out; what still arrives is discarded.
    Linger,
}

/// The standing of one connection, shared by its task and the accept loop.
#[derive(Debug)]
pub(super) struct Progress {
    standing: Mutex<Standing>,
    /// Wakes the connection's task to look at its standing again.
    pub(super) poke: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    phase: Phase,
    phase_since: Instant,
    headless_since: Instant,
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
            headless_since: now,
            is_answer_complete: false,
            is_evicted: false,
        };
        Self {
            standing: Mutex::new(standing),
            poke: Notify::new(),
        }
    }

    /// Bytes have arrived.
    pub(super) fn bytes_arrived(&self) {
        let mut standing = self.standing();
        if standing.phase == Phase::Idle {
            standing.enter(Phase::Head);
        }
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.standing().enter(Phase::Request);
    }

    /// The head of the answer is about to be written.
    pub(super) fn answer_began(&self) {
        let mut standing = self.standing();
        standing.enter(Phase::Answer);
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
            standing.headless_since = standing.phase_since;
            failpoint::pass(Place::HttpAnswerAfter);
        }
    }

    /// No further request is read.
    pub(super) fn linger_began(&self) {
        self.standing().enter(Phase::Linger);
    }

    /// What it is doing.
    pub(super) fn phase(&self) -> Phase {
        self.standing().phase
    }

    /// Since when it has had no complete head; `None` while a request is worked on or answered,
    /// and when it has been asked to go already.
    pub(super) fn headless_since(&self) -> Option<Instant> {
        let standing = self.standing();
        let can_go = standing.phase.is_headless() && !standing.is_evicted;
        can_go.then_some(standing.headless_since)
    }

    /// Asks the connection to give its place to another one.
    pub(super) fn evict(&self) {
        self.standing().is_evicted = true;
        self.poke.notify_one();
    }

    /// Whether it has to go now: it was asked to, or everybody is, and no request is worked on.
    pub(super) fn must_go(&self, is_closing: bool) -> bool {
        let standing = self.standing();
        (is_closing || standing.is_evicted) && standing.phase.is_headless()
    }

    /// When it has to be closed if nothing happens; `None`: not for its own sake.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let standing = self.standing();
        let timeout = match standing.phase {
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.header_timeout,
            Phase::Request => return None,
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
}

impl Phase {
    fn is_headless(self) -> bool {
        matches!(self, Self::Idle | Self::Head | Self::Linger)
    }
}
