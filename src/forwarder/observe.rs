//! What operators see of the forwarder: metrics, log lines, the state of the routes. Decides
//! nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::flow::Flow;
use super::refusal_log::{RefusalLog, Throttle};
use crate::journal::{Change, Held, Seq};
use crate::rabbitmq::{Outcome, Report};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{RetryingStatus, RouteState, RouteStatus};
use crate::webhook::Content;

pub(super) struct Observer {
    metrics: Arc<Metrics>,
    routes: watch::Sender<Vec<RouteStatus>>,
    version: u64,
    retrying: watch::Sender<Vec<RetryingStatus>>,
    refusals_version: u64,
    refusal_log: RefusalLog,
    event_lines: Throttle,
    sent: HashMap<u64, Sent>,
}

/// A window on its way.
struct Sent {
    at: Instant,
    events: Vec<Held>,
}

impl Observer {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        routes: watch::Sender<Vec<RouteStatus>>,
        retrying: watch::Sender<Vec<RetryingStatus>>,
    ) -> Self {
        Self {
            metrics,
            routes,
            version: 0,
            retrying,
            refusals_version: 0,
            refusal_log: RefusalLog::default(),
            event_lines: Throttle::default(),
            sent: HashMap::new(),
        }
    }

    pub(super) fn published(&mut self, window: u64, events: &[Held]) {
        let sent = Sent {
            at: Instant::now(),
            events: events.to_vec(),
        };
        self.sent.insert(window, sent);
    }

    pub(super) fn reported(&mut self, report: &Report) {
        let Report::Done(window, outcomes) = report else {
            return;
        };
        let Some(sent) = self.sent.remove(window) else {
            return;
        };
        let (elapsed, now) = (sent.at.elapsed(), Timestamp::now());
        for (outcome, held) in outcomes.iter().zip(&sent.events) {
            match outcome {
                Outcome::Delivered => {
                    self.metrics.publish_confirmed(elapsed);
                    let since = now.duration_since(held.event.envelope.received_at);
                    let since = Duration::try_from(since);
                    self.metrics.delivered(since.unwrap_or_default());
                    self.log_dead_letter(held);
                }
                Outcome::Returned(_) => {
                    self.metrics.publish_retried("unroutable");
                    self.log_refusal(held, "unroutable");
                }
                Outcome::Nacked => {
                    self.metrics.publish_retried("nacked");
                    self.log_refusal(held, "nacked");
                }
                Outcome::ChannelClosed(..) => self.metrics.publish_retried("channel-closed"),
                Outcome::Unknown => self.metrics.publish_retried("unknown"),
            }
        }
    }

    /// The first refusal of an event; how it goes on is in `/status`.
    fn log_refusal(&mut self, held: &Held, reason: &'static str) {
        if held.attempts > 0 {
            return;
        }
        if let Some(suppressed) = self.event_lines.permit(Instant::now()) {
            tracing::info!(
                session = held.event.session(),
                message_id = %held.event.message_id,
                exchange = &*held.route.exchange,
                routing_key = &*held.route.routing_key,
                reason,
                suppressed,
                "event refused by the broker; trying again"
            );
        }
    }

    /// A dead letter has reached its exchange.
    fn log_dead_letter(&mut self, held: &Held) {
        let (reason, detail) = match (&held.condemned, &held.event.content) {
            (Some(letter), _) => (letter.reason, &*letter.detail),
            (None, Content::Reject(reject)) => (reject.reason, &*reject.detail),
            (None, Content::Session(_)) => return,
        };
        let seq: Seq = held.seq;
        if let Some(suppressed) = self.event_lines.permit(Instant::now()) {
            tracing::info!(
                event = seq,
                session = held.event.session(),
                message_id = %held.event.message_id,
                status = &*held.label,
                exchange = &*held.route.exchange,
                routing_key = &*held.route.routing_key,
                reason = reason.as_str(),
                detail,
                attempts = held.attempts,
                suppressed,
                "event dead-lettered"
            );
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
        if flow.refusals_version() != self.refusals_version {
            self.refusals_version = flow.refusals_version();
            let retrying = flow.retrying();
            self.refusal_log.look(&retrying);
            self.retrying.send_replace(retrying);
        }
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
