//! Reads the selected events on a thread of its own and makes messages of them: a few pages ahead
//! of the broker, never more.

use std::sync::Arc;

use deskbridge::journal::archive::{Archive, Entry, Place, Selection};
use deskbridge::journal::{Seq, TakeError};
use deskbridge::webhook::message::{DeadLetter, Message};
use deskbridge::webhook::routing::{Route, Routing};
use deskbridge::webhook::{Content, identity};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::lanes::Item;

/// Pages read ahead.
const PAGES_MAX: usize = 1;

/// What became of one selected event before it was published.
#[derive(Debug)]
pub enum Fed {
    /// It is to be published.
    Item(Box<Item>),
    /// The bridge has still to publish it.
    Unsettled,
    /// It is no chat session, and a consumer's queue takes nothing else.
    Reject,
    /// It cannot be published, and why.
    Unfit(Seq, String),
}

/// How messages are made.
#[derive(Debug, Clone)]
pub struct Making {
    pub routing: Arc<Routing>,
    /// A queue instead of the routes of the configuration.
    pub to_queue: Option<Arc<Route>>,
    pub message_bytes_max: u64,
    pub replayed_at: Timestamp,
}

/// Starts reading; the end of the channel is the end of the events.
pub fn start(
    archive: Archive,
    selection: Selection,
    making: Making,
) -> mpsc::Receiver<Result<Vec<Fed>, TakeError>> {
    let (pages, receiver) = mpsc::channel(PAGES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut next = Some(0);
        while let Some(after) = next {
            let fed = archive.page(&selection, after, true).map(|page| {
                next = page.next;
                let fed = page.entries.into_iter().map(|entry| making.feed(&entry));
                fed.collect()
            });
            let is_over = fed.is_err();
            if pages.blocking_send(fed).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

impl Making {
    /// Where an event goes.
    pub fn route(&self, entry: &Entry) -> Arc<Route> {
        match &self.to_queue {
            Some(route) => route.clone(),
            None => self.routing.route(&entry.event),
        }
    }

    /// Whether it goes anywhere, if its body is what was received.
    pub fn obstacle(&self, entry: &Entry) -> Option<Fed> {
        let seq = entry.seq;
        let is_reject = matches!(entry.event.content, Content::Reject(_));
        if matches!(entry.place, Place::Unsettled { .. }) {
            Some(Fed::Unsettled)
        } else if is_reject && self.to_queue.is_some() {
            Some(Fed::Reject)
        } else if entry.bytes > self.message_bytes_max {
            let why = format!(
                "its {} bytes are more than rabbitmq.message_bytes_max, {}",
                entry.bytes, self.message_bytes_max
            );
            Some(Fed::Unfit(seq, why))
        } else {
            None
        }
    }

    fn feed(&self, entry: &Entry) -> Fed {
        if let Some(obstacle) = self.obstacle(entry) {
            return obstacle;
        }
        if !identity::is_intact(&entry.event) {
            let why = "its body is damaged: it does not match its message_id any more";
            return Fed::Unfit(entry.seq, why.into());
        }
        let event = &entry.event;
        let key = event
            .session()
            .map(|session| (event.envelope.source.clone(), session.to_owned()));
        Fed::Item(Box::new(Item {
            seq: entry.seq,
            key,
            message: self.message(entry).replayed(self.replayed_at),
            is_kept: entry.is_kept(),
            is_alone: false,
            is_in_doubt: false,
        }))
    }

    fn message(&self, entry: &Entry) -> Message {
        let event = &entry.event;
        let (route, status) = (self.route(entry), self.routing.routed_status(event));
        match &event.content {
            Content::Session(_) => Message::of(event, route, status),
            Content::Reject(reject) => {
                let letter = DeadLetter {
                    reason: reject.reason,
                    detail: reject.detail.clone(),
                    at: event.envelope.received_at,
                    attempts: 0,
                    original: self.routing.original_route(event),
                };
                Message::dead_letter(event, route, status, &letter, entry.seq)
            }
        }
    }
}
