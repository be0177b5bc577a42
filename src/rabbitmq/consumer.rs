//! Consumes messages from a private queue that the broker deletes with its connection. For `tail`
//! and for tests; the bridge itself does not use it.

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::ConnectConfig;
use super::connection::{self, FrameSize, Unreachable};
use super::headers::flat;
use super::open_connection::OpenConnection;
use crate::webhook::message::Header;

/// Unacknowledged messages that the broker delivers at most.
const PREFETCH: u16 = 256;

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The exchange that it was published to.
    pub exchange: String,
    /// The routing key that it was published with.
    pub routing_key: String,
    /// Whether the broker has delivered it before.
    pub is_redelivered: bool,
    /// 2 if the message is persistent, 1 if it is transient.
    pub delivery_mode: Option<u8>,
    /// AMQP property `content-type`.
    pub content_type: Option<String>,
    /// AMQP property `message-id`.
    pub message_id: Option<String>,
    /// AMQP property `correlation-id`.
    pub correlation_id: Option<String>,
    /// AMQP property `type`.
    pub message_type: Option<String>,
    /// AMQP property `app-id`.
    pub app_id: Option<String>,
    /// AMQP property `timestamp`, in seconds since 1970.
    pub timestamp_seconds: Option<u64>,
    /// Headers by name; values other than strings and integers as text.
    pub headers: Vec<(String, Header)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// Why subscribing or receiving failed.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// No broker accepted a connection.
    #[error(transparent)]
    Connect(#[from] Unreachable),
    /// The broker refused a binding.
    #[error("subscribing to exchange `{exchange}` with key `{key}`")]
    Bind {
        /// Name of the exchange.
        exchange: String,
        /// The binding key.
        key: String,
        /// The error of the AMQP call.
        source: lapin::Error,
    },
    /// The private queue could not be declared or consumed.
    #[error("declaring a private queue")]
    Queue(#[source] lapin::Error),
    /// The connection was lost.
    #[error("the connection to the broker was lost")]
    Lost(#[source] Option<lapin::Error>),
}

/// A private queue that is being consumed. The queue is deleted when this is dropped.
pub struct Subscription {
    consumer: Consumer,
    _connection: OpenConnection,
}

/// Opens a separate connection, and binds a private queue with every key to every exchange.
///
/// # Errors
/// If no broker accepts the connection, or a binding is refused, for example because the exchange
/// does not exist.
pub async fn subscribe(
    settings: &ConnectConfig,
    exchanges: &[String],
    keys: &[String],
) -> Result<Subscription, SubscribeError> {
    let connection = connection::connect_to_any(settings, FrameSize::Agreed).await?;
    let bound = bind(&connection, exchanges, keys);
    let bound = tokio::time::timeout(settings.connect_timeout, bound).await;
    let consumer = bound.map_err(|_| SubscribeError::Lost(None))??;
    Ok(Subscription {
        consumer,
        _connection: connection,
    })
}

impl Subscription {
    /// Waits for the next message, and acknowledges it.
    ///
    /// # Errors
    /// If the connection is lost or the queue is deleted.
    pub async fn next(&mut self) -> Result<Received, SubscribeError> {
        let lost = |error| SubscribeError::Lost(Some(error));
        let next = self.consumer.next().await;
        let delivery = next.ok_or(SubscribeError::Lost(None))?.map_err(lost)?;
        let ack = delivery.acker.ack(BasicAckOptions::default()).await;
        ack.map_err(lost)?;
        Ok(received(delivery))
    }
}

async fn bind(
    connection: &OpenConnection,
    exchanges: &[String],
    keys: &[String],
) -> Result<Consumer, SubscribeError> {
    let channel = connection.amqp().create_channel().await;
    let channel = channel.map_err(SubscribeError::Queue)?;
    let queue = private_queue(&channel).await;
    let queue = queue.map_err(SubscribeError::Queue)?;
    for exchange in exchanges {
        for key in keys {
            let bound = bind_one(&channel, &queue, exchange, key).await;
            bound.map_err(|source| SubscribeError::Bind {
                exchange: exchange.clone(),
                key: key.clone(),
                source,
            })?;
        }
    }
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let consumer = channel
        .basic_consume(queue, "".into(), options, FieldTable::default())
        .await;
    consumer.map_err(SubscribeError::Queue)
}

async fn private_queue(channel: &Channel) -> lapin::Result<ShortString> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let options = QueueDeclareOptions::exclusive().auto_delete();
    let mut arguments = FieldTable::default();
    let classic = AMQPValue::LongString("classic".into());
    arguments.insert("x-queue-type".into(), classic);
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    Ok(queue.name().clone())
}

async fn bind_one(
    channel: &Channel,
    queue: &ShortString,
    exchange: &str,
    key: &str,
) -> lapin::Result<()> {
    let too_long = |_| lapin::Error::from(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let exchange = ShortString::try_new(exchange).map_err(too_long)?;
    let key = ShortString::try_new(key).map_err(too_long)?;
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.clone(), exchange, key, options, FieldTable::default())
        .await
}

pub(super) fn received(delivery: lapin::message::Delivery) -> Received {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let properties = &delivery.properties;
    Received {
        exchange: delivery.exchange.to_string(),
        routing_key: delivery.routing_key.to_string(),
        is_redelivered: delivery.redelivered,
        delivery_mode: *properties.delivery_mode(),
        content_type: text(properties.content_type()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        message_type: text(properties.kind()),
        app_id: text(properties.app_id()),
        timestamp_seconds: *properties.timestamp(),
        headers: properties.headers().iter().flatten().map(flat).collect(),
        body: Bytes::from(delivery.data),
    }
}
