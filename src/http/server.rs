//! Accepts connections and enforces their limits, whatever they request: timeouts, the number of
//! connections, the size of heads. Knows HTTP/1.1, but no URL.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;
use tower_http::catch_panic::CatchPanicLayer;

use super::connection::{self, Connections};
use super::descriptors;
use super::limits::{ConnectionLimits, Stop};
use super::problem::Problem;
use super::refused::RequestRefusals;
use super::slots::{ConnectionLimiter, SlotGrant};
use super::throttle::Throttles;
use crate::backoff;
use crate::failpoint::{self, Failpoint};

/// First and longest pause after failed accepts.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Interval at which the limiter is asked again while no slot can be freed.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Maximum number of connections that are taken from the kernel's accept queue at a stop.
const ACCEPT_QUEUE_MAX: usize = 4096;

/// Serves until `stop` is triggered and every connection is closed. Dropping the future closes all
/// connections at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    stop: Stop,
    refusals: Arc<RequestRefusals>,
) {
    let close = stop.close.clone();
    let mut connections = ConnectionSet::new(router, limits, stop, refusals);
    connections.accept_until_drain(&listener).await;
    if let Err(error) = connections.accept_queued(listener).await {
        tracing::debug!(%error, "accept backlog drained");
    }
    tokio::select! {
        () = close.cancelled() => {}
        () = connections.drain() => {}
    }
    connections.connections.limiter.wake_all();
    connections.drain().await;
}

/// The connections of one listener.
struct ConnectionSet {
    connections: Arc<Connections>,
    tasks: JoinSet<()>,
    throttles: Throttles,
}

impl ConnectionSet {
    fn new(
        router: Router,
        limits: ConnectionLimits,
        stop: Stop,
        refusals: Arc<RequestRefusals>,
    ) -> Self {
        let connections_max = descriptors::fit(limits.config.connections_max);
        Self {
            connections: Arc::new(Connections {
                router: router.layer(CatchPanicLayer::custom(panicked)),
                limiter: ConnectionLimiter::new(connections_max, &limits.config),
                limits,
                stop,
                refusals,
            }),
            tasks: JoinSet::new(),
            throttles: Throttles::default(),
        }
    }

    async fn accept_until_drain(&mut self, listener: &TcpListener) {
        let drain = self.connections.stop.drain.clone();
        let mut failures = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = self.tasks.join_next() => continue,
                () = drain.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    failpoint::pass(Failpoint::HttpAcceptBefore);
                    self.admit(stream, peer).await;
                    failpoint::pass(Failpoint::HttpAcceptAfter);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.throttles.should_log("accept").is_some() {
                        tracing::warn!(%error, "accept failed; retrying");
                    }
                    self.connections.limiter.evict();
                    failures += 1;
                    sleep(backoff::delay(ACCEPT_PAUSE_MIN, ACCEPT_PAUSE_MAX, failures)).await;
                }
            }
        }
    }

    /// Serves connections that the kernel accepted before the drain; they would be reset otherwise.
    /// Calls `accept` directly, because the runtime may not have been notified of them yet.
    async fn accept_queued(&mut self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        for _ in 0..ACCEPT_QUEUE_MAX {
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            self.admit(TcpStream::from_std(stream)?, peer).await;
        }
        Ok(())
    }

    /// Never waits for a sender: if there is no slot, another connection is evicted at once. Waits
    /// only while verified requests, which wait for the disk, hold all slots, or while too many
    /// evicted connections are still open.
    async fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        loop {
            match self.connections.limiter.make_room(address.ip()) {
                SlotGrant::Free => break,
                SlotGrant::Made => {
                    self.log_limit_reached();
                    // Let the earlier connections run first: one that has sent a complete request
                    // by now is not closed after all.
                    yield_now().await;
                    break;
                }
                SlotGrant::None => self.one_leaves_or_time_passes().await,
            }
        }
        while self.connections.limiter.are_too_many_leaving() {
            self.one_leaves_or_time_passes().await;
        }
        // Otherwise the results of finished tasks would accumulate while connections arrive.
        while self.tasks.try_join_next().is_some() {}
        let connections = Arc::clone(&self.connections);
        let (progress, slot) = connections.limiter.take(address.ip());
        self.tasks.spawn(async move {
            connection::serve(stream, address, connections, progress).await;
            drop(slot);
        });
    }

    async fn one_leaves_or_time_passes(&mut self) {
        tokio::select! {
            Some(_) = self.tasks.join_next() => {}
            () = sleep(ROOM_PAUSE) => {}
        }
    }

    fn log_limit_reached(&self) {
        if self.throttles.should_log("limit").is_some() {
            tracing::warn!(
                connections_max = self.connections.limits.config.connections_max,
                "connection limit reached; closing the connection with the least progress for each new one"
            );
        }
    }

    async fn drain(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whether an error concerns only the connection that was to be accepted, not the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Answers 500. The process's panic hook has already logged the panic itself.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::failed().into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::http::Http;

    /// As if connections arrived so fast that the accept loop does nothing else.
    #[tokio::test]
    async fn finished_tasks_do_not_accumulate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ConnectionLimits::of(&Http::default());
        let refusals = RequestRefusals::of("http", Arc::default());
        let mut connections = ConnectionSet::new(Router::new(), limits, Stop::default(), refusals);
        for _ in 0..100 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            connections.admit(stream, peer).await;
            client.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
        let tasks = connections.tasks.len();
        assert!(tasks < 10, "{tasks} tasks");
    }
}
