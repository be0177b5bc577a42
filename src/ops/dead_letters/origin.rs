//! Where a message was going before it was dead-lettered or found no queue. Pure.

use serde_json::Value;

use super::target::QueueTarget;
use crate::rabbitmq::queue::QueuedMessage;
use crate::webhook::routing::Route;

/// Exchange and key from the bridge's headers, otherwise from the first death in `x-death`,
/// otherwise those of the message itself: an alternate exchange does not change them.
pub fn of(message: &QueuedMessage, target: &QueueTarget) -> Result<Route, String> {
    let ours = message
        .text("original-exchange")
        .zip(message.text("original-routing-key"));
    if let Some((exchange, key)) = ours {
        return Ok(route(exchange, key));
    }
    if let Some(death) = first_death(message) {
        let exchange = death["exchange"].as_str();
        let key = death["routing-keys"][0].as_str();
        let known = exchange
            .zip(key)
            .map(|(exchange, key)| route(exchange, key));
        return known.ok_or_else(|| "its `x-death` does not say where it was published".into());
    }
    let received = &message.received;
    let (exchange, key) = (received.exchange.as_str(), received.routing_key.as_str());
    if exchange.is_empty() && key == target.queue {
        return Err(
            "it was published directly to this queue; nothing says where it belongs".into(),
        );
    }
    let config = &target.config;
    if exchange == config.dead_letter.exchange || exchange == config.unrouted.exchange {
        return Err(
            "it has neither `original-exchange` nor `x-death`; nothing says where it belongs"
                .into(),
        );
    }
    Ok(route(exchange, key))
}

/// The queue that dead-lettered a message first.
pub fn queue(message: &QueuedMessage) -> Option<String> {
    let first = message.text("x-first-death-queue");
    let of_death = || first_death(message).and_then(|death| death["queue"].as_str());
    first.or_else(of_death).map(ToOwned::to_owned)
}

/// The entries of `x-death`, the latest first.
pub fn deaths(message: &QueuedMessage) -> &[Value] {
    let deaths = message.headers.get("x-death").and_then(Value::as_array);
    deaths.map_or(&[], Vec::as_slice)
}

fn first_death(message: &QueuedMessage) -> Option<&Value> {
    let queue = message.headers.get("x-first-death-queue");
    let reason = message.headers.get("x-first-death-reason");
    let is_first = |death: &&Value| death.get("queue") == queue && death.get("reason") == reason;
    let deaths = deaths(message);
    deaths.iter().find(is_first).or(deaths.last())
}

fn route(exchange: &str, routing_key: &str) -> Route {
    Route {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
    }
}
