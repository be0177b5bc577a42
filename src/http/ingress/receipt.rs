//! The answer to a webhook that is stored: how many elements are valid, and what is wrong with the
//! others.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use crate::http::json::Json;
use crate::webhook::split::diagnosis;
use crate::webhook::{Content, Webhook};

/// Maximum number of problems listed in one answer; `dead_lettered` counts all of them.
pub(super) const PROBLEMS_MAX: usize = 100;

/// The body of a 202.
#[derive(Debug, Serialize)]
pub(super) struct Receipt {
    pub(super) webhook_id: Uuid,
    pub(super) accepted: usize,
    pub(super) dead_lettered: usize,
    pub(super) problems: Vec<ElementProblem>,
    /// The probable cause if there are elements and none is valid; for the log.
    #[serde(skip)]
    pub(super) cause: Option<String>,
}

/// Why one element is dead-lettered.
#[derive(Debug, Serialize)]
pub(super) struct ElementProblem {
    index: u32,
    reason: &'static str,
    detail: String,
}

impl Receipt {
    /// The receipt for a webhook, to be sent once the webhook is stored.
    pub(super) fn of(webhook: &Webhook) -> Self {
        let rejects = || {
            webhook
                .events
                .iter()
                .filter_map(|event| match &event.content {
                    Content::Session(_) => None,
                    Content::Reject(reject) => Some((event.index, reject)),
                })
        };
        let dead_lettered = rejects().count();
        let accepted = webhook.events.len() - dead_lettered;
        let cause = || diagnosis::likeliest(webhook);
        let problem = |(index, reject): (u32, &crate::webhook::Reject)| ElementProblem {
            index,
            reason: reject.reason.as_str(),
            detail: reject.detail.clone(),
        };
        Self {
            webhook_id: webhook.envelope.webhook_id,
            accepted,
            dead_lettered,
            problems: rejects().take(PROBLEMS_MAX).map(problem).collect(),
            cause: (accepted == 0).then(cause).flatten(),
        }
    }
}

impl IntoResponse for Receipt {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self)).into_response()
    }
}
