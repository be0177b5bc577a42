//! Whether the bridge wrote a message, judged by its `message_id`. Pure.

use serde::Serialize;

use crate::rabbitmq::queue::QueuedMessage;
use crate::webhook::identity::message_id;

const APP_ID: &str = "deskbridge";

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Author {
    /// Its id belongs to its source, session and body. No proof: anybody can compute the id.
    Bridge,
    /// Its id does not belong to them, or a property or header is missing.
    Other,
    /// It has no body to judge by: a body that was too large to be sent is only in the journal.
    Unknown,
}

impl Author {
    /// Determines who wrote a message.
    pub fn of(message: &QueuedMessage) -> Self {
        let received = &message.received;
        let source = message.text("source");
        let (Some(source), Some(id), Some(APP_ID)) =
            (source, &received.message_id, received.app_id.as_deref())
        else {
            return Self::Other;
        };
        if received.body.is_empty() {
            return Self::Unknown;
        }
        let session = message.text("session-id").unwrap_or_default();
        if message_id(source, session, &received.body).to_string() == *id {
            Self::Bridge
        } else {
            Self::Other
        }
    }

    /// The mark in a table: `!` for a message that the bridge did not write.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::Other => "!",
            Self::Bridge | Self::Unknown => "",
        }
    }
}
