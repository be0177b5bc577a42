//! What is published next, and what an outcome means. A pure state machine: no clock, no I/O, no
//! tokio; it takes what happened and gives what to do.
//!
//! - A **lane** is one session of one source with the first of its unsettled events in hand, in
//!   order. At most one of them is unconfirmed. A reject has a lane of its own.
//! - Everything in hand is also in the journal. A lane can be let go at any time; its route is
//!   then marked as `behind` and taken from the journal again. That is how memory stays bounded
//!   and how retries, parked routes and a long backlog are one and the same case.
//! - A route that is stuck or closed is **suspect**: nothing of it stays in hand, and it is probed
//!   on a connection of its own with a window of one event that doubles with every success.

mod lanes;
mod outcomes;
mod refusals;
mod routes;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::lanes::{Lane, LaneId, LaneKey};
use self::refusals::Refusals;
use self::routes::RouteFlow;
use self::windows::Window;
use super::retry::Backoff;
use crate::journal::{Change, Held, Request, RouteId, Seq};
use crate::rabbitmq::Link;
use crate::telemetry::status::RetryingStatus;

/// Milliseconds on the forwarder's clock, which begins with the process and only goes forward.
pub type Millis = u64;

/// What bounds the flow.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages published and not yet marked as settled on the disk.
    pub in_flight_max: usize,
    /// Bodies of unconfirmed messages; one larger than this travels alone.
    pub in_flight_bytes_max: u64,
    /// Larger bodies become dead letters without a body.
    pub message_bytes_max: u64,
    /// A route that confirms nothing for that long while something is outstanding is stuck.
    pub confirm_timeout: Duration,
    /// Times a message is published before it becomes a dead letter.
    pub attempts_max: u32,
}

/// What the flow wants done.
#[derive(Debug)]
pub enum Action {
    /// Publish these, together and in order; report the outcome of all of them.
    Publish {
        /// Names the window in reports.
        window: u64,
        /// The connection to use.
        link: Link,
        /// Whether to look for the exchange first.
        ensure_exchange: bool,
        /// The events, all of one route.
        events: Vec<Held>,
    },
    /// Take events of a route from the journal and answer with `taken`.
    Take(Request),
    /// Write this into the journal; it is acknowledged with a later commit.
    Change(Change),
    /// Drop the connection: what is outstanding on it has no known outcome any more.
    Reconnect(Link, String),
}

/// The forwarder's state.
#[derive(Debug)]
pub struct Flow {
    limits: Limits,
    retry: Backoff,
    /// Lanes by session: looked up once, when an event comes in.
    lane_ids: HashMap<LaneKey, LaneId>,
    lanes: HashMap<LaneId, Lane>,
    next_lane: u64,
    /// Lane of every event that is in hand or whose change is not acknowledged.
    seqs: HashMap<Seq, LaneId>,
    routes: BTreeMap<RouteId, RouteFlow>,
    refusals: Refusals,
    windows: BTreeMap<u64, Window>,
    next_window: u64,
    links: [LinkState; 2],
    taking: Option<Taking>,
    /// Where the turn of routes goes on, for windows and for takes.
    turn: RouteId,
    /// A route whose next event needs room: nothing else goes out before it.
    waiting: Option<RouteId>,
    /// Events in hand and their bodies.
    held: usize,
    held_bytes: u64,
    /// Unconfirmed messages and their bodies.
    in_flight: usize,
    in_flight_bytes: u64,
    /// Changes that are not acknowledged.
    unmarked: usize,
    actions: VecDeque<Action>,
    /// Lanes of an older generation hold routes of an earlier configuration.
    generation: u32,
    /// Grows when a route changes its state.
    version: u64,
    is_halted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Down,
    Up,
    Blocked,
}

/// A take that is under way, with what happened since its snapshot may have been made.
#[derive(Debug)]
struct Taking {
    route_id: RouteId,
    generation: u32,
    /// A head of that route was let pass: the result may not have it.
    has_missed_head: bool,
    /// Something that is not a head was let pass: no run of the result is known to be complete.
    has_missed_follower: bool,
    /// Lanes let go meanwhile: the result may have what is already done.
    gone: HashSet<LaneKey>,
}

/// Events in hand, as a multiple of what may be in flight: what a busy second brings is published
/// without being read back from the journal. Their bodies are bounded on their own.
const HELD_FACTOR: usize = 16;
/// The part of them that one route may have: one that stops leaves room for the others.
const ROUTE_PART: usize = 4;
/// Bytes in hand, as a multiple of what may be in flight.
const HELD_BYTES_FACTOR: u64 = 2;
/// Windows of an open route that are outstanding together: one is filled while others are
/// confirmed, and a quarter of what may be in flight is left to the other routes.
const WINDOWS_PER_ROUTE_MAX: usize = 3;
/// Windows outstanding together: each needs a channel.
const WINDOWS_MAX: usize = 32;

/// Channels that so many routes need at most, all of them busy.
#[must_use]
pub fn channels_max(routes: usize) -> usize {
    WINDOWS_MAX.min(routes.saturating_mul(WINDOWS_PER_ROUTE_MAX))
}

impl Flow {
    /// A flow with nothing in hand.
    #[must_use]
    pub fn new(limits: Limits, retry: Backoff) -> Self {
        Self {
            limits,
            retry,
            lane_ids: HashMap::new(),
            lanes: HashMap::new(),
            next_lane: 1,
            seqs: HashMap::new(),
            routes: BTreeMap::new(),
            refusals: Refusals::default(),
            windows: BTreeMap::new(),
            next_window: 1,
            links: [LinkState::Down; 2],
            taking: None,
            turn: 0,
            waiting: None,
            held: 0,
            held_bytes: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            unmarked: 0,
            actions: VecDeque::new(),
            generation: 0,
            version: 0,
            is_halted: false,
        }
    }

    /// The next thing to do, until there is none.
    pub fn next_action(&mut self, now: Millis, wall: Timestamp) -> Option<Action> {
        if self.actions.is_empty() && !self.is_halted {
            self.wake(now);
            self.watch_confirms(now);
            self.start_window(now, wall);
        }
        if self.actions.is_empty() && !self.is_halted {
            self.start_take(now);
        }
        self.actions.pop_front()
    }

    /// These routes have something in the journal that is not in hand.
    pub fn behind(&mut self, routes: impl IntoIterator<Item = RouteId>) {
        for route_id in routes {
            self.route(route_id).is_behind = true;
        }
    }

    /// The configuration has changed: what is in hand and not on its way is let go, and what comes
    /// back is not published again from here but taken anew. Call `behind` with the journal's
    /// routes then.
    pub fn forget(&mut self) {
        self.generation += 1;
        self.refusals.clear();
        let waiting: Vec<LaneId> = self
            .routes
            .values_mut()
            .flat_map(|route| std::mem::take(&mut route.ready))
            .collect();
        for lane_id in waiting {
            self.let_go(lane_id);
        }
        for lane in self.lanes.values_mut() {
            let followers = lane.queue.split_off(lane.queue.len().min(1));
            lane.has_more |= !followers.is_empty();
            for held in followers {
                self.held -= 1;
                self.held_bytes -= held.event.body.len() as u64;
                self.seqs.remove(&held.seq);
            }
        }
    }

    /// From now on nothing new goes out.
    pub fn halt(&mut self) {
        self.is_halted = true;
    }

    /// When to ask for actions again though nothing happened.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let confirm_timeout = millis(self.limits.confirm_timeout);
        self.routes
            .values()
            .filter_map(|route| route.next_deadline(confirm_timeout, self.links))
            .min()
    }

    /// Whether everything in the journal that can be published has been.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.is_empty()
            && self.taking.is_none()
            && self.actions.is_empty()
            && !self
                .routes
                .values()
                .any(|route| route.is_behind && route.suspect.is_none())
    }

    /// Whether nothing is on its way to the broker or to the disk.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight == 0 && self.unmarked == 0
    }

    /// Whether messages can be published now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.links[index(Link::Main)] == LinkState::Up
    }

    /// Unconfirmed messages.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Grows whenever `statuses` would show something new.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Events that were refused and are tried again, by route and reason.
    #[must_use]
    pub fn retrying(&self) -> Vec<RetryingStatus> {
        self.refusals.statuses()
    }

    /// Grows whenever `retrying` would show something new.
    #[must_use]
    pub fn refusals_version(&self) -> u64 {
        self.refusals.version()
    }

    /// A route's name, if it was seen.
    #[must_use]
    pub fn route_of(&self, route_id: RouteId) -> Option<Arc<crate::webhook::routing::Route>> {
        self.routes
            .get(&route_id)
            .and_then(|route| route.route.clone())
    }
}

fn index(link: Link) -> usize {
    match link {
        Link::Main => 0,
        Link::Probe => 1,
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
