//! The broker: which messages it stores, how it answers, and when its answers arrive.

use std::collections::{BTreeMap, VecDeque};

use super::World;
use super::coverage::Seen;
use super::links::index;
use super::scenario::Behavior;
use crate::journal::{QueuedEvent, RouteId};
use crate::rabbitmq::{Link, Outcome, PublisherEvent, RefusalKind};

/// The largest body that the broker accepts with the behavior `TooLarge`.
const LIKED_BYTES_MAX: usize = 100;

/// A window in flight.
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) events: Vec<QueuedEvent>,
    /// Number of messages that have reached the broker, in order.
    arrived: usize,
    /// The broker's answers to them, in the window's order; `None` until there is one.
    answers: Vec<Option<Outcome>>,
    /// Which answers have arrived at the bridge.
    confirmed: Vec<bool>,
}

impl Sent {
    pub(super) fn new(id: u64, events: Vec<QueuedEvent>) -> Self {
        let many = events.len();
        Self {
            id,
            events,
            arrived: 0,
            answers: vec![None; many],
            confirmed: vec![false; many],
        }
    }

    pub(super) fn has_more(&self) -> bool {
        self.arrived < self.events.len()
    }

    fn waiting(&self) -> impl Iterator<Item = usize> {
        (0..self.events.len())
            .filter(|position| self.answers[*position].is_some() && !self.confirmed[*position])
    }
}

#[derive(Default)]
pub(super) struct Broker {
    pub(super) behaviors: BTreeMap<RouteId, Behavior>,
    pub(super) is_frozen: bool,
    pub(super) is_unreachable: bool,
    pub(super) is_alarmed: bool,
    /// Messages of lost connections that may still arrive; in order per connection.
    late: Vec<VecDeque<QueuedEvent>>,
}

impl World {
    pub(super) fn behavior(&self, route_id: RouteId) -> Behavior {
        let behavior = self.broker.behaviors.get(&route_id);
        behavior.copied().unwrap_or(Behavior::Takes)
    }

    /// Whether the next message of some window can reach the broker.
    pub(super) fn can_arrive(&self, link: Link) -> bool {
        let task = &self.links[index(link)];
        !self.broker.is_frozen && !task.is_blocked && task.windows.iter().any(Sent::has_more)
    }

    pub(super) fn can_confirm(&self, link: Link) -> bool {
        let is_waiting = |sent: &Sent| sent.waiting().next().is_some();
        !self.broker.is_frozen && self.links[index(link)].windows.iter().any(is_waiting)
    }

    pub(super) fn arrive(&mut self, link: Link) {
        let windows = &self.links[index(link)].windows;
        let open = (0..windows.len()).filter(|which| windows[*which].has_more());
        let open: Vec<usize> = open.collect();
        let which = self.random.pick(&open);
        // Messages arrive in bursts.
        for _ in 0..=self.random.below(3) {
            let windows = &self.links[index(link)].windows;
            if which >= windows.len() || !windows[which].has_more() {
                break;
            }
            if self.arrive_at(link, which) {
                break;
            }
        }
    }

    /// Lets one message arrive. Returns whether the broker closes its channel.
    fn arrive_at(&mut self, link: Link, which: usize) -> bool {
        let sent = &mut self.links[index(link)].windows[which];
        let position = sent.arrived;
        sent.arrived += 1;
        let queued = sent.events[position].clone();
        let is_large = queued.event.body.len() > LIKED_BYTES_MAX;
        let by_chance = self.random.below(8);
        let answer = match self.behavior(queued.route_id) {
            Behavior::Nacks if by_chance < 4 => {
                if by_chance == 0 {
                    // One of two queues stored it, the other rejected it.
                    self.store(&queued);
                }
                Some(Outcome::Nacked)
            }
            Behavior::Returns if by_chance < 4 => Some(Outcome::Returned("312".into())),
            Behavior::Refuses(kind) => {
                self.refuse_window(link, which, kind);
                return true;
            }
            Behavior::TooLarge if is_large || by_chance == 0 => {
                self.refuse_window(link, which, RefusalKind::TooLarge);
                return true;
            }
            Behavior::Silent => {
                if by_chance < 4 {
                    self.store(&queued);
                    self.coverage.saw(Seen::StoredUnconfirmed);
                }
                None
            }
            Behavior::Takes | Behavior::Nacks | Behavior::Returns | Behavior::TooLarge => {
                self.store(&queued);
                Some(Outcome::Delivered)
            }
        };
        self.links[index(link)].windows[which].answers[position] = answer;
        false
    }

    /// Refuses a window. No message of the window gets another outcome, although some
    /// of them may be stored.
    fn refuse_window(&mut self, link: Link, which: usize, kind: RefusalKind) {
        let sent = self.links[index(link)].windows.swap_remove(which);
        self.trace
            .log(|| format!("the broker refuses window {}: {kind:?}", sent.id));
        self.coverage.saw(match kind {
            RefusalKind::Forbidden => Seen::Forbidden,
            RefusalKind::RouteMissing => Seen::RouteMissing,
            RefusalKind::TooLarge | RefusalKind::Other => Seen::TooLarge,
        });
        let outcome = Outcome::ChannelClosed {
            kind,
            reason: "refused".into(),
        };
        self.report(PublisherEvent::Done(
            sent.id,
            vec![outcome; sent.events.len()],
        ));
    }

    /// Lets one answer or all answers of a window arrive, in any order.
    pub(super) fn confirm(&mut self, link: Link) {
        let windows = &self.links[index(link)].windows;
        let open = (0..windows.len()).filter(|which| windows[*which].waiting().next().is_some());
        let open: Vec<usize> = open.collect();
        let which = self.random.pick(&open);
        let are_all = self.random.one_in(2);
        let sent = &mut self.links[index(link)].windows[which];
        let waiting: Vec<usize> = sent.waiting().collect();
        if are_all {
            for position in waiting {
                sent.confirmed[position] = true;
            }
        } else {
            sent.confirmed[self.random.pick(&waiting)] = true;
        }
        if sent.confirmed.iter().all(|is| *is) {
            let sent = self.links[index(link)].windows.swap_remove(which);
            let outcomes = sent.answers.into_iter().flatten().collect();
            self.report(PublisherEvent::Done(sent.id, outcomes));
        } else if self.random.one_in(3) {
            let id = sent.id;
            self.coverage.saw(Seen::Progress);
            self.report(PublisherEvent::Progress(id));
        }
    }

    /// Decides whether the messages that a lost connection had not delivered may arrive later or
    /// never.
    pub(super) fn abandon(&mut self, sent: Sent) {
        let rest: VecDeque<QueuedEvent> = sent.events.into_iter().skip(sent.arrived).collect();
        if !rest.is_empty() && self.random.one_in(2) {
            self.broker.late.push(rest);
        }
    }

    pub(super) fn can_come_late(&self) -> bool {
        !self.broker.is_frozen && !self.broker.late.is_empty()
    }

    /// Stores a message of a lost connection belatedly.
    pub(super) fn come_late(&mut self) {
        let which = self.random.index(self.broker.late.len());
        let queued = self.broker.late[which].pop_front();
        if self.broker.late[which].is_empty() || self.random.one_in(4) {
            self.broker.late.swap_remove(which);
        }
        if let Some(queued) = queued {
            self.coverage.saw(Seen::StoredByDeadConnection);
            self.store(&queued);
        }
    }

    fn store(&mut self, queued: &QueuedEvent) {
        self.trace.mark(queued.seq.unsigned_abs());
        self.trace
            .log(|| format!("the broker stores event {}", queued.seq));
        self.judge.stored(queued);
    }
}
