//! `POST /webhooks/{source}`: limits, signature, split, journal, answer. Nothing of a request is
//! parsed before it is known to be authentic, and nothing is answered 2xx before it is held.

mod head;
mod receipt;
mod recovery;
mod refusal;
mod routes;
mod sealed;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use hyper::{HeaderMap, Request};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::body::{BodyError, Budget, Reserved};
use super::hold::Hold;
use super::problem::Problem;
use super::progress::Progress;
use super::refused::Peer;
use super::sources::{Source, Sources};
use super::throttle::Throttles;
use crate::config;
use crate::failpoint::{self, Place};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::SourceRefusal;
use crate::webhook::Webhook;
use crate::webhook::signature::{self, Keys, Signature};
use receipt::Receipt;
use recovery::Recovery;
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
    throttles: Throttles,
    recovery: Recovery,
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
            throttles: Throttles::default(),
            recovery: Recovery::default(),
        }
    }

    async fn receive(
        &self,
        source: &Arc<Source>,
        request: Request<Body>,
    ) -> Result<Receipt, Refusal> {
        let (mut head, body) = request.into_parts();
        let progress = head.extensions.remove::<Arc<Progress>>();
        let coding = head::content_coding(&head.headers);
        let signature = self.admit(source, &head.headers, &body, coding.as_deref())?;
        let trace = head::trace(&head.headers);
        // While the body is on its way nothing is kept of the head but this.
        drop(head);
        let deadline = Instant::now() + self.body_timeout;
        let buffered = self.budget.read(body, deadline).await?;
        let sealed = Sealed {
            source: Arc::clone(source),
            signature,
            envelope: head::envelope(&source.name, trace),
            coding,
            body: buffered.bytes,
            sessions_max: self.sessions_max,
        };
        let opened = sealed.open().await?;
        if let Some(progress) = progress {
            progress.request_verified(matches!(source.keys, Keys::AnyOf(_)));
        }
        let secret = opened.secret();
        let for_events = self
            .budget
            .reserve_for_events(opened.body(), self.sessions_max, deadline)
            .await?;
        let webhook = opened.split().await?;
        let received_at = webhook.envelope.received_at;
        self.metrics.webhook_received(&source.name, received_at);
        self.sources.received(source, received_at, secret);
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
        coding: Option<&str>,
    ) -> Result<Signature, Refusal> {
        // A signed body is taken as it is, whatever it is called: refusing it pauses its sender.
        if coding.is_some() && matches!(source.keys, Keys::Unsigned) {
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

    /// The memory stays reserved until the journal is done with the body, even if the sender has
    /// gone or was refused meanwhile.
    async fn hold(
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

    /// Counts an answer, and logs what an operator should know of it.
    fn answer(
        self: &Arc<Self>,
        source: Option<&Source>,
        peer: Option<&Peer>,
        result: Result<Receipt, Refusal>,
    ) -> Response {
        let name = source.map(|source| &source.name);
        let response = match result {
            Ok(receipt) => {
                failpoint::pass(Place::HttpAnswerBefore);
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
            tracing::info!(source = name, %webhook_id, accepted, dead_lettered, "first webhook of this source accepted");
        }
        tracing::debug!(source = name, %webhook_id, accepted, dead_lettered, "webhook held");
        if let Some(cause) = &receipt.cause
            && let Some(suppressed) = self.throttles.should_log("nothing-valid")
        {
            tracing::warn!(
                source = name,
                %webhook_id,
                dead_lettered,
                cause,
                suppressed,
                "webhook without a single valid session; dead-lettered"
            );
        }
    }

    fn log_refused(&self, source: Option<&Arc<str>>, peer: Option<&Peer>, refusal: &Refusal) {
        let source = source.map(|name| &**name);
        let peer_address = || peer.and_then(Peer::address);
        let worth = refusal.kind_of_warning();
        if let Some(suppressed) = worth.and_then(|kind| self.throttles.should_log(kind)) {
            tracing::warn!(
                source,
                reason = %refusal,
                peer = peer_address(),
                forwarded_for = peer.and_then(Peer::forwarded_for),
                suppressed,
                "webhook refused"
            );
        } else {
            tracing::debug!(source, reason = %refusal, peer = peer_address(), "webhook refused");
        }
    }
}
