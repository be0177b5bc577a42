//! Events that the broker has rejected and that wait for their next attempt, counted by route and
//! reason. For operators only; no decision depends on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::journal::{QueuedEvent, RouteId, Seq};
use crate::telemetry::status::RetryingStatus;
use crate::webhook::DeadLetterReason;
use crate::webhook::routing::Route;

/// Events that are remembered individually. Above this number, events are only counted, at their
/// first rejection.
const EVENTS_MAX: usize = 16_384;
/// Pairs of route and reason that are counted. Rejections of further pairs are not shown.
const ROUTES_MAX: usize = 1_000;

type RouteReason = (RouteId, &'static str);

#[derive(Debug, Default)]
pub(super) struct Refusals {
    routes: BTreeMap<RouteReason, Refused>,
    events: HashMap<Seq, RouteReason>,
    version: u64,
}

#[derive(Debug)]
struct Refused {
    route: Arc<Route>,
    /// Number of its events in `events`.
    known: u64,
    /// Number of its events for which `events` had no room.
    unknown: u64,
    since: Timestamp,
    last: String,
}

impl Refusals {
    /// Records that the broker has rejected an event that will be retried.
    pub(super) fn add(
        &mut self,
        queued: &QueuedEvent,
        reason: DeadLetterReason,
        detail: &str,
        at: Timestamp,
    ) {
        let key = (queued.route_id, reason.as_str());
        if self.events.get(&queued.seq).is_some_and(|old| *old != key) {
            self.remove(queued);
        }
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&key) {
            return;
        }
        self.version += 1;
        let refused = self.routes.entry(key).or_insert_with(|| Refused {
            route: Arc::clone(&queued.route),
            known: 0,
            unknown: 0,
            since: at,
            last: String::new(),
        });
        detail.clone_into(&mut refused.last);
        if self.events.len() < EVENTS_MAX {
            let is_new = self.events.insert(queued.seq, key).is_none();
            refused.known += u64::from(is_new);
        } else if !self.events.contains_key(&queued.seq) {
            refused.unknown += u64::from(queued.attempts == 0);
            if refused.known + refused.unknown == 0 {
                self.routes.remove(&key);
            }
        }
    }

    /// Records that an event is no longer retried on its route: it was delivered, or dead-lettered.
    pub(super) fn remove(&mut self, queued: &QueuedEvent) {
        let key = if let Some(key) = self.events.remove(&queued.seq) {
            key
        } else {
            // Most events were never rejected, so there is nothing to remove.
            if queued.attempts == 0 || self.routes.is_empty() {
                return;
            }
            let of_route = (queued.route_id, "")..(queued.route_id + 1, "");
            let mut uncounted = self.routes.range_mut(of_route);
            let Some((key, refused)) = uncounted.find(|(_, refused)| refused.unknown > 0) else {
                return;
            };
            refused.unknown -= 1;
            refused.known += 1;
            *key
        };
        self.version += 1;
        let Some(refused) = self.routes.get_mut(&key) else {
            return;
        };
        refused.known -= 1;
        if refused.known + refused.unknown == 0 {
            self.routes.remove(&key);
        }
    }

    /// Forgets everything, because the routes have changed. Rejections on the new routes are
    /// recorded with the next attempts.
    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.events.clear();
        self.version += 1;
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn statuses(&self) -> Vec<RetryingStatus> {
        let status = |(key, refused): (&RouteReason, &Refused)| RetryingStatus {
            exchange: refused.route.exchange.clone(),
            routing_key: refused.route.routing_key.clone(),
            reason: key.1,
            events: refused.known + refused.unknown,
            since: refused.since,
            last_refusal: refused.last.clone(),
        };
        self.routes.iter().map(status).collect()
    }
}
