//! Whether the broker would take a message at a route, without giving it one. AMQP has no other way
//! to ask for permission to write, and an alarm of the broker shows only when something is published.
//!
//! The message cannot be stored: its expiration is no number, which the broker refuses after it has
//! looked at everything else, and it is published in a transaction that nobody commits. So the broker
//! closes the channel whatever it thinks of the message, its reply is the answer, and no call of ours
//! can overtake that reply.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Event};
use tokio::time::timeout;

use super::Settings;
use super::connection::{self, ConnectError};
use super::live::closed_by_broker;
use super::url::BrokerUrl;
use crate::webhook::routing::Route;

/// For each answer of the broker.
const PATIENCE: Duration = Duration::from_secs(3);
/// Refused by every broker, and shown in its log.
const EXPIRATION: &str = "only-asking-for-permission";

/// What the broker said to a message that it was not left with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// It would take it.
    Yes,
    /// It closed the channel: code and text.
    No(u16, String),
    /// An alarm stops publishing.
    Blocked,
    /// It did not say.
    Unknown(String),
}

/// Asks about every route, on a connection of its own. There are fewer answers than routes if the
/// last one is neither yes nor no.
///
/// # Errors
/// If the broker does not let us connect.
pub async fn ask(
    settings: &Settings,
    url: &BrokerUrl,
    routes: &[Route],
) -> Result<Vec<Permitted>, ConnectError> {
    let connection = connection::connect(url, &settings.tls, settings.connect_timeout).await?;
    let mut events = pin!(connection.amqp.events_listener());
    let mut answers = Vec::new();
    for route in routes {
        // Told of an alarm with the answer before.
        let answer = if connection.amqp.status().blocked() {
            Permitted::Blocked
        } else {
            ask_one(&connection.amqp, events.as_mut(), route).await
        };
        let is_over = matches!(answer, Permitted::Blocked | Permitted::Unknown(_));
        answers.push(answer);
        if is_over {
            break;
        }
    }
    let goodbye = connection.amqp.close(200, "OK".into());
    let _ = timeout(PATIENCE, goodbye).await;
    Ok(answers)
}

async fn ask_one(
    amqp: &lapin::Connection,
    events: impl Stream<Item = Event> + Unpin,
    route: &Route,
) -> Permitted {
    let names = [&route.exchange, &route.routing_key].map(|name| ShortString::try_new(&**name));
    let [Ok(exchange), Ok(key)] = names else {
        return Permitted::Unknown("a name is longer than 255 bytes".into());
    };
    let asked = timeout(PATIENCE, async {
        // Kept until the answer is there: dropping it would close it from our side.
        let _channel = publish_unacceptable(amqp, exchange, key).await?;
        Ok::<_, lapin::Error>(reply(events).await)
    });
    match asked.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Permitted::Unknown(error.to_string()),
        Err(_) if amqp.status().blocked() => Permitted::Blocked,
        Err(_) => Permitted::Unknown(format!("no answer within {PATIENCE:?}")),
    }
}

async fn publish_unacceptable(
    amqp: &lapin::Connection,
    exchange: ShortString,
    key: ShortString,
) -> lapin::Result<lapin::Channel> {
    let channel = amqp.create_channel().await?;
    channel.tx_select().await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default().with_expiration(EXPIRATION.into());
    let published = channel.basic_publish(exchange, key, options, b"", properties);
    // The reply may be here before the call is through; it counts, and not what the call says.
    drop(published.await);
    Ok(channel)
}

/// Why the broker has closed the channel. lapin tells that once for each channel.
async fn reply(mut events: impl Stream<Item = Event> + Unpin) -> Permitted {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(_) => return Permitted::Blocked,
            Event::Error(error) => {
                return match closed_by_broker(&error) {
                    Some((406, text)) if text.contains(EXPIRATION) => Permitted::Yes,
                    Some((code, text)) => Permitted::No(code, text),
                    None => Permitted::Unknown(error.to_string()),
                };
            }
            _ => {}
        }
    }
    Permitted::Unknown("the connection was lost".into())
}
