//! What an operator wants to know of a message at a glance, wherever it stands in it. Pure.

use deskbridge::rabbitmq::queue::Letter;
use deskbridge::webhook::Reason;
use deskbridge::webhook::routing::Route;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::author::Author;
use super::origin::{self, Holding, deaths};

/// A message at a glance.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its place in the queue, from 1.
    pub position: u64,
    /// `message_id`, if it has one.
    pub id: Option<String>,
    /// Why it is dead: the bridge's reason, else the broker's.
    pub reason: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
    /// As the sender spelt it.
    pub status: Option<String>,
    /// The session's id.
    pub session: Option<String>,
    /// The source.
    pub source: Option<String>,
    /// Since when it is dead, else when it was received.
    pub at: Option<Timestamp>,
    /// Who wrote it.
    pub author: Author,
    /// Where it was going, or why nobody knows.
    pub origin: Result<Route, String>,
    /// How often it was tried.
    pub attempts: Option<i64>,
    /// Bytes of its body.
    pub bytes: usize,
    /// The number under which the journal keeps what was too large to be sent.
    pub journal_event: Option<i64>,
}

impl Summary {
    /// Of this message.
    pub fn of(letter: &Letter, holding: Holding) -> Self {
        let owned = |name: &str| text(letter, name).map(ToOwned::to_owned);
        let number = |name: &str| letter.headers.get(name).and_then(Value::as_i64);
        let death = deaths(letter).first();
        let of_death = |name: &str| death.and_then(|death| death[name].as_str());
        let received = &letter.received;
        let death_detail = of_death("reason")
            .zip(of_death("queue"))
            .map(|(reason, queue)| format!("{reason} in queue `{queue}`"));
        Self {
            position: letter.position,
            id: received.message_id.clone(),
            reason: owned("dead-letter-reason").or_else(|| of_death("reason").map(Into::into)),
            detail: owned("dead-letter-detail").or(death_detail),
            status: owned("status"),
            session: owned("session-id").or_else(|| received.correlation_id.clone()),
            source: owned("source"),
            at: at(letter),
            author: Author::of(letter),
            origin: origin::of(letter, holding),
            attempts: number("attempts")
                .or_else(|| death.and_then(|death| death["count"].as_i64())),
            bytes: received.body.len(),
            journal_event: number("journal-event"),
        }
    }

    /// What it is called: its id, or its place in the queue.
    pub fn name(&self) -> String {
        self.id
            .clone()
            .unwrap_or_else(|| format!("#{}", self.position))
    }

    /// Whether its body is not in it but in the journal.
    pub fn is_in_journal(&self) -> bool {
        self.reason.as_deref() == Some(Reason::TooLarge.as_str()) && self.bytes == 0
    }

    /// What is wrong with its body, so that nobody can take it as it is.
    pub fn fault(&self) -> Option<&'static str> {
        [Reason::Invalid, Reason::Malformed]
            .iter()
            .map(|reason| reason.as_str())
            .find(|reason| self.reason.as_deref() == Some(reason))
    }

    /// As a JSON object.
    pub fn json(&self) -> Map<String, Value> {
        let origin = self.origin.as_ref().ok();
        let object = json!({
            "position": self.position,
            "id": self.id,
            "reason": self.reason,
            "detail": self.detail,
            "status": self.status,
            "session": self.session,
            "source": self.source,
            "at": self.at.map(|at| format!("{at:.3}")),
            "written_by": self.author.as_str(),
            "original_exchange": origin.map(|route| &*route.exchange),
            "original_routing_key": origin.map(|route| &*route.routing_key),
            "attempts": self.attempts,
            "bytes": self.bytes,
            "journal_event": self.journal_event,
        });
        object.as_object().cloned().unwrap_or_default()
    }
}

/// A header, if it is text.
pub fn text<'a>(letter: &'a Letter, name: &str) -> Option<&'a str> {
    letter.headers.get(name).and_then(Value::as_str)
}

fn at(letter: &Letter) -> Option<Timestamp> {
    let death = deaths(letter).first();
    let told = [
        text(letter, "dead-letter-at"),
        death.and_then(|death| death["time"].as_str()),
        text(letter, "received-at"),
    ];
    let told = told.into_iter().flatten().find_map(|at| at.parse().ok());
    told.or_else(|| {
        let seconds = i64::try_from(letter.received.timestamp_seconds?).ok()?;
        Timestamp::from_second(seconds).ok()
    })
}
