//! The loop around the flow, as `forwarder` runs it: takes in what has happened, carries out what
//! the flow decides, wakes at its deadline and at no other time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::World;
use super::disk::Routing;
use super::links::{Command, LINKS};
use super::scenario::Scenario;
use super::tally::Seen;
use super::writer::{Request, Stage};
use crate::forwarder::flow::{Action, Flow, Millis};
use crate::forwarder::retry::Backoff;
use crate::journal::{Change, Held, Request as TakeRequest, Taken};
use crate::rabbitmq::{Link, Outcome, Report};
use crate::webhook::{Event, Reason};

/// At least so long between two looks at the clock.
const PATIENCE: u64 = 10;
/// The flow's books are audited at one step in so many.
const AUDIT: u64 = 4;

/// The disk's fault.
pub(super) struct Unreadable;

pub(super) struct Take {
    request: TakeRequest,
    /// The snapshot was made.
    pub(super) result: Option<Result<Taken, Unreadable>>,
    /// What it shows has been read, perhaps much later.
    pub(super) is_read: bool,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "what the loop knows beside the flow"
)]
pub(super) struct Forwarder {
    pub(super) flow: Flow,
    began: u64,
    pub(super) reports: VecDeque<Report>,
    pub(super) take: Option<Take>,
    /// An operator's wish.
    pub(super) reroute: Option<Routing>,
    /// Waits for the journal's answer to it.
    pub(super) is_rerouting: bool,
    pub(super) rerouted: Option<bool>,
    pub(super) is_draining: bool,
    pub(super) is_halted: bool,
    pub(super) has_ended: bool,
    /// Something was taken in and not acted upon.
    pub(super) has_to_act: bool,
    acted_at: u64,
}

#[derive(Clone, Copy)]
enum Input {
    News,
    Report,
    Taken,
    Reroute,
    Rerouted,
}

impl Forwarder {
    pub(super) fn new(scenario: &Scenario, seed: u64, now: u64) -> Self {
        let (min, max) = (Duration::from_millis(20), Duration::from_millis(200));
        Self {
            flow: Flow::new(scenario.limits(), Backoff::new(min, max, seed)),
            began: now,
            reports: VecDeque::new(),
            take: None,
            reroute: None,
            is_rerouting: false,
            rerouted: None,
            is_draining: false,
            is_halted: false,
            has_ended: false,
            has_to_act: true,
            acted_at: now,
        }
    }

    /// When it looks again though nothing happened.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let deadline = self.flow.next_deadline()?;
        Some((self.began + deadline).max(self.acted_at + PATIENCE))
    }
}

impl World {
    pub(super) fn flow_now(&self) -> Millis {
        self.now - self.forwarder.began
    }

    fn inputs(&self) -> Vec<Input> {
        let forwarder = &self.forwarder;
        let mut inputs = Vec::new();
        if forwarder.has_ended {
            return inputs;
        }
        if !self.writer.news.is_empty() {
            inputs.push(Input::News);
        }
        if forwarder.is_rerouting {
            if forwarder.rerouted.is_some() {
                inputs.push(Input::Rerouted);
            }
            return inputs;
        }
        if !forwarder.reports.is_empty() {
            inputs.push(Input::Report);
        }
        if matches!(&forwarder.take, Some(take) if take.is_read) {
            inputs.push(Input::Taken);
        }
        if forwarder.reroute.is_some() {
            inputs.push(Input::Reroute);
        }
        inputs
    }

    pub(super) fn has_input(&self) -> bool {
        let forwarder = &self.forwarder;
        let has_taken = || matches!(&forwarder.take, Some(take) if take.is_read);
        let is_free =
            || !forwarder.reports.is_empty() || forwarder.reroute.is_some() || has_taken();
        let is_told = if forwarder.is_rerouting {
            forwarder.rerouted.is_some()
        } else {
            is_free()
        };
        !forwarder.has_ended && (is_told || !self.writer.news.is_empty())
    }

    pub(super) fn can_act(&self) -> bool {
        let forwarder = &self.forwarder;
        let is_time = || forwarder.wakes_at().is_some_and(|at| self.now >= at);
        !forwarder.has_ended && !forwarder.is_rerouting && (forwarder.has_to_act || is_time())
    }

    /// One thing is taken in, and at times what else is there.
    pub(super) fn input(&mut self) {
        loop {
            let inputs = self.inputs();
            if inputs.is_empty() {
                break;
            }
            match self.random.pick(&inputs) {
                Input::News => self.take_in_news(),
                Input::Report => self.take_in_report(),
                Input::Taken => self.take_in_taken(),
                Input::Reroute => self.ask_for_reroute(),
                Input::Rerouted => self.rerouted(),
            }
            self.forwarder.has_to_act = true;
            if self.random.one_in(2) {
                break;
            }
        }
        if self.random.below(4) > 0 && self.can_act() {
            self.act();
        }
    }

    fn take_in_news(&mut self) {
        let Some(committed) = self.writer.news.pop_front() else {
            return;
        };
        if self
            .forwarder
            .take
            .as_ref()
            .is_some_and(|take| take.result.is_some())
        {
            self.tally.saw(Seen::SnapshotBehindNews);
        }
        self.story.mark(committed.acks.len() as u64);
        self.story.tell(|| {
            let (acks, fresh) = (committed.acks.len(), committed.fresh.len());
            format!("the flow hears of {acks} acks and {fresh} events")
        });
        self.judge.heard(&committed.acks);
        let now = self.flow_now();
        self.forwarder.flow.committed(committed, now);
    }

    fn take_in_report(&mut self) {
        let Some(report) = self.forwarder.reports.pop_front() else {
            return;
        };
        self.story.tell(|| format!("the flow hears {report:?}"));
        match &report {
            Report::Done(window, outcomes) => {
                self.story.mark(*window);
                self.judge.told(*window, outcomes);
                self.count(outcomes);
            }
            Report::Up(link) | Report::Unblocked(link) => self.judge.told_of(*link, true),
            Report::Down(link) | Report::Blocked(link) => self.judge.told_of(*link, false),
            Report::Progress(_) => {}
        }
        let now = self.flow_now();
        self.forwarder
            .flow
            .reported(report, now, Timestamp::default());
    }

    fn count(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            self.tally.saw(match outcome {
                Outcome::Delivered => Seen::Delivered,
                Outcome::Returned(_) => Seen::Returned,
                Outcome::Nacked => Seen::Nacked,
                Outcome::Unknown => Seen::Unknown,
                Outcome::ChannelClosed(..) => continue,
            });
        }
    }

    fn take_in_taken(&mut self) {
        let Some(result) = self.forwarder.take.take().and_then(|take| take.result) else {
            return;
        };
        self.story.tell(|| {
            let runs = result.iter().flat_map(|taken| &taken.runs);
            let runs: Vec<Vec<_>> = runs
                .map(|run| run.events.iter().map(|held| held.seq).collect())
                .collect();
            format!("the flow gets what it took: {runs:?}")
        });
        let now = self.flow_now();
        self.forwarder.flow.taken(result.ok(), now);
    }

    fn ask_for_reroute(&mut self) {
        if let Some(routing) = self.forwarder.reroute.take() {
            self.forwarder.is_rerouting = true;
            self.writer.inbox.push_back(Request::SetRouting(routing));
        }
    }

    fn rerouted(&mut self) {
        self.forwarder.is_rerouting = false;
        let is_done = self.forwarder.rerouted.take() == Some(true);
        while !self.writer.news.is_empty() {
            self.take_in_news();
        }
        if is_done {
            self.story.tell(|| "the flow forgets".into());
            self.forwarder.flow.forget();
            self.forwarder.flow.behind(self.disk.routes());
        }
    }

    /// The snapshot is made, at any time after it was asked for.
    pub(super) fn snapshot(&mut self) {
        let followers_max = self.random.index(4);
        let fails = std::mem::take(&mut self.take_fails);
        let Some(take) = &mut self.forwarder.take else {
            return;
        };
        if fails {
            self.tally.saw(Seen::TakeFailed);
            take.result = Some(Err(Unreadable));
            return;
        }
        let is_ahead = matches!(
            self.writer.stage,
            Stage::Answering(_) | Stage::HandingOver(_)
        );
        if is_ahead || !self.writer.news.is_empty() {
            self.tally.saw(Seen::SnapshotAheadOfNews);
        }
        let taken = self.disk.take(&take.request, followers_max, &self.maker);
        self.story
            .tell(|| format!("a take from route {}", take.request.route_id));
        take.result = Some(Ok(taken));
    }

    pub(super) fn can_read(&self) -> bool {
        let take = self.forwarder.take.as_ref();
        take.is_some_and(|take| take.result.is_some() && !take.is_read)
    }

    pub(super) fn read(&mut self) {
        if let Some(take) = &mut self.forwarder.take {
            take.is_read = true;
        }
    }

    /// Has it ended? Else it carries out everything the flow wants.
    pub(super) fn act(&mut self) {
        let has_ended = self.has_ended();
        self.forwarder.has_to_act = false;
        self.forwarder.acted_at = self.now;
        let mut changes = Vec::new();
        let now = self.flow_now();
        while let Some(action) = self.forwarder.flow.next_action(now, Timestamp::default()) {
            match action {
                Action::Publish {
                    window,
                    link,
                    events,
                    ..
                } => self.publish(window, link, events),
                Action::Take(request) => {
                    assert!(self.forwarder.take.is_none(), "two takes at a time");
                    self.story.mark(request.events_max as u64);
                    self.forwarder.take = Some(Take {
                        request,
                        result: None,
                        is_read: false,
                    });
                }
                Action::Change(change) => {
                    self.changed(&change);
                    changes.push(change);
                }
                Action::Reconnect(link, reason) => {
                    self.judge.gives_up(link, now);
                    self.tally.saw(Seen::ConfirmTimeout);
                    self.story.tell(|| format!("reconnect {link:?}: {reason}"));
                    self.link(link).commands.push_back(Command::Reconnect);
                }
            }
        }
        if self.forwarder.flow.waiting.is_some() {
            self.tally.saw(Seen::WaitedForRoom);
        }
        if !changes.is_empty() {
            self.writer.inbox.push_back(Request::Changes(changes));
        }
        if self.story.steps.is_multiple_of(AUDIT) {
            self.audit();
        }
        if has_ended {
            self.forwarder.has_ended = true;
            self.ended();
        }
    }

    fn publish(&mut self, window: u64, link: Link, events: Vec<Held>) {
        self.story.mark(window);
        self.story.tell(|| {
            let seqs: Vec<_> = events.iter().map(|held| held.seq).collect();
            format!("window {window} on {link:?}: {seqs:?}")
        });
        assert!(
            !self.forwarder.is_halted,
            "window {window} goes out after the halt"
        );
        let now = self.flow_now();
        let repeated = self.judge.published(window, link, &events, &self.disk, now);
        for _ in 0..repeated {
            self.tally.saw(Seen::PublishedAgain);
        }
        if link == Link::Probe {
            self.tally.saw(Seen::Probed);
        }
        let task = self.link(link);
        task.commands.push_back(Command::Publish(window, events));
    }

    fn changed(&mut self, change: &Change) {
        self.story.mark(1);
        self.story.tell(|| format!("{change:?}"));
        self.judge.changed(change, &self.disk);
        if let Change::Defer {
            condemned: Some(condemned),
            ..
        } = change
        {
            self.tally.saw(match condemned.reason {
                Reason::TooLarge => Seen::CondemnedTooLarge,
                Reason::Damaged => Seen::CondemnedDamaged,
                _ => Seen::CondemnedRefused,
            });
        }
        if let Change::Settle {
            settlement: crate::journal::Settlement::DeadLettered(_),
            ..
        } = change
        {
            self.tally.saw(Seen::DeadLettered);
        }
    }

    fn has_ended(&self) -> bool {
        let forwarder = &self.forwarder;
        if forwarder.is_halted {
            return forwarder.flow.is_settled();
        }
        let is_hopeless = !forwarder.flow.is_connected() && forwarder.flow.is_settled();
        forwarder.is_draining && (forwarder.flow.is_idle() || is_hopeless)
    }

    /// The process is gone; what was not committed with it.
    pub(super) fn crash(&mut self) {
        self.story.tell(|| "crash".into());
        if self.forwarder.is_rerouting {
            self.tally.saw(Seen::CrashWhileRerouting);
        }
        if self.now - self.forwarder.began < 50 {
            self.tally.saw(Seen::CrashAgainSoon);
        }
        self.crash_writer();
        self.boot();
    }

    /// A new process on the same disk.
    pub(super) fn boot(&mut self) {
        for link in LINKS {
            self.crash_link(link);
        }
        self.stopping = None;
        // Without room it would not start.
        self.writer.is_disk_full = false;
        self.disk.forget_delays();
        if self.reroutes && self.random.one_in(4) {
            self.disk.reroute(Routing::draw(&mut self.random));
        }
        self.judge.new_life();
        self.take_fails = false;
        let seed = self.random.next();
        self.forwarder = Forwarder::new(&self.scenario, seed, self.now);
        self.forwarder.flow.behind(self.disk.routes());
    }
}

pub(super) fn leave_body(held: &mut Held) {
    held.is_whole = false;
    held.event = Arc::new(Event {
        body: Bytes::new(),
        ..Event::clone(&held.event)
    });
}
