//! Accepts connections and keeps their limits, whatever is asked on them: time, number, size of
//! heads. Knows HTTP/1.1, no URL.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::connection::{self, Connections};
use super::problem::Problem;
use super::progress::Progress;
use super::seats::Seats;
use super::throttle::Throttle;
use crate::config;

/// Pauses after a failed accept.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Connections the kernel may have accepted for us that we have not seen yet.
const ACCEPT_QUEUE_MAX: usize = 4096;

/// Read and discarded beyond the largest body.
const DISCARD_BYTES_EXTRA: u64 = 1 << 20;

/// Connections of operators, their probes and their Prometheus.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// What a connection may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Bytes read and discarded after an answer that did not wait for the whole request.
    pub discard_bytes_max: u64,
}

impl Limits {
    /// The limits of the public listener.
    #[must_use]
    pub fn of(config: &config::http::Http) -> Self {
        Self {
            connections_max: config.connections_max,
            header_timeout: config.header_timeout,
            discard_bytes_max: config.body_bytes_max.saturating_add(DISCARD_BYTES_EXTRA),
        }
    }

    /// The limits of the operators' listener, who send no bodies.
    #[must_use]
    pub fn of_admin() -> Self {
        Self {
            connections_max: ADMIN_CONNECTIONS_MAX,
            header_timeout: config::http::Http::default().header_timeout,
            discard_bytes_max: DISCARD_BYTES_EXTRA,
        }
    }
}

/// How a server is told to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Accept nobody any more, close every connection with its next answer.
    pub drain: CancellationToken,
    /// Close what is idle; requests that have begun are still answered.
    pub close: CancellationToken,
}

/// Serves until it is told to stop and every connection is closed. Dropping it cuts them all.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: Stop) {
    let router = router.layer(CatchPanicLayer::custom(panicked));
    let connections = Arc::new(Connections {
        router,
        limits,
        stop,
    });
    let seats = Seats::new(limits.connections_max);
    let mut tasks = JoinSet::new();
    accept_until_drain(&listener, &connections, &seats, &mut tasks).await;
    drop(listener);

    let close = &connections.stop.close;
    while !tasks.is_empty() && !close.is_cancelled() {
        tokio::select! {
            () = close.cancelled() => {}
            _ = tasks.join_next() => {}
        }
    }
    seats.poke_all();
    while tasks.join_next().await.is_some() {}
}

async fn accept_until_drain(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    seats: &Seats,
    tasks: &mut JoinSet<()>,
) {
    let mut pause = ACCEPT_PAUSE_MIN;
    let complaints = Throttle::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            () = connections.stop.drain.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = ACCEPT_PAUSE_MIN;
                seat(stream, connections, seats, tasks).await;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if complaints.permits() {
                    tracing::warn!(%error, "accepting connections fails; trying again");
                }
                seats.evict_oldest();
                sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
    // What the kernel accepted before the drain is served, not reset.
    for _ in 0..ACCEPT_QUEUE_MAX {
        let Some(Ok((stream, _))) = listener.accept().now_or_never() else {
            return;
        };
        seat(stream, connections, seats, tasks).await;
    }
}

async fn seat(
    stream: TcpStream,
    connections: &Arc<Connections>,
    seats: &Seats,
    tasks: &mut JoinSet<()>,
) {
    let progress = Arc::new(Progress::accepted());
    let seat = seats.take(&progress).await;
    let connections = Arc::clone(connections);
    tasks.spawn(async move {
        connection::serve(stream, connections, progress).await;
        drop(seat);
    });
}

/// Errors that say nothing about the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The panic itself has been logged by the process's hook.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands the panic over"
)]
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let detail = "The bridge failed on this request; its log says where. Send it again.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}
