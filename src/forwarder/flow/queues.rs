//! Session queues, which hold the buffered events. A queue is opened for a fresh event of a commit
//! or for a fetched batch. It is removed when its last event is complete, when its first event is
//! rescheduled, or when it is evicted.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{BUFFERED_BYTES_FACTOR, BUFFERED_FACTOR, Flow, Millis, ROUTE_PART};
use crate::journal::{
    Committed, Fetched, QueuedEvent, RouteId, Seq, SessionBatch, TransitionApplied,
};

/// Buffered events per session. The others wait in the journal.
const SESSION_EVENTS_MAX: usize = 64;

/// What a queue belongs to: a session of a source, or a single reject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum QueueKey {
    Session { source: Arc<str>, session: Arc<str> },
    Reject(Seq),
}

/// Identifies a queue while it is in memory. Ids are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct QueueId(u64);

/// The oldest pending events of one session, in memory.
#[derive(Debug)]
pub(super) struct SessionQueue {
    pub(super) key: QueueKey,
    /// The buffered pending events, in order.
    pub(super) events: VecDeque<QueuedEvent>,
    pub(super) state: QueueState,
    /// Changes that the journal has not acknowledged yet.
    pub(super) awaiting_commit: usize,
    /// Whether the journal may have pending events of the session that are not in the queue.
    pub(super) has_more: bool,
    pub(super) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueState {
    /// Listed in `ready` of its first event's route.
    Ready,
    /// Its first event is in a window.
    InFlight,
    /// Nothing to publish; waits for the journal to acknowledge changes.
    Idle,
    /// Its first event is being rescheduled or dead-lettered. Removed when that change is
    /// committed.
    Leaving,
}

impl QueueKey {
    pub(super) fn of(queued: &QueuedEvent) -> Self {
        match queued.event.session_id() {
            Some(session) => Self::Session {
                source: queued.event.envelope.source.clone(),
                session: Arc::clone(session),
            },
            None => Self::Reject(queued.seq),
        }
    }
}

impl Flow {
    /// Processes the results of a commit.
    pub fn committed(&mut self, committed: Committed, now: Millis) {
        for ack in committed.applied {
            self.acknowledged(ack);
        }
        for queued in committed.fresh {
            self.arrived(queued, now);
        }
        for route_id in committed.behind {
            self.missed_head(route_id);
        }
    }

    /// Processes the result of a fetch; `None` if the journal could not be read.
    pub fn fetched(&mut self, fetched: Option<Fetched>, now: Millis) {
        let Some(fetch) = self.pending_fetch.take() else {
            return;
        };
        let route_id = fetch.route_id;
        let Some(fetched) = fetched else {
            self.route(route_id).fetch_failed(now);
            return;
        };
        if fetch.generation != self.generation {
            self.route(route_id).needs_fetch = true;
            return;
        }
        let route = self.route(route_id);
        route.needs_fetch |= fetched.has_more || fetch.has_missed_head;
        route.wake_at = [route.wake_at, fetched.next_due_ms]
            .into_iter()
            .flatten()
            .min();
        for mut batch in fetched.batches {
            let Some(first) = batch.events.first() else {
                continue;
            };
            let key = QueueKey::of(first);
            if fetch.gone.contains(&key) {
                self.route(route_id).needs_fetch = true;
                continue;
            }
            batch.has_more |= fetch.has_missed_follower;
            if !self.queue_ids.contains_key(&key) {
                self.open_queue(key, batch, now);
            }
        }
    }

    /// Processes an event that was just committed. It need not be buffered: the journal has it.
    fn arrived(&mut self, queued: QueuedEvent, now: Millis) {
        if self.seqs.contains_key(&queued.seq) {
            // A fetch whose snapshot is newer than this commit has already returned it.
            return;
        }
        let key = QueueKey::of(&queued);
        let has_room = queued.has_body && self.has_room(queued.event.body.len() as u64);
        if let Some(&queue_id) = self.queue_ids.get(&key) {
            let queue = self.queue(queue_id);
            let takes_it = has_room
                && !queue.has_more
                && queue.state != QueueState::Leaving
                && queue.events.len() < SESSION_EVENTS_MAX;
            if !takes_it {
                queue.has_more = true;
                return;
            }
            self.buffer(queue_id, &queued);
            let queue = self.queue(queue_id);
            queue.events.push_back(queued);
            if queue.state == QueueState::Idle {
                self.make_ready(queue_id, now);
            }
            return;
        }
        let route_id = queued.route_id;
        if !queued.is_head {
            // Its head exists only in the journal. The event becomes a candidate when that is
            // complete.
            if let Some(fetch) = &mut self.pending_fetch {
                fetch.has_missed_follower = true;
            }
            return;
        }
        let queues_max = self.queues_max();
        let route = self.route(route_id);
        let is_wanted = !route.needs_fetch && route.breaker.is_none() && route.queues < queues_max;
        let fetch = self.pending_fetch.as_ref();
        let is_fetching = fetch.is_some_and(|fetch| fetch.route_id == route_id);
        if is_wanted && has_room && !is_fetching {
            let batch = SessionBatch {
                events: vec![queued],
                has_more: false,
            };
            self.open_queue(key, batch, now);
            return;
        }
        self.missed_head(route_id);
    }

    /// Records that the journal has a head of a route that is not buffered. The result of a fetch
    /// in progress may not contain it.
    fn missed_head(&mut self, route_id: RouteId) {
        self.route(route_id).needs_fetch = true;
        if let Some(fetch) = &mut self.pending_fetch
            && fetch.route_id == route_id
        {
            fetch.has_missed_head = true;
        }
    }

    fn acknowledged(&mut self, ack: TransitionApplied) {
        let seq = match ack {
            TransitionApplied::Completed { seq, .. }
            | TransitionApplied::Rescheduled { seq, .. } => seq,
        };
        let Some(queue_id) = self.seqs.remove(&seq) else {
            return;
        };
        self.awaiting_commit -= 1;
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            return;
        };
        queue.awaiting_commit -= 1;
        match ack {
            TransitionApplied::Completed { promoted, .. } => {
                if queue.events.is_empty() && queue.awaiting_commit == 0 {
                    self.close_queue(queue_id);
                    self.mark_needs_fetch(promoted);
                }
            }
            TransitionApplied::Rescheduled {
                route_id, due_ms, ..
            } => {
                self.close_queue(queue_id);
                let route = self.route(route_id);
                if due_ms == 0 {
                    route.needs_fetch = true;
                } else {
                    route.wake_at = Some(route.wake_at.map_or(due_ms, |wake| wake.min(due_ms)));
                }
            }
        }
    }

    fn open_queue(&mut self, key: QueueKey, batch: SessionBatch, now: Millis) {
        let queue_id = QueueId(self.next_queue);
        self.next_queue += 1;
        for queued in &batch.events {
            self.buffer(queue_id, queued);
        }
        self.queue_ids.insert(key.clone(), queue_id);
        let queue = SessionQueue {
            key,
            events: batch.events.into(),
            state: QueueState::Idle,
            awaiting_commit: 0,
            has_more: batch.has_more,
            generation: self.generation,
        };
        self.queues.insert(queue_id, queue);
        self.make_ready(queue_id, now);
    }

    /// Lists a queue with nothing in flight for publishing, if it has an event. If its route is
    /// tripped and not being probed, or if its routes are outdated, the queue is evicted instead.
    pub(super) fn make_ready(&mut self, queue_id: QueueId, now: Millis) {
        let queue = self.queue(queue_id);
        let Some(first) = queue.events.front() else {
            queue.state = QueueState::Idle;
            return;
        };
        let (route_id, name) = (first.route_id, first.route.clone());
        queue.state = QueueState::Ready;
        let is_stale = queue.generation != self.generation;
        let route = self.route(route_id);
        // After a change of routes, another route may have this number.
        let is_new = route.route.as_ref() != Some(&name);
        route.route = Some(name);
        route.queues += 1;
        if is_new || !self.pauses.is_empty() {
            self.apply_pauses(route_id, None);
        }
        let route = self.route(route_id);
        let is_tripped = route.breaker.is_some() && !route.is_probing(now);
        if is_stale || is_tripped {
            self.evict(queue_id);
        } else {
            route.ready.push_back(queue_id);
        }
        self.version += u64::from(is_new);
    }

    /// Evicts a ready queue that the caller has already removed from `ready`. Its events stay in
    /// the journal.
    pub(super) fn evict(&mut self, queue_id: QueueId) {
        let route_id = self.first(queue_id).route_id;
        let queue = self.queue(queue_id);
        let events = std::mem::take(&mut queue.events);
        queue.state = QueueState::Idle;
        queue.has_more = true;
        let (has_uncommitted, queue_generation) = (queue.awaiting_commit > 0, queue.generation);
        let is_stale = queue_generation != self.generation;
        self.drop_events(events);
        self.route(route_id).queues -= 1;
        if has_uncommitted {
            // The acknowledgement will name the route of the event that is the head by then.
            return;
        }
        self.missed_head(route_id);
        if is_stale {
            // After the change of routes, its events may have any route in the journal.
            let routes = self.routes.values_mut();
            routes.for_each(|route| route.needs_fetch = true);
        }
        self.close_queue(queue_id);
    }

    /// Removes a queue that has nothing in flight. Events left in it stay in the journal.
    fn close_queue(&mut self, queue_id: QueueId) {
        let queue = self.queues.remove(&queue_id);
        let queue = queue.expect("only existing queues are named");
        self.queue_ids.remove(&queue.key);
        self.drop_events(queue.events);
        if let Some(fetch) = &mut self.pending_fetch {
            fetch.gone.insert(queue.key);
        }
    }

    /// Returns the queue with an id that other state of the flow refers to, so it must exist.
    pub(super) fn queue(&mut self, queue_id: QueueId) -> &mut SessionQueue {
        let queue = self.queues.get_mut(&queue_id);
        queue.expect("only existing queues are named")
    }

    /// Returns the first event of a queue that has one.
    pub(super) fn first(&self, queue_id: QueueId) -> &QueuedEvent {
        let first = self.queues[&queue_id].events.front();
        first.expect("a queue that is ready, in flight or leaving has an event")
    }

    fn buffer(&mut self, queue_id: QueueId, queued: &QueuedEvent) {
        self.buffered += 1;
        self.buffered_bytes += queued.event.body.len() as u64;
        self.seqs.insert(queued.seq, queue_id);
    }

    /// Drops buffered events, which stay in the journal.
    pub(super) fn drop_events(&mut self, events: impl IntoIterator<Item = QueuedEvent>) {
        for queued in events {
            self.release(&queued);
            self.seqs.remove(&queued.seq);
        }
    }

    /// Subtracts an event that is no longer buffered from the totals.
    pub(super) fn release(&mut self, queued: &QueuedEvent) {
        self.buffered -= 1;
        self.buffered_bytes -= queued.event.body.len() as u64;
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let bytes_max = BUFFERED_BYTES_FACTOR * self.limits.in_flight_bytes_max;
        self.buffered < self.buffered_max()
            && (self.buffered == 0 || self.buffered_bytes + bytes <= bytes_max)
    }

    pub(super) fn buffered_max(&self) -> usize {
        BUFFERED_FACTOR * self.limits.in_flight_max
    }

    /// The number of queues that one route may have in memory.
    pub(super) fn queues_max(&self) -> usize {
        self.buffered_max() / ROUTE_PART
    }
}
