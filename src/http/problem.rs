//! Error responses: RFC 9457 problem details that say what to do about the problem, and reveal
//! nothing of the internals.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;

use super::json;

/// The media type of a problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// One error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    header: Option<(hyper::header::HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A refusal with this status; `detail` says what to do about it.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            header: None,
        }
    }

    /// A 500, after a panic.
    pub(super) fn failed() -> Self {
        let detail = "The bridge failed to process this request; see its log. Send it again.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// A 405; `allow` lists the supported methods.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("This URL accepts only {allow}.");
        Self {
            header: Some((ALLOW, HeaderValue::from_static(allow))),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        }
    }

    /// A 503 that asks the sender to retry after `retry_after_seconds`.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, retry_after_seconds: u32) -> Self {
        Self {
            header: Some((RETRY_AFTER, retry_after_seconds.into())),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    fn body(&self) -> String {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        json::text(&body).expect("strings and a number are JSON")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        headers.extend(self.header.clone());
        (self.status, headers, self.body()).into_response()
    }
}

/// A complete response with the status in `head`: the head of the response that the parser wrote
/// because it could not read a request.
pub(super) fn instead_of(head: &[u8]) -> Bytes {
    let problem = unreadable(status_of(head));
    let body = problem.body();
    let mut response = format!(
        "HTTP/1.1 {}\r\ncontent-type: {CONTENT_TYPE_PROBLEM}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        problem.status,
        body.len(),
    )
    .into_bytes();
    response.extend(body.into_bytes());
    response.into()
}

/// The status in the first line of a response; 400 if it cannot be read.
pub(super) fn status_of(head: &[u8]) -> StatusCode {
    let digits = head.get(9..12).unwrap_or_default();
    StatusCode::from_bytes(digits).unwrap_or(StatusCode::BAD_REQUEST)
}

fn unreadable(status: StatusCode) -> Problem {
    Problem::new(
        status,
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "Send at most 100 header fields and 16 KiB of them."
            }
            StatusCode::URI_TOO_LONG => "Send the webhook to /webhooks/{source}.",
            _ => {
                "This is not an HTTP/1.1 request. Check the URL's scheme and port, and any proxy in between."
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_refusal_keeps_its_status_and_gets_a_body() {
        let bytes = instead_of(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n");
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
            "{text}"
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{text}"
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], 431);
    }

    #[test]
    fn problem_has_type_title_status_and_advice() {
        let problem = Problem::unavailable("Try again.", 10);
        assert_eq!(
            problem.body(),
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Try again."}"#
        );
        assert_eq!(problem.into_response().headers()["retry-after"], "10");
    }
}
