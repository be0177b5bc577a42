//! The connections that are open: how many there may be, and which one goes when there is no
//! place for a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::progress::Progress;

/// How long one connection is waited for before another one is asked to go.
const EVICTION_PATIENCE: Duration = Duration::from_millis(100);

/// How long a connection has its place in any case. Whoever has just come has perhaps only not
/// been heard yet.
const GRACE: Duration = Duration::from_millis(100);

/// All seats of one listener.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    connections: HashMap<u64, Arc<Progress>>,
}

/// The seat of one connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    taken: Arc<Mutex<Taken>>,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    /// So many connections at once.
    pub(super) fn new(connections_max: usize) -> Self {
        let seats = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(seats)),
            taken: Arc::default(),
        }
    }

    /// Returns as soon as there is a seat. If there is none, the connection that has been longest
    /// without a complete request head has to go; if all are in the middle of a request or have
    /// only just come, one of them has to finish or to grow old.
    pub(super) async fn take(&self, progress: &Arc<Progress>) -> Seat {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.seat(progress, permit);
            }
            self.evict_oldest();
            let freed = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = timeout(EVICTION_PATIENCE, freed).await {
                return self.seat(progress, permit);
            }
        }
    }

    /// Asks the connection to go that has been longest without a complete request head, and not
    /// only just now.
    pub(super) fn evict_oldest(&self) {
        let taken = lock(&self.taken);
        let oldest = taken
            .connections
            .values()
            .filter_map(|connection| Some((connection.headless_since()?, connection)))
            .filter(|(since, _)| since.elapsed() >= GRACE)
            .min_by_key(|(since, _)| *since);
        if let Some((_, connection)) = oldest {
            connection.evict();
        }
    }

    /// Has every connection look at its standing again.
    pub(super) fn poke_all(&self) {
        for connection in lock(&self.taken).connections.values() {
            connection.poke.notify_one();
        }
    }

    fn seat(&self, progress: &Arc<Progress>, permit: OwnedSemaphorePermit) -> Seat {
        let mut taken = lock(&self.taken);
        let number = taken.next;
        taken.next += 1;
        taken.connections.insert(number, Arc::clone(progress));
        Seat {
            number,
            taken: Arc::clone(&self.taken),
            _permit: permit,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.taken).connections.remove(&self.number);
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}
