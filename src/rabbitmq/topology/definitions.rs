//! The plan as RabbitMQ definitions, the JSON that `rabbitmqctl import_definitions` and the
//! management API import. Pure.

use serde_json::{Map, Value, json};

use super::{Kind, Object, PlannedExchange, PlannedQueue, Topology};

impl Topology {
    /// The definitions of all exchanges, queues and bindings in this vhost, which itself is not
    /// defined. An import adds what is missing, and changes and deletes nothing.
    #[must_use]
    pub fn definitions(&self, vhost: &str) -> Value {
        let (mut exchanges, mut queues, mut bindings) = (Vec::new(), Vec::new(), Vec::new());
        for object in &self.objects {
            match object {
                Object::Exchange(exchange) => exchanges.push(json!({
                    "name": exchange.name, "vhost": vhost, "type": kind(exchange.kind),
                    "durable": true, "auto_delete": false, "internal": false,
                    "arguments": exchange_arguments(exchange),
                })),
                Object::Queue(queue) => queues.push(json!({
                    "name": queue.name, "vhost": vhost, "durable": true, "auto_delete": false,
                    "arguments": queue_arguments(queue),
                })),
                Object::Binding(binding) => bindings.push(json!({
                    "source": binding.exchange, "vhost": vhost, "destination": binding.queue,
                    "destination_type": "queue", "routing_key": binding.key, "arguments": {},
                })),
            }
        }
        json!({"exchanges": exchanges, "queues": queues, "bindings": bindings})
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Topic => "topic",
        Kind::Fanout => "fanout",
    }
}

fn exchange_arguments(exchange: &PlannedExchange) -> Map<String, Value> {
    let alternate = exchange.alternate.iter();
    alternate
        .map(|alternate| ("alternate-exchange".to_owned(), alternate.as_str().into()))
        .collect()
}

fn queue_arguments(queue: &PlannedQueue) -> Map<String, Value> {
    let arguments = queue.arguments.iter();
    arguments
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_object_is_defined() {
        let config: Config = serde_json::from_value(json!({
            "queues": [{"name": "crm", "keys": ["a", "b"], "ttl": "1s"}],
        }))
        .unwrap();
        let topology = Topology::plan(&config);
        let definitions = topology.definitions("v");
        let count = |name: &str| definitions[name].as_array().unwrap().len();
        let all = count("exchanges") + count("queues") + count("bindings");
        assert_eq!(all, topology.objects.len());
        assert_eq!(
            definitions["exchanges"][2],
            json!({
                "name": "chat-sessions", "vhost": "v", "type": "topic", "durable": true,
                "auto_delete": false, "internal": false,
                "arguments": {"alternate-exchange": "chat-sessions.unrouted"},
            })
        );
        assert_eq!(
            definitions["queues"][2],
            json!({
                "name": "crm", "vhost": "v", "durable": true, "auto_delete": false,
                "arguments": {
                    "x-queue-type": "quorum", "x-delivery-limit": 5,
                    "x-overflow": "reject-publish", "x-message-ttl": 1000,
                    "x-dead-letter-exchange": "chat-sessions.dead-letter",
                    "x-dead-letter-strategy": "at-least-once",
                },
            })
        );
        assert_eq!(
            definitions["bindings"][3],
            json!({
                "source": "chat-sessions", "vhost": "v", "destination": "crm",
                "destination_type": "queue", "routing_key": "b", "arguments": {},
            })
        );
    }
}
