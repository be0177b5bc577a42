//! What is in hand: lanes come in fresh from a commit or taken from the journal, and go when
//! their last event is settled, when they are refused, or when their place is needed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Flow, HELD_BYTES_FACTOR, HELD_FACTOR, Millis, ROUTE_PART};
use crate::journal::{Ack, Committed, Held, RouteId, Run, Seq, Taken};

/// Events of one session in hand at most; the others wait in the journal.
const LANE_EVENTS_MAX: usize = 64;

/// A session of a source, or one reject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum LaneKey {
    Session { source: Arc<str>, session: Arc<str> },
    Reject(Seq),
}

/// Names a lane for as long as it is in hand; none is ever used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(u64);

/// One session with the first of its unsettled events in hand.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: LaneKey,
    /// Not settled, in order.
    pub(super) queue: VecDeque<Held>,
    pub(super) state: LaneState,
    /// Changes that are not acknowledged.
    pub(super) unmarked: usize,
    /// The journal may have events of the session that are not in the queue.
    pub(super) has_more: bool,
    pub(super) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// In the queue of its first event's route.
    Ready,
    /// Its first event is in a window.
    InFlight,
    /// Nothing to publish; waits for acknowledgements.
    Idle,
    /// Its first event was refused; goes when that is on the disk.
    Leaving,
}

impl LaneKey {
    pub(super) fn of(held: &Held) -> Self {
        match held.event.session() {
            Some(session) => Self::Session {
                source: held.event.envelope.source.clone(),
                session: Arc::from(session),
            },
            None => Self::Reject(held.seq),
        }
    }
}

impl Flow {
    /// What a commit brought.
    pub fn committed(&mut self, committed: Committed, now: Millis) {
        for ack in committed.acks {
            self.acknowledged(ack);
        }
        for held in committed.fresh {
            self.arrived(held, now);
        }
    }

    /// What a take brought; `None` if the journal could not be read.
    pub fn taken(&mut self, taken: Option<Taken>, now: Millis) {
        let Some(taking) = self.taking.take() else {
            return;
        };
        let route_id = taking.route_id;
        let Some(taken) = taken else {
            self.route(route_id).take_failed(now);
            return;
        };
        if taking.generation != self.generation {
            self.route(route_id).is_behind = true;
            return;
        }
        let route = self.route(route_id);
        route.is_behind |= taken.has_more || taking.has_missed_head;
        route.wake_at = [route.wake_at, taken.next_due_ms]
            .into_iter()
            .flatten()
            .min();
        for mut run in taken.runs {
            let Some(first) = run.events.first() else {
                continue;
            };
            let key = LaneKey::of(first);
            if taking.gone.contains(&key) {
                self.route(route_id).is_behind = true;
                continue;
            }
            run.has_more |= taking.has_missed_follower;
            if !self.lane_ids.contains_key(&key) {
                self.open_lane(key, run, now);
            }
        }
    }

    /// An event that was just committed. It need not be kept: the journal has it.
    fn arrived(&mut self, held: Held, now: Millis) {
        if self.seqs.contains_key(&held.seq) {
            // A take whose snapshot was newer than the news has brought it already.
            return;
        }
        let key = LaneKey::of(&held);
        let has_room = held.is_whole && self.has_room(held.event.body.len() as u64);
        if let Some(&lane_id) = self.lane_ids.get(&key) {
            let lane = self.lane(lane_id);
            let takes_it = has_room
                && !lane.has_more
                && lane.state != LaneState::Leaving
                && lane.queue.len() < LANE_EVENTS_MAX;
            if takes_it {
                self.extend_lane(lane_id, held, now);
            } else {
                lane.has_more = true;
            }
            return;
        }
        let route_id = held.route_id;
        if !held.is_head {
            // Its head is in the journal alone and will promote it.
            if let Some(taking) = &mut self.taking {
                taking.has_missed_follower = true;
            }
            return;
        }
        let lanes_max = self.lanes_max();
        let route = self.route(route_id);
        let is_wanted = !route.is_behind && route.suspect.is_none() && route.lanes < lanes_max;
        if is_wanted && has_room && self.is_not_taking(route_id) {
            let run = Run {
                events: vec![held],
                has_more: false,
            };
            self.open_lane(key, run, now);
            return;
        }
        self.route(route_id).is_behind = true;
        if let Some(taking) = &mut self.taking
            && taking.route_id == route_id
        {
            taking.has_missed_head = true;
        }
    }

    fn acknowledged(&mut self, ack: Ack) {
        let seq = match ack {
            Ack::Settled { seq, .. } | Ack::Deferred { seq, .. } => seq,
        };
        let Some(lane_id) = self.seqs.remove(&seq) else {
            return;
        };
        self.unmarked -= 1;
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        lane.unmarked -= 1;
        match ack {
            Ack::Settled { promoted, .. } => {
                if lane.queue.is_empty() && lane.unmarked == 0 {
                    self.close_lane(lane_id);
                    self.behind(promoted);
                }
            }
            Ack::Deferred {
                route_id, due_ms, ..
            } => {
                self.close_lane(lane_id);
                let route = self.route(route_id);
                if due_ms == 0 {
                    route.is_behind = true;
                } else {
                    route.wake_at = Some(route.wake_at.map_or(due_ms, |wake| wake.min(due_ms)));
                }
            }
        }
    }

    fn open_lane(&mut self, key: LaneKey, run: Run, now: Millis) {
        let lane_id = LaneId(self.next_lane);
        self.next_lane += 1;
        for held in &run.events {
            self.hold(lane_id, held);
        }
        self.lane_ids.insert(key.clone(), lane_id);
        let lane = Lane {
            key,
            queue: run.events.into(),
            state: LaneState::Idle,
            unmarked: 0,
            has_more: run.has_more,
            generation: self.generation,
        };
        self.lanes.insert(lane_id, lane);
        self.make_ready(lane_id, now);
    }

    fn extend_lane(&mut self, lane_id: LaneId, held: Held, now: Millis) {
        self.hold(lane_id, &held);
        let lane = self.lane(lane_id);
        lane.queue.push_back(held);
        if lane.state == LaneState::Idle {
            self.make_ready(lane_id, now);
        }
    }

    /// Queues a lane that has something to publish and nothing on its way.
    pub(super) fn make_ready(&mut self, lane_id: LaneId, now: Millis) {
        let lane = self.lane(lane_id);
        let Some(first) = lane.queue.front() else {
            lane.state = LaneState::Idle;
            return;
        };
        let (route_id, name) = (first.route_id, first.route.clone());
        lane.state = LaneState::Ready;
        let is_stale = lane.generation != self.generation;
        let is_new = self.name_route(route_id, name);
        self.version += u64::from(is_new);
        let route = self.route(route_id);
        route.lanes += 1;
        let is_suspect = route.suspect.is_some() && !route.is_probing(now);
        route.ready.push_back(lane_id);
        if is_stale || is_suspect {
            self.route(route_id).ready.pop_back();
            self.let_go(lane_id);
        }
    }

    /// Gives a ready lane back to the journal. It is not in its route's queue any more.
    pub(super) fn let_go(&mut self, lane_id: LaneId) {
        let lane = self.lane(lane_id);
        let route_id = lane
            .queue
            .front()
            .expect("a ready lane has an event")
            .route_id;
        let queue = std::mem::take(&mut lane.queue);
        lane.state = LaneState::Idle;
        lane.has_more = true;
        let (is_unmarked, lane_generation) = (lane.unmarked > 0, lane.generation);
        for held in queue {
            self.release(&held);
            self.seqs.remove(&held.seq);
        }
        let is_stale = lane_generation != self.generation;
        self.route(route_id).lanes -= 1;
        if is_unmarked {
            // The acknowledgement will name the route of what is the head then.
            return;
        }
        self.route(route_id).is_behind = true;
        if is_stale {
            // In the journal it may have any route by now.
            self.routes
                .values_mut()
                .for_each(|route| route.is_behind = true);
        }
        let lane = self.remove_lane(lane_id);
        if let Some(taking) = &mut self.taking {
            taking.gone.insert(lane.key);
            taking.has_missed_head |= taking.route_id == route_id;
        }
    }

    /// Forgets a lane that has nothing on its way; what is left of it is in the journal.
    fn close_lane(&mut self, lane_id: LaneId) {
        let lane = self.remove_lane(lane_id);
        for held in lane.queue {
            self.release(&held);
            self.seqs.remove(&held.seq);
        }
        if let Some(taking) = &mut self.taking {
            taking.gone.insert(lane.key);
        }
    }

    fn remove_lane(&mut self, lane_id: LaneId) -> Lane {
        let lane = self.lanes.remove(&lane_id);
        let lane = lane.expect("only lanes in hand are named");
        self.lane_ids.remove(&lane.key);
        lane
    }

    /// A lane whose id is known from what is in hand.
    pub(super) fn lane(&mut self, lane_id: LaneId) -> &mut Lane {
        let lane = self.lanes.get_mut(&lane_id);
        lane.expect("only lanes in hand are named")
    }

    fn hold(&mut self, lane_id: LaneId, held: &Held) {
        self.held += 1;
        self.held_bytes += held.event.body.len() as u64;
        self.seqs.insert(held.seq, lane_id);
    }

    /// An event that is not in hand any more.
    pub(super) fn release(&mut self, held: &Held) {
        self.held -= 1;
        self.held_bytes -= held.event.body.len() as u64;
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let bytes_max = HELD_BYTES_FACTOR * self.limits.in_flight_bytes_max;
        self.held < self.held_max() && (self.held == 0 || self.held_bytes + bytes <= bytes_max)
    }

    pub(super) fn held_max(&self) -> usize {
        HELD_FACTOR * self.limits.in_flight_max
    }

    /// Lanes of one route in hand at most.
    pub(super) fn lanes_max(&self) -> usize {
        self.held_max() / ROUTE_PART
    }

    fn is_not_taking(&self, route_id: RouteId) -> bool {
        self.taking
            .as_ref()
            .is_none_or(|taking| taking.route_id != route_id)
    }
}
