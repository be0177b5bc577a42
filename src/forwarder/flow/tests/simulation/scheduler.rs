//! Chooses the next step. While there are faults, any step is possible. Afterwards only the steps
//! of a healthy world are, and time passes only when no other step is possible. If work is left
//! then and no timer is pending, a wakeup has been lost.

use super::World;
use super::coverage::Seen;
use super::disk::Routing;
use super::links::{LINKS, State, index};
use super::scenario::{Behavior, Fault};
use super::writer::{Stage, WriterRequest};
use jiff::Timestamp;

use crate::rabbitmq::Link;
use crate::telemetry::status::Pause;

/// Milliseconds before a draining forwarder is halted, and again before it is aborted.
const GRACE: u64 = 700;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Webhook,
    Collect,
    Land,
    Answer,
    HandOver,
    Tick,
    Forward,
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

/// The phases of an orderly stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    Draining(u64),
    Halting(u64),
    Closing,
}

impl World {
    /// Collects the steps that are possible now without a fault, with their weights.
    fn possible(&self, steps: &mut Vec<(Step, u32)>) {
        steps.clear();
        let mut can = |step, weight, is_possible: bool| {
            if is_possible {
                steps.push((step, weight));
            }
        };
        let writer = &self.writer;
        let has_requests = !writer.inbox.is_empty();
        let has_room = self.forwarder.has_room_for_commits();
        match &writer.stage {
            Stage::Idle => can(Step::Collect, 8, has_requests),
            Stage::Committing(_) => can(Step::Land, 10, true),
            Stage::Answering(..) => can(Step::Answer, 20, true),
            Stage::HandingOver(_) => can(Step::HandOver, 15, has_room),
            Stage::Stopped => {}
        }
        let is_time = self.ticks_at().is_some_and(|at| self.now >= at);
        can(Step::Tick, 10, is_time);
        can(Step::Forward, 20, self.forwarder.is_awake(self.now));
        if let Some(take) = &self.forwarder.take {
            can(Step::Snapshot, 6, take.result.is_none());
            can(Step::Read, self.scenario.reading, take.result.is_some());
        }
        for link in LINKS {
            can(Step::Command(link), 16, self.can_be_commanded(link));
            can(Step::Connect(link), 5, self.can_connect(link));
            can(Step::Arrive(link), 16, self.can_arrive(link));
            can(Step::Confirm(link), 16, self.can_confirm(link));
        }
        can(Step::ComeLate, 2, self.can_come_late());
        can(Step::Supervise, 8, self.can_supervise());
    }

    /// Chooses any step, including faults.
    pub(super) fn any_step(&mut self) -> Step {
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
        step
    }

    /// Chooses a possible step. If there is none, advances the clock to the next timer.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        let mut steps = std::mem::take(&mut self.steps);
        self.possible(&mut steps);
        let step = (!steps.is_empty()).then(|| self.choose(&steps));
        self.steps = steps;
        if step.is_none() {
            let left: Vec<_> = self.disk.unsettled.keys().collect();
            let next = self.next_timer();
            let next = next.unwrap_or_else(|| panic!("nothing will ever happen again: {left:?}"));
            self.trace.log(|| format!("until {next}"));
            self.now = next;
        }
        step
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

    /// When the next timer expires.
    fn next_timer(&self) -> Option<u64> {
        let connects_at = match self.links[index(Link::Main)].state {
            State::Down(due) => Some(due),
            State::Connecting(..) | State::Up => None,
        };
        let supervises_at = match self.stopping {
            Some(Stopping::Draining(since) | Stopping::Halting(since)) => Some(since + GRACE),
            Some(Stopping::Closing) | None => None,
        };
        let wakes_at = self.forwarder.wakes_at();
        let timers = [wakes_at, connects_at, self.ticks_at(), supervises_at];
        timers
            .into_iter()
            .flatten()
            .filter(|at| *at > self.now)
            .min()
    }

    /// Takes a step, except those of the loop.
    pub(super) fn take_step(&mut self, step: Step) {
        self.trace.steps += 1;
        self.trace.mark(self.now);
        match step {
            Step::Webhook => self.post(),
            Step::Collect => self.collect(),
            Step::Land => self.land(),
            Step::Answer => self.answer(),
            Step::HandOver => self.hand_over(),
            Step::Tick => self.tick(),
            Step::Forward => {}
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
        if matches!(self.writer.stage, Stage::HandingOver(_))
            && !self.forwarder.has_room_for_commits()
        {
            self.coverage.saw(Seen::HandoverFull);
        }
    }

    fn post(&mut self) {
        let events = self.maker.webhook(&mut self.random, &self.scenario);
        self.writer.inbox.push_back(WriterRequest::Append(events));
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
        self.trace.mark(fault as u64);
        self.trace.log(|| format!("at {}: {fault:?}", self.now));
        match fault {
            Fault::Behavior => {
                let route_id = self.random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 7]);
                let behavior = self.random.pick(&self.scenario.behaviors);
                self.trace.log(|| format!("route {route_id}: {behavior:?}"));
                self.broker.behaviors.insert(route_id, behavior);
            }
            Fault::LoseMain => self.lose(Link::Main),
            Fault::LoseProbe => self.lose(Link::Probe),
            Fault::Freeze => {
                self.broker.is_frozen = !self.broker.is_frozen;
                self.coverage.saw(Seen::Frozen);
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
                    let routing = Routing::draw(&mut self.random);
                    self.forwarder.reload(routing);
                }
            }
            Fault::Pause => self.pause(),
            Fault::Stop => self.stop(),
        }
    }

    /// An operator pauses a route or everything, or ends all pauses.
    fn pause(&mut self) {
        let key = self.random.below(6);
        self.pauses.send_modify(|pauses| match key {
            5 => pauses.clear(),
            key => pauses.push(Pause {
                exchange: None,
                routing_key: (key < 4).then(|| key.to_string().into()),
                since: Timestamp::UNIX_EPOCH,
            }),
        });
        self.coverage.saw(Seen::Paused);
    }

    /// Ends all faults, except that of one route if one is given.
    pub(super) fn heal(&mut self, but: Option<(i64, Behavior)>) {
        self.trace.log(|| format!("everything works but {but:?}"));
        self.broker.behaviors.clear();
        self.broker.behaviors.extend(but);
        self.broker.is_frozen = false;
        self.broker.is_unreachable = false;
        self.broker.is_alarmed = false;
        for link in LINKS {
            self.unblock(link);
        }
        self.writer.is_disk_full = false;
        self.take_fails = false;
        self.pauses.send_modify(Vec::clear);
    }

    pub(super) fn stop(&mut self) {
        if self.stopping.is_none() && self.forwarder.reload.is_none() {
            self.trace.log(|| "stop: drain".into());
            self.forwarder.drain.cancel();
            self.stopping = Some(Stopping::Draining(self.now));
        }
    }

    fn can_supervise(&self) -> bool {
        match self.stopping {
            None => false,
            Some(Stopping::Draining(since) | Stopping::Halting(since)) => {
                self.forwarder.has_ended() || self.now >= since + GRACE
            }
            Some(Stopping::Closing) => self.writer.is_stopped(),
        }
    }

    fn supervise(&mut self) {
        match self.stopping {
            Some(Stopping::Draining(_) | Stopping::Halting(_)) if self.forwarder.has_ended() => {
                self.close();
            }
            Some(Stopping::Draining(_)) => {
                self.trace.log(|| "stop: halt".into());
                self.coverage.saw(Seen::Halted);
                self.forwarder.halt.cancel();
                self.stopping = Some(Stopping::Halting(self.now));
            }
            Some(Stopping::Halting(_)) => {
                self.trace.log(|| "stop: abort".into());
                self.coverage.saw(Seen::Aborted);
                self.forwarder.run = None;
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
        for link in LINKS {
            self.crash_link(link);
        }
        self.writer.inbox.push_back(WriterRequest::Stop);
        self.stopping = Some(Stopping::Closing);
    }

    /// Checks the state when the forwarder has ended by itself.
    pub(super) fn ended(&mut self) {
        self.trace.log(|| "the forwarder has ended".into());
        self.judge.ended_in_order(&self.disk);
        if self.forwarder.halt.is_cancelled() {
            return;
        }
        if !self.forwarder.is_idle {
            self.coverage.saw(Seen::EndedHopeless);
            return;
        }
        self.coverage.saw(Seen::Drained);
        if self.disk.tail().is_some() {
            self.coverage.saw(Seen::DrainedBesideTail);
        }
        let is_writing = !self.writer.is_at_rest();
        let is_tripped = |route_id| self.forwarder.suspects.contains(&route_id);
        if self.disk.heads().any(|head| is_tripped(head.route_id)) {
            self.coverage.saw(Seen::DrainedBesideSuspect);
        }
        assert!(
            is_writing
                || self
                    .disk
                    .heads()
                    .all(|head| head.due_ms > 0 || is_tripped(head.route_id)),
            "it ended before everything was published that could be"
        );
    }
}
