//! Browses a queue for an operator: fetches its messages in batches, in order, and holds them
//! unacknowledged. Messages that are not removed return to their position when the queue is closed.
//! If this process is killed, they return, too, but behind messages that had been returned before.
//! For commands; the bridge itself does not browse.
//!
//! Measured on 3.10: when a channel closes, a quorum queue takes its messages back in order, as
//! long as at most 32 consumers of the queue hold any. `basic.nack` and `basic.get` change the
//! order. Returned messages are queued before those that were never delivered, and behind those
//! that were returned earlier. Therefore either all or none of the earlier returned messages are
//! fetched. A removal is durable only later: see [`Queue::confirmed_removals`].

mod browse;
mod delivery_limit;
mod queued_message;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use tokio::time::{Instant, timeout};

pub use self::delivery_limit::DeliveryLimit;
pub use self::queued_message::QueuedMessage;
use super::ConnectConfig;
use super::connection::{self, FrameSize, Unreachable};
use super::open_connection::{CallError, OpenConnection};
use super::publisher::properties::short;
use super::reply_code::NOT_FOUND;
use super::version::{self, Version};

/// Messages of a batch while none are held. Doubles with each batch of which messages are held.
const BATCH_MIN: u16 = 256;
/// Largest number of messages of a batch: their bodies are in memory together.
const BATCH_MAX: u16 = 16_384;
/// Largest number of batches of which messages may be held. With more than 32, messages could
/// return in another order, and flushing the removals can need two more.
const BATCHES_MAX: usize = 30;
/// If the queue delivers nothing for this long, it withholds its messages, or another consumer has
/// taken them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Number of consumer starts and cancellations after which a removal is durable.
const ACK_BARRIERS: usize = 3;
/// Limit for held messages to return to the queue.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for an orderly close, for the broker to stop counting our consumers after it, and for a
/// message that may not arrive at all.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why browsing a queue failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No broker accepted a connection.
    #[error(transparent)]
    Connect(#[from] Unreachable),
    /// The queue does not exist, or was deleted in the meantime.
    #[error("there is no queue `{0}`")]
    Missing(String),
    /// The broker refused the operation: reply code and text.
    #[error("the broker refuses: {1} ({0})")]
    Refused(u16, String),
    /// The queue has ready messages but delivers none, as when its single active consumer is
    /// another one.
    #[error(
        "queue `{0}` has messages but delivers none; does it have another single active consumer?"
    )]
    Withheld(String),
    /// The connection was lost. The held messages have returned to the queue.
    #[error("the connection to the broker was lost: {0}")]
    Lost(String),
}

/// A queue that is being browsed. The fetched messages are held until they are removed, or until
/// [`Queue::close`].
pub struct QueueBrowser {
    connection: OpenConnection,
    channel: Channel,
    name: ShortString,
    waiting: u64,
    seen: u64,
    removed: u64,
    /// Number of removals sent before each of the last barriers, the latest last.
    removed_before_barriers: [u64; ACK_BARRIERS],
    /// Number of batches begun.
    batches: u64,
    /// Number of held messages by batch, for batches of which any are held.
    held: BTreeMap<u64, usize>,
    /// Whether the last message fetched had been returned before. More such messages may follow it.
    is_among_returned: bool,
}

impl QueueBrowser {
    /// Opens a separate connection and checks that the queue exists. Fetches nothing.
    ///
    /// # Errors
    /// If no broker accepts a connection, or the queue does not exist or may not be read.
    pub async fn open(settings: &ConnectConfig, name: &str) -> Result<Self, QueueError> {
        if name.is_empty() || name.len() > 255 {
            return Err(QueueError::Missing(name.into()));
        }
        let connection = connection::connect_to_any(settings, FrameSize::Large).await?;
        let channel = translated(&connection, name, connection.open_channel().await).await?;
        let mut queue = Self {
            connection,
            channel,
            name: short(name),
            waiting: 0,
            seen: 0,
            removed: 0,
            removed_before_barriers: [0; ACK_BARRIERS],
            batches: 0,
            held: BTreeMap::new(),
            is_among_returned: false,
        };
        queue.waiting = queue.ready().await?.0;
        Ok(queue)
    }

    /// Determines the delivery limit of the queue, as far as AMQP reveals it. Changes nothing.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn delivery_limit(
        &self,
        settings: &ConnectConfig,
    ) -> Result<DeliveryLimit, QueueError> {
        let limit = delivery_limit::ask(&self.connection, &self.name).await;
        let limit = translated(&self.connection, self.name.as_str(), limit).await?;
        let is_default = limit == DeliveryLimit::BrokersDefault;
        if is_default && let Some(Version(0..4, _)) = version::of_any(settings).await {
            return Ok(DeliveryLimit::Unlimited);
        }
        Ok(limit)
    }

    /// Number of messages that were ready when the queue was opened, or last
    /// [extended](Self::extend). A pass fetches no more than these.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Number of these messages that this pass has not fetched yet.
    #[must_use]
    pub fn unfetched(&self) -> u64 {
        self.waiting.saturating_sub(self.seen)
    }

    /// Number of removals requested so far.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Number of removals that are durable. They are the first ones in the order of removal.
    ///
    /// A channel sends at most 32 commands to a quorum queue in advance. It keeps further ones in
    /// memory until it learns that those were applied, and drops them when it closes. Starting and
    /// cancelling a consumer are entries of the queue's log, and serve as barriers. The first
    /// barrier follows all commands that were sent. With the second, the channel has learnt of
    /// their application and sends the rest. The third follows these, too.
    #[must_use]
    pub fn confirmed_removals(&self) -> u64 {
        self.removed_before_barriers[0]
    }

    /// Extends the pass to the messages that have arrived since it began.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn extend(&mut self) -> Result<(), QueueError> {
        self.waiting = self.seen + self.ready().await?.0;
        Ok(())
    }

    /// Fetches and holds the next batch. It is empty when all messages of the pass were fetched, or
    /// when messages of as many batches are held as the order allows.
    ///
    /// # Errors
    /// If the broker does not deliver the messages.
    pub async fn fetch(&mut self) -> Result<Vec<QueuedMessage>, QueueError> {
        let left = self.unfetched();
        if left == 0 || self.held.len() >= BATCHES_MAX {
            return Ok(Vec::new());
        }
        let doubled = BATCH_MIN.saturating_mul(1 << self.held.len().min(8));
        let size = doubled.min(BATCH_MAX);
        let size = u16::try_from(left).unwrap_or(size).min(size);
        let mut consumer = self.consume(size).await?;
        let batch = self.receive(&mut consumer, size).await?;
        self.cancel(&consumer).await?;
        self.hold(&batch);
        Ok(batch)
    }

    /// Removes a message. The removal is [durable](Self::confirmed_removals) only later.
    ///
    /// # Errors
    /// If the connection is lost. The message may then still be in the queue.
    pub async fn remove(&mut self, message: &QueuedMessage) -> Result<(), QueueError> {
        self.removed += 1;
        let ack = self
            .channel
            .basic_ack(message.tag, BasicAckOptions::default());
        self.call("accept an acknowledgement", ack).await?;
        if let Some(held) = self.held.get_mut(&message.batch) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&message.batch);
            }
        }
        Ok(())
    }

    /// Waits until all removals are [durable](Self::confirmed_removals).
    ///
    /// # Errors
    /// If the connection is lost. Removals that were not durable may then not have happened.
    pub async fn flush_acks(&mut self) -> Result<(), QueueError> {
        while self.confirmed_removals() < self.removed {
            let is_any_ready = self.ready().await?.0 > 0;
            let mut consumer = self.consume(1).await?;
            let mut batch = Vec::new();
            // A message that is delivered is held like any other. If the consumer were cancelled
            // before the delivery, the broker would return the message by itself, before those that
            // are held.
            if is_any_ready
                && let Ok(Some(Ok(delivery))) = timeout(CLOSE_TIMEOUT, consumer.next()).await
            {
                self.seen += 1;
                batch.push(QueuedMessage::new(self.seen, self.batches, delivery));
            }
            self.cancel(&consumer).await?;
            self.hold(&batch);
        }
        Ok(())
    }

    /// Returns all messages that were not removed, and waits until they are in the queue again.
    ///
    /// # Errors
    /// If the connection is lost. Removals that were not durable may then not have happened.
    pub async fn close(mut self) -> Result<(), QueueError> {
        self.flush_acks().await?;
        // If only a part of the messages that had been returned before were held, that part would
        // return behind the rest. So fetch up to the last of them.
        while self.is_among_returned {
            self.extend().await?;
            if self.fetch().await?.is_empty() {
                break;
            }
        }
        self.call("close a channel", self.channel.close(200, "OK".into()))
            .await?;
        let opened = self.connection.open_channel().await;
        self.channel = translated(&self.connection, self.name.as_str(), opened).await?;
        let began = Instant::now();
        loop {
            let (ready, consumers) = self.ready().await?;
            // The broker counts our own consumers a moment longer. A consumer after that is another
            // one, which takes the messages that have returned.
            let is_taken = consumers > 0 && began.elapsed() > CLOSE_TIMEOUT;
            let is_back = ready >= self.waiting - self.removed;
            if is_back || is_taken || began.elapsed() > RETURN_TIMEOUT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.connection.close(CLOSE_TIMEOUT).await;
        Ok(())
    }
}

/// Translates the error of a call about the queue.
async fn translated<T>(
    connection: &OpenConnection,
    queue: &str,
    result: Result<T, CallError>,
) -> Result<T, QueueError> {
    match result {
        Ok(value) => Ok(value),
        Err(CallError::Closed(NOT_FOUND, _)) => Err(QueueError::Missing(queue.into())),
        Err(CallError::Closed(code, text)) => Err(QueueError::Refused(code, text)),
        Err(CallError::Lost) => Err(QueueError::Lost(connection.lost().await)),
    }
}
