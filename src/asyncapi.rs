//! The AsyncAPI 3 document of what the configuration publishes: where, with which headers and
//! bodies, and which queues hold it. Made of the plan that is declared and the routes that are
//! used, so that it says what happens. Holds no user and no password.

mod channels;
mod headers;
mod messages;

use serde_json::{Map, Value, json};

use self::channels::Channels;
use crate::config::Config;
use crate::rabbitmq::topology::Topology;
use crate::rabbitmq::url::BrokerUrl;
use crate::webhook::routing::Routing;

/// Version of the AMQP bindings that are written.
const BINDING_VERSION: &str = "0.3.0";

const DESCRIPTION: &str = "The bridge between DeskDirector's chat webhooks and RabbitMQ. One \
    message per chat session, routed by status, published at least once: the same event always has \
    the same `message_id`. Messages of one session come in order. What nobody has subscribed to and \
    what cannot be delivered is held in queues of its own.";

/// The document for these brokers, of which the first one's vhost stands in the bindings.
#[must_use]
pub fn document(config: &Config, routing: &Routing, brokers: &[BrokerUrl]) -> Value {
    let vhost = brokers.first().map_or("/", BrokerUrl::vhost);
    let topology = Topology::plan(config);
    let Channels {
        channels,
        operations,
    } = Channels::of(config, routing, &topology, vhost);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "deskbridge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": servers(brokers),
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages::all(routing),
            "schemas": messages::schemas(),
            "correlationIds": {
                "session": {
                    "description": "The session's id; the AMQP property `correlation_id` has it too.",
                    "location": "$message.header#/session-id",
                },
            },
            "securitySchemes": {
                "login": { "type": "userPassword", "description": "A user of the vhost." },
            },
        },
    })
}

fn servers(brokers: &[BrokerUrl]) -> Map<String, Value> {
    let server = |(index, broker): (usize, &BrokerUrl)| {
        let host = if broker.host().contains(':') {
            format!("[{}]:{}", broker.host(), broker.port())
        } else {
            format!("{}:{}", broker.host(), broker.port())
        };
        let server = json!({
            "host": host,
            "pathname": format!("/{}", broker.vhost().replace('/', "%2f")),
            "protocol": if broker.is_tls() { "amqps" } else { "amqp" },
            "protocolVersion": "0.9.1",
            "security": [{ "$ref": "#/components/securitySchemes/login" }],
        });
        (format!("rabbitmq-{}", index + 1), server)
    };
    brokers.iter().enumerate().map(server).collect()
}

/// A name that may be a key of the document and part of a reference.
fn key(name: &str) -> String {
    let plain = |char: char| {
        if char.is_ascii_alphanumeric() || matches!(char, '-' | '_') {
            char
        } else {
            '-'
        }
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests;
