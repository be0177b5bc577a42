//! Reads the body of a request whole, within a budget of memory that all requests share, within
//! its time and at no less than a certain pace. What a body reserves follows what has arrived of
//! it.
//!
//! Small bodies have a reserve of their own: however many large ones are unfinished, a small one
//! does not wait for them. In both parts, when a body waits for memory and none comes free, an
//! unfinished one is given up for it.

mod pool;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::http::Http;
use crate::memory;
pub(super) use pool::Reserved;
use pool::{Pool, Unfinished, units};

/// Longer bodies are not small.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// What small bodies have for themselves, at most.
const SMALL_RESERVE_BYTES: u64 = 4 << 20;

/// Of the rest, what complete bodies have for themselves until they are held: strangers cannot take
/// that, since what is complete is verified at once.
const COMPLETE_PART: (u64, u64) = (4, 5);

/// What a body reserves with its first bytes beyond them, and at least with every step.
const STEP_BYTES_MIN: u64 = 1 << 10;

/// What a body reserves at most with one step.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// What an event takes until it is held, beside its bytes.
const EVENT_BYTES: u64 = 384;

/// What events take at once: two of the largest webhooks are split while others wait.
const EVENTS_BYTES_MAX: u64 = 8 << 20;

/// How long the pace of a body is not judged.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// How long a body waits for memory before one that has stalled is closed, if nothing comes free
/// meanwhile.
const SMALL_PATIENCE: Duration = Duration::from_millis(25);
const LARGE_PATIENCE: Duration = Duration::from_millis(100);

/// The memory that all bodies, and the events made of them, share.
#[derive(Debug)]
pub(super) struct Budget {
    body_bytes_max: u64,
    rate_min: u64,
    pub(super) rate_grace: Duration,
    small: Arc<Pool>,
    large: Arc<Pool>,
    /// What the events of whole bodies may take, in units.
    events: Arc<Semaphore>,
}

/// A whole body; its part of the budget is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    pub(super) reserved: Option<Reserved>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It did not arrive in time, or not at the least pace.
    #[error("the body is too slow")]
    TooSlow,
    /// There was no memory for it in time, or another one needed its memory.
    #[error("the memory for bodies is exhausted")]
    Exhausted,
    /// The connection or the chunks broke.
    #[error("the body is incomplete")]
    Broken,
}

impl Budget {
    /// With the limits of the public listener.
    pub(super) fn new(config: &Http) -> Self {
        let body_bytes_max = config.body_bytes_max;
        let shared = config.buffered_bytes_max.saturating_sub(body_bytes_max);
        let small = (shared / 2).min(SMALL_RESERVE_BYTES);
        let complete_bytes = (shared - small) / COMPLETE_PART.1 * COMPLETE_PART.0;
        let complete = pool::semaphore(complete_bytes);
        let large_bytes = shared - small - complete_bytes;
        let large = Arc::new(Pool::new(large_bytes, 1, &complete, LARGE_PATIENCE));
        Self {
            body_bytes_max,
            rate_min: config.body_rate_min,
            rate_grace: RATE_GRACE,
            small: if small < SMALL_BYTES_MAX {
                // There is no room for a reserve.
                Arc::clone(&large)
            } else {
                Arc::new(Pool::new(small, 0, &complete, SMALL_PATIENCE))
            },
            large,
            events: Arc::new(Semaphore::new(units(EVENTS_BYTES_MAX) as usize)),
        }
    }

    /// Reserves until `deadline` what the events of a body may take: a short body can have many.
    /// Whoever has that needs nothing more to be held.
    pub(super) async fn reserve_for_events(
        &self,
        body: &[u8],
        sessions_max: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, BodyError> {
        let commas = memchr::memchr_iter(b',', body).count();
        let events_max = (commas + 1).min(sessions_max) as u64;
        let bytes = events_max.saturating_mul(EVENT_BYTES).min(EVENTS_BYTES_MAX);
        let permit = Arc::clone(&self.events).acquire_many_owned(units(bytes));
        let permit = timeout_at(deadline, permit).await;
        permit
            .map_err(|_| BodyError::Exhausted)?
            .map_err(|_| BodyError::Exhausted)
    }

    /// Reads a body until `deadline`.
    pub(super) async fn read(
        &self,
        mut body: Body,
        deadline: Instant,
    ) -> Result<Buffered, BodyError> {
        let announced = body.size_hint().upper();
        let bytes_max = announced.unwrap_or(u64::MAX).min(self.body_bytes_max);
        // One of unknown length is small until it is not.
        let is_small = announced.is_none_or(|bytes| bytes <= SMALL_BYTES_MAX);
        let pool = if is_small { &self.small } else { &self.large };
        let mut buffer = Buffer {
            budget: self,
            bytes: memory::Buffer::default(),
            unfinished: pool.enter(),
            bytes_max,
            deadline,
            begun: Instant::now(),
            waited: Duration::ZERO,
        };
        loop {
            let late = buffer.late();
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = buffer.unfinished.given_up() => return Err(BodyError::Exhausted),
                () = sleep_until(late) => return Err(buffer.too_late()),
            };
            let Some(frame) = frame else {
                return Ok(buffer.finish());
            };
            let frame = frame.map_err(|_| BodyError::Broken)?;
            // Trailers are not looked at.
            if let Ok(data) = frame.into_data() {
                buffer.push(&data).await?;
            }
        }
    }
}

/// A body on its way in.
struct Buffer<'a> {
    budget: &'a Budget,
    bytes: memory::Buffer,
    unfinished: Unfinished,
    bytes_max: u64,
    deadline: Instant,
    begun: Instant,
    /// How long it had to wait for memory, which is not its sender's fault.
    waited: Duration,
}

impl Buffer<'_> {
    /// When it is too late for the next bytes.
    fn late(&self) -> Instant {
        let microseconds = (self.bytes.len() as u64).saturating_mul(1_000_000);
        let Some(microseconds) = microseconds.checked_div(self.budget.rate_min) else {
            return self.deadline;
        };
        let pace = Duration::from_micros(microseconds).max(self.budget.rate_grace);
        let late = self.begun.checked_add(pace + self.waited);
        late.map_or(self.deadline, |late| late.min(self.deadline))
    }

    /// A body that had to wait for memory is not late by its sender's fault.
    fn too_late(&self) -> BodyError {
        if Instant::now() >= self.deadline && !self.waited.is_zero() {
            BodyError::Exhausted
        } else {
            BodyError::TooSlow
        }
    }

    async fn push(&mut self, data: &[u8]) -> Result<(), BodyError> {
        let length = (self.bytes.len() + data.len()) as u64;
        if length > self.bytes_max {
            return Err(BodyError::TooLarge);
        }
        if length > self.unfinished.reserved_bytes() {
            self.reserve(length).await?;
        }
        self.bytes.extend_from_slice(data);
        self.unfinished.arrived(data.len() as u64);
        Ok(())
    }

    /// Makes room for `length` bytes in all, and for some more that are likely to follow.
    async fn reserve(&mut self, length: u64) -> Result<(), BodyError> {
        let ahead = length.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let target = (length + ahead).min(self.bytes_max);
        let is_large = target > SMALL_BYTES_MAX;
        if is_large && !self.unfinished.is_in(&self.budget.large) {
            self.unfinished = self.budget.large.move_in(&mut self.unfinished);
        }
        let reserving = self.unfinished.reserve(target, self.bytes_max);
        let waited = tokio::select! {
            biased;
            waited = reserving => waited,
            () = sleep_until(self.deadline) => Err(BodyError::Exhausted),
        };
        self.waited += waited?;
        let size = |bytes| usize::try_from(bytes).map_err(|_| BodyError::Exhausted);
        let reserved = size(self.unfinished.reserved_bytes())?;
        self.bytes.prepare(reserved, size(self.bytes_max)?);
        Ok(())
    }

    fn finish(self) -> Buffered {
        Buffered {
            reserved: self.unfinished.finish(self.bytes.len() as u64),
            bytes: self.bytes.freeze(),
        }
    }
}
