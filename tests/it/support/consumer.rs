//! A subscriber with a connection of its own that collects what it is given.

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

/// Collects every delivery of one queue, acknowledging each by taking it.
pub struct Consumer {
    queue: String,
    inbox: Arc<Inbox>,
    taken: usize,
    connection: Connection,
}

/// Whether a message is rejected.
type Judge = Box<dyn Fn(&Message) -> bool + Send>;

#[derive(Default)]
struct Inbox {
    messages: Mutex<Vec<Message>>,
    arrived: Notify,
}

impl Consumer {
    /// Consumes a queue that is there.
    pub async fn of(vhost: &Vhost, queue: &str) -> Self {
        Self::start(connect(&vhost.amqp_url).await, queue).await
    }

    /// Consumes a queue as an application does, one by one: rejects what it is told to, for good, and
    /// acknowledges the rest.
    pub async fn rejecting(
        vhost: &Vhost,
        queue: &str,
        is_rejected: impl Fn(&Message) -> bool + Send + 'static,
    ) -> Self {
        let connection = connect(&vhost.amqp_url).await;
        Self::consume(connection, queue, Some((Box::new(is_rejected), false))).await
    }

    /// As [`Consumer::rejecting`], with `requeue` where the broker retries.
    pub async fn retrying(
        vhost: &Vhost,
        queue: &str,
        requeue: bool,
        is_rejected: impl Fn(&Message) -> bool + Send + 'static,
    ) -> Self {
        let connection = connect(&vhost.amqp_url).await;
        Self::consume(connection, queue, Some((Box::new(is_rejected), requeue))).await
    }

    /// Consumes a private queue bound to an exchange that is there.
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
            let _channel = channel; // open for as long as it delivers
            while let Some(Ok(delivery)) = deliveries.next().await {
                let acker = delivery.acker.clone();
                let message = Message::from(delivery);
                let is_rejected = judge.as_ref().map(|(judge, _)| judge(&message));
                let requeue = judge.as_ref().is_some_and(|(_, requeue)| *requeue);
                collected.messages.lock().unwrap().push(message);
                collected.arrived.notify_waiters();
                // Fails only with the connection.
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

    /// The next message, in order of arrival.
    pub async fn receive(&mut self) -> Message {
        self.receive_n(1).await.pop().expect("one message")
    }

    /// The next `n` messages.
    pub async fn receive_n(&mut self, n: usize) -> Vec<Message> {
        self.receive_n_within(n, SOON).await
    }

    /// The next `n` messages; panics with what did arrive after `deadline`.
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

    /// Panics if another message comes within `quiet`.
    pub async fn receives_nothing_for(&mut self, quiet: Duration) {
        tokio::time::sleep(quiet).await;
        let unexpected = self.inbox.messages.lock().unwrap()[self.taken..].to_vec();
        assert!(
            unexpected.is_empty(),
            "unexpected in `{}`: {unexpected:#?}",
            self.queue
        );
    }

    /// Everything that has arrived so far, taken or not.
    pub fn all(&self) -> Vec<Message> {
        self.inbox.messages.lock().unwrap().clone()
    }

    /// How many have arrived so far, taken or not.
    pub fn count(&self) -> usize {
        self.inbox.messages.lock().unwrap().len()
    }

    /// Takes nothing more. Dropped without this it goes on until the test ends.
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
