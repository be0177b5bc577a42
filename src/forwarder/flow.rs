//! The scheduler: decides what is published next and what an outcome means. A pure state machine
//! without clock, I/O or tokio: inputs are events that happened, outputs are [`Action`]s.
//!
//! - A **session queue** holds the oldest pending events of one session of one source in memory, in
//!   order. At most one of them is unconfirmed. Each reject has a queue of its own.
//! - Every buffered event is also in the journal, so a queue can be evicted at any time. Its route
//!   is then marked with `needs_fetch`, and the events are fetched from the journal again. The same
//!   mechanism therefore bounds memory and handles retries, unavailable routes and a long backlog.
//! - Each route has a circuit breaker. A route that is stalled or unavailable is **tripped**: none
//!   of its events stay in memory. It is probed over a separate connection, first with a window of
//!   one event; each success doubles the size (half-open probe).

mod outcomes;
mod pauses;
mod queues;
mod refusals;
mod routes;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::queues::{QueueId, QueueKey, SessionQueue};
use self::refusals::Refusals;
use self::routes::RouteFlow;
use self::windows::OutstandingWindow;
use crate::backoff::Backoff;
use crate::journal::{FetchRequest, QueuedEvent, RouteId, Seq, Transition};
use crate::rabbitmq::Link;
use crate::telemetry::status::{Pause, RetryingStatus};

/// Milliseconds on the forwarder's clock, which is monotonic and starts with the forwarder.
pub type Millis = u64;

/// Limits of the flow.
#[derive(Debug, Clone)]
pub struct FlowLimits {
    /// Messages that are unconfirmed, or whose change of state is not yet committed.
    pub in_flight_max: usize,
    /// Total body bytes of unconfirmed messages. A larger body is published alone.
    pub in_flight_bytes_max: u64,
    /// Body bytes of a message. An event with a larger body becomes a dead letter without a body.
    pub message_bytes_max: u64,
    /// A route with unconfirmed messages of which none is confirmed for this long is stalled.
    pub confirm_timeout: Duration,
    /// How often an event is published before it becomes a dead letter.
    pub attempts_max: u32,
}

/// A task for the forwarder's loop.
#[derive(Debug)]
pub enum Action {
    /// Publish these events together and in order, and report the outcome of all of them.
    Publish {
        /// Identifies the window in publisher events.
        window: u64,
        /// The connection to use.
        link: Link,
        /// Whether to check that the exchange exists before publishing.
        ensure_exchange: bool,
        /// The events, all of one route.
        events: Vec<QueuedEvent>,
    },
    /// Fetch events of a route from the journal and pass the result to [`Flow::fetched`].
    Fetch(FetchRequest),
    /// Write this change to the journal, which acknowledges it with a later commit.
    Transition(Transition),
    /// Drop the connection for this reason. The outcomes of its unconfirmed messages are then
    /// unknown.
    Reconnect(Link, String),
}

/// The forwarder's state.
#[derive(Debug)]
pub struct Flow {
    limits: FlowLimits,
    retry: Backoff,
    /// Queue ids by session. Looked up once per event, when it arrives.
    queue_ids: HashMap<QueueKey, QueueId>,
    queues: HashMap<QueueId, SessionQueue>,
    next_queue: u64,
    /// The queue of every event that is buffered or whose change is not yet acknowledged.
    seqs: BTreeMap<Seq, QueueId>,
    routes: BTreeMap<RouteId, RouteFlow>,
    pauses: Vec<Pause>,
    refusals: Refusals,
    windows: BTreeMap<u64, OutstandingWindow>,
    next_window: u64,
    links: [LinkState; 2],
    pending_fetch: Option<PendingFetch>,
    /// The route that was served last, by a window or by a fetch. The search for the next
    /// one starts after it.
    round_robin_cursor: RouteId,
    /// A route whose next event exceeds the free in-flight bytes. If it can start a window, it is
    /// served before the others.
    blocked_on_memory: Option<RouteId>,
    /// Number of buffered events, and their body bytes.
    buffered: usize,
    buffered_bytes: u64,
    /// Number of unconfirmed messages, and their body bytes.
    in_flight: usize,
    in_flight_bytes: u64,
    /// Changes that the journal has not acknowledged yet.
    awaiting_commit: usize,
    actions: VecDeque<Action>,
    /// Increases with each reset. Queues of an older generation have routes of an earlier
    /// configuration.
    generation: u32,
    /// Increases when a route changes its state.
    version: u64,
    is_halted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Down,
    Up,
    Blocked,
}

/// A fetch in progress, with what has happened since it was requested: its snapshot may be older
/// than that.
#[derive(Debug)]
struct PendingFetch {
    route_id: RouteId,
    generation: u32,
    /// A head of that route was not buffered, and the result may not contain it.
    has_missed_head: bool,
    /// A follower was not buffered, so no batch of the result can be assumed to be complete.
    has_missed_follower: bool,
    /// Queues removed in the meantime: the result may contain events of theirs that are complete.
    gone: HashSet<QueueKey>,
}

/// Limit of buffered events, as a multiple of `in_flight_max`: the events of a busy second are
/// published without being read back from the journal. Their bodies have a limit of their own.
const BUFFERED_FACTOR: usize = 16;
/// One route may have a quarter of them: a route that stops leaves room for the others.
const ROUTE_PART: usize = 4;
/// Limit of buffered body bytes, as a multiple of `in_flight_bytes_max`.
const BUFFERED_BYTES_FACTOR: u64 = 2;

impl Flow {
    /// Creates a flow with no events, not connected to a broker.
    #[must_use]
    pub fn new(limits: FlowLimits, retry: Backoff) -> Self {
        Self {
            limits,
            retry,
            queue_ids: HashMap::new(),
            queues: HashMap::new(),
            next_queue: 1,
            seqs: BTreeMap::new(),
            routes: BTreeMap::new(),
            pauses: Vec::new(),
            refusals: Refusals::default(),
            windows: BTreeMap::new(),
            next_window: 1,
            links: [LinkState::Down; 2],
            pending_fetch: None,
            round_robin_cursor: 0,
            blocked_on_memory: None,
            buffered: 0,
            buffered_bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            awaiting_commit: 0,
            actions: VecDeque::new(),
            generation: 0,
            version: 0,
            is_halted: false,
        }
    }

    /// Returns the next action. Call it until it returns `None`, after every input and at
    /// `next_deadline`.
    pub fn next_action(&mut self, now: Millis, wall: Timestamp) -> Option<Action> {
        if self.actions.is_empty() && !self.is_halted {
            self.mark_due_routes(now);
            self.watch_confirms(now);
            self.start_window(now, wall);
        }
        if self.actions.is_empty() && !self.is_halted {
            self.start_fetch(now);
        }
        self.actions.pop_front()
    }

    /// Records that the journal has events of these routes that are not buffered.
    pub fn mark_needs_fetch(&mut self, routes: impl IntoIterator<Item = RouteId>) {
        for route_id in routes {
            self.route(route_id).needs_fetch = true;
        }
    }

    /// Evicts every buffered event that is not in flight, because the configuration has changed.
    /// Events in flight without a successful outcome are then fetched again instead of being
    /// published again from memory. Call `mark_needs_fetch` with the journal's routes afterwards.
    pub fn reset(&mut self) {
        self.generation += 1;
        self.refusals.clear();
        let waiting: Vec<QueueId> = self
            .routes
            .values_mut()
            .flat_map(|route| std::mem::take(&mut route.ready))
            .collect();
        for queue_id in waiting {
            self.evict(queue_id);
        }
        let mut dropped = Vec::new();
        for queue in self.queues.values_mut() {
            let followers = queue.events.split_off(queue.events.len().min(1));
            queue.has_more |= !followers.is_empty();
            dropped.extend(followers);
        }
        self.drop_events(dropped);
        self.forget_names();
    }

    /// From now on, no new window and no fetch is started.
    pub fn halt(&mut self) {
        self.is_halted = true;
    }

    /// Whether [`Flow::halt`] was called.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.is_halted
    }

    /// When to call `next_action` again if there is no input before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let confirm_timeout = millis(self.limits.confirm_timeout);
        self.routes
            .values()
            .filter_map(|route| route.next_deadline(confirm_timeout, self.links))
            .min()
    }

    /// Whether every pending event that can be published has been published. Events of tripped
    /// routes, and those that wait for a retry, do not count.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut routes = self.routes.values();
        self.queues.is_empty()
            && self.pending_fetch.is_none()
            && self.actions.is_empty()
            && !routes.any(|route| route.needs_fetch && route.breaker.is_none())
    }

    /// Whether no message is unconfirmed and every change is committed.
    #[must_use]
    pub fn has_nothing_outstanding(&self) -> bool {
        self.in_flight == 0 && self.awaiting_commit == 0
    }

    /// Whether the main connection is up and not blocked.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.links[index(Link::Main)] == LinkState::Up
    }

    /// Number of unconfirmed messages.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Increases whenever the result of `statuses` changes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Events that were rejected and are retried, by route and reason.
    #[must_use]
    pub fn retrying(&self) -> Vec<RetryingStatus> {
        self.refusals.statuses()
    }

    /// Increases whenever the result of `retrying` changes.
    #[must_use]
    pub fn refusals_version(&self) -> u64 {
        self.refusals.version()
    }

    /// The exchange and routing key of a route, if an event of it has been seen.
    #[must_use]
    pub fn route_of(&self, route_id: RouteId) -> Option<Arc<crate::webhook::routing::Route>> {
        self.routes.get(&route_id)?.route.clone()
    }
}

fn index(link: Link) -> usize {
    match link {
        Link::Main => 0,
        Link::Probe => 1,
    }
}

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
