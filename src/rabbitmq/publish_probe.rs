//! The publish probe: finds out whether the broker would accept a message for a route, without
//! storing one. AMQP offers no other query for the permission to write, and the broker reports an
//! alarm only to connections that publish.
//!
//! The message cannot be stored: it is published in a transaction that is never committed, and it
//! has a defect that the broker checks last. The broker therefore closes the channel in any case,
//! and its reply is the answer. No later call of ours can overtake that reply.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Event};
use tokio::time::timeout;

use super::ConnectConfig;
use super::connection::{self, ConnectError, FrameSize};
use super::open_connection::closed_by_broker;
use super::reply_code::PRECONDITION_FAILED;
use super::url::BrokerUrl;
use crate::webhook::routing::Route;

/// Limit for each answer of the broker.
const PATIENCE: Duration = Duration::from_secs(3);
/// Used as an invalid expiration and as a foreign user; appears in the broker's log.
const UNACCEPTABLE: &str = "deskbridge-permission-probe";

/// The defect of a probe message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// `user_id` names another user, which only users with the tag `impersonator` may do.
    User,
    /// The expiration is not a number. From RabbitMQ 4.3 on, the broker checks this before the
    /// topic permission.
    Expiration,
}

/// The broker's answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The broker would accept the operation.
    Yes,
    /// The broker refused: reply code and text.
    No(u16, String),
    /// An alarm of the broker blocks publishing.
    Blocked,
    /// The answer could not be determined, for this reason.
    Unknown(String),
}

/// Probes every route over a separate connection. Stops after an answer that is neither yes nor no,
/// so there can be fewer answers than routes.
///
/// # Errors
/// If the broker cannot be reached or refuses the connection.
pub async fn ask<'r>(
    settings: &ConnectConfig,
    url: &BrokerUrl,
    routes: impl IntoIterator<Item = &'r Route>,
) -> Result<Vec<ProbeAnswer>, ConnectError> {
    let connection = connection::connect(settings, url, FrameSize::Agreed).await?;
    let mut events = pin!(connection.amqp().events_listener());
    let mut answers = Vec::new();
    let mut wrong = Wrong::User;
    for route in routes {
        let mut answer = ask_one(connection.amqp(), events.as_mut(), route, wrong).await;
        // No reply means that the message was accepted: our user may impersonate others. Use the
        // other defect from now on, to wait for this timeout only once.
        if answer.is_none() && wrong == Wrong::User {
            wrong = Wrong::Expiration;
            answer = ask_one(connection.amqp(), events.as_mut(), route, wrong).await;
        }
        let no_answer = || ProbeAnswer::Unknown(format!("no answer within {PATIENCE:?}"));
        answers.push(answer.unwrap_or_else(no_answer));
        if let Some(ProbeAnswer::Blocked | ProbeAnswer::Unknown(_)) = answers.last() {
            break;
        }
    }
    connection.close(PATIENCE).await;
    Ok(answers)
}

/// Probes one route. `None` if the broker did not reply within [`PATIENCE`].
async fn ask_one(
    amqp: &lapin::Connection,
    events: impl Stream<Item = Event> + Unpin,
    route: &Route,
    wrong: Wrong,
) -> Option<ProbeAnswer> {
    // The alarm was reported together with an earlier answer.
    if amqp.status().blocked() {
        return Some(ProbeAnswer::Blocked);
    }
    let names = [&route.exchange, &route.routing_key].map(|name| ShortString::try_new(&**name));
    let [Ok(exchange), Ok(key)] = names else {
        let why = "a name is longer than 255 bytes";
        return Some(ProbeAnswer::Unknown(why.into()));
    };
    let asked = timeout(PATIENCE, async {
        // Kept until the answer has arrived: dropping the channel would close it from our side.
        let _channel = publish_unacceptable(amqp, exchange, key, wrong).await?;
        Ok::<_, lapin::Error>(reply(events).await)
    });
    match asked.await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => Some(ProbeAnswer::Unknown(error.to_string())),
        Err(_) if amqp.status().blocked() => Some(ProbeAnswer::Blocked),
        Err(_) => None,
    }
}

async fn publish_unacceptable(
    amqp: &lapin::Connection,
    exchange: ShortString,
    key: ShortString,
    wrong: Wrong,
) -> lapin::Result<lapin::Channel> {
    let channel = amqp.create_channel().await?;
    channel.tx_select().await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let properties = match wrong {
        Wrong::User => properties.with_user_id(UNACCEPTABLE.into()),
        Wrong::Expiration => properties.with_expiration(UNACCEPTABLE.into()),
    };
    let published = channel.basic_publish(exchange, key, options, b"", properties);
    // The broker's reply may arrive before the call returns. Only the reply counts, not the result
    // of the call.
    drop(published.await);
    Ok(channel)
}

/// Waits for the reply with which the broker closes the channel. lapin reports it once per channel.
async fn reply(mut events: impl Stream<Item = Event> + Unpin) -> ProbeAnswer {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(_) => return ProbeAnswer::Blocked,
            Event::Error(error) => {
                return match closed_by_broker(&error) {
                    Some((PRECONDITION_FAILED, text)) if text.contains(UNACCEPTABLE) => {
                        ProbeAnswer::Yes
                    }
                    Some((code, text)) => ProbeAnswer::No(code, text),
                    None => ProbeAnswer::Unknown(error.to_string()),
                };
            }
            _ => {}
        }
    }
    ProbeAnswer::Unknown("the connection was lost".into())
}
