//! Reads the body of a request whole, within a budget of memory that all requests share and
//! within its time. What a body reserves follows what has arrived of it.
//!
//! Bodies that each hold a part of the budget and wait for more could wait for each other. So the
//! length of the largest one is kept aside for whoever has the one ticket: it always gets what it
//! needs, and the next one has the ticket when it is done.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::memory;

/// The budget is counted in units of so many bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// What a body reserves before anything of it has arrived, and at least with every step.
const STEP_BYTES_MIN: u64 = 8 << 10;

/// What a body reserves at most with one step.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// What an event takes until it is held, beside its bytes.
const EVENT_BYTES: u64 = 384;

/// What events take at once: two of the largest webhooks are split while others wait.
const EVENTS_BYTES_MAX: u64 = 8 << 20;

/// The memory that all bodies, and the events made of them, share.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    body_bytes_max: u64,
    /// What any body may take step by step, in units.
    shared: Arc<Semaphore>,
    /// Whoever has this may take `body_bytes_max` beside it.
    ticket: Arc<Semaphore>,
    /// What the events of whole bodies may take, in units.
    events: Arc<Semaphore>,
}

/// A whole body; its part of the budget is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    pub(super) reserved: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It did not arrive in time.
    #[error("the body is too slow")]
    TooSlow,
    /// There was no memory for it in time.
    #[error("the memory for bodies is exhausted")]
    Exhausted,
    /// The connection or the chunks broke.
    #[error("the body is incomplete")]
    Broken,
}

impl Budget {
    /// Bodies of at most `body_bytes_max` each, `buffered_bytes_max` of all of them at once.
    pub(super) fn new(body_bytes_max: u64, buffered_bytes_max: u64) -> Self {
        let semaphore = |bytes: u64| {
            let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
        };
        Self {
            body_bytes_max,
            shared: semaphore(buffered_bytes_max.saturating_sub(body_bytes_max)),
            ticket: Arc::new(Semaphore::new(1)),
            events: semaphore(EVENTS_BYTES_MAX),
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
        let mut buffer = Buffer {
            budget: self,
            bytes: memory::Buffer::default(),
            reserved: None,
            has_ticket: false,
            reserved_bytes: 0,
            bytes_max: body
                .size_hint()
                .upper()
                .unwrap_or(u64::MAX)
                .min(self.body_bytes_max),
            deadline,
            has_waited: false,
        };
        loop {
            let frame = timeout_at(deadline, body.frame())
                .await
                .map_err(|_| buffer.too_late())?;
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
    reserved: Option<OwnedSemaphorePermit>,
    has_ticket: bool,
    reserved_bytes: u64,
    bytes_max: u64,
    deadline: Instant,
    has_waited: bool,
}

impl Buffer<'_> {
    /// A body that had to wait for memory is not late by its sender's fault.
    fn too_late(&self) -> BodyError {
        if self.has_waited {
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
        if length > self.reserved_bytes {
            self.reserve(length).await?;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Makes room for `length` bytes in all, and for some more that are likely to follow.
    async fn reserve(&mut self, length: u64) -> Result<(), BodyError> {
        let ahead = length.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let target = (length + ahead).min(self.bytes_max);
        let units = units(target) - units(self.reserved_bytes);
        let budget = self.budget;
        self.has_waited |= budget.shared.available_permits() < units as usize;
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&budget.shared).acquire_many_owned(units) => permit,
            ticket = Arc::clone(&budget.ticket).acquire_owned() => {
                self.has_ticket = true;
                ticket
            }
            () = sleep_until(self.deadline) => return Err(BodyError::Exhausted),
        };
        let permit = permit.map_err(|_| BodyError::Exhausted)?;
        match &mut self.reserved {
            Some(reserved) if !self.has_ticket => reserved.merge(permit),
            // What it had of the shared part is free for others.
            reserved => *reserved = Some(permit),
        }
        self.reserved_bytes = if self.has_ticket {
            self.bytes_max
        } else {
            target
        };
        let size = |bytes| usize::try_from(bytes).map_err(|_| BodyError::Exhausted);
        self.bytes.prepare(size(target)?, size(self.bytes_max)?);
        Ok(())
    }

    fn finish(mut self) -> Buffered {
        if self.has_ticket {
            // The next one need not wait until this one is held.
            let shared = Arc::clone(&self.budget.shared);
            if let Ok(permit) = shared.try_acquire_many_owned(units(self.bytes.len() as u64)) {
                self.reserved = Some(permit);
            }
        }
        Buffered {
            bytes: self.bytes.freeze(),
            reserved: self.reserved,
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}
