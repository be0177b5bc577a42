//! The task of one link: connects, publishes windows until the connection is lost, reports the loss
//! and reconnects. The main link is always connected or connecting; the probe link connects when it
//! receives a window.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::connection::{self, ConnectError, FrameSize};
use super::open_connection::{CallError, OpenConnection};
use super::publisher;
use super::queue_depths;
use super::status_cell::BrokerStatusCell;
use super::topology::Topology;
use super::topology::declare::Declarer;
use super::url::BrokerUrl;
use super::version;
use super::{ConnectConfig, Link, Outcome, PublishWindow, PublisherEvent};
use crate::failpoint::{self, Failpoint};
use crate::telemetry::status::CertificateRole;

/// The probe link disconnects after it has been idle for this long.
const PROBE_IDLE: Duration = Duration::from_secs(30);
/// Limit for an orderly close of a connection.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Limit for the end of a link at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval at which the existence of the topology is checked.
const REPAIR_INTERVAL: Duration = Duration::from_secs(20);

/// A command of a [`Publisher`](super::Publisher) to a link.
pub(super) enum Command {
    Publish(PublishWindow),
    Reconnect(String),
    Redeclare(Topology),
}

/// State that both links and the retry task share.
pub(super) struct Shared {
    pub(super) settings: watch::Sender<ConnectConfig>,
    pub(super) declarer: Declarer,
    pub(super) status: BrokerStatusCell,
    pub(super) reports: mpsc::Sender<PublisherEvent>,
    pub(super) shutdown: CancellationToken,
}

impl Shared {
    pub(super) fn settings(&self) -> ConnectConfig {
        self.settings.borrow().clone()
    }

    /// The URL of the broker in use, with its latest login.
    pub(super) fn url(&self) -> BrokerUrl {
        let settings = self.settings.borrow();
        let Some(used) = self.status.endpoint() else {
            return settings.urls[0].clone();
        };
        let mut urls = settings.urls.iter();
        let same = urls.find(|url| url.to_string() == used.to_string());
        same.cloned().unwrap_or(used)
    }

    /// Reads the URLs again. The login may have been replaced in their file.
    pub(super) async fn read_urls_again(&self) {
        if let Some(urls) = self.settings().read_urls_again().await {
            self.settings.send_if_modified(|settings| {
                let is_other = settings.urls != urls;
                settings.urls = urls;
                is_other
            });
        }
    }

    /// Copies the findings about the topology, and the number of objects that were declared again,
    /// to the broker status.
    pub(super) fn show_findings(&self) {
        self.status.restored(self.declarer.take_restorations());
        self.status.set_findings(self.declarer.findings());
        self.status.set_retries(self.declarer.topology().retries());
    }

    /// Reads the version of the broker in use, for the finding about it.
    async fn check_version(&self) {
        if let Some(version) = version::of(&self.url(), &self.settings().tls).await {
            self.status.set_version_finding(version::finding(version));
        }
    }

    /// Declares or checks the whole topology on a connection to the broker in use.
    async fn declare(&self, connection: &OpenConnection) -> Result<(), CallError> {
        let (url, tls) = (self.url(), self.settings().tls);
        let applied = self.declarer.apply(connection, &url, &tls);
        applied.await.map(drop)
    }
}

/// One of the two links.
pub(super) struct LinkTask {
    pub(super) link: Link,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
}

/// Why a link stopped using a connection.
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
        let mut changes = shared.settings.subscribe();
        let mut urls = shared.settings().urls;
        let mut endpoints = shared.settings().endpoints(urls.len());
        loop {
            let (index, due) = endpoints.next(Instant::now());
            let is_refused = endpoints.is_refused();
            let pause = async {
                let pause = async {
                    tokio::time::sleep_until(due).await;
                    if is_refused {
                        shared.read_urls_again().await;
                    }
                };
                tokio::select! {
                    biased;
                    _ = changes.changed() => true,
                    () = pause => changes.has_changed().is_ok_and(|is_other| is_other),
                }
            };
            match self.answer_unknown_during(pause).await {
                None => return,
                Some(true) => {
                    changes.mark_unchanged();
                    urls = shared.settings().urls;
                    endpoints = shared.settings().endpoints(urls.len());
                    continue;
                }
                Some(false) => {}
            }
            let url = &urls[index];
            shared.status.connecting(url);
            failpoint::pass(Failpoint::RabbitmqConnectBefore);
            let attempt = establish(&shared, url, Link::Main);
            let Some(attempt) = self.answer_unknown_during(attempt).await else {
                return;
            };
            let connection = match attempt {
                Ok(connection) => connection,
                Err(error) => {
                    let (reason, advice) = (error.reason(), error.advice());
                    debug!(reason, "connection attempt failed");
                    endpoints.failed(index, error.is_refusal(), Instant::now());
                    let is_refused = endpoints.is_refused();
                    shared.status.failed(is_refused, &reason, advice.as_deref());
                    continue;
                }
            };
            endpoints.connected(index);
            shared.status.connected();
            failpoint::pass(Failpoint::RabbitmqConnectAfter);
            let since = Instant::now();
            match self.serve(connection, None).await {
                Ended::Lost(reason) => {
                    shared.status.lost(&reason);
                    endpoints.lost(index, since.elapsed(), Instant::now());
                    self.report(PublisherEvent::Down(Link::Main)).await;
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
            let url = shared.url();
            let attempt = tokio::select! {
                () = shared.shutdown.cancelled() => return,
                attempt = establish(&shared, &url, Link::Probe) => attempt,
            };
            match attempt {
                Ok(connection) => {
                    if let Ended::Shutdown = self.serve(connection, Some(first)).await {
                        return;
                    }
                    self.report(PublisherEvent::Down(Link::Probe)).await;
                }
                Err(error) => {
                    debug!(reason = error.reason(), "probe link failed to connect");
                    if error.is_refusal() {
                        let reading = shared.read_urls_again();
                        shared.shutdown.run_until_cancelled(reading).await;
                    }
                    self.answer_unknown(&first).await;
                    self.answer_unknown_to_waiting().await;
                }
            }
        }
    }

    /// Awaits `future` while the link is not connected. Meanwhile, answers each window with
    /// [`Outcome::Unknown`]. Returns `None` at shutdown.
    async fn answer_unknown_during<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let shutdown = self.shared.shutdown.clone();
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                command = self.commands.recv() => match command? {
                    Command::Publish(window) => self.answer_unknown(&window).await,
                    Command::Redeclare(topology) => self.shared.declarer.replace(topology),
                    Command::Reconnect(_) => {}
                },
                value = &mut future => return Some(value),
            }
        }
    }

    async fn answer_unknown_to_waiting(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Publish(window) = command {
                self.answer_unknown(&window).await;
            }
        }
    }

    async fn answer_unknown(&self, window: &PublishWindow) {
        let outcomes = vec![Outcome::Unknown; window.messages.len()];
        self.report(PublisherEvent::Done(window.id, outcomes)).await;
    }

    async fn report(&self, report: PublisherEvent) {
        // Fails only when the receiver is gone: the bridge is shutting down.
        let _ = self.shared.reports.send(report).await;
    }

    /// Publishes windows on a connection until it ends. When this returns, the outcome of every
    /// window has been reported.
    async fn serve(
        &mut self,
        connection: Arc<OpenConnection>,
        first: Option<PublishWindow>,
    ) -> Ended {
        let mut windows = JoinSet::new();
        self.report(PublisherEvent::Up(self.link)).await;
        if let Some(window) = first {
            self.spawn(&mut windows, &connection, window);
        }
        let ended = self.serve_until_ended(&connection, &mut windows).await;
        let closing = async {
            if !matches!(ended, Ended::Lost(_)) {
                connection.close(CLOSE_TIMEOUT).await;
            }
        };
        let wind_down = async { tokio::join!(drain(&mut windows), closing) };
        if matches!(ended, Ended::Shutdown) {
            // The receiver of the reports may have stopped, too.
            let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, wind_down).await;
        } else {
            wind_down.await;
        }
        ended
    }

    async fn serve_until_ended(
        &mut self,
        connection: &Arc<OpenConnection>,
        windows: &mut JoinSet<()>,
    ) -> Ended {
        let mut blocked = connection.blocked();
        let mut watching = pin!(connection.watch_over());
        let shutdown = self.shared.shutdown.clone();
        let mut changes = self.shared.settings.subscribe();
        self.leave_removed_broker(connection);
        let mut used_at = Instant::now();
        loop {
            let is_idle = self.link == Link::Probe && windows.is_empty();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ended::Shutdown,
                reason = &mut watching => return Ended::Lost(reason),
                Ok(()) = changes.changed() => self.leave_removed_broker(connection),
                Ok(()) = blocked.changed() => self.report_blocked(&mut blocked).await,
                Some(window) = windows.join_next() => {
                    window.expect("publishing a window does not panic");
                    used_at = Instant::now();
                }
                command = self.commands.recv() => match command {
                    Some(Command::Publish(window)) => self.spawn(windows, connection, window),
                    Some(Command::Reconnect(reason)) => connection.fail(reason),
                    Some(Command::Redeclare(topology)) => self.redeclare(windows, connection, topology),
                    None => return Ended::Shutdown,
                },
                () = tokio::time::sleep_until(used_at + PROBE_IDLE), if is_idle => return Ended::Idle,
            }
        }
    }

    /// Ends the connection if its broker is no longer among the URLs. A new login alone does not end
    /// it: the broker keeps the connections of the old one.
    fn leave_removed_broker(&self, connection: &OpenConnection) {
        let used = self.shared.url();
        let mut urls = self.shared.settings().urls.into_iter();
        if !urls.any(|url| url.to_string() == used.to_string()) {
            connection.fail("`rabbitmq.urls` no longer has this broker");
        }
    }

    async fn report_blocked(&self, blocked: &mut watch::Receiver<Option<String>>) {
        let reason = blocked.borrow_and_update().clone();
        if self.link == Link::Main {
            self.shared.status.blocked(reason.as_deref());
        }
        self.report(match reason {
            Some(_) => PublisherEvent::Blocked(self.link),
            None => PublisherEvent::Unblocked(self.link),
        })
        .await;
    }

    /// Declares the new topology in a separate task, so that windows do not wait for it.
    fn redeclare(
        &self,
        windows: &mut JoinSet<()>,
        connection: &Arc<OpenConnection>,
        topology: Topology,
    ) {
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(connection));
        shared.declarer.replace(topology);
        windows.spawn(async move {
            // Fails only if the connection is lost; the next connection declares everything.
            let _ = shared.declare(&connection).await;
            shared.show_findings();
        });
    }

    fn spawn(
        &self,
        windows: &mut JoinSet<()>,
        connection: &Arc<OpenConnection>,
        window: PublishWindow,
    ) {
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(connection));
        windows.spawn(async move {
            let (id, ensure_exchange) = (window.id, window.ensure_exchange);
            let Shared {
                declarer, reports, ..
            } = &*shared;
            let outcomes = publisher::publish(&connection, declarer, window, reports).await;
            if ensure_exchange {
                shared.show_findings();
            }
            let _ = reports.send(PublisherEvent::Done(id, outcomes)).await;
        });
    }
}

/// Checks the topology every [`REPAIR_INTERVAL`] and repairs it, until the connection is lost. Reads
/// the broker's version the first time: not earlier, so that a reconnect needs no second connection.
async fn keep_repairing(connection: &OpenConnection, shared: &Shared) {
    let mut ticks = tokio::time::interval_at(Instant::now() + REPAIR_INTERVAL, REPAIR_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    while connection.unless_lost(ticks.tick()).await.is_ok() {
        if shared.declarer.repair(connection).await.is_err() {
            return;
        }
        if std::mem::take(&mut is_first) {
            shared.check_version().await;
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

/// Connects. The main link also declares the topology, and starts the task that counts messages and
/// repairs the topology.
async fn establish(
    shared: &Arc<Shared>,
    url: &BrokerUrl,
    link: Link,
) -> Result<Arc<OpenConnection>, ConnectError> {
    let connection = connection::connect(&shared.settings(), url, FrameSize::Agreed).await?;
    let connection = Arc::new(connection);
    if link == Link::Main {
        let status = &shared.status;
        status.set_certificate(CertificateRole::Broker, connection.expires_at);
        failpoint::pass(Failpoint::RabbitmqDeclareBefore);
        if shared.declare(&connection).await.is_err() {
            return Err(ConnectError::Lost(connection.lost().await));
        }
        failpoint::pass(Failpoint::RabbitmqDeclareAfter);
        shared.show_findings();
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        tokio::spawn(async move {
            let counting = queue_depths::keep_asking(&connection, &shared.declarer, &shared.status);
            tokio::join!(counting, keep_repairing(&connection, &shared));
        });
    }
    Ok(connection)
}
