//! Takes events from the journal to the broker. Knows the rules: order, windows, retries, dead
//! letters.
//!
//! [`flow`] decides, and is pure; the loop here carries out what it decides and tells it what
//! happened. It never waits for the disk or the broker: takes and windows are under way while it
//! goes on.

pub mod flow;
mod letters;
mod observe;
mod refusal_log;
pub mod retry;

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
use crate::failpoint::{self, Place};
use crate::journal::{Change, Committed, Journal, TakeError, Taken};
use crate::rabbitmq::{Publisher, Report, Window};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{RetryingStatus, RouteStatus};
use crate::webhook::routing::Routing;

/// At least so long between two looks at the clock, should a deadline lie in the past.
const PATIENCE: Duration = Duration::from_millis(10);
/// Reports and commits looked at before anything else is done.
const BATCH_MAX: usize = 64;

/// What the forwarder works with.
pub struct Forwarder {
    /// Decides.
    pub flow: Flow,
    /// Where events come from and changes go to.
    pub journal: Journal,
    /// Where events go to.
    pub publisher: Publisher,
    /// The configuration's routes.
    pub routing: Arc<ArcSwap<Routing>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Told about routes whenever one changes.
    pub routes: watch::Sender<Vec<RouteStatus>>,
    /// Told about events that were refused and are tried again.
    pub retrying: watch::Sender<Vec<RetryingStatus>>,
}

/// What the forwarder is told.
pub struct Inputs {
    /// By the journal.
    pub committed: mpsc::Receiver<Committed>,
    /// By the publisher.
    pub reports: mpsc::Receiver<Report>,
    /// By an operator: follow these routes from now on.
    pub reroutes: mpsc::Receiver<Reroute>,
    /// Publish what can be published, then end.
    pub drain: CancellationToken,
    /// Publish nothing more; end when what is on its way has an outcome.
    pub halt: CancellationToken,
}

/// New routes, and who wants to know when they are in use.
pub struct Reroute {
    /// The new routes.
    pub routing: Arc<Routing>,
    /// Answered when every unsettled event follows them.
    pub done: oneshot::Sender<Result<(), crate::journal::AppendError>>,
}

type Take = Pin<Box<dyn Future<Output = Result<Taken, TakeError>> + Send>>;

struct Running {
    flow: Flow,
    journal: Journal,
    publisher: Publisher,
    routing: Arc<ArcSwap<Routing>>,
    observer: Observer,
    began: Instant,
    take: Option<Take>,
}

impl Forwarder {
    /// Forwards until it is told to end and nothing more can be done.
    ///
    /// # Errors
    /// The journal cannot be read at the start.
    pub async fn run(self, mut inputs: Inputs) -> Result<(), TakeError> {
        let mut running = Running {
            flow: self.flow,
            journal: self.journal,
            publisher: self.publisher,
            routing: self.routing,
            observer: Observer::new(self.metrics, self.routes, self.retrying),
            began: Instant::now(),
            take: None,
        };
        running.flow.behind(running.journal.routes()?);
        while !running.has_ended(&inputs) {
            running.act();
            running.wait(&mut inputs).await;
        }
        running.act();
        Ok(())
    }
}

impl Running {
    fn has_ended(&self, inputs: &Inputs) -> bool {
        if inputs.halt.is_cancelled() {
            return self.flow.is_settled();
        }
        let is_hopeless = !self.flow.is_connected() && self.flow.is_settled();
        inputs.drain.is_cancelled() && (self.flow.is_idle() || is_hopeless)
    }

    /// Waits until something happens, then takes what else has happened.
    async fn wait(&mut self, inputs: &mut Inputs) {
        let deadline = self.deadline();
        tokio::select! {
            Some(committed) = inputs.committed.recv() => self.committed(committed),
            Some(report) = inputs.reports.recv() => self.reported(report),
            taken = next(&mut self.take) => self.taken(taken),
            Some(reroute) = inputs.reroutes.recv() => self.reroute(reroute, &mut inputs.committed).await,
            () = sleep_until(deadline) => {}
            () = inputs.drain.cancelled(), if !inputs.drain.is_cancelled() => {}
            () = inputs.halt.cancelled(), if !inputs.halt.is_cancelled() => {}
        }
        if inputs.halt.is_cancelled() {
            self.flow.halt();
        }
        for _ in 0..BATCH_MAX {
            let Ok(committed) = inputs.committed.try_recv() else {
                break;
            };
            self.committed(committed);
        }
        for _ in 0..BATCH_MAX {
            let Ok(report) = inputs.reports.try_recv() else {
                break;
            };
            self.reported(report);
        }
    }

    /// Carries out everything the flow wants.
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
                } => {
                    self.observer.published(window, &events);
                    let routing = self.routing.load();
                    let messages = events
                        .iter()
                        .map(|held| letters::message(held, &routing))
                        .collect();
                    self.publisher.publish(Window {
                        id: window,
                        link,
                        ensure_exchange,
                        messages,
                    });
                }
                Action::Take(request) => {
                    let journal = self.journal.clone();
                    self.take = Some(Box::pin(async move { journal.take(request).await }));
                }
                Action::Change(change) => changes.push(change),
                Action::Reconnect(link, reason) => self.publisher.reconnect(link, reason),
            }
        }
        self.change(changes);
        self.observer.look(&self.flow);
    }

    fn change(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            Observer::changed(&changes);
            failpoint::pass(Place::ForwarderSettleBefore);
            self.journal.change(changes);
            failpoint::pass(Place::ForwarderSettleAfter);
        }
    }

    fn committed(&mut self, committed: Committed) {
        let now = self.now();
        self.flow.committed(committed, now);
    }

    fn reported(&mut self, report: Report) {
        self.observer.reported(&report);
        let now = self.now();
        self.flow.reported(report, now, Timestamp::now());
    }

    fn taken(&mut self, taken: Result<Taken, TakeError>) {
        self.take = None;
        let taken = taken.inspect_err(|error| {
            tracing::error!(%error, source = ?std::error::Error::source(error), "taking events failed; trying again");
        });
        let now = self.now();
        self.flow.taken(taken.ok(), now);
    }

    /// What is committed meanwhile is taken in before it is forgotten: it may have old routes, and
    /// the journal's thread must not wait for this one while this one waits for it.
    async fn reroute(&mut self, reroute: Reroute, committed: &mut mpsc::Receiver<Committed>) {
        let journal = self.journal.clone();
        let mut result = std::pin::pin!(journal.set_routing(reroute.routing.clone()));
        let result = loop {
            tokio::select! {
                result = &mut result => break result,
                Some(committed) = committed.recv() => self.committed(committed),
            }
        };
        while let Ok(committed) = committed.try_recv() {
            self.committed(committed);
        }
        if result.is_ok() {
            self.routing.store(reroute.routing);
            self.flow.forget();
            match self.journal.routes() {
                Ok(routes) => self.flow.behind(routes),
                Err(error) => tracing::error!(%error, "reading the routes failed"),
            }
        }
        // Whoever asked has perhaps gone.
        let _ = reroute.done.send(result);
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn deadline(&self) -> Instant {
        let far = Duration::from_hours(1);
        let deadline = self.flow.next_deadline().map_or(far, Duration::from_millis);
        (self.began + deadline).max(Instant::now() + PATIENCE)
    }
}

/// The outcome of a take, if one is under way.
async fn next(take: &mut Option<Take>) -> Result<Taken, TakeError> {
    match take {
        Some(take) => take.await,
        None => std::future::pending().await,
    }
}
