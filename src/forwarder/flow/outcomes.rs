//! What happened to a window, and to the connections.

use jiff::Timestamp;

use super::lanes::{LaneId, LaneState};
use super::{Action, Flow, LinkState, Millis, index};
use crate::journal::{Change, Condemned, Held, Settlement};
use crate::rabbitmq::{Link, Outcome, Report};
use crate::telemetry::status::RouteState;
use crate::webhook::{Content, Reason};

/// AMQP reply codes that close a channel because of its exchange.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
/// Also what a message over the broker's limit is answered with.
const PRECONDITION_FAILED: u16 = 406;

impl Flow {
    /// What the publisher reports.
    pub fn reported(&mut self, report: Report, now: Millis, wall: Timestamp) {
        match report {
            Report::Up(link) => self.links[index(link)] = LinkState::Up,
            Report::Down(link) => self.links[index(link)] = LinkState::Down,
            Report::Blocked(link) => self.links[index(link)] = LinkState::Blocked,
            Report::Unblocked(link) => {
                self.links[index(link)] = LinkState::Up;
                for route in self.routes.values_mut() {
                    route.progress_at = route.progress_at.max(now);
                }
            }
            Report::Progress(window) => {
                if let Some(window) = self.windows.get(&window) {
                    let route_id = window.route_id;
                    self.route(route_id).progress_at = now;
                }
            }
            Report::Done(window, outcomes) => self.done(window, outcomes, now, wall),
        }
    }

    fn done(&mut self, id: u64, outcomes: Vec<Outcome>, now: Millis, wall: Timestamp) {
        let Some(window) = self.windows.remove(&id) else {
            return;
        };
        self.in_flight -= window.lanes.len();
        self.in_flight_bytes -= window.bytes;
        let is_alone = window.lanes.len() == 1;
        let is_answered = outcomes.iter().all(|outcome| {
            matches!(
                outcome,
                Outcome::Delivered | Outcome::Returned(_) | Outcome::Nacked
            )
        });
        let route = self.route(window.route_id);
        route.windows -= 1;
        route.lanes -= window.lanes.len();
        // Whatever it was: the others have not been waited for any longer than since now.
        route.progress_at = now;
        if is_answered {
            route.is_late = false;
            self.trust(window.route_id, now, wall);
        } else {
            self.doubt(&window, &outcomes, now, wall);
        }
        // Backwards, so that those which go back to the front of the queue keep their order.
        for (lane_id, outcome) in window.lanes.into_iter().zip(outcomes).rev() {
            self.concluded(lane_id, outcome, is_alone, now, wall);
        }
    }

    /// Something of a window has no outcome: is the route to blame?
    fn doubt(
        &mut self,
        window: &super::Window,
        outcomes: &[Outcome],
        now: Millis,
        wall: Timestamp,
    ) {
        let route_id = window.route_id;
        let closed = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::ChannelClosed(code, text) => Some((*code, text.clone())),
            _ => None,
        });
        let is_late = std::mem::take(&mut self.route(route_id).is_late);
        match closed {
            Some((PRECONDITION_FAILED, _)) if window.lanes.len() == 1 => {}
            Some((NOT_FOUND | ACCESS_REFUSED, text)) => {
                self.suspect(route_id, RouteState::Closed, text, now, wall);
            }
            Some((_, text)) => self.suspect(route_id, RouteState::Stuck, text, now, wall),
            None => {
                let known = self.route(route_id).suspect.as_ref();
                let known = known.map(|suspect| (suspect.state, suspect.reason.clone()));
                let stuck = || {
                    (
                        RouteState::Stuck,
                        "nothing was confirmed in time".to_owned(),
                    )
                };
                if let Some((state, reason)) = known.or_else(|| is_late.then(stuck)) {
                    self.suspect(route_id, state, reason, now, wall);
                }
            }
        }
    }

    fn concluded(
        &mut self,
        lane_id: LaneId,
        outcome: Outcome,
        is_alone: bool,
        now: Millis,
        wall: Timestamp,
    ) {
        match outcome {
            Outcome::Delivered => self.settle(lane_id, now),
            Outcome::Returned(detail) => {
                self.refused(lane_id, Reason::Unroutable, detail, now, wall);
            }
            Outcome::Nacked => {
                let detail = "refused by the broker (basic.nack)".to_owned();
                self.refused(lane_id, Reason::Nacked, detail, now, wall);
            }
            Outcome::ChannelClosed(PRECONDITION_FAILED, detail) if is_alone => {
                self.too_large(lane_id, detail, now, wall);
            }
            Outcome::ChannelClosed(..) | Outcome::Unknown => self.again(lane_id, now),
        }
    }

    fn settle(&mut self, lane_id: LaneId, now: Millis) {
        let lane = self.lane(lane_id);
        let held = lane
            .queue
            .pop_front()
            .expect("a lane in flight has an event");
        lane.unmarked += 1;
        self.release(&held);
        self.refusals.remove(&held);
        self.unmarked += 1;
        let change = Change::Settle {
            seq: held.seq,
            label: held.label.clone(),
            settlement: settlement(&held),
            attempts: attempts(&held),
        };
        self.actions.push_back(Action::Change(change));
        self.make_ready(lane_id, now);
    }

    /// Nobody knows whether it was stored: it goes out again, with the same id.
    fn again(&mut self, lane_id: LaneId, now: Millis) {
        let route_id = self.lanes[&lane_id]
            .queue
            .front()
            .expect("it was in flight")
            .route_id;
        self.make_ready(lane_id, now);
        let ready = &mut self.route(route_id).ready;
        ready.rotate_right(usize::from(!ready.is_empty()));
    }

    fn refused(
        &mut self,
        lane_id: LaneId,
        reason: Reason,
        detail: String,
        now: Millis,
        wall: Timestamp,
    ) {
        let held = self.lanes[&lane_id]
            .queue
            .front()
            .expect("a lane in flight has an event")
            .clone();
        let attempts = held.attempts + 1;
        let is_dead_letter = held.condemned.is_some() || is_reject(&held);
        if attempts >= self.limits.attempts_max && !is_dead_letter {
            self.refusals.remove(&held);
            self.leave(
                lane_id,
                0,
                attempts,
                Some(Condemned {
                    reason,
                    detail,
                    at: wall,
                }),
            );
            return;
        }
        self.refusals.add(&held, reason, &detail, wall);
        let delay = match reason {
            Reason::Nacked => self.retry.delay_of_nacked(attempts),
            _ => self.retry.delay(attempts),
        };
        let delay = super::millis(delay).max(1);
        self.leave(lane_id, now + delay, attempts, None);
    }

    /// Makes a ready event a dead letter before it was sent; it is in no route's queue any more.
    pub(super) fn condemn(
        &mut self,
        lane_id: LaneId,
        reason: Reason,
        detail: String,
        at: Timestamp,
    ) {
        let held = self.lanes[&lane_id]
            .queue
            .front()
            .expect("a ready lane has an event")
            .clone();
        self.refusals.remove(&held);
        let (route_id, attempts) = (held.route_id, held.attempts);
        self.route(route_id).lanes -= 1;
        self.leave(lane_id, 0, attempts, Some(Condemned { reason, detail, at }));
    }

    /// It alone closed the channel. A dead letter of that kind has no body: if even that is too
    /// large, it is refused like any other.
    fn too_large(&mut self, lane_id: LaneId, detail: String, now: Millis, wall: Timestamp) {
        let held = self.lanes[&lane_id]
            .queue
            .front()
            .expect("a lane in flight has an event")
            .clone();
        let attempts = held.attempts + 1;
        if held.condemned.is_some() {
            self.refused(lane_id, Reason::TooLarge, detail, now, wall);
            return;
        }
        self.refusals.remove(&held);
        let condemned = Condemned {
            reason: Reason::TooLarge,
            detail,
            at: wall,
        };
        self.leave(lane_id, 0, attempts, Some(condemned));
    }

    fn leave(
        &mut self,
        lane_id: LaneId,
        due_ms: Millis,
        attempts: u32,
        condemned: Option<Condemned>,
    ) {
        let lane = self.lane(lane_id);
        let seq = lane.queue.front().expect("what leaves has an event").seq;
        lane.state = LaneState::Leaving;
        lane.has_more = true;
        lane.unmarked += 1;
        self.unmarked += 1;
        self.actions.push_back(Action::Change(Change::Defer {
            seq,
            due_ms,
            attempts,
            condemned,
        }));
    }

    /// The state of a connection, for those who wait for it.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.links[index(Link::Main)] == LinkState::Blocked
    }
}

fn is_reject(held: &Held) -> bool {
    matches!(held.event.content, Content::Reject(_))
}

/// How often it was published where it was going, as its dead letter says too.
fn attempts(held: &Held) -> u32 {
    match (&held.condemned, &held.event.content) {
        (Some(_), _) => held.attempts,
        (None, Content::Reject(_)) => 0,
        (None, Content::Session(_)) => held.attempts + 1,
    }
}

fn settlement(held: &Held) -> Settlement {
    match (&held.condemned, &held.event.content) {
        (Some(letter), _) => Settlement::DeadLettered(letter.reason),
        (None, Content::Reject(reject)) => Settlement::DeadLettered(reject.reason),
        (None, Content::Session(_)) => Settlement::Published,
    }
}
