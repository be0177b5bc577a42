//! Routes: whether they flow, what waits on them, and when a suspect one is probed.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::lanes::LaneId;
use super::{Flow, LinkState, Millis, index};
use crate::journal::RouteId;
use crate::rabbitmq::Link;
use crate::telemetry::status::{RouteState, RouteStatus};
use crate::webhook::routing::Route;

/// Routes remembered though nothing of them is under way, for `/status`.
const ROUTES_REMEMBERED_MAX: usize = 1000;
/// A take that failed is tried again after so long.
const TAKE_AGAIN: Millis = 1000;

/// One route as the flow sees it.
#[derive(Debug, Default)]
pub(super) struct RouteFlow {
    pub(super) route: Option<Arc<Route>>,
    /// Lanes that can go into the next window.
    pub(super) ready: VecDeque<LaneId>,
    /// Lanes whose first event is of this route.
    pub(super) lanes: usize,
    /// Windows outstanding.
    pub(super) windows: usize,
    /// Where they are: a route that became suspect has none on the probe link before those on the
    /// main link are back.
    pub(super) sent_on: Option<Link>,
    /// When something of it was last confirmed, or when it began to be outstanding.
    pub(super) progress_at: Millis,
    /// The journal has heads of it that are not in hand.
    pub(super) is_behind: bool,
    /// When a refused event of it is due.
    pub(super) wake_at: Option<Millis>,
    /// The last take failed; when the next one is tried.
    pub(super) take_again_at: Option<Millis>,
    pub(super) suspect: Option<Suspect>,
    /// It was late, and the loss of the connection that follows is its doing.
    pub(super) is_late: bool,
    since: Option<Timestamp>,
}

/// A route that does not flow.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) state: RouteState,
    pub(super) reason: String,
    /// Events of the next probe at most.
    pub(super) window: usize,
    /// Probes that failed in a row.
    pub(super) attempts: u32,
    pub(super) probe_at: Millis,
}

impl RouteFlow {
    /// Whether what is ready of a suspect route may go out as its probe.
    pub(super) fn is_probing(&self, now: Millis) -> bool {
        self.suspect.as_ref().is_some_and(|suspect| {
            self.windows == 0 && now >= suspect.probe_at && self.ready.len() < suspect.window
        })
    }

    pub(super) fn link(&self) -> Link {
        if self.suspect.is_some() {
            Link::Probe
        } else {
            Link::Main
        }
    }

    /// The connection its outstanding windows are on.
    pub(super) fn outstanding_on(&self) -> Option<Link> {
        self.sent_on.filter(|_| self.windows > 0)
    }

    /// The journal could not be read: it still has what this route is behind of.
    pub(super) fn take_failed(&mut self, now: Millis) {
        self.is_behind = true;
        self.take_again_at = Some(now + TAKE_AGAIN);
    }

    pub(super) fn next_deadline(
        &self,
        confirm_timeout: Millis,
        links: [LinkState; 2],
    ) -> Option<Millis> {
        let is_up = |link| links[index(link)] == LinkState::Up;
        let confirm = self
            .outstanding_on()
            .filter(|link| is_up(*link))
            .map(|_| self.progress_at + confirm_timeout);
        let probe = self
            .suspect
            .as_ref()
            .filter(|_| self.windows == 0 && self.lanes == 0 && self.is_behind)
            .filter(|_| is_up(Link::Main))
            .map(|suspect| suspect.probe_at);
        let wake = self.wake_at.filter(|_| is_up(Link::Main));
        let again = self.take_again_at.filter(|_| is_up(Link::Main));
        [confirm, probe, wake, again].into_iter().flatten().min()
    }

    fn is_at_rest(&self) -> bool {
        self.lanes == 0
            && self.windows == 0
            && !self.is_behind
            && self.wake_at.is_none()
            && self.suspect.is_none()
    }
}

impl Flow {
    pub(super) fn route(&mut self, route_id: RouteId) -> &mut RouteFlow {
        if self.routes.len() >= ROUTES_REMEMBERED_MAX && !self.routes.contains_key(&route_id) {
            self.routes.retain(|_, route| !route.is_at_rest());
        }
        self.routes.entry(route_id).or_default()
    }

    /// Notes what a route is called; says whether that is new.
    pub(super) fn name_route(&mut self, route_id: RouteId, name: Arc<Route>) -> bool {
        let route = self.route(route_id);
        let is_new = route.route.is_none();
        if is_new {
            route.route = Some(name);
        }
        is_new
    }

    /// Parks a route: nothing of it stays in hand, and it is probed after a while. Without a
    /// delay it is an innocent that has only to show itself.
    pub(super) fn suspect(
        &mut self,
        route_id: RouteId,
        state: RouteState,
        reason: String,
        now: Millis,
        wall: Timestamp,
    ) {
        let known = self.route(route_id).suspect.take();
        let attempts = known.as_ref().map_or(0, |suspect| suspect.attempts) + 1;
        let probe_at = now + super::millis(self.retry.delay(attempts));
        let has_changed = known.is_none_or(|suspect| suspect.state != state);
        let route = self.route(route_id);
        route.suspect = Some(Suspect {
            state,
            reason,
            window: 1,
            attempts,
            probe_at,
        });
        if has_changed {
            route.since = Some(wall);
            self.version += 1;
        }
        let waiting = std::mem::take(&mut self.route(route_id).ready);
        for lane_id in waiting {
            self.let_go(lane_id);
        }
    }

    /// A probe went well: a larger one next, or the route flows again. It does when nothing of it
    /// waits any more: a stuck route without events would stay stuck for ever.
    pub(super) fn trust(&mut self, route_id: RouteId, now: Millis, wall: Timestamp) {
        let window_max = self.window_max();
        let route = self.route(route_id);
        let is_through = route.lanes == 0 && !route.is_behind;
        let Some(suspect) = &mut route.suspect else {
            return;
        };
        suspect.attempts = 0;
        suspect.probe_at = now;
        suspect.window *= 2;
        if suspect.state == RouteState::Closed || suspect.window >= window_max || is_through {
            route.suspect = None;
            route.since = Some(wall);
            self.version += 1;
        }
    }

    /// Every route that was seen lately.
    #[must_use]
    pub fn statuses(&self) -> Vec<RouteStatus> {
        let status = |route: &RouteFlow| {
            let name = route.route.as_ref()?;
            Some(RouteStatus {
                exchange: name.exchange.clone(),
                routing_key: name.routing_key.clone(),
                state: route
                    .suspect
                    .as_ref()
                    .map_or(RouteState::Open, |suspect| suspect.state),
                reason: route.suspect.as_ref().map(|suspect| suspect.reason.clone()),
                since: route.since,
            })
        };
        self.routes.values().filter_map(status).collect()
    }
}
