//! The AsyncAPI 3 document of what the configuration publishes: where, with which headers and
//! bodies, and which queues store it. Generated from the topology plan that is declared and the
//! routes that are used, so that it matches what happens. Contains no user and no password.

mod channels;
mod headers;
mod messages;
mod strict;

use serde_json::{Map, Value, json};

pub use self::strict::strict;
use crate::config::Config;
use crate::rabbitmq::url::BrokerUrl;
use crate::webhook::routing::Routing;

/// Version of the AMQP bindings in the document.
const BINDING_VERSION: &str = "0.3.0";

const DESCRIPTION: &str = "The bridge between DeskDirector's chat webhooks and RabbitMQ. One \
    message per chat session, routed by status, published at least once: the same event always has \
    the same `message_id`. Messages of one session are published in order. Messages without a \
    subscriber and messages that cannot be delivered are stored in separate queues.";

/// The document for these brokers; its bindings contain the vhost of the first one.
#[must_use]
pub fn document(config: &Config, routing: &Routing, brokers: &[BrokerUrl]) -> Value {
    let vhost = brokers.first().map_or("/", BrokerUrl::vhost);
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "deskbridge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": servers(brokers),
        "channels": {},
        "operations": {},
        "components": {
            "messages": messages::all(routing),
            "schemas": messages::schemas(),
            "correlationIds": {
                "session": {
                    "description": "The session's id; also in the AMQP property `correlation_id`.",
                    "location": "$message.header#/session-id",
                },
            },
            "securitySchemes": {
                "login": { "type": "userPassword", "description": "A user of the vhost." },
            },
        },
    });
    channels::add(&mut document, config, routing, vhost);
    document
}

fn servers(brokers: &[BrokerUrl]) -> Map<String, Value> {
    let server = |(index, broker): (usize, &BrokerUrl)| {
        let (host, port) = (broker.host(), broker.port());
        let is_ipv6 = host.contains(':');
        let server = json!({
            "host": if is_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            "pathname": format!("/{}", broker.vhost().replace('/', "%2f")),
            "protocol": if broker.is_tls() { "amqps" } else { "amqp" },
            "protocolVersion": "0.9.1",
            "security": [{ "$ref": "#/components/securitySchemes/login" }],
        });
        (format!("rabbitmq-{}", index + 1), server)
    };
    brokers.iter().enumerate().map(server).collect()
}

/// Converts a name so that it can be a key of the document and part of a reference.
fn key(name: &str) -> String {
    name.replace(
        |char: char| !char.is_ascii_alphanumeric() && !matches!(char, '-' | '_'),
        "-",
    )
}

#[cfg(test)]
mod tests;
