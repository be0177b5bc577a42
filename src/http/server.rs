//! Accepts connections and keeps their limits, whatever is asked on them: time, number, size of
//! heads. Knows HTTP/1.1, no URL.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::connection::{self, Connections};
use super::descriptors;
use super::problem::Problem;
use super::progress::Progress;
use super::seats::Seats;
use super::throttle::Throttle;
use crate::config;
use crate::failpoint::{self, Place};

/// Pauses after a failed accept.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Connections the kernel may have accepted for us that we have not seen yet.
const ACCEPT_QUEUE_MAX: usize = 4096;

/// Connections of operators, their probes and their Prometheus.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// What a connection may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once, if there are descriptors for them.
    pub connections_max: usize,
    /// How long a connection waits without a byte of its next request.
    pub idle_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// How long an answer may take to be read.
    pub answer_timeout: Duration,
    /// Bytes read and discarded after an answer that did not wait for the whole request.
    pub discard_bytes_max: u64,
    /// How long they are.
    pub discard_timeout: Duration,
}

impl Limits {
    /// The limits of the public listener.
    #[must_use]
    pub fn of(config: &config::http::Http) -> Self {
        Self {
            connections_max: config.connections_max,
            // Senders keep idle connections for about 55 s and would lose a request to one that
            // is closed just then.
            idle_timeout: Duration::from_mins(1),
            header_timeout: config.header_timeout,
            answer_timeout: Duration::from_secs(10),
            discard_bytes_max: config.body_bytes_max.saturating_add(1 << 20),
            discard_timeout: Duration::from_secs(5),
        }
    }

    /// The limits of the operators' listener.
    #[must_use]
    pub fn of_admin() -> Self {
        let config = config::http::Http::default();
        Self {
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..Self::of(&config)
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
    let close = stop.close.clone();
    let mut hall = Hall {
        seats: Seats::new(descriptors::fit(limits.connections_max)),
        connections: Arc::new(Connections {
            router: router.layer(CatchPanicLayer::custom(panicked)),
            limits,
            stop,
        }),
        tasks: JoinSet::new(),
    };
    hall.accept_until_drain(&listener).await;
    if let Err(error) = hall.accept_queued(listener).await {
        tracing::debug!(%error, "no queued connection is left");
    }
    tokio::select! {
        () = close.cancelled() => {}
        () = hall.left_by_all() => {}
    }
    hall.seats.poke_all();
    hall.left_by_all().await;
}

/// The connections of one listener and where they sit.
struct Hall {
    connections: Arc<Connections>,
    seats: Seats,
    tasks: JoinSet<()>,
}

impl Hall {
    async fn accept_until_drain(&mut self, listener: &TcpListener) {
        let drain = self.connections.stop.drain.clone();
        let complaints = Throttle::default();
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = self.tasks.join_next() => continue,
                () = drain.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    failpoint::pass(Place::HttpAcceptBefore);
                    self.seat(stream).await;
                    failpoint::pass(Place::HttpAcceptAfter);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if complaints.permits() {
                        tracing::warn!(%error, "accepting connections fails; trying again");
                    }
                    self.seats.evict_oldest();
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    /// What the kernel accepted before the drain is served, not reset. The listener is asked
    /// itself: the runtime may not have heard of these connections yet.
    async fn accept_queued(&mut self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        for _ in 0..ACCEPT_QUEUE_MAX {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            self.seat(TcpStream::from_std(stream)?).await;
        }
        Ok(())
    }

    async fn seat(&mut self, stream: TcpStream) {
        let progress = Arc::new(Progress::accepted());
        let seat = self.seats.take(&progress).await;
        let connections = Arc::clone(&self.connections);
        self.tasks.spawn(async move {
            connection::serve(stream, connections, progress).await;
            drop(seat);
        });
    }

    async fn left_by_all(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
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
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let detail = "The bridge failed on this request; its log says where. Send it again.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
}
