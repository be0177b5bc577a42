//! Requests that are refused before they reach a source: each is counted, and a throttled line of the
//! log says where it came from and, where the mistake can be recognised, which one it is. Without
//! this a wrong setting of a proxy would show nowhere: no source is known that could count it.

mod opening;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Request;

use self::opening::Opening;
use super::throttle::Throttles;
use crate::telemetry::metrics::Metrics;

/// Bytes of foreign text in one field of the log.
const TEXT_BYTES_MAX: usize = 200;

/// Why a request did not reach a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It begins with the header of the PROXY protocol.
    ProxyProtocol,
    /// It is a TLS handshake.
    Tls,
    /// It is HTTP/2 without TLS.
    Http2,
    /// Its head has too many fields or bytes.
    HeadTooLarge,
    /// Its head cannot be read.
    MalformedHead,
    /// Its head was not complete in time.
    HeadTimeout,
    /// Its connection was closed to make room before its head was complete.
    Evicted,
    /// There is no such URL.
    UnknownPath,
    /// There is no such source.
    UnknownSource,
    /// The URL does not take this method.
    Method,
    /// The name it asks for is none of the listener's.
    UnknownHost,
}

impl Reason {
    const ALL: [Self; 11] = [
        Self::ProxyProtocol,
        Self::Tls,
        Self::Http2,
        Self::HeadTooLarge,
        Self::MalformedHead,
        Self::HeadTimeout,
        Self::Evicted,
        Self::UnknownPath,
        Self::UnknownSource,
        Self::Method,
        Self::UnknownHost,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::ProxyProtocol => "proxy-protocol",
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::HeadTooLarge => "head-too-large",
            Self::MalformedHead => "malformed-head",
            Self::HeadTimeout => "head-timeout",
            Self::Evicted => "evicted",
            Self::UnknownPath => "unknown-path",
            Self::UnknownSource => "unknown-source",
            Self::Method => "method",
            Self::UnknownHost => "unknown-host",
        }
    }
}

/// Counts and logs what one listener refuses.
#[derive(Debug)]
pub struct Refusals {
    listener: &'static str,
    metrics: Arc<Metrics>,
    throttles: Throttles,
}

impl Refusals {
    /// Those of the listener that the configuration calls so.
    #[must_use]
    pub fn of(listener: &'static str, metrics: Arc<Metrics>) -> Arc<Self> {
        for reason in Reason::ALL {
            metrics.refusal_possible(reason.as_str());
        }
        Arc::new(Self {
            listener,
            metrics,
            throttles: Throttles::default(),
        })
    }
}

/// The other end of one connection, and how its latest request began.
#[derive(Debug)]
pub(super) struct Peer {
    refusals: Arc<Refusals>,
    address: Option<SocketAddr>,
    opening: Mutex<Opening>,
}

impl Peer {
    /// Whoever has connected from there; `None` if the kernel does not know any more.
    pub(super) fn new(refusals: Arc<Refusals>, address: Option<SocketAddr>) -> Self {
        Self {
            refusals,
            address,
            opening: Mutex::default(),
        }
    }

    /// The connection that a request came on; `None` if it came on none.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().cloned()
    }

    /// Bytes of a request's head have arrived, the very first ones or more of them.
    pub(super) fn head_arrived(&self, bytes: &[u8], is_first: bool) {
        let mut opening = self.opening();
        if is_first {
            *opening = Opening::default();
        }
        opening.arrived(bytes);
    }

    /// The parser answers with this status on its own.
    pub(super) fn refused_by_parser(&self, status: u16) {
        let reason = match status {
            414 | 431 => Reason::HeadTooLarge,
            _ => Reason::MalformedHead,
        };
        self.refused_as(reason);
    }

    /// The head of a request was complete: what is refused on this connection now is another one.
    pub(super) fn request_began(&self) {
        self.opening().is_reported = false;
    }

    /// A request is refused whose head could not be read to its end.
    pub(super) fn refused_as(&self, reason: Reason) {
        if std::mem::replace(&mut self.opening().is_reported, true) {
            return;
        }
        let mistake = self.opening().mistake();
        let reason = mistake.map_or(reason, |mistake| mistake.reason.unwrap_or(reason));
        let hint = mistake.map(|mistake| mistake.hint);
        self.refused(reason, "", hint);
    }

    /// A request is refused; `subject` is what it asked for, in its sender's words.
    pub(super) fn refused(&self, reason: Reason, subject: &str, hint: Option<&str>) {
        let (listener, reason) = (self.refusals.listener, reason.as_str());
        self.refusals.metrics.request_refused(reason);
        let Some(suppressed) = self.refusals.throttles.should_log(reason) else {
            return;
        };
        let subject = Some(shown(subject.as_bytes())).filter(|subject| !subject.is_empty());
        let (peer, forwarded_for) = (self.address(), self.forwarded_for());
        tracing::warn!(
            listener,
            reason,
            peer,
            forwarded_for,
            subject,
            hint,
            suppressed,
            "request refused before routing"
        );
    }

    /// Where it comes from, for the log.
    pub(super) fn address(&self) -> Option<String> {
        let address = self.address?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()).to_string())
    }

    /// Whom a proxy claims to speak for, for the log.
    pub(super) fn forwarded_for(&self) -> Option<String> {
        self.opening().forwarded_for().map(str::to_owned)
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Foreign text that is not too long for the log, which escapes what has to be.
fn shown(text: &[u8]) -> String {
    let end = text.len().min(TEXT_BYTES_MAX);
    let mark = if end < text.len() { "…" } else { "" };
    format!("{}{mark}", String::from_utf8_lossy(&text[..end]))
}
