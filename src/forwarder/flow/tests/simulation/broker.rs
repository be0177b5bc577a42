//! The broker: what it stores, what it answers, and when its answers come through.

use std::collections::{BTreeMap, VecDeque};

use super::World;
use super::links::index;
use super::scenario::Mood;
use super::tally::Seen;
use crate::journal::{Held, RouteId};
use crate::rabbitmq::{Link, Outcome, Report};

/// What the broker of the mood `TooLarge` takes.
const LIKED_BYTES_MAX: usize = 100;

/// A window on its way.
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) events: Vec<Held>,
    /// Messages that have reached the broker, in order.
    arrived: usize,
    /// What it answers them, once it does; in the window's order.
    answers: Vec<Option<Outcome>>,
    /// Answers that have come through.
    confirmed: Vec<bool>,
}

impl Sent {
    pub(super) fn new(id: u64, events: Vec<Held>) -> Self {
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
    pub(super) moods: BTreeMap<RouteId, Mood>,
    pub(super) is_frozen: bool,
    pub(super) is_unreachable: bool,
    pub(super) is_alarmed: bool,
    /// What connections that are gone had on their way and may still bring, in order each.
    late: Vec<VecDeque<Held>>,
}

impl World {
    pub(super) fn mood(&self, route_id: RouteId) -> Mood {
        let mood = self.broker.moods.get(&route_id);
        mood.copied().unwrap_or(Mood::Takes)
    }

    /// Some window's next message can reach the broker.
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
        // Messages come in bursts.
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

    /// One message arrives; says whether its channel is closed by that.
    fn arrive_at(&mut self, link: Link, which: usize) -> bool {
        let sent = &mut self.links[index(link)].windows[which];
        let position = sent.arrived;
        sent.arrived += 1;
        let held = sent.events[position].clone();
        let is_large = held.event.body.len() > LIKED_BYTES_MAX;
        let by_chance = self.random.below(8);
        let answer = match self.mood(held.route_id) {
            Mood::Nacks if by_chance < 4 => {
                if by_chance == 0 {
                    // One of two queues took it.
                    self.store(&held);
                }
                Some(Outcome::Nacked)
            }
            Mood::Returns if by_chance < 4 => Some(Outcome::Returned("312".into())),
            Mood::Closes(code) => {
                self.close_channel(link, which, code);
                return true;
            }
            Mood::TooLarge if is_large || by_chance == 0 => {
                self.close_channel(link, which, 406);
                return true;
            }
            Mood::Silent => {
                if by_chance < 4 {
                    self.store(&held);
                    self.tally.saw(Seen::StoredUnconfirmed);
                }
                None
            }
            Mood::Takes | Mood::Nacks | Mood::Returns | Mood::TooLarge => {
                self.store(&held);
                Some(Outcome::Delivered)
            }
        };
        self.links[index(link)].windows[which].answers[position] = answer;
        false
    }

    /// The whole window has no other outcome, though some of it may be stored.
    fn close_channel(&mut self, link: Link, which: usize, code: u16) {
        let sent = self.links[index(link)].windows.swap_remove(which);
        self.story
            .tell(|| format!("the broker closes window {} with {code}", sent.id));
        self.tally.saw(match code {
            403 => Seen::Closed403,
            404 => Seen::Closed404,
            _ => Seen::Closed406,
        });
        let outcome = Outcome::ChannelClosed(code, "closed".into());
        self.report(Report::Done(sent.id, vec![outcome; sent.events.len()]));
    }

    /// Answers come through: one, several, in any order.
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
            self.report(Report::Done(sent.id, outcomes));
        } else if self.random.one_in(3) {
            let id = sent.id;
            self.tally.saw(Seen::Progress);
            self.report(Report::Progress(id));
        }
    }

    /// What a connection that is gone had not brought yet may come later, or never.
    pub(super) fn abandon(&mut self, sent: Sent) {
        let rest: VecDeque<Held> = sent.events.into_iter().skip(sent.arrived).collect();
        if !rest.is_empty() && self.random.one_in(2) {
            self.broker.late.push(rest);
        }
    }

    pub(super) fn can_come_late(&self) -> bool {
        !self.broker.is_frozen && !self.broker.late.is_empty()
    }

    /// A message of a dead connection is stored after all.
    pub(super) fn come_late(&mut self) {
        let which = self.random.index(self.broker.late.len());
        let held = self.broker.late[which].pop_front();
        if self.broker.late[which].is_empty() || self.random.one_in(4) {
            self.broker.late.swap_remove(which);
        }
        if let Some(held) = held {
            self.tally.saw(Seen::StoredByDeadConnection);
            self.store(&held);
        }
    }

    fn store(&mut self, held: &Held) {
        self.story.mark(held.seq.unsigned_abs());
        self.story
            .tell(|| format!("the broker stores event {}", held.seq));
        self.judge.stored(held);
    }
}
