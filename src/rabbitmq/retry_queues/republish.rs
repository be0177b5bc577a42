//! Republishes one rejected message as decided, and acknowledges the original when the copy is
//! confirmed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;
use tracing::warn;

use super::super::open_connection::{CallError, OpenConnection};
use super::super::publisher::{
    self,
    properties::{self, PERSISTENT},
};
use super::super::{Link, MessageCopy, Outcome, OutgoingMessage, PublishWindow};
use super::{Connections, QueueTask, header_limit};
use crate::backoff;
use crate::webhook::routing::Route;

/// Delays before a message that could not be republished is tried again.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);

impl QueueTask {
    /// Republishes the message, retrying without a limit, and acknowledges it.
    ///
    /// # Errors
    /// Only if the connection is lost. The broker still has the message then, and redelivers it.
    pub(super) async fn settle(
        &self,
        connections: &Connections,
        delivery: Delivery,
    ) -> Result<(), CallError> {
        let queue = &self.queue.queue;
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let key = delivery.routing_key.as_str();
        let (decision, left_out) =
            header_limit::decide(&self.queue, &headers, key, Timestamp::now());
        if !left_out.is_empty() {
            let id = delivery.properties.message_id().as_ref();
            let message_id = id.map(lapin::types::ShortString::as_str);
            warn!(
                queue,
                message_id,
                ?left_out,
                "headers of a rejected message too large for a retry; it becomes a dead letter without some of them"
            );
            self.note(Some(format!(
                "a rejected message of queue `{queue}` had headers too large to be retried and became a dead letter without some of them: {left_out:?}"
            )));
        }
        let exchange = &decision.exchange;
        // Without an expiration, so that the message does not expire on its way.
        let copy = OutgoingMessage::from(MessageCopy {
            route: Arc::new(Route {
                exchange: exchange.as_str().into(),
                routing_key: decision.key.as_str().into(),
            }),
            properties: properties::copy(&delivery.properties, decision.headers)
                .with_delivery_mode(PERSISTENT),
            body: delivery.data.into(),
        });
        let mut failures = 0;
        while let Some(reason) = self.republish(&connections.writing, copy.clone()).await? {
            if failures == 0 {
                warn!(
                    queue,
                    exchange, reason, "republishing a rejected message failed; retrying"
                );
                self.note(Some(format!(
                    "a rejected message of queue `{queue}` cannot be published to exchange `{exchange}`: {reason}"
                )));
            }
            failures += 1;
            let pause = tokio::time::sleep(backoff::delay(AGAIN_MIN, AGAIN_MAX, failures));
            connections.writing.unless_lost(pause).await?;
        }
        if failures > 0 {
            self.note(None);
        }
        let ack = delivery.acker.ack(BasicAckOptions::default());
        let acknowledged = connections.reading().call("accept an acknowledgement", ack);
        acknowledged.await.map(drop)
    }

    /// Publishes the copy once. Returns why the broker refused it, if it did.
    ///
    /// # Errors
    /// Only if the connection is lost.
    async fn republish(
        &self,
        connection: &OpenConnection,
        copy: OutgoingMessage,
    ) -> Result<Option<String>, CallError> {
        let exchange = Arc::clone(&copy.route().exchange);
        let window = PublishWindow {
            id: 0,
            link: Link::Main,
            ensure_exchange: false,
            messages: vec![copy],
        };
        // Nobody waits for the progress of a single message.
        let (progress, _) = mpsc::channel(1);
        let publishing = publisher::publish(connection, &self.shared.declarer, window, &progress);
        let outcomes = connection.unless_stalled("confirm a rejected message", publishing);
        let refused = match outcomes.await?.pop() {
            Some(Outcome::Delivered) => return Ok(None),
            Some(Outcome::Returned(reason) | Outcome::ChannelClosed { reason, .. }) => reason,
            Some(Outcome::Nacked) => "refused by a queue".to_owned(),
            Some(Outcome::Unknown) | None => return Err(CallError::Lost),
        };
        // The next attempt checks the exchange again.
        connection.set_known(&exchange, false);
        Ok(Some(refused))
    }
}
