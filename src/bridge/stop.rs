//! How the bridge ends: by a signal, because its journal failed, or because one of its tasks ended.

use std::pin::pin;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Bridge, BridgeError, ConfigLoader, Tasks, service};
use crate::failpoint::{self, Failpoint};
use crate::journal::archive::Indexer;

/// How long open connections may still send requests after the listener is closed.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Part of the grace period that is reserved for messages in flight.
const HALT_MARGIN: Duration = Duration::from_secs(2);
/// Part of the grace period that is reserved for closing the journal.
const CLOSE_MARGIN: Duration = Duration::from_secs(1);
/// After a disk failure, how long the process waits until the answers to open requests are sent.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Minimum time between two log lines about the same ignored signal.
const IGNORED_INTERVAL: Duration = Duration::from_secs(10);

/// The signals that the bridge handles. Create this before anything is started, because by default
/// each of them ends the process.
pub struct Signals {
    /// SIGTERM and SIGINT.
    pub stop: StopSignals,
    hang_up: Signal,
}

/// The signals that stop the bridge.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Waits for the next of them.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Signals {
    /// Installs the signal handlers. Must be called within a tokio runtime. SIGUSR1, SIGUSR2 and
    /// SIGALRM are logged. Where a limit on file sizes (`ulimit -f`) sends SIGXFSZ, the write fails
    /// like one to a full disk.
    ///
    /// # Errors
    /// The operating system refused a handler.
    pub fn listen() -> Result<Self, BridgeError> {
        let listen = |kind| signal(kind).map_err(BridgeError::Signals);
        for (name, kind) in [
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
            ("SIGALRM", SignalKind::alarm()),
            ("SIGXFSZ", SignalKind::from_raw(Number::XFSZ.as_raw())),
        ] {
            tokio::spawn(log_ignored(name, listen(kind)?));
        }
        Ok(Self {
            stop: StopSignals {
                terminate: listen(SignalKind::terminate())?,
                interrupt: listen(SignalKind::interrupt())?,
            },
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}

async fn log_ignored(name: &str, mut signal: Signal) {
    while signal.recv().await.is_some() {
        tracing::warn!(signal = name, "signal ignored");
        tokio::time::sleep(IGNORED_INTERVAL).await;
    }
}

impl Bridge {
    /// Runs until SIGTERM or SIGINT, then stops in order. A second such signal ends it at once.
    ///
    /// # Errors
    /// The journal's disk failed: every open request was answered 503, and only a restart can
    /// determine what is really stored. Or a task of the bridge ended by itself.
    pub async fn run(
        mut self,
        mut signals: Signals,
        reload: ConfigLoader,
    ) -> Result<(), BridgeError> {
        service::ready();
        let mut reports = pin!(service::report(self.admin.clone()));
        loop {
            tokio::select! {
                () = &mut reports => {}
                () = signals.stop.recv() => break,
                _ = signals.hang_up.recv() => {
                    service::reloading();
                    tokio::select! {
                        () = self.reload(&reload) => service::ready(),
                        () = &mut reports => {}
                        () = signals.stop.recv() => break,
                    }
                }
                _ = self.failures.changed() => return self.fail().await,
                part = self.tasks.ended() => return Err(BridgeError::Ended(part)),
            }
        }
        // Dropped last, because dropping it flushes the log, including the line about a second
        // signal.
        let _logging = self.logging.take();
        service::stopping();
        let grace = self.config.shutdown.grace;
        tracing::info!(?grace, "shutting down; publishing pending events");
        tokio::select! {
            () = self.stop(Instant::now() + grace) => return Ok(()),
            () = reports => {}
            () = signals.stop.recv() => {}
        }
        tracing::warn!(
            "second signal received; exiting now, unpublished events stay in the journal"
        );
        Ok(())
    }

    async fn stop(self, deadline: Instant) {
        failpoint::pass(Failpoint::BridgeStopBefore);
        let tasks = self.tasks;
        let began = Instant::now();
        tasks.stops.http.drain.cancel();
        let indexer = self.indexer;
        let indexer = tokio::task::spawn_blocking(|| indexer.map(Indexer::stop));
        let linger = LINGER_MAX.min(deadline.duration_since(began) / 4);
        let mut public = tasks.public;
        if timeout(linger, &mut public).await.is_err() {
            tasks.stops.http.close.cancel();
            let _ = timeout(linger, &mut public).await;
            public.abort();
        }
        tasks.stops.forwarder_drain.cancel();
        let mut forwarder = tasks.forwarder;
        if timeout_at(before(deadline, HALT_MARGIN), &mut forwarder)
            .await
            .is_err()
        {
            tasks.stops.forwarder_halt.cancel();
            let _ = timeout_at(before(deadline, CLOSE_MARGIN), &mut forwarder).await;
            forwarder.abort();
        }
        tasks.stops.links.cancel();
        // The indexer reads the journal. The last connection to close merges the WAL into the
        // database, so the journal has to be closed after it.
        let _ = timeout_at(before(deadline, CLOSE_MARGIN), indexer).await;
        let backlog = self.journal.totals().backlog_events;
        let close = async { tokio::join!(self.journal.close(), tasks.links) };
        let close_deadline = before(deadline, Duration::from_millis(200));
        let (closed, _) = tokio::join!(
            timeout_at(close_deadline, close),
            timeout_at(close_deadline, self.traces.flush()),
        );
        if closed.is_err() {
            tracing::warn!("journal or broker connection did not close in time");
        }
        tasks.admin.abort();
        failpoint::pass(Failpoint::BridgeStopAfter);
        tracing::info!(backlog, elapsed = ?began.elapsed(), "stopped");
    }

    async fn fail(self) -> Result<(), BridgeError> {
        let Tasks {
            stops, mut public, ..
        } = self.tasks;
        stops.http.drain.cancel();
        stops.http.close.cancel();
        let _ = timeout(LAST_ANSWERS, &mut public).await;
        let failure = self.failures.borrow().clone();
        let mut reason = String::new();
        if let Some(failure) = failure {
            reason = failure.reason;
            if failure.is_damage {
                reason += " (the next start sets a damaged database aside)";
            }
        }
        Err(BridgeError::JournalStopped(reason))
    }
}

impl Tasks {
    /// Returns the name of a task that ended without being asked to. It has panicked or failed, and
    /// the bridge must not continue without it.
    async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.public => "webhook listener",
            _ = &mut self.admin => "admin listener",
            _ = &mut self.forwarder => "forwarder",
            _ = &mut self.links => "broker connection",
        }
    }
}

/// The deadline minus the margin; now if that cannot be represented.
fn before(deadline: Instant, margin: Duration) -> Instant {
    deadline.checked_sub(margin).unwrap_or_else(Instant::now)
}
