//! Reads the selected events on a blocking thread and renders them as messages. It reads at most a
//! few pages ahead of the publisher.

use std::sync::Arc;

use crate::journal::archive::{Archive, Entry, Selection, StateDetails};
use crate::journal::{JournalError, Seq};
use crate::webhook::message::{DeadLetter, Message};
use crate::webhook::routing::{Route, Routing};
use crate::webhook::{Content, identity};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::items::Item;

/// Maximum number of pages buffered in the channel.
const PAGES_MAX: usize = 1;

/// An event that is published.
#[derive(Debug, Clone, Copy)]
pub struct ReplayedEvent {
    /// Its number in the journal.
    pub seq: Seq,
    /// Whether it is exempt from retention until it is replayed.
    pub is_exempt: bool,
}

/// Why a selected event is not published.
#[derive(Debug)]
pub enum Obstacle {
    /// Pending: the bridge has still to publish it.
    Pending,
    /// Invalid or malformed, and left out because `--to-queue` is for chat sessions only.
    Reject,
    /// It cannot be published, for this reason.
    Unfit(String),
}

/// One selected event as it leaves the reader.
pub type Fed = Result<Item<ReplayedEvent>, (Seq, Obstacle)>;

/// How events are rendered as messages.
#[derive(Debug, Clone)]
pub struct Rendering {
    pub routing: Arc<Routing>,
    /// The route to the queue of `--to-queue`, which replaces the routes of the configuration.
    pub to_queue: Option<Arc<Route>>,
    pub message_bytes_max: u64,
    pub replayed_at: Timestamp,
}

/// Starts reading. The channel closes after the last event, or after an error.
pub fn feed(
    archive: Archive,
    selection: Selection,
    rendering: Rendering,
) -> mpsc::Receiver<Result<Vec<Fed>, JournalError>> {
    let (pages, receiver) = mpsc::channel(PAGES_MAX);
    tokio::task::spawn_blocking(move || {
        for entries in archive.pages(&selection, 0, true) {
            let fed = entries.map(|entries| {
                let fed = entries.iter().map(|entry| rendering.feed(entry));
                fed.collect()
            });
            if pages.blocking_send(fed).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Rendering {
    /// The route of an event.
    pub fn route(&self, entry: &Entry) -> Arc<Route> {
        match &self.to_queue {
            Some(route) => route.clone(),
            None => self.routing.route(&entry.event),
        }
    }

    /// Why an event is not published; `None` if it is. Does not check whether its body is intact.
    pub fn obstacle(&self, entry: &Entry) -> Option<Obstacle> {
        let is_reject = matches!(entry.event.content, Content::Reject(_));
        if matches!(entry.details, StateDetails::Pending { .. }) {
            Some(Obstacle::Pending)
        } else if is_reject && self.to_queue.is_some() {
            Some(Obstacle::Reject)
        } else if entry.bytes > self.message_bytes_max {
            let why = format!(
                "its {} bytes are more than rabbitmq.message_bytes_max, {}",
                entry.bytes, self.message_bytes_max
            );
            Some(Obstacle::Unfit(why))
        } else {
            None
        }
    }

    fn feed(&self, entry: &Entry) -> Fed {
        if let Some(obstacle) = self.obstacle(entry) {
            return Err((entry.seq, obstacle));
        }
        if !identity::is_intact(&entry.event) {
            let why = "its body is damaged: it does not match its message_id any more";
            return Err((entry.seq, Obstacle::Unfit(why.into())));
        }
        let event = &entry.event;
        let session = event.session();
        let key = session.map(|session| [&*event.envelope.source, "\0", session].concat().into());
        let replayed = ReplayedEvent {
            seq: entry.seq,
            is_exempt: entry.is_exempt(),
        };
        let message = self.message(entry).replayed(self.replayed_at);
        Ok(Item::new(replayed, key, message.into()))
    }

    fn message(&self, entry: &Entry) -> Message {
        let event = &entry.event;
        let (route, status) = (self.route(entry), self.routing.routed_status(event));
        match &event.content {
            Content::Session(_) => Message::of(event, route, status),
            Content::Reject(reject) => {
                let dead_letter = DeadLetter {
                    reason: reject.reason,
                    detail: reject.detail.clone(),
                    at: event.envelope.received_at,
                    attempts: 0,
                    original: self.routing.original_route(event),
                };
                Message::dead_letter(event, route, status, &dead_letter, entry.seq)
            }
        }
    }
}
