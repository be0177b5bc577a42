//! Whether the bridge wrote a message, as far as the message tells. Pure.

use deskbridge::rabbitmq::queue::Letter;
use deskbridge::webhook::identity::message_id;

use super::summary::text;

const APP_ID: &str = "deskbridge";

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// Its id belongs to its source, session and body. Anybody can compute one: it is no proof.
    Bridge,
    /// It does not.
    Other,
    /// It has no body to judge by: the journal keeps what was too large to be sent.
    Unknown,
}

impl Author {
    /// Of this message.
    pub fn of(letter: &Letter) -> Self {
        let received = &letter.received;
        let source = text(letter, "source");
        let (Some(source), Some(id), Some(APP_ID)) =
            (source, &received.message_id, received.app_id.as_deref())
        else {
            return Self::Other;
        };
        if received.body.is_empty() {
            return Self::Unknown;
        }
        let session = text(letter, "session-id").unwrap_or_default();
        if message_id(source, session, &received.body).to_string() == *id {
            Self::Bridge
        } else {
            Self::Other
        }
    }

    /// In JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }

    /// In a table.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Other => "!",
            Self::Bridge | Self::Unknown => "",
        }
    }
}
