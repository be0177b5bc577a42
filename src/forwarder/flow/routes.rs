//! Routes: their circuit breakers, the queues that are ready on them, and when a tripped route is
//! probed.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::queues::QueueId;
use super::{Flow, LinkState, Millis, index};
use crate::journal::RouteId;
use crate::rabbitmq::Link;
use crate::telemetry::status::{RouteState, RouteStatus};
use crate::webhook::routing::Route;

/// At this number of routes, those with nothing in progress are forgotten. Until then they are kept
/// for `/status`.
const ROUTES_REMEMBERED_MAX: usize = 1000;
/// Milliseconds after which a failed fetch is tried again.
const FETCH_AGAIN: Millis = 1000;

/// One route as the flow sees it.
#[derive(Debug, Default)]
pub(super) struct RouteFlow {
    pub(super) route: Option<Arc<Route>>,
    /// Queues whose first event can go into the next window, in order.
    pub(super) ready: VecDeque<QueueId>,
    /// Number of ready or in-flight queues whose first event has this route.
    pub(super) queues: usize,
    /// Number of unconfirmed windows.
    pub(super) windows: usize,
    /// The link of its latest window. A route that becomes tripped sends nothing on the probe link
    /// before its windows on the main link have their outcomes.
    pub(super) sent_on: Option<Link>,
    /// When something of the route was last confirmed, or when its first window was sent after a
    /// time without any.
    pub(super) progress_at: Millis,
    /// Whether the journal may have heads of this route that are not buffered.
    pub(super) needs_fetch: bool,
    /// When the next rescheduled event of the route is due.
    pub(super) wake_at: Option<Millis>,
    /// When to fetch again; set after a failed fetch.
    pub(super) fetch_again_at: Option<Millis>,
    pub(super) breaker: Option<OpenBreaker>,
    /// Whether the route exceeded the confirm timeout, so that the reconnect that follows is due to
    /// it.
    pub(super) is_late: bool,
    pub(super) since: Option<Timestamp>,
}

/// The open circuit breaker of a route.
#[derive(Debug, Clone)]
pub(super) struct OpenBreaker {
    pub(super) state: RouteState,
    pub(super) reason: String,
    /// Number of events in the next probe, at most.
    pub(super) probe_size: usize,
    /// Number of consecutive failures.
    pub(super) attempts: u32,
    pub(super) probe_at: Millis,
}

impl RouteFlow {
    /// Whether another ready queue of a tripped route may join its next probe.
    pub(super) fn is_probing(&self, now: Millis) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| {
            self.windows == 0 && now >= breaker.probe_at && self.ready.len() < breaker.probe_size
        })
    }

    pub(super) fn link(&self) -> Link {
        if self.breaker.is_some() {
            Link::Probe
        } else {
            Link::Main
        }
    }

    /// The link of its unconfirmed windows, if it has any.
    pub(super) fn outstanding_on(&self) -> Option<Link> {
        self.sent_on.filter(|_| self.windows > 0)
    }

    /// Schedules another fetch after the journal could not be read.
    pub(super) fn fetch_failed(&mut self, now: Millis) {
        self.needs_fetch = true;
        self.fetch_again_at = Some(now + FETCH_AGAIN);
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
        let breaker = self.breaker.as_ref();
        let probe = breaker
            .filter(|breaker| breaker.state != RouteState::Paused)
            .filter(|_| self.windows == 0 && self.queues == 0 && self.needs_fetch)
            .map(|breaker| breaker.probe_at);
        let of_main = [probe, self.wake_at, self.fetch_again_at]
            .into_iter()
            .flatten();
        let of_main = of_main.filter(|_| is_up(Link::Main));
        confirm.into_iter().chain(of_main).min()
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.queues == 0
            && self.windows == 0
            && !self.needs_fetch
            && self.wake_at.is_none()
            && self.breaker.is_none()
    }
}

impl Flow {
    pub(super) fn route(&mut self, route_id: RouteId) -> &mut RouteFlow {
        if self.routes.len() >= ROUTES_REMEMBERED_MAX && !self.routes.contains_key(&route_id) {
            self.routes.retain(|_, route| !route.is_at_rest());
        }
        let pauses = &self.pauses;
        self.routes.entry(route_id).or_insert_with(|| {
            RouteFlow::paused_by(pauses.iter().find(|pause| pause.is_of_everything()))
        })
    }

    /// Marks a route as tripped: its ready queues are evicted, and it is probed after a delay that
    /// grows with each consecutive failure.
    pub(super) fn trip(
        &mut self,
        route_id: RouteId,
        state: RouteState,
        reason: String,
        now: Millis,
        wall: Timestamp,
    ) {
        if self.route(route_id).is_paused() {
            return;
        }
        let known = self.route(route_id).breaker.take();
        let attempts = known.as_ref().map_or(0, |breaker| breaker.attempts) + 1;
        let probe_at = now + super::millis(self.retry.delay(attempts));
        let has_changed = known.is_none_or(|breaker| breaker.state != state);
        let route = self.route(route_id);
        route.breaker = Some(OpenBreaker {
            state,
            reason,
            probe_size: 1,
            attempts,
            probe_at,
        });
        if has_changed {
            route.since = Some(wall);
            self.version += 1;
        }
        self.evict_ready(route_id);
    }

    /// Evicts all queues that are ready on a route.
    pub(super) fn evict_ready(&mut self, route_id: RouteId) {
        let waiting = std::mem::take(&mut self.route(route_id).ready);
        for queue_id in waiting {
            self.evict(queue_id);
        }
    }

    /// Records a successful probe. The next probe is twice as large, or the route becomes healthy:
    /// at once if it was unavailable, when a probe has the size of a full window, or when no event
    /// of the route is left. Without the last rule, a stalled route without events would stay
    /// stalled forever.
    pub(super) fn on_success(&mut self, route_id: RouteId, now: Millis, wall: Timestamp) {
        let window_max = self.window_max();
        let route = self.route(route_id);
        if route.is_paused() {
            return;
        }
        let is_through = route.queues == 0 && !route.needs_fetch;
        let Some(breaker) = &mut route.breaker else {
            return;
        };
        breaker.attempts = 0;
        breaker.probe_at = now;
        breaker.probe_size *= 2;
        if breaker.state == RouteState::Unavailable
            || breaker.probe_size >= window_max
            || is_through
        {
            route.breaker = None;
            route.since = Some(wall);
            self.version += 1;
        }
    }

    /// The states of all known routes whose exchange and routing key have been seen.
    #[must_use]
    pub fn statuses(&self) -> Vec<RouteStatus> {
        let status = |route: &RouteFlow| {
            let (name, breaker) = (route.route.as_ref()?, route.breaker.as_ref());
            Some(RouteStatus {
                exchange: name.exchange.clone(),
                routing_key: name.routing_key.clone(),
                state: breaker.map_or(RouteState::Healthy, |breaker| breaker.state),
                reason: breaker.map(|breaker| breaker.reason.clone()),
                since: route.since,
            })
        };
        self.routes.values().filter_map(status).collect()
    }
}
