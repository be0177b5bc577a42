//! What operators see of the forwarder: metrics, log lines, the state of the routes. Decides
//! nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::flow::Flow;
use crate::journal::{Change, Held};
use crate::rabbitmq::{Outcome, Report};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{RouteState, RouteStatus};

pub(super) struct Observer {
    metrics: Arc<Metrics>,
    routes: watch::Sender<Vec<RouteStatus>>,
    version: u64,
    sent: HashMap<u64, Sent>,
}

/// A window on its way.
struct Sent {
    at: Instant,
    received_at: Vec<Timestamp>,
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>, routes: watch::Sender<Vec<RouteStatus>>) -> Self {
        Self {
            metrics,
            routes,
            version: 0,
            sent: HashMap::new(),
        }
    }

    pub(super) fn published(&mut self, window: u64, events: &[Held]) {
        let received_at = events
            .iter()
            .map(|held| held.event.envelope.received_at)
            .collect();
        self.sent.insert(
            window,
            Sent {
                at: Instant::now(),
                received_at,
            },
        );
    }

    pub(super) fn reported(&mut self, report: &Report) {
        let Report::Done(window, outcomes) = report else {
            return;
        };
        let Some(sent) = self.sent.remove(window) else {
            return;
        };
        let (elapsed, now) = (sent.at.elapsed(), Timestamp::now());
        for (outcome, received_at) in outcomes.iter().zip(sent.received_at) {
            match outcome {
                Outcome::Delivered => {
                    self.metrics.publish_confirmed(elapsed);
                    let since = Duration::try_from(now.duration_since(received_at));
                    self.metrics.delivered(since.unwrap_or_default());
                }
                Outcome::Returned(_) => self.metrics.publish_retried("unroutable"),
                Outcome::Nacked => self.metrics.publish_retried("nacked"),
                Outcome::ChannelClosed(..) => self.metrics.publish_retried("channel-closed"),
                Outcome::Unknown => self.metrics.publish_retried("unknown"),
            }
        }
    }

    pub(super) fn changed(changes: &[Change]) {
        for change in changes {
            if let Change::Defer {
                seq,
                attempts,
                condemned: Some(letter),
                ..
            } = change
            {
                tracing::warn!(
                    event = seq,
                    reason = letter.reason.as_str(),
                    attempts,
                    "a session was refused for good and goes to the dead-letter exchange"
                );
            }
        }
    }

    /// After each round: has a route changed?
    pub(super) fn look(&mut self, flow: &Flow) {
        self.metrics.in_flight(flow.in_flight());
        if flow.version() == self.version {
            return;
        }
        self.version = flow.version();
        let now = flow.statuses();
        log_changes(&self.routes.borrow(), &now);
        self.routes.send_replace(now);
    }
}

fn log_changes(before: &[RouteStatus], now: &[RouteStatus]) {
    for route in now {
        let known = before.iter().find(|other| {
            other.exchange == route.exchange && other.routing_key == route.routing_key
        });
        let was = known.map_or(RouteState::Open, |other| other.state);
        let (exchange, routing_key) = (&*route.exchange, &*route.routing_key);
        match route.state {
            state if state == was => {}
            RouteState::Open => tracing::info!(exchange, routing_key, "a route flows again"),
            state => tracing::warn!(
                exchange,
                routing_key,
                reason = route.reason.as_deref().unwrap_or_default(),
                "a route is {}; its events wait in the journal",
                if state == RouteState::Stuck {
                    "stuck"
                } else {
                    "closed"
                },
            ),
        }
    }
}
