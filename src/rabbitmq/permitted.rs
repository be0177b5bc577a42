//! Whether the broker would take a message at a route, without giving it one: published in a
//! transaction that is rolled back. AMQP has no other way to ask for permission to write, and an
//! alarm of the broker shows only when something is published.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;

use super::Settings;
use super::connection::{self, ConnectError, Connection};
use super::live::closed_by_broker;
use super::url::BrokerUrl;
use crate::webhook::routing::Route;

/// For each answer of the broker.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// Asks about every route, on a connection of its own.
///
/// # Errors
/// If the broker does not let us connect.
pub async fn ask(
    settings: &Settings,
    url: &BrokerUrl,
    routes: &[Route],
) -> Result<Vec<Permitted>, ConnectError> {
    let connection = connection::connect(url, &settings.tls, settings.connect_timeout).await?;
    let mut answers = Vec::new();
    for route in routes {
        let answer = ask_one(&connection, route).await;
        let is_over = matches!(answer, Permitted::Blocked | Permitted::Unknown(_));
        answers.push(answer);
        if is_over {
            break;
        }
    }
    let goodbye = connection.amqp.close(200, "OK".into());
    let _ = tokio::time::timeout(PATIENCE, goodbye).await;
    Ok(answers)
}

async fn ask_one(connection: &Connection, route: &Route) -> Permitted {
    let names = [&route.exchange, &route.routing_key].map(|name| ShortString::try_new(&**name));
    let [Ok(exchange), Ok(key)] = names else {
        return Permitted::Unknown("a name is longer than 255 bytes".into());
    };
    let asked = publish_nothing(&connection.amqp, exchange, key);
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    match asked {
        Ok(Ok(())) => Permitted::Yes,
        Ok(Err(error)) => match closed_by_broker(&error) {
            Some((code, text)) => Permitted::No(code, text),
            None => Permitted::Unknown(error.to_string()),
        },
        Err(_) if connection.amqp.status().blocked() => Permitted::Blocked,
        Err(_) => Permitted::Unknown(format!("no answer within {PATIENCE:?}")),
    }
}

async fn publish_nothing(
    amqp: &lapin::Connection,
    exchange: ShortString,
    key: ShortString,
) -> lapin::Result<()> {
    let channel = amqp.create_channel().await?;
    channel.tx_select().await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let publish = channel.basic_publish(exchange, key, options, b"", properties);
    drop(publish.await?);
    channel.tx_rollback().await?;
    channel.close(200, "OK".into()).await
}
