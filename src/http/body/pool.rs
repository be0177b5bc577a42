//! One part of the memory for bodies, with the unfinished bodies in it.
//!
//! Bodies that each hold some memory and wait for more could block each other. Therefore memory for
//! one body of the maximum length is kept aside, and the body that holds the single ticket may use
//! it: that body always gets what it needs, and the next one gets the ticket when it is done.
//! Against senders that never finish, a body that has waited for a while closes another unfinished
//! one: of the stalled bodies, the one with the most byte-seconds. Bodies that are still arriving
//! are given more time, and fast ones are not closed. While the body with the ticket is being
//! stored, the others wait for the disk anyway, so nothing is closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::BodyError;

/// Size of the unit in which memory is counted, in bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// If no memory is freed for this many times the patience, bodies that are still arriving may be
/// closed, too, unless they are fast.
const PATIENCE_TIMES_MAX: u32 = 10;

/// How long storing the body with the ticket keeps others from being closed: as long as its sender
/// waits for the disk.
const STORING_MAX: Duration = Duration::from_secs(10);

/// A body that receives fewer bytes than this within the stall time of its part has stalled.
const PACE_BYTES: u64 = 16 << 10;

/// A body that receives this many bytes within the longest wait is fast: in the large part 1 MiB/s.
const FAST_BYTES: u64 = 1 << 20;

/// A part of the memory for bodies.
#[derive(Debug)]
pub(super) struct Pool {
    /// Memory that any body may reserve step by step, in units.
    shared: Arc<Semaphore>,
    /// A body with a ticket may have all the memory it needs, outside of `shared`.
    tickets: Arc<Semaphore>,
    /// Memory for complete bodies, in units; unfinished bodies cannot use it.
    complete: Arc<Semaphore>,
    has_tickets: bool,
    delays: EvictionDelays,
    bodies: Mutex<Bodies>,
}

/// When a body that waits for memory closes another one.
#[derive(Debug, Clone, Copy)]
pub(super) struct EvictionDelays {
    /// Time without freed memory before a stalled body is closed.
    pub(super) wait: Duration,
    /// Time without progress after which a body counts as stalled.
    pub(super) stall: Duration,
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
    /// When the latest `PACE_BYTES` of the body had arrived.
    paced_at: Instant,
    /// When the latest `FAST_BYTES` of the body had arrived.
    fast_at: Instant,
    is_waiting: bool,
    evicted: CancellationToken,
}

/// Memory of one body; released when dropped.
#[derive(Debug)]
pub(in crate::http) struct Reserved {
    permit: OwnedSemaphorePermit,
    pool: Arc<Pool>,
}

/// A body that is not complete.
#[derive(Debug)]
pub(super) struct Unfinished {
    number: u64,
    evicted: CancellationToken,
    /// What it has in `pool`.
    reserved_bytes: u64,
    arrived_bytes: u64,
    has_ticket: bool,
    /// Of the part that it was in before, until this part has granted enough.
    reserved: Option<Reserved>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A part with `bytes` for unfinished bodies. In addition, up to `tickets` bodies may have all
    /// the memory they need. `complete` is the memory for complete bodies.
    pub(super) fn new(
        bytes: u64,
        tickets: usize,
        complete: &Arc<Semaphore>,
        delays: EvictionDelays,
    ) -> Self {
        Self {
            shared: semaphore(bytes),
            complete: Arc::clone(complete),
            tickets: Arc::new(Semaphore::new(tickets)),
            has_tickets: tickets > 0,
            delays,
            bodies: Mutex::new(Bodies {
                next: 0,
                unfinished: HashMap::new(),
                freed_at: Instant::now(),
            }),
        }
    }

    /// Registers a body of which nothing has arrived.
    pub(super) fn enter(self: &Arc<Self>) -> Unfinished {
        let (now, evicted) = (Instant::now(), CancellationToken::new());
        let entry = Entry {
            reserved_bytes: 0,
            since: now,
            paced_at: now,
            fast_at: now,
            is_waiting: false,
            evicted: evicted.clone(),
        };
        Unfinished {
            number: self.bodies().register(entry),
            evicted,
            reserved_bytes: 0,
            arrived_bytes: 0,
            has_ticket: false,
            reserved: None,
            pool: Arc::clone(self),
        }
    }

    /// Closes the unfinished body with the most byte-seconds among the stalled ones or, if no
    /// memory has been freed for a long time, among all that are not fast.
    fn close_one(&self) {
        let now = Instant::now();
        let mut bodies = self.bodies();
        let free_for = now.saturating_duration_since(bodies.freed_at);
        if free_for < self.delays.wait {
            return;
        }
        let is_slow_due = free_for >= self.delays.wait_max();
        let is_due = |entry: &Entry| {
            let elapsed = |since| now.saturating_duration_since(since);
            let has_stalled = elapsed(entry.paced_at) >= self.delays.stall;
            let is_slow = elapsed(entry.fast_at) >= self.delays.wait_max();
            has_stalled || (is_slow_due && is_slow)
        };
        // If there are tickets, a body that waits is not an obstacle: it gets its memory in turn.
        let is_candidate = |entry: &Entry| {
            let is_excused = entry.is_waiting && self.has_tickets;
            let holds = entry.reserved_bytes > 0 && !is_excused;
            holds && is_due(entry)
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
            entry.evicted.cancel();
        }
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EvictionDelays {
    /// Time without freed memory before a body that is still arriving is closed.
    fn wait_max(self) -> Duration {
        self.wait * PATIENCE_TIMES_MAX
    }
}

impl Bodies {
    fn register(&mut self, entry: Entry) -> u64 {
        let number = self.next;
        self.next += 1;
        self.unfinished.insert(number, entry);
        number
    }
}

/// What tests observe and occupy.
#[cfg(test)]
impl Pool {
    /// Number of bodies that were ever in this part.
    pub(super) fn entered(&self) -> u64 {
        self.bodies().next
    }

    /// Occupies all memory and tickets for unfinished bodies until the result is dropped.
    pub(super) fn take_all(&self) -> Vec<OwnedSemaphorePermit> {
        let all = [&self.shared, &self.tickets].map(|part| {
            let permits = u32::try_from(part.available_permits()).unwrap();
            Arc::clone(part).try_acquire_many_owned(permits).unwrap()
        });
        all.into()
    }

    /// Number of bodies that wait for memory of this part.
    pub(super) fn waiting(&self) -> usize {
        let bodies = self.bodies();
        let waiting = bodies.unfinished.values().filter(|entry| entry.is_waiting);
        waiting.count()
    }
}

impl Unfinished {
    /// Returns when another body needs the memory of this one.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Bytes that the body may have without a further reservation.
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Moves a body that has become too long for the part that it was in. It keeps its memory there
    /// until this part has granted enough.
    pub(super) fn move_to(&mut self, pool: &Arc<Pool>) {
        if Arc::ptr_eq(&self.pool, pool) {
            return;
        }
        let entry = self.pool.bodies().unfinished.remove(&self.number);
        let Some(entry) = entry else {
            return; // It has been given up.
        };
        let now = Instant::now();
        self.number = pool.bodies().register(Entry {
            paced_at: now,
            fast_at: now,
            ..entry
        });
        self.reserved_bytes = 0;
        self.pool = Arc::clone(pool);
    }

    /// Reserves `bytes` in total; with a ticket `bytes_max`, the most that the body can need.
    /// Returns how long it had to wait.
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
            Some(reserved) if !self.has_ticket && Arc::ptr_eq(&reserved.pool, &self.pool) => {
                reserved.permit.merge(permit);
            }
            // What it had of the shared memory, or of another part, becomes free for others.
            reserved => {
                *reserved = Some(Reserved {
                    permit,
                    pool: Arc::clone(&self.pool),
                });
            }
        }
        self.reserved_bytes = if self.has_ticket { bytes_max } else { bytes };
        self.note(|entry| entry.reserved_bytes = self.reserved_bytes);
        Ok(waited)
    }

    /// Records that `bytes` more bytes of the body have arrived.
    pub(super) fn arrived(&mut self, bytes: u64) {
        let before = self.arrived_bytes;
        self.arrived_bytes += bytes;
        let passes = |step| before / step < self.arrived_bytes / step;
        if passes(PACE_BYTES) {
            let now = Instant::now();
            self.note(|entry| {
                entry.paced_at = now;
                if passes(FAST_BYTES) {
                    entry.fast_at = now;
                }
            });
        }
    }

    fn note(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.pool.bodies().unfinished.get_mut(&self.number) {
            change(entry);
        }
    }

    /// Waits for memory. Resets the pace afterwards, because the wait is not the sender's fault.
    async fn wait(&mut self, units: u32) -> Result<OwnedSemaphorePermit, BodyError> {
        self.note(|entry| entry.is_waiting = true);
        let permit = self.wait_for(units).await;
        self.note(|entry| {
            entry.is_waiting = false;
            entry.paced_at = Instant::now();
            entry.fast_at = entry.paced_at;
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
                () = self.evicted.cancelled() => return Err(BodyError::Exhausted),
                () = sleep(pool.delays.wait) => pool.close_one(),
            }
        }
    }

    /// Marks the body as complete: its memory can no longer be taken away.
    pub(super) fn finish(mut self, bytes: u64) -> Option<Reserved> {
        let mut reserved = self.reserved.take()?;
        // Free the memory for unfinished bodies, so that the next one need not wait until this one
        // is stored.
        let complete = Arc::clone(&self.pool.complete);
        if let Ok(permit) = complete.try_acquire_many_owned(units(bytes)) {
            reserved.permit = permit;
            self.pool.bodies().freed_at = Instant::now();
        } else if self.has_ticket {
            // The ticket becomes free as soon as the disk has stored the body.
            self.pool.bodies().freed_at = Instant::now() + STORING_MAX;
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

/// A semaphore over `bytes` of memory, counted in units.
pub(super) fn semaphore(bytes: u64) -> Arc<Semaphore> {
    let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
}

/// Converts bytes to units, rounded up.
pub(super) fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}
