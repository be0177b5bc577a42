//! Chooses what is sent next: windows of routes with ready queues, and fetches for routes that need
//! one, each round-robin over the routes.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::queues::{QueueId, QueueState};
use super::{Action, Flow, LinkState, Millis, PendingFetch, index};
use crate::journal::{FetchRequest, QueuedEvent, RouteId};
use crate::rabbitmq::{Link, WINDOWS_MAX, WINDOWS_PER_ROUTE_MAX};
use crate::telemetry::status::RouteState;
use crate::webhook::DeadLetterReason;

/// A publish window that has no outcome yet.
#[derive(Debug)]
pub(super) struct OutstandingWindow {
    pub(super) route_id: RouteId,
    pub(super) queues: Vec<QueueId>,
    pub(super) bytes: u64,
}

impl Flow {
    /// The number of messages in one window, at most.
    pub(super) fn window_max(&self) -> usize {
        (self.limits.in_flight_max / 4).max(1)
    }

    /// Requests a reconnect for routes of which nothing was confirmed within the confirm timeout.
    /// The timeout is paused while the broker blocks publishing.
    pub(super) fn watch_confirms(&mut self, now: Millis) {
        let confirm_timeout = super::millis(self.limits.confirm_timeout);
        let mut lost = BTreeMap::new();
        for route in self.routes.values_mut() {
            let Some(link) = route.outstanding_on() else {
                continue;
            };
            let is_late = self.links[index(link)] == LinkState::Up
                && now >= route.progress_at + confirm_timeout;
            if !is_late {
                continue;
            }
            // Request it once per timeout. The outcomes follow as unknown and make the route
            // tripped.
            route.progress_at = now;
            route.is_late = true;
            let name = route.route.as_ref().map_or("", |name| &*name.routing_key);
            lost.entry(link)
                .or_insert_with(|| format!("`{name}` was not confirmed for {confirm_timeout} ms"));
        }
        let lost = lost.into_iter();
        let reconnects = lost.map(|(link, reason)| Action::Reconnect(link, reason));
        self.actions.extend(reconnects);
    }

    /// Starts at most one window, of the next route in round-robin order.
    pub(super) fn start_window(&mut self, now: Millis, wall: Timestamp) {
        if !self.is_connected() || self.windows.len() >= WINDOWS_MAX || self.available_slots() == 0
        {
            return;
        }
        let may_start = |route_id: &RouteId| {
            let route = &self.routes[route_id];
            let is_due = match &route.breaker {
                Some(breaker) => route.windows == 0 && now >= breaker.probe_at,
                None => route.windows < WINDOWS_PER_ROUTE_MAX,
            };
            let is_blocked = self.links[index(route.link())] == LinkState::Blocked;
            !route.ready.is_empty() && is_due && !is_blocked
        };
        let next = match self.blocked_on_memory {
            Some(route_id) if self.routes.contains_key(&route_id) && may_start(&route_id) => {
                Some(route_id)
            }
            _ => self.next_round_robin(may_start),
        };
        self.blocked_on_memory = None;
        let Some(route_id) = next else { return };
        self.round_robin_cursor = route_id;
        self.fill_window(route_id, now, wall);
    }

    /// Marks routes with rescheduled events that are due, so that they are fetched from the
    /// journal.
    pub(super) fn mark_due_routes(&mut self, now: Millis) {
        for route in self.routes.values_mut() {
            if route.wake_at.is_some_and(|wake| now >= wake) {
                route.wake_at = None;
                route.needs_fetch = true;
            }
            route.fetch_again_at = route.fetch_again_at.filter(|again| now < *again);
        }
    }

    /// Starts a fetch for the next route in round-robin order, unless one is in progress.
    pub(super) fn start_fetch(&mut self, now: Millis) {
        if self.pending_fetch.is_some() || !self.is_connected() || !self.has_room(0) {
            return;
        }
        let low = self.queues_max() / 2;
        // A route with buffered events fetches more only if there is room for the largest fetch, so
        // that it never buffers two of the largest bodies. A route without buffered events does not
        // wait for that room.
        let has_ample_room = self.has_room(self.limits.in_flight_bytes_max);
        let may_fetch = |route_id: &RouteId| {
            let route = &self.routes[route_id];
            let is_wanted = match &route.breaker {
                Some(breaker) => route.windows == 0 && route.queues == 0 && now >= breaker.probe_at,
                None => route.queues <= low && (has_ample_room || route.queues == 0),
            };
            route.needs_fetch && route.fetch_again_at.is_none() && is_wanted
        };
        let Some(route_id) = self.next_round_robin(may_fetch) else {
            return;
        };
        self.round_robin_cursor = route_id;
        let events_max = match &self.route(route_id).breaker {
            Some(breaker) => breaker.probe_size,
            None => self.queues_max() - self.route(route_id).queues,
        };
        let events_max = events_max.min(self.buffered_max() - self.buffered).max(1);
        self.route(route_id).needs_fetch = false;
        self.pending_fetch = Some(PendingFetch {
            route_id,
            generation: self.generation,
            has_missed_head: false,
            has_missed_follower: false,
            gone: HashSet::new(),
        });
        self.actions.push_back(Action::Fetch(FetchRequest {
            route_id,
            skip: self.seqs.keys().copied().collect(),
            events_max,
            bytes_max: self.limits.in_flight_bytes_max,
            now_ms: now,
        }));
    }

    /// The next route that fulfils the condition, in round-robin order after the last one served.
    fn next_round_robin(&self, is_next: impl Fn(&RouteId) -> bool) -> Option<RouteId> {
        let next = self.round_robin_cursor + 1;
        let (after, before) = (self.routes.range(next..), self.routes.range(..next));
        let mut in_turn = after.chain(before).map(|(route_id, _)| *route_id);
        in_turn.find(|route_id| is_next(route_id))
    }

    /// How many more messages may be sent. Messages count until their outcome is committed.
    fn available_slots(&self) -> usize {
        self.limits
            .in_flight_max
            .saturating_sub(self.in_flight + self.awaiting_commit)
    }

    fn fill_window(&mut self, route_id: RouteId, now: Millis, wall: Timestamp) {
        let route = self.route(route_id);
        let link = route.link();
        let breaker = route.breaker.clone();
        let ensure_exchange = breaker
            .as_ref()
            .is_some_and(|breaker| breaker.state == RouteState::Unavailable);
        let size_max = breaker.map_or(self.window_max(), |breaker| breaker.probe_size);
        let size_max = size_max.min(self.available_slots());
        let mut events = Vec::new();
        // Events that become dead letters here also wait for a commit, so each takes a slot.
        let mut dead_lettered = 0;
        let mut window = OutstandingWindow {
            route_id,
            queues: Vec::new(),
            bytes: 0,
        };
        while events.len() + dead_lettered < size_max {
            let Some(queue_id) = self.route(route_id).ready.front().copied() else {
                break;
            };
            let queued = self.first(queue_id).clone();
            let bytes = queued.event.body.len() as u64;
            if self.in_flight + events.len() > 0
                && self.in_flight_bytes + window.bytes + bytes > self.limits.in_flight_bytes_max
            {
                // The route keeps its turn until there is room. Otherwise smaller events of other
                // routes could overtake it forever.
                self.blocked_on_memory = events.is_empty().then_some(route_id);
                break;
            }
            self.route(route_id).ready.pop_front();
            if let Some((reason, detail)) = self.unpublishable(&queued) {
                self.route(route_id).queues -= 1;
                self.dead_letter(queue_id, queued.attempts, reason, detail, wall);
                dead_lettered += 1;
                continue;
            }
            self.queue(queue_id).state = QueueState::InFlight;
            window.queues.push(queue_id);
            window.bytes += bytes;
            events.push(queued);
        }
        if events.is_empty() {
            return;
        }
        self.send(window, link, ensure_exchange, events, now);
    }

    fn send(
        &mut self,
        window: OutstandingWindow,
        link: Link,
        ensure_exchange: bool,
        events: Vec<QueuedEvent>,
        now: Millis,
    ) {
        let id = self.next_window;
        self.next_window += 1;
        self.in_flight += events.len();
        self.in_flight_bytes += window.bytes;
        let route = self.route(window.route_id);
        if route.windows == 0 {
            route.progress_at = now;
        }
        route.windows += 1;
        route.sent_on = Some(link);
        self.windows.insert(id, window);
        self.actions.push_back(Action::Publish {
            window: id,
            link,
            ensure_exchange,
            events,
        });
    }

    /// Why an event must not be published as it is, if it must not.
    fn unpublishable(&self, queued: &QueuedEvent) -> Option<(DeadLetterReason, String)> {
        if queued.dead_letter_cause.is_some() {
            return None;
        }
        if queued.is_damaged {
            let detail = "the stored event is not the event that was received".to_owned();
            return Some((DeadLetterReason::Damaged, detail));
        }
        let bytes = queued.event.body.len() as u64;
        let bytes_max = self.limits.message_bytes_max;
        (bytes > bytes_max).then(|| {
            let detail = format!("{bytes} bytes, rabbitmq.message_bytes_max is {bytes_max}");
            (DeadLetterReason::TooLarge, detail)
        })
    }
}
