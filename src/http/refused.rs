//! Requests that are refused before they reach a source. Each is counted, and a throttled log line
//! says where it came from and, if the mistake can be recognised, what it is. Without this, a wrong
//! setting of a proxy would not be visible anywhere: no source's counters include such requests.

mod first_bytes;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::{Method, Request};

use self::first_bytes::FirstBytes;
use super::progress::Progress;
use super::throttle::Throttles;
use crate::telemetry::metrics::Metrics;

/// Maximum length of foreign text in one field of the log, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// Minimum time between two log lines about refused requests with GET or HEAD. They are those of
/// monitors and scanners: webhooks use POST.
const PROBE_PERIOD: Duration = Duration::from_hours(1);

/// Why a request did not reach a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// It begins with the header of the PROXY protocol.
    ProxyProtocol,
    /// It is a TLS handshake.
    Tls,
    /// It is HTTP/2 without TLS.
    Http2,
    /// Its head has too many fields or bytes.
    HeadTooLarge,
    /// Its head cannot be parsed.
    MalformedHead,
    /// Its head was not complete in time.
    HeadTimeout,
    /// Its connection was closed to make room before its signature was verified.
    Evicted,
    /// There is no such URL.
    UnknownPath,
    /// There is no such source.
    UnknownSource,
    /// The URL does not accept this method.
    Method,
    /// The host that it names is not one of the listener's.
    UnknownHost,
}

impl RefusalReason {
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

/// Counts and logs the requests that one listener refuses.
#[derive(Debug)]
pub struct RequestRefusals {
    listener: &'static str,
    metrics: Arc<Metrics>,
    throttles: Throttles,
    probes: Throttles,
}

impl RequestRefusals {
    /// Refusals of the listener with this name in the configuration. Creates the metric of each
    /// reason, at zero.
    #[must_use]
    pub fn of(listener: &'static str, metrics: Arc<Metrics>) -> Arc<Self> {
        for reason in RefusalReason::ALL {
            metrics.refusal_possible(reason.as_str());
        }
        Arc::new(Self {
            listener,
            metrics,
            throttles: Throttles::default(),
            probes: Throttles::every(PROBE_PERIOD),
        })
    }
}

/// The other end of one connection, and how its latest request began.
#[derive(Debug)]
pub(super) struct Peer {
    refusals: Arc<RequestRefusals>,
    address: SocketAddr,
    pub(super) progress: Arc<Progress>,
    opening: Mutex<FirstBytes>,
}

impl Peer {
    /// The client at `address`.
    pub(super) fn new(
        refusals: Arc<RequestRefusals>,
        address: SocketAddr,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            refusals,
            address,
            progress,
            opening: Mutex::default(),
        }
    }

    /// The peer that sent a request.
    pub(super) fn of<B>(request: &Request<B>) -> Arc<Self> {
        let peer = request.extensions().get::<Arc<Self>>();
        Arc::clone(peer.expect("the connection adds it to every request"))
    }

    /// Reports the refusal of a request by its method and path.
    pub(super) fn refused_request<B>(
        request: &Request<B>,
        reason: RefusalReason,
        hint: Option<&str>,
    ) {
        let subject = format!("{} {}", request.method(), request.uri().path());
        let peer = Self::of(request);
        let throttles = match *request.method() {
            Method::GET | Method::HEAD => &peer.refusals.probes,
            _ => &peer.refusals.throttles,
        };
        peer.log_refused(throttles, reason, &subject, hint);
    }

    /// Records bytes of a request's head; `is_first` marks the first ones of a request.
    pub(super) fn head_arrived(&self, bytes: &[u8], is_first: bool) {
        let mut opening = self.opening();
        if is_first {
            *opening = FirstBytes::default();
        }
        opening.arrived(bytes);
    }

    /// Reports a request that the parser refuses by itself, with this status.
    pub(super) fn refused_by_parser(&self, status: u16) {
        let reason = match status {
            414 | 431 => RefusalReason::HeadTooLarge,
            _ => RefusalReason::MalformedHead,
        };
        self.refused_as(reason);
    }

    /// Records that the head of a request was complete: the next refusal on this connection
    /// concerns another request.
    pub(super) fn request_began(&self) {
        self.opening().is_reported = false;
    }

    /// Reports the refusal of a request whose head could not be read completely, once per request.
    pub(super) fn refused_as(&self, reason: RefusalReason) {
        if std::mem::replace(&mut self.opening().is_reported, true) {
            return;
        }
        let mistake = self.opening().mistake();
        let reason = mistake.map_or(reason, |mistake| mistake.reason.unwrap_or(reason));
        let hint = mistake.map(|mistake| mistake.hint);
        self.refused(reason, "", hint);
    }

    /// Counts and logs the refusal of a request; `subject` is what it asked for, as sent.
    pub(super) fn refused(&self, reason: RefusalReason, subject: &str, hint: Option<&str>) {
        self.log_refused(&self.refusals.throttles, reason, subject, hint);
    }

    fn log_refused(
        &self,
        throttles: &Throttles,
        reason: RefusalReason,
        subject: &str,
        hint: Option<&str>,
    ) {
        let (listener, reason) = (self.refusals.listener, reason.as_str());
        self.refusals.metrics.request_refused(reason);
        let Some(suppressed) = throttles.should_log(reason) else {
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
            "HTTP request refused"
        );
    }

    /// Address and port of the client, for the log.
    pub(super) fn address(&self) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        SocketAddr::new(ip.to_canonical(), port).to_string()
    }

    /// The client for which a proxy claims to forward (`X-Forwarded-For`), for the log.
    pub(super) fn forwarded_for(&self) -> Option<String> {
        self.opening().forwarded_for().map(str::to_owned)
    }

    fn opening(&self) -> MutexGuard<'_, FirstBytes> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shortens foreign text for the log, which escapes control characters itself.
fn shown(text: &[u8]) -> String {
    let end = text.len().min(TEXT_BYTES_MAX);
    let mark = if end < text.len() { "…" } else { "" };
    format!("{}{mark}", String::from_utf8_lossy(&text[..end]))
}
