//! Accepts connections and keeps their limits, whatever is asked on them: time, number, size of
//! heads. Knows HTTP/1.1, no URL.

use std::any::Any;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::connection::{self, Connections};
use super::descriptors;
use super::problem::Problem;
use super::progress::Progress;
use super::refused::Refusals;
use super::slots::{ConnectionLimiter, Room, Share};
use super::throttle::Throttle;
use crate::config;
use crate::failpoint::{self, Place};

/// Pauses after a failed accept.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Between two looks for a slot while authentic requests have all of them.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Connections the kernel may have accepted for us that we have not seen yet.
const ACCEPT_QUEUE_MAX: usize = 4096;

/// Connections of operators, their probes and their Prometheus.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// What a connection may take of us.
#[derive(Debug, Clone)]
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
    /// What the connections of one client address may take of them.
    pub(super) share: Option<Share>,
    /// A request needs no signature to keep its connection.
    pub(super) are_requests_trusted: bool,
}

impl Limits {
    /// The limits of the public listener.
    #[must_use]
    pub fn of(config: &config::http::Http) -> Self {
        Self {
            connections_max: config.connections_max,
            idle_timeout: config.idle_timeout,
            header_timeout: config.header_timeout,
            answer_timeout: Duration::from_secs(10),
            discard_bytes_max: config.body_bytes_max.saturating_add(1 << 20),
            discard_timeout: Duration::from_secs(5),
            share: config.connections_per_client_max.map(|most| Share {
                connections_max: most,
                exempt: config.trusted_proxies.clone(),
            }),
            are_requests_trusted: false,
        }
    }

    /// The limits of the operators' listener.
    #[must_use]
    pub fn of_admin() -> Self {
        let config = config::http::Http::default();
        Self {
            connections_max: ADMIN_CONNECTIONS_MAX,
            are_requests_trusted: true,
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
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: Stop,
    refusals: Arc<Refusals>,
) {
    let close = stop.close.clone();
    let mut hall = Hall {
        limiter: ConnectionLimiter::new(
            descriptors::fit(limits.connections_max),
            limits.share.clone(),
        ),
        connections: Arc::new(Connections {
            router: router.layer(CatchPanicLayer::custom(panicked)),
            limits,
            stop,
            refusals,
        }),
        tasks: JoinSet::new(),
        complaints: Throttle::default(),
    };
    hall.accept_until_drain(&listener).await;
    if let Err(error) = hall.accept_queued(listener).await {
        tracing::debug!(%error, "no queued connection is left");
    }
    tokio::select! {
        () = close.cancelled() => {}
        () = hall.left_by_all() => {}
    }
    hall.limiter.poke_all();
    hall.left_by_all().await;
}

/// The connections of one listener.
struct Hall {
    connections: Arc<Connections>,
    limiter: ConnectionLimiter,
    tasks: JoinSet<()>,
    complaints: Throttle,
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
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    failpoint::pass(Place::HttpAcceptBefore);
                    self.admit(stream, peer.ip()).await;
                    failpoint::pass(Place::HttpAcceptAfter);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if complaints.permits() {
                        tracing::warn!(%error, "accepting connections fails; trying again");
                    }
                    self.limiter.evict();
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
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            self.admit(TcpStream::from_std(stream)?, peer.ip()).await;
        }
        Ok(())
    }

    /// Waits for no sender: if there is no slot, another connection loses its own at once. Only if
    /// authentic requests have all of them does it wait, for the disk.
    async fn admit(&mut self, stream: TcpStream, client: IpAddr) {
        loop {
            match self.limiter.make_room(client) {
                Room::Free => break,
                Room::Made => {
                    self.complain();
                    // Those that came before are heard first: who has sent a whole request by now
                    // is not closed after all.
                    yield_now().await;
                    break;
                }
                Room::None => self.one_leaves_or_time_passes().await,
            }
        }
        while self.limiter.are_too_many_leaving() {
            self.one_leaves_or_time_passes().await;
        }
        let progress = Arc::new(Progress::accepted());
        let slot = self.limiter.take(&progress, client);
        let connections = Arc::clone(&self.connections);
        self.tasks.spawn(async move {
            connection::serve(stream, connections, progress).await;
            drop(slot);
        });
    }

    async fn one_leaves_or_time_passes(&mut self) {
        tokio::select! {
            Some(_) = self.tasks.join_next() => {}
            () = sleep(ROOM_PAUSE) => {}
        }
    }

    fn complain(&self) {
        if self.complaints.permits() {
            tracing::warn!(
                connections_max = self.connections.limits.connections_max,
                "connection limit reached; closing the one with the least progress for each new one"
            );
        }
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
