//! Why a request is not accepted, and what its sender is told to do about it.

use hyper::StatusCode;

use crate::http::body::BodyError;
use crate::http::problem::Problem;
use crate::journal::WriteError;
use crate::webhook::signature::BadSignature;
use crate::webhook::split::TooManySessions;

/// Seconds after which a sender should retry while the journal is full or failing.
const JOURNAL_RETRY_SECONDS: u32 = 10;

/// Seconds after which a sender should retry while memory for bodies is exhausted.
const MEMORY_RETRY_SECONDS: u32 = 1;

/// Why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no such URL")]
    UnknownPath,
    #[error("there is no such source")]
    UnknownSource,
    #[error("the method is not POST")]
    Method,
    #[error("the body is encoded")]
    Encoded,
    #[error(transparent)]
    Signature(#[from] BadSignature),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    TooManySessions(#[from] TooManySessions),
    #[error("the body is malformed: {0}")]
    Malformed(String),
    #[error(transparent)]
    Journal(#[from] WriteError),
    #[error("the journal's disk is too slow")]
    SlowDisk,
    #[error("an internal task failed")]
    Failed,
}

impl Refusal {
    /// The kind of warning to log, of which one is written per second. `None` if there is no
    /// warning: an unsigned body is malformed, or `refused` has already reported the request.
    pub(super) fn kind_of_warning(&self) -> Option<&'static str> {
        match self {
            Self::UnknownPath | Self::UnknownSource | Self::Method | Self::Malformed(_) => None,
            Self::Encoded => Some("encoded"),
            Self::Signature(BadSignature::Missing) => Some("unsigned"),
            Self::Signature(BadSignature::Mismatch { .. }) => Some("mismatch"),
            Self::Signature(_) => Some("signature"),
            Self::Body(_) => Some("body"),
            Self::TooManySessions(_) => Some("sessions"),
            Self::Journal(_) | Self::SlowDisk => Some("journal"),
            Self::Failed => Some("failed"),
        }
    }

    /// Whether the journal refused the webhook, whatever its content.
    pub(super) fn is_of_the_journal(&self) -> bool {
        matches!(self, Self::Journal(_) | Self::SlowDisk)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownPath => not_found("Send webhooks with POST to /webhooks/{source}."),
            Refusal::UnknownSource => not_found(
                "No source of this name is configured. Compare the URL with the [sources] of the bridge.",
            ),
            Refusal::Method => Self::method_not_allowed("POST"),
            Refusal::Encoded => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Send the body as it is, without Content-Encoding.",
            ),
            Refusal::Signature(_) => Self::new(
                StatusCode::UNAUTHORIZED,
                "Sign the raw body: x-dd-signature: sha256=<HMAC-SHA256 with a secret of this source>.",
            ),
            Refusal::Body(error) => body(error),
            Refusal::TooManySessions(error) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "Send at most {} sessions in one webhook, or raise http.sessions_max of the bridge.",
                    error.sessions_max
                ),
            ),
            Refusal::Malformed(detail) => Self::new(
                StatusCode::BAD_REQUEST,
                format!("Send a JSON array of sessions: {detail}."),
            ),
            Refusal::Journal(_) | Refusal::SlowDisk => Self::unavailable(
                "The bridge cannot store webhooks at the moment. Send this one again.",
                JOURNAL_RETRY_SECONDS,
            ),
            Refusal::Failed => Self::failed(),
        }
    }
}

fn not_found(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, detail)
}

fn body(error: BodyError) -> Problem {
    match error {
        BodyError::TooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Send fewer sessions in one webhook, or raise http.body_bytes_max of the bridge.",
        ),
        BodyError::TooSlow => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "Send the whole body without a pause.",
        ),
        BodyError::Exhausted => Problem::unavailable(
            "Too many large webhooks arrive at once. Send this one again.",
            MEMORY_RETRY_SECONDS,
        ),
        BodyError::Broken => Problem::new(
            StatusCode::BAD_REQUEST,
            "The body ended early or its chunks are broken. Send it again.",
        ),
    }
}
