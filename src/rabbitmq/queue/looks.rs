//! One look into a queue: a consumer that is begun, hands over so many messages and is ended; they
//! stay with us. Each beginning and end goes through the queue's log.

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::{Letter, PASSAGES, PATIENCE, Queue, QueueError, failed};
use crate::rabbitmq::publisher::properties::short;

impl Queue {
    /// Begins a look of so many messages.
    pub(super) async fn begin(&mut self, size: u16) -> Result<Consumer, QueueError> {
        self.windows += 1;
        let qos = self.channel.basic_qos(size, BasicQosOptions::default());
        self.call("bound a look", qos).await?;
        // What consumers hold comes back in the order of their names.
        let consume = self.channel.basic_consume(
            self.name.clone(),
            short(&format!("look-{:010}", self.windows)),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = self.call("hand its messages over", consume).await?;
        self.pass();
        Ok(consumer)
    }

    /// Ends a look; its messages stay with us.
    pub(super) async fn end(&mut self, consumer: &Consumer) -> Result<(), QueueError> {
        let cancel = self
            .channel
            .basic_cancel(consumer.tag(), BasicCancelOptions::default());
        self.call("end a look", cancel).await?;
        self.pass();
        Ok(())
    }

    fn pass(&mut self) {
        self.passages.rotate_left(1);
        self.passages[PASSAGES - 1] = self.removed;
    }

    pub(super) fn hold(&mut self, letters: &[Letter]) {
        if let Some(last) = letters.last() {
            self.held.insert(self.windows, letters.len());
            self.is_among_returned = last.received.is_redelivered;
        }
    }

    pub(super) async fn collect(
        &mut self,
        consumer: &mut Consumer,
        size: u16,
    ) -> Result<Vec<Letter>, QueueError> {
        let mut letters = Vec::new();
        while letters.len() < size.into() {
            match timeout(PATIENCE, consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    self.seen += 1;
                    letters.push(Letter::new(self.seen, self.windows, delivery));
                }
                Ok(Some(Err(error))) => {
                    let error = self.live.classify("hand its messages over", &error);
                    return Err(failed(&self.live, self.name.as_str(), error).await);
                }
                Ok(None) => return Err(QueueError::Missing(self.name.to_string())),
                // Somebody else took them meanwhile.
                Err(_) if self.ready().await?.0 == 0 => {
                    self.waiting = self.seen;
                    break;
                }
                Err(_) => return Err(QueueError::Withheld(self.name.to_string())),
            }
        }
        Ok(letters)
    }

    /// Messages that are ready, and consumers.
    pub(super) async fn ready(&self) -> Result<(u64, u32), QueueError> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asking = self
            .channel
            .queue_declare(self.name.clone(), passive, FieldTable::default());
        let queue = self.call("tell of a queue", asking).await?;
        Ok((queue.message_count().into(), queue.consumer_count()))
    }

    pub(super) async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        match self.live.call(what, call).await {
            Ok(value) => Ok(value),
            Err(error) => Err(failed(&self.live, self.name.as_str(), error).await),
        }
    }
}
