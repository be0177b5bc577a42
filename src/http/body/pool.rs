//! One part of the memory for bodies, with the unfinished bodies in it.
//!
//! Bodies that each hold some memory and wait for more could block each other. Therefore memory for
//! one body of the maximum length is kept aside, and the body that holds the single ticket may use
//! it: that body always gets what it needs, and the next one gets the ticket when it is done.
//!
//! Against senders that never finish: while a body waits for memory, bodies that arrive more slowly
//! than a real sender's are closed at once, the slowest first, as many as are needed. The time for
//! which a body itself waits for memory does not count. While a complete body keeps its memory here
//! until it is stored, the others wait for the disk, so nothing is closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::BodyError;

/// Size of the unit in which memory is counted, in bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// Interval at which the bodies are checked while one waits for memory.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A part of the memory for bodies.
#[derive(Debug)]
pub(super) struct Pool {
    /// Memory that any body may reserve step by step, in units.
    shared: Arc<Semaphore>,
    /// A body with a ticket may have all the memory it needs, outside of `shared`.
    tickets: Arc<Semaphore>,
    /// The most that a body in this part needs.
    body_bytes_max: u64,
    /// Memory for complete bodies, in units; unfinished bodies cannot use it.
    complete: Arc<Semaphore>,
    pace: Pace,
    bodies: Mutex<Bodies>,
}

/// The pace of a real sender. Other bodies give way to one that waits for memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) bytes: u64,
    /// Time for these bytes. Once a body has waited for this long, half of it.
    pub(super) time: Duration,
}

#[derive(Debug)]
struct Bodies {
    next: u64,
    unfinished: HashMap<u64, Entry>,
    /// Complete bodies that keep their memory here until they are stored.
    storing: usize,
    checked_at: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    reserved_bytes: u64,
    /// When the latest bytes that make up a pace had arrived, later by what it waited since.
    paced_at: Instant,
    /// Since when it waits for memory, and for how many bytes.
    waiting: Option<(Instant, u64)>,
    evicted: CancellationToken,
}

/// Memory of one body; released when dropped.
#[derive(Debug)]
pub(in crate::http) struct Reserved {
    permit: OwnedSemaphorePermit,
    pool: Arc<Pool>,
    is_storing: bool,
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
    /// A part with `bytes` for unfinished bodies. In addition, one body may have all the memory it
    /// needs, up to `body_bytes_max`. `complete` is the memory for complete bodies.
    pub(super) fn new(
        bytes: u64,
        body_bytes_max: u64,
        complete: &Arc<Semaphore>,
        pace: Pace,
    ) -> Self {
        Self {
            shared: semaphore(bytes),
            complete: Arc::clone(complete),
            tickets: Arc::new(Semaphore::new(1)),
            body_bytes_max,
            pace,
            bodies: Mutex::new(Bodies {
                next: 0,
                unfinished: HashMap::new(),
                storing: 0,
                checked_at: None,
            }),
        }
    }

    /// Registers a body of which nothing has arrived.
    pub(super) fn enter(self: &Arc<Self>) -> Unfinished {
        let evicted = CancellationToken::new();
        let entry = Entry {
            reserved_bytes: 0,
            paced_at: Instant::now(),
            waiting: None,
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

    /// Closes slow bodies until there is enough memory for all that wait.
    fn close_slow(&self) {
        let now = Instant::now();
        let mut bodies = self.bodies();
        let is_checked = |at: Instant| now.saturating_duration_since(at) < CHECK_INTERVAL;
        if bodies.storing > 0 || bodies.checked_at.is_some_and(is_checked) {
            return;
        }
        bodies.checked_at = Some(now);
        let waiting = || bodies.unfinished.values().filter_map(|entry| entry.waiting);
        let mut wanted: u64 = waiting().map(|(_, bytes)| bytes).sum();
        let is_long = |(since, _)| now.saturating_duration_since(since) >= self.pace.time;
        let time = self.pace.time / if waiting().any(is_long) { 2 } else { 1 };
        let elapsed = |entry: &Entry| {
            let until = entry.waiting.map_or(now, |(since, _)| since);
            until.saturating_duration_since(entry.paced_at)
        };
        let holding = bodies.unfinished.iter();
        let mut slow: Vec<_> = holding
            .filter(|(_, entry)| entry.reserved_bytes > 0 && elapsed(entry) >= time)
            .map(|(&number, entry)| (elapsed(entry), number))
            .collect();
        slow.sort_unstable();
        let mut free = self.shared.available_permits() as u64 * UNIT_BYTES;
        while free < wanted
            && let Some((_, number)) = slow.pop()
            && let Some(entry) = bodies.unfinished.remove(&number)
        {
            free += entry.reserved_bytes;
            wanted -= entry.waiting.map_or(0, |(_, bytes)| bytes);
            entry.evicted.cancel();
        }
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
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
        let waiting = bodies
            .unfinished
            .values()
            .filter(|entry| entry.waiting.is_some());
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
        self.number = pool.bodies().register(Entry {
            reserved_bytes: 0,
            ..entry
        });
        self.reserved_bytes = 0;
        self.has_ticket = false;
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
                    is_storing: false,
                });
            }
        }
        self.reserved_bytes = if self.has_ticket {
            bytes_max.min(self.pool.body_bytes_max)
        } else {
            bytes
        };
        self.note(|entry| entry.reserved_bytes = self.reserved_bytes);
        Ok(waited)
    }

    /// Records that `bytes` more bytes of the body have arrived.
    pub(super) fn arrived(&mut self, bytes: u64) {
        let before = self.arrived_bytes;
        self.arrived_bytes += bytes;
        let step = self.pool.pace.bytes;
        if before / step < self.arrived_bytes / step {
            self.note(|entry| entry.paced_at = Instant::now());
        }
    }

    fn note(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.pool.bodies().unfinished.get_mut(&self.number) {
            change(entry);
        }
    }

    /// Waits for memory. This does not count as slow: it is not the sender's fault.
    async fn wait(&mut self, units: u32) -> Result<OwnedSemaphorePermit, BodyError> {
        let begin = Instant::now();
        let bytes = u64::from(units) * UNIT_BYTES;
        self.note(|entry| entry.waiting = Some((begin, bytes)));
        let permit = self.wait_for(units).await;
        self.note(|entry| {
            entry.waiting = None;
            let now = Instant::now();
            entry.paced_at = now.min(entry.paced_at + (now - begin));
        });
        permit
    }

    async fn wait_for(&mut self, units: u32) -> Result<OwnedSemaphorePermit, BodyError> {
        let pool = &self.pool;
        let mut shared = std::pin::pin!(Arc::clone(&pool.shared).acquire_many_owned(units));
        let mut ticket = std::pin::pin!(Arc::clone(&pool.tickets).acquire_owned());
        loop {
            pool.close_slow();
            tokio::select! {
                biased;
                permit = &mut shared => return permit.map_err(|_| BodyError::Exhausted),
                permit = &mut ticket => {
                    self.has_ticket = true;
                    return permit.map_err(|_| BodyError::Exhausted);
                }
                () = self.evicted.cancelled() => return Err(BodyError::Exhausted),
                () = sleep(CHECK_INTERVAL) => {}
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
        } else {
            reserved.is_storing = true;
            reserved.pool.bodies().storing += 1;
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
        if self.is_storing {
            let mut bodies = self.pool.bodies();
            bodies.storing -= 1;
            // Until now, they may have waited for the disk.
            let now = Instant::now();
            bodies
                .unfinished
                .values_mut()
                .for_each(|entry| entry.paced_at = now);
        }
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
