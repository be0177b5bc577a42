//! `POST /webhooks/{source}`: limits, signature, split, journal, answer. Nothing of a request is
//! parsed before it is known to be authentic, and nothing is answered 2xx before it is held.

mod head;
mod receipt;
mod refusal;
mod sealed;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Body as _;
use hyper::{HeaderMap, Method, Request};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::body::{BodyError, Budget, Reserved};
use super::hold::Hold;
use super::problem::Problem;
use super::progress::Progress;
use super::sources::{Source, Sources};
use super::throttle::Throttle;
use crate::config;
use crate::failpoint::{self, Place};
use crate::telemetry::metrics::Metrics;
use crate::webhook::Webhook;
use crate::webhook::signature::{self, Keys, Signature};
use receipt::Receipt;
use refusal::Refusal;
use sealed::Sealed;

/// How long a disk may take before a request is refused.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Receives webhooks.
#[derive(Debug)]
pub struct Ingress<H> {
    journal: H,
    sources: Sources,
    metrics: Arc<Metrics>,
    pub(super) budget: Budget,
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
            budget: Budget::new(config),
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
        &self,
        source: Option<&Arc<Source>>,
        request: Request<Body>,
    ) -> Result<Receipt, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        let source = source.ok_or(Refusal::UnknownSource)?;
        let (mut head, body) = request.into_parts();
        let progress = head.extensions.remove::<Arc<Progress>>();
        let signature = self.admit(source, &head.headers, &body)?;
        let trace = head::trace(&head.headers);
        // While the body is on its way nothing is kept of the head but this.
        drop(head);
        let deadline = Instant::now() + self.body_timeout;
        let buffered = self.budget.read(body, deadline).await?;
        let sealed = Sealed {
            source: Arc::clone(source),
            signature,
            envelope: head::envelope(&source.name, trace),
            body: buffered.bytes,
            sessions_max: self.sessions_max,
        };
        let opened = sealed.open().await?;
        if let Some(progress) = progress {
            progress.request_verified(matches!(source.keys, Keys::AnyOf(_)));
        }
        let for_events = self
            .budget
            .reserve_for_events(opened.body(), self.sessions_max, deadline)
            .await?;
        let webhook = opened.split().await?;
        self.metrics
            .webhook_received(&source.name, webhook.envelope.received_at);
        let receipt = Receipt::of(&webhook);
        self.hold(webhook, (buffered.reserved, for_events)).await?;
        Ok(receipt)
    }

    /// Everything that can be said without the body.
    fn admit(
        &self,
        source: &Source,
        headers: &HeaderMap,
        body: &Body,
    ) -> Result<Signature, Refusal> {
        if !head::is_identity(headers) {
            return Err(Refusal::Encoded);
        }
        let signature = source.keys.read(headers.get_all(signature::HEADER))?;
        if body.size_hint().lower() > self.body_bytes_max {
            return Err(BodyError::TooLarge.into());
        }
        match self.journal.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(signature),
        }
    }

    /// Appends in a task of its own: it keeps the memory reserved until the journal is done with
    /// the body, even if the sender has gone or was refused meanwhile.
    async fn hold(
        &self,
        webhook: Webhook,
        reserved: (Option<Reserved>, OwnedSemaphorePermit),
    ) -> Result<(), Refusal> {
        let append = self.journal.append(webhook);
        let task = tokio::spawn(async move {
            let outcome = append.await;
            drop(reserved);
            outcome
        });
        match timeout(self.append_timeout, task).await {
            Ok(outcome) => Ok(outcome??),
            Err(_) => Err(Refusal::SlowDisk),
        }
    }

    /// Counts an answer, and logs what an operator should know of it.
    fn answer(&self, source: Option<&Source>, result: Result<Receipt, Refusal>) -> Response {
        let source = source.map(|source| &source.name);
        let name = source.map(|name| &**name);
        let response = match result {
            Ok(receipt) => {
                failpoint::pass(Place::HttpAnswerBefore);
                let Receipt {
                    webhook_id,
                    accepted,
                    dead_lettered,
                    ..
                } = &receipt;
                tracing::debug!(source = name, %webhook_id, accepted, dead_lettered, "webhook held");
                receipt.into_response()
            }
            Err(refusal) => {
                if refusal.is_worth_a_warning() && self.complaints.permits() {
                    tracing::warn!(source = name, reason = %refusal, "webhook refused");
                } else {
                    tracing::debug!(source = name, reason = %refusal, "webhook refused");
                }
                Problem::from(refusal).into_response()
            }
        };
        self.metrics
            .webhook_answered(source, response.status().as_u16());
        response
    }
}

async fn receive<H: Hold>(
    State(ingress): State<Arc<Ingress<H>>>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let source = name.ok().and_then(|Path(name)| ingress.sources.get(&name));
    let result = ingress.receive(source.as_ref(), request).await;
    ingress.answer(source.as_deref(), result)
}

async fn elsewhere<H: Hold>(State(ingress): State<Arc<Ingress<H>>>) -> Response {
    ingress.answer(None, Err(Refusal::UnknownPath))
}
