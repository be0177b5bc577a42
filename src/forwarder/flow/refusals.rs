//! Events that the broker has refused and that wait for their next attempt, counted by route and
//! reason. What operators see of retries; it decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::journal::{Held, RouteId, Seq};
use crate::telemetry::status::RetryingStatus;
use crate::webhook::Reason;
use crate::webhook::routing::Route;

/// Events remembered one by one. Beyond that many they are only counted, at their first refusal.
const EVENTS_MAX: usize = 16_384;
/// Routes and reasons that are told apart; what is refused beyond them is not shown.
const ROUTES_MAX: usize = 1_000;

type Key = (RouteId, &'static str);

#[derive(Debug, Default)]
pub(super) struct Refusals {
    routes: BTreeMap<Key, Refused>,
    events: HashMap<Seq, Key>,
    version: u64,
}

#[derive(Debug)]
struct Refused {
    route: Arc<Route>,
    /// Those that are in `events`.
    known: u64,
    /// Those for which there was no room.
    unknown: u64,
    since: Timestamp,
    last: String,
}

impl Refusals {
    /// The broker has refused an event, which is tried again.
    pub(super) fn add(&mut self, held: &Held, reason: Reason, detail: &str, at: Timestamp) {
        let key = (held.route_id, reason.as_str());
        if self.events.get(&held.seq).is_some_and(|old| *old != key) {
            self.remove(held);
        }
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&key) {
            return;
        }
        self.version += 1;
        let refused = self.routes.entry(key).or_insert_with(|| Refused {
            route: Arc::clone(&held.route),
            known: 0,
            unknown: 0,
            since: at,
            last: String::new(),
        });
        detail.clone_into(&mut refused.last);
        if self.events.len() < EVENTS_MAX {
            let is_new = self.events.insert(held.seq, key).is_none();
            refused.known += u64::from(is_new);
        } else if !self.events.contains_key(&held.seq) {
            refused.unknown += u64::from(held.attempts == 0);
            if refused.known + refused.unknown == 0 {
                self.routes.remove(&key);
            }
        }
    }

    /// The event is not tried again on this route: it was taken, or has become a dead letter.
    pub(super) fn remove(&mut self, held: &Held) {
        let key = if let Some(key) = self.events.remove(&held.seq) {
            key
        } else {
            // Nothing to look for: most events were never refused.
            if held.attempts == 0 || self.routes.is_empty() {
                return;
            }
            let of_route = (held.route_id, "")..(held.route_id + 1, "");
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

    /// The routes have changed: what is refused on the new ones is seen with the next attempt.
    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.events.clear();
        self.version += 1;
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn statuses(&self) -> Vec<RetryingStatus> {
        let status = |(key, refused): (&Key, &Refused)| RetryingStatus {
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
