//! Which of the things that can happen happens next. While faults go on, anything; afterwards
//! only what a healthy world does by itself, and time passes only when nothing else can happen:
//! a world that then has something to do and nothing that would do it has lost a wakeup.

use super::World;
use super::disk::Routing;
use super::links::{LINKS, State, index};
use super::scenario::{Fault, Mood};
use super::tally::Seen;
use super::writer::{Request, Stage, TICK};
use crate::rabbitmq::Link;

/// Of a forwarder's end, before it is halted and before it is aborted.
const GRACE: u64 = 700;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Webhook,
    Collect,
    Land,
    Answer,
    HandOver,
    Tick,
    Input,
    Act,
    Snapshot,
    Read,
    Command(Link),
    Connect(Link),
    Arrive(Link),
    Confirm(Link),
    ComeLate,
    Supervise,
    Time,
    Fault(Fault),
}

/// The end of a process, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    Draining(u64),
    Halting(u64),
    Closing,
}

impl World {
    /// What goes on by itself and can happen now, with weights.
    fn possible(&self, steps: &mut Vec<(Step, u32)>) {
        steps.clear();
        let mut can = |step, weight, is_possible: bool| {
            if is_possible {
                steps.push((step, weight));
            }
        };
        let writer = &self.writer;
        let is_idle = matches!(writer.stage, Stage::Idle);
        can(Step::Collect, 8, is_idle && !writer.inbox.is_empty());
        can(Step::Land, 10, matches!(writer.stage, Stage::Committing(_)));
        can(
            Step::Answer,
            20,
            matches!(writer.stage, Stage::Answering(_)),
        );
        let can_hand_over = matches!(writer.stage, Stage::HandingOver(_)) && self.can_hand_over();
        can(Step::HandOver, 15, can_hand_over);
        let is_time = self.now >= writer.ticked_at + TICK;
        can(Step::Tick, 10, is_time && writer.has_to_tick());
        can(Step::Input, 16, self.has_input());
        can(Step::Act, 16, self.can_act());
        let take = self.forwarder.take.as_ref();
        can(
            Step::Snapshot,
            6,
            take.is_some_and(|take| take.result.is_none()),
        );
        can(Step::Read, self.scenario.reading, self.can_read());
        for link in LINKS {
            can(Step::Command(link), 16, self.can_be_commanded(link));
            can(Step::Connect(link), 5, self.can_connect(link));
            can(Step::Arrive(link), 16, self.can_arrive(link));
            can(Step::Confirm(link), 16, self.can_confirm(link));
        }
        can(Step::ComeLate, 2, self.can_come_late());
        can(Step::Supervise, 8, self.can_supervise());
    }

    /// One thing happens, whichever.
    pub(super) fn happen(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        self.possible(&mut steps);
        steps.push((Step::Time, 5));
        if self.stopping.is_none() {
            steps.push((Step::Webhook, 8));
        }
        let faults = self.scenario.faults.iter();
        steps.extend(faults.map(|(fault, weight)| (Step::Fault(*fault), *weight)));
        let step = self.choose(&steps);
        self.steps = steps;
        self.take_step(step);
    }

    /// Something that is possible happens, or else the clock goes on to what is due next.
    /// Says whether there was anything.
    pub(super) fn go_on(&mut self) -> bool {
        let mut steps = std::mem::take(&mut self.steps);
        self.possible(&mut steps);
        let step = (!steps.is_empty()).then(|| self.choose(&steps));
        self.steps = steps;
        if let Some(step) = step {
            self.take_step(step);
            return true;
        }
        let next = self.next_timer();
        if let Some(next) = next {
            self.story.tell(|| format!("until {next}"));
            self.now = next;
        }
        next.is_some()
    }

    fn choose(&mut self, steps: &[(Step, u32)]) -> Step {
        let sum: u32 = steps.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.below(u64::from(sum));
        for (step, weight) in steps {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(rest) => drawn = rest,
                None => return *step,
            }
        }
        unreachable!("less than the sum was drawn")
    }

    /// The next moment at which something happens by itself.
    fn next_timer(&self) -> Option<u64> {
        let forwarder = &self.forwarder;
        let is_awake = !forwarder.has_ended && !forwarder.is_rerouting;
        let wakes_at = is_awake.then(|| forwarder.wakes_at()).flatten();
        let connects_at = match self.links[index(Link::Main)].state {
            State::Down(due) => Some(due),
            State::Connecting(..) | State::Up => None,
        };
        let ticks_at = self
            .writer
            .has_to_tick()
            .then_some(self.writer.ticked_at + TICK);
        let supervises_at = match self.stopping {
            Some(Stopping::Draining(since) | Stopping::Halting(since)) => Some(since + GRACE),
            Some(Stopping::Closing) | None => None,
        };
        let timers = [wakes_at, connects_at, ticks_at, supervises_at];
        timers
            .into_iter()
            .flatten()
            .filter(|at| *at > self.now)
            .min()
    }

    fn take_step(&mut self, step: Step) {
        self.story.steps += 1;
        self.story.mark(self.now);
        match step {
            Step::Webhook => self.post(),
            Step::Collect => self.collect(),
            Step::Land => self.land(),
            Step::Answer => self.answer(),
            Step::HandOver => self.hand_over(),
            Step::Tick => self.tick(),
            Step::Input => self.input(),
            Step::Act => self.act(),
            Step::Snapshot => self.snapshot(),
            Step::Read => self.read(),
            Step::Command(link) => self.command(link),
            Step::Connect(link) => self.connect(link),
            Step::Arrive(link) => self.arrive(link),
            Step::Confirm(link) => self.confirm(link),
            Step::ComeLate => self.come_late(),
            Step::Supervise => self.supervise(),
            Step::Time => self.pass(),
            Step::Fault(fault) => self.fail_with(fault),
        }
        if matches!(self.writer.stage, Stage::HandingOver(_)) && !self.can_hand_over() {
            self.tally.saw(Seen::HandoverFull);
        }
    }

    fn post(&mut self) {
        let events = self.maker.webhook(&mut self.random, &self.scenario);
        self.writer.inbox.push_back(Request::Append(events));
    }

    fn pass(&mut self) {
        let next = self.next_timer();
        self.now = match (self.random.below(10), next) {
            (0..=2, Some(next)) => next,
            (9, _) => self.now + 600,
            _ => self.now + 1 + self.random.below(60),
        };
    }

    fn fail_with(&mut self, fault: Fault) {
        self.story.mark(fault as u64);
        self.story.tell(|| format!("at {}: {fault:?}", self.now));
        match fault {
            Fault::Mood => {
                let route_id = self.random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 7]);
                let mood = self.random.pick(&self.scenario.moods);
                self.story.tell(|| format!("route {route_id}: {mood:?}"));
                self.broker.moods.insert(route_id, mood);
            }
            Fault::LoseMain => self.lose(Link::Main),
            Fault::LoseProbe => self.lose(Link::Probe),
            Fault::Freeze => {
                self.broker.is_frozen = !self.broker.is_frozen;
                self.tally.saw(Seen::Frozen);
            }
            Fault::Unreachable => self.broker.is_unreachable = !self.broker.is_unreachable,
            Fault::Block => {
                self.broker.is_alarmed = !self.broker.is_alarmed;
                for link in LINKS {
                    if self.broker.is_alarmed {
                        self.block(link);
                    } else {
                        self.unblock(link);
                    }
                }
            }
            Fault::DiskFull => self.writer.is_disk_full = !self.writer.is_disk_full,
            Fault::TakeFails => self.take_fails = true,
            Fault::Crash => self.crash(),
            Fault::Reroute => {
                if self.stopping.is_none() {
                    self.forwarder.reroute = Some(Routing::draw(&mut self.random));
                }
            }
            Fault::Stop => self.stop(),
        }
    }

    /// Everything works again, but perhaps one route.
    pub(super) fn heal(&mut self, but: Option<(i64, Mood)>) {
        self.story.tell(|| format!("everything works but {but:?}"));
        self.broker.moods.clear();
        self.broker.moods.extend(but);
        self.broker.is_frozen = false;
        self.broker.is_unreachable = false;
        self.broker.is_alarmed = false;
        for link in LINKS {
            self.unblock(link);
        }
        self.writer.is_disk_full = false;
        self.take_fails = false;
    }

    pub(super) fn stop(&mut self) {
        if self.stopping.is_none() && !self.forwarder.is_rerouting {
            self.story.tell(|| "stop: drain".into());
            self.forwarder.reroute = None;
            self.forwarder.is_draining = true;
            self.forwarder.has_to_act = true;
            self.stopping = Some(Stopping::Draining(self.now));
        }
    }

    fn can_supervise(&self) -> bool {
        match self.stopping {
            None => false,
            Some(Stopping::Draining(since) | Stopping::Halting(since)) => {
                self.forwarder.has_ended || self.now >= since + GRACE
            }
            Some(Stopping::Closing) => self.writer.is_stopped(),
        }
    }

    fn supervise(&mut self) {
        match self.stopping {
            Some(Stopping::Draining(_) | Stopping::Halting(_)) if self.forwarder.has_ended => {
                self.close();
            }
            Some(Stopping::Draining(_)) => {
                self.story.tell(|| "stop: halt".into());
                self.tally.saw(Seen::Halted);
                self.forwarder.is_halted = true;
                self.forwarder.flow.halt();
                self.forwarder.has_to_act = true;
                self.stopping = Some(Stopping::Halting(self.now));
            }
            Some(Stopping::Halting(_)) => {
                self.story.tell(|| "stop: abort".into());
                self.tally.saw(Seen::Aborted);
                self.forwarder.has_ended = true;
                self.judge.may_repeat();
                self.close();
            }
            Some(Stopping::Closing) => {
                self.judge.ended_in_order(&self.disk);
                self.writer.restart(self.now);
                self.boot();
            }
            None => {}
        }
    }

    fn close(&mut self) {
        self.writer.news.clear();
        for link in LINKS {
            self.crash_link(link);
        }
        self.writer.inbox.push_back(Request::Stop);
        self.stopping = Some(Stopping::Closing);
    }

    /// The forwarder has ended by itself.
    pub(super) fn ended(&mut self) {
        self.story.tell(|| "the forwarder has ended".into());
        self.judge.ended_in_order(&self.disk);
        let flow = &self.forwarder.flow;
        if self.forwarder.is_halted {
            return;
        }
        if !flow.is_idle() {
            self.tally.saw(Seen::EndedHopeless);
            return;
        }
        self.tally.saw(Seen::Drained);
        let is_writing = !self.writer.is_at_rest();
        let mut left = self.disk.pending.values().filter(|row| row.is_head);
        let is_suspect = |route_id| {
            let route = flow.routes.get(&route_id);
            route.is_some_and(|route| route.suspect.is_some())
        };
        if self
            .disk
            .pending
            .values()
            .any(|row| row.is_head && is_suspect(row.route_id))
        {
            self.tally.saw(Seen::DrainedBesideSuspect);
        }
        assert!(
            is_writing || left.all(|row| row.due_ms > 0 || is_suspect(row.route_id)),
            "it ended before everything was published that could be"
        );
    }
}
