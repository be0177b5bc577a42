//! One connection from its first byte to its last: hyper speaks HTTP/1.1, the deadlines are ours.
//!
//! hyper's own header timeout begins with the previous answer, so it could not tell a sender that
//! keeps an idle connection from one that sends its head byte by byte.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep_until};
use tower::ServiceExt;

use super::progress::{Phase, Progress};
use super::refused::{Peer, Reason, Refusals};
use super::server::{Limits, Stop};
use super::socket::{Socket, discard};

/// Header fields of one request; more are answered 431.
const HEADERS_MAX: usize = 100;

/// Bytes of one request's head; more are answered 431.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What all connections of one listener share.
pub(super) struct Connections {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) stop: Stop,
    pub(super) refusals: Arc<Refusals>,
}

/// Returns when the connection is closed.
pub(super) async fn serve(
    stream: TcpStream,
    connections: Arc<Connections>,
    progress: Arc<Progress>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let peer = Peer::new(Arc::clone(&connections.refusals), stream.peer_addr().ok());
    let peer = Arc::new(peer);
    let (shut_down, mut is_shut_down) = oneshot::channel();
    let socket = Socket::new(stream, shut_down, Arc::clone(&progress), Arc::clone(&peer));
    let mut presence = Presence {
        clock: Clock::new(connections.limits.idle_timeout),
        connections: &connections,
        progress: &progress,
        peer: &peer,
    };
    presence
        .while_wanted(speak(socket, &connections, &progress, &peer))
        .await;
    // What hyper had for the connection is free by now.
    if let Ok(stream) = is_shut_down.try_recv() {
        let bytes_max = connections.limits.discard_bytes_max;
        presence.while_wanted(discard(stream, bytes_max)).await;
    }
}

async fn speak(
    socket: Socket,
    connections: &Arc<Connections>,
    progress: &Arc<Progress>,
    peer: &Arc<Peer>,
) {
    let requests = Requests {
        connections: Arc::clone(connections),
        progress: Arc::clone(progress),
        peer: Arc::clone(peer),
    };
    let http = http1::Builder::new()
        .header_read_timeout(None)
        // Who closes its half after the request still gets an answer.
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), requests);
    // What was answered has been counted; what the parser ended without an answer has not.
    if http.await.is_err_and(|error| error.is_parse()) {
        peer.refused_as(Reason::MalformedHead);
    }
}

/// How long a connection may stay.
struct Presence<'a> {
    connections: &'a Connections,
    progress: &'a Progress,
    peer: &'a Peer,
    clock: Clock,
}

impl Presence<'_> {
    /// Returns when this is done, is too late, or has to give way.
    async fn while_wanted(&mut self, activity: impl Future<Output = ()>) {
        let mut activity = pin!(activity);
        let mut poke = pin!(self.progress.poke.notified());
        // A request that has arrived is read before its connection is closed to make room.
        let mut last_chance = pin!(yield_now());
        let refused = std::future::poll_fn(|cx| {
            if activity.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            while poke.as_mut().poll(cx).is_ready() {
                poke.set(self.progress.poke.notified());
            }
            let phase = self.progress.phase();
            let stop = &self.connections.stop;
            if self.progress.must_go(stop.close.is_cancelled()) {
                let has_begun = matches!(phase, Phase::Head | Phase::Request);
                let is_evicted = has_begun && self.progress.is_evicted();
                let gone = last_chance.as_mut().poll(cx);
                return gone.map(|()| is_evicted.then_some(Reason::Evicted));
            }
            let limits = &self.connections.limits;
            let expired = self
                .clock
                .poll_expired(cx, || self.progress.deadline(limits));
            expired.map(|()| (phase == Phase::Head).then_some(Reason::HeadTimeout))
        })
        .await;
        if let Some(reason) = refused {
            self.peer.refused_as(reason);
        }
    }
}

/// One timer for all phases of a connection. It is moved only when a deadline is nearer than the
/// one it waits for, so that a busy connection hardly touches it.
struct Clock {
    sleep: Pin<Box<Sleep>>,
    set_to: Instant,
}

impl Clock {
    /// A deadline further off than this makes it ring once in vain.
    fn new(first: Duration) -> Self {
        let set_to = Instant::now() + first;
        Self {
            sleep: Box::pin(sleep_until(set_to.into())),
            set_to,
        }
    }

    fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        deadline: impl Fn() -> Option<Instant>,
    ) -> Poll<()> {
        while let Some(deadline) = deadline() {
            if deadline < self.set_to {
                self.set(deadline);
            }
            ready!(self.sleep.as_mut().poll(cx));
            if deadline <= self.set_to {
                return Poll::Ready(());
            }
            self.set(deadline);
        }
        Poll::Pending
    }

    fn set(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline.into());
        self.set_to = deadline;
    }
}

/// The requests of one connection, each answered by the router.
struct Requests {
    connections: Arc<Connections>,
    progress: Arc<Progress>,
    peer: Arc<Peer>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.progress.request_began();
        if self.connections.limits.are_requests_trusted {
            self.progress.request_verified(false);
        }
        let progress = Arc::clone(&self.progress);
        let drain = self.connections.stop.drain.clone();
        let router = self.connections.router.clone();
        let is_read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let mut request = request.map(|body| Question {
            body,
            is_read: Arc::clone(&is_read),
        });
        self.peer.request_began();
        let extensions = request.extensions_mut();
        extensions.insert(Arc::clone(&progress));
        extensions.insert(Arc::clone(&self.peer));
        Box::pin(async move {
            let mut response = router.oneshot(request).await?;
            let is_last =
                drain.is_cancelled() || progress.is_evicted() || !is_read.load(Ordering::Relaxed);
            if is_last {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            progress.answer_began();
            Ok(response.map(|body| Answer { body, progress }))
        })
    }
}

/// The body of a request, which notes whether it was read to its end.
struct Question {
    body: Incoming,
    is_read: Arc<AtomicBool>,
}

impl HttpBody for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.is_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, which notes when hyper has all of it.
struct Answer {
    body: Body,
    progress: Arc<Progress>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.progress.answer_complete();
    }
}
