//! What a pass does with a message, and what it publishes for it.

use bytes::Bytes;
use jiff::Timestamp;

use super::corrected;
use super::destination::{self, Destination};
use super::summary::MessageSummary;
use super::target::QueueTarget;
use crate::ops::routing;
use crate::rabbitmq::OutgoingMessage;
use crate::rabbitmq::queue::QueuedMessage;
use crate::webhook::message::replayed_at;
use crate::webhook::routing::Routing;

/// What to do with the selected messages.
#[derive(Debug, Clone)]
pub enum Action {
    /// Remove at most `messages_max` of them for good.
    Discard { messages_max: u64 },
    /// Publish them again, and remove each one that a queue has taken.
    Replay {
        /// Where to publish them.
        destination: Destination,
        /// Publish the sessions of this body instead of one message.
        body: Option<Bytes>,
        /// Only report what would be replayed.
        is_dry_run: bool,
    },
}

/// Plans what is published for each message.
pub(super) struct Planner<'a> {
    target: &'a QueueTarget,
    routing: Routing,
    pub(super) destination: &'a Destination,
    body: Option<&'a Bytes>,
    pub(super) at: Timestamp,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        target: &'a QueueTarget,
        destination: &'a Destination,
        body: Option<&'a Bytes>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            target,
            routing: routing(&target.config)?,
            destination,
            body,
            at: Timestamp::now(),
        })
    }

    /// What to publish for a message.
    ///
    /// # Errors
    /// If it has to stay in the queue; says why.
    pub(super) fn outgoing(
        &self,
        message: &QueuedMessage,
        summary: &MessageSummary,
    ) -> Result<Vec<OutgoingMessage>, String> {
        if let Some(body) = self.body {
            let config = &self.target.config;
            let messages = corrected::messages(config, &self.routing, message, body, self.at)?;
            return Ok(messages.into_iter().map(Into::into).collect());
        }
        if summary.is_in_journal() {
            return Err("its body is in the journal: use `deskbridge events replay`".into());
        }
        if let Some(reason) = summary.fault() {
            return Err(format!(
                "it is {reason}; send a corrected body with --body FILE"
            ));
        }
        let route = destination::of(&self.routing, self.destination, summary.origin.clone())?;
        let copy = message.copy(route, is_of_dead_letter, replayed_at(self.at))?;
        Ok(vec![copy])
    }
}

/// Whether a header describes how the message was dead-lettered and got here, or would route copies
/// of it elsewhere (`CC`, `BCC`). Such headers are left out of the replayed message.
fn is_of_dead_letter(name: &str) -> bool {
    ["dead-letter-", "x-first-death-", "x-last-death-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || [
            "original-exchange",
            "original-routing-key",
            "attempts",
            "journal-event",
            "x-death",
            "x-delivery-count",
            "x-acquired-count",
            "replayed-at",
            "CC",
            "BCC",
        ]
        .contains(&name)
}
