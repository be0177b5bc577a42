//! Builds spans and passes them to the exporter's queue. Every span is built when it has ended: an
//! open one costs no memory but that of [`WebhookSpan`].
//!
//! Trace id and span id of a request are computed from what the journal stores of a webhook, so that
//! its events are published within the same trace after a restart, too.

mod environment;
mod export;
mod transport;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    IdGenerator, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanLinks,
};
use ring::digest::{SHA256, digest};

use self::export::Queue;
use super::{Origin, Publication, endpoint};

/// The value of `http.route`.
const ROUTE: &str = "/webhooks/{source}";

/// Records spans and exports them, if the environment names a collector. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    sampler: Box<dyn ShouldSample>,
    ids: Box<dyn IdGenerator>,
    scope: InstrumentationScope,
    queue: Queue,
}

/// A sampled trace: its parent outside of the bridge, and the span of the request.
#[derive(Debug)]
struct Trace {
    parent_id: SpanId,
    request: SpanContext,
}

/// The span of a webhook's request, from the verified signature to the answer. Dropped before
/// [`WebhookSpan::answered`], it ends as `cancelled`: the sender has closed the connection.
#[derive(Debug, Default)]
pub struct WebhookSpan(Option<Box<OpenSpan>>);

#[derive(Debug)]
struct OpenSpan {
    recorder: Arc<Recorder>,
    trace: Trace,
    attributes: Vec<KeyValue>,
    began: SystemTime,
    code: Option<u16>,
}

impl Traces {
    /// Exports to the collector that the environment names. Must be called within a tokio runtime.
    /// What is wrong with the environment is logged, without its values: they may be secrets.
    #[must_use]
    pub fn from_environment() -> Self {
        let recorder = endpoint().and_then(|(name, url)| environment::recorder(name, &url));
        Self(recorder.map(Arc::new))
    }

    /// Begins the span of a request that began `elapsed` ago. Call this only when its signature is
    /// verified: until then, its `traceparent` may be anybody's.
    #[must_use]
    pub fn webhook(&self, origin: Origin<'_>, source: &Arc<str>, elapsed: Duration) -> WebhookSpan {
        let open = |recorder: &Arc<Recorder>| {
            let trace = recorder.trace(origin)?;
            Some(Box::new(OpenSpan {
                recorder: Arc::clone(recorder),
                trace,
                attributes: vec![
                    KeyValue::new("http.request.method", "POST"),
                    KeyValue::new("http.route", ROUTE),
                    KeyValue::new("url.path", format!("/webhooks/{source}")),
                    KeyValue::new("url.scheme", "http"),
                    KeyValue::new("deskbridge.source", Arc::clone(source)),
                    KeyValue::new("deskbridge.webhook.id", origin.webhook_id.to_string()),
                ],
                began: SystemTime::now() - elapsed,
                code: None,
            }))
        };
        WebhookSpan(self.0.as_ref().and_then(open))
    }

    /// Records an attempt to publish an event that has just ended.
    pub fn published(&self, publication: Publication<'_>) {
        let Some(recorder) = &self.0 else { return };
        let Some(trace) = recorder.trace(publication.origin) else {
            return;
        };
        let Publication {
            exchange,
            routing_key,
            session,
            ..
        } = publication;
        let name = format!("publish {exchange}");
        let mut span = recorder.child(&trace, name, SpanKind::Producer, publication.elapsed);
        span.attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new(
                "messaging.destination.name",
                destination(exchange, routing_key),
            ),
            KeyValue::new(
                "messaging.rabbitmq.destination.routing_key",
                routing_key.to_owned(),
            ),
            KeyValue::new("messaging.message.id", publication.message_id.to_string()),
            KeyValue::new(
                "messaging.message.body.size",
                i64::try_from(publication.body_bytes).unwrap_or(i64::MAX),
            ),
        ];
        let session = session.map(str::to_owned);
        let session = session.map(|id| KeyValue::new("messaging.message.conversation_id", id));
        span.attributes.extend(session);
        if let Some(error) = publication.error {
            fail(&mut span, error.into());
        }
        recorder.queue.push(span);
    }

    /// Ends the recording and exports what is queued. Does not wait longer than a second.
    pub async fn flush(&self) {
        if let Some(recorder) = &self.0 {
            recorder.queue.flush().await;
        }
    }
}

impl WebhookSpan {
    /// Records the append to the journal, from the request to the end of its group commit.
    pub fn appended(&self, elapsed: Duration, is_stored: bool) {
        let Some(open) = &self.0 else { return };
        let kind = SpanKind::Internal;
        let mut span = open
            .recorder
            .child(&open.trace, "journal append", kind, elapsed);
        if !is_stored {
            fail(&mut span, "refused".into());
        }
        open.recorder.queue.push(span);
    }

    /// Ends the span with the status code of the answer.
    pub fn answered(mut self, code: u16) {
        if let Some(open) = &mut self.0 {
            open.code = Some(code);
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed().unwrap_or_default();
        let name = format!("POST {ROUTE}");
        let mut span = self
            .recorder
            .child(&self.trace, name, SpanKind::Server, elapsed);
        span.span_context = self.trace.request.clone();
        span.parent_span_id = self.trace.parent_id;
        span.parent_span_is_remote = self.trace.parent_id != SpanId::INVALID;
        span.attributes = std::mem::take(&mut self.attributes);
        let code = self
            .code
            .map(|code| KeyValue::new("http.response.status_code", i64::from(code)));
        span.attributes.extend(code);
        match self.code {
            None => fail(&mut span, "cancelled".into()),
            // A client error is none of the server: semantic conventions for HTTP spans.
            Some(code) if code >= 500 => fail(&mut span, code.to_string().into()),
            Some(_) => {}
        }
        self.recorder.queue.push(span);
    }
}

impl Recorder {
    /// The trace of a webhook; `None` if it is not sampled. Gives the same answer each time.
    fn trace(&self, origin: Origin<'_>) -> Option<Trace> {
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &origin);
        let computed = digest(&SHA256, origin.webhook_id.as_bytes());
        let (trace_id, rest) = computed.as_ref().split_first_chunk::<16>()?;
        let span_id = SpanId::from_bytes(*rest.first_chunk::<8>()?);
        let sent = context.span();
        let sent = sent.span_context();
        let trace_id = if sent.is_valid() {
            sent.trace_id()
        } else {
            TraceId::from_bytes(*trace_id)
        };
        let sampling = self.sampler.should_sample(
            Some(&context),
            trace_id,
            ROUTE,
            &SpanKind::Server,
            &[],
            &[],
        );
        (sampling.decision == SamplingDecision::RecordAndSample).then(|| Trace {
            parent_id: sent.span_id(),
            request: SpanContext::new(
                trace_id,
                span_id,
                TraceFlags::SAMPLED,
                false,
                sent.trace_state().clone(),
            ),
        })
    }

    /// A span below that of the request, which began `elapsed` ago and ends now.
    fn child(
        &self,
        trace: &Trace,
        name: impl Into<Cow<'static, str>>,
        span_kind: SpanKind,
        elapsed: Duration,
    ) -> SpanData {
        let end_time = SystemTime::now();
        let request = &trace.request;
        SpanData {
            span_context: SpanContext::new(
                request.trace_id(),
                self.ids.new_span_id(),
                request.trace_flags(),
                false,
                request.trace_state().clone(),
            ),
            parent_span_id: request.span_id(),
            parent_span_is_remote: false,
            span_kind,
            name: name.into(),
            start_time: end_time - elapsed,
            end_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl Extractor for Origin<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

fn fail(span: &mut SpanData, error: Cow<'static, str>) {
    span.attributes.push(KeyValue::new("error.type", error));
    span.status = Status::error("");
}

/// `exchange:routing key`, or the one that is not empty: semantic conventions for RabbitMQ.
fn destination(exchange: &str, routing_key: &str) -> String {
    match (exchange, routing_key) {
        (only, "") | ("", only) => only.to_owned(),
        _ => format!("{exchange}:{routing_key}"),
    }
}
