//! Where a message was going before it came to lie in a queue for the dead. Pure.

use deskbridge::rabbitmq::queue::Letter;
use deskbridge::webhook::routing::Route;
use serde_json::Value;

use crate::cli::dead_letters::summary::text;

/// Exchanges that messages come from only when they are dead or nobody's.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// The queue that is looked into.
    pub queue: &'a str,
    /// The dead-letter exchange.
    pub dead_letter: &'a str,
    /// The alternate exchange.
    pub unrouted: &'a str,
}

/// By the bridge's headers, else by the first death the broker tells of, else as it was published:
/// an alternate exchange leaves exchange and key as they were.
pub fn of(letter: &Letter, holding: Holding) -> Result<Route, String> {
    let ours = text(letter, "original-exchange").zip(text(letter, "original-routing-key"));
    if let Some((exchange, key)) = ours {
        return Ok(route(exchange, key));
    }
    if let Some(death) = first_death(letter) {
        let exchange = death["exchange"].as_str();
        let key = death["routing-keys"][0].as_str();
        let known = exchange
            .zip(key)
            .map(|(exchange, key)| route(exchange, key));
        return known.ok_or_else(|| "its `x-death` does not say where it was published".into());
    }
    let received = &letter.received;
    let (exchange, key) = (received.exchange.as_str(), received.routing_key.as_str());
    if exchange.is_empty() && key == holding.queue {
        return Err(
            "it was published straight into this queue; nothing says where it belongs".into(),
        );
    }
    if exchange == holding.dead_letter || exchange == holding.unrouted {
        return Err(
            "it has neither `original-exchange` nor `x-death`; nothing says where it belongs"
                .into(),
        );
    }
    Ok(route(exchange, key))
}

/// Every death the broker tells of, the latest first.
pub fn deaths(letter: &Letter) -> &[Value] {
    let deaths = letter.headers.get("x-death").and_then(Value::as_array);
    deaths.map_or(&[], Vec::as_slice)
}

fn first_death(letter: &Letter) -> Option<&Value> {
    let queue = letter.headers.get("x-first-death-queue");
    let reason = letter.headers.get("x-first-death-reason");
    let is_first = |death: &&Value| death.get("queue") == queue && death.get("reason") == reason;
    let deaths = deaths(letter);
    deaths.iter().find(is_first).or(deaths.last())
}

fn route(exchange: &str, routing_key: &str) -> Route {
    Route {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
    }
}
