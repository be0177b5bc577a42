//! Forwards events from the journal to the broker. Implements the rules: order, publish windows,
//! retries, dead letters.
//!
//! [`flow`] makes the decisions and is pure. The loop here carries out its actions and passes
//! results back to it. The loop does not wait for the disk or the broker: it continues while a fetch
//! and publish windows are in progress. There are two exceptions: during a reroute it only receives
//! commits, and at the start and after a reroute it reads the list of routes from the journal.

pub mod flow;
mod messages;
mod observe;
mod refusal_log;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::flow::{Action, Flow, Millis};
use self::observe::Observer;
use crate::failpoint::{self, Failpoint};
use crate::journal::{
    Committed, FetchRequest, Fetched, Journal, JournalError, QueuedEvent, RouteId, Transition,
    WriteError,
};
use crate::rabbitmq::{Link, PublishWindow, Publisher, PublisherEvent};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{Pause, RetryingStatus, RouteStatus};
use crate::telemetry::traces::Traces;
use crate::webhook::routing::Routing;

/// The shortest sleep of the loop, even if a deadline has already passed.
const SLEEP_MIN: Duration = Duration::from_millis(10);
/// The sleep of the loop when the flow has no deadline.
const SLEEP_MAX: Duration = Duration::from_hours(1);
/// Commits, and publisher events, that are processed in one round before the loop acts.
const BATCH_MAX: usize = 64;

/// The forwarder's state and the modules that it connects.
pub struct Forwarder {
    /// The state machine that decides what to do.
    pub flow: Flow,
    /// Source of the events and destination of their state changes.
    pub journal: Journal,
    /// Destination of the messages.
    pub publisher: Publisher,
    /// The routes of the current configuration.
    pub routing: Arc<ArcSwap<Routing>>,
    /// Metrics that the forwarder updates.
    pub metrics: Arc<Metrics>,
    /// Receives each publish attempt.
    pub traces: Traces,
    /// Receives the states of all routes whenever one changes.
    pub routes: watch::Sender<Vec<RouteStatus>>,
    /// Receives the counts of events that were rejected and are retried, whenever they change.
    pub retrying: watch::Sender<Vec<RetryingStatus>>,
}

/// The channels and tokens that the forwarder listens to.
pub struct Inputs {
    /// From the journal: the results of each commit.
    pub committed: mpsc::Receiver<Committed>,
    /// From the publisher: connection states and outcomes of windows.
    pub reports: mpsc::Receiver<PublisherEvent>,
    /// From a reload: the new routes.
    pub reroutes: mpsc::Receiver<Reroute>,
    /// From operators: what is paused.
    pub pauses: watch::Receiver<Vec<Pause>>,
    /// When cancelled: publish as many pending events as possible, then end.
    pub drain: CancellationToken,
    /// When cancelled: publish nothing more, and end when every message in flight has an outcome
    /// and every change is committed.
    pub halt: CancellationToken,
}

/// A request to change the routes.
pub struct Reroute {
    /// The new routes.
    pub routing: Arc<Routing>,
    /// Answered when every pending event has its new route.
    pub done: oneshot::Sender<Result<(), WriteError>>,
}

/// A journal operation in progress, which the loop awaits together with its inputs.
type Pending<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The modules around the loop, and its clock. The simulation has models of them.
trait Modules {
    /// The time since the start of the loop.
    fn elapsed(&self) -> Duration;
    /// Sleeps until this time since the start of the loop.
    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()>;
    fn publish(&mut self, window: u64, link: Link, ensure_exchange: bool, events: Vec<QueuedEvent>);
    fn reconnect(&mut self, link: Link, reason: String);
    /// Receives each publisher event before the flow does.
    fn reported(&mut self, report: &PublisherEvent);
    fn fetch(&mut self, request: FetchRequest) -> Pending<Fetched, JournalError>;
    fn change(&mut self, changes: Vec<Transition>);
    fn set_routing(&mut self, routing: Arc<Routing>) -> Pending<(), WriteError>;
    /// The routes that have heads in the journal.
    fn routes(&self) -> Result<Vec<RouteId>, JournalError>;
    /// Called at the end of each round: passes the state of the flow to the journal and the metrics.
    fn publish_status(&mut self, flow: &Flow);
}

struct RealModules {
    journal: Journal,
    publisher: Publisher,
    routing: Arc<ArcSwap<Routing>>,
    observer: Observer,
    began: Instant,
}

struct Running<M> {
    flow: Flow,
    modules: M,
    fetch: Option<Pending<Fetched, JournalError>>,
    is_draining: bool,
}

impl Forwarder {
    /// Forwards events until `drain` or `halt` is cancelled and nothing more can be done.
    ///
    /// # Errors
    /// The journal could not be read at the start.
    pub async fn run(self, inputs: Inputs) -> Result<(), JournalError> {
        let modules = RealModules {
            journal: self.journal,
            publisher: self.publisher,
            routing: self.routing,
            observer: Observer::new(self.metrics, self.traces, self.routes, self.retrying),
            began: Instant::now(),
        };
        Running::new(self.flow, modules).run(inputs).await
    }
}

impl Modules for RealModules {
    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep_until(&self, elapsed: Duration) -> impl Future<Output = ()> {
        sleep_until(self.began + elapsed)
    }

    fn publish(&mut self, id: u64, link: Link, ensure_exchange: bool, events: Vec<QueuedEvent>) {
        self.observer.published(id, &events);
        let routing = self.routing.load();
        let message = |queued| messages::message(queued, &routing).into();
        let messages = events.iter().map(message).collect();
        self.publisher.publish(PublishWindow {
            id,
            link,
            ensure_exchange,
            messages,
        });
    }

    fn reconnect(&mut self, link: Link, reason: String) {
        self.publisher.reconnect(link, reason);
    }

    fn reported(&mut self, report: &PublisherEvent) {
        self.observer.reported(report);
    }

    fn fetch(&mut self, request: FetchRequest) -> Pending<Fetched, JournalError> {
        let journal = self.journal.clone();
        Box::pin(async move { journal.fetch(request).await })
    }

    fn change(&mut self, changes: Vec<Transition>) {
        Observer::log_new_dead_letters(&changes);
        failpoint::pass(Failpoint::ForwarderSettleBefore);
        self.journal.change(changes);
        failpoint::pass(Failpoint::ForwarderSettleAfter);
    }

    fn set_routing(&mut self, routing: Arc<Routing>) -> Pending<(), WriteError> {
        let (journal, current) = (self.journal.clone(), Arc::clone(&self.routing));
        Box::pin(async move {
            journal.set_routing(Arc::clone(&routing)).await?;
            current.store(routing);
            Ok(())
        })
    }

    fn routes(&self) -> Result<Vec<RouteId>, JournalError> {
        self.journal.routes()
    }

    fn publish_status(&mut self, flow: &Flow) {
        self.journal.set_connected(flow.is_connected());
        self.observer.publish_status(flow);
    }
}

impl<M: Modules> Running<M> {
    fn new(flow: Flow, modules: M) -> Self {
        Self {
            flow,
            modules,
            fetch: None,
            is_draining: false,
        }
    }

    async fn run(mut self, mut inputs: Inputs) -> Result<(), JournalError> {
        self.set_pauses(&mut inputs.pauses);
        self.flow.mark_needs_fetch(self.modules.routes()?);
        while !self.has_ended() {
            self.act();
            self.wait(&mut inputs).await;
        }
        self.act();
        Ok(())
    }

    fn has_ended(&self) -> bool {
        if self.flow.is_halted() {
            return self.flow.has_nothing_outstanding();
        }
        let is_hopeless = !self.flow.is_connected() && self.flow.has_nothing_outstanding();
        self.is_draining && (self.flow.is_idle() || is_hopeless)
    }

    /// Waits for one input, then processes the commits and reports that have already arrived. The order
    /// of the branches is fixed, because the simulation must be deterministic. It delays neither commits
    /// nor reports, because each round processes both.
    async fn wait(&mut self, inputs: &mut Inputs) {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = inputs.halt.cancelled(), if !self.flow.is_halted() => {}
            () = inputs.drain.cancelled(), if !self.is_draining => {}
            Some(reroute) = inputs.reroutes.recv() => self.reroute(reroute, &mut inputs.committed).await,
            Ok(()) = inputs.pauses.changed() => self.set_pauses(&mut inputs.pauses),
            fetched = next(&mut self.fetch) => self.fetched(fetched),
            Some(committed) = inputs.committed.recv() => self.committed(committed),
            Some(report) = inputs.reports.recv() => self.reported(report),
            () = self.modules.sleep_until(deadline) => {}
        }
        self.is_draining = inputs.drain.is_cancelled();
        if inputs.halt.is_cancelled() {
            self.flow.halt();
        }
        let commits = std::iter::from_fn(|| inputs.committed.try_recv().ok());
        for committed in commits.take(BATCH_MAX) {
            self.committed(committed);
        }
        let reports = std::iter::from_fn(|| inputs.reports.try_recv().ok());
        for report in reports.take(BATCH_MAX) {
            self.reported(report);
        }
    }

    /// Carries out all actions that the flow requests.
    fn act(&mut self) {
        let (now, wall) = (self.now(), Timestamp::now());
        let mut changes = Vec::new();
        while let Some(action) = self.flow.next_action(now, wall) {
            match action {
                Action::Publish {
                    window,
                    link,
                    ensure_exchange,
                    events,
                } => self.modules.publish(window, link, ensure_exchange, events),
                Action::Fetch(request) => self.fetch = Some(self.modules.fetch(request)),
                Action::Transition(change) => changes.push(change),
                Action::Reconnect(link, reason) => self.modules.reconnect(link, reason),
            }
        }
        if !changes.is_empty() {
            self.modules.change(changes);
        }
        self.modules.publish_status(&self.flow);
    }

    fn set_pauses(&mut self, pauses: &mut watch::Receiver<Vec<Pause>>) {
        let pauses = pauses.borrow_and_update().clone();
        self.flow.set_pauses(pauses, Timestamp::now());
    }

    fn committed(&mut self, committed: Committed) {
        let now = self.now();
        self.flow.committed(committed, now);
    }

    fn reported(&mut self, report: PublisherEvent) {
        self.modules.reported(&report);
        let now = self.now();
        self.flow.reported(report, now, Timestamp::now());
    }

    fn fetched(&mut self, fetched: Result<Fetched, JournalError>) {
        self.fetch = None;
        let fetched = fetched.inspect_err(|error| {
            tracing::error!(%error, source = ?std::error::Error::source(error), "journal read failed; retrying");
        });
        let now = self.now();
        self.flow.fetched(fetched.ok(), now);
    }

    /// Changes the routes in the journal, then resets the flow. Commits that arrive meanwhile are
    /// processed before the reset, because their events may still have old routes. They must be
    /// received during the wait, or the journal's thread and this task would wait for each other.
    async fn reroute(&mut self, reroute: Reroute, committed: &mut mpsc::Receiver<Committed>) {
        let mut result = self.modules.set_routing(reroute.routing);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut result => break result,
                Some(committed) = committed.recv() => self.committed(committed),
            }
        };
        while let Ok(committed) = committed.try_recv() {
            self.committed(committed);
        }
        if result.is_ok() {
            self.flow.reset();
            match self.modules.routes() {
                Ok(routes) => self.flow.mark_needs_fetch(routes),
                Err(error) => tracing::error!(%error, "reading routes from the journal failed"),
            }
        }
        // The caller may have dropped the receiver.
        let _ = reroute.done.send(result);
    }

    fn now(&self) -> Millis {
        flow::millis(self.modules.elapsed())
    }

    fn deadline(&self) -> Duration {
        let now = self.modules.elapsed();
        let next = self.flow.next_deadline().map(Duration::from_millis);
        next.unwrap_or(now + SLEEP_MAX).max(now + SLEEP_MIN)
    }
}

/// The result of the fetch in progress; pends if there is none.
async fn next<T, E>(fetch: &mut Option<Pending<T, E>>) -> Result<T, E> {
    match fetch {
        Some(fetch) => fetch.await,
        None => std::future::pending().await,
    }
}
