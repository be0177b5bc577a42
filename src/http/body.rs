//! Reads the complete body of a request: within a memory budget that all requests share, before a
//! deadline, and at a minimum rate. The memory that a body reserves grows with what has arrived.
//!
//! Small bodies have a reserve of their own, so that a small body never waits for unfinished large
//! ones. In both parts, slow unfinished bodies are closed while another one waits for memory.

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
use pool::{Pace, Pool, Unfinished, units};

/// Maximum length of a small body.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// Maximum size of the reserve for small bodies.
const SMALL_RESERVE_BYTES: u64 = 4 << 20;

/// Fraction of the remaining memory that is reserved for complete bodies until the journal has
/// stored them. Unauthenticated senders cannot occupy it: a complete body is verified at once.
const COMPLETE_PART: (u64, u64) = (4, 5);

/// Minimum that each reservation adds beyond what has arrived.
const STEP_BYTES_MIN: u64 = 1 << 10;

/// Maximum that each reservation adds beyond what has arrived.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// Memory that an event takes until it is stored, in addition to its bytes.
const EVENT_BYTES: u64 = 384;

/// Maximum memory for events that are not stored yet: enough to split two of the largest webhooks
/// at once, while others wait.
const EVENTS_BYTES_MAX: u64 = 8 << 20;

/// Time after the start of a body in which its rate is not checked.
const RATE_GRACE: Duration = Duration::from_secs(5);

const SMALL_PACE: Pace = Pace {
    bytes: 16 << 10,
    time: Duration::from_millis(50),
};

const LARGE_PACE: Pace = Pace {
    bytes: 128 << 10,
    time: Duration::from_millis(500),
};

/// The memory that all bodies, and the events split from them, share.
#[derive(Debug)]
pub(super) struct Budget {
    body_bytes_max: u64,
    rate_min: u64,
    pub(super) rate_grace: Duration,
    small: Arc<Pool>,
    large: Arc<Pool>,
    /// Memory for the events of complete bodies, in units.
    events: Arc<Semaphore>,
}

/// Gives tests access to the unfinished bodies.
#[cfg(test)]
pub(super) struct Bodies {
    small: Arc<Pool>,
    large: Arc<Pool>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It did not arrive before the deadline, or not at the minimum rate.
    #[error("the body is too slow")]
    TooSlow,
    /// No memory was available for it in time, or its memory was needed for another body.
    #[error("the memory for bodies is exhausted")]
    Exhausted,
    /// The connection was closed early, or the chunked encoding is invalid.
    #[error("the body is incomplete")]
    Broken,
}

impl Budget {
    /// A budget with the limits of the public listener.
    pub(super) fn new(config: &Http) -> Self {
        let body_bytes_max = config.body_bytes_max;
        let shared = config.buffered_bytes_max.saturating_sub(body_bytes_max);
        let small = (shared / 2).min(SMALL_RESERVE_BYTES);
        let complete_bytes = (shared - small) / COMPLETE_PART.1 * COMPLETE_PART.0;
        let complete = pool::semaphore(complete_bytes);
        let large_bytes = shared - small - complete_bytes;
        let large = Arc::new(Pool::new(
            large_bytes,
            body_bytes_max,
            &complete,
            LARGE_PACE,
        ));
        Self {
            body_bytes_max,
            rate_min: config.body_rate_min,
            rate_grace: RATE_GRACE,
            small: if small < SMALL_BYTES_MAX {
                // There is too little memory for a separate reserve.
                Arc::clone(&large)
            } else {
                let small = small - SMALL_BYTES_MAX;
                Arc::new(Pool::new(small, SMALL_BYTES_MAX, &complete, SMALL_PACE))
            },
            large,
            events: Arc::new(Semaphore::new(units(EVENTS_BYTES_MAX) as usize)),
        }
    }

    /// Reserves memory for the events of a body, which can be many even if it is short. Waits until
    /// `deadline` at most. After this, the request needs no more memory until it is stored.
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

    /// Reads a complete body, until `deadline` at the latest. Its memory returns to the budget when
    /// the reservation is dropped.
    pub(super) async fn read(
        &self,
        mut body: Body,
        deadline: Instant,
    ) -> Result<(Bytes, Option<Reserved>), BodyError> {
        let announced = body.size_hint().upper();
        let bytes_max = announced.unwrap_or(u64::MAX).min(self.body_bytes_max);
        // A body of unknown length counts as small until it outgrows the limit.
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
                () = buffer.unfinished.evicted() => return Err(BodyError::Exhausted),
                () = sleep_until(late) => return Err(buffer.too_late()),
            };
            let Some(frame) = frame else {
                return Ok(buffer.finish());
            };
            let frame = frame.map_err(|_| BodyError::Broken)?;
            // Trailers are ignored.
            if let Ok(data) = frame.into_data() {
                buffer.push(&data).await?;
            }
        }
    }
}

#[cfg(test)]
impl Budget {
    pub(super) fn bodies(&self) -> Bodies {
        Bodies {
            small: Arc::clone(&self.small),
            large: Arc::clone(&self.large),
        }
    }
}

#[cfg(test)]
impl Bodies {
    /// Number of bodies that were ever in the large part; all bodies if there is no reserve.
    pub(super) fn entered_large(&self) -> u64 {
        self.large.entered()
    }

    /// Number of bodies that were ever in the small part.
    pub(super) fn entered_small(&self) -> u64 {
        self.small.entered()
    }

    /// Occupies all memory for large bodies until the result is dropped.
    pub(super) fn take_all_large(&self) -> Vec<OwnedSemaphorePermit> {
        self.large.take_all()
    }

    /// Whether a body waits for memory.
    pub(super) fn is_any_waiting(&self) -> bool {
        self.small.waiting() + self.large.waiting() > 0
    }
}

/// A body that is being received.
struct Buffer<'a> {
    budget: &'a Budget,
    bytes: memory::Buffer,
    unfinished: Unfinished,
    bytes_max: u64,
    deadline: Instant,
    begun: Instant,
    /// How long the body waited for memory, which does not count against its sender.
    waited: Duration,
}

impl Buffer<'_> {
    /// The time by which the next bytes must arrive.
    fn late(&self) -> Instant {
        let microseconds = (self.bytes.len() as u64).saturating_mul(1_000_000);
        let Some(microseconds) = microseconds.checked_div(self.budget.rate_min) else {
            return self.deadline;
        };
        let pace = Duration::from_micros(microseconds).max(self.budget.rate_grace);
        let late = self.begun.checked_add(pace + self.waited);
        late.map_or(self.deadline, |late| late.min(self.deadline))
    }

    /// The error for a late body. If it had to wait for memory, its sender is not to blame.
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

    /// Reserves memory for `length` bytes in total, and for more that are likely to follow.
    async fn reserve(&mut self, length: u64) -> Result<(), BodyError> {
        let ahead = length.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let is_large = length > SMALL_BYTES_MAX;
        // A body that is small so far may remain small.
        let step_max = if is_large { u64::MAX } else { SMALL_BYTES_MAX };
        let target = (length + ahead).min(self.bytes_max).min(step_max);
        if is_large {
            self.unfinished.move_to(&self.budget.large);
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

    fn finish(self) -> (Bytes, Option<Reserved>) {
        let reserved = self.unfinished.finish(self.bytes.len() as u64);
        (self.bytes.freeze(), reserved)
    }
}
