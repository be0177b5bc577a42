//! `POST /webhooks/{source}`: limits, signature, split, journal, answer. No body is parsed before
//! its signature is verified, and no 2xx is sent before the webhook is stored durably.

mod head;
mod receipt;
mod recovery;
mod refusal;
mod routes;
mod verify_and_split;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use hyper::{HeaderMap, Request};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::body::{BodyError, Budget, Reserved};
use super::event_store::EventStore;
use super::problem::Problem;
use super::refused::Peer;
use super::sources::{Source, Sources};
use super::throttle::Throttles;
use crate::config;
use crate::failpoint::{self, Failpoint};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::SourceRefusal;
use crate::telemetry::traces::{Origin, Traces, WebhookSpan};
use crate::webhook::signature::{self, Keys, Signature};
use crate::webhook::{Envelope, Webhook};
use receipt::Receipt;
use recovery::Recovery;
use refusal::Refusal;

/// How long a request waits for the disk before it is refused.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Receives webhooks and appends them to the journal.
#[derive(Debug)]
pub struct Ingress<H> {
    config: config::http::Http,
    journal: H,
    sources: Sources,
    metrics: Arc<Metrics>,
    traces: Traces,
    pub(super) budget: Budget,
    /// How long a request waits for the disk before it is refused.
    pub(super) append_timeout: Duration,
    throttles: Throttles,
    recovery: Recovery,
}

impl<H: EventStore> Ingress<H> {
    /// An ingress that stores the webhooks of `sources` in `journal`.
    pub fn new(
        config: &config::http::Http,
        sources: Sources,
        journal: H,
        metrics: Arc<Metrics>,
        traces: Traces,
    ) -> Self {
        Self {
            journal,
            sources,
            metrics,
            traces,
            budget: Budget::new(config),
            config: config.clone(),
            append_timeout: APPEND_TIMEOUT,
            throttles: Throttles::default(),
            recovery: Recovery::default(),
        }
    }

    /// Stores the webhook of a request. Begins its span when the signature is verified.
    async fn receive(
        &self,
        source: &Arc<Source>,
        peer: &Peer,
        request: Request<Body>,
        span: &mut WebhookSpan,
    ) -> Result<Receipt, Refusal> {
        let (head, body) = request.into_parts();
        let coding = head::content_coding(&head.headers);
        let signature = self.admit(source, &head.headers, &body, coding.as_deref())?;
        let (traceparent, tracestate) = head::trace(&head.headers);
        // Nothing else of the head is kept in memory while the body arrives.
        drop(head);
        let began = Instant::now();
        let deadline = began + self.config.body_timeout;
        let (body, reserved) = self.budget.read(body, deadline).await?;
        peer.progress.body_read();
        let received_at = Timestamp::now();
        let envelope = Envelope {
            webhook_id: Uuid::now_v7(),
            source: Arc::clone(&source.name),
            received_at,
            traceparent,
            tracestate,
        };
        let body = verify_and_split::verify(source, signature, body).await?;
        let is_proof = matches!(source.keys, Keys::AnyOf(_));
        peer.progress.request_verified(is_proof);
        *span = self
            .traces
            .webhook(origin(&envelope), &source.name, began.elapsed());
        let secret = body.secret();
        let for_events = self
            .budget
            .reserve_for_events(body.as_ref(), self.config.sessions_max, deadline)
            .await?;
        let webhook =
            verify_and_split::split(source, body, envelope, coding, self.config.sessions_max)
                .await?;
        self.metrics.webhook_received(&source.name, received_at);
        self.sources.received(source, received_at, secret);
        let receipt = Receipt::of(&webhook);
        let began = Instant::now();
        let stored = self.store(webhook, (reserved, for_events)).await;
        span.appended(began.elapsed(), stored.is_ok());
        stored.map(|()| receipt)
    }

    /// Checks everything that can be checked without the body.
    fn admit(
        &self,
        source: &Source,
        headers: &HeaderMap,
        body: &Body,
        coding: Option<&str>,
    ) -> Result<Signature, Refusal> {
        // A signed body is accepted whatever its content coding: a refusal makes its sender pause.
        if coding.is_some() && matches!(source.keys, Keys::Unsigned) {
            return Err(Refusal::Encoded);
        }
        let signature = source.keys.read(headers.get_all(signature::HEADER))?;
        if body.size_hint().lower() > self.config.body_bytes_max {
            return Err(BodyError::TooLarge.into());
        }
        match self.journal.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(signature),
        }
    }

    /// Appends a webhook. Its memory stays reserved until the journal is done with the body, even
    /// if the sender has disconnected or was refused in the meantime.
    async fn store(
        &self,
        webhook: Webhook,
        reserved: (Option<Reserved>, OwnedSemaphorePermit),
    ) -> Result<(), Refusal> {
        let append = self.journal.append(webhook, Box::new(reserved));
        match timeout(self.append_timeout, append).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Refusal::SlowDisk),
        }
    }

    /// Builds the answer, counts it, and logs what an operator should know about it.
    fn answer(
        self: &Arc<Self>,
        source: Option<&Source>,
        peer: &Peer,
        result: Result<Receipt, Refusal>,
    ) -> Response {
        let name = source.map(|source| &source.name);
        let response = match result {
            Ok(receipt) => {
                failpoint::pass(Failpoint::HttpAnswerBefore);
                if let Some(source) = source {
                    self.log_accepted(source, &receipt);
                }
                receipt.into_response()
            }
            Err(refusal) => {
                self.log_refused(name, peer, &refusal);
                if refusal.is_of_the_journal() {
                    Recovery::refused(self, &refusal);
                }
                let reason = refusal.to_string();
                let problem = Problem::from(refusal);
                if let Some(source) = source {
                    let refused = SourceRefusal {
                        at: Timestamp::now(),
                        code: problem.status().as_u16(),
                        reason,
                    };
                    self.sources.refused(source, refused);
                }
                problem.into_response()
            }
        };
        self.metrics
            .webhook_answered(name, response.status().as_u16());
        response
    }

    fn log_accepted(&self, source: &Source, receipt: &Receipt) {
        self.recovery.accepted();
        let name = &*source.name;
        let Receipt {
            webhook_id,
            accepted,
            dead_lettered,
            ..
        } = receipt;
        if self.sources.accepted(source) {
            tracing::info!(source = name, %webhook_id, accepted, dead_lettered, "first webhook from this source accepted");
        }
        tracing::debug!(source = name, %webhook_id, accepted, dead_lettered, "webhook accepted");
        if let Some(cause) = &receipt.cause
            && let Some(suppressed) = self.throttles.should_log("nothing-valid")
        {
            tracing::warn!(
                source = name,
                %webhook_id,
                dead_lettered,
                cause,
                suppressed,
                "webhook has no valid session; dead-lettered"
            );
        }
    }

    fn log_refused(&self, source: Option<&Arc<str>>, peer: &Peer, refusal: &Refusal) {
        let source = source.map(|name| &**name);
        let warning_kind = refusal.kind_of_warning();
        if let Some(suppressed) = warning_kind.and_then(|kind| self.throttles.should_log(kind)) {
            tracing::warn!(
                source,
                reason = %refusal,
                peer = peer.address(),
                forwarded_for = peer.forwarded_for(),
                suppressed,
                "webhook refused"
            );
        } else {
            tracing::debug!(source, reason = %refusal, peer = peer.address(), "webhook refused");
        }
    }
}

fn origin(envelope: &Envelope) -> Origin<'_> {
    Origin {
        webhook_id: envelope.webhook_id,
        traceparent: envelope.traceparent.as_deref(),
        tracestate: envelope.tracestate.as_deref(),
    }
}
