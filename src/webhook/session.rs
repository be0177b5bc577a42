//! A tolerant model of the whole `ChatSession` interface, for displaying and generating sessions.
//! Published messages do not go through it: the bridge passes bytes on.
//!
//! The published interface and the published example disagree, and the sender may extend both.
//! Therefore every field may be absent, `null` or of another shape ([`Lenient`]), and unknown
//! fields are ignored. Read an element of a webhook as `Lenient<ChatSession>`: even an element that
//! is not an object, or has a field twice, is then kept as text and is not an error.
//!
//! The JSON Schema of a session requires only what routing needs: `id` and `status`. [`strict`]
//! makes another one of it, for code generators.

mod lenient;
pub mod strict;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;

pub use self::lenient::Lenient;

/// A time as the sender writes it: in UTC, with seven fractional digits.
const TIME: &str = "2018-06-28T05:15:45.7824134Z";

/// Defines structs whose fields are all [`Lenient`], and not written while they are absent.
macro_rules! lenient {
    ($($(#[$of_struct:meta])* pub struct $name:ident {
        $($(#[$of_field:meta])* pub $field:ident: $shape:ty,)*
    })*) => {$(
        #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        $(#[$of_struct])*
        pub struct $name {
            $($(#[$of_field])*
            #[serde(skip_serializing_if = "Lenient::is_absent")]
            pub $field: Lenient<$shape>,)*
        }
    )*};
}

lenient! {
    /// One chat session, as it is at one moment.
    #[schemars(title = "Chat session", extend("required" = ["id", "status"]))]
    pub struct ChatSession {
        /// Identifies the session; the same in all its events. 1 to 255 bytes.
        #[schemars(with = "String", length(min = 1, max = 255))]
        pub id: String,
        /// Display name of the session.
        pub name: String,
        /// Who started the session: a contact (`request`) or a member (`push`).
        #[serde(rename = "type")]
        pub session_type: SessionType,
        /// Current status of the session; determines the routing key.
        #[schemars(with = "SessionStatus", extend("type" = "string"))]
        pub status: SessionStatus,
        /// Earlier statuses, oldest first. Statuses may be skipped: the published example has only
        /// `handled`.
        pub past_status: Vec<Lenient<SessionStatus>>,
        /// Durations of the session; empty until there is something to report.
        pub report: Report,
        /// What the session is about, such as the ticket from which it was opened.
        pub reference: Reference,
        /// Who started the session.
        pub creator: User,
        /// How the creator wants to be called back; present if `status` is `callback`.
        pub callback: Callback,
        /// Users who were invited to the chat and have not joined.
        pub target_users: Vec<Lenient<User>>,
        /// Who closed the session, and with which note.
        pub close_record: CloseRecord,
        /// When the session was closed (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub closed_date_time: String,
        /// Users who are active in the session now.
        pub users: Vec<Lenient<User>>,
        /// Users who took part in the session at any time.
        pub participants: Vec<Lenient<User>>,
        /// Identifies the last message that was sent in the session.
        pub last_message_id: String,
        /// When the session was created (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub created_date_time: String,
        /// When the session was last changed (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub last_modified_date_time: String,
    }

    /// Durations of a session.
    pub struct Report {
        /// How long the creator waited for an answer.
        pub creator_waited: Number,
        /// When a member answered (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub handled_date_time: String,
        /// How long the chat took from the answer to its end.
        pub chat_duration: Number,
    }

    /// What a session is about.
    pub struct Reference {
        /// Kind of the object that the session refers to.
        #[serde(rename = "type")]
        pub reference_type: ReferenceType,
        /// Id of the object that the session refers to.
        pub id: String,
    }

    /// How a creator wants to be called back.
    pub struct Callback {
        /// Means of the callback.
        #[serde(rename = "type")]
        pub callback_type: CallbackType,
        /// Phone number to call.
        pub phone: String,
        /// Note of the creator on the callback.
        pub note: String,
        /// Preferred times; any of them suits.
        pub preferred_time: Vec<Lenient<Period>>,
    }

    /// A period of time.
    pub struct Period {
        /// Start of the period (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub start: String,
        /// End of the period (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub end: String,
    }

    /// Who closed a session, and with which note.
    pub struct CloseRecord {
        /// The user who closed it; the published example has no `company` in it.
        pub user: User,
        /// Note of the user who closed the session.
        pub note: String,
        /// When this record was last changed (ISO 8601).
        #[schemars(extend("examples" = [TIME]))]
        pub last_modified_date_time: String,
    }

    /// A contact or a member.
    pub struct User {
        /// Number of the user in the DeskDirector instance.
        pub entity_id: Number,
        /// Display name of the user.
        pub name: String,
        /// Identifies the user across all instances: `instance~c~number` for a contact,
        /// `instance~m~number` for a member.
        pub user_id: UserId,
        /// Company of the user; members often have none.
        pub company: Company,
    }

    /// The company of a user.
    pub struct Company {
        /// Number of the company in the DeskDirector instance.
        pub entity_id: Number,
        /// Display name of the company.
        pub name: String,
        /// Identifier of the company in other systems; that of the creator's company is `{company}` in
        /// routing keys.
        pub identifier: String,
    }
}

/// Who started a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionType {
    /// A contact requested it.
    Request,
    /// A member invited others to it.
    Push,
    /// A type that the interface does not define.
    #[serde(untagged)]
    Other(String),
}

/// Status of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Status")]
pub enum SessionStatus {
    /// No member has answered yet.
    Created,
    /// A member has answered.
    Handled,
    /// No member answered.
    Missed,
    /// The session is over.
    Completed,
    /// The creator wants to be called back.
    Callback,
    /// A status that the interface does not define.
    #[serde(untagged)]
    Other(String),
}

/// Kind of an object that a session refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceType {
    /// A ticket.
    Ticket,
    /// A kind that the interface does not define.
    #[serde(untagged)]
    Other(String),
}

/// Means by which a creator wants to be called back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallbackType {
    /// By phone.
    Phone,
    /// In a chat.
    Chat,
    /// Means that the interface does not define.
    #[serde(untagged)]
    Other(String),
}

/// `instance~c~number` or `instance~m~number`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(
    description = "Identifies a user across all instances: `instance~c~number` for a contact, \
        `instance~m~number` for a member.",
    extend("pattern" = "^.*~[cm]~(0|[1-9][0-9]*)$", "examples" = ["nzlancomdev~c~11220"])
)]
pub struct UserId(pub String);

impl fmt::Display for SessionStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

impl fmt::Display for SessionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

#[cfg(test)]
mod tests;
