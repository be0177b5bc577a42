//! Reads sessions as they pass, with a private queue that is gone with its connection. For `tail`
//! and for tests; the bridge itself consumes nothing.

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::Settings;
use super::connection::{self, Connection, Unreachable};
use crate::webhook::message::Header;

/// Messages the broker sends ahead.
const PREFETCH: u16 = 256;

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where it was published.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Whether the broker sent it before.
    pub is_redelivered: bool,
    /// 2 if it survives a restart of the broker.
    pub delivery_mode: Option<u8>,
    /// `content_type`.
    pub content_type: Option<String>,
    /// `message_id`.
    pub message_id: Option<String>,
    /// `correlation_id`.
    pub correlation_id: Option<String>,
    /// `type`.
    pub message_type: Option<String>,
    /// `app_id`.
    pub app_id: Option<String>,
    /// `timestamp`, in seconds since 1970.
    pub timestamp_seconds: Option<u64>,
    /// Headers by name; other types than strings and integers as text.
    pub headers: Vec<(String, Header)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// Why nothing more is received.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// No broker could be connected to.
    #[error(transparent)]
    Connect(#[from] Unreachable),
    /// The broker does not let us subscribe.
    #[error("subscribing to exchange `{exchange}` with key `{key}`")]
    Bind {
        /// The exchange.
        exchange: String,
        /// The key.
        key: String,
        /// Why.
        source: lapin::Error,
    },
    /// No private queue.
    #[error("making a private queue")]
    Queue(#[source] lapin::Error),
    /// The connection is gone.
    #[error("the connection to the broker was lost")]
    Lost(#[source] Option<lapin::Error>),
}

/// A private queue that is being read.
pub struct Subscription {
    consumer: Consumer,
    _connection: Connection,
}

/// Connects on a connection of its own and binds a private queue with every key to every exchange.
///
/// # Errors
/// If no broker takes us, or one of the exchanges is missing.
pub async fn subscribe(
    settings: &Settings,
    exchanges: &[String],
    keys: &[String],
) -> Result<Subscription, SubscribeError> {
    let connection = connection::connect_to_any(settings).await?;
    let bound = bind(&connection, exchanges, keys);
    let consumer = match tokio::time::timeout(settings.connect_timeout, bound).await {
        Ok(consumer) => consumer?,
        Err(_) => return Err(SubscribeError::Lost(None)),
    };
    Ok(Subscription {
        consumer,
        _connection: connection,
    })
}

impl Subscription {
    /// Waits for the next message.
    ///
    /// # Errors
    /// When the broker goes away or takes the queue away.
    pub async fn next(&mut self) -> Result<Received, SubscribeError> {
        let delivery = match self.consumer.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(SubscribeError::Lost(Some(error))),
            None => return Err(SubscribeError::Lost(None)),
        };
        let ack = delivery.acker.ack(BasicAckOptions::default()).await;
        ack.map_err(|error| SubscribeError::Lost(Some(error)))?;
        Ok(received(delivery))
    }
}

async fn bind(
    connection: &Connection,
    exchanges: &[String],
    keys: &[String],
) -> Result<Consumer, SubscribeError> {
    let channel = connection
        .amqp
        .create_channel()
        .await
        .map_err(SubscribeError::Queue)?;
    let queue = private_queue(&channel)
        .await
        .map_err(SubscribeError::Queue)?;
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
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("classic".into()),
    );
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
        headers: properties.headers().iter().flatten().map(header).collect(),
        body: Bytes::from(delivery.data),
    }
}

fn header((name, value): (&ShortString, &AMQPValue)) -> (String, Header) {
    let value = match value {
        AMQPValue::LongString(text) => Header::Text(text.to_string()),
        AMQPValue::ShortString(text) => Header::Text(text.to_string()),
        AMQPValue::LongLongInt(number) => Header::Integer(*number),
        AMQPValue::LongInt(number) => Header::Integer((*number).into()),
        AMQPValue::LongUInt(number) => Header::Integer((*number).into()),
        AMQPValue::ShortInt(number) => Header::Integer((*number).into()),
        AMQPValue::Boolean(flag) => Header::Text(flag.to_string()),
        other => Header::Text(format!("{other:?}")),
    };
    (name.to_string(), value)
}
