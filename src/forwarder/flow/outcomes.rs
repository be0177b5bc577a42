//! Processes publisher events: outcomes of windows, and states of the connections.

use jiff::Timestamp;

use super::queues::{QueueId, QueueState};
use super::{Action, Flow, LinkState, Millis, index};
use crate::forwarder::messages;
use crate::journal::{DeadLetterCause, FinalState, QueuedEvent, Transition};
use crate::rabbitmq::{Outcome, PublisherEvent, RefusalKind};
use crate::telemetry::status::RouteState;
use crate::webhook::{Content, DeadLetterReason};

/// Growth factor of the delays after a nack. A queue that rejects a publish usually stays full for
/// a while, and with every attempt the other queues bound to the same key receive another
/// duplicate.
pub(super) const NACKED_FACTOR: f32 = 4.0;

impl Flow {
    /// Processes an event of the publisher.
    pub fn reported(&mut self, report: PublisherEvent, now: Millis, wall: Timestamp) {
        match report {
            PublisherEvent::Up(link) => self.links[index(link)] = LinkState::Up,
            PublisherEvent::Down(link) => self.links[index(link)] = LinkState::Down,
            PublisherEvent::Blocked(link) => self.links[index(link)] = LinkState::Blocked,
            PublisherEvent::Unblocked(link) => {
                self.links[index(link)] = LinkState::Up;
                for route in self.routes.values_mut() {
                    route.progress_at = route.progress_at.max(now);
                }
            }
            PublisherEvent::Progress(window) => {
                if let Some(route_id) = self.windows.get(&window).map(|window| window.route_id) {
                    self.route(route_id).progress_at = now;
                }
            }
            PublisherEvent::Done(window, outcomes) => self.done(window, outcomes, now, wall),
        }
    }

    fn done(&mut self, id: u64, outcomes: Vec<Outcome>, now: Millis, wall: Timestamp) {
        let Some(window) = self.windows.remove(&id) else {
            return;
        };
        self.in_flight -= window.queues.len();
        self.in_flight_bytes -= window.bytes;
        let is_alone = window.queues.len() == 1;
        let is_unanswered =
            |outcome: &Outcome| matches!(outcome, Outcome::ChannelClosed { .. } | Outcome::Unknown);
        let is_answered = !outcomes.iter().any(is_unanswered);
        let route = self.route(window.route_id);
        route.windows -= 1;
        route.queues -= window.queues.len();
        // Whatever the outcome: the confirm timeout of the route's other windows starts again now.
        route.progress_at = now;
        if is_answered {
            route.is_late = false;
            self.on_success(window.route_id, now, wall);
        } else {
            self.record_failure(&window, &outcomes, now, wall);
        }
        // In reverse, so that queues that return to the front of `ready` keep their order.
        for (queue_id, outcome) in window.queues.into_iter().zip(outcomes).rev() {
            self.apply_outcome(queue_id, outcome, is_alone, now, wall);
        }
    }

    /// Decides whether the route is the cause of a window with messages that were not answered. If
    /// so, marks it as tripped.
    fn record_failure(
        &mut self,
        window: &super::OutstandingWindow,
        outcomes: &[Outcome],
        now: Millis,
        wall: Timestamp,
    ) {
        let route_id = window.route_id;
        let refused = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::ChannelClosed { kind, reason } => Some((*kind, reason.clone())),
            _ => None,
        });
        let is_late = std::mem::take(&mut self.route(route_id).is_late);
        match refused {
            Some((RefusalKind::TooLarge, _)) if window.queues.len() == 1 => {}
            Some((RefusalKind::RouteMissing | RefusalKind::Forbidden, reason)) => {
                self.trip(route_id, RouteState::Unavailable, reason, now, wall);
            }
            Some((_, reason)) => self.trip(route_id, RouteState::Stalled, reason, now, wall),
            None => {
                let known = self.route(route_id).breaker.as_ref();
                let known = known.map(|breaker| (breaker.state, breaker.reason.clone()));
                let late = "nothing was confirmed in time".to_owned();
                let late = is_late.then_some((RouteState::Stalled, late));
                if let Some((state, reason)) = known.or(late) {
                    self.trip(route_id, state, reason, now, wall);
                }
            }
        }
    }

    fn apply_outcome(
        &mut self,
        queue_id: QueueId,
        outcome: Outcome,
        is_alone: bool,
        now: Millis,
        wall: Timestamp,
    ) {
        match outcome {
            Outcome::Delivered => self.complete(queue_id, now),
            Outcome::Returned(detail) => {
                self.retry_or_dead_letter(
                    queue_id,
                    DeadLetterReason::Unroutable,
                    detail,
                    now,
                    wall,
                );
            }
            Outcome::Nacked => {
                let detail = "refused by the broker (basic.nack)".to_owned();
                self.retry_or_dead_letter(queue_id, DeadLetterReason::Nacked, detail, now, wall);
            }
            Outcome::ChannelClosed {
                kind: RefusalKind::TooLarge,
                reason,
            } if is_alone => self.too_large(queue_id, reason, now, wall),
            Outcome::ChannelClosed { .. } | Outcome::Unknown => self.requeue(queue_id, now),
        }
    }

    fn complete(&mut self, queue_id: QueueId, now: Millis) {
        let queue = self.queue(queue_id);
        let queued = queue
            .events
            .pop_front()
            .expect("a queue in flight has an event");
        queue.awaiting_commit += 1;
        self.release(&queued);
        self.refusals.remove(&queued);
        self.awaiting_commit += 1;
        let change = Transition::Complete {
            seq: queued.seq,
            routed_status: queued.routed_status.clone(),
            final_state: final_state(&queued),
            attempts: attempts(&queued),
        };
        self.actions.push_back(Action::Transition(change));
        self.make_ready(queue_id, now);
    }

    /// Puts a queue whose message has an unknown outcome at the front of `ready`. The message may
    /// have been stored; it is published again with the same id.
    fn requeue(&mut self, queue_id: QueueId, now: Millis) {
        let route_id = self.first(queue_id).route_id;
        self.make_ready(queue_id, now);
        let ready = &mut self.route(route_id).ready;
        ready.rotate_right(usize::from(!ready.is_empty()));
    }

    /// Reschedules an event that was nacked or returned. After the last attempt, it becomes a dead
    /// letter; a dead letter is retried without a limit.
    fn retry_or_dead_letter(
        &mut self,
        queue_id: QueueId,
        reason: DeadLetterReason,
        detail: String,
        now: Millis,
        wall: Timestamp,
    ) {
        let queued = self.first(queue_id).clone();
        let attempts = queued.attempts + 1;
        if attempts >= self.limits.attempts_max && messages::cause(&queued).is_none() {
            self.dead_letter(queue_id, attempts, reason, detail, wall);
            return;
        }
        self.refusals.add(&queued, reason, &detail, wall);
        let delay = match reason {
            DeadLetterReason::Nacked => self.retry.delay_growing(NACKED_FACTOR, attempts),
            _ => self.retry.delay(attempts),
        };
        let delay = super::millis(delay).max(1);
        self.reschedule(queue_id, now + delay, attempts, None);
    }

    /// Dead-letters the first event of a queue that is neither ready nor in flight any more.
    pub(super) fn dead_letter(
        &mut self,
        queue_id: QueueId,
        attempts: u32,
        reason: DeadLetterReason,
        detail: String,
        at: Timestamp,
    ) {
        let queued = self.first(queue_id).clone();
        self.refusals.remove(&queued);
        let cause = DeadLetterCause { reason, detail, at };
        self.reschedule(queue_id, 0, attempts, Some(cause));
    }

    /// Dead-letters an event that was alone in its window when the broker refused it as too large.
    /// The dead letter has no body. If even that is too large, it is rescheduled like any other.
    fn too_large(&mut self, queue_id: QueueId, detail: String, now: Millis, wall: Timestamp) {
        let queued = self.first(queue_id);
        let attempts = queued.attempts + 1;
        if queued.dead_letter_cause.is_some() {
            self.retry_or_dead_letter(queue_id, DeadLetterReason::TooLarge, detail, now, wall);
        } else {
            self.dead_letter(queue_id, attempts, DeadLetterReason::TooLarge, detail, wall);
        }
    }

    fn reschedule(
        &mut self,
        queue_id: QueueId,
        due_ms: Millis,
        attempts: u32,
        dead_letter_cause: Option<DeadLetterCause>,
    ) {
        let seq = self.first(queue_id).seq;
        let queue = self.queue(queue_id);
        queue.state = QueueState::Leaving;
        queue.has_more = true;
        queue.awaiting_commit += 1;
        self.awaiting_commit += 1;
        let change = Transition::Reschedule {
            seq,
            due_ms,
            attempts,
            dead_letter_cause,
        };
        self.actions.push_back(Action::Transition(change));
    }
}

/// How often the event was published to its own route. Its dead letter carries the same number.
fn attempts(queued: &QueuedEvent) -> u32 {
    match (&queued.dead_letter_cause, &queued.event.content) {
        (Some(_), _) => queued.attempts,
        (None, Content::Reject(_)) => 0,
        (None, Content::Session(_)) => queued.attempts + 1,
    }
}

fn final_state(queued: &QueuedEvent) -> FinalState {
    messages::cause(queued).map_or(FinalState::Published, |(reason, _)| {
        FinalState::DeadLettered(reason)
    })
}
