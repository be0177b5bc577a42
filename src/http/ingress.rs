//! `POST /webhooks/{source}`: limits, signature, split, journal, answer. Nothing of a request is
//! parsed before it is known to be authentic, and nothing is answered 2xx before it is held.

mod receipt;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::body::{BodyError, Budget, Buffered};
use super::hold::Hold;
use super::problem::Problem;
use super::sources::{Source, Sources};
use super::throttle::Throttle;
use crate::config;
use crate::telemetry::metrics::Metrics;
use crate::webhook::signature::{self, Keys, Signature};
use crate::webhook::split::split;
use crate::webhook::{Envelope, Webhook};
use receipt::Receipt;
use refusal::Refusal;

/// How long a disk may take before a request is refused.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Larger bodies are verified and split where they keep nobody else waiting.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// The longest `traceparent` and `tracestate` that are passed on, in bytes.
const TRACEPARENT_BYTES_MAX: usize = 255;
const TRACESTATE_BYTES_MAX: usize = 512;

/// Receives webhooks.
#[derive(Debug)]
pub struct Ingress<H> {
    journal: H,
    sources: Sources,
    metrics: Arc<Metrics>,
    budget: Budget,
    body_bytes_max: u64,
    body_timeout: Duration,
    sessions_max: usize,
    /// How long the disk may take before a request is refused.
    pub(super) append_timeout: Duration,
    complaints: Throttle,
}

impl<H: Hold> Ingress<H> {
    /// Holds webhooks of these sources in this journal.
    pub fn new(
        config: &config::http::Http,
        sources: Sources,
        journal: H,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            journal,
            sources,
            metrics,
            budget: Budget::new(config.buffered_bytes_max),
            body_bytes_max: config.body_bytes_max,
            body_timeout: config.body_timeout,
            sessions_max: config.sessions_max,
            append_timeout: APPEND_TIMEOUT,
            complaints: Throttle::default(),
        }
    }

    /// All URLs of the public listener.
    pub fn router(self) -> Router {
        Router::new()
            .route("/webhooks/{source}", any(receive::<H>))
            .fallback(elsewhere::<H>)
            .with_state(Arc::new(self))
    }

    async fn receive(
        self: &Arc<Self>,
        source: Option<&Arc<Source>>,
        request: Request<Body>,
    ) -> Result<Receipt, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        let source = source.ok_or(Refusal::UnknownSource)?;
        let (head, body) = request.into_parts();
        if !is_identity(&head.headers) {
            return Err(Refusal::Encoded);
        }
        let signature = source.keys.read(head.headers.get_all(signature::HEADER))?;
        if body.size_hint().lower() > self.body_bytes_max {
            return Err(BodyError::TooLarge.into());
        }
        if let Some(refusal) = self.journal.refusal() {
            return Err(refusal.into());
        }
        let deadline = Instant::now() + self.body_timeout;
        let Buffered { bytes, reserved } = self
            .budget
            .read(body, self.body_bytes_max, deadline)
            .await?;
        let envelope = envelope(source, &head.headers);
        let webhook = self.open(source, signature, envelope, bytes).await?;
        let receipt = Receipt::of(&webhook);

        // A task of its own: it keeps the memory reserved until the journal is done with the
        // body, even if the sender has gone or was refused meanwhile.
        let append = self.journal.append(webhook);
        let task = tokio::spawn(async move {
            let outcome = append.await;
            drop(reserved);
            outcome
        });
        match timeout(self.append_timeout, task).await {
            Ok(Ok(Ok(()))) => Ok(receipt),
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(panic)) => Err(panic.into()),
            Err(_) => Err(Refusal::SlowDisk),
        }
    }

    /// Verifies and splits.
    async fn open(
        self: &Arc<Self>,
        source: &Arc<Source>,
        signature: Signature,
        envelope: Envelope,
        body: Bytes,
    ) -> Result<Webhook, Refusal> {
        if body.len() <= INLINE_BYTES_MAX {
            return self.open_now(source, &signature, envelope, body);
        }
        let (ingress, source) = (Arc::clone(self), Arc::clone(source));
        spawn_blocking(move || ingress.open_now(&source, &signature, envelope, body)).await?
    }

    fn open_now(
        &self,
        source: &Source,
        signature: &Signature,
        envelope: Envelope,
        body: Bytes,
    ) -> Result<Webhook, Refusal> {
        let verified = source.keys.verify(signature, body)?;
        self.metrics
            .webhook_received(&source.name, envelope.received_at);
        let webhook = split(verified, envelope, self.sessions_max)?;
        match (&source.keys, webhook.malformed()) {
            (Keys::Unsigned, Some(reject)) => Err(Refusal::Malformed(reject.detail.clone())),
            _ => Ok(webhook),
        }
    }

    /// Counts an answer, and logs what an operator should know of it.
    fn answered(&self, source: Option<&Arc<Source>>, result: Result<Receipt, Refusal>) -> Response {
        let name = source.map(|source| &source.name);
        let response = match result {
            Ok(receipt) => {
                tracing::debug!(
                    webhook_id = %receipt.webhook_id,
                    source = name.map(|name| &**name),
                    accepted = receipt.accepted,
                    dead_lettered = receipt.dead_lettered,
                    "webhook held"
                );
                receipt.into_response()
            }
            Err(refusal) => {
                if refusal.is_worth_a_warning() && self.complaints.permits() {
                    tracing::warn!(source = name.map(|name| &**name), reason = %refusal, "webhook refused");
                } else {
                    tracing::debug!(source = name.map(|name| &**name), reason = %refusal, "webhook refused");
                }
                Problem::from(refusal).into_response()
            }
        };
        self.metrics
            .webhook_answered(name, response.status().as_u16());
        response
    }
}

async fn receive<H: Hold>(
    State(ingress): State<Arc<Ingress<H>>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request<Body>,
) -> Response {
    let source = name.ok().and_then(|Path(name)| ingress.sources.get(&name));
    let result = ingress.receive(source.as_ref(), request).await;
    ingress.answered(source.as_ref(), result)
}

async fn elsewhere<H: Hold>(State(ingress): State<Arc<Ingress<H>>>) -> Response {
    ingress.answered(None, Err(Refusal::UnknownPath))
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        let mut encodings = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii);
        encodings.all(|encoding| encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity"))
    })
}

fn envelope(source: &Source, headers: &HeaderMap) -> Envelope {
    let traceparent = trace_context(headers, "traceparent", TRACEPARENT_BYTES_MAX);
    let tracestate = traceparent
        .is_some()
        .then(|| trace_context(headers, "tracestate", TRACESTATE_BYTES_MAX))
        .flatten();
    Envelope {
        webhook_id: Uuid::now_v7(),
        source: Arc::clone(&source.name),
        received_at: Timestamp::now(),
        traceparent,
        tracestate,
    }
}

/// The values of a header in one, if they are printable and not too long.
fn trace_context(headers: &HeaderMap, name: &str, bytes_max: usize) -> Option<String> {
    let values = headers.get_all(name).iter().map(HeaderValue::to_str);
    let value = values.collect::<Result<Vec<_>, _>>().ok()?.join(",");
    (!value.is_empty() && value.len() <= bytes_max).then_some(value)
}
