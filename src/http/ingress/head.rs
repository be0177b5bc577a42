//! What the head of a request says about its body and where it comes from.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use jiff::Timestamp;
use uuid::Uuid;

use crate::webhook::Envelope;

/// The longest `traceparent` and `tracestate` that are passed on, in bytes.
const TRACEPARENT_BYTES_MAX: usize = 255;
const TRACESTATE_BYTES_MAX: usize = 512;

/// Whether the body is sent as it is.
pub(super) fn is_identity(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        let mut encodings = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii);
        encodings.all(|encoding| encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity"))
    })
}

/// The W3C trace context of a request.
#[derive(Debug, Default)]
pub(super) struct Trace {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

/// What is passed on of the trace context.
pub(super) fn trace(headers: &HeaderMap) -> Trace {
    let traceparent = trace_context(headers, "traceparent", TRACEPARENT_BYTES_MAX);
    let tracestate = match traceparent {
        Some(_) => trace_context(headers, "tracestate", TRACESTATE_BYTES_MAX),
        None => None,
    };
    Trace {
        traceparent,
        tracestate,
    }
}

/// What the events of a request share whose body is complete at this moment.
pub(super) fn envelope(source: &Arc<str>, trace: Trace) -> Envelope {
    Envelope {
        webhook_id: Uuid::now_v7(),
        source: Arc::clone(source),
        received_at: Timestamp::now(),
        traceparent: trace.traceparent,
        tracestate: trace.tracestate,
    }
}

/// The values of a header in one, if they are printable and not too long.
fn trace_context(headers: &HeaderMap, name: &str, bytes_max: usize) -> Option<String> {
    let values = headers.get_all(name).iter().map(HeaderValue::to_str);
    let value = values.collect::<Result<Vec<_>, _>>().ok()?.join(",");
    (!value.is_empty() && value.len() <= bytes_max).then_some(value)
}
