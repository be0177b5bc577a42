//! Asks one broker what `serve` would find there: what is missing of the plan, whether it may be
//! declared, and whether there is room for all connections and channels. Changes nothing.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use tokio::time::timeout;

use super::Settings;
use super::connection::{self, ConnectError};
use super::live::{CallError, Live};
use super::permitted::Permitted;
use super::publisher::properties::short;
use super::topology::scratch::Scratch;
use super::topology::{Object, Topology, layout};
use super::url::BrokerUrl;
use super::version;

/// How long a polite goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The broker knows no such thing.
const NOT_FOUND: u16 = 404;
/// The broker does not like an argument.
const PRECONDITION_FAILED: u16 = 406;

/// What the broker says of one object of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there. Of a queue: messages that are ready.
    There(u64),
    /// It is not.
    Missing,
    /// The broker does not say: code and text.
    Unreadable(u16, String),
    /// AMQP cannot ask for a binding.
    Unknown,
}

/// The broker has no room for what `serve` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// Connections that it let us open.
    pub connections: usize,
    /// Channels that it let us open on the last one of them; `None` if it was a connection that it
    /// refused.
    pub channels: Option<usize>,
    /// Its words.
    pub reason: String,
}

/// A connection for questions.
pub struct Inspector {
    live: Live,
}

impl Inspector {
    /// Connects.
    ///
    /// # Errors
    /// If the broker does not take us.
    pub async fn connect(settings: &Settings, url: &BrokerUrl) -> Result<Self, ConnectError> {
        let connection = connection::connect(url, &settings.tls, settings.connect_timeout).await?;
        let live = Live::new(connection);
        Ok(Self { live })
    }

    /// What of the plan `serve` would use on this broker.
    ///
    /// # Errors
    /// With the reason, if the connection is lost.
    pub async fn topology(&self, settings: &Settings, url: &BrokerUrl) -> Result<Topology, String> {
        let planned = &settings.topology;
        if planned.by_broker.is_empty() {
            return Ok(planned.clone());
        }
        let Some(version) = version::of(url, &settings.tls).await else {
            return Ok(planned.clone());
        };
        match layout::choose(&self.live, version, planned).await {
            Ok(topology) => Ok(topology),
            Err(_) => Err(self.live.lost().await),
        }
    }

    /// What is there of these objects, in their order.
    ///
    /// # Errors
    /// With the reason, if the connection is lost.
    pub async fn look(&self, objects: &[Object]) -> Result<Vec<Found>, String> {
        let mut scratch = Scratch::new(&self.live);
        let mut found = Vec::new();
        for object in objects {
            let asked = match object {
                Object::Exchange(exchange) => {
                    let asked = scratch.look_for_exchange(&exchange.name).await;
                    asked.map(|()| Found::There(0))
                }
                Object::Queue(queue) => scratch.count(&queue.name).await.map(Found::There),
                Object::Binding(_) => Ok(Found::Unknown),
            };
            found.push(match asked {
                Ok(found) => found,
                Err(CallError::Closed(NOT_FOUND, _)) => Found::Missing,
                Err(CallError::Closed(code, text)) => Found::Unreadable(code, text),
                Err(CallError::Lost) => return Err(self.live.lost().await),
            });
        }
        Ok(found)
    }

    /// Whether we may declare something that is missing. Asked with an argument of a wrong type, or
    /// for a queue that is not there: the broker looks at permissions and limits before it refuses.
    ///
    /// # Errors
    /// With the reason, if the connection is lost.
    pub async fn may_declare(&self, object: &Object) -> Result<Permitted, String> {
        let asked = match self.live.open_channel().await {
            Ok(channel) => self.declare_wrongly(&channel, object).await,
            Err(error) => Err(error),
        };
        match asked {
            Err(CallError::Closed(PRECONDITION_FAILED, text)) if !text.contains(" limit ") => {
                Ok(Permitted::Yes)
            }
            Err(CallError::Closed(NOT_FOUND, _)) => Ok(Permitted::Yes),
            Err(CallError::Closed(code, text)) => Ok(Permitted::No(code, text)),
            Err(CallError::Lost) => Err(self.live.lost().await),
            Ok(()) => Ok(Permitted::Unknown("it took what it should refuse".into())),
        }
    }

    async fn declare_wrongly(&self, channel: &Channel, object: &Object) -> Result<(), CallError> {
        let wrong = |argument: &str| {
            let mut arguments = FieldTable::default();
            arguments.insert(short(argument), AMQPValue::LongLongInt(0));
            arguments
        };
        match object {
            Object::Exchange(exchange) => {
                let options = ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                let declared = channel.exchange_declare(
                    short(&exchange.name),
                    ExchangeKind::Topic,
                    options,
                    wrong("alternate-exchange"),
                );
                self.live.call("tell of a permission", declared).await
            }
            Object::Queue(queue) => {
                let options = QueueDeclareOptions {
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                let arguments = wrong("x-dead-letter-exchange");
                let declared = channel.queue_declare(short(&queue.name), options, arguments);
                let declared = self.live.call("tell of a permission", declared).await;
                declared.map(drop)
            }
            Object::Binding(binding) => {
                let bound = channel.queue_bind(
                    short(&binding.queue),
                    short(&binding.exchange),
                    short(&binding.key),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                self.live.call("tell of a permission", bound).await
            }
        }
    }

    /// Hangs up, and waits until the broker knows: it counts connections.
    pub async fn close(self) {
        let goodbye = self.live.amqp().close(200, "OK".into());
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

/// Opens as many connections at once as there are numbers, each with that many channels.
pub async fn look_for_room(
    settings: &Settings,
    url: &BrokerUrl,
    needed: &[usize],
) -> Option<Shortage> {
    let mut open = Vec::new();
    let mut shortage = None;
    'connections: for channels in needed {
        let inspector = match Inspector::connect(settings, url).await {
            Ok(inspector) => inspector,
            Err(error) => {
                shortage = Some(Shortage {
                    connections: open.len(),
                    channels: None,
                    reason: error.reason(),
                });
                break;
            }
        };
        let mut kept = Vec::new();
        while kept.len() < *channels {
            if let Ok(channel) = inspector.live.open_channel().await {
                kept.push(channel);
                continue;
            }
            shortage = Some(Shortage {
                connections: open.len() + 1,
                channels: Some(kept.len()),
                reason: inspector.live.lost().await,
            });
            break 'connections;
        }
        open.push((inspector, kept));
    }
    for (inspector, channels) in open {
        inspector.close().await;
        drop(channels);
    }
    shortage
}
