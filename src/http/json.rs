//! JSON answers that are safe to print on a terminal, although they contain text of senders and
//! brokers.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use crate::foreign;

/// An answer in JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        match text(&self.0) {
            Ok(text) => ([(CONTENT_TYPE, json)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// A value as JSON, in which characters that could control a terminal are escaped.
pub(super) fn text(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    Ok(foreign::json(&text).into_owned())
}
