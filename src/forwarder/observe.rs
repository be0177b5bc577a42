//! What operators see of the forwarder: metrics, log lines and the states of the routes. Makes no
//! decisions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::flow::Flow;
use super::messages;
use super::refusal_log::{RefusalLog, Throttle};
use crate::journal::{QueuedEvent, Transition};
use crate::rabbitmq::{Outcome, PublisherEvent};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{RetryingStatus, RouteState, RouteStatus};
use crate::telemetry::traces::{Origin, Publication, Traces};

pub(super) struct Observer {
    metrics: Arc<Metrics>,
    traces: Traces,
    routes: watch::Sender<Vec<RouteStatus>>,
    version: u64,
    retrying: watch::Sender<Vec<RetryingStatus>>,
    refusals_version: u64,
    refusal_log: RefusalLog,
    event_lines: Throttle,
    /// By window in flight: when it was sent, and its events.
    sent: HashMap<u64, (Instant, Vec<QueuedEvent>)>,
}

impl Observer {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        traces: Traces,
        routes: watch::Sender<Vec<RouteStatus>>,
        retrying: watch::Sender<Vec<RetryingStatus>>,
    ) -> Self {
        Self {
            metrics,
            traces,
            routes,
            version: 0,
            retrying,
            refusals_version: 0,
            refusal_log: RefusalLog::default(),
            event_lines: Throttle::default(),
            sent: HashMap::new(),
        }
    }

    pub(super) fn published(&mut self, window: u64, events: &[QueuedEvent]) {
        self.sent.insert(window, (Instant::now(), events.to_vec()));
    }

    pub(super) fn reported(&mut self, report: &PublisherEvent) {
        let PublisherEvent::Done(window, outcomes) = report else {
            return;
        };
        let Some((sent_at, events)) = self.sent.remove(window) else {
            return;
        };
        let (elapsed, now) = (sent_at.elapsed(), Timestamp::now());
        for (outcome, queued) in outcomes.iter().zip(&events) {
            self.traces.published(publication(outcome, queued, elapsed));
            match outcome {
                Outcome::Delivered => {
                    self.metrics.publish_confirmed(elapsed);
                    let since = now.duration_since(queued.event.envelope.received_at);
                    let since = Duration::try_from(since);
                    self.metrics.delivered(since.unwrap_or_default());
                    self.log_dead_letter(queued);
                }
                Outcome::Returned(_) => {
                    self.metrics.publish_retried("unroutable");
                    self.log_refusal(queued, "unroutable");
                }
                Outcome::Nacked => {
                    self.metrics.publish_retried("nacked");
                    self.log_refusal(queued, "nacked");
                }
                Outcome::ChannelClosed { .. } => self.metrics.publish_retried("channel-closed"),
                Outcome::Unknown => self.metrics.publish_retried("unknown"),
            }
        }
    }

    /// Logs the first rejection of an event. Later ones appear only in `/status`.
    fn log_refusal(&mut self, queued: &QueuedEvent, reason: &'static str) {
        if queued.attempts > 0 {
            return;
        }
        if let Some(suppressed) = self.event_lines.permit(Instant::now()) {
            tracing::info!(
                session = queued.event.session(),
                message_id = %queued.event.message_id,
                exchange = &*queued.route.exchange,
                routing_key = &*queued.route.routing_key,
                reason,
                suppressed,
                "broker rejected the event; retrying"
            );
        }
    }

    /// Logs a dead letter that its exchange has accepted; nothing for other events.
    fn log_dead_letter(&mut self, queued: &QueuedEvent) {
        let Some((reason, detail)) = messages::cause(queued) else {
            return;
        };
        if let Some(suppressed) = self.event_lines.permit(Instant::now()) {
            tracing::info!(
                event = queued.seq,
                session = queued.event.session(),
                message_id = %queued.event.message_id,
                status = &*queued.routed_status,
                exchange = &*queued.route.exchange,
                routing_key = &*queued.route.routing_key,
                reason = reason.as_str(),
                detail,
                attempts = queued.attempts,
                suppressed,
                "event dead-lettered"
            );
        }
    }

    /// Logs the events that become dead letters with these changes.
    pub(super) fn log_new_dead_letters(changes: &[Transition]) {
        for change in changes {
            if let Transition::Reschedule {
                seq,
                attempts,
                dead_letter_cause: Some(cause),
                ..
            } = change
            {
                tracing::warn!(
                    event = seq,
                    reason = cause.reason.as_str(),
                    attempts,
                    "event becomes a dead letter"
                );
            }
        }
    }

    /// Publishes what has changed: the states of the routes, and the events being retried. Called
    /// after each round of the loop.
    pub(super) fn publish_status(&mut self, flow: &Flow) {
        self.metrics.in_flight(flow.in_flight());
        if flow.refusals_version() != self.refusals_version {
            self.refusals_version = flow.refusals_version();
            let retrying = flow.retrying();
            self.refusal_log.log_changes(&retrying);
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

fn publication<'a>(
    outcome: &Outcome,
    queued: &'a QueuedEvent,
    elapsed: Duration,
) -> Publication<'a> {
    let event = &*queued.event;
    Publication {
        origin: Origin {
            webhook_id: event.envelope.webhook_id,
            traceparent: event.envelope.traceparent.as_deref(),
            tracestate: event.envelope.tracestate.as_deref(),
        },
        exchange: &queued.route.exchange,
        routing_key: &queued.route.routing_key,
        message_id: event.message_id,
        session: event.session(),
        body_bytes: event.body.len(),
        elapsed,
        error: match outcome {
            Outcome::Delivered => messages::cause(queued).map(|(reason, _)| reason.as_str()),
            Outcome::Returned(_) => Some("unroutable"),
            Outcome::Nacked => Some("nacked"),
            Outcome::ChannelClosed { .. } => Some("channel-closed"),
            Outcome::Unknown => Some("unknown"),
        },
    }
}

fn log_changes(before: &[RouteStatus], now: &[RouteStatus]) {
    for route in now {
        let known = before.iter().find(|other| {
            other.exchange == route.exchange && other.routing_key == route.routing_key
        });
        let was = known.map_or(RouteState::Healthy, |other| other.state);
        let (exchange, routing_key) = (&*route.exchange, &*route.routing_key);
        match route.state {
            state if state == was => {}
            RouteState::Healthy if was == RouteState::Paused => {
                tracing::info!(exchange, routing_key, "route resumed by an operator");
            }
            RouteState::Healthy => tracing::info!(exchange, routing_key, "route recovered"),
            RouteState::Paused => tracing::warn!(
                exchange,
                routing_key,
                "route paused by an operator; its events stay in the journal"
            ),
            state => tracing::warn!(
                exchange,
                routing_key,
                reason = route.reason.as_deref().unwrap_or_default(),
                "route {}; its events stay in the journal",
                if state == RouteState::Stalled {
                    "stalled (`stuck` in /status): the broker confirms none of its messages"
                } else {
                    "unavailable (`closed` in /status): its exchange is missing or forbidden"
                },
            ),
        }
    }
}
