//! Pauses set by operators. A paused route is a tripped one that is never probed: its events stay in
//! the journal, and what is in flight gets its outcome.

use jiff::Timestamp;

use super::routes::{OpenBreaker, RouteFlow};
use super::{Flow, Millis};
use crate::journal::RouteId;
use crate::rabbitmq::Link;
use crate::telemetry::status::{Pause, RouteState};

impl RouteFlow {
    /// A new route, which a pause of everything may cover.
    pub(super) fn paused_by(pause: Option<&Pause>) -> Self {
        Self {
            breaker: pause.map(|_| OpenBreaker::paused()),
            since: pause.map(|pause| pause.since),
            ..Self::default()
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        let breaker = self.breaker.as_ref();
        breaker.is_some_and(|breaker| breaker.state == RouteState::Paused)
    }
}

impl OpenBreaker {
    fn paused() -> Self {
        Self {
            state: RouteState::Paused,
            reason: "paused by an operator".into(),
            probe_size: 0,
            attempts: 0,
            probe_at: Millis::MAX,
        }
    }
}

impl Flow {
    /// Replaces all pauses.
    pub fn set_pauses(&mut self, pauses: Vec<Pause>, wall: Timestamp) {
        self.pauses = pauses;
        let known: Vec<_> = self.routes.keys().copied().collect();
        for route_id in known {
            self.apply_pauses(route_id, Some(wall));
        }
    }

    /// Pauses a route or ends its pause, as the pauses say. `ended` is when a pause ends.
    pub(super) fn apply_pauses(&mut self, route_id: RouteId, ended: Option<Timestamp>) {
        let route = &self.routes[&route_id];
        let covers = |pause: &&Pause| match &route.route {
            Some(name) => pause.covers(&name.exchange, &name.routing_key),
            None => pause.is_of_everything(),
        };
        let pause = self.pauses.iter().find(covers).map(|pause| pause.since);
        let (since, breaker) = match (pause, route.is_paused()) {
            (Some(since), false) => (Some(since), Some(OpenBreaker::paused())),
            (None, true) => (ended, route.resumed()),
            _ => return,
        };
        let route = self.route(route_id);
        route.since = since;
        route.breaker = breaker;
        self.version += 1;
        self.evict_ready(route_id);
    }

    /// Forgets which names the numbers of routes have, because the routes have changed. A paused
    /// route could otherwise stay paused under another name: the name of a route is learnt from its
    /// next event, and a paused route has none.
    pub(super) fn forget_names(&mut self) {
        self.routes.retain(|_, route| !route.is_at_rest());
        if !self.pauses.iter().any(Pause::is_of_everything) {
            for route in self.routes.values_mut().filter(|route| route.is_paused()) {
                route.breaker = route.resumed();
            }
        }
        self.version += 1;
    }
}

impl RouteFlow {
    /// The breaker after a pause. A route that was paused while it was probed has a window on the
    /// probe link, and goes on with probes; otherwise its windows would be on both links.
    fn resumed(&self) -> Option<OpenBreaker> {
        let is_probed = self.outstanding_on() == Some(Link::Probe);
        is_probed.then(|| OpenBreaker {
            state: RouteState::Stalled,
            reason: "not confirmed before the pause".into(),
            probe_size: 1,
            attempts: 0,
            probe_at: 0,
        })
    }
}
