//! One link's life: connect, serve windows until the connection is lost, say so, connect again.
//! The main link keeps connected; the probe link connects when a window asks for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::board::Board;
use super::connection::{self, ConnectError};
use super::counts;
use super::endpoints::Endpoints;
use super::live::{CallError, Live};
use super::publisher;
use super::topology::Topology;
use super::topology::declare::Declarer;
use super::{Link, Outcome, Report, Settings, Window, version};
use crate::failpoint::{self, Place};
use crate::telemetry::status::CertificateRole;

/// The probe link is closed when nothing was asked of it for that long.
const PROBE_IDLE: Duration = Duration::from_secs(30);
/// How long a polite goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often lapin is asked whether it still is connected, should an event have been missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether the topology still is there.
const REPAIR_INTERVAL: Duration = Duration::from_secs(20);

/// What a [`Publisher`](super::Publisher) asks of a link.
pub(super) enum Command {
    Publish(Window),
    Reconnect(String),
    Redeclare(Topology),
}

/// What both links need.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) declarer: Declarer,
    pub(super) board: Board,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) shutdown: CancellationToken,
}

impl Shared {
    /// Shows what is wrong with the topology, and what has been put right.
    pub(super) fn show_findings(&self) {
        self.board.restored(self.declarer.take_restorations());
        self.board.set_findings(self.declarer.findings());
        self.board.set_retries(self.declarer.topology().retries());
    }

    /// Declares or checks everything on a connection to the broker in use.
    async fn declare(&self, live: &Live) -> Result<(), CallError> {
        let version = if self.declarer.asks_for_version() {
            let url = &self.settings.urls[self.board.endpoint()];
            version::of(url, &self.settings.tls).await
        } else {
            None
        };
        self.declarer.apply(live, version).await
    }
}

/// One of the two links.
pub(super) struct LinkTask {
    pub(super) link: Link,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
}

/// Why a connection is no longer served.
enum Ended {
    Lost(String),
    Idle,
    Shutdown,
}

impl LinkTask {
    /// Runs until shutdown.
    pub(super) async fn run(mut self) {
        match self.link {
            Link::Main => self.run_main().await,
            Link::Probe => self.run_probe().await,
        }
    }

    async fn run_main(&mut self) {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let (min, max) = (settings.reconnect_delay_min, settings.reconnect_delay_max);
        let mut endpoints = Endpoints::new(&settings.urls, min, max, Instant::now());
        loop {
            let (index, due) = endpoints.next(Instant::now());
            let Some(()) = self
                .refuse_windows_during(tokio::time::sleep_until(due))
                .await
            else {
                return;
            };
            shared.board.connecting(index, endpoints.url(index));
            failpoint::pass(Place::RabbitmqConnectBefore);
            let attempt = establish(&shared, index, Link::Main);
            let Some(attempt) = self.refuse_windows_during(attempt).await else {
                return;
            };
            let live = match attempt {
                Ok(live) => live,
                Err(failure) => {
                    debug!(reason = failure.reason, "an attempt to connect failed");
                    endpoints.failed(index, failure.is_refusal, Instant::now());
                    shared.board.failed(endpoints.is_refused(), &failure);
                    continue;
                }
            };
            endpoints.connected(index);
            shared.board.connected();
            failpoint::pass(Place::RabbitmqConnectAfter);
            let since = Instant::now();
            match self.serve(live).await {
                Ended::Lost(reason) => {
                    shared.board.lost(&reason);
                    endpoints.lost(index, since.elapsed(), Instant::now());
                    self.report(Report::Down(Link::Main)).await;
                }
                Ended::Idle | Ended::Shutdown => return,
            }
        }
    }

    async fn run_probe(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let first = tokio::select! {
                () = shared.shutdown.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(Command::Publish(window)) => window,
                    Some(Command::Reconnect(_) | Command::Redeclare(_)) => continue,
                    None => return,
                },
            };
            let attempt = tokio::select! {
                () = shared.shutdown.cancelled() => return,
                attempt = establish(&shared, shared.board.endpoint(), Link::Probe) => attempt,
            };
            match attempt {
                Ok(live) => {
                    let ended = self.serve_from(live, Some(first)).await;
                    if matches!(ended, Ended::Shutdown) {
                        return;
                    }
                    self.report(Report::Down(Link::Probe)).await;
                }
                Err(Failure { reason, .. }) => {
                    debug!(reason, "the probe link could not connect");
                    self.refuse(&first).await;
                    self.refuse_waiting().await;
                }
            }
        }
    }

    /// Waits for something while no window can be taken; `None` at shutdown.
    async fn refuse_windows_during<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let shutdown = self.shared.shutdown.clone();
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                command = self.commands.recv() => match command? {
                    Command::Publish(window) => self.refuse(&window).await,
                    Command::Redeclare(topology) => self.shared.declarer.replace(topology),
                    Command::Reconnect(_) => {}
                },
                value = &mut future => return Some(value),
            }
        }
    }

    async fn refuse_waiting(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Publish(window) = command {
                self.refuse(&window).await;
            }
        }
    }

    async fn refuse(&self, window: &Window) {
        let outcomes = vec![Outcome::Unknown; window.messages.len()];
        self.report(Report::Done(window.id, outcomes)).await;
    }

    async fn report(&self, report: Report) {
        // Fails only when nobody listens any more: the bridge is ending.
        let _ = self.shared.reports.send(report).await;
    }

    async fn serve(&mut self, live: Arc<Live>) -> Ended {
        self.serve_from(live, None).await
    }

    /// Serves windows on a connection; when it returns, every one of them has been reported.
    async fn serve_from(&mut self, live: Arc<Live>, first: Option<Window>) -> Ended {
        let mut windows = JoinSet::new();
        self.report(Report::Up(self.link)).await;
        if let Some(window) = first {
            self.spawn(&mut windows, &live, window);
        }
        let ended = self.serve_until_ended(&live, &mut windows).await;
        let is_ours = matches!(ended, Ended::Shutdown | Ended::Idle);
        let wind_down = async {
            tokio::join!(drain(&mut windows), async {
                if is_ours {
                    part(&live).await;
                }
            });
        };
        if matches!(ended, Ended::Shutdown) {
            // Whoever takes the reports may be gone too.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, wind_down).await;
        } else {
            wind_down.await;
        }
        ended
    }

    async fn serve_until_ended(&mut self, live: &Arc<Live>, windows: &mut JoinSet<()>) -> Ended {
        let mut events = pin!(live.amqp().events_listener());
        if live.amqp().status().blocked() {
            // It came before anybody listened.
            self.note(live, Event::ConnectionBlocked("alarm".into()))
                .await;
        }
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.shared.shutdown.clone();
        let mut asked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ended::Shutdown,
                reason = live.lost() => return Ended::Lost(reason),
                Some(event) = events.next() => self.note(live, event).await,
                Some(window) = windows.join_next() => {
                    window.expect("publishing a window does not panic");
                    asked = Instant::now();
                }
                command = self.commands.recv() => match command {
                    Some(Command::Publish(window)) => self.spawn(windows, live, window),
                    Some(Command::Reconnect(reason)) => live.fail(reason),
                    Some(Command::Redeclare(topology)) => self.redeclare(windows, live, topology),
                    None => return Ended::Shutdown,
                },
                _ = checks.tick() => {
                    if !live.amqp().status().connected() {
                        live.fail("the connection was closed");
                    } else if self.link == Link::Probe && windows.is_empty() && asked.elapsed() >= PROBE_IDLE {
                        return Ended::Idle;
                    }
                }
            }
        }
    }

    async fn note(&self, live: &Live, event: Event) {
        match event {
            Event::ConnectionBlocked(reason) => {
                live.set_blocked(true);
                if self.link == Link::Main {
                    self.shared.board.blocked(&reason);
                }
                self.report(Report::Blocked(self.link)).await;
            }
            Event::ConnectionUnblocked => {
                live.set_blocked(false);
                if self.link == Link::Main {
                    self.shared.board.unblocked();
                }
                self.report(Report::Unblocked(self.link)).await;
            }
            // A channel's error comes this way too; only the connection's end matters here.
            Event::Error(error) if !live.amqp().status().connected() => {
                live.fail(error.to_string());
            }
            _ => {}
        }
    }

    /// Beside the windows, which need not wait for it.
    fn redeclare(&self, windows: &mut JoinSet<()>, live: &Arc<Live>, topology: Topology) {
        let (shared, live) = (Arc::clone(&self.shared), Arc::clone(live));
        shared.declarer.replace(topology);
        windows.spawn(async move {
            // Fails only with the connection; the next one declares everything.
            let _ = shared.declare(&live).await;
            shared.show_findings();
        });
    }

    fn spawn(&self, windows: &mut JoinSet<()>, live: &Arc<Live>, window: Window) {
        let (shared, live) = (Arc::clone(&self.shared), Arc::clone(live));
        windows.spawn(async move {
            let (id, ensure_exchange) = (window.id, window.ensure_exchange);
            let outcomes =
                publisher::publish(&live, &shared.declarer, window, &shared.reports).await;
            if ensure_exchange {
                shared.show_findings();
            }
            let _ = shared.reports.send(Report::Done(id, outcomes)).await;
        });
    }
}

/// Looks after the topology until the connection is lost.
async fn keep_repairing(live: &Live, shared: &Shared) {
    let mut ticks = tokio::time::interval_at(Instant::now() + REPAIR_INTERVAL, REPAIR_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while live.unless_lost(ticks.tick()).await.is_ok() {
        if shared.declarer.repair(live).await.is_err() {
            return;
        }
        shared.show_findings();
    }
}

/// Waits until every window has been reported.
async fn drain(windows: &mut JoinSet<()>) {
    while let Some(window) = windows.join_next().await {
        window.expect("publishing a window does not panic");
    }
}

/// Ends a connection politely if the broker lets us: nothing is written while it blocks us, and
/// nothing answered while it is frozen.
pub(super) async fn part(live: &Live) {
    live.retire("closed");
    let goodbye = live.amqp().close(200, "OK".into());
    let _ = tokio::time::timeout(CLOSE_TIMEOUT / 2, goodbye).await;
    live.fail("closed");
}

/// Why an attempt to connect came to nothing.
pub(super) struct Failure {
    /// Whether the broker, or we, said no.
    pub(super) is_refusal: bool,
    pub(super) reason: String,
    pub(super) advice: Option<String>,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self {
            is_refusal: error.is_refusal(),
            reason: error.reason(),
            advice: error.advice(),
        }
    }
}

/// Connects and, on the main link, sees to the topology.
async fn establish(shared: &Arc<Shared>, index: usize, link: Link) -> Result<Arc<Live>, Failure> {
    let settings = &shared.settings;
    let connecting = connection::connect(
        &settings.urls[index],
        &settings.tls,
        settings.connect_timeout,
    );
    let connection = connecting.await?;
    let good_until = connection.good_until;
    let live = Arc::new(Live::new(connection));
    if link == Link::Main {
        shared
            .board
            .set_certificate(CertificateRole::Broker, good_until);
        failpoint::pass(Place::RabbitmqDeclareBefore);
        if shared.declare(&live).await.is_err() {
            return Err(Failure {
                is_refusal: false,
                reason: live.lost().await,
                advice: None,
            });
        }
        failpoint::pass(Place::RabbitmqDeclareAfter);
        shared.show_findings();
        let (counted, asking) = (Arc::clone(shared), Arc::clone(&live));
        tokio::spawn(async move {
            counts::keep_asking(&asking, &counted.declarer, &counted.board).await;
        });
        let (repaired, repairing) = (Arc::clone(shared), Arc::clone(&live));
        tokio::spawn(async move { keep_repairing(&repairing, &repaired).await });
    }
    Ok(live)
}
