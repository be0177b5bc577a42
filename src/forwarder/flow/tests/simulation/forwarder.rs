//! Runs the real loop, [`Running`], with models of the modules around it. It is polled only after
//! an input has woken it, or at the time that it sleeps until.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Weak;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::audit::audit;
use super::coverage::Seen;
use super::disk::Routing;
use super::links::{Command, LINKS};
use super::scenario::{Scenario, window};
use super::trace::Trace;
use super::writer::{Stage, WriterRequest};
use super::{Simulation, World};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::forwarder::flow::{Flow, millis};
use crate::forwarder::{Inputs, Modules, Pending, Reroute, Running, SLEEP_MAX};
use crate::journal::{
    Committed, FetchRequest, Fetched, FinalState, JournalError, QueuedEvent, RouteId, Transition,
    TransitionApplied, WriteError,
};
use crate::rabbitmq::{Link, Outcome, PublisherEvent};
use crate::settings;
use crate::telemetry::status::Pause;
use crate::webhook::DeadLetterReason;

/// Publisher events that can wait for the loop. No scenario has that many.
const REPORTS_MAX: usize = 1 << 16;
/// The flow's internal state is audited at one step in this many.
const AUDIT: u64 = 4;

type Reply<T, E> = oneshot::Sender<Result<T, E>>;

type Run = Pin<Box<dyn Future<Output = Result<(), JournalError>>>>;

/// A process, as far as the forwarder is concerned.
pub(super) struct Forwarder {
    /// `None` while it is polled and when it has ended.
    pub(super) run: Option<Run>,
    woken: Arc<Woken>,
    wakes_at: Option<u64>,
    began: u64,
    /// When the main connection became usable; `None` while it is not.
    pub(super) connected_since: Option<u64>,
    /// The state of the flow after the last round: whether it is idle, whether it has no state of
    /// any event, and the routes with an open circuit breaker.
    pub(super) is_idle: bool,
    pub(super) is_empty: bool,
    pub(super) suspects: Vec<RouteId>,
    committed: mpsc::Sender<Committed>,
    /// The changes in the commits that the loop has not received yet.
    pub(super) applied: VecDeque<Vec<TransitionApplied>>,
    pub(super) reports: mpsc::Sender<PublisherEvent>,
    reroutes: mpsc::Sender<Reroute>,
    /// The new routes of a reload, and its result.
    pub(super) reload: Option<(Routing, oneshot::Receiver<Result<(), WriteError>>)>,
    pub(super) drain: CancellationToken,
    pub(super) halt: CancellationToken,
    pub(super) take: Option<Fetch>,
}

pub(super) struct Fetch {
    request: FetchRequest,
    reply: Reply<Fetched, JournalError>,
    /// The content of the snapshot; `None` until it was taken.
    pub(super) result: Option<Result<Fetched, JournalError>>,
}

/// Whether the loop has been woken since it was polled.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Forwarder {
    pub(super) fn new(
        world: Weak<RefCell<World>>,
        scenario: &Scenario,
        pauses: watch::Receiver<Vec<Pause>>,
        seed: u64,
        now: u64,
    ) -> Self {
        let (min, max) = (Duration::from_millis(20), Duration::from_millis(200));
        let flow = Flow::new(scenario.limits(), Backoff::new(min, max, seed));
        let (committed, committed_receiver) = mpsc::channel(scenario.handover_max);
        let (reports, reports_receiver) = mpsc::channel(REPORTS_MAX);
        let (reroutes, reroutes_receiver) = mpsc::channel(1);
        let (drain, halt) = (CancellationToken::new(), CancellationToken::new());
        let run = Running::new(flow, Models(world)).run(Inputs {
            committed: committed_receiver,
            reports: reports_receiver,
            reroutes: reroutes_receiver,
            pauses,
            drain: drain.clone(),
            halt: halt.clone(),
        });
        Self {
            run: Some(Box::pin(run)),
            woken: Arc::new(Woken(true.into())),
            wakes_at: None,
            began: now,
            connected_since: None,
            is_idle: false,
            is_empty: false,
            suspects: Vec::new(),
            committed,
            applied: VecDeque::new(),
            reports,
            reroutes,
            reload: None,
            drain,
            halt,
            take: None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.run.is_none()
    }

    pub(super) fn has_room_for_commits(&self) -> bool {
        self.committed.capacity() > 0 || self.has_ended()
    }

    /// Hands a commit over, unless the loop has ended.
    pub(super) fn hand_over(&mut self, committed: Committed) {
        if !self.has_ended() {
            self.applied.push_back(committed.applied.clone());
            let sent = self.committed.try_send(committed);
            sent.expect("the channel has room");
        }
    }

    /// Asks for new routes, unless the last request has no result yet.
    pub(super) fn reload(&mut self, new: Routing) {
        if self.reload.is_some() {
            return;
        }
        let (done, result) = oneshot::channel();
        // The journal of the simulation uses `new` instead.
        let routing = settings::routing(&Config::default()).expect("the defaults are valid");
        let routing = Arc::new(routing);
        if self.reroutes.try_send(Reroute { routing, done }).is_ok() {
            self.reload = Some((new, result));
        }
    }

    /// When it wakes up if there is no input before.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        self.wakes_at.filter(|_| !self.has_ended())
    }

    pub(super) fn is_awake(&self, now: u64) -> bool {
        let is_woken = self.woken.0.load(Ordering::Relaxed);
        !self.has_ended() && (is_woken || self.wakes_at.is_some_and(|at| now >= at))
    }
}

/// The modules around the loop.
struct Models(Weak<RefCell<World>>);

impl Models {
    fn world<T>(&self, access: impl FnOnce(&mut World) -> T) -> T {
        let world = self.0.upgrade().expect("the world polls the loop");
        let mut world = world.borrow_mut();
        world.heard();
        access(&mut world)
    }
}

impl Modules for Models {
    fn elapsed(&self) -> Duration {
        self.world(|world| Duration::from_millis(world.flow_now()))
    }

    fn sleep_until(&self, elapsed: Duration) -> impl Future<Output = ()> {
        poll_fn(move |_| {
            self.world(|world| {
                let at = world.forwarder.began + millis(elapsed);
                let is_timer = at < world.now + millis(SLEEP_MAX);
                world.forwarder.wakes_at = is_timer.then_some(at);
                if world.now < at {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
        })
    }

    fn publish(&mut self, window: u64, link: Link, _: bool, events: Vec<QueuedEvent>) {
        self.world(|world| world.publish(window, link, events));
    }

    fn reconnect(&mut self, link: Link, reason: String) {
        self.world(|world| {
            world.judge.gives_up(link, world.flow_now());
            world.coverage.saw(Seen::ConfirmTimeout);
            world.trace.log(|| format!("reconnect {link:?}: {reason}"));
            world.link(link).commands.push_back(Command::Reconnect);
        });
    }

    fn reported(&mut self, report: &PublisherEvent) {
        self.world(|world| world.reported(report));
    }

    fn fetch(&mut self, request: FetchRequest) -> Pending<Fetched, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.world(|world| {
            assert!(world.forwarder.take.is_none(), "two fetches at a time");
            world.trace.mark(request.events_max as u64);
            world.forwarder.take = Some(Fetch {
                request,
                reply,
                result: None,
            });
        });
        Box::pin(async move { answer.await.expect("every fetch ends") })
    }

    fn change(&mut self, changes: Vec<Transition>) {
        self.world(|world| {
            for change in &changes {
                world.changed(change);
            }
            world
                .writer
                .inbox
                .push_back(WriterRequest::Changes(changes));
        });
    }

    fn set_routing(&mut self, _: Arc<crate::webhook::routing::Routing>) -> Pending<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.world(|world| {
            let reload = world.forwarder.reload.as_ref();
            let (routing, _) = reload.expect("a reload asked for it");
            let request = WriterRequest::SetRouting(*routing, reply);
            world.writer.inbox.push_back(request);
        });
        Box::pin(async move { answer.await.expect("the journal answers") })
    }

    fn routes(&self) -> Result<Vec<RouteId>, JournalError> {
        Ok(self.world(|world| world.disk.routes()))
    }

    fn publish_status(&mut self, flow: &Flow) {
        self.world(|world| {
            if world.trace.steps.is_multiple_of(AUDIT) {
                audit(flow);
            }
            if flow.blocked_on_memory.is_some() {
                world.coverage.saw(Seen::WaitedForRoom);
            }
            let forwarder = &mut world.forwarder;
            let since = forwarder.connected_since.unwrap_or(world.now);
            forwarder.connected_since = flow.is_connected().then_some(since);
            forwarder.is_idle = flow.is_idle();
            forwarder.is_empty = flow.has_nothing_outstanding()
                && flow.queues.is_empty()
                && flow.queue_ids.is_empty()
                && flow.seqs.is_empty();
            let suspects = flow.routes.iter();
            let suspects = suspects.filter(|(_, route)| route.breaker.is_some());
            forwarder.suspects = suspects.map(|(route_id, _)| *route_id).collect();
        });
    }
}

impl Simulation {
    /// Lets the loop process its inputs and act, until it waits again or has ended.
    pub(super) fn forward(&self) {
        let (run, waker) = {
            let mut world = self.world();
            let forwarder = &mut world.forwarder;
            forwarder.woken.0.store(false, Ordering::Relaxed);
            forwarder.wakes_at = None;
            let waker = Waker::from(Arc::clone(&forwarder.woken));
            (forwarder.run.take(), waker)
        };
        let mut run = run.expect("only a loop that has not ended is awake");
        let ended = run.as_mut().poll(&mut Context::from_waker(&waker));
        let mut world = self.world();
        world.heard();
        let forwarder = &mut world.forwarder;
        if let Some((_, result)) = &mut forwarder.reload {
            match result.try_recv() {
                Ok(_) => forwarder.reload = None,
                Err(error) => assert_eq!(error, TryRecvError::Empty, "a reload has no result"),
            }
        }
        match ended {
            Poll::Pending => forwarder.run = Some(run),
            Poll::Ready(ended) => {
                ended.expect("the journal can be read");
                world.ended();
            }
        }
    }
}

impl World {
    fn flow_now(&self) -> u64 {
        self.now - self.forwarder.began
    }

    /// Records the commits that the loop has received.
    fn heard(&mut self) {
        let forwarder = &mut self.forwarder;
        let left = forwarder.committed.max_capacity() - forwarder.committed.capacity();
        while forwarder.applied.len() > left
            && let Some(applied) = forwarder.applied.pop_front()
        {
            let take = forwarder.take.as_ref();
            if take.is_some_and(|take| take.result.is_some()) {
                self.coverage.saw(Seen::SnapshotBehindCommit);
            }
            self.trace.mark(applied.len() as u64);
            self.trace
                .log(|| format!("the flow hears of {} applied", applied.len()));
            self.judge.heard(&applied);
        }
    }

    fn publish(&mut self, window: u64, link: Link, events: Vec<QueuedEvent>) {
        self.trace.mark(window);
        self.trace.log(|| {
            let seqs: Vec<_> = events.iter().map(|queued| queued.seq).collect();
            format!("window {window} on {link:?}: {seqs:?}")
        });
        assert!(
            !self.forwarder.halt.is_cancelled(),
            "window {window} is published after the halt"
        );
        let now = self.flow_now();
        let repeated = self.judge.published(window, link, &events, &self.disk, now);
        for _ in 0..repeated {
            self.coverage.saw(Seen::PublishedAgain);
        }
        if link == Link::Probe {
            self.coverage.saw(Seen::Probed);
        }
        let task = self.link(link);
        task.commands.push_back(Command::Publish(window, events));
    }

    fn reported(&mut self, report: &PublisherEvent) {
        self.trace.log(|| format!("the flow hears {report:?}"));
        match report {
            PublisherEvent::Done(window, outcomes) => {
                self.trace.mark(*window);
                self.judge.told(*window, outcomes);
                for outcome in outcomes {
                    self.coverage.saw(match outcome {
                        Outcome::Delivered => Seen::Delivered,
                        Outcome::Returned(_) => Seen::Returned,
                        Outcome::Nacked => Seen::Nacked,
                        Outcome::Unknown => Seen::Unknown,
                        Outcome::ChannelClosed { .. } => continue,
                    });
                }
            }
            PublisherEvent::Up(link) | PublisherEvent::Unblocked(link) => {
                self.judge.told_of(*link, true);
            }
            PublisherEvent::Down(link) | PublisherEvent::Blocked(link) => {
                self.judge.told_of(*link, false);
            }
            PublisherEvent::Progress(_) => {}
        }
    }

    fn changed(&mut self, change: &Transition) {
        self.trace.mark(1);
        self.trace.log(|| format!("{change:?}"));
        self.judge.changed(change, &self.disk);
        self.coverage.saw(match change {
            Transition::Complete {
                final_state: FinalState::DeadLettered(_),
                ..
            } => Seen::DeadLettered,
            Transition::Reschedule {
                dead_letter_cause: Some(cause),
                ..
            } => match cause.reason {
                DeadLetterReason::TooLarge => Seen::CondemnedTooLarge,
                DeadLetterReason::Damaged => Seen::CondemnedDamaged,
                _ => Seen::CondemnedRefused,
            },
            _ => return,
        });
    }

    /// Takes the snapshot of the fetch, at any time after the request.
    pub(super) fn snapshot(&mut self) {
        let followers_max = self.random.index(4);
        let fails = std::mem::take(&mut self.take_fails);
        let is_ahead = matches!(
            self.writer.stage,
            Stage::Answering(..) | Stage::HandingOver(_)
        );
        let is_ahead = is_ahead || !self.forwarder.applied.is_empty();
        let Some(take) = &mut self.forwarder.take else {
            return;
        };
        if fails {
            self.coverage.saw(Seen::TakeFailed);
            take.result = Some(Err(JournalError::Locked("a program".into())));
            return;
        }
        if is_ahead {
            self.coverage.saw(Seen::SnapshotAheadOfCommit);
        }
        self.trace
            .log(|| format!("a fetch from route {}", take.request.route_id));
        let fetched = self.disk.fetch(&take.request, followers_max);
        take.result = Some(Ok(fetched));
    }

    /// Ends the fetch, which may be long after its snapshot.
    pub(super) fn read(&mut self) {
        if let Some(take) = self.forwarder.take.take()
            && let Some(result) = take.result
        {
            self.trace.log(|| {
                let batches = result.iter().flat_map(|fetched| &fetched.batches);
                let batches: Vec<Vec<_>> = batches
                    .map(|batch| batch.events.iter().map(|queued| queued.seq).collect())
                    .collect();
                format!("the fetch returns {batches:?}")
            });
            let received = take.reply.send(result);
            let is_awaited = received.is_ok() || self.forwarder.has_ended();
            assert!(is_awaited, "the loop has forgotten its fetch");
        }
    }

    /// Crashes the process. What was not committed is lost.
    pub(super) fn crash(&mut self) {
        self.trace.log(|| "crash".into());
        if self.forwarder.reload.is_some() {
            self.coverage.saw(Seen::CrashWhileRerouting);
        }
        if self.now - self.forwarder.began < 50 {
            self.coverage.saw(Seen::CrashAgainSoon);
        }
        self.crash_writer();
        self.boot();
    }

    /// Starts a new process on the same disk.
    pub(super) fn boot(&mut self) {
        for link in LINKS {
            self.crash_link(link);
        }
        self.stopping = None;
        // With a full disk it would not start.
        self.writer.is_disk_full = false;
        if self.disk.tail().is_some() {
            self.coverage.saw(Seen::CrashWithTail);
        }
        if self.random.one_in(4) {
            // Another release may have a window of another size.
            self.disk.window_max = window(&mut self.random, self.scenario.part_max);
        }
        self.disk.forget_delays();
        if self.reroutes && self.random.one_in(4) {
            let routing = Routing::draw(&mut self.random);
            self.disk.reroute(routing, self.now);
        } else {
            self.disk.read_again(self.now);
        }
        self.judge.new_life();
        self.take_fails = false;
        let seed = self.random.next();
        let pauses = self.pauses.subscribe();
        self.forwarder = Forwarder::new(self.this.clone(), &self.scenario, pauses, seed, self.now);
    }
}

#[test]
fn an_idle_loop_sleeps_until_an_input_wakes_it() {
    let simulation = Simulation::new(0, Trace::default());
    simulation.forward();
    let uptime = 2 * millis(SLEEP_MAX);
    let up = PublisherEvent::Up(Link::Main);
    simulation.world().now = uptime;
    simulation.world().report(up);
    assert!(simulation.world().forwarder.is_awake(uptime));
    simulation.forward();
    assert_eq!(simulation.world().forwarder.wakes_at(), None);
}
