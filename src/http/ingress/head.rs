//! What the head of a request says about its body and its trace.

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderValue};

/// The longest `traceparent` and `tracestate` that are passed on, in bytes.
const TRACEPARENT_BYTES_MAX: usize = 255;
const TRACESTATE_BYTES_MAX: usize = 512;

/// Maximum length of a content coding that is repeated in a text, in bytes.
const CODING_BYTES_MAX: usize = 64;

/// The content codings that the head declares, for texts; `None` if there is none but `identity`.
pub(super) fn content_coding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let codings = codings.map(<[u8]>::trim_ascii);
    let named: Vec<_> = codings
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
        .collect();
    if named.is_empty() {
        return None;
    }
    let named = named.join(&b", "[..]);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b", -_.*".contains(byte);
    let is_shown = named.len() <= CODING_BYTES_MAX && named.iter().all(is_plain);
    let shown = String::from_utf8(named).ok().filter(|_| is_shown);
    Some(shown.unwrap_or_else(|| "(name not shown)".into()))
}

/// The `traceparent` and `tracestate` that are passed on; the latter only with the former.
pub(super) fn trace(headers: &HeaderMap) -> (Option<String>, Option<String>) {
    let traceparent = trace_context(headers, "traceparent", TRACEPARENT_BYTES_MAX);
    let tracestate = match traceparent {
        Some(_) => trace_context(headers, "tracestate", TRACESTATE_BYTES_MAX),
        None => None,
    };
    (traceparent, tracestate)
}

/// The values of a header, joined with commas, if they are printable and not too long.
fn trace_context(headers: &HeaderMap, name: &str, bytes_max: usize) -> Option<String> {
    let values = headers.get_all(name).iter().map(HeaderValue::to_str);
    let value = values.collect::<Result<Vec<_>, _>>().ok()?.join(",");
    (!value.is_empty() && value.len() <= bytes_max).then_some(value)
}
