//! One connection from its first byte to its last. hyper speaks HTTP/1.1; the deadlines are
//! enforced here.
//!
//! hyper's own header timeout starts with the previous answer. It therefore cannot distinguish a
//! sender that keeps an idle connection from one that sends its head byte by byte.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep_until};
use tower::ServiceExt;

use super::limits::{ConnectionLimits, Stop};
use super::progress::{Phase, Progress};
use super::refused::{Peer, RefusalReason, RequestRefusals};
use super::slots::ConnectionLimiter;
use super::socket::{Socket, discard};

/// Maximum number of header fields of a request; more are answered with 431.
const HEADERS_MAX: usize = 100;

/// Maximum size of a request's head in bytes; a larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What all connections of one listener share.
pub(super) struct Connections {
    pub(super) router: Router,
    pub(super) limiter: ConnectionLimiter,
    pub(super) limits: ConnectionLimits,
    pub(super) stop: Stop,
    pub(super) refusals: Arc<RequestRefusals>,
}

/// One connection and what it shares with the others.
struct Client {
    connections: Arc<Connections>,
    peer: Arc<Peer>,
}

/// Serves one connection. Returns when it is closed.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    connections: Arc<Connections>,
    progress: Arc<Progress>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let peer = Peer::new(Arc::clone(&connections.refusals), address, progress);
    let first_deadline = Instant::now() + connections.limits.config.idle_timeout;
    let client = Client {
        connections,
        peer: Arc::new(peer),
    };
    let mut lifetime = ConnectionLifetime {
        client: &client,
        timer: Box::pin(sleep_until(first_deadline.into())),
    };
    // hyper allocates its buffers at once; a client that sends nothing needs none. Readiness
    // is not enough: the runtime may report a new socket as readable although it is not.
    let first_bytes = async { stream.peek(&mut [0]).await };
    if lifetime.run_until_closed(first_bytes).await.is_none() {
        return;
    }
    let socket = Socket::new(stream, Arc::clone(&client.peer));
    // Boxed, because a future takes up space in every future through which it is passed.
    let serving = Box::pin(serve_http(socket, &client));
    if let Some(Some(stream)) = lifetime.run_until_closed(serving).await {
        let bytes_max = client.connections.limits.discard_bytes_max();
        lifetime.run_until_closed(discard(stream, bytes_max)).await;
    }
}

/// Answers requests. Returns the stream if it is shut down for writing after the last answer;
/// hyper's buffers for the connection are free by then.
async fn serve_http(socket: Socket, client: &Client) -> Option<TcpStream> {
    let mut http = http1::Builder::new()
        .header_read_timeout(None)
        // A client that closes its write half after the request still gets an answer.
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(
            TokioIo::new(socket),
            service_fn(|request| client.answer(request)),
        );
    // Refusals with an answer are already counted; those that the parser ends without one are not.
    if (&mut http).await.is_err_and(|error| error.is_parse()) {
        client.peer.refused_as(RefusalReason::MalformedHead);
    }
    let is_shut_down = client.peer.progress.phase() == Phase::Linger;
    is_shut_down.then(|| http.into_parts().io.into_inner().stream)
}

/// Decides how long a connection may stay open.
struct ConnectionLifetime<'a> {
    client: &'a Client,
    /// One timer for all phases. It is reset only when it fires, or when a deadline is earlier than
    /// its own, so that a busy connection rarely touches it.
    timer: Pin<Box<Sleep>>,
}

impl ConnectionLifetime<'_> {
    /// Runs `activity` until it completes, the connection's deadline passes, or the connection is
    /// evicted. Returns its result if it completed.
    async fn run_until_closed<T>(&mut self, activity: impl Future<Output = T>) -> Option<T> {
        let Client { connections, peer } = self.client;
        let progress = &peer.progress;
        let mut activity = pin!(activity);
        let mut wake = pin!(progress.wake.notified());
        // A request that has arrived is read before its connection is closed to make room.
        let mut final_poll = pin!(yield_now());
        let ended = std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = activity.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            connections.limiter.limit_heads();
            while wake.as_mut().poll(cx).is_ready() {
                wake.set(progress.wake.notified());
            }
            let phase = progress.phase();
            if progress.should_close(connections.stop.close.is_cancelled()) {
                let has_begun = matches!(phase, Phase::Head | Phase::Request);
                let is_evicted = has_begun && progress.is_evicted();
                let gone = final_poll.as_mut().poll(cx);
                return gone.map(|()| Err(is_evicted.then_some(RefusalReason::Evicted)));
            }
            let expired = self.poll_expired(cx);
            expired.map(|()| Err((phase == Phase::Head).then_some(RefusalReason::HeadTimeout)))
        });
        match ended.await {
            Ok(done) => Some(done),
            Err(None) => None,
            Err(Some(reason)) => {
                peer.refused_as(reason);
                None
            }
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limits = &self.client.connections.limits;
        while let Some(deadline) = self.client.peer.progress.deadline(limits).map(Into::into) {
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            if deadline <= self.timer.deadline() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Client {
    /// Passes a request to the router.
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> {
        let Self { connections, peer } = self;
        let progress = &peer.progress;
        // At once, because what arrives from now on is the body.
        peer.request_began();
        progress.request_began();
        if connections.limits.never_evict {
            progress.request_verified(false);
        }
        if request.body().is_end_stream() {
            progress.body_read();
        }
        request.extensions_mut().insert(Arc::clone(peer));
        let answer = connections.router.clone().oneshot(request);
        async move {
            // Others go first: a client can send many requests at once.
            yield_now().await;
            let mut response = answer.await?;
            if connections.stop.drain.is_cancelled() || progress.is_answer_last() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            progress.answer_began();
            let taken = AnswerTaken(Arc::clone(progress));
            // The body is not changed; it only owns `taken` from now on.
            Ok(response.map(|body| {
                Body::new(body.map_err(move |error| {
                    let _taken = &taken;
                    error
                }))
            }))
        }
    }
}

/// Dropped with the body of an answer: hyper has taken all of it then.
struct AnswerTaken(Arc<Progress>);

impl Drop for AnswerTaken {
    fn drop(&mut self) {
        self.0.answer_complete();
    }
}
