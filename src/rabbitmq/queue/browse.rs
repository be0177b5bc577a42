//! Fetches one batch of messages: starts a consumer, receives a number of messages and cancels the
//! consumer; the messages stay unacknowledged. Each start and each cancellation is an entry of the
//! queue's log.

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::{ACK_BARRIERS, PATIENCE, QueueBrowser, QueueError, QueuedMessage, translated};
use crate::rabbitmq::publisher::properties::short;

impl QueueBrowser {
    /// Starts a consumer that receives at most `size` messages.
    pub(super) async fn consume(&mut self, size: u16) -> Result<Consumer, QueueError> {
        self.batches += 1;
        let qos = self.channel.basic_qos(size, BasicQosOptions::default());
        self.call("set the prefetch count", qos).await?;
        // Messages that consumers hold return in the order of the consumer tags.
        let consuming = self.channel.basic_consume(
            self.name.clone(),
            short(&format!("look-{:010}", self.batches)),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = self.call("deliver messages", consuming).await?;
        self.passed_barrier();
        Ok(consumer)
    }

    /// Cancels a consumer. Its messages stay unacknowledged.
    pub(super) async fn cancel(&mut self, consumer: &Consumer) -> Result<(), QueueError> {
        let cancelling = self
            .channel
            .basic_cancel(consumer.tag(), BasicCancelOptions::default());
        self.call("cancel a consumer", cancelling).await?;
        self.passed_barrier();
        Ok(())
    }

    fn passed_barrier(&mut self) {
        self.removed_before_barriers.rotate_left(1);
        self.removed_before_barriers[ACK_BARRIERS - 1] = self.removed;
    }

    pub(super) fn hold(&mut self, batch: &[QueuedMessage]) {
        if let Some(last) = batch.last() {
            self.held.insert(self.batches, batch.len());
            self.is_among_returned = last.received.is_redelivered;
        }
    }

    pub(super) async fn receive(
        &mut self,
        consumer: &mut Consumer,
        size: u16,
    ) -> Result<Vec<QueuedMessage>, QueueError> {
        let mut batch = Vec::new();
        while batch.len() < size.into() {
            match timeout(PATIENCE, consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    self.seen += 1;
                    batch.push(QueuedMessage::new(self.seen, self.batches, delivery));
                }
                Ok(Some(Err(error))) => {
                    let error = self.connection.classify("deliver messages", &error);
                    return translated(&self.connection, self.name.as_str(), Err(error)).await;
                }
                Ok(None) => return Err(QueueError::Missing(self.name.to_string())),
                // Another consumer took them in the meantime.
                Err(_) if self.ready().await?.0 == 0 => {
                    self.waiting = self.seen;
                    break;
                }
                Err(_) => return Err(QueueError::Withheld(self.name.to_string())),
            }
        }
        Ok(batch)
    }

    /// Number of ready messages, and of consumers.
    pub(super) async fn ready(&self) -> Result<(u64, u32), QueueError> {
        let (name, passive) = (self.name.clone(), QueueDeclareOptions::default().passive());
        let asking = self
            .channel
            .queue_declare(name, passive, FieldTable::default());
        let queue = self.call("describe a queue", asking).await?;
        Ok((queue.message_count().into(), queue.consumer_count()))
    }

    pub(super) async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        let result = self.connection.call(what, call).await;
        translated(&self.connection, self.name.as_str(), result).await
    }
}
