//! The current behaviour of the proxy, shared between the test and the connections.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The direction of a byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// The faults of one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    pub swallows: bool,
    pub stalls: bool,
    pub delay: Duration,
    pub bytes_per_second: Option<u64>,
    pub slices: bool,
}

/// The faults of both directions.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub up: Way,
    pub down: Way,
    pub refuses: bool,
}

impl Rules {
    pub fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    pub fn way_mut(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// Whether and how the test wants one connection to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    NotYet,
    Reset,
    Close,
}

/// The counters of one connection, and the switch that ends it.
pub(super) struct Connection {
    pub shared: Arc<Shared>,
    pub end: watch::Sender<End>,
    pub accepted_at: Instant,
    pub has_lost_bytes: AtomicBool,
    up: AtomicU64,
    down: AtomicU64,
    /// Byte counts at which the connection is reset, up and down; `u64::MAX`: never.
    up_max: AtomicU64,
    down_max: AtomicU64,
}

impl Connection {
    /// How many bytes may still pass before the connection is reset.
    pub fn allowance(&self, direction: Direction) -> u64 {
        let (passed, most) = self.counters(direction);
        most.load(Ordering::Relaxed)
            .saturating_sub(passed.load(Ordering::Relaxed))
    }

    /// Counts forwarded bytes.
    pub fn count(&self, direction: Direction, bytes: u64) {
        self.counters(direction)
            .0
            .fetch_add(bytes, Ordering::Relaxed);
        self.shared
            .total(direction)
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts dropped bytes.
    pub fn swallow(&self, bytes: u64) {
        self.has_lost_bytes.store(true, Ordering::Relaxed);
        self.shared.swallowed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Resets the connection: it has reached the byte at which to cut.
    pub fn cut_here(&self) {
        self.shared.spend_cut();
        self.end.send_replace(End::Reset);
    }

    fn counters(&self, direction: Direction) -> (&AtomicU64, &AtomicU64) {
        match direction {
            Direction::Up => (&self.up, &self.up_max),
            Direction::Down => (&self.down, &self.down_max),
        }
    }
}

/// State shared by a proxy and its connections.
#[derive(Default)]
pub(super) struct Shared {
    rules: watch::Sender<Rules>,
    connections: Mutex<Vec<Arc<Connection>>>,
    next_cut: Mutex<Option<(u64, Direction)>>,
    accepted: AtomicUsize,
    cuts: AtomicUsize,
    swallowed: AtomicU64,
    slices: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Shared {
    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.rules.send_modify(change);
    }

    pub fn rules(&self) -> watch::Receiver<Rules> {
        self.rules.subscribe()
    }

    pub fn refuses(&self) -> bool {
        self.rules.borrow().refuses
    }

    pub fn register(self: &Arc<Self>) -> Arc<Connection> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            shared: Arc::clone(self),
            accepted_at: Instant::now(),
            end: watch::Sender::new(End::NotYet),
            has_lost_bytes: AtomicBool::new(false),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            up_max: AtomicU64::new(u64::MAX),
            down_max: AtomicU64::new(u64::MAX),
        });
        if let Some(cut) = *self.next_cut.lock().unwrap() {
            limit(&connection, cut);
        }
        self.connections
            .lock()
            .unwrap()
            .push(Arc::clone(&connection));
        connection
    }

    pub fn forget(&self, gone: &Arc<Connection>) {
        self.connections
            .lock()
            .unwrap()
            .retain(|connection| !Arc::ptr_eq(connection, gone));
    }

    pub fn end_all(&self, is_reset: bool) {
        let end = if is_reset { End::Reset } else { End::Close };
        for connection in self.connections.lock().unwrap().iter() {
            connection.end.send_replace(end);
        }
    }

    pub fn cut_after(&self, n: u64, direction: Direction) {
        *self.next_cut.lock().unwrap() = Some((n, direction));
        for connection in self.connections.lock().unwrap().iter() {
            limit(connection, (n, direction));
        }
    }

    pub fn heal(&self) {
        self.lift_cut();
        for connection in self.connections.lock().unwrap().iter() {
            if connection.has_lost_bytes.load(Ordering::Relaxed) {
                connection.end.send_replace(End::Reset);
            }
        }
        self.rules.send_replace(Rules::default());
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    pub fn bytes(&self, direction: Direction) -> u64 {
        self.total(direction).load(Ordering::Relaxed)
    }

    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }

    #[allow(dead_code, reason = "the chaos campaign uses it")]
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }

    #[allow(dead_code, reason = "the chaos campaign uses it")]
    pub fn slices(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    pub fn count_slice(&self) {
        self.slices.fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn spend_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
        self.lift_cut();
    }

    fn lift_cut(&self) {
        *self.next_cut.lock().unwrap() = None;
        for connection in self.connections.lock().unwrap().iter() {
            connection.up_max.store(u64::MAX, Ordering::Relaxed);
            connection.down_max.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

fn limit(connection: &Connection, (n, direction): (u64, Direction)) {
    let (passed, most) = connection.counters(direction);
    most.store(
        passed.load(Ordering::Relaxed).saturating_add(n),
        Ordering::Relaxed,
    );
}
