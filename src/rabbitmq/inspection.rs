//! Inspects one broker for `check`: which objects of the plan are missing, whether they may be
//! declared, and whether the limits allow all connections and channels that `serve` opens. Changes
//! nothing on the broker.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::ConnectConfig;
use super::connection::{self, ConnectError, FrameSize};
use super::open_connection::{CallError, OpenConnection};
use super::publisher::properties::short;
use super::reply_code::{NOT_FOUND, PRECONDITION_FAILED};
use super::topology::disposable_channel::DisposableChannel;
use super::topology::{Object, Topology, redelivery_mode};
use super::url::BrokerUrl;
use super::version;

/// Limit for an orderly close of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of one object of the plan on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It exists. For a queue: the number of messages that are ready.
    There(u64),
    /// It does not exist.
    Missing,
    /// It does not exist and may not be declared, for this reason of the broker. For `check`, which
    /// combines the two answers.
    Denied(String),
    /// The broker refused to tell: reply code and text.
    Unreadable(u16, String),
    /// A binding: AMQP cannot query bindings.
    Unknown,
}

/// The broker does not allow as many connections or channels as `serve` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Channels that could be opened on the last one of them; `None` if the broker refused a
    /// connection.
    pub channels: Option<usize>,
    /// The broker's text.
    pub reason: String,
}

/// A connection for queries that change nothing.
pub struct Inspector {
    connection: OpenConnection,
}

impl Inspector {
    /// Connects to the broker of this URL.
    ///
    /// # Errors
    /// If the broker cannot be reached or refuses the connection.
    pub async fn connect(settings: &ConnectConfig, url: &BrokerUrl) -> Result<Self, ConnectError> {
        let connection = connection::connect(settings, url, FrameSize::Agreed).await?;
        Ok(Self::new(connection))
    }

    pub(super) fn new(connection: OpenConnection) -> Self {
        Self { connection }
    }

    /// The topology that `serve` would use on this broker; it depends on the broker's version.
    ///
    /// # Errors
    /// With the reason, if the connection is lost.
    pub async fn topology(
        &self,
        settings: &ConnectConfig,
        url: &BrokerUrl,
    ) -> Result<Topology, String> {
        let planned = &settings.topology;
        if planned.by_broker.is_empty() {
            return Ok(planned.clone());
        }
        let Some(version) = version::of(url, &settings.tls).await else {
            return Ok(planned.clone());
        };
        match redelivery_mode::choose(&self.connection, version, planned).await {
            Ok(topology) => Ok(topology),
            Err(_) => Err(self.connection.lost().await),
        }
    }

    /// The finding about the version of this broker, if it is not supported.
    pub async fn version_finding(settings: &ConnectConfig, url: &BrokerUrl) -> Option<String> {
        version::finding(version::of(url, &settings.tls).await?)
    }

    /// Queries these objects, and returns the states in the same order.
    ///
    /// # Errors
    /// With the reason, if the connection is lost.
    pub async fn query(&self, objects: &[Object]) -> Result<Vec<Found>, String> {
        let mut disposable = DisposableChannel::new(&self.connection);
        let mut found = Vec::new();
        for object in objects {
            found.push(match disposable.query(object).await {
                Ok(_) if matches!(object, Object::Binding(_)) => Found::Unknown,
                Ok(messages) => Found::There(messages),
                Err(CallError::Closed(NOT_FOUND, _)) => Found::Missing,
                Err(CallError::Closed(code, text)) => Found::Unreadable(code, text),
                Err(CallError::Lost) => return Err(self.connection.lost().await),
            });
        }
        Ok(found)
    }

    /// Why we may not declare an object that is missing; `None` if we may. Sends a declaration that
    /// cannot succeed: with an argument of a wrong type, with properties that exclude each other,
    /// or a binding of a queue that does not exist. The broker checks permissions and limits before
    /// it rejects these.
    ///
    /// # Errors
    /// With the reason, if the connection is lost.
    pub async fn denied(&self, object: &Object) -> Result<Option<String>, String> {
        let asked = match self.connection.open_channel().await {
            Ok(channel) => {
                let declared = declare_wrongly(&channel, object);
                self.connection.call("check a permission", declared).await
            }
            Err(error) => Err(error),
        };
        match asked {
            Err(CallError::Closed(PRECONDITION_FAILED, text)) if !text.contains(" limit ") => {
                Ok(None)
            }
            Ok(()) | Err(CallError::Closed(NOT_FOUND, _)) => Ok(None),
            Err(CallError::Closed(_, text)) => Ok(Some(text)),
            Err(CallError::Lost) => Err(self.connection.lost().await),
        }
    }

    /// Closes the connection and waits for the broker's reply, so that the broker does not count it
    /// any more.
    pub async fn close(self) {
        self.connection.close(CLOSE_TIMEOUT).await;
    }
}

async fn declare_wrongly(channel: &Channel, object: &Object) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    match object {
        Object::Exchange(exchange) => {
            arguments.insert("alternate-exchange".into(), AMQPValue::LongLongInt(0));
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let name = short(&exchange.name);
            channel
                .exchange_declare(name, ExchangeKind::Topic, options, arguments)
                .await
        }
        Object::Queue(queue) => {
            // A quorum queue can be neither exclusive nor auto-delete. An invalid argument does not
            // help here: from 4.3 on, arguments are checked before limits.
            let quorum = AMQPValue::LongString("quorum".into());
            arguments.insert("x-queue-type".into(), quorum);
            let options = QueueDeclareOptions {
                durable: true,
                exclusive: true,
                auto_delete: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel.queue_declare(short(&queue.name), options, arguments);
            declared.await.map(drop)
        }
        Object::Binding(binding) => {
            let [queue, exchange, key] =
                [&binding.queue, &binding.exchange, &binding.key].map(|name| short(name));
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue, exchange, key, options, arguments)
                .await
        }
    }
}

/// Opens one connection for each element of `needed`, with that many channels, and keeps them open
/// until all are.
///
/// # Errors
/// What the broker refused.
pub async fn check_capacity(
    settings: &ConnectConfig,
    url: &BrokerUrl,
    needed: &[usize],
) -> Result<(), Shortage> {
    let mut open = Vec::new();
    let filled = fill(settings, url, needed, &mut open).await;
    for connection in open {
        connection.close(CLOSE_TIMEOUT).await;
    }
    filled
}

async fn fill(
    settings: &ConnectConfig,
    url: &BrokerUrl,
    needed: &[usize],
    open: &mut Vec<OpenConnection>,
) -> Result<(), Shortage> {
    // Dropping a channel closes it.
    let mut kept = Vec::new();
    for channels in needed {
        let connection = connection::connect(settings, url, FrameSize::Agreed).await;
        let connection = connection.map_err(|error| Shortage {
            channels: None,
            reason: error.reason(),
        })?;
        for opened in 0..*channels {
            let Ok(channel) = connection.open_channel().await else {
                return Err(Shortage {
                    channels: Some(opened),
                    reason: connection.lost().await,
                });
            };
            kept.push(channel);
        }
        open.push(connection);
    }
    Ok(())
}
