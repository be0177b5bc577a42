//! What goes out next: windows of routes with something ready, takes of routes that are behind,
//! in turn.

use jiff::Timestamp;

use super::lanes::{LaneId, LaneState};
use super::{Action, Flow, LinkState, Millis, Taking, WINDOWS_MAX, WINDOWS_PER_ROUTE_MAX, index};
use crate::journal::{Held, Request, RouteId};
use crate::rabbitmq::Link;
use crate::telemetry::status::RouteState;
use crate::webhook::Reason;

/// A window that is outstanding.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) route_id: RouteId,
    pub(super) lanes: Vec<LaneId>,
    pub(super) bytes: u64,
}

impl Flow {
    /// Messages of one window at most.
    pub(super) fn window_max(&self) -> usize {
        (self.limits.in_flight_max / 4).max(1)
    }

    /// Finds routes of which nothing was confirmed for too long. While the broker blocks, the
    /// clock stands still.
    pub(super) fn watch_confirms(&mut self, now: Millis) {
        let confirm_timeout = super::millis(self.limits.confirm_timeout);
        let mut lost = [None, None];
        for route in self.routes.values_mut() {
            let Some(link) = route.outstanding_on() else {
                continue;
            };
            let is_late = self.links[index(link)] == LinkState::Up
                && now >= route.progress_at + confirm_timeout;
            if !is_late {
                continue;
            }
            // Once per timeout; the outcomes follow as unknown and find the route suspect.
            route.progress_at = now;
            route.is_late = true;
            let name = route.route.as_ref().map_or("", |name| &*name.routing_key);
            lost[index(link)].get_or_insert_with(|| {
                format!("`{name}` was not confirmed for {confirm_timeout} ms")
            });
        }
        for (link, reason) in [Link::Main, Link::Probe].into_iter().zip(lost) {
            if let Some(reason) = reason {
                self.actions.push_back(Action::Reconnect(link, reason));
            }
        }
    }

    /// Starts at most one window, of the route whose turn it is.
    pub(super) fn start_window(&mut self, now: Millis, wall: Timestamp) {
        if !self.is_connected() || self.windows.len() >= WINDOWS_MAX || self.places() == 0 {
            return;
        }
        let may_start = |route_id: &RouteId| {
            let route = &self.routes[route_id];
            let windows_max = if route.suspect.is_some() {
                1
            } else {
                WINDOWS_PER_ROUTE_MAX
            };
            !route.ready.is_empty()
                && route.windows < windows_max
                && self.links[index(route.link())] != LinkState::Blocked
                && route
                    .suspect
                    .as_ref()
                    .is_none_or(|suspect| now >= suspect.probe_at)
        };
        let next = match self.waiting {
            Some(route_id) if self.routes.contains_key(&route_id) && may_start(&route_id) => {
                Some(route_id)
            }
            _ => self.in_turn(may_start),
        };
        self.waiting = None;
        let Some(route_id) = next else { return };
        self.turn = route_id;
        self.fill_window(route_id, now, wall);
    }

    /// Refused events that are due again are in the journal.
    pub(super) fn wake(&mut self, now: Millis) {
        for route in self.routes.values_mut() {
            if route.wake_at.is_some_and(|wake| now >= wake) {
                route.wake_at = None;
                route.is_behind = true;
            }
            route.take_again_at = route.take_again_at.filter(|again| now < *again);
        }
    }

    /// Starts a take, if none is under way, for the route whose turn it is.
    pub(super) fn start_take(&mut self, now: Millis) {
        if self.taking.is_some() || !self.is_connected() || !self.has_room(0) {
            return;
        }
        let low = self.lanes_max() / 2;
        // A route has not two of the largest bodies in hand; one that has nothing waits for nobody's.
        let has_ample_room = self.has_room(self.limits.in_flight_bytes_max);
        let may_take = |route_id: &RouteId| {
            let route = &self.routes[route_id];
            let is_wanted = match &route.suspect {
                Some(suspect) => route.windows == 0 && route.lanes == 0 && now >= suspect.probe_at,
                None => route.lanes <= low && (has_ample_room || route.lanes == 0),
            };
            route.is_behind && route.take_again_at.is_none() && is_wanted
        };
        let Some(route_id) = self.in_turn(may_take) else {
            return;
        };
        self.turn = route_id;
        let events_max = match &self.route(route_id).suspect {
            Some(suspect) => suspect.window,
            None => self.lanes_max() - self.route(route_id).lanes,
        };
        let events_max = events_max.min(self.held_max() - self.held).max(1);
        self.route(route_id).is_behind = false;
        self.taking = Some(Taking {
            route_id,
            generation: self.generation,
            has_missed_head: false,
            has_missed_follower: false,
            gone: std::collections::HashSet::new(),
        });
        self.actions.push_back(Action::Take(Request {
            route_id,
            skip: self.seqs.keys().copied().collect(),
            events_max,
            bytes_max: self.limits.in_flight_bytes_max,
            now_ms: now,
        }));
    }

    /// The next route, after the one that had its turn, of which that is true.
    fn in_turn(&self, is_next: impl Fn(&RouteId) -> bool) -> Option<RouteId> {
        let after = self
            .routes
            .range(self.turn + 1..)
            .map(|(route_id, _)| route_id);
        let before = self
            .routes
            .range(..=self.turn)
            .map(|(route_id, _)| route_id);
        after
            .chain(before)
            .copied()
            .find(|route_id| is_next(route_id))
    }

    /// Messages that may still go out: what is published and not marked on the disk is bounded.
    fn places(&self) -> usize {
        self.limits
            .in_flight_max
            .saturating_sub(self.in_flight + self.unmarked)
    }

    fn fill_window(&mut self, route_id: RouteId, now: Millis, wall: Timestamp) {
        let route = self.route(route_id);
        let link = route.link();
        let suspect = route.suspect.clone();
        let ensure_exchange = suspect
            .as_ref()
            .is_some_and(|suspect| suspect.state == RouteState::Closed);
        let size_max = suspect.map_or(self.window_max(), |suspect| suspect.window);
        let size_max = size_max.min(self.places());
        let mut events = Vec::new();
        // They wait for the disk like what was published, and have a place there, too.
        let mut condemned = 0;
        let mut window = Window {
            route_id,
            lanes: Vec::new(),
            bytes: 0,
        };
        while events.len() + condemned < size_max {
            let Some(lane_id) = self.route(route_id).ready.front().copied() else {
                break;
            };
            let held = self.lanes[&lane_id]
                .queue
                .front()
                .expect("a ready lane has an event")
                .clone();
            let bytes = held.event.body.len() as u64;
            if self.in_flight + events.len() > 0
                && self.in_flight_bytes + window.bytes + bytes > self.limits.in_flight_bytes_max
            {
                // Its turn is kept until there is room, or smaller ones would pass it for ever.
                self.waiting = events.is_empty().then_some(route_id);
                break;
            }
            self.route(route_id).ready.pop_front();
            if let Some((reason, detail)) = self.unpublishable(&held) {
                self.condemn(lane_id, reason, detail, wall);
                condemned += 1;
                continue;
            }
            self.lane(lane_id).state = LaneState::InFlight;
            window.lanes.push(lane_id);
            window.bytes += bytes;
            events.push(held);
        }
        if events.is_empty() {
            return;
        }
        self.send(window, link, ensure_exchange, events, now);
    }

    fn send(
        &mut self,
        window: Window,
        link: Link,
        ensure_exchange: bool,
        events: Vec<Held>,
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

    /// Why an event must not be sent as it is.
    fn unpublishable(&self, held: &Held) -> Option<(Reason, String)> {
        if held.condemned.is_some() {
            return None;
        }
        if held.is_damaged {
            let detail = "what is stored is not what was received".to_owned();
            return Some((Reason::Damaged, detail));
        }
        let bytes = held.event.body.len() as u64;
        let bytes_max = self.limits.message_bytes_max;
        (bytes > bytes_max).then(|| {
            let detail = format!("{bytes} bytes, rabbitmq.message_bytes_max is {bytes_max}");
            (Reason::TooLarge, detail)
        })
    }
}
