//! The tolerant model of the whole `ChatSession` interface, for showing sessions and for making
//! them. Nothing that is published goes through it: the bridge passes bytes on.
//!
//! The published interface and the published example disagree, and the sender may add to both.
//! So every field may be absent, `null` or of another shape ([`Lenient`]), and fields nobody
//! knows are ignored. Read an element of a webhook as `Lenient<ChatSession>`: then even one that
//! is no object, or has a field twice, is kept as text and is no error.

mod lenient;
pub mod schema;
mod user_id;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Number;

pub use self::lenient::Lenient;
pub use self::user_id::{NotAUserId, UserId, UserKind};

/// A time as the sender writes them: seven digits of a second, UTC.
const TIME: &str = "2018-06-28T05:15:45.7824134Z";

/// One chat session, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::routable)]
pub struct ChatSession {
    /// Identifies the session; all events of it carry it. 1 to 255 bytes.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub id: Lenient<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub name: Lenient<String>,
    /// Who began it: `request` a contact, `push` a member.
    #[serde(rename = "type", skip_serializing_if = "Lenient::is_absent")]
    pub session_type: Lenient<SessionType>,
    /// Where it stands now; decides the routing key.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub status: Lenient<Status>,
    /// Where it stood before, the oldest first. Statuses may be skipped: the published example has
    /// only `handled`.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub past_status: Lenient<Vec<Lenient<Status>>>,
    /// How long things took; empty until there is something to say.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub report: Lenient<Report>,
    /// What it is about, say the ticket it was opened from.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub reference: Lenient<Reference>,
    /// Who started the session.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub creator: Lenient<User>,
    /// How the creator wants to be called back; there if `status` is `callback`.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub callback: Lenient<Callback>,
    /// Who was invited to chat and has not joined.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub target_users: Lenient<Vec<Lenient<User>>>,
    /// Who closed it, and with which words.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub close_record: Lenient<CloseRecord>,
    /// When it was closed (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub closed_date_time: Lenient<String>,
    /// Who is active in the session now.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub users: Lenient<Vec<Lenient<User>>>,
    /// Who took part in the session at any time.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub participants: Lenient<Vec<Lenient<User>>>,
    /// Identifies the last message that was sent in it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub last_message_id: Lenient<String>,
    /// When it was created (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub created_date_time: Lenient<String>,
    /// When it changed last (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub last_modified_date_time: Lenient<String>,
}

/// Who began a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionType {
    /// A contact asked for it.
    Request,
    /// A member invited to it.
    Push,
    /// A type the interface does not have.
    #[serde(untagged)]
    Other(String),
}

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody has answered yet.
    Created,
    /// A member has answered.
    Handled,
    /// Nobody answered.
    Missed,
    /// It is over.
    Completed,
    /// The creator wants to be called back.
    Callback,
    /// A status the interface does not have.
    #[serde(untagged)]
    Other(String),
}

/// How long things took.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// How long the creator waited for an answer.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub creator_waited: Lenient<Number>,
    /// When a member answered (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub handled_date_time: Lenient<String>,
    /// How long the chat took from the answer to its end.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub chat_duration: Lenient<Number>,
}

/// What a session is about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// What kind of thing it is.
    #[serde(rename = "type", skip_serializing_if = "Lenient::is_absent")]
    pub reference_type: Lenient<ReferenceType>,
    /// Which one.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub id: Lenient<String>,
}

/// What kind of thing a session is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceType {
    /// A ticket.
    Ticket,
    /// A kind the interface does not have.
    #[serde(untagged)]
    Other(String),
}

/// How a creator wants to be called back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Callback {
    /// By which means.
    #[serde(rename = "type", skip_serializing_if = "Lenient::is_absent")]
    pub callback_type: Lenient<CallbackType>,
    /// Under which number.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub phone: Lenient<String>,
    /// What the creator wrote to it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub note: Lenient<String>,
    /// When, any of these.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub preferred_time: Lenient<Vec<Lenient<Period>>>,
}

/// By which means a creator wants to be called back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallbackType {
    /// By phone.
    Phone,
    /// In a chat.
    Chat,
    /// Means the interface does not have.
    #[serde(untagged)]
    Other(String),
}

/// From one time to another.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Period {
    /// From when (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub start: Lenient<String>,
    /// Until when (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub end: Lenient<String>,
}

/// Who closed a session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CloseRecord {
    /// The user who closed it; the published example has no `company` in it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub user: Lenient<User>,
    /// What they wrote to it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub note: Lenient<String>,
    /// When this record changed last (ISO 8601).
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    #[schemars(extend("examples" = [TIME]))]
    pub last_modified_date_time: Lenient<String>,
}

/// A contact or a member.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// Their number in the instance.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub entity_id: Lenient<Number>,
    /// What people call them.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub name: Lenient<String>,
    /// Who they are, over all instances: `instance~c~number` a contact, `instance~m~number` a member.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub user_id: Lenient<UserId>,
    /// Whom they work for; members often have none.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub company: Lenient<Company>,
}

/// Whom a user works for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Company {
    /// Its number in the instance.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub entity_id: Lenient<Number>,
    /// What people call it.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub name: Lenient<String>,
    /// What other systems call it; `{company}` in routing keys when it is the creator's.
    #[serde(skip_serializing_if = "Lenient::is_absent")]
    pub identifier: Lenient<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Created => "created",
            Self::Handled => "handled",
            Self::Missed => "missed",
            Self::Completed => "completed",
            Self::Callback => "callback",
            Self::Other(status) => status,
        })
    }
}

impl fmt::Display for SessionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Request => "request",
            Self::Push => "push",
            Self::Other(session_type) => session_type,
        })
    }
}

#[cfg(test)]
mod tests;
