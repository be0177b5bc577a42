//! The summary of a message, collected from its headers, properties and `x-death`. Pure.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::origin::{self, deaths};
use super::provenance::Author;
use super::target::QueueTarget;
use crate::rabbitmq::queue::QueuedMessage;
use crate::webhook::DeadLetterReason;
use crate::webhook::routing::Route;

/// What an operator needs to know about a message.
#[derive(Debug, Clone, Serialize)]
pub struct MessageSummary {
    /// Its position in the queue, from 1.
    pub position: u64,
    /// Its `message_id`, if it has one.
    pub id: Option<String>,
    /// Why it was dead-lettered: the bridge's reason, otherwise the broker's.
    pub reason: Option<String>,
    /// The reason in more words: the bridge's, otherwise the broker's reason and queue.
    pub detail: Option<String>,
    /// The status as it was sent.
    pub status: Option<String>,
    /// The id of the session.
    pub session: Option<String>,
    /// The name of the source.
    pub source: Option<String>,
    /// When it was dead-lettered, otherwise when it was received.
    #[serde(skip)]
    pub at: Option<Timestamp>,
    /// Whether the bridge wrote it.
    #[serde(rename = "written_by")]
    pub author: Author,
    /// Where it was going, or why that is unknown.
    #[serde(skip)]
    pub origin: Result<Route, String>,
    /// The queue that dead-lettered it first, for example because a consumer rejected it.
    pub original_queue: Option<String>,
    /// How often the bridge tried to publish it, otherwise how often the broker dead-lettered it.
    pub attempts: Option<i64>,
    /// Size of its body in bytes.
    pub bytes: usize,
    /// The number of the event in the journal, if its body was too large to be sent.
    pub journal_event: Option<i64>,
}

impl MessageSummary {
    /// Summarizes a message of the queue.
    pub fn of(message: &QueuedMessage, target: &QueueTarget) -> Self {
        let owned = |name: &str| message.text(name).map(ToOwned::to_owned);
        let number = |name: &str| message.headers.get(name).and_then(Value::as_i64);
        let death = deaths(message).first();
        let of_death = |name: &str| death.and_then(|death| death[name].as_str());
        let received = &message.received;
        let death_detail = of_death("reason")
            .zip(of_death("queue"))
            .map(|(reason, queue)| format!("{reason} in queue `{queue}`"));
        Self {
            position: message.position,
            id: received.message_id.clone(),
            reason: owned("dead-letter-reason").or_else(|| of_death("reason").map(Into::into)),
            detail: owned("dead-letter-detail").or(death_detail),
            status: owned("status"),
            session: owned("session-id").or_else(|| received.correlation_id.clone()),
            source: owned("source"),
            at: at(message),
            author: Author::of(message),
            origin: origin::of(message, target),
            original_queue: origin::queue(message),
            attempts: number("attempts")
                .or_else(|| death.and_then(|death| death["count"].as_i64())),
            bytes: received.body.len(),
            journal_event: number("journal-event"),
        }
    }

    /// Whether `name` means this message: its `message_id`, or `#3` for the third in the queue.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.id.as_deref() == Some(name)
            || name.strip_prefix('#').and_then(|place| place.parse().ok()) == Some(self.position)
    }

    /// How commands call it: its id, or its position in the queue, such as `#3`.
    #[must_use]
    pub fn name(&self) -> String {
        self.id
            .clone()
            .unwrap_or_else(|| format!("#{}", self.position))
    }

    /// Whether its body is only in the journal.
    #[must_use]
    pub fn is_in_journal(&self) -> bool {
        self.reason.as_deref() == Some(DeadLetterReason::TooLarge.as_str()) && self.bytes == 0
    }

    /// `invalid` or `malformed`, if its body has to be corrected before it can be replayed.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        [DeadLetterReason::Invalid, DeadLetterReason::Malformed]
            .iter()
            .map(|reason| reason.as_str())
            .find(|reason| self.reason.as_deref() == Some(reason))
    }

    /// The summary as a JSON object.
    #[must_use]
    pub fn json(&self) -> Map<String, Value> {
        let origin = self.origin.as_ref().ok();
        let mut object = json!(self);
        object["at"] = json!(self.at.map(|at| format!("{at:.3}")));
        object["original_exchange"] = json!(origin.map(|route| &*route.exchange));
        object["original_routing_key"] = json!(origin.map(|route| &*route.routing_key));
        object.as_object().cloned().unwrap_or_default()
    }
}

fn at(message: &QueuedMessage) -> Option<Timestamp> {
    let death = deaths(message).first();
    let candidates = [
        message.text("dead-letter-at"),
        death.and_then(|death| death["time"].as_str()),
        message.text("received-at"),
    ];
    let mut known = candidates.into_iter().flatten();
    known.find_map(|at| at.parse().ok()).or_else(|| {
        let seconds = i64::try_from(message.received.timestamp_seconds?).ok()?;
        Timestamp::from_second(seconds).ok()
    })
}
