//! How a bridge ends: by a signal, or because its journal cannot go on.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Bridge, BridgeError, Reload, Tasks};
use crate::failpoint::{self, Place};

/// Connections that are open may bring something for so long after the listener is closed.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Kept of the grace for what is on its way to the broker.
const HALT_BEFORE: Duration = Duration::from_secs(2);
/// Kept of the grace for the journal.
const CLOSE_BEFORE: Duration = Duration::from_secs(1);
/// Answers of refused requests are out by then when the disk has failed.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The signals the bridge listens to. Made before anything starts, so that none ends the process
/// by default.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn listen() -> Result<Self, BridgeError> {
        let listen = |kind| signal(kind).map_err(BridgeError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wake {
        tokio::select! {
            _ = self.terminate.recv() => Wake::End,
            _ = self.interrupt.recv() => Wake::End,
            _ = self.hang_up.recv() => Wake::HangUp,
        }
    }

    async fn end(&mut self) {
        while !matches!(self.next().await, Wake::End) {}
    }
}

enum Wake {
    End,
    HangUp,
    Failed,
}

impl Bridge {
    /// Runs until a signal asks it to end, then stops in order. A second signal ends it at once.
    ///
    /// # Errors
    /// The journal's disk failed: every request under way was answered 503, and only a restart
    /// can tell what the disk really has.
    pub async fn run(mut self, mut signals: Signals, reload: Reload) -> Result<(), BridgeError> {
        loop {
            let wake = tokio::select! {
                wake = signals.next() => wake,
                _ = self.failures.changed() => Wake::Failed,
                part = self.tasks.ended() => return Err(BridgeError::Ended(part)),
            };
            match wake {
                Wake::HangUp => self.reload(&reload).await,
                Wake::Failed => return self.fail().await,
                Wake::End => break,
            }
        }
        // Kept until the end: it waits for the last line, also for the one about a second signal.
        let _logging = self.logging.take();
        let grace = self.config.shutdown.grace;
        tracing::info!(?grace, "stopping: publishing what can be published");
        tokio::select! {
            () = self.stop(Instant::now() + grace) => Ok(()),
            () = signals.end() => {
                tracing::warn!("a second signal: ending at once; what is not published waits in the journal");
                Ok(())
            }
        }
    }

    async fn stop(self, deadline: Instant) {
        failpoint::pass(Place::BridgeStopBefore);
        let tasks = self.tasks;
        let began = Instant::now();
        tasks.http.drain.cancel();
        let linger = LINGER_MAX.min(deadline.duration_since(began) / 4);
        let mut public = tasks.public;
        if timeout(linger, &mut public).await.is_err() {
            tasks.http.close.cancel();
            let _ = timeout(linger, &mut public).await;
            public.abort();
        }
        tasks.forwarder_drain.cancel();
        let mut forwarder = tasks.forwarder;
        if timeout_at(before(deadline, HALT_BEFORE), &mut forwarder)
            .await
            .is_err()
        {
            tasks.forwarder_halt.cancel();
            let _ = timeout_at(before(deadline, CLOSE_BEFORE), &mut forwarder).await;
            forwarder.abort();
        }
        tasks.links_stop.cancel();
        let backlog = self.journal.totals().backlog_events;
        let close = async { tokio::join!(self.journal.close(), tasks.links) };
        if timeout_at(before(deadline, Duration::from_millis(200)), close)
            .await
            .is_err()
        {
            tracing::warn!("the journal or the broker did not close in time");
        }
        tasks.admin.abort();
        failpoint::pass(Place::BridgeStopAfter);
        tracing::info!(backlog, elapsed = ?began.elapsed(), "stopped");
    }

    async fn fail(self) -> Result<(), BridgeError> {
        let Tasks {
            http, mut public, ..
        } = self.tasks;
        http.drain.cancel();
        http.close.cancel();
        let _ = timeout(LAST_ANSWERS, &mut public).await;
        let failure = self.failures.borrow().clone();
        Err(BridgeError::Failed(failure.map_or_else(
            String::new,
            |failure| {
                if failure.is_damage {
                    format!(
                        "{} (the next start sets a damaged database aside)",
                        failure.reason
                    )
                } else {
                    failure.reason
                }
            },
        )))
    }
}

impl Tasks {
    /// Which part has ended though nobody asked it to: it has panicked, and the bridge must not
    /// go on without it.
    async fn ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.public => "the listener of webhooks",
            _ = &mut self.admin => "the operators' listener",
            _ = &mut self.forwarder => "the forwarder",
            _ = &mut self.links => "the connection to the broker",
        }
    }
}

/// That much before the deadline, or now.
fn before(deadline: Instant, margin: Duration) -> Instant {
    deadline.checked_sub(margin).unwrap_or_else(Instant::now)
}
