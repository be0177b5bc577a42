//! A part of the memory for bodies, and the unfinished bodies in it.
//!
//! Bodies that each hold a part of the memory and wait for more could wait for each other. So the
//! length of the largest one is kept aside for whoever has the one ticket: it always gets what it
//! needs, and the next one has the ticket when it is done. Against senders that never finish, a body
//! that has waited for a while closes another unfinished one: of those that have stalled, the one
//! with the most byte-seconds. Bodies that go on arriving are waited for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::BodyError;

/// Memory is counted in units of so many bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// After so many times the patience without any memory coming free, a body that still arrives is
/// closed too.
const PATIENCE_TIMES_MAX: u32 = 10;

/// A body of which less arrives within the patience has stalled.
const PACE_BYTES: u64 = 16 << 10;

/// A part of the memory for bodies.
#[derive(Debug)]
pub(super) struct Pool {
    /// What any body may take step by step, in units.
    shared: Arc<Semaphore>,
    /// Whoever has this may take all it needs beside it.
    tickets: Arc<Semaphore>,
    /// What complete bodies may take, in units: unfinished ones have no part in it.
    complete: Arc<Semaphore>,
    has_tickets: bool,
    patience: Duration,
    bodies: Mutex<Bodies>,
}

#[derive(Debug)]
struct Bodies {
    next: u64,
    unfinished: HashMap<u64, Entry>,
    freed_at: Instant,
}

#[derive(Debug)]
struct Entry {
    reserved_bytes: u64,
    since: Instant,
    /// When the last `PACE_BYTES` of it were complete.
    paced_at: Instant,
    is_waiting: bool,
    given_up: CancellationToken,
}

/// Memory of one body; free again when dropped.
#[derive(Debug)]
pub(in crate::http) struct Reserved {
    permit: OwnedSemaphorePermit,
    pool: Arc<Pool>,
}

/// A body that is not complete.
#[derive(Debug)]
pub(super) struct Unfinished {
    number: u64,
    since: Instant,
    given_up: CancellationToken,
    reserved_bytes: u64,
    /// Bytes that arrived since the pace was noted.
    unpaced_bytes: u64,
    has_ticket: bool,
    reserved: Option<Reserved>,
    /// What it has of the part it was in before, until it has enough of this one.
    earlier: Option<Reserved>,
    pool: Arc<Pool>,
}

impl Pool {
    /// So many bytes for unfinished bodies, so many bodies that may have all they need beside them,
    /// and what complete ones may take.
    pub(super) fn new(
        bytes: u64,
        tickets: usize,
        complete: &Arc<Semaphore>,
        patience: Duration,
    ) -> Self {
        Self {
            shared: semaphore(bytes),
            complete: Arc::clone(complete),
            tickets: Arc::new(Semaphore::new(tickets)),
            has_tickets: tickets > 0,
            patience,
            bodies: Mutex::new(Bodies {
                next: 0,
                unfinished: HashMap::new(),
                freed_at: Instant::now(),
            }),
        }
    }

    /// A body of which nothing has arrived.
    pub(super) fn enter(self: &Arc<Self>) -> Unfinished {
        self.register(0, Instant::now(), None)
    }

    /// A body that has become too long for the part of the memory it was in.
    pub(super) fn move_in(self: &Arc<Self>, body: &mut Unfinished) -> Unfinished {
        self.register(body.reserved_bytes, body.since, body.reserved.take())
    }

    fn register(
        self: &Arc<Self>,
        reserved_bytes: u64,
        since: Instant,
        earlier: Option<Reserved>,
    ) -> Unfinished {
        let given_up = CancellationToken::new();
        let mut bodies = self.bodies();
        let number = bodies.next;
        bodies.next += 1;
        let entry = Entry {
            reserved_bytes,
            since,
            paced_at: Instant::now(),
            is_waiting: false,
            given_up: given_up.clone(),
        };
        bodies.unfinished.insert(number, entry);
        Unfinished {
            number,
            since,
            given_up,
            reserved_bytes: 0,
            unpaced_bytes: 0,
            has_ticket: false,
            reserved: None,
            earlier,
            pool: Arc::clone(self),
        }
    }

    /// Closes the unfinished body with the most byte-seconds among those that have stalled or, if
    /// nothing has come free for long, among all.
    fn close_one(&self) {
        let now = Instant::now();
        let mut bodies = self.bodies();
        let free_for = now.saturating_duration_since(bodies.freed_at);
        if free_for < self.patience {
            return;
        }
        let is_any_due = free_for >= self.patience * PATIENCE_TIMES_MAX;
        let has_stalled = |entry: &Entry| {
            let paced_for = now.saturating_duration_since(entry.paced_at);
            paced_for >= self.patience
        };
        // With a ticket, one that waits itself is not in the way: it gets its memory in its turn.
        let is_candidate = |entry: &Entry| {
            let is_excused = entry.is_waiting && self.has_tickets;
            let holds = entry.reserved_bytes > 0 && !is_excused;
            holds && (is_any_due || has_stalled(entry))
        };
        let byte_seconds = |entry: &Entry| {
            let age = now.saturating_duration_since(entry.since);
            u128::from(entry.reserved_bytes) * age.as_micros()
        };
        let candidates = bodies.unfinished.iter();
        let most = candidates
            .filter(|(_, entry)| is_candidate(entry))
            .max_by_key(|(_, entry)| byte_seconds(entry));
        if let Some((&number, _)) = most
            && let Some(entry) = bodies.unfinished.remove(&number)
        {
            bodies.freed_at = now;
            entry.given_up.cancel();
        }
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unfinished {
    /// Returns when another body needs the memory of this one.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Bytes it may have without another step.
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Whether it is one of this pool.
    pub(super) fn is_in(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// Reserves `bytes` in all, of at most `bytes_max`. Returns how long that took, if it had to
    /// wait.
    pub(super) async fn reserve(
        &mut self,
        bytes: u64,
        bytes_max: u64,
    ) -> Result<Duration, BodyError> {
        let more = units(bytes) - units(self.reserved_bytes);
        let begin = Instant::now();
        let shared = Arc::clone(&self.pool.shared);
        let (permit, waited) = match shared.try_acquire_many_owned(more) {
            Ok(permit) => (permit, Duration::ZERO),
            Err(_) => (self.wait(more).await?, begin.elapsed()),
        };
        match &mut self.reserved {
            Some(reserved) if !self.has_ticket => reserved.permit.merge(permit),
            // What it had of the shared part is free for others.
            reserved => {
                *reserved = Some(Reserved {
                    permit,
                    pool: Arc::clone(&self.pool),
                });
            }
        }
        self.earlier = None;
        self.reserved_bytes = if self.has_ticket { bytes_max } else { bytes };
        self.note(|entry| entry.reserved_bytes = self.reserved_bytes);
        Ok(waited)
    }

    /// Notes that so many bytes of it have arrived.
    pub(super) fn arrived(&mut self, bytes: u64) {
        self.unpaced_bytes += bytes;
        if self.unpaced_bytes >= PACE_BYTES {
            self.unpaced_bytes = 0;
            self.note(|entry| entry.paced_at = Instant::now());
        }
    }

    fn note(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.pool.bodies().unfinished.get_mut(&self.number) {
            change(entry);
        }
    }

    /// A body that waits does not stall by its sender's fault.
    async fn wait(&mut self, units: u32) -> Result<OwnedSemaphorePermit, BodyError> {
        self.note(|entry| entry.is_waiting = true);
        let permit = self.wait_for(units).await;
        self.note(|entry| {
            entry.is_waiting = false;
            entry.paced_at = Instant::now();
        });
        permit
    }

    async fn wait_for(&mut self, units: u32) -> Result<OwnedSemaphorePermit, BodyError> {
        let pool = &self.pool;
        let mut shared = std::pin::pin!(Arc::clone(&pool.shared).acquire_many_owned(units));
        let mut ticket = std::pin::pin!(Arc::clone(&pool.tickets).acquire_owned());
        loop {
            tokio::select! {
                biased;
                permit = &mut shared => return permit.map_err(|_| BodyError::Exhausted),
                permit = &mut ticket => {
                    self.has_ticket = true;
                    return permit.map_err(|_| BodyError::Exhausted);
                }
                () = self.given_up.cancelled() => return Err(BodyError::Exhausted),
                () = sleep(pool.patience) => pool.close_one(),
            }
        }
    }

    /// It is complete: nobody takes its memory any more.
    pub(super) fn finish(mut self, bytes: u64) -> Option<Reserved> {
        let mut reserved = self.reserved.take()?;
        // The next one need not wait until this one is held.
        let complete = Arc::clone(&self.pool.complete);
        if let Ok(permit) = complete.try_acquire_many_owned(units(bytes)) {
            reserved.permit = permit;
            self.pool.bodies().freed_at = Instant::now();
        }
        Some(reserved)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.pool.bodies().unfinished.remove(&self.number);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pool.bodies().freed_at = Instant::now();
    }
}

/// A part of the memory of so many bytes.
pub(super) fn semaphore(bytes: u64) -> Arc<Semaphore> {
    let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
}

/// How many units so many bytes are.
pub(super) fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}
