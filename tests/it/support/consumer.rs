//! A consumer with its own connection that collects what it receives.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::Connection;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicRejectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use tokio::sync::Notify;

use super::message::Message;
use super::vhost::{Vhost, connect};
use super::wait::SOON;

/// Collects all deliveries of one queue and acknowledges each.
pub struct Consumer {
    queue: String,
    inbox: Arc<Inbox>,
    taken: usize,
    connection: Connection,
}

/// Decides whether a message is rejected.
type Judge = Box<dyn Fn(&Message) -> bool + Send>;

#[derive(Default)]
struct Inbox {
    messages: Mutex<Vec<Message>>,
    arrived: Notify,
}

impl Consumer {
    /// Consumes an existing queue.
    pub async fn of(vhost: &Vhost, queue: &str) -> Self {
        Self::start(connect(&vhost.amqp_url).await, queue).await
    }

    /// Consumes a queue one message at a time, as an application does: rejects the messages that
    /// `is_rejected` selects, without requeue, and acknowledges the others.
    pub async fn rejecting(
        vhost: &Vhost,
        queue: &str,
        is_rejected: impl Fn(&Message) -> bool + Send + 'static,
    ) -> Self {
        let connection = connect(&vhost.amqp_url).await;
        Self::consume(connection, queue, Some((Box::new(is_rejected), false))).await
    }

    /// As [`Consumer::rejecting`], but rejects with `requeue` if the broker does the delayed retry.
    pub async fn retrying(
        vhost: &Vhost,
        queue: &str,
        requeue: bool,
        is_rejected: impl Fn(&Message) -> bool + Send + 'static,
    ) -> Self {
        let connection = connect(&vhost.amqp_url).await;
        Self::consume(connection, queue, Some((Box::new(is_rejected), requeue))).await
    }

    /// Consumes a private queue bound to an existing exchange.
    pub async fn subscribed(vhost: &Vhost, exchange: &str, key: &str) -> Self {
        let connection = connect(&vhost.amqp_url).await;
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..Default::default()
        };
        let queue = channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .unwrap();
        let name = queue.name().to_string();
        channel
            .queue_bind(
                name.as_str().into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("the exchange to subscribe to is there");
        Self::start(connection, &name).await
    }

    async fn start(connection: Connection, queue: &str) -> Self {
        Self::consume(connection, queue, None).await
    }

    async fn consume(connection: Connection, queue: &str, judge: Option<(Judge, bool)>) -> Self {
        let channel = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions {
            no_ack: judge.is_none(),
            ..Default::default()
        };
        let mut deliveries = channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .expect("the queue to consume is there");
        let inbox = Arc::new(Inbox::default());
        let collected = Arc::clone(&inbox);
        tokio::spawn(async move {
            let _channel = channel; // keeps the channel open while it delivers
            while let Some(Ok(delivery)) = deliveries.next().await {
                let acker = delivery.acker.clone();
                let message = Message::from(delivery);
                let is_rejected = judge.as_ref().map(|(judge, _)| judge(&message));
                let requeue = judge.as_ref().is_some_and(|(_, requeue)| *requeue);
                collected.messages.lock().unwrap().push(message);
                collected.arrived.notify_waiters();
                // Can only fail if the connection is lost, which ends the loop anyway.
                let _ = match is_rejected {
                    Some(true) => acker.reject(BasicRejectOptions { requeue }).await,
                    Some(false) => acker.ack(BasicAckOptions::default()).await,
                    None => Ok(true),
                };
            }
        });
        Self {
            queue: queue.to_owned(),
            inbox,
            taken: 0,
            connection,
        }
    }

    /// Waits for the next message, in order of arrival.
    pub async fn receive(&mut self) -> Message {
        self.receive_n(1).await.pop().expect("one message")
    }

    /// Waits for the next `n` messages.
    pub async fn receive_n(&mut self, n: usize) -> Vec<Message> {
        self.receive_n_within(n, SOON).await
    }

    /// Waits for the next `n` messages; after `deadline` it panics with those that arrived.
    pub async fn receive_n_within(&mut self, n: usize, deadline: Duration) -> Vec<Message> {
        let end = self.taken + n;
        let until = Instant::now() + deadline;
        while self.count() < end {
            let arrived = self.inbox.arrived.notified();
            if self.count() >= end {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, arrived).await.is_err() {
                self.complain(n, deadline);
            }
        }
        let messages = self.inbox.messages.lock().unwrap()[self.taken..end].to_vec();
        self.taken = end;
        messages
    }

    /// Waits for the next `n` messages with an id that has not been received before. A message
    /// whose confirm was lost with its channel or connection is published again with the same id.
    pub async fn receive_n_distinct(&mut self, n: usize) -> Vec<Message> {
        let received = self.inbox.messages.lock().unwrap()[..self.taken].to_vec();
        let mut ids: HashSet<_> = received.into_iter().map(|m| m.message_id).collect();
        let mut distinct = Vec::new();
        while distinct.len() < n {
            let message = self.receive().await;
            if ids.insert(message.message_id.clone()) {
                distinct.push(message);
            }
        }
        distinct
    }

    /// Panics if another message arrives within `quiet`.
    pub async fn receives_nothing_for(&mut self, quiet: Duration) {
        tokio::time::sleep(quiet).await;
        let unexpected = self.inbox.messages.lock().unwrap()[self.taken..].to_vec();
        assert!(
            unexpected.is_empty(),
            "unexpected in `{}`: {unexpected:#?}",
            self.queue
        );
    }

    /// All messages that have arrived so far, whether received by the test or not.
    pub fn all(&self) -> Vec<Message> {
        self.inbox.messages.lock().unwrap().clone()
    }

    /// How many messages have arrived so far, whether received by the test or not.
    pub fn count(&self) -> usize {
        self.inbox.messages.lock().unwrap().len()
    }

    /// Stops consuming. A consumer that is only dropped continues until the test ends.
    pub async fn close(self) {
        self.connection.close(200, "OK".into()).await.unwrap();
    }

    fn complain(&self, n: usize, deadline: Duration) -> ! {
        let messages = self.inbox.messages.lock().unwrap();
        let got = &messages[self.taken.min(messages.len())..];
        let keys: Vec<_> = got
            .iter()
            .take(20)
            .map(|message| (&message.routing_key, &message.correlation_id))
            .collect();
        panic!(
            "`{}` received {} of {n} messages within {deadline:?}; the first: {keys:?}",
            self.queue,
            got.len()
        );
    }
}

/// Takes all messages out of a queue that are in it now, in order.
pub async fn everything_in(vhost: &Vhost, queue: &str) -> Vec<Message> {
    const END: &[u8] = b"the end of the test";
    assert!(
        vhost.publish("", queue, END).await,
        "the queue accepts the end marker"
    );
    let channel = vhost.channel().await;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let mut deliveries = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("the queue to consume is there");
    let mut messages: Vec<Message> = Vec::new();
    while messages.last().is_none_or(|message| message.body != END) {
        let delivery = tokio::time::timeout(3 * SOON, deliveries.next()).await;
        let delivery = delivery.expect("the end marker comes within a minute");
        messages.push(delivery.expect("a message").expect("a message").into());
    }
    messages.pop();
    // A channel that is only dropped would continue to consume.
    channel.close(200, "done".into()).await.unwrap();
    messages
}
