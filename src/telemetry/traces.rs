//! Traces over OTLP. A webhook is one trace: a span for its request, below it one for the append to
//! the journal, and one for each attempt to publish each of its events. Without the cargo feature
//! `otel`, and without an endpoint in the environment, nothing is recorded.

#[cfg(not(feature = "otel"))]
mod absent;
#[cfg(feature = "otel")]
mod otlp;

use std::env;
use std::time::Duration;

use uuid::Uuid;

#[cfg(not(feature = "otel"))]
pub use absent::{Traces, WebhookSpan};
#[cfg(feature = "otel")]
pub use otlp::{Traces, WebhookSpan};

/// What a trace is identified by. It is the same for the request and for every publish attempt,
/// also after a restart, because the journal stores it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The webhook. Without a `traceparent`, the trace id is computed from it.
    pub webhook_id: Uuid,
    /// `traceparent` of the request. Ignored if it is invalid.
    pub traceparent: Option<&'a str>,
    /// `tracestate` of the request.
    pub tracestate: Option<&'a str>,
}

/// One attempt to publish one event, with its outcome.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// The webhook of the event.
    pub origin: Origin<'a>,
    /// The exchange; may be empty.
    pub exchange: &'a str,
    /// The routing key; may be empty.
    pub routing_key: &'a str,
    /// The message id.
    pub message_id: Uuid,
    /// The session id; `None` for a reject.
    pub session: Option<&'a str>,
    /// Length of the body.
    pub body_bytes: usize,
    /// Time from sending the publish window to its last confirm.
    pub elapsed: Duration,
    /// Why the event was not delivered, or why it is a dead letter.
    pub error: Option<&'static str>,
}

/// The variable that names the collector, and its value; `None` if nothing is to be exported.
/// Names and meanings: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.
fn endpoint() -> Option<(&'static str, String)> {
    let is = |name, value| env::var(name).is_ok_and(|set| set.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]
    .into_iter()
    .find_map(|name| Some((name, env::var(name).ok()?)))
    .filter(|(_, value)| !value.is_empty())
}
